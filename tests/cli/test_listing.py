"""The verb `list`: baselines, experiments, corpora and runs, printed and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from research.data.corpus import Corpus
from research.storage.run_folder import RunFolder
from tests import ROOT
from tests.support.command_line import run_command
from tests.support.study_folders import begin_run, fail_run, write_run
from tests.support.synthetic import write_histories

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a corpus and runs of all states."""
    write_histories(tmp_path / "data" / "corpora" / "films", [[0, 1, 2], [2, 1]], num_items=3)
    study = tmp_path / "runs" / "heads"
    figures = {"full": {"hr@10": 0.5, "ndcg@10": 0.25}}
    write_run(study, "next", 0, [1, 2, 3, 4, 5, 6], summary={"test": figures})
    fail_run(study, "next", 1, "ValueError: too wide\nand more")
    RunFolder(begin_run(study, "next", 2)).log("only", 7, 0, {"loss": 1.0})
    begin_run(study, "next", 3)
    (begin_run(study, "next", 4) / "config.json").write_text("{")
    return tmp_path


def listed(capsys: Capture, here: Path, *kinds: str) -> dict[str, list[dict[str, Any]]]:
    folders = ("--runs", here / "runs", "--data-root", here / "data")
    answer = run_command(capsys, "list", *kinds, "--json", *folders)
    assert (answer.code, answer.err) == (0, "")
    found: dict[str, list[dict[str, Any]]] = json.loads(answer.out)
    return found


def test_runs_have_state_and_main_metric(capsys: Capture, here: Path) -> None:
    runs = listed(capsys, here, "runs")["runs"]
    told = [(Path(run["folder"]).name, run["state"], run["problem"]) for run in runs[:4]]
    assert told == [
        ("0", "finished", None),
        ("1", "failed", "ValueError: too wide"),
        ("2", "unfinished", "only, step 7"),
        ("3", "unfinished", "not begun"),
    ]
    metric = ("metric", "value", "candidates")
    assert [runs[0][name] for name in metric] == ["ndcg@10", 0.25, "full"]
    assert [runs[1][name] for name in metric] == [None, None, None]
    assert (runs[0]["corpus"], runs[0]["seed"]) == ("films", 0)
    assert runs[4]["state"] == "unreadable"
    assert "is not valid JSON" in runs[4]["problem"]


def test_corpora_have_their_sizes_and_a_damaged_one_says_so(capsys: Capture, here: Path) -> None:
    broken = here / "data" / "corpora" / "zero"
    broken.mkdir()
    (broken / "manifest.json").write_text("{}")
    films, zero = listed(capsys, here, "corpora")["corpora"]
    sizes = ("name", "users", "items", "interactions", "attributes", "problem")
    assert [films[name] for name in sizes] == ["films", 2, 3, 5, 3, None]
    assert films["fingerprint"] == Corpus.open(Path(films["folder"])).fingerprint
    assert (zero["name"], "manifest.json" in zero["problem"]) == ("zero", True)


def test_the_printed_list_has_a_line_for_each(capsys: Capture, here: Path) -> None:
    folders = ("--runs", here / "runs", "--data-root", here / "data")
    answer = run_command(capsys, "list", *folders)
    assert (answer.code, answer.err) == (0, "")
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    run = here / "runs/heads/films/next"
    assert f"{run}/0 finished ndcg@10 0.2500 (full)" in lines
    assert f"{run}/1 failed ValueError: too wide" in lines
    assert any(line.startswith("films 2 users, 3 items, 5 interactions, 3") for line in lines)
    sasrec = "run baselines.sasrec.full_softmax The strong plain recipe: full softmax at every "
    assert any(line.startswith(sasrec) for line in lines)
    quickstart = "study experiments.quickstart Do SASRec, BERT4Rec and a two-stage S3-Rec beat"
    assert any(line.startswith(quickstart) for line in lines)


def test_where_there_is_nothing_it_says_so(capsys: Capture, tmp_path: Path) -> None:
    folders = ("--runs", tmp_path / "runs", "--data-root", tmp_path)
    answer = run_command(capsys, "list", "runs", "corpora", *folders)
    assert f"runs: none (in {tmp_path / 'runs'}; " in answer.out
    assert f"corpora: none (in {tmp_path / 'corpora'}, where `sixfold prepare`" in answer.out
    assert "baselines" not in answer.out


def test_an_unknown_kind_is_refused_with_those_there_are(capsys: Capture) -> None:
    answer = run_command(capsys, "list", "models")
    assert answer.code == 2
    assert "'baselines'" in answer.err


def test_listing_needs_no_torch(here: Path) -> None:
    script = "import sys; from research.cli.main import main; main(sys.argv[1:]); "
    script += "sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "list", "--runs", str(here / "runs")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")

"""Studies: cells, seeds and corpora one after another, then a table; nothing is done twice."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import experiments.quickstart as quickstart
from baselines.bert4rec import cloze
from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.checkpoint import files as checkpoint
from research.cli.report import print_report
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.windows import Sliding
from research.distributed.accelerator import make_accelerator
from research.distributed.collectives import Processes
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import compare, estimate
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions
from research.storage.records import StudyRecord, read_record
from research.studies import study as study_module
from research.studies.budget import Budget
from research.studies.cells import grid, levels
from research.studies.job import Job
from research.studies.study import Study, StudyOptions, run_study
from tests.support.command_line import (
    command_error,
    files_of,
    run_command,
    shop_corpus,
    snapshot_of,
)
from tests.support.synthetic import markov_histories, write_histories

Capture = pytest.CaptureFixture[str]
QUIET = RunOptions(quiet=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus whose items have attributes, as films have genres."""
    histories = markov_histories(num_users=40, num_items=30, length=9, seed=5)
    return write_histories(tmp_path_factory.mktemp("films") / "films", histories, num_items=30)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Another corpus, of another name."""
    folder = tmp_path_factory.mktemp("other")
    corpus = shop_corpus(folder, seed=6)
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    manifest["name"] = "other"
    (corpus.folder / "manifest.json").write_text(json.dumps(manifest))
    return Corpus.open(corpus.folder)


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of the current folder that a test imports are gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def shrunk(config: RunConfig) -> RunConfig:
    """The config with a tiny encoder and one epoch; sliding windows slide by half a length."""
    if not config.stages:
        return config
    batches = BatchConfig(sequences_per_batch=32)
    stages = tuple(
        replace(
            stage,
            epochs=1,
            batches=batches,
            windows=Sliding(stride=3) if isinstance(stage.windows, Sliding) else stage.windows,
        )
        for stage in config.stages
    )
    encoder = replace(config.encoder, length=6, width=8, layers=1, feed_forward=8)
    return replace(config, encoder=encoder, stages=stages)


def study_of(corpus: Corpus, cells: Mapping[str, RunConfig], **changes: object) -> Study:
    fields: dict[str, object] = {
        "name": "mine", "question": "Which is best?", "cells": cells, "base": next(iter(cells)),
        "corpora": (str(corpus.folder),),
    }  # fmt: skip
    return Study(**{**fields, **changes})  # type: ignore[arg-type]


CELLS = {"popularity": popularity(), "transitions": transitions(), "sasrec": shrunk(full_softmax())}


def run_jobs(study: Study, out: Path, **study_options: object) -> list[Job]:
    """The study's jobs, done one after another and without a trial before."""
    chosen = StudyOptions(probe=False, **study_options)  # type: ignore[arg-type]
    return run_study(
        study, out, options=QUIET, accelerator=make_accelerator(), study_options=chosen
    )


def table_of(out: str, title: str = ", test") -> dict[str, list[str]]:
    """Rows of the first table under a title by cell: the entries after the cell's name."""
    lines = out.splitlines()
    under = next(place for place, line in enumerate(lines) if title in line)
    head = next(n for n in range(under, len(lines)) if lines[n].startswith("───"))
    rows: dict[str, list[str]] = {}
    for line in lines[head + 1 :]:
        if line.strip() and line.startswith(" "):
            # The ends of intervals that are not even.
            continue
        if not line.strip() or not re.search(r"\s{2,}", line.strip()):
            break
        cell, *entries = re.split(r"\s{2,}", line.strip())
        rows[cell] = entries
    return rows


# The code of a study


def test_a_study_runs_every_cell_with_every_seed(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    jobs = run_jobs(study_of(shop, CELLS, seeds=(0, 1)), tmp_path)
    # Counting draws nothing, so one seed says all.
    assert [(job.cell, job.seed) for job in jobs] == [
        ("popularity", 0), ("transitions", 0), ("sasrec", 0), ("sasrec", 1)
    ]  # fmt: skip
    for job in jobs:
        assert job.state() == "finished"
        assert job.folder == tmp_path / "mine" / "shop" / job.cell / str(job.seed)
    capsys.readouterr()
    print_report(tmp_path / "mine")
    out = capsys.readouterr().out
    rows = table_of(out)
    assert list(rows) == ["popularity", "transitions", "sasrec"]
    tables = [RankTable.load(job.folder / "ranks" / "test-full.npz") for job in jobs]
    for column, name in enumerate(("hr@10", "ndcg@10", "mrr")):
        mean = estimate(tables[2:], name).mean
        assert rows["sasrec"][column].startswith(f"{mean:.4f}")
    difference = compare(tables[2:], tables[:1], "ndcg@10").difference
    assert rows["sasrec"][3].startswith(f"{difference:+.4f}".replace("0.", "."))
    costs = table_of(out, "cost of a run")
    assert [entries[0] for entries in costs.values()] == ["1", "1", "2"]
    assert out.startswith("Which is best?")
    assert f"run folders: {tmp_path}/mine/shop/CELL/SEED\n" in out


@pytest.mark.long
def test_a_second_call_repeats_nothing_and_shows_the_same_table(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    study = study_of(shop, CELLS)
    run_jobs(study, tmp_path)
    print_report(tmp_path / "mine")
    first, before = capsys.readouterr().out, snapshot_of(tmp_path)
    run_jobs(study, tmp_path)
    print_report(tmp_path / "mine")
    assert capsys.readouterr().out == first
    assert snapshot_of(tmp_path) == before


@pytest.mark.long
def test_a_study_adds_seeds_and_corpora_to_what_is_there(
    shop: Corpus, other: Corpus, tmp_path: Path
) -> None:
    study = study_of(shop, CELLS)
    run_jobs(study, tmp_path)
    before = files_of(tmp_path)
    run_jobs(replace(study, seeds=(0, 1)), tmp_path)
    after = files_of(tmp_path)
    unchanged = [name for name in before if not name.endswith(StudyRecord.FILE)]
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    added = {name.split("/")[3] for name in after.keys() - before.keys()}
    assert added == {"1"}
    run_jobs(replace(study, corpora=(str(other.folder),)), tmp_path)
    record = json.loads((tmp_path / "mine" / StudyRecord.FILE).read_text())
    assert (record["seeds"], record["corpora"]) == ([0, 1], ["shop", "other"])


def test_the_record_says_what_was_asked(shop: Corpus, tmp_path: Path) -> None:
    wide = replace(CELLS["sasrec"], encoder=replace(CELLS["sasrec"].encoder, width=16))
    cells = {"sasrec": CELLS["sasrec"], "wide": wide}
    study = study_of(shop, cells, budget=Budget(of="steps", amount=2), compared="mrr")
    run_jobs(study, tmp_path, command="python -m research study mine")
    record = json.loads((tmp_path / "mine" / StudyRecord.FILE).read_text())
    assert set(record.pop("marks")) == {"sasrec", "wide"}
    assert {cell: list(own) for cell, own in record.pop("runs")["shop"].items()} == {
        "sasrec": ["0"],
        "wide": ["0"],
    }
    assert record == {
        "name": "mine",
        "question": "Which is best?",
        "base": "sasrec",
        "metrics": ["hr@10", "ndcg@10", "mrr"],
        "compared": "mrr",
        "budget": "2 optimizer steps a run, all stages together",
        "cells": ["sasrec", "wide"],
        "objectives": ["next"],
        "factors": {},
        "levels": {},
        "changes": {"sasrec": {}, "wide": {"encoder.width": [8, 16]}},
        "seeds": [0],
        "corpora": ["shop"],
        "corpus_marks": {},
        "command": "python -m research study mine",
    }


def test_the_record_has_the_level_of_every_factor_of_every_cell(
    shop: Corpus, tmp_path: Path
) -> None:
    cells = grid(popularity(), {"newest": levels("ranker.newest_share", (0.5, 1.0))})
    run_jobs(study_of(shop, cells | {"transitions": transitions()}), tmp_path)
    record = read_record(tmp_path / "mine", StudyRecord)
    assert record is not None
    assert record.cells == ("base", "newest=0.5", "transitions")
    assert record.factors == {"newest": ("0.5", "1")}
    assert record.levels == {"base": {"newest": "1"}, "newest=0.5": {"newest": "0.5"}}


@pytest.mark.long
def test_an_interrupted_study_goes_on_where_it_stopped(
    shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(shop, {**CELLS, "bert4rec": shrunk(cloze())})

    def save(folder: Path, *rest: object, **named: object) -> None:
        if "bert4rec" in str(folder):
            raise KeyboardInterrupt
        real(folder, *rest, **named)  # type: ignore[arg-type]

    real = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run_jobs(study, tmp_path)
    before = files_of(tmp_path / "mine" / "shop" / "sasrec")
    jobs = run_jobs(study, tmp_path)
    assert [job.state() for job in jobs] == ["finished"] * 4
    assert files_of(tmp_path / "mine" / "shop" / "sasrec") == before


def test_every_cell_is_given_the_metrics_and_the_full_ranking_of_the_table(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    sparse = replace(
        popularity(), evaluation=EvaluationConfig(metrics=("hr@3",), candidates=("uniform-5",))
    )
    study = study_of(shop, {"popularity": popularity(), "sparse": sparse}, metrics=("mrr", "map@7"))
    jobs = run_jobs(study, tmp_path)
    test = jobs[1].summary().test
    assert set(test) == {"uniform-5", "full"}
    assert set(test["full"]) == {"hr@3", "mrr", "map@7"}
    print_report(tmp_path / "mine")
    rows = table_of(capsys.readouterr().out)
    assert rows["sparse"][:2] == rows["popularity"][:2]
    assert rows["sparse"][2].startswith("+.0000")


@pytest.mark.long
def test_cells_that_are_evaluated_differently_are_not_compared(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    kept = replace(popularity(), evaluation=EvaluationConfig(seen="kept"))
    run_jobs(study_of(shop, {"popularity": popularity(), "kept": kept}), tmp_path)
    print_report(tmp_path / "mine")
    out = capsys.readouterr().out
    assert out.count(", test") >= 2
    assert list(table_of(out)) == ["popularity"]
    said = " ".join(out.split())
    assert "seen" in said
    assert "kept" in said


@pytest.mark.long
def test_each_corpus_has_a_table(
    capsys: Capture, shop: Corpus, other: Corpus, tmp_path: Path
) -> None:
    corpora = (str(shop.folder), str(other.folder))
    run_jobs(study_of(shop, {"popularity": popularity()}, corpora=corpora), tmp_path)
    print_report(tmp_path / "mine")
    out = capsys.readouterr().out
    assert re.findall(r"^ *(\w+), test", out, flags=re.MULTILINE) == ["shop", "other"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "best"}, "study mine: base is 'best'; cells: popularity, transitions, sasrec"),
        ({"metrics": ("hr@ten",)}, "metric 'hr@ten' does not exist"),
        ({"seeds": ()}, "study mine: corpora, seeds and metrics need at least one entry each"),
        ({"corpora": ()}, "study mine: corpora, seeds and metrics need at least one entry each"),
        ({"metrics": ()}, "study mine: corpora, seeds and metrics need at least one entry each"),
        ({"compared": "hr@11"}, "study mine: compared is 'hr@11'; metrics: hr@10, ndcg@10, mrr"),
        ({"seeds": (0, 1, 0)}, "study mine: seeds are (0, 1, 0); each may be given once"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(
    shop: Corpus, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        study_of(shop, CELLS, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["../up", "a/b", "", "."])
def test_a_name_that_leads_out_of_the_runs_folder_is_refused(
    shop: Corpus, tmp_path: Path, name: str
) -> None:
    cells = {"popularity": popularity()}
    for study in (study_of(shop, cells, name=name), study_of(shop, {name: popularity()})):
        with pytest.raises(InputError, match="cannot be the name of a folder"):
            run_jobs(study, tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_corpus_does_not_choose_where_runs_lie(capsys: Capture, tmp_path: Path) -> None:
    corpus = shop_corpus(tmp_path)
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    manifest["name"] = "../../../elsewhere"
    (corpus.folder / "manifest.json").write_text(json.dumps(manifest))
    given = [f"corpus={corpus.folder}", "--runs", tmp_path / "a" / "b" / "runs"]
    message = command_error(capsys, "run", "baselines.popularity.popularity", *given)
    assert "corpus is named '../../../elsewhere', which cannot be the name of a folder" in message
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "shop"}


# From the command line


OWN = '''"""Is one better than the other?"""
from dataclasses import replace

from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.data.loader import BatchConfig
from research.data.windows import Sliding
from research.studies.study import Study


def small():
    config = full_softmax()
    stage = replace(config.stages[0], epochs=1, batches=BatchConfig(sequences_per_batch=32))
    encoder = replace(config.encoder, length=6, width=8, layers=1, feed_forward=8)
    return replace(config, encoder=encoder, stages=(stage,))


def study() -> Study:
    return Study(
        name="own",
        question="Is one better than the other?",
        cells={"popularity": popularity(), "transitions": transitions(), "small": small()},
        base="popularity",
        corpora=("CORPUS",),
    )


THE_STUDY = study()
'''


@pytest.fixture
def here(shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a study of the reader's own in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_study.py").write_text(OWN.replace("CORPUS", str(shop.folder)))
    return tmp_path


@pytest.mark.parametrize(
    "target",
    [
        "own_study",
        *(
            pytest.param(target, marks=pytest.mark.long)
            for target in ("own_study.study", "own_study:study", "own_study:THE_STUDY")
        ),
    ],
)
def test_a_study_of_ones_own_in_the_current_folder(
    capsys: Capture, here: Path, target: str
) -> None:
    answer = run_command(capsys, "study", target, "--cells", "popularity", "transitions")
    assert (answer.code, answer.err) == (0, "")
    assert list(table_of(answer.out)) == ["popularity", "transitions"]
    assert (here / "runs" / "own" / "shop" / "transitions" / "0" / "summary.json").is_file()


@pytest.mark.long
def test_a_study_prints_its_runs_and_one_table_and_repeats_nothing(
    capsys: Capture, here: Path
) -> None:
    first = run_command(capsys, "study", "own_study", "--seeds", "2", "--no-probe")
    assert (first.code, first.err) == (0, "")
    runs = [line.split("  (")[0] for line in first.out.splitlines() if line.startswith("— ")]
    assert runs == [
        "— shop / popularity / seed 0",
        "— shop / transitions / seed 0",
        "— shop / small / seed 0",
        "— shop / small / seed 1",
    ]
    assert "4 runs" not in first.out
    assert len(re.findall(r"^train: epoch 1  val/ndcg@20 ", first.out, flags=re.MULTILINE)) == 2
    assert list(table_of(first.out)) == ["popularity", "transitions", "small"]
    # Beside the runs, study.json has the command that was given last.
    before = snapshot_of(here / "runs" / "own" / "shop")
    again = run_command(capsys, "study", "own_study", "--seeds", "2")
    assert again.code == 0
    assert table_of(again.out) == table_of(first.out)
    quiet = run_command(capsys, "study", "own_study", "--seeds", "2", "--quiet")
    assert "— shop" not in quiet.out
    assert table_of(quiet.out) == table_of(first.out)
    assert snapshot_of(here / "runs" / "own" / "shop") == before


@pytest.mark.long
def test_a_study_ends_with_its_next_commands(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (here / "own_study.py").read_text()
    commands = '("show {runs}/own/shop/small/0  # a run", "report own")'
    (here / "own_next.py").write_text(text.replace("Study(", f"Study(next_commands={commands}, "))
    command = ["study", "own_next", "--no-probe", "--runs", "my runs"]
    # One of the runs that the commands read may be missing.
    part = run_command(capsys, *command, "--cells", "popularity", "small")
    assert (part.code, "to try next" in part.out) == (0, False)
    monkeypatch.setattr(sys, "executable", str(here / "venv" / "bin" / "python"))
    whole = run_command(capsys, *command)
    assert whole.code == 0
    assert whole.out.splitlines()[-4:] == [
        "",
        "to try next:",
        "  venv/bin/python -m research show 'my runs'/own/shop/small/0  # a run",
        "  venv/bin/python -m research report own",
    ]
    # Nothing is left to do, and the interpreter is that of the system.
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    again = run_command(capsys, *command)
    assert again.out.splitlines()[-1] == "  python -m research report own"


@pytest.mark.long
def test_a_study_without_next_commands_names_its_report(capsys: Capture, here: Path) -> None:
    text = (here / "own_study.py").read_text().replace(', "small": small()', "")
    (here / "own_counts.py").write_text(text)
    said = run_command(capsys, "study", "own_counts").out
    last = said.splitlines()[-1].partition("#")[0]
    assert last.endswith("-m research report runs/own   ")
    assert run_command(capsys, *last.split()[3:]).code == 0
    assert (here / "runs" / "own" / "report.html").is_file()


@pytest.mark.long
def test_a_study_tells_what_it_will_cost_before_it_begins(capsys: Capture, here: Path) -> None:
    planned = run_command(capsys, "study", "own_study", "--seeds", "2", "--plan")
    assert (planned.code, planned.err) == (0, "")
    assert "training each cell for a moment" in planned.out
    assert re.search(r"^4 runs, about \d+ s at most with one process$", planned.out, re.MULTILINE)
    assert not (here / "runs").exists()
    rows = {cell: entries[:4] for cell, entries in table_of(planned.out, "corpus  cell").items()}
    # The corpus comes first: runs, finished, failed, to do.
    assert rows == {"shop": ["small", "2", "0", "0"]}
    finished = run_command(capsys, "study", "own_study", "--cells", "small", "--budget", "steps=1")
    assert finished.code == 0
    assert "equal budget: 1 optimizer steps a run, all stages together" in finished.out
    summary = json.loads((here / "runs/own/shop/small/0/summary.json").read_text())
    assert summary["best"]["train"]["steps"] == 1


@pytest.mark.long
def test_a_study_with_a_failed_run_ends_with_1_and_the_tables_of_the_rest(
    capsys: Capture, here: Path
) -> None:
    text = (here / "own_study.py").read_text()
    wild = "replace(config.stages[0].optimizer, lr=1e30)"
    (here / "own_wild.py").write_text(text.replace("epochs=1", f"epochs=1, optimizer={wild}"))
    answer = run_command(capsys, "study", "own_wild", "--no-probe")
    assert answer.code == 1
    assert list(table_of(answer.out)) == ["popularity", "transitions"]
    assert answer.err.startswith("failed: shop / small / seed 0: FloatingPointError: ")
    assert "small/0/failed.json" in answer.err
    again = run_command(capsys, "study", "own_wild", "--no-probe")
    assert (again.code, again.err) == (1, answer.err)
    assert "— shop" not in again.out
    retried = run_command(capsys, "study", "own_wild", "--no-probe", "--retry")
    assert retried.out.count("— shop") == 1


@pytest.mark.long
def test_a_disk_error_of_a_worker_fails_no_run_and_the_same_command_continues(
    capfd: Capture, here: Path
) -> None:
    folder = here / "runs" / "own" / "shop" / "small" / "0"
    folder.mkdir(parents=True)
    # No checkpoint can be written below a file.
    (folder / "stages").write_text("")
    command = ["study", "own_study", "--no-probe", "--workers", "2", "--threads", "1"]
    answer = run_command(capfd, *command, "--cells", "small", "popularity")
    assert answer.code == 1
    assert list(table_of(answer.out)) == ["popularity"]
    assert "  shop / small / seed 0: stopped  (" in answer.out
    assert f"shop / small / seed 0: [Errno {errno.ENOTDIR}] Not a directory: " in answer.err
    assert "stopped: shop / small / seed 0; the same command continues it\n" in answer.err
    assert "Traceback" not in answer.err
    (folder / "stages").unlink()
    again = run_command(capfd, *command, "--cells", "small", "popularity")
    assert (again.code, again.err) == (0, "")
    assert list(table_of(again.out)) == ["popularity", "small"]


def test_a_full_disk_ends_a_study_with_1_and_says_what_to_do(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*given: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/model.safetensors")

    monkeypatch.setattr(checkpoint, "save", save)
    answer = run_command(capsys, "study", "own_study", "--no-probe")
    said = "[Errno 28] No space left on device: 'runs/model.safetensors'; make room, and run the"
    assert (answer.code, answer.err) == (1, f"sixfold study: {said} same command again\n")


def test_a_corpus_is_opened_by_all_processes_in_agreement(
    shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def prepare_and_open_corpus(name: str, data_root: str, processes: Processes) -> Corpus:
        asked.append((name, data_root, processes.world))
        return shop

    monkeypatch.setattr(study_module, "prepare_and_open_corpus", prepare_and_open_corpus)
    run_jobs(study_of(shop, {"popularity": popularity()}), tmp_path, plan_only=True)
    assert asked == [(str(shop.folder), "data", 1)]


@pytest.mark.long
def test_chosen_cells_are_done_and_the_table_has_all_that_is_there(
    capsys: Capture, here: Path
) -> None:
    answer = run_command(capsys, "study", "own_study", "--cells", "small", "transitions")
    assert list(table_of(answer.out)) == ["transitions", "small"]
    more = run_command(capsys, "study", "own_study", "--cells", "popularity")
    assert list(table_of(more.out)) == ["popularity", "transitions", "small"]


def test_a_study_takes_other_corpora(
    capsys: Capture, here: Path, other: Corpus, shop: Corpus
) -> None:
    given = ["--cells", "popularity", "--corpora", other.folder, shop.folder]
    answer = run_command(capsys, "study", "own_study", *given)
    assert answer.code == 0
    tables = re.findall(r"^ *(\w+), test", answer.out, flags=re.MULTILINE)
    assert tables == ["other", "shop"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["own_study", "--cells", "populrity"],
            "the study has no cell 'populrity'; did you mean popularity?",
        ),
        (["own_study", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["own_study", "--seeds", "-1"], "--seeds is -1; it must be at least 1"),
        (["own_study", "--corpora", "no/where"], "corpus no/where is not a prepared corpus folder"),
        (["own_study", "--corpora", "ml-1k"], "corpus is 'ml-1k', which is neither in "),
        (["own_study.studdy"], "own_study has no 'studdy'; did you mean study?"),
        (["own_study:small"], "own_study:small is or returns a RunConfig, not a Study"),
        (["baselines.sasrec"], "baselines.sasrec is a module; nothing in it is or returns a Study"),
        (["own_nowhere"], "own_nowhere: there is no module 'own_nowhere'; write package.module"),
    ],
)
def test_a_mistake_about_a_study_is_refused(
    capsys: Capture, here: Path, given: list[str], message: str
) -> None:
    assert message in command_error(capsys, "study", *given)
    assert not (here / "runs").exists()


# The quickstart


def test_the_quickstart_compares_its_cells_with_popularity() -> None:
    study = quickstart.study()
    assert list(study.cells) == ["popularity", "transitions", "sasrec", "s3rec", "bert4rec"]
    assert study.base == "popularity"
    assert study.metrics == ("hr@10", "ndcg@10", "mrr")
    assert study.corpora == ("ml-100k",)
    assert list(study.cells["sasrec"].stages[0].objectives) == ["next"]
    assert list(study.cells["bert4rec"].stages[0].objectives) == ["cloze"]
    pretrain, finetune = study.cells["s3rec"].stages
    assert list(pretrain.objectives) == ["aap", "mip", "map", "sp"]
    assert isinstance(pretrain.windows, Sliding)
    assert finetune == replace(study.cells["sasrec"].stages[0], name="finetune")
    for config in study.cells.values():
        assert config.evaluation.seen == "excluded"
        assert "full" in config.evaluation.candidates


@pytest.mark.long
def test_the_quickstart_runs_from_end_to_end(
    capsys: Capture, films: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small() -> Study:
        study = whole()
        cells = {name: shrunk(config) for name, config in study.cells.items()}
        return replace(study, cells=cells, corpora=(str(films.folder),))

    whole = quickstart.study
    monkeypatch.setattr(quickstart, "study", small)
    answer = run_command(capsys, "study", "experiments.quickstart", "--runs", tmp_path)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("train: epoch 1  val/ndcg@10 ") == 2
    assert answer.out.count("finetune: epoch 1  val/ndcg@10 ") == 1
    rows = table_of(answer.out)
    assert list(rows) == ["popularity", "transitions", "sasrec", "s3rec", "bert4rec"]
    for cell, entries in rows.items():
        figures = [float(each.split()[0]) for each in entries[:3]]
        assert all(0.0 <= each <= 1.0 for each in figures)
        folder = tmp_path / "quickstart" / "films" / cell / "0"
        assert (folder / "config.json").is_file()
        assert (folder / "ranks" / "test-full.npz").is_file()
        assert bool(checkpoint.checkpoints_by_step(folder / "stages" / "train", "best")) == (
            cell in ("sasrec", "bert4rec")
        )
    assert f"run folders: {tmp_path}/quickstart/films/CELL/SEED" in answer.out


@pytest.mark.long
def test_the_quickstarts_table_fits_into_eighty_columns(
    capsys: Capture, films: Corpus, tmp_path: Path
) -> None:
    study = quickstart.study()
    cells = {name: shrunk(config) for name, config in study.cells.items()}
    study = replace(study, cells=cells, corpora=(str(films.folder),))
    for job in run_jobs(study, tmp_path):
        # As much as the real quickstart costs at most.
        summary = json.loads((job.folder / "summary.json").read_text())
        summary["cost"].update(seconds=999.9, parameters=9_999_999)
        (job.folder / "summary.json").write_text(json.dumps(summary))
    capsys.readouterr()
    print_report(tmp_path / "quickstart")
    lines = capsys.readouterr().out.splitlines()
    tables = [line for line in lines if re.search(r"^─|\S {2,}\S", line)]
    # Ends of intervals that are not even stand in lines of their own.
    assert len([line for line in tables if not line.startswith(" ")]) == 14
    assert max(map(len, tables)) <= 80
    assert not any("…" in line for line in tables)


# What belongs to a study


@pytest.mark.long
def test_runs_of_a_cell_that_has_changed_since_are_no_longer_of_the_study(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    cells = {"sasrec": CELLS["sasrec"], "popularity": popularity()}
    study = study_of(shop, cells, seeds=(0, 1))
    run_jobs(study, tmp_path)
    slower = replace(
        CELLS["sasrec"].stages[0], optimizer=replace(CELLS["sasrec"].stages[0].optimizer, lr=1e-30)
    )
    changed = {**cells, "sasrec": replace(CELLS["sasrec"], stages=(slower,))}
    run_jobs(study_of(shop, changed, seeds=(2, 3)), tmp_path)
    print_report(tmp_path / "mine")
    out = capsys.readouterr().out
    assert table_of(out, "cost of a run")["sasrec"][0] == "2"
    record = json.loads((tmp_path / "mine" / StudyRecord.FILE).read_text())
    assert sorted(record["runs"]["shop"]["sasrec"]) == ["2", "3"]
    assert sorted(record["runs"]["shop"]["popularity"]) == ["0", "2"]


@pytest.mark.long
def test_runs_under_another_budget_are_not_compared(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    cells = {"a": CELLS["sasrec"], "b": shrunk(cloze())}

    def under(steps: int, cell: str) -> None:
        study = study_of(shop, cells, budget=Budget(of="steps", amount=steps))
        run_study(
            study, tmp_path, options=QUIET, accelerator=make_accelerator(), cells=[cell],
            study_options=StudyOptions(probe=False),
        )  # fmt: skip

    under(3, "a")
    under(2, "b")
    print_report(tmp_path / "mine")
    out = capsys.readouterr().out
    assert "equal budget: 2 optimizer steps a run" in out
    assert list(table_of(out)) == ["b"]


def test_two_corpora_in_one_folder_are_refused(shop: Corpus, tmp_path: Path) -> None:
    twice = (str(shop.folder), f"{shop.folder}/.")
    with pytest.raises(InputError, match="two corpora are called shop"):
        run_jobs(study_of(shop, {"popularity": popularity()}, corpora=twice), tmp_path)


def test_a_share_of_a_stage_that_no_cell_has_is_refused(shop: Corpus) -> None:
    budget = Budget(of="steps", amount=9, shares={"trian": 1.0})
    with pytest.raises(InputError, match=r"budget.shares names 'trian'; did you mean train\?"):
        study_of(shop, {"sasrec": CELLS["sasrec"]}, budget=budget)


# Configs of single corpora, and cells that are not tested


@pytest.mark.long
def test_a_cell_may_have_another_config_on_one_corpus(
    shop: Corpus, other: Corpus, tmp_path: Path
) -> None:
    sasrec = CELLS["sasrec"]
    wide = replace(sasrec, encoder=replace(sasrec.encoder, width=16))
    corpora = (str(shop.folder), str(other.folder))
    study = study_of(shop, {"sasrec": sasrec}, corpora=corpora)
    jobs = run_jobs(replace(study, on_corpus={corpora[1]: {"sasrec": wide}}), tmp_path)
    widths = {job.corpus: job.config.encoder.width for job in jobs}
    assert widths == {"shop": 8, "other": 16}


def test_a_config_of_an_unknown_corpus_or_cell_is_refused(shop: Corpus) -> None:
    for on_corpus in ({"none": {}}, {str(shop.folder): {"none": CELLS["sasrec"]}}):
        with pytest.raises(InputError, match="study mine: on_corpus has "):
            study_of(shop, CELLS, on_corpus=on_corpus)


def test_a_cell_that_leaves_its_test_part_alone_is_refused(shop: Corpus) -> None:
    untested = replace(CELLS["sasrec"], evaluation=EvaluationConfig(test=False))
    with pytest.raises(InputError, match=r"cell sasrec has evaluation\.test off"):
        study_of(shop, {"sasrec": untested})

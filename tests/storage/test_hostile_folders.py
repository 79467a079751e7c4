"""Folders of strangers: nothing outside them is opened, nothing in them is run, obeyed or believed.

Run, study and corpus folders travel. What a reader opens lies in the folder that was named; sizes
are checked before memory is asked for; names are shown and never carried out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from research.checkpoint import files as checkpoint
from research.console import wide_console
from research.data.corpus import Corpus
from research.data.names import Names
from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.evaluation.candidates import read_candidates
from research.evaluation.rank_table import RankTable
from research.evaluation.sampled_candidates import sample_candidates
from research.interop.import_export import stored_zero_rows
from research.report.build import report_of
from research.report.latex import latex_of
from research.report.markdown import figures_table
from research.report.records import read_study
from research.report.terminal import print_report
from research.storage.json_files import read_json, write_json
from research.storage.records import CarriedRecord, RunRecord, StageResult
from research.storage.run_folder import RunFolder
from research.storage.stage_origin import stage_origin
from research.storage.untrusted import file_inside, parse_json, printable, without_home
from tests.support.command_line import TINY, command_error, run_command, shop_corpus
from tests.support.records import run_summary, write_as_json
from tests.support.study_folders import table_of, write_run, write_study
from tests.support.synthetic import write_histories

Capture = pytest.CaptureFixture[str]
OUT = "is a link that leads out of"
SASREC = "baselines.sasrec.full_softmax"
# What a terminal, a browser, LaTeX, a shell and a spreadsheet would obey.
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r"
HOSTILE = f"{ESCAPES}<script>alert(1)</script>\\input{{/etc/passwd}}$(id)\u202e`|\n=cmd()"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = write_study(tmp_path / "heads", ["base", "more"])
    for seed in (0, 1):
        write_run(folder, "base", seed, [2, 4, 8, 2, 4, 8])
        write_run(folder, "more", seed, [1, 2, 4, 1, 2, 8])
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, beside its corpus."""
    from research.cli.main import main

    home = tmp_path_factory.mktemp("finished")
    corpus = shop_corpus(home)
    given = [f"corpus={corpus.folder}", *TINY, "--out", str(home / "run"), "--quiet"]
    assert main(["run", SASREC, *given]) == 0
    return home / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    return path


def moved_out(path: Path) -> Path:
    """Something, now outside its folder, and a link to it in its place."""
    outside = Path(os.environ["OUTSIDE"]) / path.name
    path.rename(outside)
    path.symlink_to(outside)
    return path


@pytest.fixture(autouse=True)
def _outside(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTSIDE", str(tmp_path_factory.mktemp("outside")))


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "a/b", "a\\b", "", "a\0b", "x" * 300])
def test_a_study_cannot_name_a_folder_elsewhere(study: Path, name: str) -> None:
    edited(study / "study.json", lambda stored: stored.update(cells=["base", name]))
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        read_study(study)


@pytest.mark.parametrize("seed", ["../../../etc", "-1", "9" * 400])
def test_a_study_cannot_name_a_seed_that_is_none(study: Path, seed: str) -> None:
    edited(study / "study.json", lambda stored: stored["runs"]["films"]["base"].update({seed: "x"}))
    with pytest.raises(InputError, match=r"study\.json is damaged"):
        read_study(study)


@pytest.mark.parametrize(
    "origin", ["/etc", "../../../../x/y", "..", "../..", "x", 7, "../../a/../b", "../\ud800"]
)
def test_a_stage_cannot_be_taken_from_anywhere(tmp_path: Path, origin: object) -> None:
    write_json(tmp_path / "run" / "stages" / "train" / "shared.json", {"run": origin})
    with pytest.raises(
        InputError, match=r"shared\.json is damaged .*run is .*; allowed: (another|str)"
    ):
        stage_origin(RunFolder(tmp_path / "run", writes=False), "train")


def test_a_stage_is_taken_from_a_run_of_the_study(tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "stages" / "train" / "shared.json", {"run": "../../more/0"})
    assert stage_origin(RunFolder(tmp_path / "run", writes=False), "train") == "../../more/0"
    with pytest.raises(InputError, match=OUT):
        stage_origin(RunFolder(tmp_path / "run", writes=False), "../../../etc")


@pytest.mark.parametrize("name", ["manifest.json", "items.npy", "item_names_blob.npy"])
def test_a_corpus_does_not_lead_out_of_its_folder(tiny_corpus: Corpus, name: str) -> None:
    moved_out(tiny_corpus.folder / name)
    with pytest.raises(InputError, match=OUT):
        Corpus.open(tiny_corpus.folder)


@pytest.mark.parametrize(
    "name", ["films/base/0/config.json", "films/base/0/ranks", "films/more", "study.json"]
)
def test_a_study_does_not_lead_out_of_its_folder(study: Path, name: str) -> None:
    moved_out(study / name)
    with pytest.raises(InputError, match=OUT):
        report_of(study, figures=False)


@pytest.mark.parametrize("name", ["config.json", "summary.json", "metrics.jsonl", "stages"])
def test_a_run_does_not_lead_out_of_its_folder(capsys: Capture, run: Path, name: str) -> None:
    moved_out(run / name)
    verb = "evaluate" if name != "metrics.jsonl" else "show"
    if name == "metrics.jsonl":
        (run / "summary.json").unlink()
    assert "out of" in command_error(capsys, verb, run)


def test_links_within_a_folder_and_to_the_folder_are_followed(tiny_corpus: Corpus) -> None:
    folder = tiny_corpus.folder
    (folder / "items.npy").rename(folder / "kept.npy")
    (folder / "items.npy").symlink_to("kept.npy")
    (folder.parent / "link").symlink_to(folder)
    Corpus.open(folder.parent / "link").verify()
    assert file_inside(folder.parent / "link", "items.npy") == folder.parent / "link" / "items.npy"


def test_a_circle_of_links_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("config.json")
    assert RunFolder(tmp_path, writes=False).read(RunRecord) is None


@pytest.mark.parametrize("made", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, made: Callable[[Path], None]) -> None:
    made(tmp_path / "config.json")
    with pytest.raises(InputError, match="is no file"):
        read_json(tmp_path / "config.json")
    made(tmp_path / "test-full.npz")
    with pytest.raises(InputError, match="is not a file"):
        RankTable.load(tmp_path / "test-full.npz")


def test_a_run_cannot_have_a_device_read_as_negatives(tiny_corpus: Corpus) -> None:
    with pytest.raises(InputError, match="/dev/zero cannot be read"):
        read_candidates(
            Path("/dev/zero"), tiny_corpus, LeaveOneOut().split(tiny_corpus).test, "excluded"
        )


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 200 + "1" + "}" * 200, '{"a": NaN}', '{"a": 1e999}',
        '{"a": ' + "9" * 30 + "}", '{"a": ' + "9" * 5000 + "}", '\ufeff{"a": 1}',
    ],
    ids=["open", "deep", "NaN", "infinite", "30 digits", "5000 digits", "mark"],
)  # fmt: skip
def test_json_that_no_program_of_ours_writes_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"nested|no JSON|too large|digits|Unexpected UTF-8 BOM"):
        parse_json(text)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json is not valid JSON"):
        read_json(tmp_path / "config.json")


def test_a_file_too_large_for_one_of_ours_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="has more than 16,777,216 bytes"):
        read_json(tmp_path / "config.json")


def header(text: str) -> bytes:
    """The first bytes of a .npy file."""
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1152921504606846976,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3L,), }",
        "((((((", "-" * 4000 + "1", "[" * 150 + "]" * 150,
    ],
    ids=["2^60 elements", "objects", "of Python 2", "open", "negative", "deep"],
)  # fmt: skip
def test_an_array_with_a_hostile_header_is_refused(tiny_corpus: Corpus, text: str) -> None:
    (tiny_corpus.folder / "items.npy").write_bytes(header(text) + b"\0" * 12)
    with pytest.raises(InputError, match=r"items\.npy: not a complete \.npy file"):
        Corpus.open(tiny_corpus.folder)


def test_a_rank_table_of_objects_or_2_to_the_60_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    for text in ("'descr': '|O', 'shape': (3,)", f"'descr': '<i4', 'shape': ({1 << 60},)"):
        table_of([1, 2, 3]).save(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members["user.npy"] = header(f"{{{text}, 'fortran_order': False, }}") + b"\0" * 12
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(InputError, match=r"t\.npz is not a rank table"):
            RankTable.load(path)


def test_a_protocol_of_numbers_that_are_no_characters_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    table_of([1, 2, 3]).save(path)
    with np.load(path) as stored:
        columns = dict(stored)
    columns["protocol"] = np.array([0x110000, 0x7B], np.uint32).view("<U2")[0:1].reshape(())
    np.savez(path, **columns)
    with pytest.raises(InputError, match=r"t\.npz is not a rank table .*code point not in range"):
        RankTable.load(path)


def test_a_bomb_of_ranks_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("user.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(65):
            member.write(b"\0" * (1 << 20))
    with pytest.raises(InputError, match="it unpacks to 68,157,440 bytes"):
        RankTable.load(tmp_path / "t.npz")


@pytest.mark.parametrize("ranks", [[], [0.5, 2.0], [float("nan"), 2.0], [-1.0, 2.0]])
def test_ranks_that_no_ranking_gives_are_refused(tmp_path: Path, ranks: list[float]) -> None:
    table_of(ranks).save(tmp_path / "t.npz")
    with pytest.raises(InputError, match="no ranking gives such ranks or counts"):
        RankTable.load(tmp_path / "t.npz")


def test_two_items_of_one_user_cannot_both_be_first(tmp_path: Path) -> None:
    table = table_of([1.0, 1.0, 3.0])
    table.user[1] = 0
    table.history_length[1] = table.history_length[0]
    table.save(tmp_path / "t.npz")
    with pytest.raises(InputError, match="no ranking gives such ranks or counts"):
        RankTable.load(tmp_path / "t.npz")


@pytest.mark.parametrize("length", [1 << 62, 200_000_000, 0])
def test_tensors_with_a_hostile_header_are_refused(tmp_path: Path, length: int) -> None:
    content = struct.pack("<Q", length) + b"{}"
    (tmp_path / "zero_rows.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        stored_zero_rows(tmp_path, 8)
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.read_weights(tmp_path / "step")


def test_a_run_cannot_ask_for_more_candidates_than_there_are(tiny_corpus: Corpus) -> None:
    test = LeaveOneOut().split(tiny_corpus).test
    with pytest.raises(
        InputError, match=r"asks for 1000000000 distinct negatives, but corpus tiny"
    ):
        sample_candidates(tiny_corpus, test, "uniform", 10**9, torch.ones(6))


def test_a_run_cannot_ask_for_a_model_larger_than_its_weights(capsys: Capture, run: Path) -> None:
    def grow(stored: dict[str, Any]) -> None:
        stored["config"]["encoder"].update(width=1 << 18, layers=1000)

    edited(run / "config.json", grow)
    assert "is too small for a model of" in command_error(capsys, "evaluate", run)


def test_a_config_names_no_class_outside(capsys: Capture, run: Path) -> None:
    edited(run / "config.json", lambda stored: stored["config"].update({"class": "os:system"}))
    assert "outside research, baselines" in command_error(capsys, "evaluate", run)


def hostile_study(folder: Path) -> Path:
    """A study with hostile text wherever text may stand; a cell's name is a folder's as well."""
    cell = HOSTILE.replace("/", "∕").replace("\\", "")
    made = write_study(
        folder / "heads", ["base", cell], question=HOSTILE, command=HOSTILE, budget=HOSTILE,
        changes={cell: {HOSTILE: [HOSTILE, {"class": HOSTILE}]}}, seeds=[0],
    )  # fmt: skip
    write_run(made, "base", 0, [2, 4, 8, 2, 4, 8], part=HOSTILE)
    run = write_run(
        made, cell, 0, [1, 2, 4, 1, 2, 8], part=HOSTILE,
        lines=[{"stage": HOSTILE, "step": 1, f"{HOSTILE}/loss/{HOSTILE}": 1.0}],
        summary={"shared": {HOSTILE: f"../../{HOSTILE}/0"}},
    )  # fmt: skip
    assert run.is_dir()
    return made


def controls(text: str) -> str:
    """Characters that something would obey, ends of lines aside."""
    return "".join(re.findall(r"[^\n\x20-\x7e\xa0-\u2027\u2030-\u2065\u2070-\U0010ffff]", text))


def test_a_report_of_hostile_names_obeys_none_of_them(tmp_path: Path, capsys: Capture) -> None:
    found = report_of(hostile_study(tmp_path))
    print_report(found, wide_console())
    said = capsys.readouterr().out
    assert controls(said) == ""
    assert "<script>alert(1)</script>" in said
    tex = latex_of(found)
    assert controls(tex) == ""
    assert "\\input" not in tex.replace("% Needs", "").split("\n", 1)[1]
    assert tex.split("\n", 1)[0].startswith("% ")
    assert controls(figures_table(found, found.corpora[0].tables[0])) == ""


def test_a_page_of_hostile_names_has_no_script(tmp_path: Path) -> None:
    from research.report.html import page_of

    page = page_of(report_of(hostile_study(tmp_path)))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert controls(page) == ""


def test_titles_of_a_corpus_do_not_reach_the_terminal_as_orders(
    capsys: Capture, finished: Path, tmp_path: Path
) -> None:
    write_run(tmp_path, "a", 0, [1])
    run = tmp_path / "films" / "a" / "0"
    carried = CarriedRecord(moved={HOSTILE: (HOSTILE,)}, new=(), left=(), rows={HOSTILE: {}})
    summary = run_summary(
        test={HOSTILE: {"mrr": 0.5}},
        best={HOSTILE: StageResult(epoch=None, value=None, epochs=1, steps=1, skipped=0)},
        carried={HOSTILE: carried},
        notes=(HOSTILE,),
        fingerprint=HOSTILE,
        versions={HOSTILE: HOSTILE},
    )
    write_as_json(run, summary)
    answer = run_command(capsys, "show", run)
    assert answer.code == 0
    assert controls(answer.out) == ""
    corpus = write_histories(
        tmp_path / "corpus", [[0, 1, 2]] * 3, num_items=3, item_names=[HOSTILE, "b", "c"]
    )
    edited(
        corpus.folder / "manifest.json", lambda stored: stored["report"].update({HOSTILE: HOSTILE})
    )
    answer = run_command(capsys, "show", corpus.folder)
    assert answer.code == 0
    assert controls(answer.out) == ""


def test_errors_about_hostile_names_obey_none_of_them(capsys: Capture, run: Path) -> None:
    edited(run / "config.json", lambda stored: stored.update(fingerprint=HOSTILE))
    answer = run_command(capsys, "evaluate", run)
    assert answer.code == 2
    assert controls(answer.err) == ""
    assert answer.err.count("\n") == 1


def test_a_console_shows_controls_as_marks(capsys: Capture) -> None:
    console: Console = wide_console()
    console.print("a\x1b[31mb\u202ec\nd")
    assert capsys.readouterr().out == "a\ufffd[31mb\ufffdc\nd\n"
    assert printable("\r\x00\x9b\ud800\u2028é中") == "\ufffd\ufffd\ufffd\ufffd\ufffdé中"


def test_an_unknown_name_of_many_letters_is_not_compared(tmp_path: Path) -> None:
    names = Names.from_strings([f"{number:05d}" + "ab" * 5000 for number in range(2000)])
    with pytest.raises(InputError, match="is not among the 2,000 names"):
        names.index("ba" * 5002)


def test_paths_below_home_are_written_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/al")
    given = {"a": "/home/al/data", "b": ["--out=/home/al/x", "/home/al"], "/home/al/k": 1}
    assert without_home(given) == {"a": "~/data", "b": ["--out=~/x", "~"], "~/k": 1}
    for other in ("/home/alice/data", "/mnt/home/al/data", "/home/al.old/x", "home/al/x"):
        assert without_home(other) == other
    monkeypatch.setenv("HOME", "/")
    assert without_home("/home/al") == "/home/al"


def test_numbers_stay_as_they_are_without_home() -> None:
    value = {"a": [1, 2.5, None, True], "b": {"c": "text"}}
    assert without_home(value) == value

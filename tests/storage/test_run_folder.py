"""The run folder: what is written whole, what a crash may cut off, and what is dropped again."""

import json
import os
from pathlib import Path

import pytest

from research.errors import InputError
from research.evaluation import rank_table as rank_module
from research.storage.json_files import read_json, write_json
from research.storage.records import RunRecord, RunSummary
from research.storage.run_folder import RunFolder, lock_folder
from tests.support.rank_tables import small_table
from tests.support.records import run_summary


def logged(folder: RunFolder) -> list[tuple[str, int]]:
    return [(str(line["stage"]), int(line["step"])) for line in folder.metrics()]


def test_a_logged_line_holds_stage_step_epoch_and_values(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").log("train", 3, 1, {"train/loss": 0.5, "note": "x"})
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    assert json.loads(text) == {
        "stage": "train", "step": 3, "epoch": 1, "train/loss": 0.5, "note": "x"
    }  # fmt: skip


def test_lines_are_read_in_the_order_of_logging(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log("a", 1, 1, {"loss": 0.25})
    folder.log("b", 2, 1, {"loss": 0.125})
    assert folder.metrics() == [
        {"stage": "a", "step": 1, "epoch": 1, "loss": 0.25},
        {"stage": "b", "step": 2, "epoch": 1, "loss": 0.125},
    ]


def test_a_folder_without_lines_has_none(tmp_path: Path) -> None:
    assert RunFolder(tmp_path / "absent").metrics() == []


def test_values_that_are_not_finite_become_text(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log("a", 1, 1, {"up": float("inf"), "bad": float("nan"), "good": 1.0})
    (line,) = folder.metrics()
    assert (line["up"], line["bad"], line["good"]) == ("inf", "nan", 1.0)
    # Every line is JSON as other programs know it.
    json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)


def test_a_last_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log("a", 1, 1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "a", "step": 2, "ep')
    assert logged(folder) == [("a", 1)]


def test_a_first_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": "a"')
    assert RunFolder(tmp_path).metrics() == []


def test_logging_goes_on_after_a_cut_off_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log("a", 1, 1, {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "a", "step": 2, "ep')
    folder.rewind("a", 1, 1)
    folder.log("a", 2, 1, {})
    assert logged(folder) == [("a", 1), ("a", 2)]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": "a", "st\n{"stage": "a", "step": 2}\n')
    with pytest.raises(
        InputError, match=r"metrics.jsonl: line 1 has been damaged .*; remove that line"
    ):
        RunFolder(tmp_path).metrics()


def test_rewinding_drops_later_lines_of_the_stage_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for stage, step in [("a", 1), ("a", 9), ("b", 1), ("b", 2), ("b", 3), ("b", 3)]:
        folder.log(stage, step, 1, {"loss": 0.1})
    folder.rewind("b", 2, 2)
    assert logged(folder) == [("a", 1), ("a", 9), ("b", 1), ("b", 2)]
    folder.rewind("b", 0, 0)
    assert logged(folder) == [("a", 1), ("a", 9)]


def test_rewinding_keeps_the_lines_it_keeps_as_they_were(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log("a", 1, 1, {"loss": 0.1 + 0.2, "text": "ü\u2028"})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    folder.rewind("a", 1, 1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_rewinding_a_folder_without_lines_makes_none(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").rewind("a", 0, 0)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_does_not_write_leaves_no_trace(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", writes=False)
    folder.log("a", 1, 1, {"loss": 1.0})
    folder.write(run_summary())
    folder.rewind("a", 0, 0)
    assert not (tmp_path / "run").exists()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    summary = run_summary(missed_share=0.1 + 0.2, notes=("ü",))
    folder.write(summary)
    assert folder.read(RunSummary) == summary
    assert folder.read(RunRecord) is None
    assert os.listdir(folder.path) == ["summary.json"]


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_json_that_cannot_be_written_leaves_the_old_file_and_no_other(
    tmp_path: Path, value: object
) -> None:
    write_json(tmp_path / "summary.json", {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "summary.json", value)
    assert read_json(tmp_path / "summary.json") == {"a": 1}
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_file_appears_under_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "summary.json", {"a": 1})

    def crash(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="the disk is full"):
        write_json(tmp_path / "summary.json", {"a": 2})
    assert read_json(tmp_path / "summary.json") == {"a": 1}


def test_a_rank_table_appears_under_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.npz"
    small_table().save(path)
    before = path.read_bytes()

    def crash(*arguments: object, **named: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(rank_module.np, "savez_compressed", crash)
    with pytest.raises(OSError, match="the disk is full"):
        small_table().save(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "holds list, not an object"),
    ],
)
def test_a_damaged_json_file_is_an_error_that_names_it(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=f"config.json {message}"):
        RunFolder(tmp_path).read(RunRecord)


def test_a_missing_json_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"config.json does not exist; is .* a folder of Sixfold's\?"
    ):
        read_json(tmp_path / "config.json")


def test_a_folder_is_held_against_others_while_a_run_is_done_in_it(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process is doing the run in")
    with RunFolder(tmp_path / "run"), refused:
        lock_folder(tmp_path / "run", timeout=0.0)
    released = lock_folder(tmp_path / "run", timeout=0.0)
    assert released is not None
    os.close(released)


def test_who_only_reads_holds_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path), RunFolder(tmp_path / "run", writes=False):
        assert not (tmp_path / "run").exists()
    with RunFolder(tmp_path), RunFolder(tmp_path, writes=False):
        pass

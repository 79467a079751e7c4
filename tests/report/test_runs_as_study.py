"""Runs that were begun one by one are compared; a study is compared with another of its cells."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from research.errors import InputError
from research.report.build import report_of
from research.report.csv_table import frame_of
from research.report.records import read_study
from research.report.runs_as_study import with_base
from research.storage.records import StudyRecord
from tests.support.command_line import command_error, run_command
from tests.support.study_folders import write_run, write_study
from tests.support.synthetic import write_histories

Capture = pytest.CaptureFixture[str]
HISTORIES = [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]


def test_runs_of_one_folder_are_a_study(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_histories(tmp_path / "data" / "corpora" / "films", HISTORIES, num_items=4)
    common = ("--corpus", "films", "--study", "mine")
    assert "mine is not a study" in command_error(capsys, "report", "mine")
    for name in ("popularity", "transitions"):
        run = ("run", f"baselines.{name}.{name}", "--cell", name)
        assert run_command(capsys, *run, *common).code == 0
    said = run_command(capsys, "report", "mine")
    assert said.code == 0
    assert said.out.startswith("How do popularity, transitions compare?\n")
    assert "NDCG@10 vs" in said.out
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
    assert not (tmp_path / "runs" / "mine" / StudyRecord.FILE).exists()
    record = read_study(tmp_path / "runs" / "mine")
    assert (record.base, record.cells) == ("popularity", ("popularity", "transitions"))
    assert record.changes["transitions"]
    assert not any(field.startswith(("seed", "corpus")) for field in record.changes["transitions"])


@pytest.mark.long
def test_a_study_is_compared_with_another_cell(capsys: Capture, tmp_path: Path) -> None:
    changes = {"a": {}, "b": {"x": [1, 2]}, "c": {"x": [1, 3], "y": [None, 4]}}
    folder = write_study(tmp_path / "s", ["a", "b", "c"], seeds=[0], changes=changes)
    for cell, ranks in (("a", [1, 2, 3, 4, 5, 6]), ("b", [2, 2, 2, 2, 2, 2]), ("c", [1] * 6)):
        write_run(folder, cell, 0, ranks)
    frames = {base: frame_of(report_of(folder, base=base)) for base in ("a", "b")}
    rows = {
        base: frame[frame["compared"]].set_index("cell")["difference"]
        for base, frame in frames.items()
    }
    assert rows["b"]["a"] == -rows["a"]["b"]
    assert pd.isna(rows["b"]["b"])
    record = with_base(read_study(folder), "b")
    assert record.changes == {"a": {"x": (2, 1)}, "b": {}, "c": {"x": (2, 3), "y": (None, 4)}}
    assert with_base(record, "a").changes == {
        "a": {}, "b": {"x": (1, 2)}, "c": {"x": (1, 3), "y": (None, 4)}
    }  # fmt: skip
    assert run_command(capsys, "report", folder, "--base", "b").code == 0
    with pytest.raises(InputError, match="the study has no cell 'd'; allowed: a, b, c"):
        report_of(folder, base="d")

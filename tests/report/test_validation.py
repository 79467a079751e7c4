"""A report on validation, and what a report on the test says by validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.report.build import report_of
from research.report.csv_table import frame_of
from research.report.formatting import best_of, gap_of
from research.report.latex import latex_of
from research.report.schema import ProtocolTable, Report
from research.report.validation import places_of
from tests.support.command_line import run_command
from tests.support.study_folders import write_run, write_study

Capture = pytest.CaptureFixture[str]
# MRR 1, 1/2 and 1/4.
FIRST, SECOND, FOURTH = [1] * 6, [2] * 6, [4] * 6


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """`lucky` is best on test and `chosen` on validation, with both seeds."""
    folder = write_study(tmp_path / "heads", ["next", "lucky", "chosen"])
    for seed in (0, 1):
        write_run(folder, "next", seed, FOURTH, validation=FOURTH)
        write_run(folder, "lucky", seed, FIRST, validation=SECOND)
        write_run(folder, "chosen", seed, SECOND, validation=FIRST)
    return folder


def only_table(report: Report) -> ProtocolTable:
    ((table,),) = (corpus.tables for corpus in report.corpora)
    return table


def test_cells_are_ranked_by_validation_in_a_table_of_test_figures(study: Path) -> None:
    report = report_of(study)
    table = only_table(report)
    figures = table.figures("mrr")
    assert {cell: figure.estimate.mean for cell, figure in figures.items()} == {
        "next": 0.25, "lucky": 1.0, "chosen": 0.5,
    }  # fmt: skip
    assert {cell: figure.place for cell, figure in figures.items()} == {
        "next": 3, "lucky": 2, "chosen": 1,
    }  # fmt: skip
    assert figures["chosen"].validation == 1.0
    said = "Best by validation MRR: chosen (1.0000); the test is not for choosing."
    assert best_of(report, table) == said
    (row,) = (line for line in latex_of(report).splitlines() if line.startswith("chosen"))
    assert r"\textbf{0.5000}" in row
    assert "Bold: best by the same metric on validation" in latex_of(report)


def test_places_are_those_that_sorting_gives() -> None:
    generator = np.random.default_rng(0)
    means = {str(cell): float(value) for cell, value in enumerate(generator.integers(0, 9, 40))}
    in_order = sorted(means.values(), reverse=True)
    assert places_of(means) == {cell: 1 + in_order.index(mean) for cell, mean in means.items()}
    assert places_of({}) == {}
    assert places_of({"alone": 0.5}) == {}


def test_the_gap_is_test_minus_validation(study: Path) -> None:
    gaps = {gap.cell: gap for gap in only_table(report_of(study)).gaps}
    assert (gaps["lucky"].difference, gaps["chosen"].difference) == (0.5, -0.5)
    assert gap_of(gaps["chosen"]) == "-0.5000 (-50.0 %)"
    assert gap_of(gaps["lucky"]) == "+0.5000 (+100.0 %)"
    assert (gaps["next"].validation.mean, gaps["next"].test.mean) == (0.25, 0.25)


def test_a_report_on_validation_uses_no_test_figure(study: Path) -> None:
    for path in study.glob("*/*/*/ranks/test-full.npz"):
        path.write_bytes(b"not read")
    report = report_of(study, part="validation")
    table = only_table(report)
    assert table.title == "validation, full ranking, seen items excluded, ties in expectation"
    means = {cell: figure.estimate.mean for cell, figure in table.figures("mrr").items()}
    assert means == {"next": 0.25, "lucky": 0.5, "chosen": 1.0}
    assert table.gaps == ()
    assert best_of(report, table) == "Best by validation MRR: chosen (1.0000)."
    assert {run.value for run in report.corpora[0].runs} == {0.25, 0.5, 1.0}
    assert "they are for choosing" in table.notes[0]
    assert set(frame_of(report)["part"]) == {"validation"}


@pytest.mark.long
def test_the_verb_writes_a_validation_report_beside_the_other(study: Path, capsys: Capture) -> None:
    assert run_command(capsys, "report", study).code == 0
    before = (study / "report.html").read_bytes()
    answer = run_command(capsys, "report", study, "--part", "validation")
    assert answer.code == 0
    files = [str(study / f"report-validation.{kind}") for kind in ("html", "csv", "tex")]
    slices = str(study / "report-validation-slices.csv")
    assert answer.out.splitlines()[-4:] == [files[0], files[1], files[2], slices]
    assert "films, validation, full ranking" in answer.out
    assert "test" not in answer.out.replace(str(study), "").replace("No test figure is used", "")
    assert (study / "report.html").read_bytes() == before
    assert set(pd.read_csv(files[1])["part"]) == {"validation"}
    assert r"\label{tab:heads-films-validation-1}" in Path(files[2]).read_text()
    assert run_command(capsys, "report", study, "--part", "train").code == 2


def test_runs_without_validation_have_no_place_and_no_validation_report(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["a", "b"], seeds=[0])
    for cell in ("a", "b"):
        write_run(folder, cell, 0, FIRST, summary={"val": {}})
        (folder / "films" / cell / "0" / "ranks" / "validation-full.npz").unlink()
    report = report_of(folder)
    table = only_table(report)
    assert [figure.place for figure in table.figures("mrr").values()] == [None, None]
    assert (table.gaps, best_of(report, table), report.corpora[0].notes) == ((), "", ())
    assert "Bold" not in latex_of(report)
    assert r"\textbf" not in latex_of(report)
    with pytest.raises(InputError, match="has no run with a validation part"):
        report_of(folder, part="validation")


def test_a_cell_without_validation_is_named_and_the_others_are_ranked(study: Path) -> None:
    for seed in (0, 1):
        write_run(study, "chosen", seed, SECOND, summary={"val": {}})
    report = report_of(study)
    table = only_table(report)
    assert [figure.place for figure in table.figures("mrr").values()] == [2, 1, None]
    assert table.notes == ("Not ranked by validation, for want of one or of a seed: chosen.",)
    assert best_of(report, table).startswith("Best by validation MRR: lucky (0.5000)")


def test_a_lost_validation_table_is_told_and_a_damaged_one_is_refused(study: Path) -> None:
    path = study / "films" / "lucky" / "1" / "ranks" / "validation-full.npz"
    path.unlink()
    report = report_of(study)
    assert report.corpora[0].notes[0].startswith("lucky/1 lost ranks/validation-full.npz and")
    # A mean over its other seed alone does not rank the cell.
    assert only_table(report).figures("mrr")["lucky"].place is None
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"validation-full\.npz is not a rank table"):
        report_of(study)


def test_cells_that_were_validated_differently_have_no_best_one(study: Path) -> None:
    for seed in (0, 1):
        path = study / "films" / "chosen" / str(seed) / "ranks" / "validation-full.npz"
        table = RankTable.load(path)
        RankTable(**{**vars(table), "protocol": {**table.protocol, "seen": "kept"}}).save(path)
    report = report_of(study)
    table_of_test = only_table(report)
    assert best_of(report, table_of_test) == ""
    assert table_of_test.notes == (
        "No cell is called the best: they were validated under different protocols.",
    )
    assert [len(table.rows) for table in report_of(study, part="validation").corpora[0].tables] == [
        2, 1,
    ]  # fmt: skip


def test_sampled_candidates_are_ranked_by_the_whole_validation_and_have_no_gap(
    study: Path,
) -> None:
    for path in list(study.glob("films/*/*/ranks/test-full.npz")):
        table = RankTable.load(path)
        sampled = {**vars(table), "protocol": {**table.protocol, "candidates": "uniform-5"}}
        RankTable(**sampled).save(path.with_name("test-uniform-5.npz"))
    full, sampled_table = report_of(study).corpora[0].tables
    assert [figure.place for figure in sampled_table.figures("mrr").values()] == [3, 2, 1]
    assert (len(full.gaps), sampled_table.gaps) == (3, ())

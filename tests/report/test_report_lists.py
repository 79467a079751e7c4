"""What a report says of recommended lists, and its slices by time, attribute and new items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from research.errors import InputError
from research.evaluation.list_table import ListTable
from research.evaluation.rank_table import RankTable
from research.report.build import report_of
from research.report.csv_table import frame_of, slices_of
from research.report.files import write
from research.report.latex import latex_of
from research.report.schema import ListsTable, Report
from research.report.slices import time_text
from research.report.terminal import print_report, print_slices
from research.report.wandb_report import specification
from tests.evaluation.reference_list_metrics import table_of as lists_of
from tests.support.study_folders import PROTOCOL, table_of, write_run, write_study

BASE = [1, 2, 4, 6, 1, 2]
BETTER = [1, 1, 2, 4, 1, 1]
# Six users have the same list in the base, and all items in the other cell.
SAME = [[0, 1]] * 6
SPREAD = [[0, 1], [2, 3], [4, 5], [1, 0], [3, 2], [5, 4]]
TRAINED = [[0, 1, 0], [0, 2], [0, 3], [0, 4], [0, 5], [1, 0]]
ATTRIBUTES = [[0], [0, 1], [1], [2], [], [2]]


def stored(path: Path, lists: Sequence[Sequence[int]], seen: str = "excluded") -> ListTable:
    """Write the list table of a run."""
    table = lists_of(
        lists, 6, trained=TRAINED, attributes=ATTRIBUTES,
        **{**PROTOCOL, "seen": seen},
    )  # fmt: skip
    table.save(path / "ranks" / f"lists-test-{seen}.npz")
    return table


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """`next` and `better` with two seeds each, and lists of both."""
    folder = write_study(tmp_path / "heads", ["next", "better"])
    for seed in (0, 1):
        stored(write_run(folder, "next", seed, BASE), SAME)
        stored(write_run(folder, "better", seed, BETTER), SPREAD[seed:] + SPREAD[:seed])
    return folder


def only_lists(report: Report) -> ListsTable:
    ((table,),) = (corpus.lists for corpus in report.corpora)
    return table


def printed(report: Report, *, slices: bool = False) -> str:
    console = Console(file=StringIO(), width=300, markup=False, highlight=False)
    (print_slices if slices else print_report)(report, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


# Lists


def test_without_a_metric_named_all_that_the_lists_can_give_are_shown(study: Path) -> None:
    table = only_lists(report_of(study))
    assert table.metrics == (
        "coverage@2", "gini@2", "novelty@2", "arp@2", "lift@2", "diversity@2",
    )  # fmt: skip
    assert table.title == "test, recommended lists, seen items excluded"
    assert (table.users, table.has_base) == (6, True)
    means = {
        row.cell: (row.figures["coverage@2"].estimate.mean, row.figures["gini@2"].estimate.mean)
        for row in table.rows
    }
    assert means == {
        "next": (pytest.approx(2 / 6), pytest.approx(4 / 6)),
        "better": (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12)),
    }


def test_cells_are_compared_to_the_base_for_each_metric(study: Path) -> None:
    first, second = only_lists(report_of(study)).rows
    assert all(figure.comparison is None for figure in first.figures.values())
    comparison = second.figures["coverage@2"].comparison
    assert comparison is not None
    assert comparison.difference == pytest.approx(4 / 6)
    assert (comparison.seeds, comparison.users) == (2, 6)
    assert second.figures["coverage@2"].corrected == comparison.p


def test_metrics_that_the_study_names_are_shown_and_are_not_of_ranks(study: Path) -> None:
    write_study(
        study, ["next", "better"], metrics=["mrr", "gini@1", "novelty@3", "repeat@2"],
        compared="mrr",
    )  # fmt: skip
    report = report_of(study)
    assert report.metrics == ("mrr",)
    table = only_lists(report)
    assert table.metrics == ("gini@1",)
    assert (
        "NOVELTY@3 is left out: the lists have 2 items, too few for a cutoff of 3" in table.notes[0]
    )
    assert "REPEAT@2 is left out: repeat: these lists exclude seen items" in table.notes[1]
    assert table.notes[2].startswith("GINI, how unevenly items are recommended")
    ((ranks,),) = (corpus.tables for corpus in report.corpora)
    assert list(ranks.rows[0].figures) == ["mrr"]


def test_lists_of_two_policies_for_seen_items_have_a_table_each(study: Path) -> None:
    for cell in ("next", "better"):
        stored(study / "films" / cell / "0", SPREAD, "kept")
    tables = report_of(study).corpora[0].lists
    assert [table.protocol["seen"] for table in tables] == ["excluded", "kept"]
    assert tables[1].metrics[-2:] == ("repeat@2", "explore@2")
    assert [len(row.seeds) for row in tables[1].rows] == [1, 1]


def test_cells_without_lists_are_named(study: Path) -> None:
    for seed in (0, 1):
        (study / "films" / "next" / str(seed) / "ranks" / "lists-test-excluded.npz").unlink()
    table = only_lists(report_of(study))
    assert [row.cell for row in table.rows] == ["better"]
    assert table.notes[:2] == (
        "The base, next, is not in this table: nothing is compared.",
        "No such lists are stored for next; `evaluate RUN --metrics coverage@10 --save-lists` "
        "stores those of a run.",
    )


def test_a_study_without_lists_has_no_such_table(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next"], seeds=[0])
    write_run(folder, "next", 0, BASE)
    report = report_of(folder)
    assert report.corpora[0].lists == ()
    assert "recommended lists" not in printed(report)


def test_a_damaged_list_table_is_named(study: Path) -> None:
    path = study / "films" / "better" / "1" / "ranks" / "lists-test-excluded.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"lists-test-excluded\.npz is not a list table"):
        report_of(study)


def test_a_study_that_is_compared_by_lists_is_refused(study: Path) -> None:
    write_study(study, ["next", "better"], metrics=["mrr", "gini@1"], compared="gini@1")
    with pytest.raises(InputError, match="compares cells by gini@1, a metric of recommended lists"):
        report_of(study)


def test_every_form_has_the_lists(study: Path) -> None:
    report = report_of(study)
    out = printed(report)
    assert "films, test, recommended lists, seen items excluded, 6 users" in out
    assert "COVERAGE@2" in out
    assert "1.0000" in out
    frame = frame_of(report)
    rows = frame[frame["candidates"] == "lists"]
    assert len(rows) == 2 * 6
    assert not rows["compared"].any()
    assert set(frame[frame["candidates"] == "full"]["metric"]) == {"hr@1", "mrr"}
    latex = latex_of(report)
    assert r"\label{tab:heads-films-lists-1}" in latex
    assert "COVERAGE@2" in latex
    page, *_ = write(report, study)
    text = page.read_text()
    assert "<h3>Test, recommended lists, seen items excluded</h3>" in text
    assert "DIVERSITY@2" in text
    assert "share of all items that stand in any list" in text
    assert "COVERAGE@2" in str(specification(report))


# Slices


def with_slices(ranks: Sequence[float]) -> RankTable:
    """The table of `study_folders`, with a time and attributes of each item."""
    return replace(
        table_of(ranks),
        since_last=np.array([0, 0, 3600 * 5, 86400 * 3, 86400 * 4, 86400 * 900]),
        attribute_bits=np.array([0b01, 0b11, 0b01, 0b11, 0b00, 0b10]),
        attribute_names=("brand:\x1bSonny", "red"),
    )


@pytest.fixture
def sliced(tmp_path: Path) -> Path:
    folder = write_study(tmp_path / "heads", ["next", "better"], seeds=[0])
    for cell, ranks in {"next": BASE, "better": BETTER}.items():
        path = write_run(folder, cell, 0, ranks)
        with_slices(ranks).save(path / "ranks" / "test-full.npz")
    return folder


def test_items_are_sliced_by_time_attribute_and_novelty(sliced: Path) -> None:
    report = report_of(sliced)
    slicings = {slicing.by: slicing for slicing in report.corpora[0].tables[0].slicings}
    assert list(slicings) == [
        "training interactions of the item",
        "items in the history",
        "whether the item is new",
        "time since the newest event of the history, in quartiles",
        "attribute of the item (an item counts in each that it has)",
    ]
    new = slicings["whether the item is new"]
    # Counts 0, 0, 3, 4, 50, 1000.
    assert [(each.label, each.questions) for each in new.buckets] == [
        ("never trained on", 2), ("trained on", 4),
    ]  # fmt: skip
    # Reciprocal ranks 1 and 1/2; 1/4, 1/6, 1 and 1/2.
    assert [each.estimates["next"].mean for each in new.buckets] == pytest.approx([3 / 4, 23 / 48])
    attributes = slicings["attribute of the item (an item counts in each that it has)"]
    assert [(each.label, each.questions) for each in attributes.buckets] == [
        ("brand:�Sonny", 4), ("red", 3),
    ]  # fmt: skip
    assert attributes.buckets[1].estimates["next"].mean == pytest.approx(
        (1 / 2 + 1 / 6 + 1 / 2) / 3
    )
    times = slicings["time since the newest event of the history, in quartiles"]
    # Quartiles 5 hours, 3 days, 4 days: two items before, one and one between, two after.
    assert [(each.label, each.questions) for each in times.buckets] == [
        ("under 5 hours", 2), ("4 days or more", 2),
    ]  # fmt: skip
    assert times.left_out == 2


def test_a_slicing_of_one_slice_or_of_no_columns_is_left_out(sliced: Path) -> None:
    same = replace(with_slices(BASE), item_count=np.full(6, 7, np.int32))
    for cell, times in {"next": None, "better": same.since_last}.items():
        path = sliced / "films" / cell / "0" / "ranks" / "test-full.npz"
        replace(same, since_last=times).save(path)
    by = [slicing.by for slicing in report_of(sliced).corpora[0].tables[0].slicings]
    assert by == [
        "training interactions of the item",
        "items in the history",
        "attribute of the item (an item counts in each that it has)",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"), (119, "119 seconds"), (120, "2 minutes"), (7199, "120 minutes"),
        (7200, "2 hours"), (86400 * 3.5, "3.5 days"), (86400 * 800, "2.19 years"),
    ],
)  # fmt: skip
def test_a_time_is_told_in_its_unit(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_slices_are_written_as_csv_and_printed(sliced: Path) -> None:
    report = report_of(sliced)
    frame = slices_of(report)
    assert list(frame["cell"].unique()) == ["next", "better"]
    row = frame[(frame["slice"] == "red") & (frame["cell"] == "better")].iloc[0]
    assert row["metric"] == "mrr"
    assert (row["items"], row["slice_users"]) == (3, 3)
    # Ranks 1, 4 and 1.
    assert row["mean"] == pytest.approx((1 + 1 / 4 + 1) / 3)
    paths = write(report, sliced)
    assert [path.name for path in paths][-1] == "report-slices.csv"
    assert len(pd.read_csv(paths[-1])) == len(frame)
    out = printed(report, slices=True)
    assert "films, MRR by attribute of the item (an item counts in each that it has)" in out
    assert "2 items are alone in their slice: not shown" in out
    assert any(line.startswith("red") and "0.7500" in line for line in out.splitlines())


def test_a_part_without_lists_says_so_where_the_study_asks_for_them(tmp_path: Path) -> None:
    folder = write_study(
        tmp_path / "s", ["next", "better"], seeds=[0], metrics=["mrr", "coverage@10"]
    )
    for cell, ranks in {"next": BASE, "better": BETTER}.items():
        write_run(folder, cell, 0, ranks, validation=ranks)
    (part,) = report_of(folder, part="validation").corpora
    assert part.lists == ()
    assert part.notes[-1] == (
        "COVERAGE@10: left out, as no run has stored lists of its validation part: a run stores "
        "those of its test alone. `evaluate RUN --part validation --metrics coverage@10 "
        "--save-lists` stores those of a run."
    )
    (test,) = report_of(folder).corpora
    assert test.notes[-1].startswith(
        "COVERAGE@10: left out, as no run has stored lists of its test"
    )


def test_a_validation_report_says_that_the_lists_of_the_test_are_left_out(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next"], seeds=[0], metrics=["mrr"])
    path = write_run(folder, "next", 0, BASE, validation=BASE)
    assert report_of(folder, part="validation").corpora[0].notes == ()
    (path / "ranks" / "lists-test-excluded.npz").touch()
    (note,) = report_of(folder, part="validation").corpora[0].notes
    assert note.startswith("Metrics of recommended lists: left out, as no run has stored lists of")

"""Effects of crossed factors in a report: by hand, in every form, and why some cannot be told."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from research.evaluation.statistics import holm
from research.report.build import report_of
from research.report.csv_table import effects_frame_of, frame_of
from research.report.formatting import effects_verdict
from research.report.html import page_of
from research.report.latex import latex_of
from research.report.markdown import effects_table, figures_table
from research.report.schema import Factorial, ProtocolTable, Report
from research.report.terminal import print_report
from research.report.wandb_report import specification
from tests.support.command_line import run_command
from tests.support.study_folders import fail_run, write_run, write_study

FACTORS = {"a": ["0", "1"], "b": ["0", "1"]}
LEVELS = {
    "none": {"a": "0", "b": "0"},
    "a": {"a": "1", "b": "0"},
    "b": {"a": "0", "b": "1"},
    "both": {"a": "1", "b": "1"},
}
# MRR .375, .75, .375 and 4.25 / 6.
RANKS = {
    "none": [2, 4, 2, 4, 2, 4],
    "a": [1, 2, 1, 2, 1, 2],
    "b": [2, 4, 2, 4, 2, 4],
    "both": [1, 2, 1, 2, 1, 4],
}


def crossed(
    folder: Path,
    ranks: Mapping[str, Sequence[float]] = RANKS,
    *,
    levels: Mapping[str, Mapping[str, str]] = LEVELS,
    factors: Mapping[str, Sequence[str]] = FACTORS,
    seeds: Sequence[int] = (0, 1),
    repeat: int = 1,
    **changes: Any,
) -> Path:
    """A study whose cells cross factors; each held-out item has the same rank with every seed."""
    cells = list(dict.fromkeys([*levels, *ranks]))
    write_study(folder, cells, seeds=list(seeds), factors=factors, levels=levels, **changes)
    for cell, own in ranks.items():
        for seed in seeds:
            write_run(folder, cell, seed, [*own] * repeat)
    return folder


def table_of(report: Report) -> ProtocolTable:
    return report.corpora[0].tables[0]


def factorial_of(folder: Path) -> Factorial:
    factorial = table_of(report_of(folder)).factorial
    assert factorial is not None
    return factorial


def sizes_of(factorial: Factorial, metric: str = "mrr") -> dict[str, float | None]:
    return {
        f"{effect.name}: {effect.contrast}": None
        if effect.comparison is None
        else round(effect.comparison.difference, 9)
        for effect in factorial.effects[metric]
    }


# By hand


def test_effects_are_means_of_differences_and_a_difference_of_differences(tmp_path: Path) -> None:
    factorial = factorial_of(crossed(tmp_path / "s"))
    assert sizes_of(factorial) == {
        "a: 1 vs 0": round((0.375 + 2 / 6) / 2, 9),
        "b: 1 vs 0": round(-0.25 / 6 / 2, 9),
        "a × b: 1 vs 0, 1 vs 0": round(-0.25 / 6, 9),
    }
    # HR@1 is 0, 1/2, 0, 1/2.
    assert list(sizes_of(factorial, "hr@1").values()) == [0.5, 0.0, 0.0]
    found = [each.comparison for each in factorial.effects["mrr"]]
    assert [(each.seeds, each.users) for each in found if each is not None] == [(2, 6)] * 3
    assert factorial.notes == ()


def test_p_is_corrected_over_all_effects_of_a_table(tmp_path: Path) -> None:
    factorial = factorial_of(crossed(tmp_path / "s", repeat=10))
    effects = factorial.effects["mrr"]
    p = [each.comparison.p for each in effects if each.comparison is not None]
    assert [each.corrected for each in effects] == holm(p)
    assert [each.mark for each in effects] == ["†", "†", "†"]
    assert effects_verdict(factorial, "mrr") == (
        ("effects", "a (1 vs 0) +0.3542; b (1 vs 0) −0.0208; a × b (1 vs 0, 1 vs 0) −0.0417"),
    )


def test_means_of_an_interaction_are_over_the_other_factors(tmp_path: Path) -> None:
    levels = {f"{a}{b}{c}": {"a": a, "b": b, "c": c} for a in "01" for b in "012" for c in "01"}
    ranks = {cell: [1, 2] if cell[2] == "0" else [1, 1] for cell in levels}
    ranks["110"] = [4, 4]
    factors = {"a": ["0", "1"], "b": ["0", "1", "2"], "c": ["0", "1"]}
    factorial = factorial_of(
        crossed(tmp_path / "s", ranks, levels=levels, factors=factors, seeds=[0])
    )
    pairs = [(each.lines, each.along) for each in factorial.interactions]
    # The factor of more levels is laid along; of two of as many, the second.
    assert pairs == [("a", "b"), ("a", "c"), ("c", "b")]
    means = {
        line: [each and each.mean for each in along.values()]
        for line, along in factorial.interactions[0].estimates.items()
    }
    assert means == {"0": [0.875, 0.875, 0.875], "1": [0.875, 0.625, 0.875]}


# What cannot be told


def test_a_failed_cell_is_named_as_the_reason(tmp_path: Path) -> None:
    folder = crossed(tmp_path / "s")
    for seed in (0, 1):
        (folder / "films" / "both" / str(seed) / "summary.json").unlink()
        fail_run(folder, "both", seed, "ValueError: x")
    factorial = factorial_of(folder)
    assert set(sizes_of(factorial).values()) == {None}
    assert factorial.notes == ("Not estimable: every effect, as both failed.",)
    assert effects_verdict(factorial, "mrr")[0][0] == "not estimable"
    # The means that are there are drawn.
    (plot,) = factorial.interactions
    assert [[each is None for each in line.values()] for line in plot.estimates.values()] == [
        [False, False],
        [False, True],
    ]


def test_a_combination_that_is_no_cell_hides_what_averages_over_it(tmp_path: Path) -> None:
    levels = {f"{a}{b}": {"a": a, "b": b} for a in "012" for b in "01" if (a, b) != ("2", "1")}
    ranks = {cell: [1, 2, 4] for cell in levels}
    factors = {"a": ["0", "1", "2"], "b": ["0", "1"]}
    factorial = factorial_of(
        crossed(tmp_path / "s", ranks, levels=levels, factors=factors, seeds=[0])
    )
    assert sizes_of(factorial) == {
        "a: 1 vs 0": 0.0,
        "a: 2 vs 0": None,
        "b: 1 vs 0": None,
        "a × b: 1 vs 0, 1 vs 0": 0.0,
        "a × b: 2 vs 0, 1 vs 0": None,
    }
    assert factorial.notes == (
        "Not estimable: a (2 vs 0), b (1 vs 0), a × b (2 vs 0, 1 vs 0), as the study has no cell "
        "a=2,b=1.",
    )


def test_cells_under_another_protocol_are_not_mixed(tmp_path: Path) -> None:
    folder = crossed(tmp_path / "s")
    for seed in (0, 1):
        write_run(folder, "b", seed, RANKS["b"], seen="kept")
    assert factorial_of(folder).notes == (
        "Not estimable: every effect, as b was evaluated differently.",
    )


def test_effects_are_over_the_seeds_that_all_cells_have(tmp_path: Path) -> None:
    folder = crossed(tmp_path / "s")
    (folder / "films" / "both" / "1" / "summary.json").unlink()
    factorial = factorial_of(folder)
    assert None not in sizes_of(factorial).values()
    assert {each.comparison and each.comparison.seeds for each in factorial.effects["mrr"]} == {1}
    assert factorial.notes == (
        "Effects are over the seeds that all their cells have: 0; over users alone, as one seed "
        "says nothing of others.",
    )
    (folder / "films" / "a" / "0" / "summary.json").unlink()
    assert factorial_of(folder).notes == (
        "Not estimable: every effect, as their cells have no seed in common.",
    )


def test_a_counting_ranker_serves_every_seed(tmp_path: Path) -> None:
    folder = crossed(tmp_path / "s")
    write_run(folder, "none", 0, RANKS["none"], counts=True)
    factorial = factorial_of(folder)
    assert {each.comparison and each.comparison.seeds for each in factorial.effects["mrr"]} == {2}
    assert sizes_of(factorial)["a: 1 vs 0"] == round((0.375 + 2 / 6) / 2, 9)
    assert factorial.notes == ()


# What they are compared with


def test_levels_are_compared_with_those_of_the_base(tmp_path: Path) -> None:
    folder = crossed(tmp_path / "s", base="both")
    assert list(sizes_of(factorial_of(folder))) == [
        "a: 0 vs 1", "b: 0 vs 1", "a × b: 0 vs 1, 0 vs 1",
    ]  # fmt: skip


def test_a_base_beside_the_grid_takes_no_part(tmp_path: Path) -> None:
    levels = {"start": {"a": "start", "b": "1"}, **LEVELS}
    ranks = {"start": [9, 9, 9, 9, 9, 9], **RANKS}
    factorial = factorial_of(crossed(tmp_path / "s", ranks, levels=levels))
    assert sizes_of(factorial) == {
        "a: 1 vs 0": round((0.375 + 2 / 6) / 2, 9),
        "b: 0 vs 1": round(0.25 / 6 / 2, 9),
        "a × b: 1 vs 0, 0 vs 1": round(0.25 / 6, 9),
    }


def test_a_study_without_factors_has_no_effects(tmp_path: Path) -> None:
    report = report_of(crossed(tmp_path / "s", levels={}, factors={}))
    assert table_of(report).factorial is None
    assert report.factors == ()
    assert effects_frame_of(report).empty


# In every form


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A crossed study of sixty users, and popularity beside it."""
    ranks = {**RANKS, "popularity": [4, 4, 4, 4, 4, 4]}
    return crossed(tmp_path / "crossed", ranks, repeat=10)


def test_tables_have_a_column_for_each_factor(study: Path) -> None:
    report = report_of(study)
    frame = frame_of(report)
    rows = frame[frame["metric"] == "mrr"].set_index("cell")
    assert rows["factor_a"].tolist()[:4] == ["0", "1", "0", "1"]
    assert rows["factor_b"].tolist()[:4] == ["0", "0", "1", "1"]
    assert rows.loc["popularity", ["factor_a", "factor_b"]].isna().all()
    lines = figures_table(report, table_of(report)).splitlines()
    assert lines[0].startswith("| cell | `a` | `b` | seeds |")
    assert lines[3].startswith("| `a` | `1` | `0` | 2 |")
    assert r" & a & b & HR@1 & MRR & " in latex_of(report)


def test_the_verb_writes_effects_beside_the_figures(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_command(capsys, "report", study)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == str(study / "report-effects.csv")
    frame = pd.read_csv(study / "report-effects.csv")
    assert frame["kind"].tolist() == ["main", "main", "interaction"] * 2
    row = frame[(frame["factors"] == "a × b") & (frame["metric"] == "mrr")].iloc[0]
    assert row["difference"] == pytest.approx(-0.25 / 6, rel=1e-12)
    assert row["p_corrected"] >= row["p"]
    assert (row["levels"], row["compared_seeds"]) == ("1 vs 0, 1 vs 0", 2)
    assert (bool(row["significant"]), bool(row["compared"])) == (True, True)


def test_the_terminal_prints_effects(study: Path) -> None:
    file = io.StringIO()
    console = Console(file=file, width=1000, markup=False, emoji=False, highlight=False)
    print_report(report_of(study, figures=False), console)
    lines = [line.split() for line in file.getvalue().splitlines()]
    place = lines.index(["films,", "effects", "of", "the", "factors"])
    assert lines[place + 1] == ["effect", "levels", "MRR", "p", "smallest"]
    assert lines[place + 3][:5] == ["a", "1", "vs", "0", "+0.3542"]
    assert lines[place + 5][:3] == ["a", "×", "b"]


def test_the_page_has_a_table_and_a_plot_for_each_two_factors(study: Path) -> None:
    page = page_of(report_of(study))
    assert "Effects of the factors" in page
    assert "MRR by b and a, with 95 % intervals" in page
    assert "a 0: b 0 0.3750, b 1 0.3750; a 1: b 0 0.7500, b 1 0.7083" in page
    assert "+0.3542†" in page


def test_the_page_says_what_is_not_estimable(study: Path) -> None:
    for seed in (0, 1):
        (study / "films" / "a" / str(seed) / "summary.json").unlink()
    page = page_of(report_of(study))
    assert "Not estimable: every effect, as a has not finished." in page
    assert "missing" in page


def test_latex_and_markdown_have_a_table_of_effects(study: Path) -> None:
    report = report_of(study)
    text = latex_of(report)
    assert r"\label{tab:crossed-films-1-effects}" in text
    assert r"a $\times$ b & 1 vs 0, 1 vs 0 & $-0.0417$" in text
    factorial = table_of(report).factorial
    assert factorial is not None
    lines = effects_table(report, factorial).splitlines()
    assert lines[0] == "| effect | levels | MRR | 95 % interval | d_z | p |"
    assert lines[2].startswith("| `a` | `1 vs 0` | +0.3542 ±.")


def test_a_wandb_report_has_effects_and_groups_runs_by_each_factor(study: Path) -> None:
    spec: Any = specification(report_of(study))["spec"]
    (grid,) = (block for block in spec["blocks"] if block["type"] == "panel-grid")
    panels = grid["metadata"]["panelBankSectionConfig"]["panels"]
    grouped = [each["config"].get("groupBy") for each in panels]
    assert grouped[-3:-1] == ["ablation.value.factors.a", "ablation.value.factors.b"]
    tables = [block["content"] for block in spec["blocks"] if block["type"] == "markdown-block"]
    assert any(table.startswith("| effect | levels |") for table in tables)

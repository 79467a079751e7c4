"""What `report` prints and writes: the terminal's tables, CSV, LaTeX, and what it refuses."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import replace
from math import inf
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from research.evaluation.equivalence import MarginTest
from research.evaluation.statistics import Comparison, Estimate
from research.report.build import report_of
from research.report.csv_table import frame_of
from research.report.formatting import (
    difference_of,
    interval_of,
    interval_of_any,
    legend_of,
    p_of,
    shortened_name,
    smallest_of,
    smallest_text,
    verdict_of,
    within_words,
)
from research.report.latex import difference_entry, entry_of, escaped, latex_of
from research.report.schema import Figure, ProtocolTable, Row
from research.report.terminal import print_report
from tests.support.command_line import command_error, run_command
from tests.support.study_folders import begin_run, fail_run, write_run, write_study

Capture = pytest.CaptureFixture[str]
PDFLATEX = shutil.which("pdflatex")
ESTIMATE = Estimate(mean=0.11014, deviation=None, low=0.0978, high=0.1224, seeds=1, users=943)
ABOVE = Comparison(
    difference=0.0335, low=0.0189, high=0.0481, p=0.0001, effect=0.3, smallest=0.02, seeds=1,
    users=943,
)  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Sixty users for whom `better` is better with both seeds, and `same` is nearly the same."""
    folder = write_study(tmp_path / "heads", ["next", "better", "same"], metrics=["hr@1", "mrr"])
    for seed in (0, 1):
        base = [2, 4, 8, 2, 4, 8] * 10
        write_run(folder, "next", seed, base)
        write_run(folder, "better", seed, [1, 2, 4, 1, 2, 8] * 10)
        write_run(folder, "same", seed, [*base[:-1], 4 if seed else inf])
    return folder


def printed(folder: Path, width: int = 1000) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, markup=False, emoji=False, highlight=False)
    print_report(report_of(folder, figures=False), console)
    return file.getvalue()


def rows_of(out: str, place: int) -> dict[str, list[str]]:
    """Rows of the `place`-th table by cell."""
    rows: dict[str, list[str]] = {}
    for line in out.split("───\n")[place + 1].splitlines():
        cell, *entries = re.split(r"\s{2,}", line.strip())
        if not entries:
            break
        rows[cell] = entries
    return rows


# Words


def test_figures_are_written_with_half_of_their_interval() -> None:
    assert interval_of(ESTIMATE) == "0.1101 ±.0123"
    assert difference_of(ABOVE) == "+0.0335 ±.0146"
    assert [p_of(each) for each in (None, 0.0004, 0.0416, 1.0)] == ["", "<0.001", "0.042", "1.000"]


@pytest.mark.parametrize(
    ("low", "high", "line", "stacked"),
    [
        (0.0301, 0.2510, "0.1223 (.0301 to .2510)", "0.1223\n.0301–.2510"),
        # The longer side is .0111 beside half a width of .0101, then .0112 beside .0100.
        (0.1112, 0.1314, "0.1223 ±.0101", "0.1223 ±.0101"),
        (0.1111, 0.1311, "0.1223 (.1111 to .1311)", "0.1223\n.1111–.1311"),
        # .00038 beside .00031: four decimals do not tell.
        (0.12206, 0.12268, "0.1223 ±.0003", "0.1223 ±.0003"),
    ],
)
def test_an_uneven_interval_has_its_ends(low: float, high: float, line: str, stacked: str) -> None:
    uneven = replace(ESTIMATE, mean=0.1223, low=low, high=high)
    assert interval_of(uneven) == line
    assert interval_of(uneven, stacked=True) == stacked


def test_an_uneven_difference_has_signs_and_one_of_any_size_its_own_decimals() -> None:
    uneven = replace(ABOVE, low=-0.0014, high=0.1210)
    assert difference_of(uneven) == "+0.0335 (-.0014 to +.1210)"
    assert difference_of(uneven, stacked=True) == "+0.0335\n-.0014 to +.1210"
    large = replace(ESTIMATE, mean=153.21, low=150.0, high=160.0)
    assert interval_of_any(large) == "153.2 (150.0 to 160.0)"
    assert interval_of_any(replace(large, high=156.5)) == "153.2 ±3.2"


def test_latex_writes_uneven_intervals_as_distances_above_each_other() -> None:
    uneven = replace(ESTIMATE, mean=0.1223, low=0.0301, high=0.2510)
    assert entry_of(Figure(uneven, None, None, place=None)) == "0.1223 $^{+.1287}_{-.0922}$"
    assert difference_entry(replace(ABOVE, low=-0.0014, high=0.1210)) == (
        "$+0.0335$ $^{+.0875}_{-.0349}$"
    )


def test_a_smallest_difference_beyond_the_metrics_range_is_said_in_words() -> None:
    beyond = replace(ABOVE, smallest=inf)
    assert [smallest_text(each) for each in (ABOVE, beyond)] == [".0200", "none"]

    def sentence(*comparisons: Comparison) -> str:
        rows = tuple(
            Row(f"cell{place}", (0,), {"mrr": Figure(ESTIMATE, each, each.p, place=None)})
            for place, each in enumerate(comparisons)
        )
        return smallest_of(
            ProtocolTable("full", "test", {}, 943, rows, has_base=True, slicings=(), notes=()),
            "mrr",
        )

    assert sentence(ABOVE) == "Smallest MRR difference found with 80 % power: .0200."
    assert sentence(ABOVE, beyond) == (
        "Smallest MRR difference found with 80 % power: .0200; for 1 of 2 cells none, however "
        "large."
    )
    assert sentence(beyond).startswith("No MRR difference, however large, would be found with 80 %")


def test_the_words_on_a_margin_claim_no_more_than_was_tested() -> None:
    assert [within_words(MarginTest(0.002, *p), "base") for p in ((0.013, 0.2), (0.0, 0.04))] == [
        "no worse than base by more than 0.002 (p 0.013)",
        "equivalent to base within 0.002 (p 0.040)",
    ]
    assert within_words(MarginTest(0.002, 0.05, 0.05), "base") == (
        "not shown to be no worse than base by more than 0.002 (p 0.050)"
    )


def test_a_long_name_loses_its_middle() -> None:
    assert shortened_name("without-attributes-and-without-segments") == "without-attri…out-segments"
    assert shortened_name("short") == "short"


# The terminal


def test_a_table_says_means_intervals_differences_and_marks(study: Path) -> None:
    out = printed(study)
    rows = rows_of(out, 0)
    assert list(rows) == ["next", "better", "same"]
    # MRR (1/2 + 1/4 + 1/8) / 3 against (1 + 1/2 + 1/4 + 1 + 1/2 + 1/8) / 6.
    assert rows["next"][1].startswith("0.2917 ±.")
    assert rows["better"][1].startswith("0.5625 ±.")
    assert len(rows["next"]) == 2
    assert rows["better"][2].startswith("+.2708 ±.")
    assert rows["better"][3] == "<.001†"
    assert rows["same"][3] == "1.000"
    words = "test, full ranking, seen items excluded, ties in expectation"
    assert f"films, {words}, 60 users" in out
    assert f"run folders: {study}/films/CELL/SEED" in out
    assert rows_of(out, 1)["better"] == ["2", "10.5", "5,000", "1,200"]


def test_four_cells_and_three_metrics_fit_into_80_columns(tmp_path: Path) -> None:
    cells = ["transitions", "popularity", "sasrec", "bert4rec"]
    folder = write_study(
        tmp_path / "s", cells, metrics=["hr@10", "ndcg@10", "mrr"], compared="ndcg@10"
    )
    for place, cell in enumerate(cells):
        for seed in (0, 1):
            write_run(folder, cell, seed, [1 + place, 2, 30 - place, 4] * 9)
    legend = legend_of(report_of(folder, figures=False))
    printed_lines = [line for line in printed(folder).splitlines() if line not in legend]
    lines = [line for line in printed_lines if not line.startswith("run folders: ")]
    assert max(map(len, lines)) <= 80


def test_a_name_is_shown_as_it_is_and_never_as_markup(tmp_path: Path) -> None:
    cells = ["next", "[bold]x[bold]", ":smile:", "\x1b[31mred"]
    folder = write_study(tmp_path / "s", cells, seeds=[0])
    for cell in cells:
        write_run(folder, cell, 0, [1, 2, 3])
    out = printed(folder)
    assert {"[bold]x[bold]", ":smile:", "\ufffd[31mred"} <= rows_of(out, 0).keys()
    assert "\x1b" not in out


def test_failures_are_printed_with_their_first_line(study: Path) -> None:
    write_study(study, ["next", "better", "same", "worse"])
    fail_run(study, "worse", 0, "ValueError: [red]no room\ntraceback")
    begin_run(study, "worse", 1)
    out = printed(study)
    assert "worse/0 failed: ValueError: [red]no room\n" in out
    assert rows_of(out, 1)["worse"] == ["0, 1 failed, 1 unfinished"]


def test_the_verdict_names_cells_by_what_is_known_of_them(study: Path) -> None:
    report = report_of(study)
    assert verdict_of(report, report.corpora[0].tables[0]) == (
        ("above next", ("better by 0.2708 ±.0438",)),
        ("no significant difference from next", ("same",)),
    )


# CSV


def test_the_csv_holds_every_figure(study: Path, capsys: Capture) -> None:
    assert run_command(capsys, "report", study).code == 0
    frame = pd.read_csv(study / "report.csv")
    assert set(frame["ties"]) == {"expected"}
    assert len(frame) == 3 * 2
    assert list(frame["cell"]) == ["next", "next", "better", "better", "same", "same"]
    row = frame[(frame["cell"] == "better") & (frame["metric"] == "mrr")].iloc[0]
    assert row["mean"] == pytest.approx(0.5625, rel=1e-12)
    assert row["difference"] == pytest.approx(0.2708333333333333, rel=1e-12)
    assert (row["seeds"], row["users"], row["sd"]) == (2, 60, 0.0)
    assert (row["study"], row["corpus"], row["candidates"], row["seen"]) == (
        "heads", "films", "full", "excluded",
    )  # fmt: skip
    assert bool(row["significant"])
    assert bool(row["compared"])
    assert row["p_corrected"] == pytest.approx(2 * row["p"], rel=1e-12)
    assert (row["seconds"], row["tokens"], row["parameters"]) == (10.5, 5000, 1200)
    base = frame[frame["cell"] == "next"].iloc[0]
    assert base[["difference", "p", "effect"]].isna().all()


def test_the_policy_for_ties_can_be_asked_for(study: Path, capsys: Capture) -> None:
    answer = run_command(capsys, "report", study, "--ties", "mean")
    assert answer.code == 0
    assert "films, test, full ranking, seen items excluded, ties at their mean rank" in answer.out
    assert set(pd.read_csv(study / "report.csv")["ties"]) == {"mean"}
    assert "ties at their mean rank" in (study / "report.html").read_text()
    assert "ties at their mean rank" in (study / "report.tex").read_text()
    assert run_command(capsys, "report", study, "--ties", "best").code == 2


def test_names_come_back_from_the_csv_as_they_are(tmp_path: Path) -> None:
    cells = ["next", 'a,"b"', "=1+1", "Größe 中文", "null "]
    folder = write_study(tmp_path / "s", cells, seeds=[0], metrics=["mrr"])
    for cell in cells:
        write_run(folder, cell, 0, [1, 2, 3])
    text = frame_of(report_of(folder)).to_csv(index=False)
    assert list(pd.read_csv(io.StringIO(text))["cell"]) == cells


def test_a_margin_is_tested_for_each_cell_and_said_everywhere(study: Path, capsys: Capture) -> None:
    answer = run_command(capsys, "report", study, "--margin", "0.1")
    assert answer.code == 0
    said = [
        "better: no worse than next by more than 0.1 (p <0.001).",
        "same: equivalent to next within 0.1 (p 0.0",
    ]
    page = (study / "report.html").read_text().replace("&lt;", "<")
    for sentence in said:
        assert sentence in answer.out
        assert sentence in page
    assert "one-sided tests at 5 %" in answer.out
    caption = (study / "report.tex").read_text()
    assert "No worse than next by more than 0.1: better (p $<$0.001)." in caption
    assert "Equivalent to next within 0.1: same (p 0.0" in caption
    assert "one-sided tests at 5 \\%, of MRR, corrected like p (TOST)." in caption
    frame = pd.read_csv(study / "report.csv")
    compared = frame[frame["compared"]].set_index("cell")
    assert compared.loc[["better", "same"], "margin"].tolist() == [0.1, 0.1]
    assert compared.loc["better", "p_equivalent"] > 0.9
    assert compared.loc[["better", "same"], "p_no_worse"].max() < 0.05
    # The base and the metrics that only describe are not tested.
    assert frame["margin"].notna().sum() == 2


def test_without_a_margin_none_is_mentioned(study: Path) -> None:
    assert "no worse" not in printed(study).lower()


def test_a_margin_of_0_is_refused(study: Path, capsys: Capture) -> None:
    message = command_error(capsys, "report", study, "--margin", "0")
    assert message.startswith("sixfold report: margin is 0.0; it must be above 0")


def test_a_legend_says_how_users_and_seeds_enter(study: Path, tmp_path: Path) -> None:
    out = printed(study)
    assert "Users and seeds both count as drawn from many" in out
    assert "Two seeds leave almost any such variance possible" in out
    assert out.count("Users and seeds both") == 1
    folder = write_study(tmp_path / "one", ["next"], seeds=[0], metrics=["mrr"])
    write_run(folder, "next", 0, [1, 2, 3])
    assert "one seed cannot say what another would give" in printed(folder)
    assert "Two seeds" not in printed(folder)


# LaTeX


def test_the_best_is_bold_the_second_underlined_and_a_difference_has_a_dagger() -> None:
    plain = Figure(ESTIMATE, None, None, 3)
    assert entry_of(plain) == r"0.1101 {\scriptsize$\pm$.0123}"
    second = Figure(ESTIMATE, ABOVE, 0.2, 2)
    assert entry_of(second) == r"\underline{0.1101} {\scriptsize$\pm$.0123}"
    best = Figure(ESTIMATE, ABOVE, 0.0003, 1)
    assert entry_of(best) == r"\textbf{0.1101}$^{\dagger}$ {\scriptsize$\pm$.0123}"


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("a_b", r"a\_b"),
        ("50 % & $x$ #1", r"50 \% \& \$x\$ \#1"),
        ("{~^\\}", r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}"),
        ("a--b", "a{-}-b"),
        ("[x]*", "{[}x]{*}"),
        ("Größe", "Größe"),
        ("中", "{[}U+4E2D{]}"),
        ("<|>", r"$<$\textbar{}$>$"),
    ],
)
def test_names_are_escaped_for_latex(given: str, written: str) -> None:
    assert escaped(given) == written


def test_a_table_has_a_row_for_each_cell(study: Path) -> None:
    lines = latex_of(report_of(study)).splitlines()
    rows = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [row.split(" & ")[0] for row in rows] == ["next", "better", "same"]
    assert rows[0].endswith(r"-- & -- \\")
    assert rows[1].startswith(r"better & \textbf{0.3333}")
    assert r"\label{tab:heads-films-1}" in lines


@pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex")
def test_the_tables_compile(tmp_path: Path) -> None:
    cells = [
        "next", "a_b%$&#{}~^", "[a]", "*", "--'`\"", "中文 🎉 ß", "x" * 200, "<|>", "\x1b[0m",
        "?`!`",
    ]  # fmt: skip
    folder = write_study(
        tmp_path / "s", cells, seeds=[0], question=r"\end{document} \input{x} 100 %?",
        command="study '%\\end'",
    )  # fmt: skip
    for place, cell in enumerate(cells):
        write_run(folder, cell, 0, [1 + place, 2, 3])
    (tmp_path / "report.tex").write_text(latex_of(report_of(folder)), encoding="utf-8")
    (tmp_path / "main.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n"
        "\\begin{document}\n\\input{report.tex}\nTheEnd\n\\end{document}\n"
    )
    command = ("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex")
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, encoding="latin-1", timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "main.pdf").is_file()


# The verb


def test_the_verb_writes_four_files_and_says_where(study: Path, capsys: Capture) -> None:
    answer = run_command(capsys, "report", study)
    assert answer.code == 0
    names = ("report.html", "report.csv", "report.tex", "report-slices.csv")
    files = [str(study / name) for name in names]
    assert answer.out.splitlines()[-4:] == files
    assert all(Path(each).is_file() for each in files)
    assert "Which head helps?" in answer.out


def test_a_study_is_found_by_its_name_and_written_elsewhere(
    study: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "new" / "out"
    assert run_command(capsys, "report", "heads", "--runs", study.parent, "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "report-figures",
        "report-slices.csv",
        "report.csv",
        "report.html",
        "report.tex",
    ]
    assert not (study / "report.html").exists()


def test_what_is_no_study_is_refused_with_the_names_of_those_there_are(
    study: Path, tmp_path: Path, capsys: Capture
) -> None:
    said = command_error(capsys, "report", "haeds", "--runs", tmp_path)
    assert "haeds is not a study" in said
    assert said.endswith(f"studies in {tmp_path}: heads\n")
    assert "is not a study" in command_error(capsys, "report", study / "films" / "next" / "0")


def test_an_out_that_is_a_file_is_refused(study: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("")
    said = run_command(capsys, "report", study, "--out", tmp_path / "file")
    assert said.code == 2
    assert "which is a file; name a folder" in said.err

"""The figures of a report as files: which there are, and what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.evaluation.statistics import Estimate
from research.report import plots
from research.report.build import report_of
from research.report.drawings import differences_by_seed, drawings_of, find_drawing
from research.report.files import FIGURE_KINDS
from research.report.schema import Figure
from tests.support.command_line import command_error, run_command
from tests.support.study_folders import write_run, write_study

Capture = pytest.CaptureFixture[str]
ESTIMATE = Estimate(mean=0.5, deviation=None, low=0.4, high=0.6, seeds=1, users=12)
MAGIC = {"svg": b"<?xml", "pdf": b"%PDF-", "png": b"\x89PNG"}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two cells with two seeds, curves over steps and tokens, and gradient cosines."""
    folder = write_study(tmp_path / "heads", ["next", "better"])
    for cell, ranks in {"next": [2, 4, 8] * 4, "better": [1, 2, 4] * 4}.items():
        for seed in (0, 1):
            lines: list[dict[str, float | str]] = [
                {
                    "stage": "train", "step": step, "train/loss/next": 3.0 / step,
                    "train/accuracy/next": 0.1, "train/lr": 0.01, "train/items": 100 * step,
                    "train/items_per_second": 50.0, "val/mrr": step / 9,
                    "train/gradient_norm/next": 1.0, "train/gradient_norm/mip": 1.0,
                    "train/gradient_cosine/next+mip": 0.5,
                }
                for step in (1, 2, 3)
            ]  # fmt: skip
            write_run(folder, cell, seed, ranks, lines=lines)
    return folder


@pytest.mark.long
def test_every_figure_stands_beside_the_page_in_three_formats(study: Path, capsys: Capture) -> None:
    assert run_command(capsys, "report", study).code == 0
    files = sorted((study / "report-figures" / "films").iterdir())
    names = [
        "cosines-better-train", "cosines-next-train", "curve-train-accuracy-next",
        "curve-train-loss-next", "curve-train-lr", "curve-train-val-mrr", "difference", "gap",
        "metric", "slices-items-in-the-history", "slices-training-interactions-of-the-item",
        "slices-whether-the-item-is-new",
    ]  # fmt: skip
    assert [path.name for path in files] == [
        f"{name}.{kind}" for name in names for kind in ("pdf", "png", "svg")
    ]
    for path in files:
        assert path.read_bytes().startswith(MAGIC[path.suffix[1:]])
    # Letters are TrueType (Type 42), which journals ask for, and text in SVG stays text.
    assert b"/Type3" not in (study / "report-figures" / "films" / "metric.pdf").read_bytes()
    assert b">better" in (study / "report-figures" / "films" / "metric.svg").read_bytes()


@pytest.mark.parametrize("kind", FIGURE_KINDS)
def test_an_equal_report_gives_equal_files(study: Path, kind: str) -> None:
    once, again = (
        plots.file_of(find_drawing(report_of(study), "films/metric").draw(True), kind)
        for _ in range(2)
    )
    assert once == again


def test_the_formats_are_those_that_can_be_drawn() -> None:
    assert tuple(plots.KINDS) == FIGURE_KINDS


def test_one_figure_is_written_by_its_name(study: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, file in {
        "metric": "a.pdf", "films/difference": "b.svg", "curve-train-loss-next-tokens": "c.PNG",
    }.items():  # fmt: skip
        out = tmp_path / "new" / file
        answer = run_command(capsys, "report", study, "--figure", name, "--out", out)
        assert (answer.code, answer.out) == (0, f"{out}\n")
        assert out.read_bytes().startswith(MAGIC[file[2:].lower()])
    assert not (study / "report.html").exists()


def test_one_table_is_written_as_latex_or_markdown(
    study: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "table.tex"
    assert run_command(capsys, "report", study, "--table", "main", "--out", out).code == 0
    text = out.read_text()
    assert text.startswith("\\begin{table}")
    assert text.endswith("\\end{table}\n")
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    out = tmp_path / "table.md"
    assert run_command(capsys, "report", study, "--table", "films/main", "--out", out).code == 0
    assert out.read_text().startswith("| cell | seeds | HR@1 | MRR |")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--figure", "metrik", "--out", "x.pdf"), "did you mean"),
        (("--figure", "metrik", "--out", "x.pdf"), "figures: films/metric, films/difference"),
        (("--figure", "metric", "--out", "x.gif"), "that ends with .svg, .pdf, .png"),
        (("--figure", "metric"), "give --out FILE"),
        (("--figure", "metric", "--slices", "--out", "x.svg"), "leave --slices and --wandb out"),
        (("--table", "main", "--out", "x.csv"), "that ends with .tex, .md"),
        (("--table", "main-2", "--out", "x.tex"), "the report has no table 'main-2'"),
        (("--table", "main", "--figure", "metric", "--out", "x.pdf"), "once for each"),
    ],
)
def test_what_cannot_be_written_is_said(
    study: Path, capsys: Capture, words: tuple[str, ...], said: str
) -> None:
    assert said in command_error(capsys, "report", study, *words)


def test_names_that_differ_in_signs_alone_are_numbered(study: Path) -> None:
    report = report_of(study)
    corpus = report.corpora[0]
    twins = [drawing.name for drawing in drawings_of(report, corpus)]
    assert len(set(twins)) == len(twins)


def test_seeds_are_paired_and_a_counting_ranker_stands_for_all() -> None:
    ours = Figure(ESTIMATE, None, None, 1, by_seed={0: 0.5, 1: 0.75, 2: 0.25})
    theirs = Figure(ESTIMATE, None, None, 2, by_seed={1: 0.25, 0: 0.25})
    counting = Figure(ESTIMATE, None, None, 2, by_seed={0: 0.25})
    assert differences_by_seed(ours, theirs, 2) == (0.25, 0.5)
    assert differences_by_seed(ours, counting, 3) == (0.25, 0.5, 0.0)
    assert differences_by_seed(counting, ours, 3) == (-0.25, -0.5, 0.0)
    trained_with_one_seed_so_far = counting
    assert differences_by_seed(ours, trained_with_one_seed_so_far, 1) == ()

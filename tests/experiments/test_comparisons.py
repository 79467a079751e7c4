"""Kept comparisons: that they are the report's, what tables show of them, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.item_knn import item_knn
from baselines.popularity import popularity
from baselines.transitions import transitions
from experiments.results.collect import (
    collect,
    collect_comparisons,
    main,
    runs_below,
    studies_below,
)
from experiments.results.comparisons import Compared, keep, kept_comparisons
from experiments.results.lines import ResultLine, file_of, read_lines
from experiments.results.pages import filled, kept_tables
from experiments.results.pictures import picture
from experiments.results.tables import effects_markdown, markdown, table_of, tables_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.overrides import replace_fields
from research.public.study import study
from research.report.build import report_of
from research.runs.config import RunConfig
from research.storage.records import StudyRecord
from research.storage.tuning_records import TRIALS, TuningRecord
from research.studies.cells import grid, levels
from tests.support.result_lines import COMPARED_LINES, COMPARISONS, LINE, compared_table
from tests.support.synthetic import markov_histories, write_histories

CELLS = {"popularity": popularity(), "transitions": transitions(), "item-knn": item_knn()}
METRICS = ("hr@10", "ndcg@10")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> list[Corpus]:
    folder = tmp_path_factory.mktemp("corpora")
    return [
        write_histories(
            folder / name, markov_histories(num_users=30, num_items=12, length=8, seed=seed),
            num_items=12,
        )
        for seed, name in enumerate(("shop", "bikes"))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def board(corpora: list[Corpus], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder: three cells that count, on two data sets."""
    out = tmp_path_factory.mktemp("runs")
    folders = [str(corpus.folder) for corpus in corpora]
    study(CELLS, folders, name="board", out=out, metrics=METRICS)
    return out / "board"


def test_comparisons_are_those_of_the_studys_report(board: Path, tmp_path: Path) -> None:
    assert collect_comparisons(board, ["transitions"], tmp_path) == [
        "shop, board: 2 of 2 other cells compared with popularity",
        "shop, board: 2 of 2 other cells compared with transitions",
        "bikes, board: 2 of 2 other cells compared with popularity",
        "bikes, board: 2 of 2 other cells compared with transitions",
    ]
    kept = kept_comparisons(tmp_path)
    assert list(kept) == [("bikes", "board"), ("shop", "board")]
    report = report_of(board)
    for corpus in report.corpora:
        comparisons = kept[corpus.name, "board"]
        assert list(comparisons.against) == ["popularity", "transitions"]
        for compared in comparisons.against["popularity"]:
            figure = corpus.tables[0].figures("ndcg@10")[compared.name]
            assert figure.comparison is not None
            assert compared.difference == figure.comparison.difference
            assert (compared.low, compared.high) == (figure.comparison.low, figure.comparison.high)
            assert (compared.p, compared.significant) == (figure.corrected, figure.significant)
        forth = comparisons.of_cell("transitions")["popularity"]
        back = comparisons.of_cell("popularity")["transitions"]
        assert back.difference == pytest.approx(-forth.difference)


def test_lines_and_comparisons_that_are_collected_together_fit(board: Path, tmp_path: Path) -> None:
    collect(runs_below(board), tmp_path)
    collect_comparisons(board, folder=tmp_path)
    lines = read_lines(file_of("shop", tmp_path)) + read_lines(file_of("bikes", tmp_path))
    tables = tables_of(lines, [], kept_comparisons(tmp_path))
    assert "NDCG@10 vs popularity" in markdown(tables[0], "popularity")
    written = (tmp_path / "comparisons.json").read_bytes()
    collect_comparisons(board, folder=tmp_path)
    assert (tmp_path / "comparisons.json").read_bytes() == written


def test_collecting_again_makes_every_kept_comparison_anew(
    corpora: list[Corpus], tmp_path: Path
) -> None:
    def run(cells: dict[str, RunConfig]) -> list[str]:
        study(cells, str(corpora[0].folder), name="board", out=tmp_path, metrics=METRICS)
        return collect_comparisons(tmp_path / "board", folder=tmp_path)

    run({name: CELLS[name] for name in ("popularity", "transitions")})
    collect_comparisons(tmp_path / "board", ["transitions"], tmp_path)
    assert run(CELLS) == [
        "shop, board: 2 of 2 other cells compared with popularity",
        "shop, board: 2 of 2 other cells compared with transitions",
    ]


def test_effects_of_factors_are_kept_and_go_with_a_lost_cell(
    corpora: list[Corpus], tmp_path: Path
) -> None:
    factors = {
        "users": levels("training_share", (1.0, 0.5)),
        "k": levels("ranker.neighbors", (1, 8)),
    }
    crossed = grid(replace_fields(item_knn(), {"ranker.neighbors": 1}), factors, name="all")
    study(crossed, str(corpora[0].folder), name="crossed", out=tmp_path, metrics=METRICS)
    folder, lines = tmp_path / "crossed", tmp_path / "lines"
    collect(runs_below(folder), lines)
    assert collect_comparisons(folder, folder=lines) == [
        "shop, crossed: 3 of 3 other cells compared with all",
        "shop, crossed: 3 effects of its factors",
    ]
    factorial = report_of(folder).corpora[0].tables[0].factorial
    assert factorial is not None
    kept = kept_comparisons(lines)
    effects = kept["shop", "crossed"].effects
    assert [effect.name for effect in effects] == [
        "users (0.5 vs 1)", "k (8 vs 1)", "users × k (0.5 vs 1, 8 vs 1)"
    ]  # fmt: skip
    assert [effect.p for effect in effects] == [
        effect.corrected for effect in factorial.effects["ndcg@10"]
    ]
    text = filled(
        "<!-- effects shop crossed -->\n<!-- end -->\n",
        tables_of(read_lines(file_of("shop", lines)), [], kept),
    )
    assert "| users × k (0.5 vs 1, 8 vs 1) | " in text
    shutil.rmtree(folder / "shop" / "users=0.5,k=8")
    assert collect_comparisons(folder, folder=lines) == [
        "shop, crossed: 2 of 3 other cells compared with all",
        "shop, crossed: 0 effects of its factors",
    ]
    with pytest.raises(InputError, match=r"k=8/0 is nan in the former and 0\.\d+ in"):
        tables_of(read_lines(file_of("shop", lines)), [], kept_comparisons(lines))


def test_an_unfinished_study_is_named_and_the_others_are_kept(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, lines = tmp_path / "runs", tmp_path / "lines"
    shutil.copytree(board, runs / "board")
    shutil.copytree(board, runs / "begun")
    for summary in (runs / "begun").rglob("summary.json"):
        summary.unlink()
    main([str(runs), "--against", "transitions"], lines)
    told = capsys.readouterr().out
    assert f"{runs}/begun: nothing is compared: {runs}/begun has no finished run" in told
    assert "bikes, board: 2 of 2 other cells compared with transitions" in told
    assert list(kept_comparisons(lines)) == [("bikes", "board"), ("shop", "board")]


def test_the_trials_of_a_tuning_are_no_study_of_their_own(tmp_path: Path) -> None:
    for name in ("tuned", f"tuned{TRIALS}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / StudyRecord.FILE).touch()
    (tmp_path / "tuned" / TuningRecord.FILE).touch()
    assert studies_below([tmp_path]) == [tmp_path / "tuned"]


def test_comparisons_have_the_name_of_the_studys_folder(board: Path, tmp_path: Path) -> None:
    shutil.copytree(board, tmp_path / "renamed")
    collect_comparisons(tmp_path / "renamed", folder=tmp_path)
    assert list(kept_comparisons(tmp_path)) == [("bikes", "renamed"), ("shop", "renamed")]


def test_a_cell_to_compare_with_has_to_be_one_of_the_study(board: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--against transition: {board} has no such cell; did"):
        collect_comparisons(board, ["transition"], tmp_path)
    assert kept_comparisons(tmp_path) == {}


def test_a_mark_may_ask_for_differences_to_a_cell() -> None:
    page = "<!-- results shop board against sasrec -->\n<!-- end -->\n"
    tables = [compared_table()]
    text = filled(page, tables)
    assert "| NDCG@10 | NDCG@10 vs sasrec | p | validation NDCG@10 | seconds |" in text
    seed = "seed 0 | .1000 ±.0196"
    assert f"| better | {seed} | .0700 ±.0098 | +.0200 ±.0100 | .012† | .0600 | 12 |" in text
    assert f"| ease | {seed} | .0500 ±.0098 | +.0000 ±.0100 | 1.000 | .0600 | 12 |" in text
    assert f"| sasrec | {seed} | .0500 ±.0098 |  |  | .0600 | 12 |" in text
    assert filled(text, tables) == text
    with pytest.raises(InputError, match=r"no comparison with 'ease' is kept .*: with sasrec, bet"):
        filled(page.replace("sasrec", "ease"), tables)


def test_a_mark_may_ask_for_the_effects_of_factors() -> None:
    page = "<!-- effects shop board -->\n<!-- end -->\n"
    tables = [compared_table()]
    text = filled(page, tables)
    assert "| effect | NDCG@10 | p |" in text
    assert "| users (.5 vs 1) | -.0300 ±.0100 | <.001† |" in text
    assert filled(text, tables) == text
    for words in ("shop board against sasrec", "shop board: sasrec"):
        with pytest.raises(InputError, match="effects are of a whole study; name no cell"):
            filled(page.replace("shop board", words), tables)
    with pytest.raises(InputError, match="no effect of a factor is kept of board on shop"):
        effects_markdown(table_of([LINE], []))


def test_names_with_a_bar_stay_in_their_column() -> None:
    text = markdown(table_of([replace(LINE, cell="a|b")], []))
    assert r"| a\|b | seed 0 |" in text


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (COMPARED_LINES[:2], "better/0 is 0.070000 in the former and nan in the latter"),
        ([*COMPARED_LINES, replace(LINE, seed=1)], "sasrec/1 is nan in the former and 0.050000"),
        (
            [LINE, *(replace(line, cell="better") for line in COMPARED_LINES[1:2])],
            "ease/0 is 0.050000 in the former and nan",
        ),
        (
            [*COMPARED_LINES[:2], replace(LINE, cell="better")],
            "better/0 is 0.070000 in the former and 0.050000 in the latter",
        ),
    ],
)
def test_comparisons_of_other_runs_are_refused(lines: list[ResultLine], told: str) -> None:
    with pytest.raises(InputError, match=f"board on shop: .*{told}.*collect the study's folder"):
        table_of(lines, [], COMPARISONS)


def test_comparisons_without_a_line_are_refused() -> None:
    with pytest.raises(InputError, match="of board on bikes are kept, but no line of it is"):
        tables_of([LINE], [], {("bikes", "board"): replace(COMPARISONS, dataset="bikes")})


def test_a_picture_has_a_panel_of_differences_for_each_base() -> None:
    _, *panels = picture(compared_table()).axes
    assert [panel.get_xlabel().splitlines()[:2] for panel in panels] == [
        ["NDCG@10 minus that of", "sasrec"],
        ["NDCG@10 minus that of", "better"],
    ]
    # A line at 0, and for each cell a point with two caps.
    points = [panel.lines[1::3] for panel in panels]
    assert [[point.get_xydata().tolist() for point in of_panel] for of_panel in points] == [
        [[[0.0, 0.0]], [[0.02, 2.0]]],
        [[[-0.02, 1.0]]],
    ]
    assert [[point.get_markerfacecolor() for point in of_panel] for of_panel in points] == [
        ["white", "#00796b"],
        ["#00796b"],
    ]


def test_an_interval_that_ends_at_the_mean_but_for_rounding_is_drawn() -> None:
    cell = Compared(name="better", difference=0.02, low=0.02 + 1e-17, high=0.02 - 1e-17, p=0.5)
    picture(compared_table(replace(COMPARISONS, against={"sasrec": (cell,)})))


def test_kept_comparisons_are_of_kept_lines() -> None:
    kept = [table for table in kept_tables() if table.comparisons is not None]
    assert len(kept) == len(kept_comparisons()) > 0


def test_comparisons_come_back_as_they_were_written(tmp_path: Path) -> None:
    keep([COMPARISONS], tmp_path)
    keep([replace(COMPARISONS, study="another")], tmp_path)
    assert kept_comparisons(tmp_path) == {
        ("shop", "another"): replace(COMPARISONS, study="another"),
        ("shop", "board"): COMPARISONS,
    }

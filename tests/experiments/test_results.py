"""Lines of results: what is kept of a run, what tables say of lines, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.popularity import popularity
from baselines.transitions import transitions
from experiments import leaderboard
from experiments.results.collect import collect, line_of, runs_below
from experiments.results.lines import FOLDER, Value, file_of, read_lines, write_lines
from experiments.results.pages import filled, kept_tables, written
from experiments.results.pictures import picture, pictures
from experiments.results.tables import (
    markdown,
    mean_of,
    published,
    table_of,
    tables_of,
    unexplained,
)
from research.config import hash_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.variance_components import spread_of
from research.public.study import study
from tests.support.result_lines import LINE, PUBLISHED
from tests.support.synthetic import markov_histories, write_histories


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    histories = markov_histories(num_users=30, num_items=12, length=8, seed=0)
    return write_histories(folder / "shop", histories, num_items=12)


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    cells = {"popularity": popularity(), "transitions": transitions()}
    study(cells, str(corpus.folder), name="board", out=out, metrics=("hr@10", "ndcg@10"))
    return out


def test_a_line_says_what_the_run_says(runs: Path) -> None:
    run = runs / "board" / "shop" / "popularity" / "0"
    found = line_of(run)
    assert found is not None
    line, _ = found
    assert (line.study, line.dataset, line.cell, line.seed) == ("board", "shop", "popularity", 0)
    assert (line.users, line.tokens, line.ties) == (30, None, "expected")
    assert 0.0 < line.metrics["hr@10"].mean < 1.0
    # Of thirty zeros and ones: the root of p (1 - p) / 29.
    share = line.metrics["hr@10"].mean
    expected = (share * (1 - share) / 29) ** 0.5
    assert line.metrics["hr@10"].standard_error == pytest.approx(expected)


def test_collecting_twice_gives_the_same_file(runs: Path, tmp_path: Path) -> None:
    found = runs_below(runs)
    collect(found, tmp_path)
    written = file_of("shop", tmp_path).read_bytes()
    assert collect(found, tmp_path) == [f"{tmp_path / 'shop.jsonl'}: 2 of its 2 lines written"]
    assert file_of("shop", tmp_path).read_bytes() == written
    assert [line.cell for line in read_lines(file_of("shop", tmp_path))] == [
        "popularity",
        "transitions",
    ]


def test_a_run_that_has_not_finished_is_named(runs: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "board" / "shop" / "sasrec" / "0"
    unfinished.mkdir(parents=True)
    config = runs / "board" / "shop" / "popularity" / "0" / "config.json"
    (unfinished / "config.json").write_bytes(config.read_bytes())
    messages = collect(runs_below(tmp_path), tmp_path / "lines")
    assert messages == [f"left out, as it has not finished: {unfinished}"]


def test_a_line_of_another_hash_replaces_the_older_one_and_is_named(
    runs: Path, tmp_path: Path
) -> None:
    found = line_of(runs / "board" / "shop" / "popularity" / "0")
    assert found is not None
    write_lines([replace(found[0], hash="another")], file_of("shop", tmp_path))
    messages = collect(runs_below(runs), tmp_path)
    assert messages[0] == "replaced a line of another run hash: shop, popularity, seed 0"


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = file_of("shop", tmp_path)
    write_lines([LINE], path)
    path.write_text(path.read_text() + '{"dataset": 1}\n')
    with pytest.raises(InputError, match="line 2"):
        read_lines(path)


def test_lines_come_back_as_they_were_written(tmp_path: Path) -> None:
    lines = [LINE, replace(LINE, seed=1), replace(LINE, cell="bert4rec", tokens=None)]
    write_lines(lines, tmp_path / "shop.jsonl")
    assert read_lines(tmp_path / "shop.jsonl") == [lines[2], lines[0], lines[1]]


def test_the_interval_of_one_seed_is_over_users() -> None:
    mean = mean_of([LINE], "hr@10")
    assert mean.mean == 0.10
    assert mean.half == pytest.approx(1.96 * 0.01, rel=1e-3)


def test_seeds_widen_the_interval() -> None:
    values = [Value(mean=value, standard_error=0.001) for value in (0.10, 0.11, 0.12)]
    lines = [replace(LINE, seed=s, metrics={"hr@10": value}) for s, value in enumerate(values)]
    mean = mean_of(lines, "hr@10")
    assert mean.mean == pytest.approx(0.11)
    # The t quantile of 2 degrees of freedom, 4.303, by .01 / sqrt(3); users add next to nothing.
    assert mean.half == pytest.approx(4.303 * 0.01 / 3**0.5, rel=0.02)


def test_intervals_of_lines_are_those_of_the_values_themselves() -> None:
    generator = np.random.default_rng(0)
    # Of 4 seeds and 50 users: effects of both, and users' own reactions.
    effects = generator.normal(0, 1, 50) + generator.normal(0, 0.1, (4, 1))
    values_SU = effects + generator.normal(0, 1, (4, 50))
    expected = spread_of(values_SU)
    lines = []
    for seed, values in enumerate(values_SU):
        error = float(values.std(ddof=1)) / 50**0.5
        kept = Value(mean=float(values.mean()), standard_error=error, reaction=4 * expected.within)
        lines.append(replace(LINE, seed=seed, metrics={"hr@10": kept}))
    assert mean_of(lines, "hr@10").half == pytest.approx(expected.critical(0.05))
    unknown = [
        replace(line, metrics={"hr@10": replace(line.metrics["hr@10"], reaction=None)})
        for line in lines
    ]
    assert mean_of(unknown, "hr@10").half > 1.1 * expected.critical(0.05)


def test_seeds_that_are_collected_together_know_their_users_reactions(
    runs: Path, tmp_path: Path
) -> None:
    first = runs / "board" / "shop" / "transitions" / "0"
    for seed in ("0", "1"):
        shutil.copytree(first, tmp_path / "board" / "shop" / "twice" / seed)
    collect(runs_below(tmp_path / "board"), tmp_path / "lines")
    # Both have the same ranks, and so no reaction.
    lines = read_lines(file_of("shop", tmp_path / "lines"))
    assert [line.metrics["hr@10"].reaction for line in lines] == [0.0, 0.0]


def test_a_table_has_a_row_a_cell_with_what_was_published() -> None:
    lines = [
        LINE,
        replace(LINE, seed=1, validation={"ndcg@10": 0.07}),
        replace(LINE, cell="ease", validation={}),
    ]
    text = markdown(table_of(lines, [PUBLISHED]))
    ours = ".1000 ±.0196 | .0500 ±.0098"
    assert f"| sasrec | seeds 0, 1 | {ours} | .1200 / .0600 (a log) | .0650 | 12 |" in text
    assert f"| ease | seed 0 | {ours} |  |  | 12 |" in text
    assert text.endswith("\n- sasrec: Other items.\n")


def test_every_cell_of_the_board_is_another_run() -> None:
    cells = leaderboard.study().cells
    hashes = {hash_of(config): cell for cell, config in cells.items()}
    assert len(hashes) == len(cells) == 23
    of_it = [figure for figure in published() if figure.study in (None, "leaderboard")]
    assert {figure.cell for figure in of_it} <= set(cells)


def test_lines_that_do_not_compare_are_refused() -> None:
    other_corpus = replace(LINE, cell="ease", fingerprint="xyz")
    other_part = replace(LINE, cell="ease", protocol={"part": "validation"})
    other_ties = replace(LINE, cell="ease", ties="mean")
    for field, other in (
        ("fingerprint", other_corpus), ("part", other_part), ("ties", other_ties),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"lines of board on shop differ in {field}: .*ease/0"):
            tables_of([LINE, other], [])


def test_lines_of_two_studies_stand_in_two_tables_and_need_not_compare() -> None:
    other = replace(LINE, study="ablation", seed=1, fingerprint="xyz", protocol={"part": "other"})
    first, second = tables_of([LINE, other, replace(LINE, seed=2)], [PUBLISHED])
    assert (first.dataset, first.study, second.study) == ("shop", "board", "ablation")
    assert [row.seeds for row in first.rows] == [(0, 2)]
    assert [row.seeds for row in second.rows] == [(1,)]


def test_a_study_on_two_data_sets_has_two_tables() -> None:
    tables = tables_of([LINE, replace(LINE, dataset="bikes", fingerprint="xyz")], [PUBLISHED])
    assert [(table.dataset, table.study) for table in tables] == [
        ("shop", "board"),
        ("bikes", "board"),
    ]
    assert [len(table.rows[0].published) for table in tables] == [1, 0]


def test_a_published_figure_is_of_its_cell_in_any_study_unless_it_names_one() -> None:
    of_board = replace(PUBLISHED, study="board", source="another log")
    board, ablation = tables_of([LINE, replace(LINE, study="ablation")], [PUBLISHED, of_board])
    assert [figure.source for figure in board.rows[0].published] == ["a log", "another log"]
    assert [figure.source for figure in ablation.rows[0].published] == ["a log"]


def test_the_best_cell_stands_first_and_equal_ones_as_they_first_appear() -> None:
    lines = [replace(LINE, cell=cell) for cell in ("b", "c", "a")]
    better = replace(
        LINE, cell="d", metrics={**LINE.metrics, "ndcg@10": Value(mean=0.9, standard_error=0.1)}
    )
    without = replace(LINE, cell="e", metrics={"hr@10": LINE.metrics["hr@10"]})
    table = table_of([without, *lines, replace(lines[0], seed=1), better], [])
    assert [row.cell for row in table.rows] == ["d", "b", "c", "a", "e"]


def test_seeds_of_a_cell_with_different_metrics_are_refused() -> None:
    other = replace(LINE, seed=1, metrics={"hr@10": LINE.metrics["hr@10"]})
    with pytest.raises(InputError, match="the seeds of cell sasrec have different metrics"):
        table_of([LINE, other], [])


def test_a_metric_that_is_not_known_is_a_dash_or_blank() -> None:
    only = replace(LINE, metrics={"ndcg@10": LINE.metrics["ndcg@10"]})
    figure = replace(PUBLISHED, figures={"ndcg@10": 0.06})
    none = replace(PUBLISHED, figures={"hr@5": 0.06})
    text = markdown(table_of([only], [figure, none]))
    theirs = "– / .0600 (a log); HR@5 .0600 (a log)"
    assert f"| sasrec | seed 0 |  | .0500 ±.0098 | {theirs} | .0600 | 12 |" in text


def test_tables_are_set_between_their_marks() -> None:
    page = "Before\n<!-- results shop board -->\nold\n<!-- end -->\nafter\n"
    tables = [table_of([LINE], [])]
    text = filled(page, tables)
    assert text.startswith("Before\n<!-- results shop board -->\n")
    assert "| sasrec | seed 0 |" in text
    assert "old" not in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert filled(text, tables) == text
    for mark in ("shop", "shop other", "shop  board"):
        with pytest.raises(InputError, match=f"<!-- results {mark} -->.*known: shop board"):
            filled(page.replace("shop board", mark), tables)


def test_a_mark_may_choose_cells_of_a_table() -> None:
    page = "<!-- results shop board: sasrec ease -->\n<!-- end -->\n"
    tables = [table_of([LINE, replace(LINE, cell="ease"), replace(LINE, cell="knn")], [])]
    text = filled(page, tables)
    assert "| sasrec |" in text
    assert "| ease |" in text
    assert "knn" not in text
    assert filled(text, tables) == text
    with pytest.raises(InputError, match="board on shop has no cell 'esae'; it has sasrec, ease"):
        filled(page.replace("ease", "esae"), tables)


def test_a_difference_beyond_two_standard_errors_needs_an_explanation() -> None:
    near = replace(PUBLISHED, figures={"hr@10": 0.119, "mrr": 0.5}, difference="")
    far = replace(PUBLISHED, figures={"hr@10": 0.121, "ndcg@10": 0.045}, difference="")
    assert unexplained(table_of([LINE], [near])) == []
    assert unexplained(table_of([LINE], [far])) == ["sasrec hr@10: .1000, published .1210"]
    assert unexplained(table_of([LINE], [replace(far, difference="Why.")])) == []


def test_all_kept_differences_are_explained() -> None:
    for table in kept_tables():
        assert unexplained(table) == [], f"{table.study} on {table.dataset}"


def test_a_picture_has_a_place_a_cell() -> None:
    axes = picture(table_of([LINE, replace(LINE, cell="ease")], [PUBLISHED])).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sasrec", "ease"]


def test_two_tables_do_not_share_a_picture() -> None:
    names = (("a-b", "c"), ("a", "b-c"))
    lines = [replace(LINE, dataset=dataset, study=study) for dataset, study in names]
    with pytest.raises(InputError, match=r"two tables have the picture a-b-c\.svg"):
        pictures(tables_of(lines, []))


def test_what_is_kept_is_what_make_results_writes() -> None:
    files = written(kept_tables())
    for path, content in files.items():
        assert path.read_bytes() == content, f"{path}: `make results` writes it anew"
    assert set(FOLDER.glob("*.svg")) <= set(files), "a picture of no table: remove it"

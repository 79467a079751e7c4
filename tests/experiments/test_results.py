"""Lines of results: what is kept of a run, what tables say of lines, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import popularity
from baselines.transitions import transitions
from experiments import leaderboard
from experiments.results.collect import collect, line_of, runs_below
from experiments.results.lines import ResultLine, Value, file_of, read_lines, write_lines
from experiments.results.pages import PAGES, filled, rows_by_dataset
from experiments.results.tables import (
    Published,
    markdown,
    mean_of,
    picture,
    published,
    rows_of,
)
from research.config import hash_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.public.study import study
from research.storage.records import Machine
from tests import ROOT
from tests.support.synthetic import markov_histories, write_histories

LINE = ResultLine(
    dataset="shop",
    cell="sasrec",
    seed=0,
    study="board",
    protocol={"part": "test"},
    fingerprint="abc",
    hash="h0",
    metrics={
        "hr@10": Value(mean=0.10, standard_error=0.01),
        "ndcg@10": Value(mean=0.05, standard_error=0.005),
    },
    validation={"ndcg@10": 0.06},
    users=100,
    seconds=12.0,
    tokens=1000,
    parameters=50,
    machine=Machine(platform="Linux", cpu="a CPU", cores=2),
    commit="1234567",
    clean=True,
    date="2026-11-29",
    command="python -m research study board",
)


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
    line = line_of(run)
    assert line is not None
    assert (line.study, line.dataset, line.cell, line.seed) == ("board", "shop", "popularity", 0)
    assert (line.users, line.tokens) == (30, None)
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
    line = line_of(runs / "board" / "shop" / "popularity" / "0")
    assert line is not None
    write_lines([replace(line, hash="another")], file_of("shop", tmp_path))
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


PUBLISHED = Published(
    dataset="shop",
    cell="sasrec",
    figures={"hr@10": 0.12, "ndcg@10": 0.06},
    source="a log",
    difference="Other items.",
)


def test_a_table_has_a_row_a_cell_with_what_was_published() -> None:
    rows = rows_of([LINE, replace(LINE, seed=1), replace(LINE, cell="ease")], [PUBLISHED])
    text = markdown(rows)
    assert "| sasrec | 0, 1 | .1000 ±.0196 | .0500 ±.0098 | .1200 / .0600 (a log) | 12 |" in text
    assert "| ease | 0 | .1000 ±.0196 | .0500 ±.0098 |  | 12 |" in text
    assert text.endswith("\n- sasrec: Other items.\n")


def test_every_cell_of_the_board_is_another_run() -> None:
    cells = leaderboard.study().cells
    hashes = {hash_of(config): cell for cell, config in cells.items()}
    assert len(hashes) == len(cells) == 19
    assert {figure.cell for figure in published()} <= set(cells)


def test_lines_that_do_not_compare_are_refused() -> None:
    other = replace(LINE, cell="ease", fingerprint="xyz")
    with pytest.raises(InputError, match="differ in fingerprint"):
        rows_of([LINE, other], [])


def test_a_cell_of_two_studies_is_refused() -> None:
    with pytest.raises(InputError, match="in the studies board and other"):
        rows_of([LINE, replace(LINE, study="other", seed=1)], [])


def test_tables_are_set_between_their_marks() -> None:
    page = "Before\n<!-- results shop -->\nold\n<!-- end -->\nafter\n"
    text = filled(page, {"shop": rows_of([LINE], [])})
    assert text.startswith("Before\n<!-- results shop -->\n")
    assert "| sasrec | 0 |" in text
    assert "old" not in text
    assert text.endswith("<!-- end -->\nafter\n")
    assert filled(text, {"shop": rows_of([LINE], [])}) == text
    with pytest.raises(InputError, match="no result line is of shop"):
        filled(page, {})


def test_a_picture_has_a_place_a_cell() -> None:
    rows = rows_of([LINE, replace(LINE, cell="ease")], [PUBLISHED])
    axes = picture("shop", rows).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["sasrec", "ease"]


def test_the_pages_have_the_tables_of_the_lines_that_are_kept() -> None:
    tables = rows_by_dataset()
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        assert filled(page, tables) == page, f"{name}: `make results` writes it anew"

"""Kept runs done again: the same figures from the line alone, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from baselines.popularity import popularity
from experiments.results.collect import collect, runs_below
from experiments.results.lines import ResultLine, file_of, read_lines
from experiments.results.rerun import Repeated, command_of, config_of, lines_of, main, repeated
from experiments.results.tables import Mean
from research.data.corpus import Corpus
from research.errors import InputError
from research.public.study import study
from tests.support import small_runs
from tests.support.result_lines import LINE
from tests.support.synthetic import markov_histories, write_histories


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    histories = markov_histories(num_users=30, num_items=12, length=8, seed=0)
    return write_histories(tmp_path_factory.mktemp("corpus") / "shop", histories, num_items=12)


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of a study of two cells, one of them trained with two seeds."""
    runs, folder = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("lines")
    trained = small_runs.config_of(corpus, small_runs.FINETUNE)
    cells = {"popularity": popularity(), "trained": trained}
    study(cells, str(corpus.folder), name="board", out=runs, seeds=(0, 1), metrics=("hr@10",))
    collect(runs_below(runs), folder)
    shutil.rmtree(runs)
    return folder


def lines(folder: Path) -> list[ResultLine]:
    return lines_of("shop", "board", "trained", folder)


def test_a_line_alone_gives_the_same_run(folder: Path, tmp_path: Path) -> None:
    metrics, run_hash = repeated(lines(folder), 1, tmp_path / "run")
    assert run_hash == lines(folder)[1].hash
    for name, each in metrics.items():
        assert each.is_same, name
        assert each.is_within


def test_a_run_that_has_been_done_again_is_read(folder: Path, tmp_path: Path) -> None:
    first = repeated(lines(folder), 0, tmp_path / "run")
    assert repeated(lines(folder), 0, tmp_path / "run") == first


def test_a_figure_outside_the_interval_is_seen(folder: Path, tmp_path: Path) -> None:
    raised = [
        replace(
            line,
            metrics={
                name: replace(value, mean=value.mean + 0.9) for name, value in line.metrics.items()
            },
        )
        for line in lines(folder)
    ]
    metrics, _ = repeated(raised, 0, tmp_path / "run")
    assert [each.verdict for each in metrics.values()] == ["OUTSIDE"] * len(metrics)


@pytest.mark.parametrize(
    ("now", "verdict"), [(0.5, "the same"), (0.2, "within"), (0.35, "OUTSIDE")]
)
def test_a_kept_run_may_lie_outside_the_interval_of_the_mean(now: float, verdict: str) -> None:
    kept = Mean(mean=0.2, half=0.1, standard_error=0.05)
    assert Repeated(kept, before=0.5, now=now).verdict == verdict


def test_another_corpus_is_refused(folder: Path, tmp_path: Path) -> None:
    histories = markov_histories(num_users=30, num_items=12, length=8, seed=1)
    other = write_histories(tmp_path / "shop", histories, num_items=12)
    with pytest.raises(InputError, match=r"fingerprint .* prepare the corpus as"):
        repeated(lines(folder), 0, tmp_path / "run", other.folder)


def test_names_that_no_line_has_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'shops'; did you mean shop"):
        lines_of("shops", "board", "trained", folder)
    with pytest.raises(InputError, match="no study 'bord'; did you mean board"):
        lines_of("shop", "bord", "trained", folder)
    with pytest.raises(InputError, match="no cell 'train'; did you mean trained"):
        lines_of("shop", "board", "train", folder)
    with pytest.raises(InputError, match=r"no line has seed 7; there are \[0, 1\]"):
        repeated(lines(folder), 7, tmp_path / "run")


def test_a_line_without_settings_gives_the_command_that_it_had() -> None:
    assert command_of(LINE) is None
    with pytest.raises(InputError, match="not kept; its command was: python -m research study"):
        config_of(LINE)


def test_the_command_names_the_cell(folder: Path) -> None:
    expected = "python -m experiments.results.rerun shop board trained"
    assert command_of(lines(folder)[0]) == expected
    assert all(line.config is not None for line in read_lines(file_of("shop", folder)))


def test_a_wrong_name_ends_the_command_with_what_there_is() -> None:
    with pytest.raises(SystemExit, match="no results are kept of a data set 'nowhere'"):
        main(["nowhere", "board", "trained"])

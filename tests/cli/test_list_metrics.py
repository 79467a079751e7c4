"""Metrics of recommended lists on the command line: run, evaluate, show and report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.evaluation.list_table import ListTable
from tests.support.command_line import (
    command_error,
    files_of,
    run_command,
    shop_corpus,
    table_rows,
)

Capture = pytest.CaptureFixture[str]
POPULARITY = "baselines.popularity.popularity"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def finished(shop: Corpus, tmp_path: Path, capsys: Capture) -> Path:
    """The folder of a finished run that has no lists."""
    folder = tmp_path / "run"
    run_command(capsys, "run", POPULARITY, f"corpus={shop.folder}", "--out", folder, "--quiet")
    return folder


def test_a_run_reports_the_lists_that_its_config_asks_for(
    shop: Corpus, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    result = run_command(
        capsys, "run", POPULARITY, f"corpus={shop.folder}", "--out", folder,
        "--evaluation.metrics", "ndcg@5", "coverage@5", "gini@5",
    )  # fmt: skip
    assert result.code == 0
    rows = table_rows(result.out)
    assert [row[0] for row in rows] == ["ndcg@5", "coverage@5", "gini@5"]
    assert "test, lists" in result.out
    # A column each of validation, test and lists.
    assert [[bool(cell) for cell in row[1:]] for row in rows] == [
        [True, True, False], [False, False, True], [False, False, True],
    ]  # fmt: skip


def test_evaluate_prints_metrics_of_lists_and_writes_nothing(
    finished: Path, capsys: Capture
) -> None:
    before = files_of(finished)
    result = run_command(capsys, "evaluate", finished, "--metrics", "novelty@3", "mrr", "arp@2")
    assert result.code == 0
    assert [row[0] for row in table_rows(result.out)] == ["novelty@3", "mrr", "arp@2"]
    assert files_of(finished) == before
    result = run_command(capsys, "evaluate", finished, "--metrics", "coverage@3", "lift@3")
    assert [len(row) for row in table_rows(result.out)] == [2, 2]


def test_evaluate_keeps_lists_where_report_finds_them(finished: Path, capsys: Capture) -> None:
    path = finished / "ranks" / "lists-test-excluded.npz"
    words = ("evaluate", finished, "--save-lists", "--metrics")
    assert run_command(capsys, *words, "coverage@3").out.rstrip().endswith(str(path))
    assert ListTable.load(path).place.shape[1] == 3
    run_command(capsys, *words, "coverage@5")
    assert ListTable.load(path).place.shape[1] == 5
    content = path.read_bytes()
    shorter = run_command(capsys, *words, "coverage@2")
    assert f"{path} has lists of 5 items already; they are kept" in shorter.out
    assert path.read_bytes() == content
    run_command(capsys, *words, "repeat@4", "--seen", "kept", "--part", "validation")
    kept = ListTable.load(finished / "ranks" / "lists-validation-kept.npz")
    assert kept.protocol["part"] == "validation"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--metrics", "coverage"), "metric 'coverage' does not exist; allowed: "),
        (("--metrics", "repeat@3"), "evaluation.seen=excluded; set it to kept"),
        (("--metrics", "gini@3", "--seen", "zero"), "set it to kept or excluded"),
        (("--metrics", "mrr", "--save-lists"), "--save-lists is for metrics of recommended lists"),
        (("--metrics", "diversity@3"), "a metric of attributes, and corpus shop has none"),
    ],
)
def test_what_cannot_be_had_is_refused(
    finished: Path, capsys: Capture, words: tuple[str, ...], message: str
) -> None:
    assert message in command_error(capsys, "evaluate", finished, *words)


@pytest.mark.long
def test_a_study_has_a_table_of_lists(
    shop: Corpus, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_lists.py").write_text(
        "from baselines.popularity import popularity\n"
        "from baselines.transitions import transitions\n"
        "from research.studies.study import Study\n"
        "study = Study(\n"
        "    name='lists', question='What is listed?', base='popularity',\n"
        "    cells={'popularity': popularity(), 'transitions': transitions()},\n"
        f"    corpora=({str(shop.folder)!r},), metrics=('ndcg@5', 'coverage@5', 'lift@5'),\n"
        ")\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_lists", raising=False)
    result = run_command(capsys, "study", "own_lists", "--quiet")
    assert result.code == 0
    assert "test, recommended lists, seen items excluded" in result.out
    assert "COVERAGE@5" in result.out
    result = run_command(capsys, "report", "lists", "--slices")
    assert "NDCG@5 by training interactions of the item" in result.out

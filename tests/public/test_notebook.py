"""docs/examples/own_data.ipynb runs from top to bottom, without network, and shows what it says."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pandas as pd
import pytest

import sixfold as sf
from tests import ROOT

NOTEBOOK = ROOT / "docs" / "examples" / "own_data.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cell(code: str, names: dict[str, object]) -> object:
    """Run a cell; returns what a notebook shows of it, the value of a last expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


def test_it_is_short_and_committed_without_outputs() -> None:
    lines = [line for cell in code_cells() for line in cell.splitlines() if line.strip()]
    assert len(lines) < 40
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.long
def test_it_goes_from_a_frame_to_recommendations_neighbors_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    _, corpus, run, metrics, everybody, visitor, similar, study, page = (
        run_cell(cell, names) for cell in code_cells()
    )
    assert isinstance(corpus, sf.Corpus)
    assert (corpus.num_users, corpus.num_items) == (300, 40)
    assert isinstance(run, sf.Run)
    assert isinstance(metrics, pd.DataFrame)
    # The next article follows from the last one in four events of five.
    assert metrics.set_index("metric")["mean"]["hr@5"] > 0.6
    assert isinstance(everybody, pd.DataFrame)
    recommendations = names["recommendations"]
    assert isinstance(recommendations, pd.DataFrame)
    assert recommendations["user"].nunique() == 300
    assert isinstance(visitor, pd.DataFrame)
    assert visitor["item"].iloc[0] == "SKU 9"
    assert visitor["title"].iloc[0] == "Thing no. 9"
    assert isinstance(similar, pd.DataFrame)
    assert len(similar) == 3
    assert isinstance(study, sf.StudyResult)
    assert list(study.summary()["cell"]) == ["learned", "rotary"]
    assert isinstance(page, Path)
    assert "Do rotary positions help?" in page.read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert said.out + said.err == ""
    for value in (corpus, run, study):
        assert len(repr(value).splitlines()) <= 3

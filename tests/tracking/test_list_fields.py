"""Metrics of recommended lists on W&B and on a model card."""

from __future__ import annotations

from pathlib import Path

from research.interop.model_card import model_card
from research.tracking.wandb_fields import summary_of
from tests.evaluation.reference_list_metrics import table_of as lists_of
from tests.support.records import run_record, run_summary

LISTS = {"coverage@2": 0.75, "gini@1": 0.25}


def test_the_summary_on_wandb_has_them_beside_those_of_full_ranking() -> None:
    fields = summary_of(run_summary(lists=LISTS))
    assert (fields["test/coverage@2"], fields["test/gini@1"]) == (0.75, 0.25)
    assert fields["test/mrr"] == 0.25


def test_a_model_card_has_them_with_intervals_where_the_lists_are_kept(tmp_path: Path) -> None:
    record, summary = run_record(), run_summary(lists=LISTS, protocol={"seen": "excluded"})
    text = model_card(tmp_path, record, summary, None)
    assert "| lists | coverage@2 | 0.7500 | not known |" in text
    assert '"name": "gini@1, lists"' in text
    table = lists_of([[0, 1], [2, 1], [0, 1]], 4, trained=[[0], [1], [2]])
    table.save(tmp_path / "ranks" / "lists-test-excluded.npz")
    text = model_card(tmp_path, record, summary, None)
    assert "| lists | coverage@2 | 0.7500 | 0." in text

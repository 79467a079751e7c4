"""What a message says of two runs of which one stands in the folder of the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from research.model.transformer_config import TransformerConfig
from research.runs.config import RunConfig
from research.runs.differences import other_run
from research.storage.records import StartRecord
from tests.support.configs import CONFIGS
from tests.support.records import run_record

CONFIG = CONFIGS["sasrec, full softmax"]()


def message_of(there: RunConfig, here: RunConfig = CONFIG, **fields: Any) -> str:
    """What is said when a folder holds `there`, whose record has these fields."""
    stored = replace(run_record(there, hash="11"), **fields)
    return other_run(stored, run_record(here, hash="22"), here)


def with_encoder(**fields: Any) -> RunConfig:
    assert isinstance(CONFIG.encoder, TransformerConfig)
    return replace(CONFIG, encoder=replace(CONFIG.encoder, **fields))


def test_fields_stand_by_their_dotted_names_with_both_values() -> None:
    assert message_of(replace(with_encoder(width=128), seed=3)) == (
        "encoder.width is 128 in the folder and 64 in this run; seed is 3 in the folder and 0 in "
        "this run; run hash 11 in the folder and 22 in this run"
    )


def test_of_many_fields_five_are_shown_and_the_rest_is_counted() -> None:
    fields = {"width": 8, "layers": 1, "heads": 4, "length": 9, "feed_forward": 8, "segments": 2}
    text = message_of(replace(with_encoder(**fields), seed=3))
    assert text.count(" in the folder and ") == 6
    assert "; 2 more fields differ; run hash 11 in the folder and 22 in this run" in text


def test_a_long_value_is_cut() -> None:
    metrics = tuple(f"hr@{k}" for k in range(1, 100))
    text = message_of(replace(CONFIG, evaluation=replace(CONFIG.evaluation, metrics=metrics)))
    assert "hr@8, hr@9, hr@1… in the folder and [hr@5, " in text
    assert len(text) < 250


def test_where_a_corpus_lies_is_no_difference_but_what_it_is() -> None:
    moved = replace(CONFIG, corpus="elsewhere")
    assert message_of(moved) == (
        "a file that its config names has changed; run hash 11 in the folder and 22 in this run"
    )
    assert message_of(moved, fingerprint="0" * 64) == (
        "the corpus's fingerprint is 0000000000000000 in the folder and ffffffffffffffff in this "
        "run; run hash 11 in the folder and 22 in this run"
    )


def test_files_of_negatives_differ_where_only_one_run_has_one() -> None:
    own = replace(CONFIG, evaluation=replace(CONFIG.evaluation, negatives_file="a.txt"))
    other = replace(CONFIG, evaluation=replace(CONFIG.evaluation, negatives_file="b.txt"))
    assert "evaluation.negatives_file is a.txt in the folder and none in this run" in message_of(
        own
    )
    assert message_of(own, other).startswith("a file that its config names has changed")


def test_what_the_runs_start_from_is_told_by_the_weights() -> None:
    start = StartRecord(folder="runs/a", stage="train", sha256="abcdef")
    there = replace(CONFIG, start_from="runs/a")
    assert message_of(there, start=start) == (
        "start_from is stage train (abcdef) of runs/a in the folder and scratch in this run; "
        "run hash 11 in the folder and 22 in this run"
    )


@pytest.mark.parametrize(
    "change", [{"class": "os:system"}, {"compute": 3}, {"another": 1}], ids=["class", "type", "new"]
)
def test_a_config_that_cannot_be_read_here_says_why(change: dict[str, object]) -> None:
    record = run_record(CONFIG)
    text = message_of(CONFIG, config={**record.config, **change})
    assert text.startswith("its config cannot be read: config")
    assert text.endswith("; run hash 11 in the folder and 22 in this run")

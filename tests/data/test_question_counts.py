"""How many held-out items follow a tie, are asked for too early, or are unseen; and in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.question_counts import questions_line, questions_record
from research.data.splits import AtTime, HeldOut, LeaveOneOut, Split, TemporalCut, training_counts
from research.storage.evaluation_records import QuestionsRecord
from tests.support.synthetic import write_histories


def record_of(corpus: Corpus, split: Split, held_out: HeldOut) -> QuestionsRecord:
    counts_V = training_counts(corpus, split).numpy()
    return questions_record(corpus, held_out, split.training, counts_V)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    # Under leave-one-out training is items 0 and 1 at times 1, 2; 2 and 0 at 20, 30; 1 at 3.
    return write_histories(
        tmp_path / "c",
        [[0, 1, 2, 3], [2, 0, 1, 1], [1, 0, 4]],
        num_items=5,
        timestamps=[[1, 2, 9, 9], [20, 30, 30, 31], [3, 3, 29]],
    )


def test_questions_in_doubt_are_counted_by_hand(corpus: Corpus) -> None:
    split = LeaveOneOut().split(corpus)
    # Item 3 comes at the time of item 2, it and item 4 before the training event at 30; both are
    # in no training row.
    assert record_of(corpus, split, split.test) == QuestionsRecord(
        questions=3, tied=1, finer_times=False, before_training_end=2, unseen=2
    )
    # Item 1 of user 1 at 30 is as old as the newest training event, and not older.
    assert record_of(corpus, split, split.validation) == QuestionsRecord(
        questions=3, tied=2, finer_times=False, before_training_end=2, unseen=0
    )


def test_after_a_cut_no_question_is_older_than_training(corpus: Corpus) -> None:
    split = TemporalCut(cut=AtTime(time="20"), target="successive").split(corpus)
    record = record_of(corpus, split, split.test)
    assert (record.questions, record.before_training_end) == (4, 0)
    # Items 0 and 1 at 30.
    assert record.tied == 1


def test_a_corpus_without_times_has_no_ties_to_count(corpus: Corpus) -> None:
    object.__setattr__(corpus, "timestamps", None)
    split = LeaveOneOut().split(corpus)
    record = record_of(corpus, split, split.test)
    assert (record.tied, record.before_training_end, record.unseen) == (None, None, 2)
    assert questions_line(record) == (
        "3 held-out items; no times, so that the order of the file is that of time; 66.7 % of "
        "items that no training event has"
    )


def test_the_numbers_are_told_in_a_line() -> None:
    record = QuestionsRecord(
        questions=2000, tied=870, finer_times=False, before_training_end=2000, unseen=1
    )
    assert questions_line(record) == (
        "2,000 held-out items; 43.5 % with the time of the item before them (the order of the file "
        "decides); 100.0 % older than the newest training event; under 0.1 % of items that no "
        "training event has"
    )
    assert "(finer times decide)" in questions_line(replace(record, finer_times=True))


def test_numbers_of_several_runs_are_told_from_the_least_to_the_greatest() -> None:
    record = QuestionsRecord(
        questions=2000, tied=0, finer_times=False, before_training_end=500, unseen=700
    )
    others = (replace(record, unseen=490), replace(record, unseen=600, before_training_end=510))
    assert questions_line(record, *others) == (
        "2,000 held-out items; 0.0 % with the time of the item before them (the order of the file "
        "decides); 25.0 % to 25.5 % older than the newest training event; 24.5 % to 35.0 % of "
        "items that no training event has"
    )

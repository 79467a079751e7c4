"""Held-out items: a loop over users says the same split, and no event of theirs is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.data.audit import audit_corpus
from research.data.catalogue import Catalogue
from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.data.split_config import split_corpus
from research.data.splits import LeaveOneOut, Split, flat_indices
from research.errors import InputError
from tests.support.synthetic import write_histories

# Users: plain; none held out; an empty history before the first; one event; held-out ones alone; a
# repeat of a held-out item (2) before another, and as the last; an empty history alone; nobody.
HISTORIES = [
    [0, 2, 1, 3, 4], [0, 1, 4, 5], [2, 0, 3], [4], [2, 3], [0, 2, 1, 2, 0, 3], [4, 2, 1, 2],
    [3, 1], [],
]  # fmt: skip
COLD = {2, 3}


def corpus_of(folder: Path, histories: list[list[int]], num_items: int = 7) -> Corpus:
    return write_histories(folder, histories, num_items=num_items)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return corpus_of(tmp_path / "corpus", HISTORIES)


class Held(ColdItems):
    """The items 2 and 3, whatever the seed."""

    def items(self, corpus: Corpus) -> np.ndarray:
        return np.array(sorted(COLD))


def read(corpus: Corpus, split: Split) -> tuple[dict, dict, list]:
    """Training rows and validation questions by user, and test questions, as lists of items."""

    def piece(ranges: object, row: int) -> list[int]:
        return corpus.items[ranges.starts[row] : ranges.stops[row]].tolist()

    training = {
        int(user): piece(split.training, row) for row, user in enumerate(split.training.users)
    }
    validation, test = (
        [
            (
                int(part.histories.users[row]),
                piece(part.histories, row),
                int(corpus.items[part.targets[row]]),
            )
            for row in range(len(part))
        ]
        for part in (split.validation, split.test)
    )
    return training, {user: (history, target) for user, history, target in validation}, test


def test_the_split_equals_a_loop_over_users(corpus: Corpus) -> None:
    training, validation, test = read(*Held().arranged_split(corpus))
    expected_training, expected_validation, expected_test = {}, {}, []
    for user, history in enumerate(HISTORIES):
        warm = [item for item in history if item not in COLD]
        if len(warm) >= 2:
            expected_training[user] = warm[:-1]
            expected_validation[user] = (warm[:-1], warm[-1])
        elif warm:
            expected_training[user] = warm
        before: list[int] = []
        asked, question = set(), None
        for item in history:
            if item not in COLD:
                before.append(item)
            elif item not in asked:
                asked.add(item)
                question = (user, list(before), item)
        if question is not None and question[1]:
            expected_test.append(question)
    assert training == expected_training
    assert validation == expected_validation
    assert test == expected_test
    # By hand, for the user who takes item 2 twice.
    assert training[5] == [0, 1]
    assert validation[5] == ([0, 1], 0)
    assert test == [(0, [0, 1], 3), (2, [0], 3), (5, [0, 1, 0], 3), (6, [4], 2)]


def test_random_corpora_split_as_the_loop_does(tmp_path: Path) -> None:
    draws = np.random.default_rng(7)
    histories = [draws.integers(12, size=draws.integers(0, 9)).tolist() for _ in range(40)]
    corpus = corpus_of(tmp_path / "c", histories, 12)
    config = ColdItems(share=0.3, seed=1)
    cold = set(config.items(corpus).tolist())
    assert len(cold) == 4
    arranged, split = split_corpus(config, corpus)
    training, _, test = read(arranged, split)
    expected = []
    for user, history in enumerate(histories):
        taken_up = [
            place
            for place, item in enumerate(history)
            if item in cold and item not in history[:place]
        ]
        if taken_up:
            before = [item for item in history[: taken_up[-1]] if item not in cold]
            if before:
                expected.append((user, before, history[taken_up[-1]]))
    assert test == expected
    assert not cold & {item for row in training.values() for item in row}
    assert split.not_evaluated == 40 - len({user for user, _, _ in expected})
    # Arranging moves events within a user, and moves their times along.
    for user, history in enumerate(histories):
        begin, end = corpus.offsets[user : user + 2]
        pairs = zip(arranged.items[begin:end].tolist(), arranged.timestamps[begin:end].tolist())
        assert sorted(pairs) == sorted(zip(history, range(len(history)), strict=True))


def test_nothing_that_trains_or_validates_sees_a_held_out_item(corpus: Corpus) -> None:
    arranged, split = Held().arranged_split(corpus)
    catalogue = Catalogue.of(arranged, split)
    assert catalogue.training.counts_V[[2, 3]].tolist() == [0, 0]
    for ranges in (split.training, split.validation.histories, split.test.histories):
        assert not COLD & set(arranged.items[flat_indices(ranges)].tolist())
    assert not COLD & set(arranged.items[split.validation.targets].tolist())
    assert set(arranged.items[split.test.targets].tolist()) == COLD


def test_the_draw_depends_on_its_own_seed_and_takes_items_with_events_alone(
    tmp_path: Path,
) -> None:
    corpus = corpus_of(tmp_path / "c", [list(range(0, 40, 2))], num_items=40)
    drawn = [tuple(ColdItems(share=0.25, seed=seed).items(corpus)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 5
    assert all(item % 2 == 0 for item in drawn[0])


def test_the_newest_items_are_those_whose_first_event_is_newest(tmp_path: Path) -> None:
    histories, times = [[0, 1, 2], [3, 0]], [[5, 6, 9], [7, 20]]
    corpus = write_histories(tmp_path / "c", histories, num_items=5, timestamps=times)
    # Item 0 has the newest event, but begins first; item 4 has none.
    assert ColdItems(share=0.5, choice="newest").items(corpus).tolist() == [2, 3]
    assert ColdItems(share=0.1, choice="newest").items(corpus).tolist() == [2]


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="above 0 and below 1"):
        ColdItems(share=1.0)
    with pytest.raises(InputError, match=r"seed is 5, but split\.choice newest draws nothing"):
        ColdItems(choice="newest", seed=5)
    one = corpus_of(tmp_path / "one", [[0, 0]])
    with pytest.raises(InputError, match="leaves none to train on"):
        ColdItems().items(one)
    apart = corpus_of(tmp_path / "apart", [[2, 3], [0, 1], [2]])
    with pytest.raises(InputError, match="no user has an event with one of the 2 held-out items"):
        Held().arranged_split(apart)


def test_a_split_of_histories_leaves_the_corpus_as_it_is(corpus: Corpus) -> None:
    assert split_corpus(LeaveOneOut(), corpus)[0] is corpus


def test_the_audit_tells_that_training_has_later_events_of_the_same_user(tmp_path: Path) -> None:
    # The only user takes item 2, held out, before others.
    corpus = corpus_of(tmp_path / "c", [[0, 2, 1, 4, 5]])
    later = {each.check: each for each in audit_corpus(corpus, Held())}["later events"]
    assert later.numbers["share"] == 1.0
    assert "of other users, and of the same user with other items, that are later" in later.sentence
    assert "(split=TemporalCut)" in later.sentence


def test_the_audit_knows_the_split(corpus: Corpus) -> None:
    findings = {each.check: each for each in audit_corpus(corpus, Held())}
    cold = findings["cold items, test"]
    assert (cold.level, cold.numbers["share"]) == ("fine", 1.0)
    assert "100.0 % of the test's held-out items never occur in training, by design" in (
        cold.sentence
    )
    # Item 5 is user 1's last and nobody else's.
    assert findings["cold items, validation"].numbers["cold"] == 1
    assert findings["targets in the history, test"].numbers["seen"] == 0

"""The agreement of neighbors' order: by hand, and against a slow twin."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations, pairwise

import numpy as np
import pytest

from research.data.tied_times import OrderAgreement


def agreement_of(
    histories: list[list[int]], times: list[list[int]] | None = None
) -> OrderAgreement:
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, histories)])
    flat_times = None if times is None else np.array([time for row in times for time in row])
    return OrderAgreement.of(items, offsets, flat_times)


def slow_agreement(
    histories: list[list[int]], times: list[list[int]] | None = None
) -> tuple[int, float]:
    """(pairs, share), two steps at a time."""
    steps = defaultdict[frozenset[int], list[tuple[int, int]]](list)
    for user, history in enumerate(histories):
        for place, (before, after) in enumerate(pairwise(history)):
            within = times is None or times[user][place] == times[user][place + 1]
            if before != after and within:
                steps[frozenset((before, after))].append((before, after))
    shares = [
        np.mean([one == other for one, other in combinations(of_pair, 2)])
        for of_pair in steps.values()
        if len(of_pair) > 1
    ]
    return len(shares), float(np.mean(shares)) if shares else 0.0


def test_steps_the_same_way_agree_and_the_others_do_not() -> None:
    # 0 and 1: three times forward, once back; 2 and 3: twice forward; 1 and 2: one step alone.
    found = agreement_of([[0, 1, 2, 3], [0, 1], [0, 1], [1, 0], [2, 3]])
    assert (found.pairs, found.share) == (2, (3 / 6 + 1.0) / 2)
    # Variances of .25 over 6 and over 1, of a mean of two.
    assert found.standard_error == pytest.approx((0.25 / 6 + 0.25) ** 0.5 / 2)


def test_only_steps_within_one_time_count_where_there_are_times() -> None:
    histories = [[0, 1, 2], [1, 0, 2], [0, 1, 2]]
    times = [[5, 5, 9], [5, 6, 6], [7, 7, 7]]
    # Within one time: 0 to 1 twice, 0 to 2 once, 1 to 2 once.
    found = agreement_of(histories, times)
    assert (found.pairs, found.share) == (1, 1.0)


@pytest.mark.parametrize("histories", [[], [[]], [[3]], [[], [1, 2], []], [[4, 4], [4, 4]]])
def test_without_two_steps_there_is_no_pair(histories: list[list[int]]) -> None:
    found = agreement_of(histories, [[0] * len(history) for history in histories])
    assert found == OrderAgreement(pairs=0, share=0.0, standard_error=0.0)
    assert not found.exceeds(0.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_agreement_equals_that_of_loops(seed: int) -> None:
    draws = np.random.default_rng(seed)
    lengths = draws.integers(0, 12, 40).tolist()
    histories = [draws.integers(0, 9, length).tolist() for length in lengths]
    times = [sorted(draws.integers(0, 4, length).tolist()) for length in lengths]
    for given in (None, times):
        found = agreement_of(histories, given)
        pairs, share = slow_agreement(histories, given)
        assert (found.pairs, found.share) == (pairs, pytest.approx(share))
        assert pairs > 10


def test_a_drawn_order_agrees_on_half_at_three_and_more_items_a_time() -> None:
    draws = np.random.default_rng(0)
    days = [draws.permutation(4) + 4 * day for day in range(200) for _ in range(6)]
    found = agreement_of([day.tolist() for day in days], [[0] * 4] * len(days))
    assert found.pairs > 500
    assert abs(found.share - 0.5) < 4 * found.standard_error < 0.07


def test_a_share_must_be_of_enough_pairs_and_beyond_chance() -> None:
    assert not OrderAgreement(pairs=99, share=1.0, standard_error=0.01).exceeds(0.75)
    assert OrderAgreement(pairs=100, share=1.0, standard_error=0.05).exceeds(0.75)
    assert not OrderAgreement(pairs=10_000, share=0.755, standard_error=0.005).exceeds(0.75)

"""Sampled candidate sets: the negatives of each question, drawn uniformly or by popularity.

A question's negatives are distinct, never of the user's history and never the held-out item (the
user's own items must not be negatives). A stream of items is drawn from all of them, and what is
excluded or has been drawn before is rejected: that costs O(negatives) a question, whatever the size
of the catalogue, as long as few draws are rejected. Where many would be, negatives are drawn by
waiting times of all items, which costs O(items) a question: where the negatives are no small part
of the catalogue, or a few items have nearly all interactions, or a question's history has.
`candidates.py` ranks among them.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.corpus import Corpus
from research.data.negatives import is_among
from research.data.splits import HeldOut, flat_indices
from research.errors import InputError
from research.evaluation.candidates import HISTORIES, Listed, check_one_target_per_user
from research.randomness import below, fold, seed_of, uniform

# A draw costs about as much as the waiting times of so many items (measured at 1,000 to 12,000).
ITEMS_PER_DRAW = 8
# Draws and waiting times that are held at once, which bounds the memory.
_DRAWS = 1 << 18
_WAITS = 1 << 21


def sample_candidates(
    corpus: Corpus,
    held_out: HeldOut,
    distribution: Literal["uniform", "popularity"],
    number: int,
    counts_V: Tensor,
    *purpose: int | str,
) -> Listed:
    """Sample `number` distinct negatives a question, outside its history and its held-out item.

    They are drawn one after another, uniformly or in proportion to the training counts `counts_V`
    (int64 [V]), each from the items that are left. The draw is a pure function of `purpose` (a seed
    and the part: docs/pitfalls.md, "one draw of negatives for validation and test"), the user and
    the held-out item. `InputError` when a user has several held-out items or fewer than `number`
    items that can be drawn.

    An item that is drawn from all items until it is a new one that is allowed has the distribution
    of an item drawn from those. The exponential keys of Efraimidis and Spirakis (2006) give orders
    of the same distribution. They draw all negatives where `draws_are_cheaper` does not hold, and
    elsewhere what draws have not given: the number of draws is fixed beforehand, so stopping tells
    nothing about what comes next.
    """
    name = f"{distribution}-{number}"
    check_one_target_per_user(held_out, name)
    if number >= corpus.num_items:
        raise InputError(
            f"evaluation: {name} asks for {number} distinct negatives, but corpus {corpus.name} "
            f"has {corpus.num_items} items; ask for fewer or rank all items"
        )
    weights_V = counts_V.cpu() if distribution == "popularity" else torch.ones_like(counts_V.cpu())
    random_state = seed_of("candidates", distribution, *purpose)
    users_Q = torch.from_numpy(held_out.histories.users)
    targets_Q = torch.from_numpy(corpus.items[held_out.targets].astype(np.int64))
    streams_Q = fold(fold(random_state, users_Q), targets_Q)
    negatives_QN = torch.full((len(held_out), number), -1, dtype=torch.int64)
    rejects = draws_are_cheaper(weights_V, number)
    chunk = min(HISTORIES, max(1, _DRAWS // number))
    for first in range(0, len(held_out) if rejects else 0, chunk):
        rows = np.arange(first, min(first + chunk, len(held_out)))
        excluded = excluded_keys(corpus, held_out, rows)
        negatives_QN[rows] = drawn_by_rejection(streams_Q[rows], excluded, weights_V, number)
    (short,) = np.nonzero(negatives_QN[:, -1].numpy() < 0)
    chunk = max(1, _WAITS // corpus.num_items)
    for first in range(0, len(short), chunk):
        rows = short[first : first + chunk]
        excluded = excluded_keys(corpus, held_out, rows)
        negatives_QN[rows], num_allowed_R = completed_by_waiting(
            streams_Q[rows], excluded, weights_V, negatives_QN[rows]
        )
        if int(num_allowed_R.min()) < number:
            question = int(num_allowed_R.argmin())
            user = int(held_out.histories.users[rows[question]])
            raise InputError(
                f"evaluation: {name} asks for {number} distinct negatives, but for user "
                f"{corpus.user_names[user]} only {int(num_allowed_R[question])} items can be drawn "
                "outside the history and the held-out item; ask for fewer or rank all items"
            )
    return Listed(name, negatives_QN, draw="rejection or waiting")


def draws_are_cheaper(weights_V: Tensor, number: int) -> bool:
    """Whether as many draws as cost what waiting times do are expected to give N distinct items.

    Histories are not considered, so that all questions are drawn alike.
    """
    draws = min(_most_draws(number), len(weights_V) // ITEMS_PER_DRAW)
    shares_V = weights_V.double() / weights_V.sum()
    return float((1.0 - (1.0 - shares_V) ** draws).sum()) >= number


def _most_draws(number: int) -> int:
    return 8 * number + 64


def excluded_keys(corpus: Corpus, held_out: HeldOut, rows: NDArray[np.int64]) -> Tensor:
    """int64 [M], sorted: place * V + item for each item that is no negative of a question.

    The place is that of the question in `rows`. The items are those of the history, as often as
    they occur there, and the held-out item.
    """
    questions = held_out.select(rows)
    histories, places = questions.histories, np.arange(len(rows))
    owners = np.r_[np.repeat(places, histories.stops - histories.starts), places]
    interactions = np.r_[flat_indices(histories), questions.targets]
    return torch.from_numpy(np.sort(owners * corpus.num_items + corpus.items[interactions]))


def drawn_by_rejection(
    streams_Q: Tensor, excluded: Tensor, weights_V: Tensor, number: int
) -> Tensor:
    """int64 [Q, N]: the first N distinct, allowed items of each question's stream of draws.

    Item number k of a stream is drawn in proportion to `weights_V`, by random bits k of the states
    `streams_Q`. `excluded` is what `excluded_keys` returns for the questions. The last columns are
    -1 where a number of draws that is fixed for an N was too few.
    """
    num_items, cumulative_V = len(weights_V), weights_V.cumsum(0)
    drawn_QN = torch.full((len(streams_Q), number), -1, dtype=torch.int64)
    most = _most_draws(number)
    draws = number + number // 8 + 8
    total = int(cumulative_V[-1])
    open_R = torch.arange(len(streams_Q) if total else 0)
    while len(open_R):
        # Streams that were too short are drawn anew, at twice the length.
        bits_RK = fold(streams_Q[open_R, None], torch.arange(draws))
        items_RK = torch.searchsorted(cumulative_V, below(bits_RK, total), right=True)
        keys_RK = open_R[:, None] * num_items + items_RK
        accepted_RK = is_first_of_row(items_RK) & ~is_among(excluded, keys_RK)
        columns_RK = accepted_RK.cumsum(1) - 1
        taken_RK = accepted_RK & (columns_RK < number)
        rows = open_R[:, None].expand_as(items_RK)[taken_RK]
        drawn_QN[rows, columns_RK[taken_RK]] = items_RK[taken_RK]
        if draws == most:
            break
        open_R = open_R[columns_RK[:, -1] + 1 < number]
        draws = min(2 * draws, most)
    return drawn_QN


def is_first_of_row(items_RK: Tensor) -> Tensor:
    """bool [R, K]: whether an item (int64, not negative) has none like it before it in its row."""
    num_columns = items_RK.shape[1]
    # Sorted by item and, among equal ones, by column.
    keys_RK = np.sort((items_RK * num_columns + torch.arange(num_columns)).numpy(), axis=1)
    items, columns = np.divmod(keys_RK, num_columns)
    is_first_RK = np.ones(keys_RK.shape, dtype=bool)
    np.put_along_axis(is_first_RK, columns[:, 1:], items[:, 1:] != items[:, :-1], axis=1)
    return torch.from_numpy(is_first_RK)


def completed_by_waiting(
    streams_R: Tensor, excluded: Tensor, weights_V: Tensor, drawn_RN: Tensor
) -> tuple[Tensor, Tensor]:
    """int64 [R, N]: `drawn_RN` with what it lacks (-1, the last columns) drawn from all items;
    int64 [R]: how many items can be drawn. Rows with fewer than N of them have no meaning.

    Each item waits an exponential time at the rate of its weight, and those with the shortest waits
    are drawn. It takes O(V) a question. `excluded` is what `excluded_keys` returns for them.
    """
    number, columns_V = drawn_RN.shape[1], torch.arange(len(weights_V))
    # Other random bits than those of the draws.
    states_R1 = fold(streams_R, seed_of("waits"))[:, None]
    waits_RV = (2.0**-54 - torch.log1p(-uniform(fold(states_R1, columns_V)))) / weights_V
    waits_RV.view(-1)[excluded] = torch.inf
    lacks_RN = drawn_RN < 0
    drawn_places = (~lacks_RN).nonzero()[:, 0]
    waits_RV[drawn_places, drawn_RN[~lacks_RN]] = torch.inf
    # An item that is excluded, or has no weight, waits forever.
    num_allowed_R = waits_RV.isfinite().sum(1) + (~lacks_RN).sum(1)
    next_RN = waits_RV.topk(number, dim=1, largest=False).indices
    # Column n of what a row lacks is its n-th shortest wait.
    nth_RN = (lacks_RN.cumsum(1) - 1).clamp_(min=0)
    return torch.where(lacks_RN, next_RN.gather(1, nth_RN), drawn_RN), num_allowed_R

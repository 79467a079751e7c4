"""The slow twins of evaluation: ranks and metrics by sorting lists, counts by dictionaries.

Everything here is a Python loop over lists, written from the definitions and not from the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, permutations, product
from math import inf, log1p, log2
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from research.data.corpus import Corpus, Manifest, write_corpus
from research.data.names import Names
from research.evaluation.ranker import Ranker
from research.packed import Packed
from research.randomness import seed_of
from tests.support.reference import random_below, random_bits, random_uniform


def rank_of(scores: Mapping[int, float], answer: int) -> tuple[float, int]:
    """(1-based rank of `answer` among `scores`, others that tie with it).

    The candidates are sorted and laid out in places; a group of equal scores shares its places, and
    the rank is the middle of the first and the last of them.
    """
    place = 1
    for _, group in groupby(sorted(scores, key=lambda item: -scores[item]), scores.__getitem__):
        tied = list(group)
        if answer in tied:
            return (place + (place + len(tied) - 1)) / 2, len(tied) - 1
        place += len(tied)
    raise AssertionError("the answer is not among the candidates")


def question_rank(
    scores: Sequence[float],
    history: Sequence[int],
    answer: int,
    negatives: Sequence[int] | None,
    exclude_seen: bool,
) -> float:
    """The rank of one held-out item; infinite when it is excluded with the history."""
    if exclude_seen and answer in history:
        return inf
    candidates = list(range(len(scores))) if negatives is None else [answer, *negatives]
    if exclude_seen:
        candidates = [item for item in candidates if item not in history]
    return rank_of({item: scores[item] for item in candidates}, answer)[0]


def sampled_negatives(
    state: int, weights: Sequence[int], excluded: Collection[int], number: int, *, rejects: bool
) -> list[int]:
    """The negatives of a question whose stream of draws begins at `state` (64 bits, unsigned).

    With `rejects`, items are drawn from an urn until enough are new and allowed, 8 N + 64 times at
    most; what is lacking then are the items with the shortest exponential waits.
    """
    urn = [item for item, weight in enumerate(weights) for _ in range(weight)]
    drawn: list[int] = []
    for draw in range(8 * number + 64 if rejects else 0):
        item = urn[random_below(random_bits(state, draw), len(urn))]
        if item not in drawn and item not in excluded and len(drawn) < number:
            drawn.append(item)
    state_of_waits = random_bits(state, seed_of("waits"))
    waits = {
        item: (2**-54 - log1p(-random_uniform(random_bits(state_of_waits, item)))) / weight
        for item, weight in enumerate(weights)
        if weight and item not in drawn and item not in excluded
    }
    return drawn + sorted(waits, key=lambda item: waits[item])[: number - len(drawn)]


def metric_of_user(ranks: Sequence[float], kind: str, k: float) -> float:
    """A metric of one user from the ranks of all of the user's held-out items."""
    found = sorted(rank for rank in ranks if rank <= k and rank < inf)
    if kind == "hr":
        return 1.0 if found else 0.0
    if kind == "recall":
        return len(found) / len(ranks)
    if kind == "precision":
        return len(found) / k
    if kind == "mrr":
        return 1.0 / found[0] if found else 0.0
    best = list(range(1, min(len(ranks), int(k)) + 1))
    if kind == "ndcg":
        return sum(1 / log2(1 + rank) for rank in found) / sum(1 / log2(1 + rank) for rank in best)
    precisions = [number / rank for number, rank in enumerate(found, 1)]
    if kind == "map-r":
        return sum(precisions) / len(ranks)
    assert kind == "map"
    return sum(precisions) / len(best)


def mean_over_users(rows: Sequence[tuple[int, float]], kind: str, k: float) -> float:
    """The mean of a metric over users, from (user, rank) rows."""
    users = sorted({user for user, _ in rows})
    values = [
        metric_of_user([rank for owner, rank in rows if owner == user], kind, k) for user in users
    ]
    return sum(values) / len(values)


def every_order(scores: Mapping[int, float]) -> list[list[int]]:
    """All ways to lay out candidates by score, best first, those of equal scores in any order."""
    tied: dict[float, list[int]] = {}
    for item, score in scores.items():
        tied.setdefault(score, []).append(item)
    ways = [list(permutations(tied[score])) for score in sorted(tied, reverse=True)]
    return [[item for group in order for item in group] for order in product(*ways)]


def expected_of_user(
    scores: Mapping[int, float], held_out: Sequence[int], missed: int, kind: str, k: float
) -> float:
    """A metric of one user, the mean over every order of candidates that tie.

    `missed` items are held out too, but stand in no list.
    """
    orders = every_order(scores)
    values = [
        metric_of_user([order.index(item) + 1.0 for item in held_out] + [inf] * missed, kind, k)
        for order in orders
    ]
    return sum(values) / len(values)


def transition_scores(
    training: Sequence[Sequence[int]], num_items: int, newest: int
) -> list[tuple[int, int]]:
    """(times it followed `newest` directly, popularity) of every item, to be compared as pairs."""
    popularity = Counter(item for history in training for item in history)
    follows: Counter[tuple[int, int]] = Counter()
    for history in training:
        follows.update(pairwise(history))
    return [(follows[newest, item], popularity[item]) for item in range(num_items)]


def corpus_of(
    histories: Sequence[Sequence[int]],
    num_items: int,
    timestamps: Sequence[Sequence[int]] | None = None,
    name: str = "tiny",
) -> Corpus:
    """A corpus in memory, without attributes; raw names are u0, u1, ... and i0, i1, ..."""
    times = None
    if timestamps is not None:
        times = np.array([time for row in timestamps for time in row], dtype=np.int64)
    return Corpus(
        folder=Path("nowhere"),
        items=np.array([item for history in histories for item in history], dtype=np.int32),
        offsets=np.cumsum([0, *(len(history) for history in histories)], dtype=np.int64),
        timestamps=times,
        attribute_offsets=np.zeros(num_items + 1, dtype=np.int64),
        attribute_ids=np.zeros(0, dtype=np.int32),
        user_names=Names.from_strings([f"u{user}" for user in range(len(histories))]),
        item_names=Names.from_strings([f"i{item}" for item in range(num_items)]),
        attribute_names=Names.from_strings([]),
        item_titles=None,
        manifest=Manifest(
            format=1,
            name=name,
            fingerprint=f"{name}, not hashed",
            counts={},
            has_timestamps=times is not None,
            has_titles=False,
            options={},
            report={},
        ),
    )


def write_to_disk(corpus: Corpus, folder: Path) -> Corpus:
    """The same corpus on disk, with its true fingerprint."""
    return write_corpus(
        folder,
        name=corpus.name,
        items=corpus.items,
        offsets=corpus.offsets,
        timestamps=corpus.timestamps,
        attribute_offsets=corpus.attribute_offsets,
        attribute_ids=corpus.attribute_ids,
        user_names=corpus.user_names,
        item_names=corpus.item_names,
        attribute_names=corpus.attribute_names,
        item_titles=None,
        options={},
        report={},
    )


class FixedScores:
    """A ranker whose scores of user u are row u of a table."""

    def __init__(self, table_UV: Tensor | Sequence[Sequence[float]]) -> None:
        self.table_UV = torch.as_tensor(table_UV, dtype=torch.float64)
        self.asked: list[list[list[int]]] = []
        self.tiles: list[tuple[int, int]] = []

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedRows:
        """Rows of the table; the histories that were shown are kept in `asked`."""
        bounds = histories.offsets.tolist()
        items = histories.items_T.tolist()
        self.asked.append([items[a:b] for a, b in pairwise(bounds)])
        return EncodedRows(self.table_UV[users_S], self.tiles)


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Scores that are known."""

    table_SV: Tensor
    tiles: list[tuple[int, int]]
    """The columns that were asked for, in turn."""

    @property
    def columns(self) -> int:
        """V, or more."""
        return self.table_SV.shape[1]

    @property
    def largest_S(self) -> Tensor:
        """[S]."""
        return self.table_SV.abs().amax(1)

    def scores(self, first: int, last: int) -> Tensor:
        """[S, last - first]."""
        assert 0 <= first < last <= self.columns
        self.tiles.append((first, last))
        return self.table_SV[:, first:last].clone()

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """[S, N]."""
        return self.table_SV.gather(1, items_SN)


def scores_of_all(ranker: Ranker, histories: Packed, users_S: Tensor | None = None) -> Tensor:
    """[S, columns]: what a ranker gives for everything that competes."""
    users_S = torch.arange(histories.num_sequences) if users_S is None else users_S
    encoded = ranker.encode(histories, users_S)
    return encoded.scores(0, encoded.columns)

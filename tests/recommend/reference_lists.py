"""The slow twin of recommending: score all items, leave out what may not be, sort, cut.

Everything here is a Python loop over lists, written from the definitions and not from the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from research.packed import Packed
from tests.evaluation.reference_ranks import EncodedRows

Row = tuple[int, int, float, int, bool]


def score_after(history: Sequence[int], item: int) -> float:
    """A score of few different values, which depends on the newest item and the length."""
    return float((7 * history[-1] + 3 * item + len(history)) % 5) - 2.0


class ByNewest:
    """A ranker that scores by `score_after`, and cannot read an empty history."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self.sizes: list[int] = []

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedRows:
        """The scores of all items after each history."""
        bounds, items = histories.offsets.tolist(), histories.items_T.tolist()
        self.sizes.append(len(bounds) - 1)
        rows = [
            [score_after(items[start:stop], item) for item in range(self.num_items)]
            for start, stop in pairwise(bounds)
        ]
        return EncodedRows(torch.tensor(rows, dtype=torch.float64), [])


def best_rows(
    histories: Sequence[Sequence[int]],
    num_items: int,
    k: int,
    *,
    trained: Sequence[Sequence[int]],
    keeps_seen: bool,
    candidates: Collection[int],
) -> list[Row]:
    """(request, item, score, rank, by popularity) of all histories, in order.

    `trained` are the training histories, which popularity counts.
    """
    counts = Counter(item for history in trained for item in history)
    rows: list[Row] = []
    for request, history in enumerate(histories):
        free = [item for item in candidates if keeps_seen or item not in history]
        scores = {
            item: score_after(history, item) if history else float(counts[item]) for item in free
        }
        ordered = sorted(scores, key=lambda item: (-scores[item], item))
        rows += [
            (request, item, scores[item], rank, not history)
            for rank, item in enumerate(ordered[:k], 1)
        ]
    assert all(0 <= item < num_items for _, item, *_ in rows)
    return rows

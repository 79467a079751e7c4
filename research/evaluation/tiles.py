"""Counts of the candidates that beat the held-out items, one tile of scores at a time.

Sits between the rankers, which give scores, and the candidate sets, which say what competes. Ranks
come from the numbers of higher and of equal scores. So only scores from tiles of one width, or from
one list, are compared: there, items with equal weights have scores equal to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.evaluation.ranker import Encoded
from research.packed import Packed

SeenPolicy = Literal["excluded", "kept", "zero"]


# From this many questions about one history on, its scores are sorted in among the held-out items'
# scores, which costs the same for any number of questions. Fewer are faster to compare one by one.
MANY_QUESTIONS = 64


@dataclass(frozen=True, eq=False)
class Questions:
    """Q questions about S histories that are ranked together.

    They are on the host, so that no size waits for the device. Each history is there once, however
    many held-out items are asked for after it.
    """

    rows_Q: NDArray[np.int64]
    """[Q] their rows in the table of held-out items."""
    targets_Q: NDArray[np.int64]
    """[Q] the held-out item of each."""
    history_Q: NDArray[np.int64]
    """[Q] index of each question's history, ascending; every history has a question."""
    owner_T: NDArray[np.int64]
    """[T] index of the history that each seen item belongs to, ascending."""
    seen_T: NDArray[np.int64]
    """[T] items of the histories; empty when the policy is "kept"."""
    num_items: int
    """V, the number of items in the catalogue."""
    policy: SeenPolicy
    """How items of the history are ranked: see `rank_tables` in `ranking.py`."""

    @staticmethod
    def of(
        histories: Packed,
        history_Q: NDArray[np.int64],
        rows_Q: NDArray[np.int64],
        targets_Q: NDArray[np.int64],
        num_items: int,
        policy: SeenPolicy,
    ) -> Questions:
        """The questions about these histories, which are on the host; see the fields.

        The histories are whole, longer than what the encoder reads (docs/pitfalls.md, "seen means
        the window").
        """
        tokens = 0 if policy == "kept" else histories.num_tokens
        owner_T, seen_T = histories.owner_T[:tokens].numpy(), histories.items_T[:tokens].numpy()
        return Questions(rows_Q, targets_Q, history_Q, owner_T, seen_T, num_items, policy)

    @property
    def num_histories(self) -> int:
        """S, the number of histories."""
        return int(self.history_Q[-1]) + 1

    @property
    def shared(self) -> bool:
        """Whether several questions are about one history."""
        return self.num_histories < len(self.history_Q)

    @cached_property
    def target_is_seen_Q(self) -> NDArray[np.bool_]:
        """[Q] whether the held-out item is in its own history; False when the policy is "kept"."""
        if self.shared:
            return self.is_seen(self.targets_Q[:, None])[:, 0]
        owners = self.owner_T[self.seen_T == self.targets_Q[self.owner_T]]
        return np.bincount(owners, minlength=len(self.targets_Q)) > 0

    @cached_property
    def missed_Q(self) -> NDArray[np.bool_]:
        """[Q] whether the held-out item is excluded as seen, and so is a miss.

        See docs/pitfalls.md, "held-out items already seen".
        """
        return self.target_is_seen_Q & (self.policy == "excluded")

    def is_seen(self, items_QN: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [Q, N]: whether item n of row q is in the history of question q.

        All False when `policy` is "kept", as histories are not stored then.
        """
        if len(self.seen_T) == 0:
            return np.zeros(items_QN.shape, dtype=bool)
        keys_T = np.sort(self.owner_T * self.num_items + self.seen_T)
        keys_QN = self.history_Q[:, None] * self.num_items + items_QN
        places_QN = np.searchsorted(keys_T, keys_QN)
        nearest_QN = keys_T[np.minimum(places_QN, len(keys_T) - 1)]
        is_seen_QN: NDArray[np.bool_] = nearest_QN == keys_QN
        return is_seen_QN


def count_among_all(encoded: Encoded, questions: Questions, columns: int) -> tuple[Tensor, Tensor]:
    """(higher, equal): how many columns score higher than the held-out item, and how many the same.

    Both are float64 [Q], on the scores' device. All columns compete but the held-out item itself
    and excluded items; `columns` columns are scored at a time. The score of a held-out item is read
    from its own tile: tiles that contain held-out items come first, and all but the last of them
    are scored a second time, to be counted.
    """
    device = encoded.largest_S.device
    tiles = tiles_of(questions.num_items, encoded.columns, columns)
    targets_by_tile = places_by_tile(questions.targets_Q, columns, len(tiles))
    seen_by_tile = places_by_tile(questions.seen_T, columns, len(tiles))
    target_tiles = [number for number in range(len(tiles)) if len(targets_by_tile[number])]
    others = [number for number in range(len(tiles)) if len(targets_by_tile[number]) == 0]
    target_scores_Q = torch.empty(0)
    counters: list[Counter] = []
    for visit, tile_number in enumerate([*target_tiles, *others, *target_tiles[:-1]]):
        tile = tiles[tile_number]
        scores_SC = encoded.scores(tile.first, tile.last)[:, tile.begin - tile.first :]
        if visit == 0:
            target_scores_Q = scores_SC.new_empty(len(questions.targets_Q))
        places = targets_by_tile[tile_number]
        if visit < len(target_tiles):
            target_columns = questions.targets_Q[places] - tile.begin
            numbers, rows, entry_columns = to_device_together(
                (places, questions.history_Q[places], target_columns), device
            )
            target_scores_Q[numbers] = scores_SC[rows, entry_columns]
        if visit < len(target_tiles) - 1:
            continue
        if visit == len(target_tiles) - 1:
            if questions.policy == "zero":
                target_scores_Q.masked_fill_(to_device(questions.target_is_seen_Q, device), 0.0)
            widest = max(tile.last - tile.begin for tile in tiles)
            counters = counters_of(questions, target_scores_Q, widest)
        _set_seen(scores_SC, questions, seen_by_tile[tile_number], tile)
        for counter in counters:
            counter.add(scores_SC, tile, places)
    if len(counters) == 1:
        higher_Q, at_least_Q = counters[0].counts()
        return higher_Q, at_least_Q - higher_Q
    counts = [counter.counts() for counter in counters]
    order_Q = to_device(
        np.argsort(np.concatenate([counter.numbers_N for counter in counters])), device
    )
    higher_Q, at_least_Q = (torch.cat(parts)[order_Q] for parts in zip(*counts))
    return higher_Q, at_least_Q - higher_Q


class Counter(ABC):
    """Abstract: counts, tile by tile, the columns that beat or equal some held-out items."""

    numbers_N: NDArray[np.int64]
    """[N] the questions that this counts for, ascending."""

    @abstractmethod
    def add(self, scores_SC: Tensor, tile: Tile, places: NDArray[np.int64]) -> None:
        """Count the columns of a tile; seen items have been set, held-out items have not.

        `places` are the questions whose held-out items are in the tile. `ComparingCounter` may
        write into the scores.
        """

    @abstractmethod
    def counts(self) -> tuple[Tensor, Tensor]:
        """(higher, at least): float64 [N] each, how many columns score higher, or no lower.

        A held-out item's own column is not counted.
        """


def counters_of(questions: Questions, target_scores_Q: Tensor, widest: int) -> list[Counter]:
    """The counters of all questions; the one that writes into the scores comes last.

    No tile has more than `widest` columns to count.
    """
    sizes_S = np.bincount(questions.history_Q)
    many_S = sizes_S >= MANY_QUESTIONS
    ends_S = np.cumsum(sizes_S)
    counters: list[Counter] = [
        SortingCounter(questions, target_scores_Q, np.arange(end - size, end))
        for size, end in zip(sizes_S[many_S], ends_S[many_S])
    ]
    if not many_S.all():
        few = np.flatnonzero(~many_S[questions.history_Q])
        counters.append(ComparingCounter(questions, target_scores_Q, few, widest))
    return counters


class ComparingCounter(Counter):
    """Compares all scores of a tile with each question's: N x C comparisons for N questions."""

    def __init__(
        self,
        questions: Questions,
        target_scores_Q: Tensor,
        numbers_N: NDArray[np.int64],
        widest: int,
    ) -> None:
        """`numbers_N` are the questions to count for, ascending; `widest` as in `counters_of`."""
        device = target_scores_Q.device
        self.questions = questions
        self.numbers_N = numbers_N
        # Where no history is shared, its row of scores is the question's, and needs no copy.
        self.history_N: Tensor | None = None
        if questions.shared:
            index_N, self.history_N = to_device_together(
                (numbers_N, questions.history_Q[numbers_N]), device
            )
            target_scores_Q = target_scores_Q[index_N]
        self.target_scores_N1 = target_scores_Q[:, None]
        # Comparisons are several times faster when they write the scores' type, not bool.
        self.flags = target_scores_Q.new_empty(len(numbers_N), widest)
        self.higher_N = torch.zeros(len(numbers_N), dtype=torch.float64, device=device)
        self.at_least_N = torch.zeros_like(self.higher_N)

    def add(self, scores_SC: Tensor, tile: Tile, places: NDArray[np.int64]) -> None:
        """As in `Counter`."""
        scores_NC = scores_SC if self.history_N is None else scores_SC[self.history_N]
        rows = np.searchsorted(self.numbers_N, places)
        counted = self.numbers_N[np.minimum(rows, len(self.numbers_N) - 1)] == places
        target_columns = self.questions.targets_Q[places[counted]] - tile.begin
        entries = to_device_together((rows[counted], target_columns), scores_NC.device)
        scores_NC[entries] = -torch.inf
        flags_NC = self.flags[:, : scores_NC.shape[1]]
        # Sums of ones are exact in fp32 up to 2^24 columns.
        self.higher_N += torch.gt(scores_NC, self.target_scores_N1, out=flags_NC).sum(1)
        self.at_least_N += scores_NC.ge_(self.target_scores_N1).sum(1)

    def counts(self) -> tuple[Tensor, Tensor]:
        """As in `Counter`."""
        return self.higher_N, self.at_least_N


class SortingCounter(Counter):
    """Sorts the scores of one history in among those of its N held-out items.

    A score is counted once, by its place among the N sorted scores; sums over places then give each
    question's counts. That is C log N steps for a tile, however many questions there are.
    """

    def __init__(
        self, questions: Questions, target_scores_Q: Tensor, numbers_N: NDArray[np.int64]
    ) -> None:
        """`numbers_N` are all the questions about the history, which are neighbours."""
        self.history = int(questions.history_Q[numbers_N[0]])
        self.numbers_N = numbers_N
        neighbors = slice(int(numbers_N[0]), int(numbers_N[-1]) + 1)
        self.sorted_N, self.order_N = target_scores_Q[neighbors].sort()
        self.higher_at = self.sorted_N.new_zeros(len(self.sorted_N) + 1, dtype=torch.float64)
        self.at_least_at = torch.zeros_like(self.higher_at)
        # Each held-out item's own column is counted with the others, unless it is excluded.
        own_N = (~questions.missed_Q[neighbors]).astype(np.float64)
        self.own_N = to_device(own_N, self.order_N.device)

    def add(self, scores_SC: Tensor, tile: Tile, places: NDArray[np.int64]) -> None:
        """As in `Counter`."""
        scores_C = scores_SC[self.history].contiguous()
        ones_C = torch.ones_like(scores_C, dtype=torch.float64)
        self.higher_at.index_add_(0, torch.searchsorted(self.sorted_N, scores_C), ones_C)
        at_least_C = torch.searchsorted(self.sorted_N, scores_C, right=True)
        self.at_least_at.index_add_(0, at_least_C, ones_C)

    def counts(self) -> tuple[Tensor, Tensor]:
        """As in `Counter`."""
        # A score whose place is after n is higher than the n-th, or no lower.
        higher_N, at_least_N = (
            torch.empty_like(self.own_N).index_copy(0, self.order_N, (at.sum() - at.cumsum(0))[:-1])
            for at in (self.higher_at, self.at_least_at)
        )
        return higher_N, at_least_N - self.own_N


def places_by_tile(
    items: NDArray[np.int64], columns: int, num_tiles: int
) -> list[NDArray[np.int64]]:
    """For each tile, where the items that it counts stand in `items`, ascending."""
    if num_tiles == 1:
        return [np.arange(len(items))]
    # A stable sort of 16-bit numbers takes linear time.
    dtype = np.uint16 if num_tiles <= 1 << 16 else np.int64
    tiles = (items // columns).astype(dtype)
    order = np.argsort(tiles, kind="stable")
    return np.split(order, np.searchsorted(tiles[order], np.arange(1, num_tiles)))


@dataclass(frozen=True)
class Tile:
    """A range of columns that are scored together, and the part of it that is counted."""

    first: int
    """The first column that is scored."""
    begin: int
    """The first column that is counted."""
    last: int
    """One past the last column, of both."""


def tiles_of(num_items: int, all_columns: int, columns: int) -> list[Tile]:
    """Tiles whose counted parts together hold each of `all_columns` score columns exactly once.

    The first `num_items` columns are items. Their tiles all have one width, `columns` (or
    `num_items` if that is less), because the last bits of a matrix product may depend on it. So the
    last of them may also score columns that the tile before it counts. The other columns, such as
    the mask, form one more tile of their own width.
    """
    tiles = [
        Tile(max(0, min(begin, num_items - columns)), begin, min(begin + columns, num_items))
        for begin in range(0, num_items, columns)
    ]
    if all_columns > num_items:
        tiles.append(Tile(num_items, num_items, all_columns))
    return tiles


def _set_seen(
    scores_SC: Tensor, questions: Questions, places: NDArray[np.int64], tile: Tile
) -> None:
    """Overwrite the scores of seen items in place: minus infinity if excluded, otherwise 0.

    0 is S3-Rec's form (docs/pitfalls.md, "seen items score zero").
    `places` says which of the seen items are in the tile.
    """
    columns = questions.seen_T[places] - tile.begin
    seen = to_device_together((questions.owner_T[places], columns), scores_SC.device)
    scores_SC[seen] = -torch.inf if questions.policy == "excluded" else 0.0


def count_among_listed(
    encoded: Encoded, questions: Questions, negatives_QN: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """(higher, equal): how many negatives score higher than the held-out item, how many the same.

    Both are float64 [Q], on the scores' device. `negatives_QN`, [Q, N], are items. A held-out item
    among its own negatives does not compete, nor does an excluded item. No two questions are about
    one history.
    """
    assert not questions.shared, "lists are for one held-out item a user"
    device = encoded.largest_S.device
    items_QM = np.concatenate([questions.targets_Q[:, None], negatives_QN], axis=1)
    scores_QM = encoded.scores_of(to_device(items_QM, device))
    seen_QM = questions.is_seen(items_QM)
    competes_QN = negatives_QN != questions.targets_Q[:, None]
    if questions.policy == "zero":
        scores_QM = scores_QM.masked_fill(to_device(seen_QM, device), 0.0)
    else:
        competes_QN &= ~seen_QM[:, 1:]
    others_QN = scores_QM[:, 1:].masked_fill(to_device(~competes_QN, device), -torch.inf)
    higher_Q = (others_QN > scores_QM[:, :1]).sum(1, dtype=torch.float64)
    return higher_Q, (others_QN == scores_QM[:, :1]).sum(1, dtype=torch.float64)


def first_not_finite(encoded: Encoded, columns: int) -> int | None:
    """Index of the first history with a NaN or an infinite score; None: there is none.

    `columns` columns are scored at a time.
    """
    finite_S = torch.ones_like(encoded.largest_S, dtype=torch.bool)
    for first in range(0, encoded.columns, columns):
        last = min(first + columns, encoded.columns)
        finite_S &= encoded.scores(first, last).isfinite().all(1)
    bad = (~finite_S).nonzero()
    return int(bad[0]) if len(bad) else None


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A host array as a tensor on `device`; the host does not wait for the copy."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def to_device_together(
    arrays: Sequence[NDArray[np.int64]], device: torch.device
) -> tuple[Tensor, ...]:
    """Host arrays of one length as tensors on `device`, brought there by one copy."""
    return to_device(np.stack(arrays), device).unbind()

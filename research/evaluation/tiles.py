"""Counts of the candidates that beat the held-out items, one tile of scores at a time.

Sits between the rankers, which give scores, and the candidate sets, which say what competes. Ranks
come from the numbers of higher and of equal scores. So only scores from tiles of one width, or from
one list, are compared: there, items with equal weights have scores equal to the last bit.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Questions:
    """S questions that are ranked together; on the host, so that no size waits for the device."""

    rows_S: NDArray[np.int64]
    """[S] their rows in the table of held-out items."""
    targets_S: NDArray[np.int64]
    """[S] the held-out item of each."""
    owner_T: NDArray[np.int64]
    """[T] index of the question that each seen item belongs to, ascending."""
    seen_T: NDArray[np.int64]
    """[T] items of the histories; empty when the policy is "kept"."""
    num_items: int
    """V, the number of items in the catalogue."""
    policy: SeenPolicy
    """How items of the history are ranked: see `rank_tables` in `ranking.py`."""

    @staticmethod
    def of(
        histories: Packed,
        rows_S: NDArray[np.int64],
        targets_S: NDArray[np.int64],
        num_items: int,
        policy: SeenPolicy,
    ) -> Questions:
        """The questions with these histories, which are on the host; see the fields.

        The histories are whole, longer than what the encoder reads (docs/pitfalls.md, "seen means
        the window").
        """
        tokens = 0 if policy == "kept" else histories.num_tokens
        owner_T, seen_T = histories.owner_T[:tokens].numpy(), histories.items_T[:tokens].numpy()
        return Questions(rows_S, targets_S, owner_T, seen_T, num_items, policy)

    @cached_property
    def target_is_seen_S(self) -> NDArray[np.bool_]:
        """[S] whether the held-out item is in its own history; False when the policy is "kept"."""
        owners = self.owner_T[self.seen_T == self.targets_S[self.owner_T]]
        return np.bincount(owners, minlength=len(self.targets_S)) > 0

    @property
    def missed_S(self) -> NDArray[np.bool_]:
        """[S] whether the held-out item is excluded as seen, and so is a miss.

        See docs/pitfalls.md, "held-out items already seen".
        """
        return self.target_is_seen_S & (self.policy == "excluded")

    def is_seen(self, items_SN: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool [S, N]: whether item n of row s is in the history of question s.

        All False when `policy` is "kept", as histories are not stored then.
        """
        if len(self.seen_T) == 0:
            return np.zeros(items_SN.shape, dtype=bool)
        keys_T = np.sort(self.owner_T * self.num_items + self.seen_T)
        keys_SN = np.arange(len(items_SN))[:, None] * self.num_items + items_SN
        places_SN = np.searchsorted(keys_T, keys_SN)
        nearest_SN = keys_T[np.minimum(places_SN, len(keys_T) - 1)]
        is_seen_SN: NDArray[np.bool_] = nearest_SN == keys_SN
        return is_seen_SN


def count_among_all(encoded: Encoded, questions: Questions, columns: int) -> tuple[Tensor, Tensor]:
    """(higher, equal): how many columns score higher than the held-out item, and how many the same.

    Both are float64 [S], on the scores' device. All columns compete but the held-out item itself
    and excluded items; `columns` columns are scored at a time. The score of a held-out item is read
    from its own tile: tiles that contain held-out items come first, and all but the last of them
    are scored a second time, to be counted.
    """
    device, size = encoded.largest_S.device, len(questions.targets_S)
    tiles = tiles_of(questions.num_items, encoded.columns, columns)
    target_tile_S = questions.targets_S // columns
    target_tiles = np.unique(target_tile_S).tolist()
    others = np.setdiff1d(np.arange(len(tiles)), target_tiles).tolist()
    higher_S = torch.zeros(size, dtype=torch.float64, device=device)
    at_least_S = torch.zeros_like(higher_S)
    target_scores_S1 = flags_SC = higher_S[:, None]
    for visit, tile_number in enumerate([*target_tiles, *others, *target_tiles[:-1]]):
        tile = tiles[tile_number]
        scores_SC = encoded.scores(tile.first, tile.last)[:, tile.begin - tile.first :]
        if visit == 0:
            target_scores_S1 = scores_SC.new_empty(size, 1)
            # Comparisons are several times faster when they write the scores' type, not bool.
            flags_SC = scores_SC.new_empty(size, max(part.last - part.begin for part in tiles))
        rows = np.flatnonzero(target_tile_S == tile_number)
        target_entries = entry_index(rows, questions.targets_S[rows] - tile.begin, device)
        if visit < len(target_tiles):
            target_scores_S1[target_entries[0], 0] = scores_SC[target_entries]
        if visit < len(target_tiles) - 1:
            continue
        if visit == len(target_tiles) - 1 and questions.policy == "zero":
            target_scores_S1.masked_fill_(
                to_device(questions.target_is_seen_S, device)[:, None], 0.0
            )
        _set_seen(scores_SC, questions, tile)
        scores_SC[target_entries] = -torch.inf
        # Sums of ones are exact in fp32 up to 2^24 columns.
        flags = flags_SC[:, : scores_SC.shape[1]]
        higher_S += torch.gt(scores_SC, target_scores_S1, out=flags).sum(1)
        at_least_S += scores_SC.ge_(target_scores_S1).sum(1)
    return higher_S, at_least_S - higher_S


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


def _set_seen(scores_SC: Tensor, questions: Questions, tile: Tile) -> None:
    """Overwrite the scores of seen items in place: minus infinity if excluded, otherwise 0.

    0 is S3-Rec's form (docs/pitfalls.md, "seen items score zero").
    """
    inside_T = (questions.seen_T >= tile.begin) & (questions.seen_T < tile.last)
    columns_T = questions.seen_T[inside_T] - tile.begin
    seen = entry_index(questions.owner_T[inside_T], columns_T, scores_SC.device)
    scores_SC[seen] = -torch.inf if questions.policy == "excluded" else 0.0


def count_among_listed(
    encoded: Encoded, questions: Questions, negatives_SN: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """(higher, equal): how many negatives score higher than the held-out item, how many the same.

    Both are float64 [S], on the scores' device. `negatives_SN`, [S, N], are items. A held-out item
    among its own negatives does not compete, nor does an excluded item.
    """
    device = encoded.largest_S.device
    items_SM = np.concatenate([questions.targets_S[:, None], negatives_SN], axis=1)
    scores_SM = encoded.scores_of(to_device(items_SM, device))
    seen_SM = questions.is_seen(items_SM)
    competes_SN = negatives_SN != questions.targets_S[:, None]
    if questions.policy == "zero":
        scores_SM = scores_SM.masked_fill(to_device(seen_SM, device), 0.0)
    else:
        competes_SN &= ~seen_SM[:, 1:]
    others_SN = scores_SM[:, 1:].masked_fill(to_device(~competes_SN, device), -torch.inf)
    higher_S = (others_SN > scores_SM[:, :1]).sum(1, dtype=torch.float64)
    return higher_S, (others_SN == scores_SM[:, :1]).sum(1, dtype=torch.float64)


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


def best_items(
    encoded: Encoded, number: int, num_items: int, excluded: list[int], columns: int
) -> tuple[list[float], list[int]]:
    """(scores, items): the `number` best items of the one encoded history, the best first.

    Only the `num_items` items are scored, `columns` at a time; items in `excluded` score minus
    infinity.
    """
    scores_K, items_K = encoded.largest_S.new_empty(0), torch.empty(0, dtype=torch.int64)
    excluded_items = torch.tensor(excluded, dtype=torch.int64)
    for first in range(0, num_items, columns):
        scores_C = encoded.scores(first, min(first + columns, num_items))[0].cpu()
        excluded_here = excluded_items[
            (excluded_items >= first) & (excluded_items < first + len(scores_C))
        ]
        scores_C[excluded_here - first] = -torch.inf
        all_scores = torch.cat([scores_K.to(scores_C), scores_C])
        items_C = torch.cat([items_K, torch.arange(first, first + len(scores_C))])
        scores_K, best_K = torch.topk(all_scores, min(number, len(all_scores)))
        items_K = items_C[best_K]
    return scores_K.tolist(), items_K.tolist()


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A host array as a tensor on `device`; the host does not wait for the copy."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def entry_index(
    rows: NDArray[np.int64], columns: NDArray[np.int64], device: torch.device
) -> tuple[Tensor, Tensor]:
    """An index, on `device`, of the matrix entries (rows[i], columns[i])."""
    return to_device(rows, device), to_device(columns, device)

"""The best items of many histories, one tile of the catalogue at a time.

Of equal scores the lower item number is the better one, wherever tiles and batches end. No more
than a tile of scores is in memory, beside the best items so far.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.evaluation.ranker import Encoded
from research.evaluation.tiles import places_by_tile, tiles_of, to_device, to_device_together


def best_items(
    encoded: Encoded,
    number: int,
    num_items: int,
    columns: int,
    *,
    owner_T: NDArray[np.int64],
    excluded_T: NDArray[np.int64],
    allowed_V: NDArray[np.bool_] | None,
) -> tuple[Tensor, Tensor]:
    """(scores, items), both [S, K]: the K best items of S histories, the best first.

    K is `number`, or `num_items` if that is less. History `owner_T[t]` does not get the item
    `excluded_T[t]`, and none gets an item that `allowed_V`, bool [V], does not allow (None: all
    are). Where a history has fewer than K items left, its last scores are minus infinity. At least
    one item is allowed; `columns` columns are scored at a time.
    """
    device = encoded.largest_S.device
    tiles = tiles_of(num_items, num_items, columns)
    excluded_by_tile = places_by_tile(excluded_T, columns, len(tiles))
    length = min(number, num_items)
    best: tuple[Tensor, Tensor] | None = None
    for tile, places in zip(tiles, excluded_by_tile, strict=True):
        if allowed_V is not None and not allowed_V[tile.begin : tile.last].any():
            continue
        scores_SC = encoded.scores(tile.first, tile.last)[:, tile.begin - tile.first :]
        entries = (owner_T[places], excluded_T[places] - tile.begin)
        scores_SC[to_device_together(entries, device)] = -torch.inf
        if allowed_V is not None:
            forbidden_C = to_device(~allowed_V[tile.begin : tile.last], device)
            scores_SC.masked_fill_(forbidden_C, -torch.inf)
        if best is None:
            scores_SK = scores_SC.new_full((len(scores_SC), length), -torch.inf)
            best = scores_SK, torch.zeros_like(scores_SK, dtype=torch.int64)
        _take_better(*best, scores_SC, tile.begin)
    assert best is not None, "at least one item is allowed"
    return best


def _take_better(scores_SK: Tensor, items_SK: Tensor, scores_SC: Tensor, first: int) -> None:
    """Put into the best items so far what is better in the tile whose first column is `first`."""
    # All items so far have lower numbers, so a tile changes nothing unless it has a higher score.
    rows_R = (scores_SC.amax(1) > scores_SK[:, -1]).nonzero()[:, 0]
    if len(rows_R) == 0:
        return
    new_RK, columns_RK = highest(scores_SC[rows_R], scores_SK.shape[1])
    all_scores = torch.cat([scores_SK[rows_R], new_RK], 1)
    all_items = torch.cat([items_SK[rows_R], columns_RK + first], 1)
    # Both halves are in order, and of equal scores those of the first have the lower numbers.
    merged, places = all_scores.sort(dim=1, descending=True, stable=True)
    length = scores_SK.shape[1]
    scores_SK[rows_R] = merged[:, :length]
    items_SK[rows_R] = all_items.gather(1, places[:, :length])


def highest(scores_RC: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """(scores, columns), both [R, K]: the K highest scores of each row, the highest first.

    K is `number`, or C if that is less. Of equal scores the lower column comes first.
    """
    length = min(number, scores_RC.shape[1])
    values, columns = scores_RC.topk(min(length + 1, scores_RC.shape[1]))
    values_RK, columns_RK = values[:, :length], columns[:, :length]
    # The values are right, but of columns that tie with the last one `topk` takes any. None is left
    # out unless the next value is the same.
    tied_R1 = (values[:, length:] == values_RK[:, -1:]) & (values_RK[:, -1:] > -torch.inf)
    rows = tied_R1.nonzero()[:, 0]
    if len(rows):
        columns_RK[rows] = _lowest_ties(scores_RC[rows], values_RK[rows], columns_RK[rows])
    columns_RK = columns_RK.sort(dim=1)[0]
    values_RK, places_RK = scores_RC.gather(1, columns_RK).sort(dim=1, descending=True, stable=True)
    return values_RK, columns_RK.gather(1, places_RK)


def _lowest_ties(scores_RC: Tensor, values_RK: Tensor, columns_RK: Tensor) -> Tensor:
    """int64 [R, K]: the columns, with the lowest of those that tie with each row's last value."""
    num_columns, length = scores_RC.shape[1], values_RK.shape[1]
    numbers_C = torch.arange(num_columns, device=scores_RC.device)
    ties_RC = scores_RC == values_RK[:, -1:]
    # Columns that do not tie come after all that do, and are never reached.
    keys_RC = torch.where(ties_RC, numbers_C, num_columns)
    ties_RK = keys_RC.topk(length, largest=False, sorted=True)[0]
    num_higher_R1 = (values_RK > values_RK[:, -1:]).sum(1, keepdim=True)
    places_K = torch.arange(length, device=scores_RC.device)
    after_RK = (places_K - num_higher_R1).clamp(min=0)
    return torch.where(places_K < num_higher_R1, columns_RK, ties_RK.gather(1, after_RK))

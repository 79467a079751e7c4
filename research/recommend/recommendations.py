"""Recommending: requests in, batches of the best items out.

Requests are encoded and ranked some at a time, by the rankers and tiles of the evaluation. A
request without any event has nothing that a model could read, so its items are those with the most
training interactions, which each row says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from research.evaluation.best import best_items
from research.evaluation.chunks import (
    ACCELERATOR_TILE,
    ACCELERATOR_TOKENS,
    CPU_TILE,
    CPU_TOKENS,
    chunk_size,
    tile_shape,
)
from research.evaluation.popularity import Popularity
from research.evaluation.ranker import Encoded, Ranker
from research.evaluation.tiles import first_not_finite
from research.recommend.raw_ids import check_choice, check_number
from research.recommend.requests import Requests
from research.recommend.selection import Selection
from research.runs.parts import RunParts

Seen = Literal["excluded", "kept"]
EVERY_ITEM = Selection()


@dataclass(frozen=True, eq=False)
class Recommendations:
    """N items for some requests, request after request, the best first.

    A request for which fewer than k items are left has fewer rows, and none if no item is left.
    """

    request_N: NDArray[np.int64]
    """[N]: the number of the request, ascending."""
    item_N: NDArray[np.int64]
    """[N]: dense item ids."""
    score_N: NDArray[np.float64]
    """[N]: the ranker's scores, of which only the order within a request means something."""
    rank_N: NDArray[np.int64]
    """[N]: 1 for the best item of a request."""
    by_popularity_N: NDArray[np.bool_]
    """[N]: whether the history is empty, and the score a count of training interactions."""

    def __len__(self) -> int:
        return len(self.request_N)


NOTHING = Recommendations(
    request_N=np.zeros(0, dtype=np.int64),
    item_N=np.zeros(0, dtype=np.int64),
    score_N=np.zeros(0),
    rank_N=np.zeros(0, dtype=np.int64),
    by_popularity_N=np.zeros(0, dtype=bool),
)


def recommend(
    parts: RunParts,
    ranker: Ranker,
    requests: Requests,
    *,
    k: int = 10,
    seen: Seen = "excluded",
    selection: Selection = EVERY_ITEM,
    batch_size: int | None = None,
) -> Iterator[Recommendations]:
    """The k best items of each request, in batches of requests in their order.

    `parts` and `ranker` are those of a finished run (`load_run`). With `seen` "excluded" no item of
    the whole history is recommended, also none older than what the encoder reads. `batch_size` is
    the largest number of requests in a batch; None: as many as are fast. It changes no result but
    for the rounding of scores: of equal scores the item with the lower number (that comes first in
    the corpus) is ranked first. `InputError` for a `k` or `batch_size` below 1; while iterating,
    `FloatingPointError` for a score that is not finite.
    """
    check_choice("seen", seen, get_args(Seen))
    check_number("k", k)
    if batch_size is not None:
        check_number("batch_size", batch_size)
    return _batches(_Ranking(parts, ranker, requests, k, seen == "excluded", selection), batch_size)


@dataclass(frozen=True, eq=False)
class _Ranking:
    """What all batches have in common; see `recommend`."""

    parts: RunParts
    ranker: Ranker
    requests: Requests
    k: int
    excludes_seen: bool
    selection: Selection


def _batches(ranking: _Ranking, batch_size: int | None) -> Iterator[Recommendations]:
    num_items, lengths_R = ranking.parts.corpus.num_items, ranking.requests.lengths_R
    tile, tokens = CPU_TILE, CPU_TOKENS
    done = 0
    while done < len(lengths_R):
        most, columns = tile_shape(num_items, tile)
        # The best items of all requests of a batch take no more memory than a tile of scores.
        most = max(1, min(most, tile // min(ranking.k, num_items)))
        following = lengths_R[done : done + min(most, batch_size or most)]
        rows = np.arange(done, done + chunk_size(following, tokens))
        # An empty history has no newest event, which a ranker may ask for.
        is_empty = lengths_R[rows] == 0
        groups = [
            _rank(ranking, rows[is_empty == popular], columns, popular)
            for popular in (False, True)
            if (is_empty == popular).any()
        ]
        yield _in_order([batch for batch, _ in groups])
        if any(on_accelerator for _, on_accelerator in groups):
            tile, tokens = ACCELERATOR_TILE, ACCELERATOR_TOKENS
        done += len(rows)


def _rank(
    ranking: _Ranking, rows: NDArray[np.int64], columns: int, popular: bool
) -> tuple[Recommendations, bool]:
    """The best items of some requests, and whether they were scored on another device than the CPU.

    `columns` columns are scored at a time. With `popular` they are ranked by popularity.
    """
    parts, requests = ranking.parts, ranking.requests
    num_items = parts.corpus.num_items
    histories = requests.pack(rows)
    ranker = ranking.ranker
    if popular:
        ranker = Popularity(parts.catalogue.training.counts_V)
    encoded = ranker.encode(histories, torch.from_numpy(requests.histories.users[rows]))
    tokens = histories.num_tokens if ranking.excludes_seen else 0
    scores_SK, items_SK = best_items(
        encoded,
        ranking.k,
        num_items,
        columns,
        owner_T=histories.owner_T[:tokens].numpy(),
        excluded_T=histories.items_T[:tokens].numpy(),
        allowed_V=ranking.selection.allowed_V,
    )
    _check_finite(encoded, requests, rows, columns)
    scores_SK = scores_SK.cpu().double()
    rows_N, places_N = (scores_SK > -torch.inf).nonzero().numpy().T
    batch = Recommendations(
        request_N=rows[rows_N],
        item_N=items_SK.cpu().numpy()[rows_N, places_N],
        score_N=scores_SK.numpy()[rows_N, places_N],
        rank_N=places_N + 1,
        by_popularity_N=np.full(len(rows_N), popular),
    )
    return batch, encoded.largest_S.device.type != "cpu"


def _in_order(groups: Sequence[Recommendations]) -> Recommendations:
    """The rows of all groups, request after request; a request is in one group."""
    if len(groups) == 1:
        return groups[0]
    order = np.argsort(np.concatenate([group.request_N for group in groups]), kind="stable")
    arrays = {
        part.name: np.concatenate([vars(group)[part.name] for group in groups])[order]
        for part in fields(Recommendations)
    }
    return Recommendations(**arrays)


def _check_finite(
    encoded: Encoded, requests: Requests, rows: NDArray[np.int64], columns: int
) -> None:
    """`FloatingPointError`, which names the request, if one has a score that is not finite."""
    if bool(encoded.largest_S.isfinite().all()):
        return
    bad = first_not_finite(encoded, columns)
    if bad is not None:
        raise FloatingPointError(
            f"the ranker gave NaN or infinite scores, first for {requests.label(int(rows[bad]))}; "
            "a model has diverged: lower its learning rate or clip the gradient"
        )

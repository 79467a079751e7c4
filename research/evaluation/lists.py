"""Recommended lists of an evaluation: the k best items after each history, as a list table.

They are the lists that `recommend` gives for the same histories, among all items. One pass makes
them, in the chunks and tiles of the ranking, so a tile of scores and the lists are all that is in
memory, however many items there are. `list_metrics.py` says what is computed from them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.batch import pack
from research.data.corpus import Corpus
from research.data.splits import HeldOut, Ranges, flat_indices
from research.errors import InputError
from research.evaluation.best import best_items
from research.evaluation.chunks import Ranked
from research.evaluation.list_table import ListTable
from research.evaluation.ranker import Ranker
from research.evaluation.ranking import RankingShard, ranked_by_all
from research.evaluation.tiles import SeenPolicy, first_not_finite

# Interactions whose users are counted by item at a time.
_BLOCK = 1 << 22


def list_table(
    ranker: Ranker,
    corpus: Corpus,
    held_out: HeldOut,
    k: int,
    *,
    seen: SeenPolicy,
    protocol: Mapping[str, object],
    training: Ranges,
    counts_V: Tensor,
    shard: RankingShard = RankingShard(),
    fields: Collection[str] = (),
) -> ListTable:
    """The k best items after each history of `held_out`, one list a user.

    Of equal scores the lower item number is the better one. With `seen` "excluded" no item of the
    whole history is listed; with "kept" they compete. `training` are the training histories, one a
    user; the other arguments, and the errors, are as in `rank_tables`. `InputError` also for `seen`
    "zero", which is a form of published ranking and lists nothing that anybody would be shown.
    """
    if seen == "zero":
        raise InputError(
            "lists cannot be made with seen items at score 0; choose seen items excluded or kept"
        )
    if len(held_out) == 0:
        raise InputError(f"corpus {corpus.name}: the split holds nothing out to rank")
    asked = held_out.select(np.flatnonzero(np.diff(held_out.histories.runs(), prepend=-1)))
    asked = asked.select(np.argsort(asked.histories.users, kind="stable"))
    users_U = asked.histories.users
    assert (np.diff(users_U) > 0).all(), "a user has one history in a part"
    length = min(k, corpus.num_items)
    popularity_V = counts_V.cpu().numpy().astype(np.float64)
    make = partial(list_chunk, ranker, corpus, asked, length, seen, popularity_V, fields)
    results = ranked_by_all(make, corpus, asked, length + 1, shard)
    numbers_UK = results[:-1].T.astype(np.int64)
    is_listed_UK = numbers_UK != 0
    if not is_listed_UK.any():
        raise InputError(f"corpus {corpus.name}: every user has every item, none is left to list")
    items_I, place_N = np.unique(np.abs(numbers_UK[is_listed_UK]) - 1, return_inverse=True)
    place_UK = np.full(numbers_UK.shape, -1, dtype=np.int32)
    place_UK[is_listed_UK] = place_N.ravel()
    starts_I, stops_I = corpus.attribute_offsets[items_I], corpus.attribute_offsets[items_I + 1]
    return ListTable(
        user=users_U.astype(np.int32),
        place=place_UK,
        repeated=numbers_UK < 0,
        history_popularity=results[-1],
        item=items_I.astype(np.int32),
        item_count=popularity_V[items_I].astype(np.int32),
        item_users=users_by_item(corpus, training)[items_I].astype(np.int32),
        attribute_offsets=np.concatenate([[0], np.cumsum(stops_I - starts_I)]),
        attribute_ids=corpus.attribute_ids[flat_indices(Ranges(items_I, starts_I, stops_I))],
        num_items=corpus.num_items,
        num_users=len(training),
        num_attributes=corpus.num_attributes,
        protocol={**protocol, "seen": seen},
    )


def list_chunk(
    ranker: Ranker,
    corpus: Corpus,
    asked: HeldOut,
    length: int,
    seen: SeenPolicy,
    popularity_V: NDArray[np.float64],
    fields: Collection[str],
    rows: NDArray[np.int64],
    columns: int,
) -> Ranked:
    """The lists of the histories `rows` of `asked`, in tiles of `columns` columns of the catalogue.

    `results_CQ` of the result has `length` rows of items, the best first: 0 for none, the number of
    the item plus 1 for an item that is not in the history, and the negative of that for one that
    is. The last row is the mean of `popularity_V` over the items of the history.
    """
    ranges = asked.histories.select(rows)
    histories = pack(corpus, ranges, fields)
    encoded = ranker.encode(histories, torch.from_numpy(ranges.users))
    owner_T, seen_T = histories.owner_T.numpy(), histories.items_T.numpy()
    tokens = 0 if seen == "kept" else len(seen_T)
    scores_SK, items_SK = best_items(
        encoded,
        length,
        corpus.num_items,
        columns,
        owner_T=owner_T[:tokens],
        excluded_T=seen_T[:tokens],
        allowed_V=None,
    )
    is_listed_SK = (scores_SK > -torch.inf).cpu().numpy()
    items = items_SK.cpu().numpy()
    keys_SK = np.arange(len(rows))[:, None] * corpus.num_items + items
    is_seen_SK = np.isin(keys_SK, owner_T * corpus.num_items + seen_T)
    numbers_SK = np.where(is_seen_SK, -1, 1) * (items + 1) * is_listed_SK
    lengths_S = ranges.stops - ranges.starts
    popularity_S = np.bincount(owner_T, popularity_V[seen_T], len(rows)) / lengths_S
    bad = None
    if not bool(encoded.largest_S.isfinite().all()):
        bad = first_not_finite(encoded, columns)
    return Ranked(
        results_CQ=np.concatenate([numbers_SK.T.astype(np.float64), popularity_S[None]]),
        on_accelerator=encoded.largest_S.device.type != "cpu",
        bad=bad,
    )


def users_by_item(corpus: Corpus, training: Ranges) -> NDArray[np.int64]:
    """int64 [V]: how many users have the item in their training histories, each counted once.

    `training` has one history a user.
    """
    users_V = np.zeros(corpus.num_items, dtype=np.int64)
    ends = np.cumsum(training.stops - training.starts)
    first = 0
    while first < len(training):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _BLOCK, side="right")))
        block = training.select(np.arange(first, last))
        owner = np.repeat(np.arange(len(block)), block.stops - block.starts)
        pairs = np.unique(owner * corpus.num_items + corpus.items[flat_indices(block)])
        users_V += np.bincount(pairs % corpus.num_items, minlength=corpus.num_items)
        first = last
    return users_V

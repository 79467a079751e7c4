"""Binary matrices of users and items, for rankers that weigh pairs of items (ItemKNN, EASE)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from research.data.corpus import Corpus
from research.data.splits import Split, flat_indices
from research.packed import Packed


def training_matrix(corpus: Corpus, split: Split) -> csr_array:
    """X [R, V], float64: 1 where a training history has an item, however often; 0 elsewhere."""
    training = split.training
    lengths = training.stops - training.starts
    rows = np.repeat(np.arange(len(training)), lengths)
    items = corpus.items[flat_indices(training)].astype(np.int64)
    keys = np.unique(rows * corpus.num_items + items)
    rows, items = np.divmod(keys, corpus.num_items)
    ones = np.ones(len(keys))
    return csr_array((ones, (rows, items)), shape=(len(training), corpus.num_items))


def history_matrix(
    histories: Packed, num_items: int, *, newest: int | None = None, decay: float = 1.0
) -> csr_array:
    """X [S, V], float64: what each item of a history counts for; 0 where it has no such item.

    An item counts `decay` to the power of how many events came after it, so 1 without decay. One
    that a history has several times counts once, by its newest place. Only the `newest` events are
    read; None: all.
    """
    owner_T, items_T, ages_T = (
        tensor_T.numpy() for tensor_T in (histories.owner_T, histories.items_T, histories.ages_T)
    )
    if newest is not None:
        is_read_T = ages_T < newest
        owner_T, items_T, ages_T = owner_T[is_read_T], items_T[is_read_T], ages_T[is_read_T]
    # The first of equal keys is the newest, as the order is turned round.
    keys, places = np.unique((owner_T * num_items + items_T)[::-1], return_index=True)
    rows, items = np.divmod(keys, num_items)
    weights = np.power(decay, ages_T[::-1][places].astype(np.float64))
    return csr_array((weights, (rows, items)), shape=(histories.num_sequences, num_items))

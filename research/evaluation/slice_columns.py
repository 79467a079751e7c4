"""What a rank table says of held-out items for slices alone: times and attributes.

Reports read run folders, without their corpora, so the rank table holds these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.splits import HeldOut, Ranges, flat_indices
from research.data.time_units import units_of_a_second

# How many attributes a rank table tells of; at most `rank_table.MAX_ATTRIBUTES`.
ATTRIBUTES = 10


def times_since_last(corpus: Corpus, held_out: HeldOut) -> NDArray[np.int64] | None:
    """int64 [Q]: seconds from the newest event of each history to the held-out one.

    In the test of leave-one-out the newest event of a history is the user's validation item. None:
    the corpus has no times, or numbers that only order events.
    """
    if corpus.timestamps is None:
        return None
    times_Q = corpus.timestamps[held_out.targets]
    units = units_of_a_second(int(times_Q.max()))
    if units is None:
        return None
    elapsed_Q: NDArray[np.int64] = times_Q - corpus.timestamps[held_out.histories.stops - 1]
    return elapsed_Q // units


def frequent_attributes(
    corpus: Corpus, items_Q: NDArray[np.int64]
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """(bits, names) of the attributes that most of the held-out items `items_Q` have.

    Bit a of `bits`, int64 [Q], is set where the item has attribute `names[a]`. The most frequent
    attribute comes first, of equal ones that which comes first in the corpus. (None, ()) where no
    item has an attribute.
    """
    items_I, item_Q, counts_I = np.unique(items_Q, return_inverse=True, return_counts=True)
    starts, stops = corpus.attribute_offsets[items_I], corpus.attribute_offsets[items_I + 1]
    attributes_M = corpus.attribute_ids[flat_indices(Ranges(items_I, starts, stops))]
    owner_M = np.repeat(np.arange(len(items_I)), stops - starts)
    if len(attributes_M) == 0:
        return None, ()
    frequency_A = np.bincount(attributes_M, counts_I[owner_M], minlength=corpus.num_attributes)
    frequent = np.argsort(-frequency_A, kind="stable")[:ATTRIBUTES]
    frequent = frequent[frequency_A[frequent] > 0]
    bits_I = np.zeros(len(items_I), dtype=np.int64)
    for place, attribute in enumerate(frequent.tolist()):
        bits_I[owner_M[attributes_M == attribute]] |= 1 << place
    return bits_I[item_Q.ravel()], tuple(corpus.attribute_names[int(each)] for each in frequent)

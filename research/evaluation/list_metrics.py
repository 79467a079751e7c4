"""Metrics of recommended lists: coverage, Gini, novelty, popularity, diversity, repeats.

They are computed from list tables (`list_table.py`) and say what is recommended, not whether it is
right. The first K items of each list count; V is the number of items. A user whose list is empty
has 0 in every mean.

Means over users:

- `novelty@K`: mean self-information of the listed items in bits, log2(users / users of the item),
  both of the training part (Zhou et al. 2010, PNAS 107; Vargas and Castells 2011, RecSys). An item
  that no user has counts like one that a single user has.
- `arp@K`: average recommendation popularity, the mean number of training interactions of the
  listed items (Yin et al. 2012, PVLDB 5; Abdollahpouri et al. 2019, FLAIRS).
- `diversity@K`: intra-list distance, the mean over all pairs of listed items of the Jaccard
  distance between their sets of attributes, 1 - |A and B| / |A or B| (Ziegler et al. 2005, WWW;
  Vargas and Castells 2011). Two items without attributes cannot be told apart and have distance 0.
  A list of one item has 0.
- `repeat@K`, `explore@K`: the share of the list that stands in the user's history, and the share
  that does not (Li et al. 2023, TOIS 41). They need an evaluation that keeps seen items.

Metrics of all lists together:

- `coverage@K`: catalog coverage, the share of all V items that stand in at least one list
  (Herlocker et al. 2004, TOIS 22; Ge et al. 2010, RecSys).
- `gini@K`: the Gini index of how often each of all V items is recommended: with frequencies f_j in
  ascending order, j from 1, the sum of (2 j - V - 1) f_j over V times the sum of f_j. It is 0 where
  all items are recommended equally often, and near 1 where few are recommended alone (Fleder and
  Hosanagar 2009, Management Science 55; Shani and Gunawardana 2011).
- `lift@K`: popularity lift, the mean popularity of lists over the mean popularity of histories,
  minus 1, each a mean over users of a mean over items (Abdollahpouri et al. 2020, RecSys).

Intervals and tests need a value of each user. For a metric T of all lists together, that is T plus
the user's jackknife influence on it. With T_(-u) the metric without user u, and U users, it is

    T + (U - 1) (mean of T_(-w) over users w - T_(-u)).

The mean of these values is T exactly, so intervals and paired tests are computed as for all other
metrics: to first order, a bootstrap over users, in which the mean of a resample is the metric of
the resampled lists. The jackknife's variance is not too small on average (Efron and Stein 1981,
Annals of Statistics 9). The coverage of resampled lists itself would mislead: a resample holds 63 %
of the users, so it covers fewer items than all lists do, and the interval of its percentiles can
lie below the very coverage that it is an interval of (`experiments/list_intervals.py` simulates
both). For `lift`, a ratio of two means, the influence is that of the ratio (the delta method).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.evaluation.list_table import ListTable

Floats = NDArray[np.float64]
# Metrics of whether listed items stand in the history, and of the attributes of listed items.
OF_SEEN, OF_ATTRIBUTES = ("repeat", "explore"), ("diversity",)
# Most pairs of items that are compared at a time.
_PAIRS = 1 << 17


def list_values(table: ListTable, kind: str, k: float) -> Floats:
    """A list metric's value of each user, float64 [U]: see the module's docstring.

    `kind` is a key of `LIST_METRICS`, k at least 1. `InputError` as for `check_given_by`.
    """
    check_given_by(table, kind, k)
    return LIST_METRICS[kind](table.first(int(k)))


def check_given_by(table: ListTable, kind: str, k: float) -> None:
    """Raise `InputError` for a metric that cannot be computed from these lists.

    That is one of more items than they have, one of seen items that they exclude, and one of
    attributes or of popularity that the corpus does not have.
    """
    table.first(int(k))
    if kind in OF_SEEN and table.protocol.get("seen") == "excluded":
        raise InputError(
            f"{kind}: these lists exclude seen items; evaluate with evaluation.seen=kept (--seen "
            "kept)"
        )
    if kind in OF_ATTRIBUTES and table.num_attributes == 0:
        raise InputError(f"{kind}: the corpus has no attributes; prepare it with some")
    if kind == "lift" and not table.history_popularity.any():
        raise InputError(f"{kind}: no item of any history has a training interaction")


def _mean_over_list(table: ListTable, values_I: Floats) -> Floats:
    """The mean over each list of the items' values, float64 [U]; 0 for an empty list."""
    is_listed_UK = table.place >= 0
    sums_U = np.where(is_listed_UK, values_I[table.place], 0.0).sum(1)
    means_U: Floats = sums_U / np.maximum(is_listed_UK.sum(1), 1)
    return means_U


def _novelty(table: ListTable) -> Floats:
    return _mean_over_list(table, np.log2(table.num_users / np.maximum(table.item_users, 1.0)))


def _recommendation_popularity(table: ListTable) -> Floats:
    return _mean_over_list(table, table.item_count.astype(np.float64))


def _lift(table: ListTable) -> Floats:
    listed_U, history_U = _recommendation_popularity(table), table.history_popularity
    ratio = listed_U.mean() / history_U.mean()
    lift_U: Floats = ratio - 1.0 + (listed_U - ratio * history_U) / history_U.mean()
    return lift_U


def _repeat(table: ListTable) -> Floats:
    return _share_of_list(table, table.repeated)


def _explore(table: ListTable) -> Floats:
    return _share_of_list(table, (table.place >= 0) & ~table.repeated)


def _share_of_list(table: ListTable, chosen_UK: NDArray[np.bool_]) -> Floats:
    """The share of each list that is chosen, float64 [U]; 0 for an empty list."""
    shares_U: Floats = chosen_UK.sum(1) / np.maximum((table.place >= 0).sum(1), 1)
    return shares_U


def _diversity(table: ListTable) -> Floats:
    values_U: Floats = np.zeros(len(table))
    firsts, seconds = np.triu_indices(table.place.shape[1], 1)
    users = max(1, _PAIRS // max(1, len(firsts)))
    for begin in range(0, len(table), users):
        place_UK = table.place[begin : begin + users].astype(np.int64)
        both_UP = (place_UK[:, firsts] >= 0) & (place_UK[:, seconds] >= 0)
        low_UP = np.minimum(place_UK[:, firsts], place_UK[:, seconds])
        high_UP = np.maximum(place_UK[:, firsts], place_UK[:, seconds])
        keys_N = (low_UP * len(table.item) + high_UP)[both_UP]
        # A pair of items stands in many lists, and is compared once.
        pairs, pair_N = np.unique(keys_N, return_inverse=True)
        distances = _jaccard_distances(table, *np.divmod(pairs, len(table.item)))
        sums_U = np.bincount(both_UP.nonzero()[0], distances[pair_N.ravel()], len(place_UK))
        values_U[begin : begin + users] = sums_U / np.maximum(both_UP.sum(1), 1)
    return values_U


def _jaccard_distances(
    table: ListTable, first_P: NDArray[np.int64], second_P: NDArray[np.int64]
) -> Floats:
    """1 - |A and B| / |A or B| of the attributes of P pairs of items, by row: float64 [P]."""
    sizes_I = np.diff(table.attribute_offsets)
    owner_M = np.repeat(np.arange(len(sizes_I)), sizes_I)
    width = int(table.attribute_ids.max(initial=0)) + 1
    # Ascending: items are, and the attributes of each.
    keys_M = owner_M * width + table.attribute_ids
    lengths_P = sizes_I[first_P]
    starts_P = table.attribute_offsets[first_P]
    pair_N = np.repeat(np.arange(len(first_P)), lengths_P)
    place_N = np.arange(len(pair_N)) - np.repeat(np.cumsum(lengths_P) - lengths_P, lengths_P)
    attribute_N = table.attribute_ids[starts_P[pair_N] + place_N]
    wanted_N = second_P[pair_N] * width + attribute_N
    nearest_N = np.searchsorted(keys_M, wanted_N)
    has_N = keys_M[np.minimum(nearest_N, len(keys_M) - 1)] == wanted_N
    shared_P = np.bincount(pair_N, has_N, len(first_P))
    either_P = lengths_P + sizes_I[second_P] - shared_P
    # Two items without attributes share all that is known of them.
    distances_P: Floats = 1.0 - np.where(either_P > 0, shared_P, 1.0) / np.maximum(either_P, 1.0)
    return distances_P


def _frequencies(table: ListTable) -> NDArray[np.int64]:
    """int64 [I]: in how many lists the item of each row stands."""
    return np.bincount(table.place[table.place >= 0], minlength=len(table.item))


def _with_influence(whole: float, lost_U: Floats) -> Floats:
    """The metric `whole` of all lists plus each user's jackknife influence on it, float64 [U].

    `lost_U` is by how much the metric falls without the list of each user.
    """
    values_U: Floats = whole + (len(lost_U) - 1) * (lost_U - lost_U.mean())
    return values_U


def _coverage(table: ListTable) -> Floats:
    frequency_I = _frequencies(table)
    covered = int((frequency_I > 0).sum())
    # Without a user, the items are lost that stand in no other list.
    only_here_UK = (table.place >= 0) & (frequency_I[table.place] == 1)
    return _with_influence(covered / table.num_items, only_here_UK.sum(1) / table.num_items)


def _gini(table: ListTable) -> Floats:
    frequency_I = _frequencies(table).astype(np.float64)
    num_items, listed = float(table.num_items), max(1.0, float(frequency_I.sum()))
    ordered_I = np.sort(frequency_I)
    unlisted = num_items - len(ordered_I)
    # The sum over pairs of items of the differences of their frequencies.
    places_I = unlisted + np.arange(1, len(ordered_I) + 1)
    differences = float(((2 * places_I - num_items - 1) * ordered_I).sum())
    # Without a user, each item of the list falls by 1: that much nearer to the items that are
    # recommended less often, and further from all others, but for those of the same list, which
    # fall as well. Of those, pairs of unequal frequency cancel out, and equal ones are counted
    # twice.
    lower_I = unlisted + np.searchsorted(ordered_I, frequency_I)
    is_listed_UK = table.place >= 0
    changes_U = np.where(is_listed_UK, (num_items - 1 - 2 * lower_I)[table.place], 0.0).sum(1)
    frequency_UK = np.where(is_listed_UK, frequency_I[table.place], 0.0)
    changes_U -= 2 * _equal_pairs(frequency_UK)
    length_U = is_listed_UK.sum(1)
    remaining_U = listed - length_U
    # The difference of two quotients, differences / listed and what they are without the user, in
    # one, so that nothing is lost to rounding. Without any other list the metric is 0.
    lost_U = -(differences * length_U + changes_U * listed) / (listed * np.maximum(remaining_U, 1))
    whole = differences / listed
    lost_U = np.where(remaining_U > 0, lost_U, whole)
    return _with_influence(whole / num_items, lost_U / num_items)


def _equal_pairs(values_UK: Floats) -> Floats:
    """How many pairs of entries of each row are equal and above 0: float64 [U]."""
    ordered_UK = np.sort(values_UK, axis=1)
    places_K = np.arange(ordered_UK.shape[1])
    is_new_UK = np.diff(ordered_UK, prepend=-1.0) != 0
    starts_UK = np.maximum.accumulate(np.where(is_new_UK, places_K, 0), axis=1)
    # Each entry is paired with the equal ones before it.
    pairs_U: Floats = ((places_K - starts_UK) * (ordered_UK > 0)).sum(1).astype(np.float64)
    return pairs_U


LIST_METRICS: Mapping[str, Callable[[ListTable], Floats]] = {
    "coverage": _coverage,
    "gini": _gini,
    "novelty": _novelty,
    "arp": _recommendation_popularity,
    "lift": _lift,
    "diversity": _diversity,
    "repeat": _repeat,
    "explore": _explore,
}
# The lowest and the highest value of a metric whose range is not 0 to 1.
LIST_RANGES: Mapping[str, tuple[float, float]] = {
    "novelty": (0.0, np.inf),
    "arp": (0.0, np.inf),
    "lift": (-1.0, np.inf),
}

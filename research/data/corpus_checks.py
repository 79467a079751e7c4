"""Checks of a corpus by itself, before any split: ids, doubles, times and attributes."""

from __future__ import annotations

import numpy as np

from research.data.corpus import Corpus
from research.data.findings import PROBLEM_SHARE, Finding, Level, percent, share_of
from research.data.lookalikes import lookalike_ids, words_on_lookalikes
from research.data.names import Names
from research.data.repeats import Repeats
from research.data.tied_times import FinerTimes, OrderAgreement, has_fixed_order, tie_shares
from research.data.time_units import are_in_a_second, days_of, unit_of_size

# Where most items lack attributes, or most attributes have one item, a loss over attributes learns
# next to nothing that the item's id does not say.
MOST = 0.5
# Groups of ids of which a sentence shows a pair.
EXAMPLES = 3


def corpus_checks(corpus: Corpus, repeats: Repeats) -> list[Finding]:
    """The findings of every check of a corpus, which `Corpus.verify` has passed."""
    names = {"users": corpus.user_names, "items": corpus.item_names}
    return [
        *(lookalikes(kind, kind_names) for kind, kind_names in names.items()),
        doubles(corpus, repeats),
        repeated_items(corpus, repeats),
        *times(corpus),
        *order_of_ties(corpus),
        attributes(corpus),
    ]


def lookalikes(kind: str, names: Names) -> Finding:
    """Ids of `kind` ("users" or "items") that differ in form alone; see `lookalike_ids`."""
    check, groups = f"ids of {kind}", lookalike_ids(names)
    touched = sum(len(group) for group in groups)
    numbers = {"ids": touched, "groups": len(groups), "share": share_of(touched, len(names))}
    if not groups:
        return Finding(
            check=check, level="fine", numbers=numbers, sentence=f"No two ids of {kind} look alike."
        )
    return Finding(
        check=check,
        level="problem" if numbers["share"] >= PROBLEM_SHARE else "warning",
        numbers=numbers,
        sentence=(
            f"{words_on_lookalikes(kind, names, groups, EXAMPLES)}. If they mean the same, "
            "bring them to one form in the raw files and prepare the corpus again."
        ),
    )


def doubles(corpus: Corpus, repeats: Repeats) -> Finding:
    """Interactions that are there twice: the same user, item and time."""
    in_one_second = count = int(repeats.double_N.sum())
    finer = FinerTimes.of(corpus)
    if finer is not None:
        count = min(count, finer.most_doubles)
    share = share_of(count, corpus.num_interactions)
    numbers = {"interactions": count, "share": share}
    if corpus.timestamps is None:
        sentence = "Without times an exact double cannot be told from a repeat."
        return Finding(check="doubles", level="fine", numbers=numbers, sentence=sentence)
    if not count:
        sentence = "No interaction is there twice with the same user, item and time."
        if in_one_second:
            sentence += f" {in_one_second:,} differ from an earlier one by less than a second."
        return Finding(check="doubles", level="fine", numbers=numbers, sentence=sentence)
    return Finding(
        check="doubles",
        level="problem" if share >= PROBLEM_SHARE else "warning",
        numbers=numbers,
        sentence=(
            "Up to "
            * (finer is not None)
            + f"{count:,} interactions ({percent(share)}) have the user, item and time of an "
            "earlier one. Look whether a file was read twice; `prepare --duplicates exact` "
            "removes such doubles."
        ),
    )


def repeated_items(corpus: Corpus, repeats: Repeats) -> Finding:
    """How often users come back to an item; no fault, but an evaluation has to fit it."""
    count = int(repeats.repeated_N.sum())
    share = share_of(count, corpus.num_interactions)
    return Finding(
        check="repeats",
        level="fine",
        numbers={"interactions": count, "share": share},
        sentence=f"{percent(share)} of interactions are with an item that the user had before.",
    )


def times(corpus: Corpus) -> list[Finding]:
    """Whether the times can order events, and whether they are in seconds."""
    if corpus.timestamps is None or not corpus.num_interactions:
        return []
    first, last = int(corpus.timestamps.min()), int(corpus.timestamps.max())
    return [_spread(first, last, corpus.num_interactions), _unit(first, last)]


def _spread(first: int, last: int, num_interactions: int) -> Finding:
    check, numbers = "spread of times", {"first": first, "last": last}
    if num_interactions > 1 and are_in_a_second(first, last):
        return Finding(
            check=check,
            level="problem",
            numbers=numbers,
            sentence=(
                f"All times are at most one second apart ({first} to {last}). Look whether the "
                "right column was read, in the right unit (--time-unit), and was not rounded, or "
                "leave it out and let the order of the file hold."
            ),
        )
    days = days_of(first, last)
    sentence = f"The times run from {first} to {last}"
    sentence += "." if days is None else f": from {days[0]} to {days[1]}."
    return Finding(check=check, level="fine", numbers=numbers, sentence=sentence)


def _unit(first: int, last: int) -> Finding:
    check, numbers = "unit of times", {"first": first, "last": last}
    if unit_of_size(max(last, 0)) != "s":
        return Finding(
            check=check,
            level="warning",
            numbers=numbers,
            sentence=(
                f"The newest time is {last}, which is probably not in seconds but in "
                "milliseconds or finer. Prepare the corpus again with --time-unit: a model that "
                "reads times takes them for seconds."
            ),
        )
    days = days_of(first, last)
    sentence = (
        "The times are too small for seconds since 1970 to tell days; they may be numbers that "
        "only order events."
        if days is None
        else f"The times are seconds from {days[0]} to {days[1]}."
    )
    return Finding(check=check, level="fine", numbers=numbers, sentence=sentence)


def order_of_ties(corpus: Corpus) -> list[Finding]:
    """Whether interactions at one time are in a fixed order of the items; empty: nothing tells.

    Where finer times than seconds decided, these are not known, and preparation's warning stands.
    """
    if corpus.timestamps is None or FinerTimes.of(corpus) is not None:
        return []
    agreement = OrderAgreement.of(corpus.items, corpus.offsets, corpus.timestamps)
    if not agreement.pairs:
        return []
    tied = tie_shares(corpus.timestamps, corpus.offsets)["tied_interactions"]
    is_fixed = has_fixed_order(agreement, tied)
    sentence = f"Within one time, {agreement.sentence}."
    if is_fixed:
        sentence += (
            f" {percent(tied)} of interactions share their time with another one of the user. "
            "Either the source is sorted by item, and models that read order learn that: prepare "
            "the corpus with --tie-seed 0 too, and report both. Or it keeps a true order for which "
            "its times are too coarse (episodes, tracks of an album)."
        )
    return [
        Finding(
            check="order of ties",
            level="warning" if is_fixed else "fine",
            numbers={"pairs": agreement.pairs, "same_way_share": agreement.share},
            sentence=sentence,
        )
    ]


def attributes(corpus: Corpus) -> Finding:
    """Whether items have attributes, and attributes items, for a loss over them to learn from."""
    sizes = np.diff(corpus.attribute_offsets)
    items = np.bincount(corpus.attribute_ids, minlength=corpus.num_attributes)
    without, single = int((sizes == 0).sum()), int((items <= 1).sum())
    everywhere = int((items == corpus.num_items).sum())
    numbers = {
        "attributes": corpus.num_attributes,
        "items_without": without,
        "items_without_share": share_of(without, corpus.num_items),
        "attributes_of_one_item": single,
        "attributes_of_one_item_share": share_of(single, corpus.num_attributes),
        "attributes_of_every_item": everywhere,
    }
    if not corpus.num_attributes:
        sentence = "Items have no attributes."
        return Finding(check="attributes", level="fine", numbers=numbers, sentence=sentence)
    sentence = (
        f"{percent(numbers['items_without_share'])} of items have no attribute; of "
        f"{corpus.num_attributes:,} attributes {single:,} are of a single item and {everywhere:,} "
        "of every item, where they tell nothing apart."
    )
    scarce = max(numbers["items_without_share"], numbers["attributes_of_one_item_share"]) > MOST
    useless = scarce or everywhere == corpus.num_attributes
    if useless:
        sentence += (
            " Objectives over attributes learn little from these; join rare attributes, or leave "
            "such objectives out."
        )
    level: Level = "warning" if useless else "fine"
    return Finding(check="attributes", level=level, numbers=numbers, sentence=sentence)

"""The profile of a corpus in sentences, for the terminal and for its page."""

from __future__ import annotations

from research.data.findings import percent, share_of
from research.data.profile import AttributeCoverage, CorpusProfile, Timeline
from research.storage.untrusted import short_text

# Attributes, and items, that a sentence names.
NAMED = 3


def sentences_of(profile: CorpusProfile) -> list[str]:
    """What a corpus is like, one sentence or two for each of its sides."""
    sentences = [
        *([lengths_sentence(profile)] if profile.lengths else []),
        *([popularity_sentence(profile)] if profile.interactions else []),
        f"Repeats: {percent(profile.repeat_share)} of interactions are with an item that the user "
        "had before.",
    ]
    if profile.timeline is not None:
        sentences.append(time_sentence(profile.timeline))
    else:
        sentences.append("Times: none; interactions are in the order of the file.")
    sentences.append(attribute_sentence(profile.attributes, profile.items))
    return sentences


def lengths_sentence(profile: CorpusProfile) -> str:
    """How many interactions users have."""
    lengths = dict(profile.lengths)
    return (
        f"History lengths: {profile.mean_length:,.1f} in the mean; half of the users have at most "
        f"{lengths[0.5]:,.0f}, one in twenty at most {lengths[0.05]:,.0f}, one in twenty at least "
        f"{lengths[0.95]:,.0f}, the longest is {lengths[1.0]:,.0f}."
    )


def popularity_sentence(profile: CorpusProfile) -> str:
    """How unequal the popularity of items is, and which are the most popular."""
    tops = " and ".join(
        f"{percent(interactions)} are with the top {items:.0%} of items".replace("% of", " % of")
        for items, interactions in profile.top_shares
    )
    unused = f"; items without any: {profile.items_without:,}" if profile.items_without else ""
    names = ", ".join(
        f"{short_text(item.title or item.name, 40)} ({item.interactions:,})"
        for item in profile.most_popular[:NAMED]
    )
    return (
        f"Popularity: of all interactions, {tops}; Gini {profile.gini:.2f}{unused}; most popular: "
        f"{names}."
    )


def time_sentence(timeline: Timeline) -> str:
    """When events happened, and how often times leave their order open."""
    if timeline.months:
        span = f"{timeline.months[0][0]} to {timeline.months[-1][0]}"
        busiest = max(timeline.months, key=lambda month: month[1])
        span += f" ({timeline.days:,.0f} days), most events in {busiest[0]} ({busiest[1]:,})"
    else:
        span = f"from {timeline.first} to {timeline.last}"
    return (
        f"Times: {span}; {percent(timeline.tied_share)} of interactions have the time of another "
        "one of the same user."
    )


def attribute_sentence(coverage: AttributeCoverage, num_items: int) -> str:
    """How many attributes items have."""
    if not coverage.attributes:
        return "Attributes: none."
    names = ", ".join(
        f"{short_text(name, 40)} ({items:,})" for name, items in coverage.most_common[:NAMED]
    )
    without = percent(share_of(coverage.items_without, num_items))
    return (
        f"Attributes: {coverage.attributes:,}; {without} of items have none; an item has "
        f"{coverage.per_item:.1f} in the mean and {coverage.most_per_item:,} at most; most common, "
        f"by items: {names}."
    )

"""The profile of a corpus as a single page that loads nothing from elsewhere, like the report's.

The template is profile.html; `profile_plots.py` draws the figures.
"""

from __future__ import annotations

from collections.abc import Mapping

from research.data.findings import percent, share_of
from research.data.profile import CorpusProfile
from research.report import profile_plots as plots
from research.report.html import Picture, picture_of, template
from research.report.profile_words import sentences_of
from research.storage.untrusted import printable


def profile_page_of(profile: CorpusProfile, facts: Mapping[str, str]) -> str:
    """The whole page as HTML text; `facts` are those of the terminal's table, by name."""
    return template("profile.html").render(
        profile=profile,
        sentences=sentences_of(profile),
        pictures=pictures_of(profile),
        facts=facts,
        titled=any(item.title for item in profile.most_popular),
        percent=percent,
        share_of=share_of,
    )


def pictures_of(profile: CorpusProfile) -> list[Picture]:
    """The figures of a profile, without those that would be empty."""
    drawn = []
    if profile.length_bins:
        values = ", ".join(
            f"{each.users} of {each.low} to {each.high}" for each in profile.length_bins
        )
        drawn.append(("Users by history length", plots.lengths_svg(profile.length_bins), values))
    if profile.interactions:
        values = "; ".join(
            f"the top {items:.0%} of items have {percent(interactions)}"
            for items, interactions in profile.top_shares
        )
        title = "Popularity of items; dashed, if all were equal"
        drawn.append((title, plots.popularity_svg(profile.popularity_curve), values))
    if profile.timeline is not None and profile.timeline.months:
        months = profile.timeline.months
        values = f"{len(months)} months from {months[0][0]} to {months[-1][0]}"
        drawn.append(("Events a month", plots.months_svg(months), values))
    if profile.attributes.most_common:
        common = [(printable(name), items) for name, items in profile.attributes.most_common]
        values = ", ".join(f"{name} {items}" for name, items in common)
        drawn.append(("Most common attributes", plots.attributes_svg(common), values))
    return [
        picture_of(title, svg, values, f"f{number}")
        for number, (title, svg, values) in enumerate(drawn, 1)
    ]

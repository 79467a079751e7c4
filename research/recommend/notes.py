"""What is said beside lists and embeddings: what was left out, and who is ranked by popularity."""

from __future__ import annotations

from research.recommend.requests import Requests
from research.recommend.selection import Selection


def notes_of(requests: Requests, selection: Selection) -> list[str]:
    """Lines on a selection, on each kind of unknown id that was left out, on empty histories."""
    num_empty = int((requests.lengths_R == 0).sum())
    allowed_V = selection.allowed_V
    allowed = []
    if allowed_V is not None:
        allowed = [f"{int(allowed_V.sum()):,} of {len(allowed_V):,} items may be recommended"]
    return [
        *allowed,
        *left_out_notes(requests),
        *_with_number(
            (selection.unknown, "candidates, exclusions or attributes are unknown, and left out"),
            (
                num_empty,
                f"of {len(requests):,} histories have no event, and get the items that are most "
                "popular in the training part",
            ),
        ),
    ]


def left_out_notes(requests: Requests) -> list[str]:
    """A line for unknown users that were left out, and one for events of unknown items."""
    return _with_number(
        (requests.unknown_users, "users are unknown, and left out"),
        (requests.unknown_events, "events have an unknown item, and are left out of histories"),
    )


def _with_number(*counts: tuple[int, str]) -> list[str]:
    """The lines whose number is not 0, after their number."""
    return [f"{number:,} {what}" for number, what in counts if number]

"""What peers cannot do as we do it, and what a reader of the table should know about them.

A fact that differs and is named here gets a note and a ratio; any other gets no ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Known:
    """What is known of a peer's way of doing a work."""

    remark: str
    """A sentence or two about what it computes."""
    differing: Mapping[str, str] = field(default_factory=dict)
    """The reason for each fact that may differ, by the fact's name."""


_WINDOWS = "its catalogue has only the items of its training windows"
_PREFIXES = "its rows are all prefixes of whole histories, with one target each"
_BLOCK = "Its blocks are pre-norm with GELU."
_PROJECTS = "It projects every padded position onto the catalogue."
_MASKS = "it leaves rows in which nothing is drawn without a target, and ours have at least one"

KNOWN: Mapping[tuple[str, str], Known] = {
    ("rectools", "W1"): Known(f"{_PROJECTS} {_BLOCK}", {"items": _WINDOWS}),
    ("rectools", "W3"): Known(
        f"{_PROJECTS} {_BLOCK} Of the picked items 10 % become random ones and 10 % stay.",
        {"items": _WINDOWS, "targets": _MASKS},
    ),
    ("rectools", "W4"): Known(f"{_PROJECTS} {_BLOCK}", {"items": _WINDOWS}),
    ("rectools", "W5"): Known(
        f"It scores every padded position. {_BLOCK} Its loss is half of the sum of two terms.",
        {"items": _WINDOWS},
    ),
    ("rectools", "W6"): Known(
        "Its answer is a table of the ten best items; no metric is computed.",
        {"answer": "it recommends and does not rank"},
    ),
    ("fast", "W1"): Known(
        f"RecTools's FlatSASRecNet, driven by a plain loop of ours. {_PROJECTS} {_BLOCK}",
        {"items": "its catalogue has only the items of training histories"},
    ),
    ("fast", "W4"): Known(
        f"RecTools's FlatSASRecNet, driven by a plain loop of ours. {_PROJECTS} {_BLOCK}"
    ),
    ("recbole", "W1"): Known(
        "It encodes a row for every target.", {"rows": _PREFIXES, "targets": _PREFIXES}
    ),
    ("recbole", "W2"): Known(
        "It encodes segments at full length and builds labels row by row.",
        {"rows": "its prefixes end before the newest training item, and reach back further"},
    ),
    ("recbole", "W3"): Known(
        "It projects ten places a row, filled or not; never masks the last item alone (ft_ratio "
        "0); and has a further dense layer before the catalogue.",
        {"rows": _PREFIXES, "targets": _PREFIXES},
    ),
    ("recbole", "W4"): Known(
        "It encodes a row for every target.", {"rows": _PREFIXES, "targets": _PREFIXES}
    ),
    ("recbole", "W6"): Known(
        "It computes Hit and NDCG at 10 from the ten best items.",
        {
            "seen items": "its sequential models do not exclude them",
            "answer": "it looks for the test item among the ten best",
        },
    ),
}
NOTHING_KNOWN = Known("")
LEFT_OUT: Mapping[tuple[str, str], str] = {
    ("rectools", "W2"): "RecTools has no S3-Rec",
    ("fast", "W2"): "RecTools has no S3-Rec",
    ("fast", "W3"): "FlatSASRecNet is causal",
    ("fast", "W5"): "its sampler of negatives belongs to another model",
    ("fast", "W6"): "FlatSASRecNet has no ranking",
    ("recbole", "W5"): "RecBole's SASRec has BPR and full softmax, and no BCE",
}

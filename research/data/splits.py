"""Splits: which interactions are trained on and which are held out for validation and test.

Each protocol is a config class in a file of its own, whose `split` turns a corpus into a `Split`.
Held-out items are removed there, before any window rule runs, so whether they leak depends on that
function alone. Protocols and what a split is are imported from here.
"""

from __future__ import annotations

from research.data.global_temporal import GlobalTemporal
from research.data.held_out import (
    HeldOut,
    Indices,
    Ranges,
    Split,
    flat_indices,
    training_counts,
)
from research.data.leave_one_out import LeaveOneOut
from research.data.user_holdout import UserHoldout

__all__ = [
    "GlobalTemporal",
    "HeldOut",
    "Indices",
    "LeaveOneOut",
    "Ranges",
    "Split",
    "SplitConfig",
    "UserHoldout",
    "flat_indices",
    "training_counts",
]

SplitConfig = LeaveOneOut | UserHoldout | GlobalTemporal

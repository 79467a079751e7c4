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
from research.data.temporal_cut import ByLastItem, ByTime, ByUsers, TemporalCut
from research.data.time_cuts import AtQuantile, AtTime
from research.data.timepoint_leave_one_out import TimepointLeaveOneOut
from research.data.user_holdout import UserHoldout

__all__ = [
    "TEMPORAL",
    "AtQuantile",
    "AtTime",
    "ByLastItem",
    "ByTime",
    "ByUsers",
    "GlobalTemporal",
    "HeldOut",
    "Indices",
    "LeaveOneOut",
    "Ranges",
    "Split",
    "SplitConfig",
    "TemporalCut",
    "TimepointLeaveOneOut",
    "UserHoldout",
    "flat_indices",
    "training_counts",
]

SplitConfig = LeaveOneOut | UserHoldout | GlobalTemporal | TemporalCut | TimepointLeaveOneOut
# Those in which all that is trained on is before all that the test asks for.
TEMPORAL = (GlobalTemporal, TemporalCut, TimepointLeaveOneOut)

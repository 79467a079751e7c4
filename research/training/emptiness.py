"""Objectives that count nothing: a stage that trained one would report an untrained model.

What windows and attributes tell is refused when the run is built (`Objective.emptiness`); the rest
shows at the end of the first epoch, or of the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from research.errors import InputError
from research.processes import Processes
from research.training.pretrainer import StepInputs
from research.training.stage import StageConfig


class CountCheck:
    """What each objective has counted since an epoch began, judged once."""

    def __init__(self, config: StageConfig, processes: Processes, *, from_start: bool) -> None:
        """`from_start` says whether the running epoch's first step is still to come."""
        self.config = config
        self.processes = processes
        self._keys = list(config.objectives)
        self._whole = from_start
        self._judged = False
        # By objective: things counted, rows shown, and those of them in which something counts.
        self._sums = torch.zeros(len(self._keys), 3, dtype=torch.float64)

    def add(self, pieces: Sequence[StepInputs]) -> None:
        """Count a step."""
        if self._judged:
            return
        for piece in pieces:
            self._sums += torch.tensor([piece.counts(key) for key in self._keys])

    def end_epoch(self, say: Callable[[str], None]) -> None:
        """At the end of an epoch or of the stage; `InputError` for an objective without any target.

        Says the share of rows without a target. All processes call it together.
        """
        if self._judged:
            return
        sums = self.processes.summed(self._sums.clone())
        # An epoch that this process joined late may have counted before.
        self._judged, self._whole = self._whole, True
        self._sums.zero_()
        if not self._judged:
            return
        for key, (count, rows, counted) in zip(self._keys, sums.tolist()):
            if count == 0.0 and self.config.objectives[key].weight > 0.0:
                raise InputError(
                    f"stage {self.config.name}: objective {key} counted nothing: none of the "
                    f"{int(rows):,} rows that it was shown has a target, so nothing is learned "
                    f"from it; leave it out, set objectives.{key}.weight to 0, or give it other "
                    "windows"
                )
            if counted < rows:
                say(
                    f"{self.config.name}: {key}: {(rows - counted) / rows:.1%} of {int(rows):,} "
                    "rows have no target"
                )

"""Finds objectives that have no targets: a stage that trained one would report an untrained model.

What windows and attributes rule out is refused when the run is built
(`Objective.no_target_reason`). The rest is found here, at the end of the first epoch or of the
stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from research.distributed.collectives import Processes
from research.errors import InputError
from research.training.config import StageConfig
from research.training.state import StageState


class TargetCheck:
    """Counts each objective's targets from the beginning of the stage, and checks the counts once.

    A checkpoint keeps the counts, so that a continued stage is checked like an uninterrupted one.
    """

    def __init__(self, config: StageConfig, state: StageState, processes: Processes) -> None:
        self.config = config
        self.processes = processes
        self.checked = state.counts_judged
        # By objective: targets counted, rows shown, and rows of these that have a target.
        self._sums_K3 = torch.zeros(len(config.objectives), 3, dtype=torch.float64)
        if state.counted and processes.main:
            self._sums_K3 += torch.tensor(
                [[state.counted[name] for name in names(key)] for key in config.objectives]
            )

    def add(self, counts_K3: Tensor) -> None:
        """Add a step's `StepResult.counts_K3`, unless the counts have been checked already."""
        if not self.checked:
            self._sums_K3 += counts_K3

    def check(self, say: Callable[[str], None]) -> None:
        """Raise `InputError` for an objective without any target; report rows without one.

        An objective of weight 0 is not refused. Each objective's share of rows without a target is
        passed to `say`. All processes call it together, at the end of an epoch or of the stage.
        """
        if self.checked:
            return
        totals = self._totals()
        # As long as an objective has been shown no row (`OneObjective` draws one a step), all
        # objectives are checked again after the next epoch.
        self.checked = all(rows > 0.0 for _, rows, _ in totals.values())
        for key, (count, rows, counted) in totals.items():
            if rows > 0.0 and count == 0.0 and self.config.objectives[key].weight > 0.0:
                raise InputError(
                    f"stage {self.config.name}: objective {key} had no target: none of the "
                    f"{int(rows):,} rows that it was shown has a target, so nothing is learned "
                    f"from it; leave it out, set objectives.{key}.weight to 0, or give it other "
                    "windows or a corruption that picks more"
                )
            if self.checked and counted < rows:
                say(
                    f"{self.config.name}: {key}: {(rows - counted) / rows:.1%} of {int(rows):,} "
                    "rows have no target"
                )

    def _totals(self) -> dict[str, tuple[float, ...]]:
        """Return the three sums of each objective, over all processes."""
        sums_K3 = self.processes.summed(self._sums_K3.clone())
        return dict(zip(self.config.objectives, map(tuple, sums_K3.tolist())))

    def complete(self, state: StageState) -> StageState:
        """Return the state with the counts for a checkpoint; all processes call it together."""
        counted = (
            {}
            if self.checked
            else {
                name: number
                for key, numbers in self._totals().items()
                for name, number in zip(names(key), numbers)
            }
        )
        return replace(state, counted=counted, counts_judged=self.checked)


def names(key: str) -> tuple[str, str, str]:
    """Return the names under which a checkpoint keeps an objective's three counts."""
    return f"count/{key}", f"rows/{key}", f"counted/{key}"

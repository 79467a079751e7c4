"""Ends a trial early: after every validation a rule compares its curve with those of earlier ones.

The earlier curves come with the job, so that a worker reads no storage, and the decision is the
same whenever the trial is done or continued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from research.storage.run_folder import RunFolder
from research.storage.tuning_records import PrunedRecord
from research.studies.optuna_studies import Curve, pruning_rule
from research.studies.search import PrunerConfig
from research.training.stage_run import Watch


class Pruned(Exception):
    """Raised within a run that is ended early, once pruned.json says so; it has not failed."""


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """By what a trial is ended early."""

    pruner: PrunerConfig
    """The rule."""
    earlier: tuple[Curve, ...]
    """The curves of the trials that it is compared with, in the order of their numbers."""
    stage: str
    """The name of the run's last stage."""
    metric: str
    """The tuned metric."""

    def watch(self, folder: RunFolder, run_hash: str) -> Watch:
        """A function for `RunOptions.watch`, for the run in `folder`.

        It writes pruned.json and raises `Pruned`. A run that is continued begins with the
        validations that its folder has.
        """
        is_behind = pruning_rule(self.pruner, self.earlier)
        told: set[int] = set()

        def watch(stage: str, epoch: int, values: Mapping[str, float]) -> None:
            if stage != self.stage:
                return
            # The line of this validation is the last one in metrics.jsonl.
            new = [point for point in points_of(folder, stage, self.metric) if point[0] not in told]
            told.update(at for at, _ in new)
            answers = [is_behind(at, value) for at, value in new]
            if answers and answers[-1]:
                # Before the run is left, so that its mirror finds why it ended.
                value = values[f"val/{self.metric}"]
                folder.write(PrunedRecord(hash=run_hash, epoch=epoch, value=value))
                raise Pruned(f"pruned after epoch {epoch} at {value:.4f}")

        return watch


def points_of(folder: RunFolder, stage: str, metric: str) -> tuple[tuple[int, float], ...]:
    """Completed epochs and the metric at each validation of a stage, as metrics.jsonl has them."""
    name = f"val/{metric}"
    return tuple(
        (int(line["epoch"]), float(line[name]))
        for line in folder.metrics()
        if line["stage"] == stage and name in line
    )

"""What the cells of a study cost, from the summaries of their runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from research.report.records import StudyRun
from research.report.schema import Cost, SharedStage, Status
from research.storage.records import CostRecord
from research.storage.untrusted import printable


def cost_of(cell: str, runs: Sequence[StudyRun]) -> Cost:
    """What a cell cost, as means over its finished runs, and which seeds are in which state."""
    finished = [run for run in runs if run.status == "finished"]

    def seeds(status: Status) -> tuple[int, ...]:
        return tuple(run.seed for run in runs if run.status == status)

    def mean(cost: Callable[[CostRecord], float | None]) -> float | None:
        """The mean over finished runs, where a run without a value counts as 0; None: no run."""
        costs = [cost(run.summary.cost) or 0.0 for run in finished if run.summary is not None]
        return sum(costs) / len(costs) if costs else None

    origins = [origin for run in finished for origin in run.origin_cells().items()]
    parameters = mean(lambda cost: cost.parameters)
    return Cost(
        cell=printable(cell),
        done=seeds("finished"),
        failed=seeds("failed"),
        unfinished=seeds("unfinished"),
        missing=seeds("missing"),
        seconds=mean(lambda cost: cost.seconds),
        shared_seconds=mean(lambda cost: cost.shared_seconds) or 0.0,
        items=mean(lambda cost: cost.items),
        parameters=None if parameters is None else int(parameters),
        shared=tuple(
            SharedStage(printable(stage), printable(origin))
            for stage, origin in dict.fromkeys(origins)
        ),
    )

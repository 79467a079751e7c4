"""The plan of a study: how long its missing runs will take, and the table that says so.

`run_study` makes and prints it before the first run begins; `study --plan` prints it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from rich import box
from rich.table import Table

from research.console import plain_console
from research.studies.budget import Budget
from research.studies.cost_estimate import CostEstimate, expected
from research.studies.job import EVERYWHERE, Job, State
from research.studies.workers import duration


def seconds_of(
    missing: Sequence[Job],
    took: Mapping[Job, float],
    data_root: str,
    accelerator: Accelerator,
    quiet: bool,
) -> list[float]:
    """Estimated seconds of each missing job, in order; `took` has those of finished jobs.

    A cell that has finished with another seed is taken to need as long again; the other cells are
    tried briefly. A stage that an earlier job trains as well counts as 0. So does a cell whose
    trial raises an error, which its run will report. With several processes, an error that only
    one of them may have met is raised, as the others would wait for this one.
    """
    tried: dict[tuple[str, str], CostEstimate] = {}
    known = {(job.corpus, job.cell): seconds for job, seconds in took.items()}
    trained = {mark for job in took for mark in job.stage_hashes}
    result = []
    for job in missing:
        key = (job.corpus, job.cell)
        if key in known:
            result.append(known[key])
            continue
        if key not in tried:
            if not tried and not quiet:
                print("trying each cell for a moment to see what it costs ...", flush=True)
            try:
                tried[key] = expected(job.config, data_root, accelerator)
            except Exception as error:
                if accelerator.num_processes > 1 and not isinstance(error, EVERYWHERE):
                    raise
                tried[key] = CostEstimate({}, 0.0)
        stages = zip(job.stage_hashes, tried[key].stages.values())
        own = sum(seconds for mark, seconds in stages if mark not in trained)
        trained.update(job.stage_hashes)
        result.append(own + tried[key].evaluation)
    return result


def say_plan(
    question: str,
    budget: Budget | None,
    jobs: Sequence[Job],
    states: Mapping[Job, State],
    missing: Sequence[Job],
    seconds: Sequence[float] | None,
    workers: int,
) -> None:
    """Print a row for each corpus and cell: runs finished, failed and to do, and the time left.

    `seconds` are the estimates for `missing`, in the same order; None: nothing was estimated.
    """
    console = plain_console()
    console.print(question)
    console.print(f"equal budget: {budget}" if budget else "no common budget: as each cell says")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("corpus", "cell"):
        table.add_column(name, no_wrap=True)
    for name in ("runs", "finished", "failed", "to do", "at most"):
        table.add_column(name, justify="right", no_wrap=True)
    cost = dict(zip(missing, seconds or []))
    for corpus, cell in dict.fromkeys((job.corpus, job.cell) for job in jobs):
        own = [job for job in jobs if (job.corpus, job.cell) == (corpus, cell)]
        due = [job for job in own if job in missing]
        table.add_row(
            corpus,
            cell,
            str(len(own)),
            str(sum(states[job] == "finished" for job in own)),
            str(sum(states[job] == "failed" for job in own)),
            str(len(due)),
            duration(sum(cost[job] for job in due)) if cost and due else "",
        )
    console.print(table)
    skipped = sum(states[job] == "failed" and job not in missing for job in jobs)
    if skipped:
        console.print(f"{skipped} failed before and are left alone; --retry does them again")
    if seconds is not None and missing:
        total = duration(sum(seconds) / workers)
        by = f"{workers} processes" if workers > 1 else "one process"
        console.print(f"{len(missing)} runs, about {total} at most with {by}")

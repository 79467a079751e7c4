"""The plan of a study: what its missing runs will take, and the table that says so.

`run_study` makes and prints it before the first run begins; `study --plan` prints it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from accelerate import Accelerator
from rich import box
from rich.table import Table

from research.console import plain_console
from research.studies.budget import Budget
from research.studies.cost_estimate import CostEstimate, estimate_cost
from research.studies.job import ERRORS_OF_ALL_PROCESSES, Job, JobCost, State
from research.studies.workers import duration_text
from research.training.memory_advice import gigabytes


def estimate_jobs(
    missing: Sequence[Job],
    took: Mapping[Job, JobCost],
    data_root: str,
    accelerator: Accelerator,
    quiet: bool,
) -> list[JobCost]:
    """The estimated cost of each missing job, in order; `took` has that of finished jobs.

    A cell that has finished with another seed counts with the cost of that run; the other cells are
    trained briefly. A stage that an earlier job trains as well takes 0 seconds. So does a cell
    whose trial raises an error, which its run will report. With several processes, an error that
    only one of them may have met is raised, as the others would wait for this one.
    """
    estimates: dict[tuple[str, str], CostEstimate] = {}
    cost_by_cell = {(job.corpus, job.cell): cost for job, cost in took.items()}
    trained_hashes = {stage_hash for job in took for stage_hash in job.stage_hashes}
    costs = []
    for job in missing:
        key = (job.corpus, job.cell)
        if key in cost_by_cell:
            costs.append(cost_by_cell[key])
            continue
        if key not in estimates:
            if not estimates and not quiet:
                print("training each cell for a moment to estimate its cost ...", flush=True)
            try:
                estimates[key] = estimate_cost(job.config, data_root, accelerator)
            except Exception as error:
                if accelerator.num_processes > 1 and not isinstance(error, ERRORS_OF_ALL_PROCESSES):
                    raise
                estimates[key] = CostEstimate({}, 0.0)
        estimate = estimates[key]
        stages = zip(job.stage_hashes, estimate.stages.values())
        stage_seconds = sum(
            seconds for stage_hash, seconds in stages if stage_hash not in trained_hashes
        )
        trained_hashes.update(job.stage_hashes)
        costs.append(JobCost(stage_seconds + estimate.evaluation, estimate.peak_bytes))
    return costs


def print_plan(
    question: str,
    budget: Budget | None,
    jobs: Sequence[Job],
    states: Mapping[Job, State],
    missing: Sequence[Job],
    costs: Sequence[JobCost] | None,
    workers: int,
) -> None:
    """Print a row for each corpus and cell: runs finished, failed and to do, and what is left.

    That is the time of its runs together, and the most memory that a process of one of them holds.
    `costs` are the estimates for `missing`, in the same order; None: nothing was estimated.
    """
    console = plain_console()
    console.print(question)
    console.print(
        f"equal budget: {budget}" if budget else "no common budget: each cell has its own limits"
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in ("corpus", "cell"):
        table.add_column(name, no_wrap=True)
    for name in ("runs", "finished", "failed", "to do", "at most", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    cost_by_job = dict(zip(missing, costs or []))
    for corpus, cell in dict.fromkeys((job.corpus, job.cell) for job in jobs):
        jobs_of_cell = [job for job in jobs if (job.corpus, job.cell) == (corpus, cell)]
        missing_of_cell = [job for job in jobs_of_cell if job in missing]
        duration, memory = "", ""
        if cost_by_job and missing_of_cell:
            duration = duration_text(sum(cost_by_job[job].seconds for job in missing_of_cell))
            peaks = [cost_by_job[job].peak_bytes for job in missing_of_cell]
            peak = max((peak for peak in peaks if peak is not None), default=None)
            memory = "unknown" if peak is None else gigabytes(peak)
        table.add_row(
            corpus,
            cell,
            str(len(jobs_of_cell)),
            str(sum(states[job] == "finished" for job in jobs_of_cell)),
            str(sum(states[job] == "failed" for job in jobs_of_cell)),
            str(len(missing_of_cell)),
            duration,
            memory,
        )
    console.print(table)
    skipped = sum(states[job] == "failed" and job not in missing for job in jobs)
    if skipped:
        console.print(f"{skipped} runs failed before and are skipped; --retry does them again")
    if costs is not None and missing:
        total = duration_text(sum(cost.seconds for cost in costs) / workers)
        processes = f"{workers} processes" if workers > 1 else "one process"
        console.print(f"{len(missing)} runs, about {total} at most with {processes}")

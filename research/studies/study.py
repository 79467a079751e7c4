"""A study: named cells (run configs), seeds and corpora, and the metric that compares them.

`run_study` does the missing runs: finished runs are recognised and not repeated, an interrupted one
continues, a failed one is recorded and does not stop the rest. A temporary problem, such as a full
disk, is not recorded as a failure, and the same command continues the study. `research/report/`
reads the answer from the run folders.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import Accelerator

from research.annotations import suggest
from research.config import check_config, check_types
from research.data.corpus import Corpus
from research.distributed.collectives import Processes
from research.errors import InputError
from research.evaluation.metrics import check_metric_names, of_ranks
from research.runs.config import RunConfig
from research.runs.corpus import prepare_and_open_corpus
from research.runs.execute import RunOptions
from research.runs.run_hash import record_of
from research.runs.warm_start import resolve_warm_start
from research.storage.run_folder import RunFolder
from research.studies.budget import Budget
from research.studies.factorial import Grid
from research.studies.job import Job, JobCost, State
from research.studies.plan import estimate_jobs, print_plan
from research.studies.record import record_study, run_folder
from research.studies.workers import JobList, Progress, run_in_processes, run_in_turn


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question, and the cells whose runs under equal conditions answer it."""

    name: str
    """The study's name, which is also its folder's."""
    question: str
    """The question that the report's tables answer."""
    cells: Mapping[str, RunConfig]
    """Configs by cell name; the study sets their seed and corpus. A `Grid` has effects reported."""
    base: str
    """The cell that the others are compared with."""
    corpora: tuple[str, ...] = ("ml-100k",)
    """Corpus folders or names of known data sets."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of every cell that trains; a counting ranker is run with the first alone."""
    metrics: tuple[str, ...] = ("hr@10", "ndcg@10", "mrr")
    """Metrics that the tables show, a column each; those of recommended lists are in a table of
    their own."""
    compared: str | None = None
    """The metric that cells are compared by; None: the second of ranks in `metrics`, or the only
    one."""
    budget: Budget | None = None
    """What every run may spend; None: the limits of its own config."""
    on_corpus: Mapping[str, Mapping[str, RunConfig]] = field(default_factory=dict)
    """Configs that take the place of a cell's on one corpus, by corpus (as in `corpora`) and cell,
    such as one with values that were tuned on it."""
    next_commands: tuple[str, ...] = ()
    """What one may try next: arguments of `python -m research`, with `# a comment` if need be. The
    command line prints them after the tables, with the folder of all runs in place of `{runs}`."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.base not in self.cells:
            raise InputError(
                f"study {self.name}: base is {self.base!r}; cells: {', '.join(self.cells)}"
            )
        if not (self.corpora and self.seeds and self.metrics):
            raise InputError(
                f"study {self.name}: corpora, seeds and metrics need at least one entry each"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"study {self.name}: seeds are {self.seeds}; each may be given once")
        compared = self.metrics if self.compared is None else (self.compared,)
        check_metric_names((*self.metrics, *compared), f"study {self.name}: metrics or compared")
        if not of_ranks(compared):
            raise InputError(
                f"study {self.name}: cells are compared by a metric of ranks, such as ndcg@10, and "
                f"{', '.join(compared)} is of recommended lists; add one to metrics"
            )
        stages = {stage.name for config in self.cells.values() for stage in config.stages}
        for name in () if self.budget is None else self.budget.shares:
            if name not in stages:
                raise InputError(
                    f"study {self.name}: budget.shares names {name!r}{suggest(name, stages)}"
                )
        untested = [cell for cell, config in self.cells.items() if not config.evaluation.test]
        if untested:
            raise InputError(
                f"study {self.name}: cell {untested[0]} has evaluation.test off, and a study "
                "compares on the test part; leave it on"
            )
        for corpus, configs in self.on_corpus.items():
            if corpus not in self.corpora or not configs.keys() <= self.cells.keys():
                raise InputError(
                    f"study {self.name}: on_corpus has {corpus!r} with {', '.join(configs)}; "
                    f"corpora: {', '.join(self.corpora)}; cells: {', '.join(self.cells)}"
                )
        if self.deciding_metric not in self.metrics:
            raise InputError(
                f"study {self.name}: compared is {self.compared!r}; metrics: "
                f"{', '.join(self.metrics)}"
            )

    @property
    def deciding_metric(self) -> str:
        """The metric that cells are compared by."""
        names = of_ranks(self.metrics)
        return self.compared or names[min(1, len(names) - 1)]

    @property
    def grid(self) -> Grid:
        """The cells with their levels of every factor; without factors unless a grid made them."""
        return self.cells if isinstance(self.cells, Grid) else Grid(self.cells, {}, {})

    def run(self, cell: str, corpus: str, seed: int) -> RunConfig:
        """A cell's config on a corpus with a seed, under the study's budget.

        The study's metrics and full ranking are added to those that the cell asks for.
        """
        config = self.on_corpus.get(corpus, {}).get(cell, self.cells[cell])
        return comparable_run(config, corpus, seed, self.metrics, self.budget)


def comparable_run(
    config: RunConfig, corpus: str, seed: int, metrics: Sequence[str], budget: Budget | None
) -> RunConfig:
    """The config on a corpus with a seed, under a budget; `metrics` and full ranking are added."""
    evaluation = config.evaluation
    config = replace(
        config,
        corpus=corpus,
        seed=seed,
        evaluation=replace(
            evaluation,
            metrics=tuple(dict.fromkeys((*evaluation.metrics, *metrics))),
            candidates=tuple(dict.fromkeys((*evaluation.candidates, "full"))),
        ),
    )
    return config if budget is None else budget.apply_to(config)


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How `run_study` does the runs of a study; no option changes a run's result but by rounding.

    `retry` decides which runs there are, `plan_only` whether there are any.
    """

    workers: int = 1
    """Worker processes at a time, one run each; 1: the runs are done in this process, which may be
    one of several that a launcher started."""
    threads: int | None = None
    """CPU threads of each worker; None: the usable cores divided by the number of workers. It is
    not read with one worker."""
    retry: bool = False
    """Whether failed runs are done again."""
    probe: bool = True
    """Whether the time and memory that runs will take are estimated before they begin."""
    plan_only: bool = False
    """Whether the plan is printed and nothing is done."""
    command: str = ""
    """The command line, which study.json records."""


def run_study(
    study: Study,
    out: Path,
    *,
    options: RunOptions,
    accelerator: Accelerator,
    cells: Collection[str] | None = None,
    study_options: StudyOptions = StudyOptions(),
) -> list[Job]:
    """Do the missing runs of `cells` (None: of all cells); returns every job, done or not.

    `out` is the folder of all runs. Raises `InputError` when `workers` is below 1 or is combined
    with a launcher, and what `plan_jobs` raises.
    """
    check_workers(study_options.workers)
    processes = Processes(accelerator)
    chosen = study.cells if cells is None else cells
    jobs = plan_jobs(study, out, options, chosen, processes)
    # Only the main process reads run folders: other hosts may not share its file system.
    states = dict(zip(jobs, processes.from_main(lambda: [job.state() for job in jobs])))
    missing = [job for job in jobs if is_missing(states[job], study_options.retry)]
    main = accelerator.is_main_process
    if not study_options.plan_only:
        processes.from_main(lambda: record_study(study, out, jobs, study_options.command))
    if not missing and not study_options.plan_only:
        return jobs
    quiet = options.quiet or not main
    costs: Sequence[JobCost] | None = None
    if study_options.probe:
        finished = [job for job in jobs if states[job] == "finished"]
        took = dict(zip(finished, processes.from_main(lambda: [job.cost() for job in finished])))
        costs = estimate_jobs(missing, took, options.data_root, accelerator, quiet)
    if main and (study_options.plan_only or not quiet):
        print_plan(
            study.question, study.budget, jobs, states, missing, costs, study_options.workers
        )
    if study_options.plan_only:
        return jobs
    seconds = {} if costs is None else {job: cost.seconds for job, cost in zip(missing, costs)}
    progress = Progress(len(missing), seconds, study_options.workers, quiet)
    queue = JobList(missing)
    if study_options.workers > 1:
        stop_codes = run_in_processes(
            queue, progress, options, study_options.workers, study_options.threads
        )
        return [replace(job, stop_code=stop_codes.get(job)) for job in jobs]
    run_in_turn(queue, progress, options, accelerator)
    return jobs


def check_workers(workers: int) -> None:
    """Raise `InputError` when `workers` is below 1, or several are combined with a launcher."""
    if workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1")
    if workers > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--workers cannot be used with a launcher; leave one of them out")


def is_missing(state: State, retry: bool) -> bool:
    """Whether a run in this state is to be done; `retry`: also when it has failed."""
    return state in ("new", "begun") or (retry and state == "failed")


def plan_jobs(
    study: Study, out: Path, options: RunOptions, cells: Collection[str], processes: Processes
) -> list[Job]:
    """Every run of a study, ordered by corpus, then cell, then seed.

    Raises `InputError` for a config that is not valid, for two corpora of the same name, and for a
    name that cannot name a folder.
    """
    named = [study.cells, *study.on_corpus.values()]
    for cell, config in (each for configs in named for each in configs.items()):
        try:
            check_config(config)
        except InputError as error:
            raise InputError(f"cell {cell}: {error}") from error
    jobs: list[Job] = []
    for corpus_name in study.corpora:
        corpus = prepare_and_open_corpus(corpus_name, options.data_root, processes)
        for cell in (name for name in study.cells if name in cells):
            for seed in study.seeds if study.cells[cell].is_seeded else study.seeds[:1]:
                folder = run_folder(out, study.name, corpus, cell, seed)
                if any(job.folder == folder for job in jobs):
                    raise InputError(
                        f"study {study.name}: two corpora are called {corpus.name}, and their runs "
                        "would share folders; give one of them another name, or leave it out"
                    )
                try:
                    config = study.run(cell, corpus_name, seed)
                    jobs.append(make_job(config, corpus, cell, folder, options.allow))
                except InputError as error:
                    raise InputError(f"cell {cell}: {error}") from error
    by_first_hash: dict[str, list[Job]] = {}
    for job in jobs:
        for stage_hash in job.stage_hashes[:1]:
            by_first_hash.setdefault(stage_hash, []).append(job)
    return [
        replace(
            job,
            reuse_from=tuple(
                other.folder
                for stage_hash in job.stage_hashes[:1]
                for other in by_first_hash[stage_hash]
                if other is not job
            ),
        )
        for job in jobs
    ]


def make_job(
    config: RunConfig, corpus: Corpus, cell: str, folder: Path, allow: Sequence[str]
) -> Job:
    """The job of a cell's run, with the record that identifies the run."""
    _, start = resolve_warm_start(config, RunFolder(folder, writes=False), allow)
    return Job(
        corpus=corpus.name,
        cell=cell,
        seed=config.seed,
        config=config,
        folder=folder,
        record=record_of(config, corpus, start),
    )

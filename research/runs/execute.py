"""A run: corpus -> split -> stages -> evaluation -> run folder.

`execute` does a run from top to bottom. The run hash, of its config and the corpus's fingerprint,
tells whether the folder holds this run: a finished one is not repeated, and an interrupted one
continues. The test split is ranked once, at the end, or not at all if the config says so.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from research.checkpoint.transfer import TransferReport
from research.config import check_config, packages_of
from research.distributed.accelerator import accelerator_for
from research.distributed.activity import ACTIVITY
from research.distributed.collectives import Processes
from research.evaluation.ranker import RankerConfig
from research.evaluation.ranking import RankingShard
from research.runs.checks import check_same_run, check_sharding, check_touched_rows
from research.runs.config import RunConfig
from research.runs.corpus import prepare_once
from research.runs.existing_run import share_existing_run
from research.runs.extension import with_extensions
from research.runs.finish import evaluate_run, write_config
from research.runs.parts import RunParts, stage_parts
from research.runs.run_hash import record_of
from research.runs.stages import TrainingResult, train_stages
from research.runs.warm_start import find_warm_start, resolve_warm_start
from research.storage.records import CostRecord, RunSummary
from research.storage.run_folder import Mirror, RunFolder
from research.storage.untrusted import printable
from research.tracking.config import Tracking
from research.training.stage_run import CheckpointPlan, Watch


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is done; nothing here changes its result."""

    data_root: str = "data"
    """The folder of raw files and prepared corpora."""
    quiet: bool = False
    """Whether nothing but errors is printed."""
    prefix: str = ""
    """Text before every line that is printed while stages train. Empty: a progress bar is shown as
    well, which would spoil the lines of other runs on the same terminal."""
    device: str | None = None
    """cpu, cuda or cuda:N; None: a GPU if there is one, else the CPU."""
    checkpoints: CheckpointPlan = CheckpointPlan()
    """When checkpoints are written, and how many are kept."""
    reuse_from: tuple[Path, ...] = ()
    """Folders of runs from which finished stages may be copied, instead of training them again."""
    tracking: Tracking | None = None
    """How the run is mirrored to W&B; None: not at all."""
    watch: Watch | None = None
    """Called after each validation of a stage but the last, with the stage's name, its completed
    epochs and the figures; what it raises ends the run. None: nothing is called."""
    allow: tuple[str, ...] = ()
    """Packages whose config classes are trusted in the config of the run that `start_from` names,
    beside those that this run's own config uses."""


def execute(
    config: RunConfig,
    path: Path,
    *,
    options: RunOptions = RunOptions(),
    accelerator: Accelerator | None = None,
) -> RunSummary:
    """Do the run in folder `path`, or the rest of it if it has begun there, and return its summary.

    Every process of the job calls it. If the run has finished already, its stored summary is
    returned.
    `InputError`, before anything is trained or written, for a config whose values are not of their
    types or that could not be read back from config.json, for parts that do not fit together, and
    for a folder that holds another run; `FolderLocked` when another process is doing the run.
    """
    check_config(config)
    accelerator = accelerator_for(accelerator, config.compute, options.device)
    processes = Processes(accelerator)
    quiet = options.quiet or not processes.main
    warn_about_tf32(config, accelerator, quiet, options.prefix)
    ACTIVITY.begin("opening the corpus")
    run_parts = open_parts(config, options.data_root, processes)
    mirror = mirror_of(path, options) if processes.main else None
    folder = RunFolder(path, writes=processes.main, mirror=mirror)
    source, start = resolve_warm_start(config, folder, options.allow)
    record = record_of(config, run_parts.corpus, start)
    check_same_run(record.hash, processes)
    existing = share_existing_run(folder, record, config, run_parts, processes)
    if existing.summary is not None:
        return existing.summary
    if config.start_from is not None and source is None:
        # The warm start's folder may be gone only if the run has finished; this one has not, so a
        # missing one is an error now.
        source = find_warm_start(config.start_from, allow=(*options.allow, *packages_of(config)))
    # Whatever cannot work is refused from here on, before anything is trained or written.
    check_sharding(config)
    check_touched_rows(config, processes.world)
    sets = run_parts.test_candidate_sets()
    result = None if config.ranker is None else _build_counting_ranker(config.ranker, run_parts)
    stages = stage_parts(run_parts, accelerator) if config.ranker is None else []
    transfers: list[TransferReport] = []
    if source is not None:
        source.check(config, run_parts.corpus, options.data_root)
        transfers = [
            source.fill(stage.model, run_parts.corpus, options.data_root) for stage in stages
        ]
    with ExitStack() as stack:
        processes.from_main(partial(lock_folder, folder, stack))
        # The process that had the lock before may have done the run, or a part of it.
        existing = share_existing_run(folder, record, config, run_parts, processes)
        if existing.summary is not None:
            return existing.summary
        record = with_extensions(record, existing.extensions)
        write_config(record, folder, accelerator)
        try:
            result = result or train_stages(
                run_parts,
                stages,
                transfers,
                record,
                folder=folder,
                accelerator=accelerator,
                reuse_from=options.reuse_from,
                plan=options.checkpoints,
                quiet=quiet,
                prefix=options.prefix,
                watch=options.watch,
            )
            return evaluate_run(run_parts, result, sets, record, folder, accelerator.device)
        finally:
            # Accelerate keeps every prepared model alive, and a study uses one accelerator for all
            # its runs.
            accelerator.free_memory()


def warn_about_tf32(config: RunConfig, accelerator: Accelerator, quiet: bool, prefix: str) -> None:
    """Print that a CPU has no tf32, if the run asks for tf32 on a CPU."""
    on_cpu = accelerator.device.type == "cpu"
    if config.compute.precision == "tf32" and on_cpu and not quiet:
        line = "compute.precision is tf32, which a CPU does not have: products are in fp32"
        print(printable(f"{prefix}{line}"), flush=True)


def lock_folder(folder: RunFolder, stack: ExitStack) -> None:
    """Lock a run's folder until `stack` is closed; `FolderLocked` when another process has the
    lock."""
    stack.enter_context(folder)


def open_parts(config: RunConfig, data_root: str, processes: Processes) -> RunParts:
    """A run's parts, set up so that this process ranks its share of the questions."""
    prepare_once(config.corpus, data_root, processes)
    shard = RankingShard(processes.rank, processes.world, processes.summed)
    return replace(RunParts.of(config, data_root), shard=shard)


def mirror_of(path: Path, options: RunOptions) -> Mirror | None:
    """The run's mirror on W&B; None: the options ask for none."""
    if options.tracking is None:
        return None
    # Imported only when needed: the W&B client takes half a second to import.
    from research.tracking.wandb_mirror import WandbMirror

    return WandbMirror(path, options.tracking, quiet=options.quiet)


def _build_counting_ranker(config: RankerConfig, run_parts: RunParts) -> TrainingResult:
    started = time.monotonic()
    ranker = config.build(run_parts.events, run_parts.split)
    cost = CostRecord(parameters=0, seconds=time.monotonic() - started)
    return TrainingResult(ranker=ranker, cost=cost)

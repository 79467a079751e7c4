"""A run: corpus -> split -> stages -> evaluation -> run folder.

`execute` reads top to bottom. A finished run is recognised by the hash of its config and the
corpus's fingerprint, an interrupted one continues. The test split is touched once, at the end.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState

from research.checkpoint import files as checkpoint
from research.checkpoint.transfer import Carried
from research.config import check, from_json, packages_of, plain_from_json, plain_to_json
from research.data.corpus import Corpus
from research.distributed.accelerator import fitted, make_accelerator
from research.distributed.activity import PULSE
from research.distributed.collectives import Processes
from research.errors import InputError
from research.evaluation.candidates import AllItems, CandidateSet
from research.evaluation.metrics import metrics, missed_share
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker, RankerConfig
from research.evaluation.ranking import Shard
from research.model.backbone import BackboneConfig
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig, open_corpus, record_of
from research.runs.differences import other_run
from research.runs.extension import extended, extension_of, note_of, set_aside
from research.runs.parts import (
    StageParts,
    Workbench,
    ranking_objective,
    stage_parts,
)
from research.runs.popularity_floor import beside_popularity
from research.runs.provenance import provenance_of, together, versions
from research.runs.stages import Trained, say, train_stages
from research.runs.warm_start import Start, ended, find_start
from research.storage.records import (
    CostRecord,
    ExtensionRecord,
    Provenance,
    RunRecord,
    RunSummary,
    StartRecord,
    UsersRecord,
)
from research.storage.run_folder import Mirror, RunFolder, Tracking
from research.training.stage_run import CheckpointPlan


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change a run's result."""

    data_root: str = "data"
    """Where raw files and prepared corpora lie."""
    quiet: bool = False
    """Print nothing but errors."""
    device: str | None = None
    """cpu, cuda or cuda:N; None: a GPU if there is one, else the CPU."""
    checkpoints: CheckpointPlan = CheckpointPlan()
    """When checkpoints are written, and how many are kept."""
    donors: tuple[Path, ...] = ()
    """Run folders whose finished stages may be taken over instead of training the same anew."""
    tracking: Tracking | None = None
    """How the run is mirrored to W&B; None: not at all."""
    allow: tuple[str, ...] = ()
    """Packages whose config classes a run that this one starts from may hold, beside those that
    this run's own config holds."""


def execute(
    config: RunConfig,
    path: Path,
    *,
    options: RunOptions = RunOptions(),
    accelerator: Accelerator | None = None,
) -> RunSummary:
    """Do the run in folder `path`, or what is left of it; returns its summary.

    `InputError`, before anything is trained or written, for a config that is not of its types or
    could not be read from config.json again, and for parts that do not fit one another.
    """
    check(config)
    accelerator = fitted(accelerator, config.compute, options.device)
    processes = Processes(accelerator)
    main = processes.main
    if config.compute.precision == "tf32" and accelerator.device.type == "cpu":
        say(
            "compute.precision is tf32, which a CPU does not have: products are in fp32",
            options.quiet or not main,
        )
    PULSE.begin("opening the corpus")
    bench = opened(config, options.data_root, processes)
    folder = RunFolder(path, writes=main, mirror=mirror_of(path, options) if main else None)
    source, start = started_from(config, folder, options.allow)
    record = record_of(config, bench.corpus, start)
    check_alike(record.hash, processes)
    # The main process alone looks into the folder, which the others need not see.
    seen = processes.from_main(lambda: plain_to_json(_seen(folder, record, config, bench.corpus)))
    there = plain_from_json(seen, Seen)
    if there.summary is not None:
        return there.summary
    record = extended(record, there.extensions)
    if config.start_from is not None and source is None:
        # A run that goes on is no longer known without its start.
        source = find_start(config.start_from, allow=(*options.allow, *packages_of(config)))
    # What cannot work is refused here, before anything is trained or written.
    check_sharding(config)
    sets = bench.candidate_sets(bench.split.test, "test")
    trained: Trained | None = None
    stages: list[StageParts] = []
    begun: list[Carried] = []
    if config.ranker is not None:
        trained = _counted(config.ranker, bench)
    else:
        stages = stage_parts(bench, accelerator)
    if source is not None:
        source.check(config, bench.corpus.fingerprint)
        begun = [source.into(each.pretrainer, bench.corpus, options.data_root) for each in stages]
    with ExitStack() as held:
        processes.from_main(partial(hold, folder, held))
        begin(record, folder, accelerator)
        try:
            trained = trained or train_stages(
                bench,
                stages,
                begun,
                record,
                folder=folder,
                accelerator=accelerator,
                donors=options.donors,
                plan=options.checkpoints,
                quiet=options.quiet or not main,
            )
            notes = tuple(note_of(each, config) for each in record.extensions)
            trained = replace(trained, notes=(*trained.notes, *notes))
            return conclude(bench, trained, sets, record.hash, folder)
        finally:
            # Accelerate keeps every prepared model; a study shares one accelerator between runs.
            accelerator.free_memory()


def opened_corpus(name: str, data_root: str, processes: Processes) -> Corpus:
    """A corpus, prepared if it has to be."""
    prepare_once(name, data_root, processes)
    return open_corpus(name, data_root)


def prepare_once(name: str, data_root: str, processes: Processes) -> None:
    """Of several processes, let one a machine prepare a data set that has to be."""
    if processes.world > 1:
        processes.from_main(lambda: open_corpus(name, data_root).fingerprint)
        # Machines that do not share their disks prepare each their own.
        with PartialState().local_main_process_first():
            open_corpus(name, data_root)


def hold(folder: RunFolder, held: ExitStack) -> None:
    """Hold a run's folder until the end of `held`; `InputError` when another process does."""
    held.enter_context(folder)


def opened(config: RunConfig, data_root: str, processes: Processes) -> Workbench:
    """A run's parts, with this process's share of the questions."""
    prepare_once(config.corpus, data_root, processes)
    shard = Shard(processes.rank, processes.world, processes.summed)
    return replace(Workbench.of(config, data_root), shard=shard)


def check_sharding(config: RunConfig) -> None:
    """`InputError` for what does not go with split weights, nor with fp16's loss scale."""
    for stage in config.stages:
        if stage.combination.merges_gradients and config.compute.precision == "fp16":
            raise InputError(
                f"stage {stage.name}: combination is {type(stage.combination).__name__}, which "
                "merges gradients that fp16 has scaled; use bf16 or fp32"
            )
    if not config.compute.shard_weights:
        return
    for stage in config.stages:
        if stage.gradients_every is not None:
            raise InputError(
                f"stage {stage.name}: gradients_every is {stage.gradients_every}, but with "
                "compute.shard_weights no process has an objective's whole gradient; leave one out"
            )
        if stage.optimizer.method == "sgd":
            raise InputError(
                f"stage {stage.name}: optimizer.method is sgd, which torch cannot do with "
                "compute.shard_weights; use adam or adamw"
            )
        combination = stage.combination
        if combination.learns or combination.merges_gradients:
            raise InputError(
                f"stage {stage.name}: combination is {type(combination).__name__}, which needs "
                "whole gradients or weights of its own, but compute.shard_weights splits them; "
                "leave one out"
            )


def check_alike(mark: str, processes: Processes) -> None:
    """`InputError` when processes would do different runs: other corpora, code or arguments."""
    own = {"run": mark, "torch": torch.__version__, "host": socket.gethostname()}
    known = [each for each in processes.gathered(own) if isinstance(each, dict)]
    first = known[0]
    for rank, each in enumerate(known):
        for name in ("run", "torch"):
            if each[name] != first[name]:
                raise InputError(
                    f"{name} of rank {rank} on {each['host']} is {each[name]}, of rank 0 on "
                    f"{first['host']} {first[name]}; give every machine the same corpus, code, "
                    "arguments and versions"
                )


def mirror_of(path: Path, options: RunOptions) -> Mirror | None:
    """The run's mirror, if it is to have one."""
    if options.tracking is None:
        return None
    # The W&B client takes half a second to import.
    from research.wandb_mirror.mirror import WandbMirror

    return WandbMirror(path, options.tracking, quiet=options.quiet)


def begin(record: RunRecord, folder: RunFolder, accelerator: Accelerator) -> None:
    """Write config.json, by which a run folder is recognized, and how the run is done from here."""
    if not folder.writes:
        return
    set_aside(folder, record.hash)
    stored = folder.read(RunRecord)
    # What an earlier version has begun has an unknown beginning.
    before = () if stored is None else stored.provenance or (Provenance(),)
    latest = provenance_of(accelerator.device, accelerator.num_processes)
    folder.write(replace(record, provenance=together(before, latest)))


def conclude(
    bench: Workbench,
    trained: Trained,
    sets: Sequence[CandidateSet],
    mark: str,
    folder: RunFolder,
) -> RunSummary:
    """Rank the validation part and, under `sets`, the test part; write rank tables and summary."""
    PULSE.begin("ranking")
    validated: dict[str, RankTable] = {}
    if len(bench.split.validation):
        validated = bench.tables(trained.ranker, "validation", [AllItems()])
    tables = bench.tables(trained.ranker, "test", sets)
    if folder.writes:
        for part, each in (("validation", validated), ("test", tables)):
            for name, table in each.items():
                table.save(folder.path / "ranks" / f"{part}-{name}.npz")
    names, ties = bench.config.evaluation.metrics, bench.config.evaluation.ties
    summary = RunSummary(
        hash=mark,
        fingerprint=bench.corpus.fingerprint,
        protocol=dict(tables[next(iter(tables))].protocol),
        users=UsersRecord(
            evaluated=bench.num_test_users,
            not_evaluated=bench.split.not_evaluated,
        ),
        ties=ties,
        val=metrics(validated["full"], names, ties) if validated else {},
        test={name: metrics(table, names, ties) for name, table in tables.items()},
        missed_share=missed_share(next(iter(tables.values()))),
        popularity=beside_popularity(bench, tables, sets),
        attributes=trained.attributes,
        best=trained.best,
        carried=trained.carried,
        shared=trained.shared,
        cost=trained.cost,
        notes=trained.notes,
        imported=trained.imported,
        versions=versions(),
    )
    folder.write(summary)
    return summary


def started_from(
    config: RunConfig, folder: RunFolder, allow: Sequence[str]
) -> tuple[Start | None, StartRecord]:
    """What a run starts from, and that as config.json has it; None: from scratch.

    A run that has ended is known without its start, whose folder may be gone by then.
    """
    if config.start_from is None:
        return None, StartRecord()
    try:
        start = find_start(config.start_from, allow=(*allow, *packages_of(config)))
    except InputError:
        stored = folder.read(RunRecord)
        if stored is None or folder.read(RunSummary) is None:
            raise
        return None, stored.start
    return start, start.record


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What of a run its folder holds."""

    summary: RunSummary | None
    """Its summary; None: it has not ended."""
    extensions: tuple[ExtensionRecord, ...] = ()
    """The later limits that it was given, the one of this call among them."""


def _seen(folder: RunFolder, record: RunRecord, config: RunConfig, corpus: Corpus) -> Seen:
    """What is there of a run; `InputError` when the folder holds another one."""
    stored = folder.read(RunRecord)
    if stored is None or stored.hash == extended(record, stored.extensions).hash:
        before = () if stored is None else stored.extensions
        return Seen(summary=folder.read(RunSummary), extensions=before)
    extension = extension_of(stored, record, config, corpus, folder)
    if extension is None:
        why = other_run(stored, record, config)
        raise InputError(
            f"{folder.path} holds another run ({why}); choose another folder or remove that one"
        )
    return Seen(summary=None, extensions=(*stored.extensions, extension))


def _counted(config: RankerConfig, bench: Workbench) -> Trained:
    started = time.monotonic()
    ranker = config.build(bench.corpus, bench.split)
    cost = CostRecord(parameters=0, seconds=time.monotonic() - started)
    return Trained(ranker=ranker, cost=cost)


def load_run(
    path: Path, data_root: str, allow: Sequence[str] = (), device: str | None = None
) -> tuple[Workbench, Ranker]:
    """A finished run's parts, ready to rank on `device` (see `RunOptions`).

    `InputError` for another corpus or a damaged run.
    """
    reader = RunFolder(path, writes=False)
    record = reader.read(RunRecord)
    if record is None:
        raise InputError(f"{path} has no config.json: it is not a run folder")
    if reader.read(RunSummary) is None:
        raise InputError(
            f"{path} holds a run that has not finished; the command that began it continues it"
        )
    config = from_json(record.config, RunConfig, allow=allow)
    bench = Workbench.of(config, data_root)
    if record.fingerprint != bench.corpus.fingerprint:
        raise InputError(
            f"{path} was made on a corpus with fingerprint {record.fingerprint}, but "
            f"{bench.corpus.folder} has {bench.corpus.fingerprint}; ids would not mean the same"
        )
    if config.ranker is not None:
        return bench, config.ranker.build(bench.corpus, bench.split)
    accelerator = make_accelerator(device=device)
    stage = config.stages[-1]
    found = ended(reader, stage.name, bench.corpus.fingerprint, str(path))
    check_size(config.encoder, bench.corpus.num_items, found / "model.safetensors")
    pretrainer = bench.pretrainer(stage, bench.shared()).to(accelerator.device)
    checkpoint.load_weights(found, pretrainer)
    objective = ranking_objective(stage, pretrainer)
    assert objective is not None, "a run's last stage ranks"
    return bench, TrainedRanker(pretrainer.encoder, objective)


def check_size(encoder: BackboneConfig, num_items: int, weights: Path) -> None:
    """`InputError` for a model that its weights cannot be of, before memory is asked for it."""
    least = encoder.num_parameters(num_items)
    # No number takes less than two bytes.
    if 2 * least > weights.stat().st_size:
        raise InputError(
            f"{weights} is too small for a model of {least:,} numbers, as the run's config has it; "
            "the config or the checkpoint is of another run"
        )

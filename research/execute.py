"""A run: corpus -> split -> stages -> evaluation -> run folder.

`execute` reads top to bottom. A finished run is recognised by the hash of its config and the
corpus's fingerprint, an interrupted one continues. The test split is touched once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from research.config import from_json, to_json
from research.errors import InputError
from research.evaluation.candidates import AllItems, CandidateSet
from research.evaluation.metrics import metrics, missed_share
from research.evaluation.rank import Ranker, RankerConfig, RankTable
from research.run import RunConfig, identity
from research.start import Start, find_start
from research.tracking import RunFolder
from research.training import checkpoint
from research.training.carry import Carried, carry
from research.training.loop import train
from research.training.pretrainer import TrainedRanker
from research.workbench import (
    StageParts,
    Workbench,
    ranking_objective,
    stage_parts,
    validation_of,
)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change a run's result."""

    data_root: str = "data"
    """Where raw files and prepared corpora lie."""
    quiet: bool = False
    """Print nothing but errors."""


def execute(
    config: RunConfig,
    path: Path,
    *,
    options: RunOptions = RunOptions(),
    accelerator: Accelerator | None = None,
) -> dict[str, object]:
    """Do the run in folder `path`, or what is left of it; returns its summary."""
    accelerator = accelerator or make_accelerator()
    bench = Workbench.of(config, options.data_root)
    folder = RunFolder(path, writes=accelerator.is_main_process)
    source, start = _start(config, folder)
    mark = identity(config, bench.corpus, start.get("sha256"))
    finished = _finished(folder, mark, start)
    if finished is not None:
        return finished
    # What cannot work is refused here, before anything is trained or written.
    sets = bench.candidate_sets(bench.split.test, "test")
    trained: Trained | None = None
    stages: list[StageParts] = []
    begun: list[Carried] = []
    if config.ranker is not None:
        trained = _counted(config.ranker, bench)
    else:
        stages = stage_parts(bench, accelerator)
    if source is not None:
        source.check_split(config, bench.corpus.fingerprint)
        begun = [source.into(each.pretrainer, bench.corpus, options.data_root) for each in stages]
    begin(bench, mark, folder, start)
    if trained is None:
        trained = _train_stages(bench, stages, begun, folder, accelerator, options)
    summary = conclude(bench, trained, sets, mark, folder)
    # Accelerate keeps every prepared model; a study shares one accelerator between its cells.
    accelerator.free_memory()
    return summary


@dataclass(frozen=True, eq=False)
class Trained:
    """A ranker, and what the summary says of how it came to be."""

    ranker: Ranker
    record: dict[str, object]
    """best validation values and what was carried, by stage; cost; attributes."""


def begin(bench: Workbench, mark: str, folder: RunFolder, start: Mapping[str, str]) -> None:
    """Write config.json, by which a run folder is recognised."""
    fingerprint, config = bench.corpus.fingerprint, to_json(bench.config)
    stored = {"hash": mark, "fingerprint": fingerprint, "start": dict(start), "config": config}
    folder.write("config.json", stored)


def conclude(
    bench: Workbench,
    trained: Trained,
    sets: Sequence[CandidateSet],
    mark: str,
    folder: RunFolder,
) -> dict[str, object]:
    """Rank the validation part and, under `sets`, the test part; write rank tables and summary."""
    validated: dict[str, RankTable] = {}
    if len(bench.split.validation):
        validated = bench.tables(trained.ranker, "validation", [AllItems()])
    tables = bench.tables(trained.ranker, "test", sets)
    if folder.writes:
        for part, each in (("validation", validated), ("test", tables)):
            for name, table in each.items():
                table.save(folder.path / "ranks" / f"{part}-{name}.npz")
    names = bench.config.evaluation.metrics
    summary = {
        "status": "finished",
        "hash": mark,
        "fingerprint": bench.corpus.fingerprint,
        "protocol": dict(tables[next(iter(tables))].protocol),
        "users": {
            "evaluated": len(np.unique(bench.split.test.histories.users)),
            "not_evaluated": bench.split.not_evaluated,
        },
        "val": metrics(validated["full"], names) if validated else {},
        "test": {name: metrics(each, names) for name, each in tables.items()},
        "missed_share": missed_share(next(iter(tables.values()))),
        **trained.record,
        "versions": {"torch": torch.__version__},
    }
    folder.write("summary.json", summary)
    return summary


def _start(config: RunConfig, folder: RunFolder) -> tuple[Start | None, dict[str, str]]:
    """What a run starts from, and that as config.json has it; (None, {}): from scratch.

    A run that has ended is known without its start, whose folder may be gone by then.
    """
    if config.start_from is None:
        return None, {}
    try:
        found = find_start(config.start_from)
    except InputError:
        known = (folder.read("config.json") or {}).get("start")
        ended = (folder.read("summary.json") or {}).get("status") == "finished"
        if not ended or not isinstance(known, dict):
            raise
        return None, {str(name): str(value) for name, value in known.items()}
    return found, found.record


def _finished(folder: RunFolder, mark: str, start: Mapping[str, str]) -> dict[str, object] | None:
    """The summary of a run that has ended; `InputError` when the folder holds another run."""
    stored = folder.read("config.json")
    if stored is not None and stored.get("hash") != mark:
        why = f"hash {stored.get('hash')}, this one is {mark}"
        if stored.get("start", {}) != start:
            why += f"; it started from {stored.get('start') or 'scratch'}, this one {dict(start)}"
        raise InputError(
            f"{folder.path} holds another run ({why}); choose another folder or remove that one"
        )
    summary = folder.read("summary.json")
    ended = summary is not None and summary.get("status") == "finished"
    return summary if ended else None


def _counted(config: RankerConfig, bench: Workbench) -> Trained:
    started = time.monotonic()
    ranker = config.build(bench.corpus, bench.split)
    cost = {"parameters": 0, "seconds": time.monotonic() - started}
    return Trained(ranker, {"best": {}, "cost": cost})


def _train_stages(
    bench: Workbench,
    stages: Sequence[StageParts],
    begun: Sequence[Carried],
    folder: RunFolder,
    accelerator: Accelerator,
    options: RunOptions,
) -> Trained:
    """Train every stage, each from the weights of those before; `begun`: what all started from."""
    quiet = options.quiet or not accelerator.is_main_process
    best: dict[str, object] = {}
    moves: dict[str, object] = {}
    seconds, items = 0.0, 0
    record: dict[str, object] = {}
    if any(stage.pretrainer.uses_attributes for stage in stages):
        record["attributes"] = bench.catalogue.coverage
        say(coverage_line(bench.catalogue.coverage), quiet)
    for place, stage in enumerate(stages):
        name = stage.config.name
        carried = hand_over(stages[:place], stage, begun[place] if begun else None)
        if carried is not None:
            moves[name] = carried.record
            say(f"{name}: {carried.line}", quiet)
        state = train(
            stage.pretrainer,
            stage.loader,
            stage.config,
            accelerator=accelerator,
            folder=folder,
            seed=bench.config.seed,
            validate=validation_of(bench, stage),
            quiet=quiet,
        )
        seconds, items = seconds + state.seconds, items + state.items
        best[name] = {
            "epoch": state.best_epoch,
            "value": state.best_value,
            "epochs": state.epoch,
            "steps": state.step,
        }
    last = stages[-1]
    assert last.ranker is not None, "stage_parts has checked it"
    parameters = sum(each.numel() for each in last.pretrainer.parameters())
    cost = {"parameters": parameters, "seconds": seconds, "items": items}
    return Trained(last.ranker, {"best": best, "carried": moves, "cost": cost, **record})


def hand_over(
    before: Sequence[StageParts], stage: StageParts, begun: Carried | None
) -> Carried | None:
    """Fill a stage from the stages before it, the nearest last; None: there is nothing to carry."""
    account = begun
    for each in before:
        weights = dict(each.pretrainer.named_parameters())
        moved = carry(weights, stage.pretrainer, source=f"stage {each.config.name}")
        account = moved if account is None else moved.over(account)
    return account


def coverage_line(coverage: Mapping[str, int]) -> str:
    """What a corpus's attributes cover, for the terminal."""
    items, without = coverage["items"], coverage["items_without"]
    return (
        f"attributes: {coverage['attributes']:,}, of which {coverage['never_seen']:,} stand on no "
        f"training item; {without:,} of {items:,} items ({without / items:.1%}) have none"
    )


def say(text: str, quiet: bool) -> None:
    """A line for a person."""
    if not quiet:
        print(text, flush=True)


def make_accelerator() -> Accelerator:
    """Accelerate's view of this process; on a machine without GPUs it means the CPU."""
    # Precision and accumulation belong to the config, so the launcher's environment has no say.
    return Accelerator(
        cpu=not torch.cuda.is_available(), mixed_precision="no", gradient_accumulation_steps=1
    )


def load_run(path: Path, data_root: str, allow: Sequence[str] = ()) -> tuple[Workbench, Ranker]:
    """A finished run's parts, ready to rank; `InputError` for another corpus or a damaged run."""
    reader = RunFolder(path, writes=False)
    stored, summary = reader.read("config.json"), reader.read("summary.json")
    if stored is None:
        raise InputError(f"{path} has no config.json: it is not a run folder")
    if summary is None or summary.get("status") != "finished":
        raise InputError(
            f"{path} holds a run that has not finished; the command that began it continues it"
        )
    config = from_json(stored.get("config"), RunConfig, allow=allow)
    bench = Workbench.of(config, data_root)
    if stored.get("fingerprint") != bench.corpus.fingerprint:
        raise InputError(
            f"{path} was made on a corpus with fingerprint {stored.get('fingerprint')}, but "
            f"{bench.corpus.folder} has {bench.corpus.fingerprint}; ids would not mean the same"
        )
    if config.ranker is not None:
        return bench, config.ranker.build(bench.corpus, bench.split)
    device = make_accelerator().device
    stage = config.stages[-1]
    pretrainer = bench.pretrainer(stage, bench.shared()).to(device)
    kept = "last" if stage.validation is None else "best"
    found = checkpoint.existing(reader.stage(stage.name) / kept)
    checkpoint.read_state(found, bench.corpus.fingerprint)
    checkpoint.load_weights(found, pretrainer)
    objective = ranking_objective(stage, pretrainer)
    assert objective is not None, "a run's last stage ranks"
    return bench, TrainedRanker(pretrainer.encoder, objective)

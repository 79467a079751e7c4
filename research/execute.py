"""A run: corpus -> split -> stages -> evaluation -> run folder.

`execute` reads top to bottom. A finished run is recognised by the hash of its config and the
corpus's fingerprint, an interrupted one continues. The test split is touched once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from research.config import from_json, to_json
from research.errors import InputError
from research.evaluation.candidates import AllItems
from research.evaluation.metrics import metrics, missed_share
from research.evaluation.rank import Ranker, RankTable
from research.run import RunConfig, identity
from research.tracking import RunFolder
from research.training import checkpoint
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
    mark = identity(config, bench.corpus)
    folder = RunFolder(path, writes=accelerator.is_main_process)
    stored = folder.read("config.json")
    if stored is not None and stored.get("hash") != mark:
        raise InputError(
            f"{path} holds another run (hash {stored.get('hash')}, this one is {mark}); choose "
            "another folder or remove that one"
        )
    summary = folder.read("summary.json")
    if summary is not None and summary.get("status") == "finished":
        return summary
    # What cannot work is refused here, before anything is trained or written.
    sets = bench.candidate_sets(bench.split.test, "test")
    started = time.monotonic()
    ranker: Ranker | None = None
    stages: list[StageParts] = []
    if config.ranker is not None:
        ranker = config.ranker.build(bench.corpus, bench.split)
    else:
        stages = stage_parts(bench, accelerator)
    cost: dict[str, object] = {"parameters": 0, "seconds": time.monotonic() - started}
    best: dict[str, object] = {}
    folder.write(
        "config.json",
        {"hash": mark, "fingerprint": bench.corpus.fingerprint, "config": to_json(config)},
    )
    if ranker is None:
        ranker, best, cost = _train_stages(bench, stages, folder, accelerator, options)
    validated: dict[str, RankTable] = {}
    if len(bench.split.validation):
        validated = bench.tables(ranker, "validation", [AllItems()])
    tables = bench.tables(ranker, "test", sets)
    if accelerator.is_main_process:
        for part, each in (("validation", validated), ("test", tables)):
            for name, table in each.items():
                table.save(path / "ranks" / f"{part}-{name}.npz")
    summary = {
        "status": "finished",
        "hash": mark,
        "fingerprint": bench.corpus.fingerprint,
        "protocol": dict(tables[next(iter(tables))].protocol),
        "users": {
            "evaluated": len(np.unique(bench.split.test.histories.users)),
            "not_evaluated": bench.split.not_evaluated,
        },
        "best": best,
        "val": metrics(validated["full"], config.evaluation.metrics) if validated else {},
        "test": {name: metrics(each, config.evaluation.metrics) for name, each in tables.items()},
        "missed_share": missed_share(next(iter(tables.values()))),
        "cost": cost,
        "versions": {"torch": torch.__version__},
    }
    folder.write("summary.json", summary)
    # Accelerate keeps every prepared model; a study shares one accelerator between its cells.
    accelerator.free_memory()
    return summary


def _train_stages(
    bench: Workbench,
    stages: Sequence[StageParts],
    folder: RunFolder,
    accelerator: Accelerator,
    options: RunOptions,
) -> tuple[Ranker, dict[str, object], dict[str, object]]:
    """Train every stage; the ranker, the best validation values, and what it cost."""
    best: dict[str, object] = {}
    seconds, items = 0.0, 0
    for stage in stages:
        names = dict.fromkeys(bench.config.evaluation.metrics)
        if stage.config.validation is not None:
            names[stage.config.validation.metric] = None
        validate = None
        if stage.ranker is not None:
            validate = validation_of(bench, stage.ranker, tuple(names))
        state = train(
            stage.pretrainer,
            stage.loader,
            stage.config,
            accelerator=accelerator,
            folder=folder,
            seed=bench.config.seed,
            validate=validate,
            quiet=options.quiet or not accelerator.is_main_process,
        )
        seconds, items = seconds + state.seconds, items + state.items
        best[stage.config.name] = {
            "epoch": state.best_epoch,
            "value": state.best_value,
            "epochs": state.epoch,
            "steps": state.step,
        }
    last = stages[-1]
    assert last.ranker is not None, "stage_parts has checked it"
    parameters = sum(each.numel() for each in last.pretrainer.parameters())
    return last.ranker, best, {"parameters": parameters, "seconds": seconds, "items": items}


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

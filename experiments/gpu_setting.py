"""What the parts of `gpu_checks` work on: the device, corpora, recipes and short runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from baselines.s3rec import joint
from baselines.sasrec import full_softmax
from research.data.corpus import write_corpus
from research.data.names import Names
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.evaluation.rank_table import RankTable
from research.model.compute import graphs_compiled
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.parts import RunParts
from research.training.multi_objective import MultiObjectiveModel

BEAUTY, ML_1M, ML_20M = "Beauty", "ml-1m-sas", "ml-20m-sized"
SEED = 0
RATE = "train/items_per_second"
NO_DROPOUT = {f"encoder.{name}_dropout": 0.0 for name in ("embedding", "hidden", "attention")}


class PartSkipped(Exception):
    """Raised in a part that cannot be done on this machine; the message says what it needs."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The device and the folders that the parts use, and what they do there."""

    device: torch.device
    """The device that is compared with the CPU."""
    tiny: bool
    """Whether only the script itself is tried, with a tiny generated corpus and model."""
    data_root: str
    """The folder of prepared corpora."""
    scratch: Path
    """The folder for runs and generated corpora; the caller removes it at the end."""

    @property
    def gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    def folder(self, corpus: str) -> Path:
        """The path of a corpus's folder, which may not exist yet."""
        if self.tiny:
            return self.scratch / "Tiny"
        root = self.scratch if corpus == ML_20M else Path(self.data_root)
        return root / "corpora" / corpus

    def corpus(self, name: str) -> str:
        """The folder of a corpus; a generated corpus is made first if it does not exist.

        Raises `PartSkipped` when another corpus is absent.
        """
        folder = self.folder(name)
        if not (folder / "manifest.json").is_file():
            if self.tiny:
                write_tiny(folder)
            elif name == ML_20M:
                write_large(folder)
            else:
                raise PartSkipped(f"{folder} is absent")
        return str(folder)

    def config(
        self, config: RunConfig, changes: Mapping[str, object], corpus: str = BEAUTY
    ) -> RunConfig:
        """A recipe with changes on a corpus; with `tiny` its sizes are made small."""
        small: dict[str, object] = {}
        if self.tiny:
            small = {"encoder.width": 8, "encoder.length": 8, "encoder.feed_forward": 8}
            small |= {"encoder.heads": 2, "stages.0.batches.sequences_per_batch": 16}
        base = replace(config, corpus=self.corpus(corpus), seed=SEED)
        return replace_fields(base, {**small, **changes})

    def run(self, name: str, changes: Mapping[str, object]) -> RunResult:
        """Do a run of SASRec with full softmax on Beauty, and return its results and cost."""
        folder = self.scratch / name
        self.reset_memory()
        graphs, started = graphs_compiled(), time.perf_counter()
        options = RunOptions(quiet=True, data_root=self.data_root, device=str(self.device))
        execute(self.config(full_softmax(), changes), folder, options=options)
        seconds = time.perf_counter() - started
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return RunResult(
            folder=folder,
            table=RankTable.load(folder / "ranks" / "test-full.npz"),
            losses=[line["train/loss"] for line in lines if "train/loss" in line],
            rates=[line[RATE] for line in lines if RATE in line],
            graphs=graphs_compiled() - graphs,
            seconds=seconds,
            megabytes=self.peak_megabytes(),
        )

    def short_run(self, name: str, changes: Mapping[str, object]) -> RunResult:
        """Do a run of three epochs without dropout and validation, logging every ten steps."""
        fixed = {"stages.0.validation": None, "stages.0.epochs": 3, "stages.0.log_every": 10}
        return self.run(name, {**NO_DROPOUT, **fixed, **changes})

    def all_objectives(self) -> tuple[RunParts, MultiObjectiveModel]:
        """The parts and the model of a run with all six objectives on one encoder.

        The model is on the CPU, in training mode, and without dropout.
        """
        run_parts = RunParts.of(self.config(joint(), NO_DROPOUT), self.data_root)
        model = run_parts.model(run_parts.config.stages[0], run_parts.components())
        return run_parts, model.train()

    def synchronize(self) -> None:
        """Wait until the GPU has done all work in its queue."""
        if self.gpu:
            torch.cuda.synchronize()

    def reset_memory(self) -> None:
        """Free the GPU's cached memory, and reset its peak statistics."""
        self.synchronize()
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_megabytes(self) -> float:
        """Peak GPU memory of tensors since `reset_memory`, in MiB; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.gpu else 0.0

    def compiling(self) -> AbstractContextManager[object]:
        """A context in which `torch.compile` compiles for a GPU, but only traces on a CPU.

        Machine code for a CPU takes long to build, and is not what the checks are about.
        """
        stance: AbstractContextManager[object] = torch.compiler.set_stance(
            force_backend=None if self.gpu else "eager"
        )
        return stance


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The results and the cost of a run that has ended."""

    folder: Path
    """The run's folder."""
    table: RankTable
    """The test part's rank table under full ranking."""
    losses: list[float]
    """The training losses that were logged, in order."""
    rates: list[float]
    """Items per second, as logged beside the losses."""
    graphs: int
    """Number of graphs that were compiled during the run."""
    seconds: float
    """Wall time, with preparation, validation and test."""
    megabytes: float
    """Peak GPU memory of tensors in MiB; 0 on a CPU."""

    @property
    def rate(self) -> float:
        """Median items per second, without the first logged line, which includes one-time work."""
        rates = sorted(self.rates[1:] or self.rates)
        return rates[len(rates) // 2]

    def max_difference(self, other: RunResult) -> float:
        """The largest relative difference between a loss of this run and the other's."""
        pairs = zip(self.losses, other.losses, strict=True)
        return max(abs(own - others) / abs(others) for own, others in pairs)


def write_tiny(folder: Path) -> None:
    """Generate a corpus of 60 users, 20 items in a circle, and two attributes for each item."""
    raw = folder.with_name("tiny-raw")
    raw.mkdir()
    rows = []
    for user in range(60):
        items = [(user + step * (1 + user % 3)) % 20 for step in range(5 + user % 7)]
        rows.append(" ".join(str(number) for number in [user, *items]))
    (raw / "Tiny.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    attributes = {str(item): [item % 3, 3 + item % 2] for item in range(20)}
    path = raw / "Tiny_item2attributes.json"
    path.write_text(json.dumps(attributes), encoding="utf-8")
    prepare(PrepareConfig(source="s3rec", raw=str(raw / "Tiny.txt")), folder)


def write_large(
    folder: Path, *, users: int = 138_493, items: int = 26_744, events: int = 20_000_000
) -> None:
    """Generate a corpus like MovieLens-20M in its counts, history lengths and item popularity.

    In MovieLens-20M a user has 20 to 9,254 events, 68 in the median and 144 in the mean. Items are
    drawn by a Zipf law, so a user may have one twice, which does not change a model's cost.
    """
    random = np.random.default_rng(SEED)
    # A history has 20 events and a log-normal rest of median 48 and mean 124, scaled so that the
    # number of events is right.
    tail = random.lognormal(np.log(48.0), 1.38, users).clip(max=9_000.0)
    lengths = 20 + np.floor(tail * (events - 20 * users) / tail.sum()).astype(np.int64)
    lengths[: events - int(lengths.sum())] += 1
    popularity = np.cumsum(1.0 / np.arange(50, items + 50))
    ranks = np.searchsorted(popularity, random.random(events) * popularity[-1])
    nothing = np.zeros(0, dtype=np.int32)
    write_corpus(
        folder,
        name=folder.name,
        items=ranks.clip(max=items - 1).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        timestamps=None,
        attribute_offsets=np.zeros(items + 1, dtype=np.int64),
        attribute_ids=nothing,
        user_names=Names.from_strings([str(user) for user in range(users)]),
        item_names=Names.from_strings([str(item) for item in range(items)]),
        attribute_names=Names.from_strings([]),
        item_titles=None,
        options={},
        report={},
    )

"""How fast is the packed core, and how much memory does it take?

Command: python -m experiments.benchmark [W1 W3 ...]
Corpora: data/corpora/Beauty and data/corpora/ml-1m-sas, made as experiments/beauty.py and
         experiments/ml_1m.py say; a workload whose corpus is absent says so and is left out.
Hardware: any; two threads. Seconds are also given scaled to a machine of 325 GFLOP/s in fp32
matrix products (two cores with AVX-512), by this machine's own measured rate. Each workload runs in
a process of its own. Results: experiments/LOG.md.

W1 SASRec, full softmax at every position, Beauty, length 50, 256 rows: one epoch of training.
W2 S3-Rec pretraining, AAP + MIP + MAP + SP, Beauty, every prefix, 100 rows: one epoch.
W3 BERT4Rec cloze, mask 0.2, Beauty, 256 rows: one epoch.
W4 SASRec, full softmax, ML-1M, length 200, 128 rows: one epoch.
W5 SASRec, BCE with one negative, Beauty: one epoch.
W6 Rank every user's test item among all items of Beauty.
W7 Peak resident memory of W1.
W8 Full softmax over a catalogue of 1,000,000 items, 4,096 targets: one step, forward and backward.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from baselines.bert4rec import cloze
from baselines.s3rec import ENCODER, fine_tuning, pretraining, published_objectives
from baselines.sasrec import bce, full_softmax
from research.data.loader import BatchConfig, Loader
from research.evaluation.candidates import AllItems
from research.model.softmax import softmax_loss
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.run import RunConfig
from research.training.optim import build_optimizer
from research.workbench import Workbench, ranking_objective

BEAUTY = Path("data/corpora/Beauty")
ML_1M = Path("data/corpora/ml-1m-sas")
REFERENCE_GFLOPS = 325.0
WARM_STEPS = 5


def gflops() -> float:
    """Best of six fp32 products of 2048 x 2048 matrices, in GFLOP/s."""
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best / 1e9


def epoch_seconds(config: RunConfig) -> float:
    """Seconds of one epoch of the first stage, without validation, after a few warm steps."""
    bench = Workbench.of(config, "data")
    stage = config.stages[0]
    shared = bench.shared()
    pretrainer = bench.pretrainer(stage, shared).train()
    length = config.encoder.length
    windows = stage.windows.windows(bench.split.training, length)
    loader = Loader(bench.corpus, windows, stage.batches, length=length, seed=config.seed)
    optimizer = build_optimizer(stage.optimizer, pretrainer)
    started = 0.0
    for epoch in (0, 1):
        for number, batch in enumerate(loader.batches(epoch)):
            if epoch == 0 and number == WARM_STEPS:
                break
            losses = pretrainer.losses(batch)
            total = torch.stack([part.total / part.count.clamp(min=1) for part in losses.values()])
            total.sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if epoch == 0:
            started = time.perf_counter()
    return time.perf_counter() - started


def ranking_seconds(config: RunConfig) -> float:
    """Seconds to rank all test items with a model of the config's shape; best of three."""
    bench = Workbench.of(config, "data")
    shared = bench.shared()
    pretrainer = bench.pretrainer(config.stages[0], shared)
    objective = ranking_objective(config.stages[0], pretrainer)
    assert objective is not None
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        bench.tables(TrainedRanker(shared.encoder, objective), "test", [AllItems()])
        best = min(best, time.perf_counter() - started)
    return best


def large_softmax_seconds() -> float:
    """One step of W8; also prints the memory above weights and gradients."""
    table = (torch.randn(1_000_000, 64) * 0.02).requires_grad_()
    hidden = torch.randn(4096, 64, requires_grad=True)
    targets = torch.randint(0, 1_000_000, (4096,))
    softmax_loss(hidden[:64], table, None, targets[:64]).backward()
    before = peak_megabytes()
    started = time.perf_counter()
    softmax_loss(hidden, table, None, targets).backward()
    seconds = time.perf_counter() - started
    # Weights, gradient and Adam's two moments would be four tables.
    print(f"W8: {peak_megabytes() - before:.0f} MB above a step of 64 targets", flush=True)
    return seconds


def peak_megabytes() -> float:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sasrec() -> RunConfig:
    """W1's model on Beauty."""
    return replace(full_softmax(), corpus=str(BEAUTY))


def bert4rec() -> RunConfig:
    """W3's model on Beauty."""
    config = cloze()
    objectives = {"cloze": ClozeConfig(corruption=MaskItems(rate=0.2))}
    return replace(
        config, corpus=str(BEAUTY), stages=(replace(config.stages[0], objectives=objectives),)
    )


def long_sasrec() -> RunConfig:
    """W4's model on ML-1M."""
    config = full_softmax()
    stage = replace(config.stages[0], batches=BatchConfig(sequences_per_batch=128))
    return replace(
        config, corpus=str(ML_1M), encoder=replace(config.encoder, length=200), stages=(stage,)
    )


def s3rec_pretraining(objectives: dict[str, ObjectiveConfig]) -> RunConfig:
    """W2's model on Beauty."""
    stages = (pretraining(objectives, 1), fine_tuning(NextItemConfig()))
    return RunConfig(corpus=str(BEAUTY), encoder=ENCODER, stages=stages)


WORKLOADS: dict[str, tuple[Path | None, Callable[[], float]]] = {
    "W1": (BEAUTY, lambda: epoch_seconds(sasrec())),
    "W2": (BEAUTY, lambda: epoch_seconds(s3rec_pretraining(published_objectives()))),
    "W3": (BEAUTY, lambda: epoch_seconds(bert4rec())),
    "W4": (ML_1M, lambda: epoch_seconds(long_sasrec())),
    "W5": (BEAUTY, lambda: epoch_seconds(replace(bce(), corpus=str(BEAUTY)))),
    "W6": (BEAUTY, lambda: ranking_seconds(sasrec())),
    "W8": (None, large_softmax_seconds),
}


def measure(name: str) -> None:
    """Run one workload in this process and print its line."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    rate = gflops()
    seconds = WORKLOADS[name][1]()
    scaled = seconds * rate / REFERENCE_GFLOPS
    print(
        f"{name}: {seconds:7.2f} s   scaled {scaled:6.2f} s   ({rate:.0f} GFLOP/s)   "
        f"peak {peak_megabytes():,.0f} MB",
        flush=True,
    )


def main(names: list[str]) -> int:
    """Each workload in a process of its own; W7 is the peak in W1's line."""
    if len(names) == 2 and names[0] == "--here":
        measure(names[1])
        return 0
    wanted = ["W1" if name == "W7" else name for name in names] or list(WORKLOADS)
    unknown = [name for name in wanted if name not in WORKLOADS]
    if unknown:
        print(f"no workload {unknown[0]}; known: {', '.join(WORKLOADS)}, W7", file=sys.stderr)
        return 2
    failed = 0
    for name in wanted:
        corpus = WORKLOADS[name][0]
        if corpus is not None and not (corpus / "manifest.json").is_file():
            print(f"{name}: left out, {corpus} is absent (see this file's docstring)")
            continue
        command = [sys.executable, "-m", "experiments.benchmark", "--here", name]
        failed |= subprocess.run(command, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How fast is the packed core, and how much memory does it take?

Command: python -m experiments.benchmark [W1 W3 ...]
         python -m experiments.benchmark --against CHECKOUT [--pairs 5] [--steps 300] [W1 W3 ...]
Corpora: data/corpora/Beauty and data/corpora/ml-1m-sas, made as experiments/beauty.py and
         experiments/ml_1m.py say; a workload whose corpus is absent says so and is left out.
Hardware: any; two threads. Seconds are also given scaled to a machine of 325 GFLOP/s in fp32
matrix products (two cores with AVX-512), by this machine's own measured rate. Each workload runs in
a process of its own. Results: experiments/LOG.md.

`--against` runs another checkout of the project and this one in turn, with one thread, and prints
the ratios of their CPU times (which other work on the machine disturbs least). Beside them it
prints the ratios of neighbouring runs of the other checkout: what chance alone does.

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

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import median

import torch

from baselines.bert4rec import cloze
from baselines.s3rec import ENCODER, fine_tuning, pretraining, published_objectives
from baselines.sasrec import bce, full_softmax
from research.data.batch import Batch
from research.data.loader import BatchConfig
from research.evaluation.candidates import AllItems
from research.model.kernels.cross_entropy import softmax_loss
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig
from research.runs.parts import RunParts, ranking_objective
from research.training.optimizer import build_optimizer

BEAUTY = Path("data/corpora/Beauty")
ML_1M = Path("data/corpora/ml-1m-sas")
REFERENCE_GFLOPS = 325.0
WARM_STEPS = 5


def gflops() -> float:
    """Best of six fp32 products of 2048 x 2048 matrices, in GFLOP/s."""
    first, second = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        first @ second
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best / 1e9


@dataclass(frozen=True)
class Duration:
    """The time that a workload took."""

    seconds: float
    """Wall time."""
    cpu: float
    """CPU seconds of this process, summed over its threads."""


class Clock:
    """Measures time from its creation on."""

    def __init__(self) -> None:
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Duration:
        """The time since the clock was created."""
        return Duration(time.perf_counter() - self.started, time.process_time() - self.cpu)


def epoch(config: RunConfig, steps: int | None) -> Duration:
    """Time one epoch of a run's first stage, or its first `steps`, without validation.

    `WARM_STEPS` steps of another epoch are done before the clock starts.
    """
    run_parts = RunParts.of(config, "data")
    stage = config.stages[0]
    shared = run_parts.components()
    model = run_parts.model(stage, shared).train()
    loader = run_parts.loader(stage, 0, 1)
    optimizer = build_optimizer(stage.optimizer, model)

    def train(batches: Iterable[Batch]) -> None:
        for batch in batches:
            losses = model.losses(batch)
            means = [part.total / part.count.clamp(min=1) for part in losses.values()]
            torch.stack(means).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    train(islice(loader.batches(0), WARM_STEPS))
    clock = Clock()
    train(islice(loader.batches(1), steps))
    return clock.spent()


def ranking(config: RunConfig) -> Duration:
    """Time ranking all test items with an untrained model of the config; the best of three."""
    run_parts = RunParts.of(config, "data")
    shared = run_parts.components()
    model = run_parts.model(config.stages[0], shared)
    objective = ranking_objective(config.stages[0], model)
    assert objective is not None
    best: list[Duration] = []
    for _ in range(3):
        clock = Clock()
        run_parts.tables(TrainedRanker(shared.encoder, objective), "test", [AllItems()])
        best.append(clock.spent())
    return min(best, key=lambda spent: spent.cpu)


def large_softmax() -> Duration:
    """Time the step of W8; also prints its peak memory above that of a step with 64 targets."""
    table = (torch.randn(1_000_000, 64) * 0.02).requires_grad_()
    hidden = torch.randn(4096, 64, requires_grad=True)
    targets = torch.randint(0, 1_000_000, (4096,))
    softmax_loss(hidden[:64], table, None, targets[:64]).backward()
    before = peak_megabytes()
    clock = Clock()
    softmax_loss(hidden, table, None, targets).backward()
    spent = clock.spent()
    # To compare with: weights, gradient and Adam's two moments would be four tables.
    print(f"W8: {peak_megabytes() - before:.0f} MB above a step of 64 targets", flush=True)
    return spent


def peak_megabytes() -> float:
    """Peak resident memory of this process, in MiB."""
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


WORKLOADS: dict[str, tuple[Path | None, Callable[[int | None], Duration]]] = {
    "W1": (BEAUTY, lambda steps: epoch(sasrec(), steps)),
    "W2": (BEAUTY, lambda steps: epoch(s3rec_pretraining(published_objectives()), steps)),
    "W3": (BEAUTY, lambda steps: epoch(bert4rec(), steps)),
    "W4": (ML_1M, lambda steps: epoch(long_sasrec(), steps)),
    "W5": (BEAUTY, lambda steps: epoch(replace(bce(), corpus=str(BEAUTY)), steps)),
    "W6": (BEAUTY, lambda steps: ranking(sasrec())),
    "W8": (None, lambda steps: large_softmax()),
}


def measure(name: str, threads: int, steps: int | None) -> None:
    """Run one workload in this process, and print its time and memory as a line."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rate = gflops()
    spent = WORKLOADS[name][1](steps)
    scaled = spent.seconds * rate / REFERENCE_GFLOPS
    print(
        f"{name}: {spent.seconds:7.2f} s   scaled {scaled:6.2f} s   ({rate:.0f} GFLOP/s)   "
        f"peak {peak_megabytes():,.0f} MB   CPU {spent.cpu:.3f} s",
        flush=True,
    )


def cpu_seconds(checkout: Path, name: str, steps: int | None) -> float:
    """CPU seconds of a workload with one thread, measured by the benchmark of a checkout."""
    command = [sys.executable, "-m", "experiments.benchmark", "--here", name, "--threads", "1"]
    command += [] if steps is None else ["--steps", str(steps)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(result.stdout.rsplit("CPU ", 1)[1].split()[0])


def compare_with(other: Path, name: str, pairs: int, steps: int | None) -> None:
    """Run a workload in another checkout and in this one in turn, and print CPU time ratios."""
    other_times, own_times = [], []
    for _ in range(pairs):
        other_times.append(cpu_seconds(other, name, steps))
        own_times.append(cpu_seconds(Path.cwd(), name, steps))
    ratios = sorted(own / other_time for own, other_time in zip(own_times, other_times))
    chance = sorted(second / first for first, second in pairwise(other_times))
    chance_text = f", other / other {chance[0]:.3f} to {chance[-1]:.3f}" if chance else ""
    print(
        f"{name}: CPU {median(other_times):.3f} s in the other checkout, {median(own_times):.3f} s "
        f"in this one; ratio this / other median {median(ratios):.3f} ({ratios[0]:.3f} to "
        f"{ratios[-1]:.3f}){chance_text}",
        flush=True,
    )


def main(arguments: list[str]) -> int:
    """Run each workload in a process of its own; W7 is the peak in W1's line.

    Returns exit code 0, or another one when a workload failed or is unknown.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmark")
    parser.add_argument("names", nargs="*", metavar="W1", help="workloads; none: all")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare CPU times with")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs, one in each checkout")
    parser.add_argument("--steps", type=int, help="steps of training instead of an epoch")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--here", metavar="W1", help="one workload in this process")
    options = parser.parse_args(arguments)
    if options.here is not None:
        measure(options.here, options.threads, options.steps)
        return 0
    chosen = ["W1" if name == "W7" else name for name in options.names] or list(WORKLOADS)
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        print(f"no workload {unknown[0]}; known: {', '.join(WORKLOADS)}, W7", file=sys.stderr)
        return 2
    failed = 0
    for name in chosen:
        corpus = WORKLOADS[name][0]
        if corpus is not None and not (corpus / "manifest.json").is_file():
            print(f"{name}: left out, {corpus} is absent (see this file's docstring)")
        elif options.against is not None:
            compare_with(options.against.resolve(), name, options.pairs, options.steps)
        else:
            command = [sys.executable, "-m", "experiments.benchmark", "--here", name]
            command += ["--threads", str(options.threads)]
            command += [] if options.steps is None else ["--steps", str(options.steps)]
            failed |= subprocess.run(command, check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

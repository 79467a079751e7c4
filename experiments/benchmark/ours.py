"""Our side of the benchmark: one work in this process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from experiments.benchmark.measure import (
    WARM_STEPS,
    Clock,
    best_of_three,
    gflop_of,
    peak_megabytes,
    synchronize,
)
from experiments.benchmark.results import OURS, Fact, Measured
from experiments.benchmark.works import WORKS, encoder_of, loss_of, mask_rate_of
from research.data.batch import Batch
from research.data.loader import Loader
from research.distributed.accelerator import accelerator_for
from research.evaluation.candidates import AllItems
from research.model.kernels.cross_entropy import softmax_loss
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig
from research.runs.parts import RunParts, ranking_objective
from research.training.allocator import HeapTrimmer
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import build_optimizer
from research.training.touched_rows import coalesced_gradients

# Steps in which operations are counted, after the clock has stopped.
COUNTED_STEPS = 3


def run(name: str, corpora: Path, steps: int | None, device: str, counts: bool) -> Measured:
    """Do a work in this process and measure it; `corpora` has its corpus, by name.

    `steps` times so many steps of training; None: all of an epoch. With `counts` the result has
    operations and facts, which take a few seconds more, after the clock has stopped.
    """
    work = WORKS[name]
    if work.config is None:
        return large_softmax(name, device, counts)
    config = replace(work.config(), corpus=str(corpora / str(work.corpus)))
    parts = RunParts.of(config, "data")
    accelerator_for(None, config.compute, device)
    if work.ranks:
        return ranking(name, config, parts, device, counts)
    return epoch(name, config, parts, steps, device, counts)


def epoch(
    name: str, config: RunConfig, parts: RunParts, steps: int | None, device: str, counts: bool
) -> Measured:
    """Time one epoch of a run's first stage without validation, scaled by rows from `steps`.

    `WARM_STEPS` steps of another epoch are done before the clock starts.
    """
    stage = config.stages[0]
    place = torch.device(device)
    model = parts.model(stage, parts.components()).to(place).train()
    loader = parts.loader(stage, 0, 1)
    optimizer = build_optimizer(stage.optimizer, model)
    heap = HeapTrimmer()

    def train(batches: Iterable[Batch]) -> tuple[int, int]:
        rows = number = 0
        for batch in batches:
            take_step(model, optimizer, batch, place)
            heap.after_step()
            rows, number = rows + len(batch.rows_S), number + 1
        return rows, number

    train(islice(loader.batches(0), WARM_STEPS))
    clock = Clock(device)
    rows, number = train(islice(loader.batches(1), steps))
    spent, peak = clock.spent(), peak_megabytes(device)
    size = stage.batches.sequences_per_batch
    assert size is not None, "works count rows"
    facts, gflop = {}, 0.0
    if counts:
        facts = training_facts(config, parts, model, loader)
        counted = list(islice(loader.batches(2), COUNTED_STEPS))
        gflop = gflop_of(lambda: train(counted))
        gflop *= loader.num_rows / sum(len(batch.rows_S) for batch in counted)
    return Measured(
        work=name,
        side=OURS,
        seconds=spent.seconds * loader.num_rows / rows,
        cpu=spent.cpu * loader.num_rows / rows,
        steps=number,
        steps_in_epoch=-(-loader.num_rows // size),
        timed_share=rows / loader.num_rows,
        peak_megabytes=peak,
        gflop=gflop,
        facts=facts,
    )


def take_step(
    model: MultiObjectiveModel, optimizer: torch.optim.Optimizer, batch: Batch, place: torch.device
) -> None:
    """One update of the sum of the objectives' mean losses, by a model that is at `place`."""
    # As the training loop does: drawn where the batch is, and moved by one copy.
    losses = model(model.prepare(batch).to(place))
    means = [part.total / part.count.clamp(min=1) for part in losses.values()]
    torch.stack(means).sum().backward()
    # Adam that moves touched rows needs each of them once.
    coalesced_gradients(model.parameters())
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def size_facts(config: RunConfig, parts: RunParts) -> dict[str, Fact]:
    """The facts of a run's encoder and catalogue."""
    encoder = encoder_of(config)
    dropouts = encoder.dropouts
    return {
        "items": parts.corpus.num_items,
        "length": encoder.length,
        "width": encoder.width,
        "layers": encoder.layers,
        "heads": encoder.heads,
        "feed-forward": encoder.feed_forward,
        "dropout": dropouts.hidden,
        "attention dropout": dropouts.attention,
    }


def training_facts(
    config: RunConfig, parts: RunParts, model: MultiObjectiveModel, loader: Loader
) -> dict[str, Fact]:
    """The facts of an epoch; rows and targets are counted in its batches."""
    stage, rows, targets = config.stages[0], 0, 0
    # The four losses of pretraining sum different things, whose number says nothing.
    has_targets = len(stage.objectives) == 1
    for batch in loader.batches(1):
        rows += len(batch.rows_S)
        if has_targets:
            inputs = model.prepare(batch)
            targets += sum(int(inputs.counts(key)[0]) for key in inputs.targets)
    facts: dict[str, Fact] = {"rows": rows}
    if has_targets:
        facts["targets"] = targets
    facts |= {
        **size_facts(config, parts),
        "rows a step": stage.batches.sequences_per_batch or 0,
        "loss": loss_of(config),
        "learning rate": stage.optimizer.lr,
    }
    if mask_rate_of(config):
        facts["mask rate"] = mask_rate_of(config)
    return facts


def ranking(name: str, config: RunConfig, parts: RunParts, device: str, counts: bool) -> Measured:
    """Time ranking all test items with an untrained model of the config; the best of three."""
    shared = parts.components()
    model = parts.model(config.stages[0], shared).to(torch.device(device))
    objective = ranking_objective(config.stages[0], model)
    assert objective is not None
    ranker = TrainedRanker(shared.encoder, objective)

    def rank() -> None:
        parts.tables(ranker, "test", [AllItems()])

    best, peak = best_of_three(rank, device), peak_megabytes(device)
    facts: dict[str, Fact] = {
        "questions": len(parts.split.test),
        **size_facts(config, parts),
        "seen items": config.evaluation.seen,
        "answer": "the test item's rank",
    }
    return Measured(
        work=name,
        side=OURS,
        seconds=best.seconds,
        cpu=best.cpu,
        peak_megabytes=peak,
        gflop=gflop_of(rank) if counts else 0.0,
        facts=facts,
    )


def large_softmax(name: str, device: str, counts: bool) -> Measured:
    """Time the step of W8; also prints its peak memory above that of a step with 64 targets."""
    table = (torch.randn(1_000_000, 64, device=device) * 0.02).requires_grad_()
    hidden = torch.randn(4096, 64, device=device, requires_grad=True)
    targets = torch.randint(0, 1_000_000, (4096,), device=device)
    softmax_loss(hidden[:64], table, None, targets[:64]).backward()
    synchronize(device)
    before = peak_megabytes(device)

    def step() -> None:
        softmax_loss(hidden, table, None, targets).backward()

    clock = Clock(device)
    step()
    spent, peak = clock.spent(), peak_megabytes(device)
    # To compare with: weights, gradient and Adam's two moments would be four tables.
    print(f"W8: {peak - before:.0f} MB above a step of 64 targets", flush=True)
    return Measured(
        work=name,
        side=OURS,
        seconds=spent.seconds,
        cpu=spent.cpu,
        peak_megabytes=peak,
        # On a CPU four products: scores twice, and the gradients of states and of the table.
        gflop=gflop_of(step) if counts else 0.0,
        facts={
            "items": 1_000_000,
            "targets": 4096,
            "width": 64,
            "MB above a step of 64 targets": round(peak - before),
        },
    )

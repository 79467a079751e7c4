"""Counts the operations, host reads and copies of a training step, on the pretended accelerator.

Run: python -m tests.support.accelerator_counts [WORKLOAD ...]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

import baselines.bert4rec
import baselines.esasrec
import baselines.gru4rec
import baselines.hstu
import baselines.s3rec
import baselines.sasrec
from research.data.batch import Batch
from research.runs.config import RunConfig
from research.runs.parts import RunParts, StageParts, stage_parts
from research.storage.run_folder import RunFolder
from research.training.loop import train
from research.training.stage_run import StageRun
from tests.support.pretend_accelerator import Tally, device, pretended
from tests.support.synthetic import markov_histories, write_histories

NUM_ITEMS, NUM_ATTRIBUTES = 400, 12
# The first step also fills caches, and the last one also logs, so neither is counted.
NUM_STEPS = 4


def in_micro_batches(config: RunConfig, number: int) -> RunConfig:
    """Return the config with the batches of its first stage cut into `number` micro-batches."""
    stage = config.stages[0]
    stage = replace(stage, batches=replace(stage.batches, micro_batches=number))
    return replace(config, stages=(stage, *config.stages[1:]))


WORKLOADS: dict[str, Callable[[], RunConfig]] = {
    "W1 SASRec": baselines.sasrec.full_softmax,
    "W2 S3-Rec pretraining": baselines.s3rec.published,
    "W3 BERT4Rec": baselines.bert4rec.cloze,
    "W5 SASRec, BCE": baselines.sasrec.bce,
    "gSASRec": baselines.sasrec.gsasrec,
    "eSASRec": baselines.esasrec.ml_1m,
    "HSTU with times": baselines.hstu.original,
    "GRU4Rec": baselines.gru4rec.full_softmax,
    "six objectives": baselines.s3rec.joint,
    "six objectives, two micro-batches": lambda: in_micro_batches(baselines.s3rec.joint(), 2),
}
RANKING = "ranking a test set"


class PretendAccelerator(Accelerator):
    """An accelerator of one process on the pretended device."""

    @property
    def device(self) -> torch.device:
        return device()


def parts_of(config: RunConfig, folder: Path) -> tuple[RunParts, StageParts]:
    """Build a config's first stage on a small corpus, which is written to `folder`.

    The corpus has 96 users with up to 14 items each, and items with up to three attributes. A batch
    has 16 rows. The encoder reads 6 items, fewer than some rows have.
    """
    histories = markov_histories(num_users=96, num_items=NUM_ITEMS, length=14, seed=5)
    write_histories(
        folder,
        histories,
        num_items=NUM_ITEMS,
        attributes=[
            sorted({item * factor % NUM_ATTRIBUTES for factor in range(item % 4)})
            for item in range(NUM_ITEMS)
        ],
        num_attributes=NUM_ATTRIBUTES,
    )
    stage = config.stages[0]
    batches = replace(stage.batches, sequences_per_batch=16)
    stage = replace(stage, batches=batches, steps=NUM_STEPS, log_every=NUM_STEPS, validation=None)
    config = replace(
        config,
        corpus=str(folder),
        encoder=replace(config.encoder, length=6),
        stages=(stage, *config.stages[1:]),
    )
    run_parts = RunParts.of(config, str(folder))
    return run_parts, stage_parts(run_parts, Accelerator(cpu=True))[0]


def train_stage(parts: StageParts, accelerator: Accelerator, folder: Path) -> RunFolder:
    """Train a stage to its end in `folder`, and return its run folder."""
    run = RunFolder(folder)
    surroundings = StageRun(accelerator=accelerator, folder=run, seed=0, quiet=True)
    train(parts.model, parts.loader, parts.config, surroundings)
    return run


def tallies_of_steps(config: RunConfig, folder: Path) -> list[Tally]:
    """Train, and return a tally for each step, from one batch that the loop takes to the next."""
    with pretended() as tally:
        _, parts = parts_of(config, folder / "corpus")
        parts.model.to(device())
        steps: list[Tally] = []
        batches = parts.loader.batches

        def marked(*given: Any) -> Iterator[Batch]:
            for batch in batches(*given):
                steps.append(tally.taken())
                yield batch

        parts.loader.batches = marked  # type: ignore[method-assign]
        train_stage(parts, PretendAccelerator(cpu=True), folder / "run")
    # The first two tallies are of what comes before the first step, and of that step.
    return steps[2:]


def tally_of_ranking(folder: Path) -> Tally:
    """Rank a test set twice, in one chunk, and return the tally of the second time."""
    with pretended() as tally:
        run_parts, parts = parts_of(baselines.sasrec.full_softmax(), folder / "corpus")
        parts.model.to(device())
        assert parts.ranker is not None
        run_parts.tables(parts.ranker, "test")
        tally.taken()
        run_parts.tables(parts.ranker, "test")
        return tally.taken()


def tallies_of(workload: str) -> list[Tally]:
    """Return the tallies of a workload's steps, or the single one of the ranking."""
    with tempfile.TemporaryDirectory() as folder:
        if workload == RANKING:
            return [tally_of_ranking(Path(folder))]
        return tallies_of_steps(WORKLOADS[workload](), Path(folder))


def maxima(steps: Sequence[Tally]) -> tuple[int, int, int]:
    """Return the maxima over steps.

    These are of operations, of reads and blocking copies together, and of unpinned copies.
    """
    return (
        max(step.operations.total() for step in steps),
        max(step.reads.total() for step in steps),
        max(step.unpinned.total() for step in steps),
    )


def main(workloads: Sequence[str]) -> None:
    """Print a table of the counts of a step, and the lines of code where the host waits."""
    counted = {name: tallies_of(name) for name in workloads or [*WORKLOADS, RANKING]}
    print("| a step of | operations | reads, blocking copies | unpinned copies |")
    print("|---|---|---|---|")
    for name, steps in counted.items():
        print("|", " | ".join([name, *map(str, maxima(steps))]), "|")
    for name, steps in counted.items():
        print(f"\n{name}, sums over {len(steps)}:")
        reads: Counter[str] = sum((step.reads for step in steps), Counter())
        for where, number in reads.most_common():
            print(f"{number:5} {where}")


if __name__ == "__main__":
    main(sys.argv[1:])

"""What a step of each work asks of an accelerator, counted on the pretended one.

Run: python -m tests.support.accelerator_counts [WORK ...]
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
# The first step makes what all others find, and the last one logs: neither counts.
NUM_STEPS = 4


def in_micro_batches(config: RunConfig, number: int) -> RunConfig:
    """The config with its first stage's batches cut into so many micro-batches."""
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
    """Accelerate's view of one process with the made-up device."""

    @property
    def device(self) -> torch.device:
        return device()


def parts_of(config: RunConfig, folder: Path) -> tuple[RunParts, StageParts]:
    """A config's first stage over a small corpus in `folder`, 16 rows a batch.

    96 users have 3 to 14 of the items, and an item none to three attributes. The encoder reads 6
    items, fewer than some rows hold.
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
    """The run folder after the training loop has run a stage to its end."""
    run = RunFolder(folder)
    surroundings = StageRun(accelerator=accelerator, folder=run, seed=0, quiet=True)
    train(parts.model, parts.loader, parts.config, surroundings)
    return run


def tallies_of_steps(config: RunConfig, folder: Path) -> list[Tally]:
    """A tally a step of the training loop, from one batch taken to the next."""
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
    # Before the first batch stands what comes before any step.
    return steps[2:]


def tally_of_ranking(folder: Path) -> Tally:
    """The tally of ranking a test set, small enough for one chunk, for the second time."""
    with pretended() as tally:
        run_parts, parts = parts_of(baselines.sasrec.full_softmax(), folder / "corpus")
        parts.model.to(device())
        assert parts.ranker is not None
        run_parts.tables(parts.ranker, "test")
        tally.taken()
        run_parts.tables(parts.ranker, "test")
        return tally.taken()


def tallies_of(work: str) -> list[Tally]:
    """The tallies of a work's steps, or of the ranking alone."""
    with tempfile.TemporaryDirectory() as folder:
        if work == RANKING:
            return [tally_of_ranking(Path(folder))]
        return tallies_of_steps(WORKLOADS[work](), Path(folder))


def maxima(steps: Sequence[Tally]) -> tuple[int, int, int]:
    """Most operations, most reads and blocking copies, and most unpinned copies of any step."""
    return (
        max(step.operations.total() for step in steps),
        max(step.reads.total() for step in steps),
        max(step.unpinned.total() for step in steps),
    )


def main(works: Sequence[str]) -> None:
    """Print a table of what a step asks for, and the lines where the host waits."""
    counted = {work: tallies_of(work) for work in works or [*WORKLOADS, RANKING]}
    print("| a step of | operations | reads, blocking copies | unpinned copies |")
    print("|---|---|---|---|")
    for work, steps in counted.items():
        print("|", " | ".join([work, *map(str, maxima(steps))]), "|")
    for work, steps in counted.items():
        print(f"\n{work}, sums over {len(steps)}:")
        reads: Counter[str] = sum((step.reads for step in steps), Counter())
        for where, number in reads.most_common():
            print(f"{number:5} {where}")


if __name__ == "__main__":
    main(sys.argv[1:])

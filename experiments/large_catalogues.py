"""How long do a step with a sampled loss and a draw of candidates take as the catalogue grows?

SASRec of `baselines.sasrec.bce` trains on histories of ten items, made for it, with 12,101 items
(Beauty's number) to 1,000,000: under one negative and under 256, moving all rows of the item table
(`item_rows="all"`) or those that a step touches. Then 100 candidates are sampled for each of 5,000
users, uniformly and by a popularity that falls as 1 / place. Seconds are CPU seconds of one thread,
the least of three rounds, which work beside it changes little.

Command: python -m experiments.large_catalogues [--items N ...]
Hardware: any CPU with 4 GB; two minutes. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from baselines.sasrec import bce
from experiments.benchmark.ours import take_step
from experiments.memory import made_corpus
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.splits import LeaveOneOut
from research.evaluation.sampled_candidates import sample_candidates
from research.objectives.losses import BinaryCrossEntropy, ItemLossConfig, SampledSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.parts import RunParts
from research.training.optimizer import build_optimizer

ROWS, LENGTH = 256, 10
STEPS, WARM_STEPS, ROUNDS = 5, 2, 3
CANDIDATES, USERS = 100, 5_000
LOSSES: dict[str, ItemLossConfig] = {
    "1 negative": BinaryCrossEntropy(),
    "256 negatives": SampledSoftmax(),
}
CPU = torch.device("cpu")


def least_seconds(work: Callable[[], object]) -> float:
    """The least CPU seconds that this process spends on `work`, of `ROUNDS` times."""
    spent = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def step_seconds(
    corpus: Corpus, loss: ItemLossConfig, item_rows: Literal["all", "touched"]
) -> float:
    """CPU seconds of a step of SASRec on the corpus."""
    config = bce()
    stage = config.stages[0]
    stage = replace(
        stage,
        objectives={"next": NextItemConfig(loss=loss)},
        optimizer=replace(stage.optimizer, item_rows=item_rows),
        batches=BatchConfig(sequences_per_batch=ROWS),
    )
    config = replace(config, corpus=str(corpus.folder), stages=(stage,))
    parts = RunParts.of(config, str(corpus.folder.parent))
    model = parts.model(stage, parts.components()).train()
    adam = build_optimizer(stage.optimizer, model)
    batches = list(islice(parts.loader(stage, 0, 1).batches(0), WARM_STEPS + STEPS))

    def train(first: int, stop: int) -> None:
        for batch in batches[first:stop]:
            take_step(model, adam, batch, CPU)

    # Adam's moments are made in the first step.
    train(0, WARM_STEPS)
    return least_seconds(lambda: train(WARM_STEPS, WARM_STEPS + STEPS)) / STEPS


def draw_seconds(corpus: Corpus, distribution: Literal["uniform", "popularity"]) -> float:
    """CPU seconds of drawing a user's candidates."""
    held_out = LeaveOneOut().split(corpus).test
    # As many events as ten each, in proportion to 1 / (place + 10), and at least one.
    shares = 1 / (np.arange(corpus.num_items) + 10.0)
    counts = 10 * corpus.num_items * shares / shares.sum()
    counts_V = torch.from_numpy(np.maximum(counts, 1).astype(np.int64))

    def draw() -> None:
        sample_candidates(corpus, held_out, distribution, CANDIDATES, counts_V, 0)

    return least_seconds(draw) / len(held_out)


def main(words: Sequence[str] | None = None) -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=[12_101, 100_000, 1_000_000])
    numbers = parser.parse_args(words).items
    torch.set_num_threads(1)
    lines = [f"| | {' | '.join(f'{number:,} items' for number in numbers)} |"]
    lines.append("|---" * (1 + len(numbers)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        made = [
            made_corpus(
                number, max(USERS, -(-number // LENGTH)), LENGTH, Path(folder) / f"{number}"
            )
            for number in numbers
        ]
        for name, loss in LOSSES.items():
            for rows in ("all", "touched"):
                spent = [f"{step_seconds(corpus, loss, rows) * 1e3:.1f}" for corpus in made]
                lines.append(f"| a step, {name}, {rows} rows, ms | {' | '.join(spent)} |")
        for distribution in ("uniform", "popularity"):
            spent = [f"{draw_seconds(corpus, distribution) * 1e6:.0f}" for corpus in made]
            name = f"{CANDIDATES} candidates of a user, {distribution}, µs"
            lines.append(f"| {name} | {' | '.join(spent)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

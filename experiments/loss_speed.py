"""How long do a loss over items and its gradients take beside the full softmax, and what memory?

For catalogues from 3,416 items (MovieLens-1M's) to 1,000,000, each loss of `experiments.losses`,
and two over cosines, are computed from random states of 64 rows of 51 items at width 64, on a
corpus made for it: integer targets, loss, and gradients of states and item table. Milliseconds are
CPU time of one thread, the least of five rounds; megabytes are the most that tensors take at once
beyond states, table and its gradient.

Command: python -m experiments.loss_speed [--items N ...] [--losses NAME ...] 2> /dev/null
             (torch's profiler writes to the standard error)
Hardware: any CPU with 4 GB; some minutes. Other work on the machine spoils the times.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from experiments.losses import COSINE, LOSSES
from experiments.memory import made_corpus
from research.data.batch import Batch, pack
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.splits import LeaveOneOut
from research.data.windows import LastItems
from research.model.transformer_config import TransformerConfig
from research.objectives.components import ModelComponents
from research.objectives.losses import BinaryCrossEntropy
from research.objectives.next_item import NextItemConfig

ROWS, LENGTH, WIDTH, ROUNDS = 64, 50, 64, 5
OBJECTIVES: Mapping[str, NextItemConfig] = {
    "softmax": NextItemConfig(),
    "softmax-cosine": NextItemConfig(head=COSINE),
    "bce-16-cosine": NextItemConfig(loss=BinaryCrossEntropy(number=16), head=COSINE),
    **{name: NextItemConfig(loss=loss) for name, loss in LOSSES.items()},
}


class Work:
    """One objective on the same rows of a corpus."""

    def __init__(self, corpus: Corpus, config: NextItemConfig) -> None:
        split = LeaveOneOut().split(corpus)
        self.catalogue = Catalogue.of(corpus, split)
        shared = ModelComponents(
            TransformerConfig(length=LENGTH, width=WIDTH, heads=1), self.catalogue, 0
        )
        self.items = shared.encoder.item_table
        self.objective = config.build(shared, 0)
        rows = torch.arange(ROWS)
        ranges = LastItems().windows(split.training, LENGTH).ranges(rows.numpy())
        users_S = torch.from_numpy(ranges.users)
        self.batch = Batch(pack(corpus, ranges), rows, users_S, rows * 1_000_003, LENGTH)
        self.view = self.objective.corruption.view(self.batch, self.catalogue)
        draws = torch.Generator().manual_seed(0)
        self.states_PD = torch.randn(len(self.view.picked_P), WIDTH, generator=draws)
        self.states_PD.requires_grad_()

    def compute(self) -> None:
        """Targets, loss and gradients, once."""
        batch = self.batch
        if self.objective.couples_rows == "items":
            offered = self.objective.offered_items(self.view, batch)
            batch = replace(batch, offered_items=offered)
        targets = self.objective.targets(self.view, batch, self.catalogue)
        self.objective.loss(targets, self.states_PD, self.items).backward()
        self.states_PD.grad = None
        self.items.zero_grad()

    def milliseconds(self) -> float:
        """The least CPU time of `ROUNDS` computations, after one that is not counted."""
        self.compute()
        spent = []
        for _ in range(ROUNDS):
            started = time.process_time()
            self.compute()
            spent.append(time.process_time() - started)
        return 1e3 * min(spent)

    def megabytes(self) -> float:
        """The most that tensors take at once, without states, table and the table's gradient."""
        with torch.profiler.profile(profile_memory=True) as profile:
            self.compute()
        held = peak = 0
        for event in profile.profiler.kineto_results.events():
            if event.name() == "[memory]":
                held += event.nbytes()
                peak = max(peak, held)
        return (peak - 4 * self.items.rows().numel()) / 1e6


def main(words: Sequence[str] | None = None) -> None:
    """Print a table in Markdown, a loss a row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = [3_416, 12_101, 100_000, 1_000_000]
    parser.add_argument("--items", type=int, nargs="+", default=numbers)
    parser.add_argument("--losses", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    options = parser.parse_args(words)
    numbers = options.items
    torch.set_num_threads(1)
    print(f"| ms, MB | {' | '.join(f'{number:,} items' for number in numbers)} |")
    print("|---" * (1 + len(numbers)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        corpora = [
            made_corpus(number, max(ROWS, -(-number // 53)), 53, Path(folder) / f"{number}")
            for number in numbers
        ]
        for name in options.losses:
            works = (Work(corpus, OBJECTIVES[name]) for corpus in corpora)
            cells = [f"{work.milliseconds():,.1f}, {work.megabytes():,.0f}" for work in works]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

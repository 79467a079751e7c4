"""How long does a training step of each kind of block and of positions take, beside the standard?

Encoders of two layers of width 64 and length 50 encode the same 256 rows, with lengths like those
of Amazon Beauty's training rows (3 to 50 items, 6.9 on average) or all of 50, bidirectionally if
they can, with dropout 0.5; forward and backward of all states, without objectives and optimizer.
Milliseconds are CPU time of one thread, the median of the rounds, in which the kinds take turns;
`x` is the ratio to post-norm blocks with learned positions.

Command: python -m experiments.block_speed [--kinds NAME ...] [--rounds N]
Hardware: any CPU; a minute. Other work on the machine spoils the times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from statistics import median

import torch

from research.model.bsarec import BSARec
from research.model.fmlp import FMLP
from research.model.hstu import HSTU
from research.model.item_table import ItemTable
from research.model.ligr import LiGR
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.rotary_time import RotaryTime
from research.model.transformer_block import PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.packed import Packed

ROWS, ITEMS, DAY = 256, 12_101, 86_400
STANDARD = "post-norm"
KINDS: Mapping[str, TransformerConfig] = {
    STANDARD: TransformerConfig(),
    "pre-norm": TransformerConfig(block=PreNorm()),
    "query-norm": TransformerConfig(block=QueryNorm()),
    "LiGR": TransformerConfig(block=LiGR()),
    "HSTU": TransformerConfig(block=HSTU()),
    "HSTU with times": TransformerConfig(block=HSTU(times=True)),
    "BSARec": TransformerConfig(block=BSARec()),
    "FMLP": TransformerConfig(block=FMLP()),
    "rotary": TransformerConfig(positions=Rotary()),
    "rotary in time": TransformerConfig(positions=RotaryTime()),
    "relative": TransformerConfig(positions=RelativePositions()),
}


def rows_of(lengths: Sequence[int]) -> Packed:
    """Rows of these lengths, of items at random, with events some hours apart."""
    draws = torch.Generator().manual_seed(0)
    items = [torch.randint(ITEMS, (length,), generator=draws).tolist() for length in lengths]
    gaps = [torch.randint(DAY, (length,), generator=draws) for length in lengths]
    return Packed.from_lists(items, {"time": [gap.cumsum(0).tolist() for gap in gaps]})


def beauty_lengths() -> list[int]:
    """Lengths of 3 to 50 items, 6.9 on average: S3-Rec's file less two held-out items a user."""
    draws = torch.Generator().manual_seed(1)
    tail = torch.empty(ROWS).exponential_(1 / 3.9, generator=draws)
    lengths: list[int] = (3 + tail).round().long().clamp(max=50).tolist()
    return lengths


class Work:
    """One encoder, and the rows that it encodes."""

    def __init__(self, config: TransformerConfig, packed: Packed) -> None:
        table = ItemTable(ITEMS, config.width, init_std=config.init_std, seed=0)
        self.encoder = config.build(table, 0).train()
        self.packed = packed
        self.causal = "bidirectional" not in config.directions
        self.milliseconds: list[float] = []

    def compute(self) -> None:
        """States and gradients, once; the CPU time is noted."""
        started = time.process_time()
        # A new batch each time, as its layout is part of a step.
        packed = Packed.cat([self.packed.select(torch.arange(ROWS))])
        states_TD = self.encoder(packed, causal=self.causal)
        states_TD.square().sum().backward()
        self.milliseconds.append(1e3 * (time.process_time() - started))
        self.encoder.zero_grad(set_to_none=True)


def main(words: Sequence[str] | None = None) -> None:
    """Print a table in Markdown, a kind a row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    names = list(dict.fromkeys([STANDARD, *options.kinds]))
    batches = {"Beauty's lengths": rows_of(beauty_lengths()), "rows of 50": rows_of([50] * ROWS)}
    spent: dict[str, list[float]] = {name: [] for name in names}
    for packed in batches.values():
        works = {name: Work(KINDS[name], packed) for name in names}
        # The first round, which fills caches, is not counted.
        for _ in range(1 + options.rounds):
            for work in works.values():
                work.compute()
        for name, work in works.items():
            spent[name].append(median(work.milliseconds[1:]))
    print(f"| ms | {' | '.join(batches)} |")
    print("|---" * (1 + len(batches)) + "|")
    for name in names:
        cells = [
            f"{own:.1f} ({own / base:.2f} x)" for own, base in zip(spent[name], spent[STANDARD])
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

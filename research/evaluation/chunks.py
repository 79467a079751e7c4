"""How many questions are ranked at a time, and what happens when they do not fit into memory.

A chunk of questions is encoded together; its scores are then counted tile by tile, some thousands
of columns at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.splits import HeldOut
from research.distributed.failures import is_out_of_memory

# Scores of one tile: 2 MB in fp32 on a CPU (stays in cache), 256 MB on an accelerator.
CPU_TILE = 1 << 19
ACCELERATOR_TILE = 1 << 26
# Products of fewer states are slower, so a tile of a large catalogue has some of its columns only.
QUESTIONS = 256
# Tokens of histories that are encoded together.
CPU_TOKENS = 1 << 15
ACCELERATOR_TOKENS = 1 << 21


@dataclass(frozen=True, eq=False)
class Ranked:
    """What came of the questions that were ranked together."""

    results_CS: NDArray[np.float64]
    """[2 x candidate sets + 1, S]: ranks, then ties, by candidate set; columns after the items."""
    on_accelerator: bool
    """Whether the scores stood on another device than the CPU."""
    bad: int | None
    """The first question with a score that is not finite, whose ranks mean nothing; None: none."""


def tile_shape(num_items: int, scores: int) -> tuple[int, int]:
    """(questions, columns) of a tile of about so many scores; columns are a multiple of 16.

    A catalogue is cut into tiles of equal width.
    """
    tiles = -(-num_items * QUESTIONS // scores)
    columns = -(-num_items // tiles // 16) * 16
    return max(16, scores // columns), columns


def in_chunks(
    rank: Callable[[NDArray[np.int64], int], Ranked],
    corpus: Corpus,
    held_out: HeldOut,
    share: slice,
) -> Iterator[tuple[NDArray[np.int64], Ranked]]:
    """The chunks of a share of the questions, each with what `rank` makes of it, tile by tile.

    `rank` gets the questions of a chunk and the columns of a tile. Where memory runs out, fewer
    questions are ranked at a time; `MemoryError` when one alone does not fit.
    """
    targets = corpus.items[held_out.targets]
    lengths = held_out.histories.stops - held_out.histories.starts

    def in_order(rows: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
        # Answers in one tile spare a second look at other tiles. Neighbors of similar length make
        # full rectangles inside attention, and equal work for all processes.
        return rows[np.lexsort((lengths[rows], targets[rows] // columns))]

    questions, columns = tile_shape(corpus.num_items, CPU_TILE)
    left = in_order(np.arange(len(targets)), columns)[share]
    tokens, most, refused = CPU_TOKENS, len(left), 0
    while len(left):
        rows = left[: min(most, chunk_size(lengths[left[:questions]], tokens))]
        ranked: Ranked | None = None
        try:
            ranked = rank(rows, columns)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise MemoryError(nothing_fits(corpus, held_out, rows, error)) from error
        if ranked is None:
            # Here the error is gone, and with it the tensors that its traceback held.
            most, refused = len(rows) // 2, refused or len(rows)
            continue
        if refused:
            print(lowered(refused, len(rows)), file=sys.stderr, flush=True)
            refused = 0
        yield rows, ranked
        left = left[len(rows) :]
        if ranked.on_accelerator and tokens == CPU_TOKENS:
            tokens = ACCELERATOR_TOKENS
            questions, columns = tile_shape(corpus.num_items, ACCELERATOR_TILE)
            left = in_order(left, columns)


def chunk_size(lengths: NDArray[np.int64], tokens: int) -> int:
    """How many of the next questions have at most so many tokens of histories; at least one."""
    return max(1, int(np.searchsorted(np.cumsum(lengths), tokens, side="right")))


def lowered(refused: int, ranked: int) -> str:
    """What is said when fewer questions are ranked at a time than were meant to be."""
    return (
        f"ranking {refused:,} questions at a time did not fit into memory; from here on at most "
        f"{ranked:,} are, with the same results"
    )


def nothing_fits(
    corpus: Corpus, held_out: HeldOut, rows: NDArray[np.int64], error: BaseException
) -> str:
    """What is said when a question does not fit into memory by itself."""
    asked = held_out.histories.select(rows)
    return (
        f"one question alone does not fit into memory: user {int(asked.users[0])} (dense id), a "
        f"history of {int(asked.stops[0] - asked.starts[0]):,} items, {corpus.num_items:,} items "
        f"to score ({error}); stop what else uses the memory, take a larger machine, or train an "
        "encoder of a smaller encoder.length or encoder.width"
    )

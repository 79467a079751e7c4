"""How many histories are ranked at a time, and what happens when they do not fit into memory.

`ranking.py` takes its chunks of questions from here. The questions about one history are in one
chunk, where it is encoded and scored once. The scores of a chunk are counted tile by tile, a tile
being some thousands of columns of the catalogue.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.splits import HeldOut, Ranges, flat_indices
from research.distributed.failures import is_out_of_memory
from research.evaluation.tiles import MANY_QUESTIONS

# Scores of one tile: 2 MB in fp32 on a CPU (stays in cache), 256 MB on an accelerator.
CPU_TILE = 1 << 19
ACCELERATOR_TILE = 1 << 26
# Matrix products with fewer histories than this are slower, so a tile of a large catalogue covers
# only some of its columns.
QUESTIONS = 256
# Tokens of the histories that are encoded together.
CPU_TOKENS = 1 << 15
ACCELERATOR_TOKENS = 1 << 21


@dataclass(frozen=True, eq=False)
class Ranked:
    """The result of a chunk: Q questions that were ranked together under C candidate sets."""

    results_CQ: NDArray[np.float64]
    """[2 C + 1, Q]: C rows of ranks, C rows of numbers of ties, and a row that says how many
    columns after the items the ranker scores."""
    on_accelerator: bool
    """Whether the scores were on another device than the CPU."""
    bad: int | None
    """Index of the first question with a score that is not finite, so that its ranks mean nothing;
    None: all scores are finite."""


def tile_shape(num_items: int, scores: int) -> tuple[int, int]:
    """(questions, columns) of a tile of about `scores` scores; columns are a multiple of 16.

    All tiles of a catalogue have the same number of columns.
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
    """Rank the histories that `share` selects, chunk by chunk; yield (questions, results).

    `share` slices the different histories after they are sorted. `rank` is called with the numbers
    of a chunk's questions (their rows in `held_out`), which are all the questions about some
    histories, and with the columns of a tile. When memory runs out, fewer histories are ranked at a
    time; `MemoryError` when one alone does not fit.
    """
    firsts_S = np.flatnonzero(np.diff(held_out.histories.runs(), prepend=-1))
    sizes_S = np.diff(firsts_S, append=len(held_out))
    targets_S = corpus.items[held_out.targets[firsts_S]]
    lengths_S = (held_out.histories.stops - held_out.histories.starts)[firsts_S]
    # How many rows of scores are compared for a history.
    rows_S = np.where(sizes_S < MANY_QUESTIONS, sizes_S, 1)

    def in_order(histories: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
        # When a chunk's held-out items are in one tile, no tile has to be scored twice. Neighbours
        # of similar length waste no padding inside attention, and give all processes equal work.
        # Histories with several held-out items, which are in any tiles, come last.
        keys = (lengths_S[histories], targets_S[histories] // columns, sizes_S[histories] > 1)
        return histories[np.lexsort(keys)]

    max_rows, columns = tile_shape(corpus.num_items, CPU_TILE)
    remaining = in_order(np.arange(len(firsts_S)), columns)[share]
    tokens, max_histories, too_many = CPU_TOKENS, len(remaining), 0
    while len(remaining):
        following = remaining[: min(max_rows, max_histories)]
        number = min(
            chunk_size(lengths_S[following], tokens), chunk_size(rows_S[following], max_rows)
        )
        chunk = following[:number]
        rows = flat_indices(Ranges(chunk, firsts_S[chunk], firsts_S[chunk] + sizes_S[chunk]))
        ranked: Ranked | None = None
        try:
            ranked = rank(rows, columns)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if number == 1:
                raise MemoryError(
                    history_too_large_message(corpus, held_out, rows, error)
                ) from error
        if ranked is None:
            # The retry is outside the `except`: the error is freed by now, and with it the tensors
            # that its traceback held.
            max_histories, too_many = number // 2, too_many or number
            continue
        if too_many:
            print(smaller_chunk_message(too_many, number), file=sys.stderr, flush=True)
            too_many = 0
        yield rows, ranked
        remaining = remaining[number:]
        if ranked.on_accelerator and tokens == CPU_TOKENS:
            tokens = ACCELERATOR_TOKENS
            max_rows, columns = tile_shape(corpus.num_items, ACCELERATOR_TILE)
            remaining = in_order(remaining, columns)


def chunk_size(sizes: NDArray[np.int64], limit: int) -> int:
    """How many of the next histories have sizes of at most `limit` in all; at least 1.

    `sizes` are their sizes, in order.
    """
    return max(1, int(np.searchsorted(np.cumsum(sizes), limit, side="right")))


def smaller_chunk_message(too_many: int, ranked: int) -> str:
    """The message that only `ranked` histories are ranked at a time, as `too_many` did not fit."""
    return (
        f"ranking {too_many:,} histories at a time did not fit into memory; from here on at most "
        f"{ranked:,} are, with the same results"
    )


def history_too_large_message(
    corpus: Corpus, held_out: HeldOut, rows: NDArray[np.int64], error: BaseException
) -> str:
    """The message that a history, that of the questions `rows`, does not fit into memory alone."""
    question = held_out.histories.select(rows[:1])
    return (
        f"one history alone does not fit into memory: user {int(question.users[0])} (dense id), "
        f"{int(question.stops[0] - question.starts[0]):,} items, {corpus.num_items:,} "
        f"items to score ({error}); stop what else uses the memory, take a larger machine, or "
        "train an encoder of a smaller encoder.length or encoder.width"
    )

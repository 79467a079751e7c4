"""How many questions are ranked at a time, and what happens when they do not fit into memory.

`ranking.py` takes its chunks of questions from here. The histories of a chunk are encoded together;
its scores are then counted tile by tile, a tile being some thousands of columns of the catalogue.
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
# Matrix products with fewer histories than this are slower, so a tile of a large catalogue covers
# only some of its columns.
QUESTIONS = 256
# Tokens of the histories that are encoded together.
CPU_TOKENS = 1 << 15
ACCELERATOR_TOKENS = 1 << 21


@dataclass(frozen=True, eq=False)
class Ranked:
    """The result of a chunk: S questions that were ranked together under C candidate sets."""

    results_CS: NDArray[np.float64]
    """[2 C + 1, S]: C rows of ranks, C rows of numbers of ties, and a row that says how many
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
    """Rank the questions that `share` selects, chunk by chunk; yield (questions, results).

    `share` slices the questions after they are sorted, `rank` is called with the numbers of a
    chunk's questions (their rows in `held_out`) and the columns of a tile. When memory runs out,
    fewer questions are ranked at a time; `MemoryError` when one question alone does not fit.
    """
    targets = corpus.items[held_out.targets]
    lengths = held_out.histories.stops - held_out.histories.starts

    def in_order(rows: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
        # When a chunk's held-out items are in one tile, no tile has to be scored twice. Neighbours
        # of similar length waste no padding inside attention, and give all processes equal work.
        return rows[np.lexsort((lengths[rows], targets[rows] // columns))]

    questions, columns = tile_shape(corpus.num_items, CPU_TILE)
    remaining = in_order(np.arange(len(targets)), columns)[share]
    tokens, max_questions, too_many = CPU_TOKENS, len(remaining), 0
    while len(remaining):
        rows = remaining[: min(max_questions, chunk_size(lengths[remaining[:questions]], tokens))]
        ranked: Ranked | None = None
        try:
            ranked = rank(rows, columns)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise MemoryError(
                    question_too_large_message(corpus, held_out, rows, error)
                ) from error
        if ranked is None:
            # The retry is outside the `except`: the error is freed by now, and with it the tensors
            # that its traceback held.
            max_questions, too_many = len(rows) // 2, too_many or len(rows)
            continue
        if too_many:
            print(smaller_chunk_message(too_many, len(rows)), file=sys.stderr, flush=True)
            too_many = 0
        yield rows, ranked
        remaining = remaining[len(rows) :]
        if ranked.on_accelerator and tokens == CPU_TOKENS:
            tokens = ACCELERATOR_TOKENS
            questions, columns = tile_shape(corpus.num_items, ACCELERATOR_TILE)
            remaining = in_order(remaining, columns)


def chunk_size(lengths: NDArray[np.int64], tokens: int) -> int:
    """How many of the next questions have histories of at most `tokens` tokens in all; at least 1.

    `lengths` are the lengths of their histories, in order.
    """
    return max(1, int(np.searchsorted(np.cumsum(lengths), tokens, side="right")))


def smaller_chunk_message(too_many: int, ranked: int) -> str:
    """The message that only `ranked` questions are ranked at a time, as `too_many` did not fit."""
    return (
        f"ranking {too_many:,} questions at a time did not fit into memory; from here on at most "
        f"{ranked:,} are, with the same results"
    )


def question_too_large_message(
    corpus: Corpus, held_out: HeldOut, rows: NDArray[np.int64], error: BaseException
) -> str:
    """The message that a question, the first of `rows`, does not fit into memory by itself."""
    question = held_out.histories.select(rows)
    return (
        f"one question alone does not fit into memory: user {int(question.users[0])} (dense id), a "
        f"history of {int(question.stops[0] - question.starts[0]):,} items, {corpus.num_items:,} "
        f"items to score ({error}); stop what else uses the memory, take a larger machine, or "
        "train an encoder of a smaller encoder.length or encoder.width"
    )

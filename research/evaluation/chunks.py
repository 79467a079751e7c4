"""How many questions are ranked at a time, and what is said when they do not fit into memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.splits import HeldOut

# Scores of one chunk: 8 MB on a CPU (stays in cache), 512 MB on an accelerator.
CPU_CHUNK = 1 << 21
ACCELERATOR_CHUNK = 1 << 27
# Tokens of histories that are encoded together.
CPU_TOKENS = 1 << 15
ACCELERATOR_TOKENS = 1 << 21


def chunk_end(lengths: NDArray[np.int64], begin: int, most: int, tokens: int) -> int:
    """Past the last of the questions from `begin` on that are ranked together.

    At most `most` (but 16 are always allowed) and at most so many tokens of histories, so that
    neither a small catalogue nor long histories make a chunk too large; at least one question.
    """
    ends = np.cumsum(lengths[begin : begin + max(16, most)])
    return begin + max(1, int(np.searchsorted(ends, tokens, side="right")))


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

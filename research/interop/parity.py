"""Whether an exported model ranks as the run that it was made from, on histories of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from research.data.batch import pack
from research.data.corpus import Corpus
from research.data.splits import Ranges
from research.errors import InputError
from research.interop.program import PADDING, Answer
from research.objectives.ranker import TrainedRanker
from research.packed import Packed
from research.runs.parts import RunParts

HISTORIES = 1000
TOP = 10
# How far a score may be off, as a share of the largest score: float32 sums of up to a thousand
# terms in another order.
TOLERANCE = 1e-4
# Scores that are compared at a time, which bounds memory.
SCORES = 1 << 24

Exported = Callable[[Tensor], tuple[Tensor, ...]]
"""The exported model: from a table of histories [B, L] to its outputs, as `RankerProgram` has
them."""


def check_parity(
    exported: Exported, ranker: TrainedRanker, parts: RunParts, answer: Answer, longest: int
) -> str:
    """Compare the two on up to 1,000 histories; returns a sentence with the largest difference.

    `InputError` when a score differs by more than a ten-thousandth of the largest score, or when
    the best ten items differ by more than ties within that.
    """
    corpus = parts.corpus
    histories = histories_of(corpus, longest)
    num_items, top = corpus.num_items, min(TOP, answer.k or corpus.num_items)
    largest = difference = 0.0
    same = 0
    for piece in pieces_of(histories, num_items):
        scores_BV = run_scores(ranker, parts, piece)
        packed = pack(corpus, piece)
        largest = max(largest, float(scores_BV.abs().max()))
        found = exported(table_of(packed))
        if answer.k is None:
            difference = max(difference, float((found[0] - scores_BV).abs().max()))
            best = torch.topk(found[0], top).indices
        else:
            if not answer.keep_seen:
                scores_BV[packed.owner_T, packed.items_T] = -torch.inf
            difference = max(
                difference, _largest_difference(found[0], scores_BV.gather(1, found[1]))
            )
            best = found[1][:, :top]
        expected = torch.topk(scores_BV, top)
        expected_items: Tensor = expected.indices
        difference = max(
            difference, _largest_difference(scores_BV.gather(1, best), expected.values)
        )
        # An item that is named twice would stand in the place of another.
        if bool((best.sort().values.diff() == 0).any()):
            difference = torch.inf
        same += int((best == expected_items).all(1).sum())
    if not difference <= TOLERANCE * largest:
        raise InputError(
            f"the exported model differs from the run by up to {difference:.3g} where scores are "
            f"up to {largest:.3g}; nothing is written; report it, with the versions of torch and "
            "of the format's package"
        )
    tied = len(histories) - same
    ties = f" ({tied:,} of them up to ties within that)" if tied else ""
    return (
        f"parity on {len(histories):,} histories of {corpus.name}: largest difference of a score "
        f"{difference:.3g} (scores are up to {largest:.3g}), best {top} items equal{ties}"
    )


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference; 0 where both are the same infinity, NaN where a number is NaN."""
    return float(torch.where(found == expected, 0.0, (found - expected).abs()).max())


def histories_of(corpus: Corpus, longest: int) -> Ranges:
    """Up to 1,000 histories of 1 to `longest` items: of users evenly spaced, up to some item.

    The first one has one item.
    """
    offsets = np.asarray(corpus.offsets)
    users = np.flatnonzero(np.diff(offsets))
    chosen = users[np.unique(np.linspace(0, len(users) - 1, HISTORIES).astype(np.int64))]
    begins, ends = offsets[chosen], offsets[chosen + 1]
    stops = begins + 1 + np.arange(len(chosen)) % (ends - begins)
    return Ranges(chosen, np.maximum(begins, stops - longest), stops)


def pieces_of(histories: Ranges, num_items: int) -> Iterator[Ranges]:
    """The histories in pieces whose scores fit into memory; the first history is a piece alone.

    So a table of one row and one column is asked about too.
    """
    rows = max(1, SCORES // num_items)
    for first, stop in pairwise([0, *range(1, len(histories), rows), len(histories)]):
        yield histories.select(np.arange(first, stop))


def run_scores(ranker: TrainedRanker, parts: RunParts, histories: Ranges) -> Tensor:
    """[B, V]: the run's own scores of all items, on the host."""
    packed = pack(parts.corpus, histories, parts.fields)
    encoded = ranker.encode(packed, torch.from_numpy(histories.users))
    return encoded.scores(0, ranker.encoder.num_items).cpu()


def table_of(histories: Packed) -> Tensor:
    """int64 [B, L]: the histories as rows of the exported model's input."""
    table_BL = torch.full((histories.num_sequences, histories.longest), PADDING)
    table_BL[histories.owner_T, histories.positions_T] = histories.items_T
    return table_BL

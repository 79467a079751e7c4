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
# How far a score may be off, as a share of how far the scores of its history lie apart: float32
# sums of up to a thousand terms in another order. What all scores have in common ranks nothing.
TOLERANCE = 1e-4
# No score is nearer to another than float32 tells, so this many units in the last place of the
# largest may be off in any case.
UNITS = 16
# Scores that are compared at a time, which bounds memory.
SCORES = 1 << 24

Exported = Callable[[Tensor], tuple[Tensor, ...]]
"""The exported model: from a table of histories [B, L] to its outputs, as `RankerProgram` has
them."""


def check_parity(
    exported: Exported, ranker: TrainedRanker, parts: RunParts, answer: Answer, longest: int
) -> str:
    """Compare the two on up to 1,000 histories; returns a sentence with the largest difference.

    The best items are all that the model gives, or ten where it gives scores. `InputError` when a
    score, or the score of the item at any of their places, differs by more than a ten-thousandth of
    the range of its history's scores (and more than float32 can tell).
    """
    corpus = parts.corpus
    histories = histories_of(corpus, longest)
    top = answer.k or min(TOP, corpus.num_items)
    difference, worst, same = 0.0, 0.0, 0
    for piece in pieces_of(histories, corpus.num_items):
        scores_BV = run_scores(ranker, parts, piece)
        packed = pack(corpus, piece)
        found = exported(table_of(packed))
        if answer.k is not None and not answer.keep_seen:
            scores_BV[packed.owner_T, packed.items_T] = -torch.inf
        if answer.k is None:
            off_BN, best_BK = _differences(found[0], scores_BV), found[0].topk(top).indices
        else:
            best_BK = found[1]
            off_BN = _differences(found[0], scores_BV.gather(1, best_BK))
        expected = scores_BV.topk(top)
        off_BK = _differences(scores_BV.gather(1, best_BK), expected.values)
        off_B = torch.maximum(off_BN.amax(1), off_BK.amax(1))
        # An item that is named twice would stand in the place of another.
        is_double_B = (best_BK.sort().values.diff() == 0).any(1)
        off_B = torch.where(off_B.isnan() | is_double_B, torch.inf, off_B)
        difference = max(difference, float(off_B.max()))
        worst = max(worst, float((off_B / _allowed(scores_BV)).max()))
        same += int((best_BK == expected.indices).all(1).sum())
    if worst > 1:
        raise InputError(
            f"the exported model differs from the run by up to {difference:.3g} in a score, "
            f"{worst:.3g} times what is allowed ({TOLERANCE} of the range of its history's "
            "scores); nothing is written; report it, with the versions of torch and of the "
            "format's package"
        )
    ties = "" if same == len(histories) else "; the others differ in items whose scores tie"
    return (
        f"parity on {len(histories):,} histories of {corpus.name}: largest difference of a score "
        f"{difference:.3g}, {worst:.2g} of what is allowed; best {top} items equal and in the same "
        f"order for {same:,}{ties}"
    )


def _differences(found: Tensor, expected: Tensor) -> Tensor:
    """[B, N]: the differences of scores; 0 where both are the same infinity."""
    return torch.where(found == expected, 0.0, (found - expected).abs())


def _allowed(scores_BV: Tensor) -> Tensor:
    """[B]: how far scores may be off, by the finite scores of each history."""
    finite = scores_BV.isfinite()
    highest_B = torch.where(finite, scores_BV, -torch.inf).amax(1)
    lowest_B = torch.where(finite, scores_BV, torch.inf).amin(1)
    largest_B = torch.where(finite, scores_BV.abs(), 0.0).amax(1)
    numbers = torch.finfo(scores_BV.dtype)
    unit_B = largest_B * numbers.eps + numbers.tiny
    return torch.maximum(TOLERANCE * (highest_B - lowest_B), UNITS * unit_B)


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

"""One scoring pass gives the rank table: a row a held-out item, its rank among candidates.

rank = 1 + number of candidates that score strictly higher + half of those that tie (T51). Ranks
are counted, never read from a sorted list, so the place of the answer cannot matter. All metrics,
slices and tests are computed from the table. Several processes rank a share of the questions each,
and each of them ends with the whole table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.batch import pack
from research.data.corpus import Corpus
from research.data.splits import HeldOut
from research.distributed.activity import PULSE
from research.errors import InputError
from research.evaluation.candidates import CandidateSet
from research.evaluation.chunks import Ranked, in_chunks
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.tiles import Questions, SeenPolicy, first_not_finite


def _itself(found: Tensor) -> Tensor:
    return found


@dataclass(frozen=True, eq=False)
class Shard:
    """Which of the processes that rank together this one is."""

    rank: int = 0
    """0 to world - 1; rank 0 always has a question."""
    world: int = 1
    """Processes that share the questions; 1: nothing is communicated."""
    add: Callable[[Tensor], Tensor] = _itself
    """The sum over all processes of a float64 tensor on the CPU; every process calls it once."""


def rank_tables(
    ranker: Ranker,
    corpus: Corpus,
    held_out: HeldOut,
    candidates: Sequence[CandidateSet],
    *,
    seen: SeenPolicy,
    protocol: Mapping[str, object],
    counts_V: Tensor,
    shard: Shard = Shard(),
    fields: Collection[str] = (),
) -> dict[str, RankTable]:
    """Rank every held-out item under each candidate set, from one pass of scores.

    `seen` says what becomes of items of the whole given history (T48): "excluded", they score minus
    infinity and a held-out item among them is a miss; "kept", they compete; "zero", they score 0,
    a held-out item among them too, as S3-Rec's code has it (T47). `counts_V` are the training
    interactions of every item, `fields` those of the corpus that a ranker reads beside items. A
    score that is not finite is an error.

    Each process of `shard` ranks its own questions and gets the table of all. Where memory runs
    out, fewer questions are ranked at a time; `MemoryError` when one alone does not fit.
    """
    if len(held_out) == 0:
        raise InputError(f"corpus {corpus.name}: the split holds nothing out to rank")
    items = corpus.items[held_out.targets].astype(np.int64)
    # Ranks and ties by candidate set, and columns after the items; 0 where another process answers.
    results_CQ = np.zeros((2 * len(candidates) + 1, len(items)))
    rank = partial(rank_chunk, ranker, corpus, held_out, candidates, seen, fields)
    share = slice(shard.rank, None, shard.world)
    for rows, ranked in in_chunks(rank, corpus, held_out, share):
        results_CQ[:, rows] = ranked.results_CS
        if ranked.bad is not None:
            # Told after the sum, which the other processes wait for, and to all of them alike.
            results_CQ[-1, rows[ranked.bad]] = np.nan
            break
        PULSE.progress()
    if shard.world > 1:
        results_CQ = shard.add(torch.from_numpy(results_CQ)).numpy()
    bad_Q = np.flatnonzero(np.isnan(results_CQ[-1]))
    if len(bad_Q):
        raise FloatingPointError(
            "the ranker gave NaN or infinite scores, first for user "
            f"{int(held_out.histories.users[bad_Q[0]])} (dense id); a model has diverged: lower "
            "its learning rate or clip the gradient"
        )
    further = int(results_CQ[-1, 0])
    lengths = held_out.histories.stops - held_out.histories.starts
    item_count = counts_V.cpu().numpy()[items].astype(np.int32)
    shared = {**protocol, "seen": seen, "ties": "mean"}
    special = {"special_candidates": further} if further else {}
    return {
        each.name: RankTable(
            user=held_out.histories.users.astype(np.int32),
            item=items.astype(np.int32),
            rank=results_CQ[place].copy(),
            ties=results_CQ[len(candidates) + place].astype(np.int32),
            history_length=lengths.astype(np.int32),
            item_count=item_count,
            protocol={**shared, **each.protocol, **(special if each.name == "full" else {})},
        )
        for place, each in enumerate(candidates)
    }


def rank_chunk(
    ranker: Ranker,
    corpus: Corpus,
    held_out: HeldOut,
    candidates: Sequence[CandidateSet],
    seen: SeenPolicy,
    fields: Collection[str],
    rows: NDArray[np.int64],
    columns: int,
) -> Ranked:
    """Rank the questions `rows`, whose histories are encoded once, in tiles of so many columns."""
    asked = held_out.select(rows)
    histories = pack(corpus, asked.histories, fields)
    targets_S = corpus.items[asked.targets].astype(np.int64)
    questions = Questions.of(histories, rows, targets_S, corpus.num_items, seen)
    encoded = ranker.encode(histories, torch.from_numpy(asked.histories.users))
    counts = [each.counts(encoded, questions, columns) for each in candidates]
    # All that is read from the device comes in one copy.
    rows_CS = [higher_S for higher_S, _ in counts] + [equal_S for _, equal_S in counts]
    read_CS = torch.stack([*rows_CS, encoded.largest_S.double()]).cpu().numpy()
    higher_CS, equal_CS = np.split(read_CS[:-1], 2)
    rank_CS = np.where(questions.missed_S, np.inf, 1.0 + higher_CS + 0.5 * equal_CS)
    further_S = np.full(len(rows), encoded.columns - corpus.num_items)
    finite = bool(np.isfinite(read_CS[-1]).all())
    return Ranked(
        results_CS=np.concatenate([rank_CS, equal_CS, further_S[None]]),
        on_accelerator=encoded.largest_S.device.type != "cpu",
        bad=None if finite else first_not_finite(encoded, columns),
    )

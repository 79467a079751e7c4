"""Ranking: one pass of scores gives a rank table for each candidate set.

rank = 1 + number of candidates that score strictly higher + half the number of those that tie. The
rank is counted, so it cannot depend on where the held-out item is among ties (docs/pitfalls.md,
"rank from a sorted list"). All metrics, slices and tests are computed from the table. Several
processes rank a share of the questions each, and each of them gets the whole table.
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
from research.distributed.activity import ACTIVITY
from research.errors import InputError
from research.evaluation.candidates import CandidateSet
from research.evaluation.chunks import Ranked, in_chunks
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.slice_columns import frequent_attributes, times_since_last
from research.evaluation.tiles import Questions, SeenPolicy, first_not_finite


def _identity(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, eq=False)
class RankingShard:
    """Which share of the questions this process ranks, and how the shares are added up."""

    rank: int = 0
    """Rank of this process, 0 to world - 1; rank 0 has at least one question."""
    world: int = 1
    """Number of processes that share the questions; 1: nothing is communicated."""
    add: Callable[[Tensor], Tensor] = _identity
    """Sums a float64 CPU tensor over all processes; every process calls it once a ranking."""


def rank_tables(
    ranker: Ranker,
    corpus: Corpus,
    held_out: HeldOut,
    candidates: Sequence[CandidateSet],
    *,
    seen: SeenPolicy,
    protocol: Mapping[str, object],
    counts_V: Tensor,
    shard: RankingShard = RankingShard(),
    fields: Collection[str] = (),
) -> dict[str, RankTable]:
    """Rank every held-out item under each candidate set, encoding each history once.

    Returns a table by the candidate set's name. `seen` says how items of the whole history, not
    only of the window that an encoder reads, are ranked: "excluded", they score minus infinity, and
    a held-out item among them is a miss; "kept", they compete; "zero", they score 0, also a
    held-out item among them, as in S3-Rec's code (raw negative scores then rank below seen items).
    `protocol` goes into each table, with the candidate set and the seen policy. `counts_V`, [V],
    are the training interactions of each item; `fields` names the corpus fields that the ranker
    reads beside items.

    Each process of `shard` ranks its own share of the questions and gets the whole table. When
    memory runs out, fewer histories are ranked at a time. `InputError` when nothing is held out,
    `FloatingPointError` for a score that is not finite, `MemoryError` when one history alone does
    not fit.
    """
    if len(held_out) == 0:
        raise InputError(f"corpus {corpus.name}: the split holds nothing out to rank")
    items = corpus.items[held_out.targets].astype(np.int64)
    rank = partial(rank_chunk, ranker, corpus, held_out, candidates, seen, fields)
    results_CQ = ranked_by_all(rank, corpus, held_out, 2 * len(candidates) + 1, shard)
    num_special = int(results_CQ[-1, 0])
    lengths = held_out.histories.stops - held_out.histories.starts
    item_count = counts_V.cpu().numpy()[items].astype(np.int32)
    attribute_bits, attribute_names = frequent_attributes(corpus, items)
    common_protocol = {**protocol, "seen": seen, "ties": "mean"}
    special = {"special_candidates": num_special} if num_special else {}
    return {
        candidate_set.name: RankTable(
            user=held_out.histories.users.astype(np.int32),
            item=items.astype(np.int32),
            rank=results_CQ[index].copy(),
            ties=results_CQ[len(candidates) + index].astype(np.int32),
            history_length=lengths.astype(np.int32),
            item_count=item_count,
            protocol={
                **common_protocol,
                **candidate_set.protocol,
                **(special if candidate_set.name == "full" else {}),
            },
            since_last=times_since_last(corpus, held_out),
            attribute_bits=attribute_bits,
            attribute_names=attribute_names,
        )
        for index, candidate_set in enumerate(candidates)
    }


def ranked_by_all(
    rank: Callable[[NDArray[np.int64], int], Ranked],
    corpus: Corpus,
    held_out: HeldOut,
    num_rows: int,
    shard: RankingShard,
) -> NDArray[np.float64]:
    """The results of all chunks of questions, of which each process of `shard` ranks its share.

    float64 [num_rows, Q], with rows as in `Ranked.results_CQ`; every process gets the whole. `rank`
    is as for `in_chunks`. `FloatingPointError` for a score that is not finite.
    """
    # 0 for the questions of other processes, so that a sum over all processes gives the whole.
    results_CQ = np.zeros((num_rows, len(held_out)))
    share = slice(shard.rank, None, shard.world)
    for rows, ranked in in_chunks(rank, corpus, held_out, share):
        results_CQ[:, rows] = ranked.results_CQ
        if ranked.bad is not None:
            # Marked here and raised after the sum: the other processes wait for the sum, and all of
            # them must raise.
            results_CQ[-1, rows[ranked.bad]] = np.nan
            break
        ACTIVITY.progress()
    if shard.world > 1:
        results_CQ = shard.add(torch.from_numpy(results_CQ)).numpy()
    bad_Q = np.flatnonzero(np.isnan(results_CQ[-1]))
    if len(bad_Q):
        raise FloatingPointError(
            "the ranker gave NaN or infinite scores, first for user "
            f"{int(held_out.histories.users[bad_Q[0]])} (dense id); a model has diverged: lower "
            "its learning rate or clip the gradient"
        )
    return results_CQ


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
    """Rank the questions `rows` of `held_out`, in tiles of `columns` columns of the catalogue.

    The other arguments are as in `rank_tables`. A history is encoded once for all candidate sets,
    and for all neighbouring questions about it.
    """
    chunk = held_out.select(rows)
    history_Q = chunk.histories.runs()
    different = chunk.histories.select(np.flatnonzero(np.diff(history_Q, prepend=-1)))
    histories = pack(corpus, different, fields)
    targets_Q = corpus.items[chunk.targets].astype(np.int64)
    questions = Questions.of(histories, history_Q, rows, targets_Q, corpus.num_items, seen)
    encoded = ranker.encode(histories, torch.from_numpy(different.users))
    counts = [candidate_set.counts(encoded, questions, columns) for candidate_set in candidates]
    # One copy from the device brings everything, so that the host waits once.
    counts_CQ = [higher_Q for higher_Q, _ in counts] + [equal_Q for _, equal_Q in counts]
    read = torch.cat([*counts_CQ, encoded.largest_S.double()]).cpu().numpy()
    largest_S = read[len(read) - questions.num_histories :]
    higher_CQ, equal_CQ = np.split(
        read[: len(read) - len(largest_S)].reshape(2 * len(counts), len(rows)), 2
    )
    rank_CQ = np.where(questions.missed_Q, np.inf, 1.0 + higher_CQ + 0.5 * equal_CQ)
    num_special_Q = np.full(len(rows), encoded.columns - corpus.num_items)
    bad = None
    if not np.isfinite(largest_S).all():
        history = first_not_finite(encoded, columns)
        bad = None if history is None else int(np.searchsorted(history_Q, history))
    return Ranked(
        results_CQ=np.concatenate([rank_CQ, equal_CQ, num_special_Q[None]]),
        on_accelerator=encoded.largest_S.device.type != "cpu",
        bad=bad,
    )

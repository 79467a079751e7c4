"""One scoring pass gives the rank table: a row a held-out item, its rank among candidates.

rank = 1 + number of candidates that score strictly higher + half of those that tie (T51). Ranks
are counted, never read from a sorted list, so the place of the answer cannot matter. All metrics,
slices and tests are computed from the table. Several processes rank a share of the questions each,
and each of them ends with the whole table.
"""

from __future__ import annotations

import json
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.corpus import Corpus
from research.data.loader import pack
from research.data.splits import HeldOut
from research.errors import InputError
from research.evaluation.candidates import CandidateSet
from research.evaluation.chunks import (
    ACCELERATOR_CHUNK,
    ACCELERATOR_TOKENS,
    CPU_CHUNK,
    CPU_TOKENS,
    chunk_end,
    lowered,
    nothing_fits,
)
from research.evaluation.ranker import Ranker
from research.foreign import parsed
from research.memory import is_out_of_memory
from research.packed import Packed
from research.pulse import PULSE
from research.tracking import replacing

SeenPolicy = Literal["excluded", "kept", "zero"]
# Bytes that any table may have unpacked, and by how much a larger one may have been packed.
_ALWAYS_ALLOWED = 1 << 26
_MOST_COMPRESSION = 100
_COLUMNS = {"user": "int32", "item": "int32", "rank": "float64"}
_COLUMNS |= {"ties": "int32", "history_length": "int32", "item_count": "int32"}
# What numpy and zipfile raise for a file that is damaged or something else.
_UNREADABLE: tuple[type[Exception], ...] = (
    *(ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error, MemoryError, OverflowError, RecursionError),
    *(SyntaxError, TokenError, Warning),
)


@dataclass(frozen=True, eq=False)
class RankTable:
    """The result of an evaluation under one candidate set."""

    user: NDArray[np.int32]
    """[Q] dense user ids."""
    item: NDArray[np.int32]
    """[Q] held-out items, dense ids."""
    rank: NDArray[np.float64]
    """[Q] 1-based, ties at their mean; infinite for an excluded item (a miss)."""
    ties: NDArray[np.int32]
    """[Q] other candidates with the very score of the held-out item."""
    history_length: NDArray[np.int32]
    """[Q] items in the history that was given."""
    item_count: NDArray[np.int32]
    """[Q] training interactions of the held-out item; 0: a cold item."""
    protocol: Mapping[str, object]
    """What was asked: fingerprint, split, candidates, seen policy; what `rank` is among ties."""

    def __len__(self) -> int:
        return len(self.rank)

    def save(self, path: Path) -> None:
        """Write `.npz`, to a temporary name first."""
        with replacing(path) as file:
            np.savez_compressed(
                file,
                user=self.user,
                item=self.item,
                rank=self.rank,
                ties=self.ties,
                history_length=self.history_length,
                item_count=self.item_count,
                protocol=np.array(json.dumps(dict(self.protocol), sort_keys=True)),
            )

    @staticmethod
    def load(path: Path) -> RankTable:
        """Read what `save` wrote; `InputError` for anything else."""
        try:
            _check_sizes(path)
            with (
                path.open("rb") as file,
                warnings.catch_warnings(),
                np.load(file, allow_pickle=False) as stored,
            ):
                warnings.simplefilter("error")
                # numpy would make a str of any numbers, also of those that are no characters.
                text = np.asarray(stored["protocol"]).astype("<U", casting="equiv", copy=False)
                protocol = parsed(text.tobytes().decode("utf-32-le").rstrip("\0"))
                if set(_COLUMNS) - set(stored.files) == {"item_count"}:
                    raise InputError(
                        f"{path} was written by an earlier version and does not say how often its "
                        "items were trained on (item_count); `evaluate` cannot add it: remove the "
                        "run's folder and do the run again"
                    )
                columns = {name: np.asarray(stored[name]) for name in _COLUMNS}
        except FileNotFoundError as error:
            raise InputError(f"{path} does not exist") from error
        except _UNREADABLE as error:
            raise InputError(f"{path} is not a rank table ({error!s:.300})") from error
        shapes = {column.shape for column in columns.values()}
        types = {name: column.dtype.name for name, column in columns.items()}
        if types != _COLUMNS or shapes != {(len(columns["rank"]),)}:
            raise InputError(f"{path} is not a rank table (columns {types} of shapes {shapes})")
        if not isinstance(protocol, dict):
            raise InputError(f"{path} is not a rank table (its protocol is {protocol!r:.100})")
        table = RankTable(**columns, protocol=protocol)
        if not _can_be(table):
            raise InputError(f"{path} is not a rank table (no ranking gives such ranks or counts)")
        return table


def _check_sizes(path: Path) -> None:
    """`InputError` for what is no file, and for one that unpacks to far more than it is."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a rank table (it is no file)")
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        packings = {member.compress_type for member in archive.infolist()}
    if size > max(_ALWAYS_ALLOWED, _MOST_COMPRESSION * path.stat().st_size):
        raise InputError(f"{path} is not a rank table (it unpacks to {size:,} bytes)")
    if not packings <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError(f"{path} is not a rank table (it is packed by another method)")


def _can_be(table: RankTable) -> bool:
    """Whether some ranking gives these numbers; metrics rely on it."""
    if len(table) == 0 or not (table.rank >= 1.0).all():
        return False
    if min(column.min() for column in (table.user, table.item, table.ties)) < 0:
        return False
    if min(table.history_length.min(), table.item_count.min()) < 0:
        return False
    # Whoever ties stands at whole places, from the first on.
    first = (table.rank - table.ties / 2)[np.isfinite(table.rank)]
    if not ((first >= 1.0) & (first == np.floor(first))).all():
        return False
    # Of one user's items that share a rank, the first stands half their number above it.
    order = np.lexsort((table.rank, table.user))
    ranks, users = table.rank[order], table.user[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(users) != 0) | (ranks[1:] != ranks[:-1])])
    sizes = np.diff(np.r_[starts, len(ranks)])
    return bool((ranks[starts] - (sizes - 1) / 2 >= 1.0).all())


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
) -> dict[str, RankTable]:
    """Rank every held-out item under each candidate set, from one pass of scores.

    `seen` says what becomes of items of the whole given history (T48): "excluded", they score minus
    infinity and a held-out item among them is a miss; "kept", they compete; "zero", they score 0,
    a held-out item among them too, as S3-Rec's code has it (T47). `counts_V` are the training
    interactions of every item. A score that is not finite is an error.

    Each process of `shard` ranks its own questions and gets the table of all. Where memory runs
    out, fewer questions are ranked at a time; `MemoryError` when one alone does not fit.
    """
    if len(held_out) == 0:
        raise InputError(f"corpus {corpus.name}: the split holds nothing out to rank")
    items = corpus.items[held_out.targets].astype(np.int64)
    lengths = held_out.histories.stops - held_out.histories.starts
    # Neighbours of similar length make full rectangles inside attention, and equal work for all.
    order = np.argsort(lengths, kind="stable")[shard.rank :: shard.world]
    ordered = lengths[order]
    # Ranks and ties by candidate set, and columns after the items; 0 where another process answers.
    found_CQ = np.zeros((2 * len(candidates) + 1, len(items)))
    most, refused = len(order), 0
    begin, end = 0, chunk_end(ordered, 0, CPU_CHUNK // corpus.num_items, CPU_TOKENS)
    while begin < len(order):
        rows = order[begin:end]
        ranked: Ranked | None = None
        try:
            ranked = rank_chunk(ranker, corpus, held_out, rows, items[rows], candidates, seen)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise MemoryError(nothing_fits(corpus, held_out, rows, error)) from error
        if ranked is None:
            # Here the error is gone, and with it the tensors that its traceback held.
            most, refused = len(rows) // 2, refused or len(rows)
            end = begin + most
            continue
        if refused:
            print(lowered(refused, len(rows)), file=sys.stderr, flush=True)
            refused = 0
        found_CQ[:, rows] = ranked.found_CS
        if ranked.bad is not None:
            # Told after the sum, which the other processes wait for, and to all of them alike.
            found_CQ[-1, rows[ranked.bad]] = np.nan
            break
        PULSE.progress()
        chunk, tokens = CPU_CHUNK, CPU_TOKENS
        if ranked.on_accelerator:
            chunk, tokens = ACCELERATOR_CHUNK, ACCELERATOR_TOKENS
        begin, end = end, chunk_end(ordered, end, chunk // corpus.num_items, tokens)
        end = min(end, begin + most)
    if shard.world > 1:
        found_CQ = shard.add(torch.from_numpy(found_CQ)).numpy()
    bad_Q = np.flatnonzero(np.isnan(found_CQ[-1]))
    if len(bad_Q):
        raise FloatingPointError(
            "the ranker gave NaN or infinite scores, first for user "
            f"{int(held_out.histories.users[bad_Q[0]])} (dense id); a model has diverged: lower "
            "its learning rate or clip the gradient"
        )
    further = int(found_CQ[-1, 0])
    item_count = counts_V.cpu().numpy()[items].astype(np.int32)
    shared = {**protocol, "seen": seen, "ties": "mean"}
    special = {"special_candidates": further} if further else {}
    return {
        each.name: RankTable(
            user=held_out.histories.users.astype(np.int32),
            item=items.astype(np.int32),
            rank=found_CQ[place].copy(),
            ties=found_CQ[len(candidates) + place].astype(np.int32),
            history_length=lengths.astype(np.int32),
            item_count=item_count,
            protocol={**shared, **each.protocol, **(special if each.name == "full" else {})},
        )
        for place, each in enumerate(candidates)
    }


@dataclass(frozen=True, eq=False)
class Ranked:
    """What came of the questions that were ranked together."""

    found_CS: NDArray[np.float64]
    """[2 x candidate sets + 1, S]: ranks, then ties, by candidate set; columns after the items."""
    on_accelerator: bool
    """Whether the scores stood on another device than the CPU."""
    bad: int | None
    """The first question with a score that is not finite, whose ranks mean nothing; None: none."""


def rank_chunk(
    ranker: Ranker,
    corpus: Corpus,
    held_out: HeldOut,
    rows: NDArray[np.int64],
    items: NDArray[np.int64],
    candidates: Sequence[CandidateSet],
    seen: SeenPolicy,
) -> Ranked:
    """Rank the questions `rows`, whose answers are `items`, from one call of the ranker."""
    histories = pack(corpus, held_out.histories.select(rows))
    users_S = torch.from_numpy(held_out.histories.users[rows])
    scores_SV = ranker.scores(histories, users_S)
    targets_S = torch.from_numpy(items).to(scores_SV.device)
    bad = first_not_finite(scores_SV)
    right_S1, missed_S = set_seen(scores_SV, histories, targets_S, seen)
    ranks, ties = [], []
    for each in candidates:
        rank_S, ties_S = each.ranks(scores_SV, right_S1, targets_S, rows)
        ranks.append(torch.where(missed_S, torch.inf, rank_S))
        ties.append(ties_S.double())
    further_S = torch.full_like(missed_S, scores_SV.shape[1] - corpus.num_items, dtype=torch.double)
    found_CS = torch.stack([*ranks, *ties, further_S]).cpu().numpy()
    return Ranked(found_CS, scores_SV.device.type != "cpu", bad)


def set_seen(
    scores_SV: Tensor, histories: Packed, targets_S: Tensor, seen: SeenPolicy
) -> tuple[Tensor, Tensor]:
    """Write what `seen` says over the scores of items of the histories.

    Gives (the answers' scores [S, 1], which answers are misses [S]).
    """
    right_S1 = scores_SV.gather(1, targets_S[:, None])
    missed_S = torch.zeros_like(targets_S, dtype=torch.bool)
    if seen == "kept":
        return right_S1, missed_S
    histories = histories.to(scores_SV.device)
    given = -torch.inf if seen == "excluded" else 0.0
    scores_SV[histories.owner_T, histories.items_T] = given
    after_S1 = scores_SV.gather(1, targets_S[:, None])
    if seen == "zero":
        return after_S1, missed_S
    return right_S1, after_S1[:, 0] == -torch.inf


def first_not_finite(scores_SV: Tensor) -> int | None:
    """The first row with a NaN or an infinite score; None: there is none."""
    # A row's sum is not finite when a score is not; a sum of finite scores may overflow as well.
    rows = (~scores_SV.sum(1).isfinite()).nonzero()[:, 0]
    rows = rows[~scores_SV[rows].isfinite().all(1)]
    return int(rows[0]) if len(rows) else None

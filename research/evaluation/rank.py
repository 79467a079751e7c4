"""One scoring pass gives the rank table: a row a held-out item, its rank among candidates.

rank = 1 + number of candidates that score strictly higher + half of those that tie (T51). Ranks
are counted, never read from a sorted list, so the place of the answer cannot matter. All metrics,
slices and tests are computed from the table. Several processes rank a share of the questions each,
and each of them ends with the whole table.
"""

from __future__ import annotations

import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError

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
from research.evaluation.ranker import Ranker
from research.evaluation.tiles import Questions, SeenPolicy, first_not_finite
from research.storage.atomic import replacing
from research.storage.untrusted import parsed

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


def group_starts(*sorted_columns: NDArray[np.generic]) -> NDArray[np.int64]:
    """[G] the first row of each group of rows that are equal in all of these columns [N]."""
    changes = [column[1:] != column[:-1] for column in sorted_columns]
    begins = np.ones(len(sorted_columns[0]), dtype=bool)
    begins[1:] = np.logical_or.reduce(changes)
    return np.flatnonzero(begins)


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
    starts = group_starts(users, ranks)
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

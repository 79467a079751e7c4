"""Candidate sets: the items among which a held-out item is ranked.

They are all items, negatives that `sampled_candidates.py` draws, N a question, or negatives read
from a file. A file's negatives may be in the history only where seen items compete. The set's name
is part of every metric's protocol (figures of sampled and of full ranking cannot be compared).
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import HeldOut, flat_indices
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Encoded
from research.evaluation.tiles import Questions, SeenPolicy, count_among_all, count_among_listed

# Histories that are compared with their negatives at a time.
HISTORIES = 4096


class CandidateSet(ABC):
    """Abstract: counts the candidates that score higher than a held-out item, or tie with it."""

    name: str

    @property
    def protocol(self) -> dict[str, str]:
        """The fields of a rank table's protocol that identify this set."""
        return {"candidates": self.name}

    @abstractmethod
    def counts(self, encoded: Encoded, questions: Questions, columns: int) -> tuple[Tensor, Tensor]:
        """(higher, equal): float64 [Q] each, on the scores' device, by question.

        They say how many candidates score higher than the held-out item, and how many score the
        same; the held-out item itself is not counted. Where all items are scored, `columns` of them
        are at a time.
        """


class AllItems(CandidateSet):
    """Full ranking: a held-out item is ranked among all items."""

    name = "full"

    def counts(self, encoded: Encoded, questions: Questions, columns: int) -> tuple[Tensor, Tensor]:
        """As in `CandidateSet`, over all items and whatever further columns the ranker scores."""
        return count_among_all(encoded, questions, columns)


@dataclass(frozen=True, eq=False)
class Listed(CandidateSet):
    """The held-out item of each question is ranked against a list of negatives."""

    name: str
    """uniform-N, popularity-N, file-N, or file-N-seen where some are items of the history; N is the
    number of negatives."""
    negatives_QN: Tensor
    """int64 [Q, N]: negatives of each question, in the order of the held-out items."""
    md5: str = ""
    """MD5 of the file that the negatives came from; empty when they were sampled."""
    num_seen: int = 0
    """How many of all negatives are items of their question's history."""
    draw: str = ""
    """The way in which the negatives were sampled: another way draws another set from the same
    seed; empty when they came from a file."""

    @property
    def protocol(self) -> dict[str, str]:
        """The set's name, and for a file the MD5 of its content: its path identifies nothing.

        `seen_candidates` tells how many negatives are items of the history, where some are, and
        `draw` how they were sampled.
        """
        fields = {"candidates": self.name}
        if self.md5:
            fields["negatives_md5"] = self.md5
        if self.num_seen:
            fields["seen_candidates"] = count_and_share(self.num_seen, self.negatives_QN.numel())
        if self.draw:
            fields["draw"] = self.draw
        return fields

    def counts(self, encoded: Encoded, questions: Questions, columns: int) -> tuple[Tensor, Tensor]:
        """As in `CandidateSet`; only the held-out items and their negatives are scored."""
        return count_among_listed(encoded, questions, self.negatives_QN.numpy()[questions.rows_Q])


def read_candidates(path: Path, corpus: Corpus, held_out: HeldOut, seen: SeenPolicy) -> Listed:
    """Read negatives from a file of lines `user item item ...`, in raw ids, one line a user.

    `InputError`, with the line's number, for an unknown id, a line without negatives or with
    another number of them than the first, a second line of a user, and a negative twice in a line.
    `InputError` too for a file that cannot be read, a user with several held-out items, and an
    evaluated user without a line or with the held-out item among the negatives.

    Where the policy `seen` excludes the items of a history, a negative from it could never be
    ranked above the held-out item, and the question would be easier than its name says:
    `InputError` (docs/pitfalls.md, "seen items among the negatives"). Under the other policies such
    negatives compete, and the set is named for them.
    """
    check_one_target_per_user(held_out, "a negatives file")
    content = content_of(path)
    rows: dict[int, list[int]] = {}
    line_numbers: dict[int, int] = {}
    number = -1
    for line_number, line in enumerate(lines_of(path, content), 1):
        user, *items = re.findall(r"[^ \t]+", line) or [""]
        if number < 0:
            number = len(items)
        if len(items) != number or number == 0:
            raise InputError(
                f"{path}, line {line_number}: {len(items)} negatives, but the first line has "
                f"{number}; every user needs the same number, at least 1"
            )
        try:
            user_id = corpus.user_names.index(user)
            negatives = [corpus.item_names.index(name) for name in items]
        except InputError as error:
            raise InputError(f"{path}, line {line_number}: {error}") from error
        if user_id in rows:
            raise InputError(f"{path}, line {line_number}: user {user} has a line already")
        if len(set(negatives)) < number:
            raise InputError(f"{path}, line {line_number}: a negative is listed twice")
        rows[user_id], line_numbers[user_id] = negatives, line_number
    absent = [user for user in held_out.histories.users.tolist() if user not in rows]
    if absent:
        raise InputError(
            f"{path}: no line for user {corpus.user_names[absent[0]]} and {len(absent) - 1} "
            "others that are evaluated; add their negatives"
        )
    negatives_table = torch.tensor([rows[user] for user in held_out.histories.users.tolist()])
    targets = torch.from_numpy(corpus.items[held_out.targets].astype(np.int64))
    conflicts = (negatives_table == targets[:, None]).any(1).nonzero()[:, 0].tolist()
    if conflicts:
        name = corpus.user_names[int(held_out.histories.users[conflicts[0]])]
        raise InputError(
            f"{path}: the held-out item of user {name} and of {len(conflicts) - 1} others is among "
            "their own negatives; remove it there"
        )
    is_seen_QN = is_in_history(corpus, held_out, negatives_table.numpy())
    num_seen = int(is_seen_QN.sum())
    if num_seen and seen == "excluded":
        seen_lines = [
            (line_numbers[int(held_out.histories.users[question])], int(question))
            for question in np.flatnonzero(is_seen_QN.any(1))
        ]
        line_number, question = min(seen_lines)
        item = int(negatives_table[question, int(is_seen_QN[question].argmax())])
        user_id = int(held_out.histories.users[question])
        raise InputError(
            f"{path}, line {line_number}: item {corpus.item_names[item]} is in the history of user "
            f"{corpus.user_names[user_id]}, and {count_and_share(num_seen, is_seen_QN.size)} "
            "negatives are in their users' histories; seen items are excluded from the ranking, so "
            "these could never be ranked above the held-out item; remove them from the file, or "
            "let seen items compete like all others (--seen kept, or evaluation.seen=kept)"
        )
    name = f"file-{number}-seen" if num_seen else f"file-{number}"
    return Listed(name, negatives_table, hashlib.md5(content).hexdigest(), num_seen)


def lines_of(path: Path, content: bytes) -> list[str]:
    """The lines of the content of a negatives file; `InputError` when it is not UTF-8 text.

    A byte-order mark is left out. Only line feeds and carriage returns end a line: ids may contain
    the other characters at which `str.splitlines` cuts, such as U+2028.
    """
    try:
        lines = re.split(r"\r\n|\n|\r", content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"negatives file {path} is not UTF-8 text ({error})") from error
    return lines if lines[-1] else lines[:-1]


def content_of(path: Path) -> bytes:
    """The content of a negatives file; `InputError` when it cannot be read."""
    if path.exists() and not path.is_file():
        raise InputError(f"negatives file {path} cannot be read (it is not a file)")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"negatives file {path} does not exist") from error
    except OSError as error:
        raise InputError(f"negatives file {path} cannot be read ({error})") from error


def is_in_history(
    corpus: Corpus, held_out: HeldOut, items_QN: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """bool [Q, N]: whether item n of row q is in the history of question q."""
    is_seen_QN = np.zeros(items_QN.shape, dtype=bool)
    for first in range(0, len(held_out), HISTORIES):
        rows = np.arange(first, min(first + HISTORIES, len(held_out)))
        histories = held_out.histories.select(rows)
        owners_T = np.repeat(np.arange(len(rows)), histories.stops - histories.starts)
        keys_T = owners_T * corpus.num_items + corpus.items[flat_indices(histories)]
        keys_QN = np.arange(len(rows))[:, None] * corpus.num_items + items_QN[rows]
        is_seen_QN[rows] = np.isin(keys_QN, keys_T)
    return is_seen_QN


def count_and_share(number: int, total: int) -> str:
    """A count with what it is of, such as `3 of 400 (0.75%)`."""
    return f"{number:,} of {total:,} ({100 * number / total:.3g}%)"


def seen_notes(tables: Mapping[str, RankTable]) -> list[str]:
    """A note on each rank table, by the name of its candidates, some of which were seen."""
    return [
        f"{name}: {table.protocol['seen_candidates']} negatives are in their users' histories"
        for name, table in tables.items()
        if "seen_candidates" in table.protocol
    ]


def md5_of(path: Path) -> str:
    """The MD5 of a negatives file, in hexadecimal; `InputError` when it cannot be read."""
    return hashlib.md5(content_of(path)).hexdigest()


def check_one_target_per_user(held_out: HeldOut, what: str) -> None:
    """Raise `InputError` when a user has several held-out items.

    Each would be ranked in a list of its own, without the others, and one could even be a negative
    of another (a held-out item must not be a negative): Precision, NDCG and MAP would then mean
    nothing. `what` names the candidate set in the message.
    """
    if len(np.unique(held_out.histories.users)) < len(held_out):
        raise InputError(
            f"evaluation: {what} needs one held-out item a user, but this split holds out several; "
            "rank all items (candidates full), or split by leave-one-out or held-out users"
        )

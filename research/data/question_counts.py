"""How many held-out items of a part are asked for in doubt: after a tie, too early, or unseen.

The audit makes findings of it (`split_checks.py`); a run's summary keeps the numbers of the parts
that it ranked, and `show` and reports write them beside the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.data.findings import percent, share_of, span
from research.data.tied_times import FinerTimes
from research.storage.evaluation_records import QuestionsRecord

# `show` writes the line, and of a corpus it shows without importing torch.
if TYPE_CHECKING:
    from research.data.held_out import HeldOut, Ranges

Mask = NDArray[np.bool_]


def are_tied(timestamps: NDArray[np.int64], held_out: HeldOut) -> Mask:
    """bool [Q]: whether the held-out item has the time of the newest item of its history."""
    tied_Q: Mask = timestamps[held_out.targets] == timestamps[held_out.histories.stops - 1]
    return tied_Q


def newest_training_time(timestamps: NDArray[np.int64], training: Ranges) -> int:
    """The time of the newest interaction that is trained on; there is one."""
    return int(timestamps[training.stops - 1].max())


def are_unseen(corpus: Corpus, held_out: HeldOut, counts_V: NDArray[np.int64]) -> Mask:
    """bool [Q]: whether no training interaction has the held-out item.

    `counts_V` [V] are the training interactions of each item.
    """
    unseen_Q: Mask = counts_V[corpus.items[held_out.targets]] == 0
    return unseen_Q


def questions_record(
    corpus: Corpus, held_out: HeldOut, training: Ranges, counts_V: NDArray[np.int64]
) -> QuestionsRecord:
    """The numbers of a part; `training` and `counts_V` [V] are what is trained on."""
    times, tied, before = corpus.timestamps, None, None
    if times is not None:
        tied = int(are_tied(times, held_out).sum())
        newest = newest_training_time(times, training)
        before = int((times[held_out.targets] < newest).sum())
    return QuestionsRecord(
        questions=len(held_out),
        tied=tied,
        finer_times=FinerTimes.of(corpus) is not None,
        before_training_end=before,
        unseen=int(are_unseen(corpus, held_out, counts_V).sum()),
    )


def questions_line(*records: QuestionsRecord) -> str:
    """What a reader of a part's figures must know of its questions, as a phrase.

    Of several records, of runs of one cell on one corpus, numbers are told from the least to the
    greatest: what is trained on may differ by the seed.
    """

    def shares(counts: Sequence[int]) -> str:
        pairs = zip(counts, records)
        return span([share_of(count, record.questions) for count, record in pairs], percent)

    numbers = span([record.questions for record in records], lambda number: f"{number:,}")
    phrases = [f"{numbers} held-out items"]
    tied = [record.tied for record in records if record.tied is not None]
    early = [each.before_training_end for each in records if each.before_training_end is not None]
    if not tied or not early:
        phrases.append("no times, so that the order of the file is that of time")
    else:
        order = "finer times decide" if records[0].finer_times else "the order of the file decides"
        phrases += [
            f"{shares(tied)} with the time of the item before them ({order})",
            f"{shares(early)} older than the newest training event",
        ]
    unseen = shares([record.unseen for record in records])
    return "; ".join([*phrases, f"{unseen} of items that no training event has"])

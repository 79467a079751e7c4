"""Checks of a corpus under a split: what is held out, and what training knows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.data.findings import (
    PROBLEM_SHARE,
    WARNED_SHARE,
    Finding,
    Level,
    level_of,
    percent,
    share_of,
)
from research.data.question_counts import are_tied, are_unseen
from research.data.repeats import Repeats
from research.data.split_config import AnySplit
from research.data.splits import (
    TEMPORAL,
    GlobalTemporal,
    HeldOut,
    Ranges,
    Split,
    training_counts,
)
from research.data.tied_times import FIXED_THROUGH_TIME, FinerTimes, OrderAgreement
from research.data.time_units import SECONDS_OF_A_DAY, units_of_a_second

Seen = Literal["excluded", "kept", "zero"]


@dataclass(frozen=True, eq=False)
class Audited:
    """A corpus and its split, as the checks read them."""

    corpus: Corpus
    config: AnySplit
    split: Split
    repeats: Repeats
    seen: Seen
    """How items of the history are ranked: see `EvaluationConfig.seen`."""

    @cached_property
    def training_counts_V(self) -> NDArray[np.int64]:
        """int64 [V]: the number of training interactions of each item."""
        counts_V: NDArray[np.int64] = training_counts(self.corpus, self.split).numpy()
        return counts_V

    def parts(self) -> dict[str, HeldOut]:
        """The parts that hold something out, by name."""
        both = {"validation": self.split.validation, "test": self.split.test}
        return {part: held_out for part, held_out in both.items() if len(held_out)}

    def of_each_part(self, check: Callable[[Audited, str, HeldOut], Finding]) -> list[Finding]:
        """The findings of a check of held-out items, one a part."""
        return [check(self, part, held_out) for part, held_out in self.parts().items()]


def split_checks(audited: Audited) -> list[Finding]:
    """The findings of every check of a corpus under a split."""
    corpus, by_time = audited.corpus, isinstance(audited.config, GlobalTemporal)
    findings = []
    if corpus.timestamps is None:
        findings.append(file_order(corpus))
    elif not by_time:
        # At points in time, all that is held out is later than the whole history.
        findings += audited.of_each_part(ties)
    findings += audited.of_each_part(seen_targets)
    findings += audited.of_each_part(cold_targets)
    findings += [not_evaluated(audited), rows_without_target(audited)]
    if corpus.timestamps is not None:
        findings.append(later_events(audited, corpus.timestamps))
    return findings


def file_order(corpus: Corpus) -> Finding:
    """A corpus without times: the order of the file decides what is held out."""
    agreement = OrderAgreement.of(corpus.items, corpus.offsets)
    sentence = (
        "The corpus has no times, so the order of the file decides which items are held out. "
        "Make sure that the file has each user's interactions oldest first, or prepare the "
        "corpus from a source with times."
    )
    numbers: dict[str, float] = {"interactions": corpus.num_interactions}
    if agreement.pairs:
        numbers |= {"pairs": agreement.pairs, "same_way_share": agreement.share}
        sentence += f" There, {agreement.sentence}"
        sentence += (
            ": it looks less like an order of time than like one of the items."
            if agreement.exceeds(FIXED_THROUGH_TIME)
            else "."
        )
    return Finding(check="order", level="warning", numbers=numbers, sentence=sentence)


def ties(audited: Audited, part: str, held_out: HeldOut) -> Finding:
    """Held-out items with the time of the item before them."""
    assert audited.corpus.timestamps is not None, "there are times to compare"
    times = audited.corpus.timestamps
    count = int(are_tied(times, held_out).sum())
    finer = FinerTimes.of(audited.corpus)
    if finer is not None:
        return _within_the_second(part, count, len(held_out), finer)
    return share_finding(
        f"ties in {part}",
        ("tied", count, len(held_out)),
        f"of the {part}'s held-out items have the time of the item before them, so that the order "
        "of the file decides which of the two is held out.",
        "Prepare the corpus from finer times, or say this share beside the figures.",
    )


def _within_the_second(part: str, count: int, num_questions: int, finer: FinerTimes) -> Finding:
    """Held-out items in the second of the item before them, where finer times decided."""
    share = share_of(count, num_questions)
    # The finer times are not kept, so that their ties are known for all interactions together.
    level = level_of(min(share, finer.tied_share))
    sentence = (
        f"{percent(share)} of the {part}'s held-out items are within the second of the item before "
        "them; finer times decided which of the two is held out"
    )
    if finer.tied_share:
        sentence += (
            f", but {percent(finer.tied_share)} of all interactions have the very time of another "
            "one of the same user, and the order of the file decides between these"
        )
    return Finding(
        check=f"ties in {part}",
        level=level,
        numbers={
            "questions": num_questions,
            "within_the_second": count,
            "within_the_second_share": share,
            "tied_share_of_interactions": finer.tied_share,
        },
        sentence=sentence + "." + " Say so beside the figures." * (level != "fine"),
    )


def share_finding(
    check: str, counted: tuple[str, int, int], statement: str, remedy: str
) -> Finding:
    """The finding that a share of questions has a fault.

    `counted` is what was counted, how many have it, and of how many questions. The sentence is the
    share with `statement` and, unless it is fine, `remedy`.
    """
    name, count, num_questions = counted
    share = share_of(count, num_questions)
    level = level_of(share)
    return Finding(
        check=check,
        level=level,
        numbers={"questions": num_questions, name: count, "share": share},
        sentence=f"{percent(share)} {statement}" + f" {remedy}" * (level != "fine"),
    )


def seen_targets(audited: Audited, part: str, held_out: HeldOut) -> Finding:
    """Held-out items that are in their own history."""
    first = audited.repeats.first_N[held_out.targets]
    count = int((first < held_out.histories.stops).sum())
    share = share_of(count, len(held_out))
    level = level_of(share)
    consequence = {
        "excluded": "each is a certain miss, as items of the history are not ranked",
        "zero": "each is nearly certain to be a miss, as items of the history score 0",
        "kept": "each can be hit, as items of the history are ranked",
    }[audited.seen]
    if audited.seen == "kept":
        # Nothing is lost then, but a model that repeats the history has an advantage.
        level = "fine"
    remedy = (
        " Say this share beside the figures, evaluate with --seen kept, or prepare the corpus with "
        "--duplicates first."
    )
    return Finding(
        check=f"targets in the history, {part}",
        level=level,
        numbers={"questions": len(held_out), "seen": count, "share": share},
        sentence=(
            f"{percent(share)} of the {part}'s held-out items are in their own history: "
            f"{consequence}." + remedy * (level != "fine")
            if count
            else f"No held-out item of the {part} is in its own history."
        ),
    )


def cold_targets(audited: Audited, part: str, held_out: HeldOut) -> Finding:
    """Held-out items without a training interaction, which are all that `ColdItems` tests."""
    unseen_Q = are_unseen(audited.corpus, held_out, audited.training_counts_V)
    new_items = isinstance(audited.config, TEMPORAL)
    finding = share_finding(
        f"cold items, {part}",
        ("cold", int(unseen_Q.sum()), len(held_out)),
        f"of the {part}'s held-out items never occur in training, so that a model of item ids "
        "cannot learn them.",
        "Say this share beside the figures, or "
        # Items that begin after a cut may have any number of interactions.
        + (
            "rank by content vectors (items.vectors)."
            if new_items
            else "set --item-core when preparing."
        ),
    )
    if isinstance(audited.config, ColdItems) and part == "test":
        sentence = (
            f"{percent(finding.numbers['share'])} of the test's held-out items never occur in "
            "training, by design: ColdItems asks for items that training never saw."
        )
        return replace(finding, level="fine", sentence=sentence)
    return finding


def not_evaluated(audited: Audited) -> Finding:
    """Users that are too short for the split, and interactions that nothing reads."""
    corpus, split = audited.corpus, audited.split
    share = share_of(split.not_evaluated, corpus.num_users)
    unused = int((~read_interactions(corpus, split)).sum())
    numbers = {
        "users": split.not_evaluated,
        "share": share,
        "interactions_unused": unused,
        "interactions_unused_share": share_of(unused, corpus.num_interactions),
    }
    sentence = (
        f"{split.not_evaluated:,} of {corpus.num_users:,} users ({percent(share)}) cannot be "
        f"evaluated under this split; {unused:,} interactions are neither trained on, nor shown "
        "as history, nor asked for."
    )
    # These users are missing in the figures; they do not make the others' figures wrong.
    level: Level = "warning" if share >= PROBLEM_SHARE else "fine"
    if level == "warning":
        sentence += " The figures speak of the other users only: say so beside them."
    return Finding(check="users not evaluated", level=level, numbers=numbers, sentence=sentence)


def read_interactions(corpus: Corpus, split: Split) -> NDArray[np.bool_]:
    """bool [N]: interactions in a training row or a question's history, or that are a target."""
    histories = (split.validation.histories, split.test.histories)
    read_N = covered(corpus, (split.training, *histories))
    read_N[split.validation.targets] = True
    read_N[split.test.targets] = True
    return read_N


def covered(corpus: Corpus, pieces: Sequence[Ranges]) -> NDArray[np.bool_]:
    """bool [N]: whether an interaction is in any of the pieces, which may overlap."""
    changes = np.zeros(corpus.num_interactions + 1, dtype=np.int64)
    for ranges in pieces:
        changes += np.bincount(ranges.starts, minlength=len(changes))
        changes -= np.bincount(ranges.stops, minlength=len(changes))
    covered_N: NDArray[np.bool_] = np.cumsum(changes)[:-1] > 0
    return covered_N


def rows_without_target(audited: Audited) -> Finding:
    """Training rows of a single item, from which the next item cannot be learned."""
    training = audited.split.training
    count = int((training.stops - training.starts < 2).sum())
    share = share_of(count, len(training))
    level: Level = "fine" if share < WARNED_SHARE else "warning"
    return Finding(
        check="rows without a target",
        level=level,
        numbers={"users": count, "share": share},
        sentence=(
            f"{count:,} of {len(training):,} users ({percent(share)}) have a single training item: "
            "next-item learning has no target there."
            + " Set --user-core when preparing, so that each user has two training items, or give "
            f"{len(training) - count:,} as the number of users trained on." * (level != "fine")
        ),
    )


def later_events(audited: Audited, timestamps: NDArray[np.int64]) -> Finding:
    """Test items for which training has later events.

    They are other users' and, in `ColdItems`, the user's own with items that are not held out.
    """
    training, test = audited.split.training, audited.split.test
    targets = timestamps[test.targets]
    whose = "other users"
    if isinstance(audited.config, ColdItems):
        whose += ", and of the same user with other items,"
    times = np.sort(timestamps[covered(audited.corpus, (training,))])
    leaked = targets < times[-1]
    share = share_of(int(leaked.sum()), len(targets))
    later = 1.0 - np.searchsorted(times, targets, side="right") / len(times)
    lag = float(np.median(times[-1] - targets[leaked])) if leaked.any() else 0.0
    numbers = {
        "questions": len(targets),
        "share": share,
        "median_lag": lag,
        "median_later_training_share": float(np.median(later)),
    }
    if share < WARNED_SHARE:
        sentence = f"{percent(share)} of test items are older than the newest training event."
        return Finding(check="later events", level="fine", numbers=numbers, sentence=sentence)
    return Finding(
        check="later events",
        level="warning",
        numbers=numbers,
        sentence=(
            f"For {percent(share)} of test items, training has events of {whose} that are "
            f"later, at the median by {duration(lag, int(times[-1]))}, and the median test item "
            f"is older than {percent(numbers['median_later_training_share'])} of training. "
            "No recommender of that day could have known them: report a split at points in time "
            "(split=TemporalCut) too."
        ),
    )


def duration(lag: float, newest: int) -> str:
    """A difference of times as text: in days if the newest time says what unit they are in."""
    units = units_of_a_second(newest)
    if units is None:
        return f"{lag:,.0f} in the unit of the times"
    return f"{lag / units / SECONDS_OF_A_DAY:,.1f} days"

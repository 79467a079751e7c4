"""The table of a benchmark, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.benchmark.peers.environment import TITLES
from experiments.benchmark.peers.known import KNOWN, LEFT_OUT, NOTHING_KNOWN
from experiments.benchmark.results import (
    OURS,
    Ceilings,
    Fact,
    Measured,
    Spread,
    differences,
    digits,
    unexplained,
)
from experiments.benchmark.rounds import Rounds, is_partial
from experiments.benchmark.works import WORKS

HEAD = (
    "| work | side | seconds (least to most) | times ours | peak MB | GFLOP | "
    "share of the fp32 rate | note |\n|---|---|---|---|---|---|---|---|"
)


# What is said of every row of ours that trains; peers run through their own trainers where they
# have one.
PLAIN_LOOP = (
    "A plain loop over batches: targets, losses, gradients and the optimizer's step, without the "
    "log and the checks of a run."
)
# Targets of two sides may differ by this factor before the ratio is also given per target.
SIMILAR = 1.25


class Notes:
    """Numbered sentences below a table; equal ones share a number."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def mark(self, sentence: str) -> str:
        """The number of a sentence as text, empty for an empty one."""
        if not sentence:
            return ""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
        return str(self.sentences.index(sentence) + 1)


def seconds_text(values: Sequence[float]) -> str:
    """The median of some times, and their least and most."""
    spread = Spread.of(values)
    return f"{digits(spread.middle)} ({digits(spread.least)} to {digits(spread.most)})"


def ratio_text(ours: Sequence[Measured], theirs: Sequence[Measured]) -> str:
    """The ratio of the medians, and the least and most of the rounds; a reason if there is none.

    Where one side has many more targets than the other, the ratio of seconds per target follows.
    """
    if not ours:
        return "none: ours failed"
    known = KNOWN.get((theirs[0].side, theirs[0].work), NOTHING_KNOWN)
    unlike = unexplained(ours[0].facts, theirs[0].facts, known.differing)
    if unlike:
        return f"none: {'; '.join(unlike)}"
    middle = Spread.of([one.seconds for one in theirs]).middle
    middle /= Spread.of([one.seconds for one in ours]).middle
    rounds = Spread.of([their.seconds / own.seconds for own, their in zip(ours, theirs)])
    text = f"**{digits(middle)}** ({digits(rounds.least)} to {digits(rounds.most)})"
    own_targets, their_targets = ours[0].facts.get("targets"), theirs[0].facts.get("targets")
    if not isinstance(own_targets, int) or not isinstance(their_targets, int):
        return text
    more = their_targets / own_targets
    return text if 1 / SIMILAR <= more <= SIMILAR else f"{text}; {digits(middle / more)} a target"


def explanation(facts: Mapping[str, Fact], theirs: Measured) -> str:
    """What a reader should know of a peer's row: its remark, and how its facts differ, and why."""
    known = KNOWN.get((theirs.side, theirs.work), NOTHING_KNOWN)
    reasons = [
        f"{text} ({known.differing[name]})"
        for name, text in differences(facts, theirs.facts).items()
        if name in known.differing
    ]
    differing = "Differs: " + "; ".join(reasons) + "." if reasons else ""
    return " ".join(part for part in (known.remark, differing) if part)


def row(rounds: Rounds, name: str, side: str, notes: Notes) -> str:
    """The row of a side that measured a work."""
    ours, theirs = rounds.of(name, OURS), rounds.of(name, side)
    one = theirs[0]
    seconds = [measured.seconds for measured in theirs]
    sentences, work = [], WORKS[name]
    if side == OURS and work.config is not None and not work.ranks:
        sentences.append(PLAIN_LOOP)
    if side != OURS and ours:
        sentences.append(explanation(ours[0].facts, one))
    if is_partial(one):
        sentences.append(f"{one.steps:,} of {one.steps_in_epoch:,} steps were timed, and scaled.")
    rate = Spread.of([ceilings.gflops for ceilings in rounds.ceilings]).middle
    share = one.gflop / Spread.of(seconds).middle / rate
    cells = [
        f"{name} {work.title}" if side == OURS else "",
        TITLES[side],
        seconds_text(seconds),
        "" if side == OURS else ratio_text(ours, theirs),
        f"{max(measured.peak_megabytes for measured in theirs):,.0f}",
        f"{one.gflop:,.0f}" if one.gflop else "",
        f"{share:.0%}" if one.gflop else "",
        ", ".join(filter(None, map(notes.mark, sentences))),
    ]
    return f"| {' | '.join(cells)} |"


def markdown(rounds: Rounds, works: Sequence[str], command: str, machine: str) -> str:
    """The table, its notes, and how it was made."""
    notes, lines = Notes(), [HEAD]
    for name in works:
        sides = dict.fromkeys(one.side for one in rounds.measured if one.work == name)
        lines += [row(rounds, name, side, notes) for side in sides]
    lines += ["", *(f"{number}. {text}" for number, text in enumerate(notes.sentences, 1))]
    lines += ["", f"Command: `{command}`. {machine} {ceilings_text(rounds.ceilings)}"]
    lines += left_out(rounds, works)
    lines += [f"{TITLES[bad.side]} failed in {bad.work}: {bad.reason}" for bad in rounds.failures]
    return "\n".join(lines) + "\n"


def left_out(rounds: Rounds, works: Sequence[str]) -> list[str]:
    """A line that says which peers of these rounds did not do which works, and why."""
    sides = dict.fromkeys(one.side for one in rounds.measured)
    reasons = [
        f"{TITLES[peer]} in {name} ({reason})"
        for (peer, name), reason in LEFT_OUT.items()
        if peer in sides and name in works
    ]
    return [f"Left out: {'; '.join(reasons)}."] if reasons else []


def ceilings_text(ceilings: Sequence[Ceilings]) -> str:
    """The machine's own rates, with their spread over the rounds."""
    products = seconds_text([one.gflops for one in ceilings])
    copies = seconds_text([one.copy for one in ceilings])
    return (
        f"The machine's rates in this run: {products} GFLOP/s in fp32 products, {copies} GB/s in "
        "copies. Seconds are medians over the rounds; of training they are those of an epoch. "
        "GFLOP are those of the matrix products that a side does, and the last column is their "
        "share of the fp32 rate."
    )

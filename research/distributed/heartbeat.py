"""What the ranks of one job tell each other, and what follows when one falls silent.

Nothing here talks or waits: `research/distributed/watchdog.py` does, and asks `Peers.verdict` what
to make of what it has heard. Times are seconds of a clock that stands still while this process is
stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from research.distributed.failures import CONTINUES, FAILED, STOPPED
from research.distributed.liveness import is_alive, machine

# A rank whose connections broke, or whose work is over, waits no longer than this for news.
SOON = 4.0


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself every second."""

    number: int
    """Counts the beats."""
    moves: int
    """Counts what the main thread has got done."""
    step: int
    """The last step that was told; 0: none yet."""
    phase: str
    """What it is doing, for people."""
    where: str
    """What the main thread executes."""
    waits: bool
    """Whether that is a place where a rank waits for others."""
    host: str
    machine: str
    """Equal for ranks whose processes can see each other."""
    pid: int
    ended: int | None = None
    """Exit code of a rank whose work is over; None: at work."""
    failure: str | None = None
    """The error with which it ended, in a line."""
    informed: bool = False
    """Whether it knows the verdict."""

    def packed(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> Beat:
        """From the store."""
        return Beat(**json.loads(text))


@dataclass(frozen=True)
class Verdict:
    """Why all ranks end."""

    text: str
    """For people, whole."""
    line: str
    """The same in a few words."""
    code: int = FAILED
    """Exit code of those who end because of it."""
    stacks: bool = False
    """Whether every rank is to show what its main thread executes."""
    rank: int = -1
    """Who says so."""

    def packed(self) -> str:
        """For the store."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> Verdict:
        """From the store."""
        return Verdict(**json.loads(text))


@dataclass(frozen=True)
class Bounds:
    """How long is too long, in seconds."""

    stall: float
    """Without progress of any rank."""
    silent: float
    """Without a word from a rank."""
    start: float
    """Until the first word of a rank: programs are read from slow disks, and queues differ."""


@dataclass(frozen=True)
class Heard:
    """A rank as another one knows it."""

    beat: Beat
    heard: float
    """When the beat last changed."""
    moved: float
    """When `moves` last changed."""
    near: bool
    """Whether its process can be seen from here, so that its absence means something."""


class Peers:
    """What a rank knows of all ranks, itself among them."""

    def __init__(self, rank: int, world: int, bounds: Bounds, program: str) -> None:
        self.rank = rank
        self.world = world
        self.bounds = bounds
        self.program = program
        self.machine = machine()
        self.known: dict[int, Heard] = {}

    def hear(self, beats: Mapping[int, Beat], now: float) -> None:
        """Take in what the store holds."""
        known = dict(self.known)
        for rank, beat in beats.items():
            old = known.get(rank)
            if old is None:
                known[rank] = Heard(beat, now, now, beat.machine == self.machine)
            elif beat.number != old.beat.number:
                moved = now if beat.moves != old.beat.moves else old.moved
                known[rank] = replace(old, beat=beat, heard=now, moved=moved)
        self.known = known

    def all_ended(self) -> bool:
        """Whether the work of every rank is over."""
        return len(self.known) == self.world and all(
            each.beat.ended is not None for each in self.known.values()
        )

    def all_informed(self, now: float) -> bool:
        """Whether every rank that could know the verdict does."""
        return len(self.known) == self.world and all(
            each.beat.informed or self._is_gone(each) or now - each.heard > SOON
            for rank, each in self.known.items()
            if rank != self.rank
        )

    def verdict(self, now: float, *, hurry: bool = False) -> Verdict | None:
        """What is wrong by now, if anything; `now` is when the store last answered.

        `hurry`: this rank's connections broke, so that a silence of some seconds explains it.
        """
        others = {rank: each for rank, each in self.known.items() if rank != self.rank}
        at_work = {rank: each for rank, each in others.items() if each.beat.ended is None}
        for rank, each in at_work.items():
            if self._is_gone(each):
                why = "its process no longer exists; it was killed, crashed or ran out of memory"
                return self._lost(rank, each, now, "is gone", why)
        silent = min(self.bounds.silent, SOON) if hurry else self.bounds.silent
        for rank, each in at_work.items():
            if now - each.heard > silent:
                why = "it was killed or stopped, its machine is down or the link to it is cut"
                return self._lost(rank, each, now, "has fallen silent", why)
        if len(self.known) < self.world and now > self.bounds.start:
            missing = [str(rank) for rank in range(self.world) if rank not in self.known]
            name = f"{'rank' if len(missing) == 1 else 'ranks'} {', '.join(missing)}"
            line = f"{name} of {self.world} never began"
            told = f"{line}: not heard of within {now:.0f} s. Look at what that machine says."
            return Verdict(f"{self.program}: {told}", line)
        own = self.known.get(self.rank)
        if own is None or (own.beat.ended is not None and not at_work):
            return None
        stopped = [rank for rank, each in others.items() if each.beat.ended is not None]
        deserted = own.beat.waits and now - own.moved > SOON
        if stopped and own.beat.ended is None and (deserted or hurry):
            return self._deserted(stopped[0])
        moved = max(each.moved for each in self.known.values() if each.beat.ended is None)
        if now - moved > self.bounds.stall:
            return self._stalled(now - moved)
        return None

    def name(self, rank: int) -> str:
        """A rank, its machine and its process."""
        name = f"rank {rank} of {self.world}"
        each = self.known.get(rank)
        return name if each is None else f"{name} on {each.beat.host} (pid {each.beat.pid})"

    def _is_gone(self, each: Heard) -> bool:
        return each.near and not is_alive(each.beat.pid)

    def _lost(self, rank: int, each: Heard, now: float, state: str, why: str) -> Verdict:
        line = f"{self.name(rank)} {state}"
        text = f"{self.program}: {line}: {why}. {heard_of(each, now)} All ranks end. {CONTINUES}"
        return Verdict(text, line)

    def _deserted(self, rank: int) -> Verdict:
        code = self.known[rank].beat.ended
        if code == STOPPED:
            line = f"{self.name(rank)} was stopped"
            return Verdict(f"{self.program}: {line}, so all stop. {CONTINUES}", line, STOPPED)
        line = f"{self.name(rank)} has ended its work while {self.name(self.rank)} waits for it"
        return Verdict(f"{self.program}: {line}. {CONTINUES}", line, FAILED, True)

    def _stalled(self, seconds: float) -> Verdict:
        at_work = {
            rank: each for rank, each in sorted(self.known.items()) if each.beat.ended is None
        }
        hang = [rank for rank, each in at_work.items() if not each.beat.waits] or list(at_work)
        blamed = len(hang) < len(at_work)
        line = f"no rank has made progress for {seconds:.0f} s"
        if blamed:
            verb = "hangs" if len(hang) == 1 else "hang"
            line += f"; {' and '.join(self.name(rank) for rank in hang)} {verb}"
        rows = [f"  {self.name(rank)}: {doing(at_work[rank].beat)}" for rank in hang]
        waiting = [rank for rank in at_work if rank not in hang]
        if waiting:
            first = waiting[0]
            who = "waits" if len(waiting) == 1 else f"and {len(waiting) - 1} others wait"
            rows.append(f"  {self.name(first)} {who}: {doing(at_work[first].beat)}")
        rows.append(
            f"All ranks end. {CONTINUES} Where one piece of work takes longer than that (a first "
            "compiled step, a download), give a longer --stall-seconds."
        )
        return Verdict(f"{self.program}: {line}\n" + "\n".join(rows), line, FAILED, True)


def heard_of(each: Heard, now: float) -> str:
    """When a rank was last heard of, and what it did then."""
    seconds = now - each.heard
    at = time.strftime("%H:%M:%S", time.localtime(time.time() - seconds))
    return f"Last heard of {seconds:.0f} s ago, at {at}: {doing(each.beat)}."


def doing(beat: Beat) -> str:
    """What a rank was doing, in a few words."""
    step = f", step {beat.step}" if beat.step else ""
    return f"{beat.phase}{step}, in {beat.where}"

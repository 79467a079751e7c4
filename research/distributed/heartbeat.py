"""What the ranks of a job tell each other in heartbeats, and what follows when one falls silent.

Nothing here sends, receives or waits: `research/distributed/watchdog.py` does, and asks
`Peers.verdict` what follows from the heartbeats it received. Times are seconds of a clock that
stands still while this process is suspended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from research.distributed.failures import CONTINUES, FAILED, STOPPED
from research.distributed.liveness import is_alive, machine

# Seconds without news after which a rank decides when its connections broke, or when another rank
# has ended while it waits.
SOON = 4.0


@dataclass(frozen=True)
class Heartbeat:
    """A heartbeat: what a rank says of itself every second."""

    number: int
    """Number of the heartbeat, which rises by 1."""
    moves: int
    """How often the rank has reported progress (`Activity.moves`)."""
    step: int
    """Last step of the present work that the rank reported; 0: none yet."""
    phase: str
    """Name of the rank's present work, for people."""
    where: str
    """What the rank's main thread executes: function, file and line."""
    waits: bool
    """Whether the main thread waits for other ranks there."""
    host: str
    """Host name of the rank's machine."""
    machine: str
    """Equal for ranks whose processes can see each other (`liveness.machine`)."""
    pid: int
    """Process id of the rank."""
    ended: int | None = None
    """Exit code of a rank whose work is over; None: it is at work."""
    failure: str | None = None
    """The error with which the rank fails, in one line; None: it has not failed."""
    informed: bool = False
    """Whether the rank knows the verdict that ends the job."""

    def packed(self) -> str:
        """Return the heartbeat as JSON text, for the store."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> Heartbeat:
        """Return the heartbeat from the store's JSON text."""
        return Heartbeat(**json.loads(text))


@dataclass(frozen=True)
class JobFailure:
    """Why all ranks of a job end."""

    text: str
    """The whole message, for people."""
    line: str
    """The reason in a few words."""
    code: int = FAILED
    """Exit code of the ranks that end because of it."""
    stacks: bool = False
    """Whether every rank prints what its main thread executes."""
    rank: int = -1
    """The rank that gave the verdict; -1: not set yet."""

    def packed(self) -> str:
        """Return the verdict as JSON text, for the store."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> JobFailure:
        """Return the verdict from the store's JSON text."""
        return JobFailure(**json.loads(text))


@dataclass(frozen=True)
class TimeLimits:
    """How many seconds are too long."""

    stall: float
    """Seconds without progress of any rank."""
    silent: float
    """Seconds without a heartbeat of a rank."""
    start: float
    """Seconds until the first heartbeat of a rank: programs are read from slow disks, and queues
    differ."""


@dataclass(frozen=True)
class RankStatus:
    """What this rank knows of a rank from its heartbeats."""

    beat: Heartbeat
    """The newest heartbeat."""
    heard: float
    """Time at which the newest heartbeat was received."""
    moved: float
    """Time at which `moves` last changed."""
    near: bool
    """Whether its process can be seen from here, so that its absence means that it has ended."""


class Peers:
    """What a rank knows of all ranks, itself included."""

    def __init__(self, rank: int, world: int, bounds: TimeLimits, program: str) -> None:
        self.rank = rank
        self.world = world
        self.bounds = bounds
        self.program = program
        self.machine = machine()
        self.known: dict[int, RankStatus] = {}

    def hear(self, beats: Mapping[int, Heartbeat], now: float) -> None:
        """Take in the heartbeats that the store holds, by rank; `now` is when they were read."""
        known = dict(self.known)
        for rank, beat in beats.items():
            old = known.get(rank)
            if old is None:
                known[rank] = RankStatus(beat, now, now, beat.machine == self.machine)
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
        """Whether every other rank that can still learn of the verdict knows it."""
        return len(self.known) == self.world and all(
            each.beat.informed or self._is_gone(each) or now - each.heard > SOON
            for rank, each in self.known.items()
            if rank != self.rank
        )

    def verdict(self, now: float, *, hurry: bool = False) -> JobFailure | None:
        """Return what is wrong by now, or None; `now` is when the store last answered.

        With `hurry` (this rank's connections broke) a few seconds of silence of another rank are
        enough.
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
            return JobFailure(f"{self.program}: {told}", line)
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
        """Return a rank's name for messages, with its host and process id once they are known."""
        name = f"rank {rank} of {self.world}"
        each = self.known.get(rank)
        return name if each is None else f"{name} on {each.beat.host} (pid {each.beat.pid})"

    def _is_gone(self, each: RankStatus) -> bool:
        return each.near and not is_alive(each.beat.pid)

    def _lost(self, rank: int, each: RankStatus, now: float, state: str, why: str) -> JobFailure:
        line = f"{self.name(rank)} {state}"
        text = f"{self.program}: {line}: {why}. {heard_of(each, now)} All ranks end. {CONTINUES}"
        return JobFailure(text, line)

    def _deserted(self, rank: int) -> JobFailure:
        code = self.known[rank].beat.ended
        if code == STOPPED:
            line = f"{self.name(rank)} was stopped"
            return JobFailure(f"{self.program}: {line}, so all stop. {CONTINUES}", line, STOPPED)
        line = f"{self.name(rank)} has ended its work while {self.name(self.rank)} waits for it"
        return JobFailure(f"{self.program}: {line}. {CONTINUES}", line, FAILED, True)

    def _stalled(self, seconds: float) -> JobFailure:
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
        return JobFailure(f"{self.program}: {line}\n" + "\n".join(rows), line, FAILED, True)


def heard_of(each: RankStatus, now: float) -> str:
    """Return a sentence that says when a rank was last heard of, and what it was doing then."""
    seconds = now - each.heard
    at = time.strftime("%H:%M:%S", time.localtime(time.time() - seconds))
    return f"Last heard of {seconds:.0f} s ago, at {at}: {doing(each.beat)}."


def doing(beat: Heartbeat) -> str:
    """Return what a rank was doing, in a few words."""
    step = f", step {beat.step}" if beat.step else ""
    return f"{beat.phase}{step}, in {beat.where}"

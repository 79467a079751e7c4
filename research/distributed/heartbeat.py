"""What the ranks of a job tell each other in heartbeats, and what follows when one falls silent.

Nothing here sends, receives or waits: `research/distributed/watchdog.py` does, and asks
`Peers.failure` what follows from the heartbeats it received. Times are seconds of a clock that
stands still while this process is suspended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from research.distributed.failures import FAILED, RESUME_HINT, STOPPED
from research.distributed.liveness import is_alive, machine_id

# Seconds without news after which a rank decides when its connections broke, or when another rank
# has ended while it waits.
SHORT_SILENCE = 4.0


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
    """Equal for ranks whose processes can see each other (`liveness.machine_id`)."""
    pid: int
    """Process id of the rank."""
    ended: int | None = None
    """Exit code of a rank whose work is over; None: it is at work."""
    error: str | None = None
    """The error with which the rank fails, in one line; None: it has not failed."""
    informed: bool = False
    """Whether the rank knows the failure by which the job ends (`JobFailure`)."""

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
    rank: int | None = None
    """The rank that reported it to the others; None: it has not been reported."""

    def packed(self) -> str:
        """Return the failure as JSON text, for the store."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> JobFailure:
        """Return the failure from the store's JSON text."""
        return JobFailure(**json.loads(text))


@dataclass(frozen=True)
class TimeLimits:
    """How many seconds are too long."""

    stall: float
    """Seconds without progress of any rank."""
    silence: float
    """Seconds without a heartbeat of a rank."""
    start: float
    """Seconds until the first heartbeat of a rank: programs are read from slow disks, and queues
    differ."""


@dataclass(frozen=True)
class RankStatus:
    """What this rank knows of a rank from its heartbeats."""

    beat: Heartbeat
    """The newest heartbeat."""
    heard_at: float
    """Time at which the newest heartbeat was received."""
    moved_at: float
    """Time at which `moves` last changed."""
    same_machine: bool
    """Whether its process can be seen from here, so that its absence means that it has ended."""


class Peers:
    """What a rank knows of all ranks, itself included."""

    def __init__(self, rank: int, world: int, limits: TimeLimits, program: str) -> None:
        self.rank = rank
        self.world = world
        self.limits = limits
        self.program = program
        self.machine = machine_id()
        self.statuses: dict[int, RankStatus] = {}

    def receive(self, beats: Mapping[int, Heartbeat], now: float) -> None:
        """Take in the heartbeats that the store holds, by rank; `now` is when they were read."""
        statuses = dict(self.statuses)
        for rank, beat in beats.items():
            earlier = statuses.get(rank)
            if earlier is None:
                statuses[rank] = RankStatus(beat, now, now, beat.machine == self.machine)
            elif beat.number != earlier.beat.number:
                moved_at = now if beat.moves != earlier.beat.moves else earlier.moved_at
                statuses[rank] = replace(earlier, beat=beat, heard_at=now, moved_at=moved_at)
        self.statuses = statuses

    def all_ended(self) -> bool:
        """Whether every rank, this one included, has reported an exit code in a heartbeat.

        False while any rank has not been heard of.
        """
        return len(self.statuses) == self.world and all(
            status.beat.ended is not None for status in self.statuses.values()
        )

    def all_informed(self, now: float) -> bool:
        """Whether every other rank that can still learn of the job's failure knows it."""
        return len(self.statuses) == self.world and all(
            status.beat.informed or self._is_gone(status) or now - status.heard_at > SHORT_SILENCE
            for rank, status in self.statuses.items()
            if rank != self.rank
        )

    def failure(self, now: float, *, broken: bool = False) -> JobFailure | None:
        """Return why the job must end by now, or None; `now` is when the store last answered.

        With `broken` (this rank's connections broke) another rank counts as lost after
        `SHORT_SILENCE` seconds.
        """
        others = {rank: status for rank, status in self.statuses.items() if rank != self.rank}
        at_work = {rank: status for rank, status in others.items() if status.beat.ended is None}
        for rank, status in at_work.items():
            if self._is_gone(status):
                cause = "its process no longer exists; it was killed, crashed or ran out of memory"
                return self._lost_rank(rank, status, now, "is gone", cause)
        silence = min(self.limits.silence, SHORT_SILENCE) if broken else self.limits.silence
        for rank, status in at_work.items():
            if now - status.heard_at > silence:
                cause = "it was killed or stopped, its machine is down or the link to it is cut"
                return self._lost_rank(rank, status, now, "has fallen silent", cause)
        if len(self.statuses) < self.world and now > self.limits.start:
            missing = [str(rank) for rank in range(self.world) if rank not in self.statuses]
            name = f"{'rank' if len(missing) == 1 else 'ranks'} {', '.join(missing)}"
            line = f"{name} of {self.world} never began"
            sentence = f"{line}: not heard of within {now:.0f} s. Look at what that machine says."
            return JobFailure(f"{self.program}: {sentence}", line)
        own_status = self.statuses.get(self.rank)
        if own_status is None or (own_status.beat.ended is not None and not at_work):
            return None
        stopped = [rank for rank, status in others.items() if status.beat.ended is not None]
        deserted = own_status.beat.waits and now - own_status.moved_at > SHORT_SILENCE
        if stopped and own_status.beat.ended is None and (deserted or broken):
            return self._ended_rank(stopped[0])
        moved_at = max(
            status.moved_at for status in self.statuses.values() if status.beat.ended is None
        )
        if now - moved_at > self.limits.stall:
            return self._stalled_job(now - moved_at)
        return None

    def name(self, rank: int) -> str:
        """Return a rank's name for messages, with its host and process id once they are known."""
        name = f"rank {rank} of {self.world}"
        status = self.statuses.get(rank)
        return name if status is None else f"{name} on {status.beat.host} (pid {status.beat.pid})"

    def _is_gone(self, status: RankStatus) -> bool:
        return status.same_machine and not is_alive(status.beat.pid)

    def _lost_rank(
        self, rank: int, status: RankStatus, now: float, state: str, cause: str
    ) -> JobFailure:
        line = f"{self.name(rank)} {state}"
        text = f"{self.program}: {line}: {cause}. {last_heard_text(status, now)}"
        return JobFailure(f"{text} All ranks end. {RESUME_HINT}", line)

    def _ended_rank(self, rank: int) -> JobFailure:
        code = self.statuses[rank].beat.ended
        if code == STOPPED:
            line = f"{self.name(rank)} was stopped"
            return JobFailure(f"{self.program}: {line}, so all stop. {RESUME_HINT}", line, STOPPED)
        line = f"{self.name(rank)} has ended its work while {self.name(self.rank)} waits for it"
        return JobFailure(f"{self.program}: {line}. {RESUME_HINT}", line, FAILED, True)

    def _stalled_job(self, seconds: float) -> JobFailure:
        at_work = {
            rank: status
            for rank, status in sorted(self.statuses.items())
            if status.beat.ended is None
        }
        hang = [rank for rank, status in at_work.items() if not status.beat.waits] or list(at_work)
        blamed = len(hang) < len(at_work)
        line = f"no rank has made progress for {seconds:.0f} s"
        if blamed:
            verb = "hangs" if len(hang) == 1 else "hang"
            line += f"; {' and '.join(self.name(rank) for rank in hang)} {verb}"
        rows = [f"  {self.name(rank)}: {activity_text(at_work[rank].beat)}" for rank in hang]
        waiting = [rank for rank in at_work if rank not in hang]
        if waiting:
            first = waiting[0]
            who = "waits" if len(waiting) == 1 else f"and {len(waiting) - 1} others wait"
            rows.append(f"  {self.name(first)} {who}: {activity_text(at_work[first].beat)}")
        rows.append(
            f"All ranks end. {RESUME_HINT} Where one piece of work takes longer than that (a "
            "first compiled step, a download), give a longer --stall-seconds."
        )
        return JobFailure(f"{self.program}: {line}\n" + "\n".join(rows), line, FAILED, True)


def last_heard_text(status: RankStatus, now: float) -> str:
    """Return a sentence that says when a rank was last heard of, and what it was doing then."""
    seconds = now - status.heard_at
    at = time.strftime("%H:%M:%S", time.localtime(time.time() - seconds))
    return f"Last heard of {seconds:.0f} s ago, at {at}: {activity_text(status.beat)}."


def activity_text(beat: Heartbeat) -> str:
    """Return what a rank was doing, in a few words."""
    step = f", step {beat.step}" if beat.step else ""
    return f"{beat.phase}{step}, in {beat.where}"

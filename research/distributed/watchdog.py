"""Ends a job of several processes as a whole, and first says why.

Each rank sends a heartbeat every second through the store by which the launcher joins the ranks.
When a rank dies, hangs, is cut off or fails with an error, all others end within a time limit, and
the first output says what went wrong, and with which rank. With one process `Watchdog` does
nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import NoReturn

from research.distributed.activity import ACTIVITY
from research.distributed.failures import FAILED, RESUME_HINT, STOPPED, is_consequence, user_message
from research.distributed.heartbeat import SHORT_SILENCE, Heartbeat, JobFailure, Peers, TimeLimits
from research.distributed.launcher_environment import launcher_number, launcher_variable
from research.distributed.liveness import current_code
from research.distributed.signals import has_stopped
from research.errors import InputError

# Seconds between heartbeats.
INTERVAL = 1.0
# Seconds: the least --stall-seconds, the longest silence of a rank that is ever allowed, and the
# least time that a rank has until its first heartbeat.
SHORTEST_STALL, LONGEST_SILENCE, SHORTEST_START = 3.0, 60.0, 120.0
UNREACHABLE_HINT = (
    "The ranks cannot reach each other: set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the card "
    "of the network that their machines share (docs/many-machines.md)."
)
# Seconds that a rank waits for rank 0 to report the same error.
SAME_ERROR_SECONDS = 2.0
# Seconds after which a process that has begun to say why it ends is ended, even if its output is
# stuck.
OUTPUT_SECONDS = 10.0


class Watchdog:
    """A context around all that a rank does, from before the processes are joined to their end.

    An exception that leaves the block is reported, once for all ranks that raise the same, and ends
    the process with exit code 2 (`InputError`) or 1; `KeyboardInterrupt`, `SystemExit` and what
    follows from a signal pass through. A rank that does not fail waits for the others at the end of
    the block, so that a launcher sees them leave together.
    """

    def __init__(self, program: str, stall_seconds: float) -> None:
        if not stall_seconds >= SHORTEST_STALL:
            raise InputError(
                f"--stall-seconds is {stall_seconds:g}; it must be at least {SHORTEST_STALL:g}"
            )
        self.program = program
        self.world, self.rank, self.port, self.address = 1, 0, 0, ""
        if os.environ.get("WORLD_SIZE", "1") != "1":
            self.world, self.rank = launcher_number("WORLD_SIZE"), launcher_number("RANK")
            self.address = launcher_variable("MASTER_ADDR")
            self.port = launcher_number("MASTER_PORT")
        limits = TimeLimits(
            stall_seconds,
            min(stall_seconds, LONGEST_SILENCE),
            max(stall_seconds, SHORTEST_START),
        )
        self.peers = Peers(self.rank, self.world, limits, program)
        self._main = threading.get_ident()
        self._clock = 0.0
        self._beats = 0
        self._exit_code: int | None = None
        self._error: str | None = None
        # When the store last answered (None: it has not yet), and the error by which it was lost.
        self._last_answer: float | None = None
        self._store_error: Exception | None = None
        # The failure that the store has, which all ranks end by, and the one this rank reports.
        self._agreed_failure: JobFailure | None = None
        self._own_failure: JobFailure | None = None
        self._broken = False
        self._ending_lock = threading.Lock()
        self._wake, self._finished = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Watchdog:
        if self.world > 1:
            # Otherwise torch's messages about a store that is gone fill the screen before ours can
            # be read.
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
            for target in (self._exchange_heartbeats, self._decide):
                self._threads.append(threading.Thread(target=target, daemon=True))
                self._threads[-1].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.world == 1:
            return
        if error is None:
            self._wait_for_others(0)
        elif isinstance(error, SystemExit):
            code = error.code
            self._wait_for_others(code if isinstance(code, int) else int(code is not None))
        elif isinstance(error, KeyboardInterrupt) or has_stopped():
            self._wait_for_others(STOPPED)
        else:
            self._fail(error)

    def _wait_for_others(self, code: int) -> None:
        """Wait until all ranks have ended their work, as others may need this one or its store."""
        import torch.distributed

        joined = torch.distributed.is_initialized()
        self._exit_code = code
        self._wake.set()
        # Before the ranks are joined there may be no store, and no rank waits for this one.
        waits = joined or self._last_answer is not None
        while waits and self._store_error is None and not self._all_ended():
            time.sleep(0.05)
        self._finished.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout=INTERVAL)
        if joined and self._agreed_failure is None:
            torch.distributed.destroy_process_group()

    def _all_ended(self) -> bool:
        """Whether all ranks have ended their work, or all stop because this rank was asked to."""
        stopped = self._agreed_failure is not None and self._agreed_failure.code == STOPPED
        return self.peers.all_ended() or (stopped and self._exit_code == STOPPED)

    def _fail(self, error: BaseException) -> NoReturn:
        """Report this rank's error, unless another rank's explains it, and end the process."""
        # The launcher sends these to the other ranks when the first has ended. What follows is
        # short, and must not be interrupted.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        import torch.distributed

        # A rank that fails right after the ranks were joined may not have sent a heartbeat yet.
        deadline = time.monotonic() + SHORT_SILENCE
        joined = torch.distributed.is_initialized
        while joined() and self._last_answer is None and self._store_answers():
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if is_consequence(error):
            self._broken = True
            # A failure that another rank reports, or that this one finds in another, ends the
            # process meanwhile.
            time.sleep(SHORT_SILENCE + 2 * INTERVAL)
        self._ending_lock.acquire()
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        code = 2 if isinstance(error, InputError) else FAILED
        self._error = line
        self._wake.set()
        if self.rank > 0 and self._rank_0_reports(line):
            self._end(code)
        name = self.peers.name(self.rank)
        where = f"{ACTIVITY.phase}, step {ACTIVITY.step}" if ACTIVITY.step else ACTIVITY.phase
        text = f"{self.program}: {name} failed ({where}):"
        if self._broken:
            text = f"{self.program}: {name} lost touch with another, and none says why ({where}):"
        message = user_message(error)
        if message is not None:
            text = f"{self.program}: {message}" if self.rank == 0 else f"{text} {message}"
        else:
            trace = traceback.format_exception(type(error), error, error.__traceback__)
            remedy = UNREACHABLE_HINT if "connectFullMesh" in str(error) else RESUME_HINT
            text = f"{text}\n{''.join(trace)}{remedy}"
        self._print(text)
        self._agree_on_failure(JobFailure(text, f"{name} failed ({line})"))
        self._wait_until_informed()
        self._end(code)

    def _rank_0_reports(self, line: str) -> bool:
        """Whether rank 0 reports the same error within `SAME_ERROR_SECONDS`."""
        deadline = time.monotonic() + SAME_ERROR_SECONDS
        while time.monotonic() < deadline:
            first = self.peers.statuses.get(0)
            if first is not None and first.beat.error is not None:
                return first.beat.error == line
            if not self._store_answers():
                return False
            self._wake.set()
            time.sleep(0.05)
        return False

    def _exchange_heartbeats(self) -> None:
        """Thread: send and receive heartbeats. It may block for ever in a dead store."""
        import torch.distributed as distributed

        self._wait_for_store()
        try:
            plain = distributed.TCPStore(  # type: ignore[attr-defined]
                self.address,
                self.port,
                is_master=False,
                timeout=timedelta(seconds=2 * self.peers.limits.start),
                wait_for_workers=False,
            )
            # A launcher that restarts the ranks keeps its store, so each attempt has its own keys.
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = distributed.PrefixStore(f"sixfold/{attempt}", plain)  # type: ignore[attr-defined]
            unheard = set(range(self.world))
            while not self._finished.is_set():
                self._wake.clear()
                store.set(f"beat/{self.rank}", self._beat().packed())
                unheard = {rank for rank in unheard if not store.check([f"beat/{rank}"])}
                ranks = [rank for rank in range(self.world) if rank not in unheard]
                texts = store.multi_get([f"beat/{rank}" for rank in ranks])
                beats = {rank: Heartbeat.of(text.decode()) for rank, text in zip(ranks, texts)}
                if self._agreed_failure is None and store.check(["failure"]):
                    self._agreed_failure = JobFailure.of(store.get("failure").decode())
                if self._agreed_failure is None and self._own_failure is not None:
                    stored = store.compare_set("failure", "", self._own_failure.packed())
                    self._agreed_failure = JobFailure.of(stored.decode())
                self._last_answer = self._clock
                self.peers.receive(beats, self._clock)
                # Heartbeats are more frequent until all ranks were heard of, and once this one has
                # ended its work.
                frequent = unheard or self._exit_code is not None
                self._wake.wait(INTERVAL / 5 if frequent else INTERVAL)
        except RuntimeError as error:
            self._store_error = error

    def _wait_for_store(self) -> None:
        """Wait until something listens at the store's address; torch's retries would grow rare."""
        while not self._finished.is_set():
            try:
                socket.create_connection((self.address, self.port), INTERVAL).close()
                return
            except OSError:
                time.sleep(INTERVAL / 10)

    def _beat(self) -> Heartbeat:
        self._beats += 1
        where, waits = current_code(sys._current_frames().get(self._main))
        return Heartbeat(
            number=self._beats,
            moves=ACTIVITY.moves,
            step=ACTIVITY.step,
            phase=ACTIVITY.phase,
            where=where,
            waits=waits,
            host=socket.gethostname(),
            machine=self.peers.machine,
            pid=os.getpid(),
            ended=self._exit_code,
            error=self._error,
            informed=self._agreed_failure is not None,
        )

    def _decide(self) -> None:
        """Thread: decide whether the process ends. It never uses the store, which may block."""
        previous, lost_at = time.monotonic(), None
        while not self._finished.wait(INTERVAL / 4):
            # While this process is suspended it cannot hear from anyone, so that time does not
            # count.
            now = time.monotonic()
            self._clock += min(now - previous, 2 * INTERVAL)
            previous = now
            if self._store_error is not None and lost_at is None:
                lost_at = self._clock
            agreed = self._agreed_failure
            if agreed is not None:
                if agreed.code == STOPPED and self._exit_code == STOPPED:
                    continue
                if not agreed.stacks:
                    # This rank may be about to raise the same error, and is given the time to.
                    time.sleep(INTERVAL)
                # The main thread may be ending this process already.
                if self._ending_lock.acquire(blocking=False):
                    self._end_after_another(agreed)
                continue
            failure = self._diagnose(lost_at)
            if failure is not None and self._ending_lock.acquire(blocking=False):
                self._end_with_own_failure(failure)

    def _diagnose(self, lost_at: float | None) -> JobFailure | None:
        """Return what is wrong by now, or None; `lost_at` is when the store was lost, if it was."""
        if self._last_answer is not None:
            failure = self.peers.failure(self._last_answer, broken=self._broken)
            if failure is not None:
                return failure
        limits = self.peers.limits
        host = "rank 0"
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            host = "the launcher of rank 0's machine"
        address = f"{self.address}:{self.port}"
        if lost_at is not None:
            # The last rank to end its work may find that the others, and the store, are gone
            # already.
            if self._exit_code is not None or self._clock - lost_at < 2 * INTERVAL:
                return None
            line = f"{host} at {address} is gone"
            cause = f"it was killed or has ended ({str(self._store_error).splitlines()[0]})"
        elif self._last_answer is None:
            if self._clock < limits.start:
                return None
            line = f"{host} could not be reached at {address} within {self._clock:.0f} s"
            cause = "it never began, or the address, the port or a firewall is in the way"
        else:
            silence = self._clock - self._last_answer
            if silence < (min(limits.silence, SHORT_SILENCE) if self._broken else limits.silence):
                return None
            line = f"{host} at {address} has not answered for {silence:.0f} s"
            cause = "it was stopped, its machine is down or the link to it is cut"
        name = self.peers.name(self.rank)
        text = f"{self.program}: {line}: {cause}. {name} and all that are cut off with it end."
        return JobFailure(f"{text} {RESUME_HINT}", line)

    def _end_with_own_failure(self, failure: JobFailure) -> NoReturn:
        """End the process by a failure that this rank found, or that another reported first."""
        agreed = self._agree_on_failure(failure)
        if agreed.rank != self.rank:
            self._end_after_another(agreed)
        self._print(agreed.text, stacks=agreed.stacks)
        self._wait_until_informed()
        self._end(agreed.code)

    def _end_after_another(self, agreed: JobFailure) -> NoReturn:
        """End the process by a failure that another rank has reported."""
        text = f"{self.program}: {self.peers.name(self.rank)} ends: {agreed.line}"
        self._print(text, stacks=agreed.stacks)
        self._end(agreed.code)

    def _agree_on_failure(self, failure: JobFailure) -> JobFailure:
        """Report a failure to all ranks; return it, or the one that another rank reported first."""
        own = self._own_failure = replace(failure, rank=self.rank)
        self._wake.set()
        deadline = time.monotonic() + 2 * INTERVAL
        while (
            self._agreed_failure is None and self._store_answers() and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        return self._agreed_failure or own

    def _store_answers(self) -> bool:
        """Whether the store answers, or may still do so for the first time."""
        answered = self._last_answer
        recent = answered is None or self._clock - answered < 2 * INTERVAL
        return recent and self._store_error is None

    def _wait_until_informed(self) -> None:
        """Wait until the other ranks know the failure, as the store may end with this process."""
        deadline = time.monotonic() + 3 * INTERVAL
        while self._store_answers() and time.monotonic() < deadline:
            answer = self._last_answer
            if self._agreed_failure and answer is not None and self.peers.all_informed(answer):
                return
            self._wake.set()
            time.sleep(0.05)

    def _print(self, text: str, *, stacks: bool = False) -> None:
        """Write to standard error in one call, so that messages of several ranks do not mix.

        With `stacks`, the stack of the main thread is added.
        """
        end_after_timeout(FAILED)
        if stacks:
            frame = sys._current_frames().get(self._main)
            text += f"\n{self.peers.name(self.rank)} executes:\n"
            text += "".join(traceback.format_stack(frame)).rstrip()
        os.write(2, f"{text}\n".encode())

    def _end(self, code: int) -> NoReturn:
        """End the process at once, without waiting for threads, destructors or other ranks."""
        end_after_timeout(code)
        try:
            sys.stdout.flush()
        finally:
            os._exit(code)


def end_after_timeout(code: int) -> None:
    """End the process after `OUTPUT_SECONDS` seconds, even if its output cannot be written."""
    timer = threading.Timer(OUTPUT_SECONDS, os._exit, [code])
    timer.daemon = True
    timer.start()

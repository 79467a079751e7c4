"""Mirrors runs to W&B while they happen; trouble with W&B never stops a run or delays it for long.

Whatever the server does, a run waits at most 10 s at its beginning, 15 s at its end (10 minutes
where it uploads artifacts), and 45 s with all that follows from a failure. What could not be sent
is still in the run folder, and `sixfold sync` sends it later.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import wandb

from research.errors import InputError
from research.storage.records import RunRecord, RunSummary
from research.storage.run_folder import Mirror, Scalar
from research.tracking.config import Tracking
from research.tracking.wandb_run import WandbRun, has_key

Result = TypeVar("Result")
# The client has timeouts of its own; if it exceeds one, it is abandoned GRACE_SECONDS later.
# TEARDOWN_SECONDS bounds ending the client, OFFLINE_SECONDS opening an offline run.
GRACE_SECONDS, TEARDOWN_SECONDS, OFFLINE_SECONDS = 2.0, 5.0, 10.0


@dataclass(eq=False)
class Process:
    """What all runs of this process share: whether W&B failed before, and what was printed."""

    unreachable: bool = False
    """Whether an earlier run failed to reach W&B; later runs then are mirrored offline at once."""
    printed: set[str] = field(default_factory=set)
    """Messages that were printed already."""

    def print_once(self, text: str, quiet: bool) -> None:
        """Print a message once; to stderr when `quiet`, as stdout then has results alone."""
        if text not in self.printed:
            self.printed.add(text)
            print(f"W&B: {text}", file=sys.stderr if quiet else sys.stdout, flush=True)


PROCESS = Process()


def resolve_mode(tracking: Tracking, quiet: bool = False) -> Tracking | None:
    """The config with mode `auto` decided: online if there is a key, else offline.

    WANDB_MODE may turn `auto` to offline. None: WANDB_MODE is disabled, so there is no mirror.
    Raises `InputError` when online is asked for and there is no key.
    """
    variable = os.environ.get("WANDB_MODE", "")
    if variable == "disabled":
        return None
    if tracking.mode == "offline" or (
        tracking.mode == "auto" and variable in ("offline", "dryrun")
    ):
        return replace(tracking, mode="offline")
    if has_key():
        return replace(tracking, mode="online")
    if tracking.mode == "online":
        raise InputError(
            "W&B online needs a key; call `wandb login`, set WANDB_API_KEY, or mirror offline"
        )
    PROCESS.print_once(
        "no key is configured, so runs are mirrored offline, in ./wandb or where WANDB_DIR says; "
        "after `wandb login` `sixfold sync RUN` uploads them (or `wandb sync`; use one of the two)",
        quiet,
    )
    return replace(tracking, mode="offline")


class WandbMirror(Mirror):
    """The mirror of one run on W&B.

    When the run cannot be opened online it is mirrored offline; after a further failure it is not
    mirrored any more. No method raises an error of W&B's client.
    """

    def __init__(self, path: Path, tracking: Tracking, *, quiet: bool = False) -> None:
        self.path, self.tracking, self.quiet = path, tracking, quiet
        self.run: WandbRun | None = None

    def begin(self, record: RunRecord) -> None:
        """Begin or continue the W&B run; offline if the server does not answer in time.

        Raises `InputError` when online is asked for and there is no key.
        """
        tracking = resolve_mode(self.tracking, self.quiet)
        if tracking is None:
            return
        open_run = partial(WandbRun, self.path, record, tracking)
        if tracking.mode == "online" and not PROCESS.unreachable:
            try:
                self.run = call_within(
                    partial(open_run, "online"), tracking.init_seconds + GRACE_SECONDS
                )
                return
            except Exception as error:
                self._give_up(
                    error, "the server cannot be used", "this run and those after it go on offline"
                )
        try:
            self.run = call_within(partial(open_run, "offline"), OFFLINE_SECONDS)
        except Exception as error:
            self._give_up(error, "no offline run can be made", "this one is not mirrored")

    def line(self, number: int, line: Mapping[str, Scalar]) -> None:
        """Send line `number` (0-based) of metrics.jsonl."""
        if self.run is None:
            return
        try:
            self.run.line(number, line)
        except Exception as error:
            self._give_up(error, "a line could not be sent", "the rest of the run is not mirrored")

    def end(self, summary: RunSummary) -> None:
        """Send the summary, and wait a limited time until the server has confirmed everything."""
        if self.run is not None:
            last = partial(self.run.send_summary, summary)
            self._finish(self.run, last, exit_code=0, seconds=self.tracking.end_seconds)

    def close(self) -> None:
        """Close the W&B run of a run without a summary.

        It counts as failed until it is continued, but for a pruned trial, which has ended.
        """
        if self.run is not None:
            try:
                exit_code = 1 if self.run.pruned is None else 0
            except InputError:
                exit_code = 1
            last, seconds = self.run.send_without_summary, self.tracking.finish_seconds
            self._finish(self.run, last, exit_code=exit_code, seconds=seconds)

    def _finish(
        self, run: WandbRun, last: Callable[[], object], *, exit_code: int, seconds: float
    ) -> None:
        self.run = None
        try:
            last()
            call_within(partial(run.finish, exit_code), seconds + GRACE_SECONDS)
        except Exception as error:
            self._give_up(error, "not everything was confirmed", "runs after it go on offline")

    def _give_up(self, error: Exception, problem: str, consequence: str) -> None:
        self.run = None
        PROCESS.unreachable = True
        stop_client()
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        PROCESS.print_once(
            f"{problem} ({reason}); {consequence}, and `sixfold sync {self.path}` uploads what is "
            "missing",
            self.quiet,
        )


def call_within(action: Callable[[], Result], seconds: float) -> Result:
    """Do an action in a thread, and return or raise what it does.

    Raises `TimeoutError` when it takes more than `seconds`; the thread is then abandoned.
    """
    outcome: list[Result] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            outcome.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors and isinstance(errors[0], Exception):
        raise errors[0]
    if errors:
        # The client tries to exit the interpreter when its own process has crashed.
        raise RuntimeError(f"the W&B client ended ({errors[0]!r})") from errors[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return outcome[0]


def stop_client() -> None:
    """End the client's own process, and with it everything that still waits for a server."""
    try:
        call_within(wandb.teardown, TEARDOWN_SECONDS)
    except Exception:
        # The client's process then ends with this one.
        return

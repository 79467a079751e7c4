"""Runs are mirrored to W&B while they happen, without ever being stopped or held up by it.

Whatever the server does, a run waits at most 10 s at its beginning, 15 s at its end, and 45 s with
all that follows from a failure. What could not be told stands in the run folder, and `sixfold
sync` tells it later.
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
# The client keeps its bounds by itself; where it does not, it is abandoned so many seconds later.
GRACE, TEARDOWN, OFFLINE = 2.0, 5.0, 10.0


@dataclass(eq=False)
class Process:
    """What a run of this process has learnt for the later ones."""

    unreachable: bool = False
    said: set[str] = field(default_factory=set)

    def say(self, text: str, quiet: bool) -> None:
        """Say something once; it is no result, so a quiet command has it on stderr."""
        if text not in self.said:
            self.said.add(text)
            print(f"W&B: {text}", file=sys.stderr if quiet else sys.stdout, flush=True)


PROCESS = Process()


def settled(tracking: Tracking, quiet: bool = False) -> Tracking | None:
    """With `auto` decided, by whether there is a key; None: WANDB_MODE says disabled.

    `InputError` when online is asked for and there is no key.
    """
    asked = os.environ.get("WANDB_MODE", "")
    if asked == "disabled":
        return None
    if tracking.mode == "offline" or (tracking.mode == "auto" and asked in ("offline", "dryrun")):
        return replace(tracking, mode="offline")
    if has_key():
        return replace(tracking, mode="online")
    if tracking.mode == "online":
        raise InputError(
            "W&B online needs a key; call `wandb login`, set WANDB_API_KEY, or mirror offline"
        )
    PROCESS.say(
        "no key is configured, so runs are mirrored offline, in their folders; after `wandb login` "
        "`sixfold sync RUN` uploads them",
        quiet,
    )
    return replace(tracking, mode="offline")


class WandbMirror(Mirror):
    """A run on W&B; from the first failure on offline, and from the second on nowhere."""

    def __init__(self, path: Path, tracking: Tracking, *, quiet: bool = False) -> None:
        self.path, self.tracking, self.quiet = path, tracking, quiet
        self.run: WandbRun | None = None

    def begin(self, record: RunRecord) -> None:
        """Begin or continue the W&B run; offline if the server does not answer in time."""
        tracking = settled(self.tracking, self.quiet)
        if tracking is None:
            return
        open_run = partial(WandbRun, self.path, record, tracking)
        if tracking.mode == "online" and not PROCESS.unreachable:
            try:
                self.run = bounded(partial(open_run, "online"), tracking.init_seconds + GRACE)
                return
            except Exception as error:
                self._give_up(
                    error, "the server cannot be used", "this run and those after it go on offline"
                )
        try:
            self.run = bounded(partial(open_run, "offline"), OFFLINE)
        except Exception as error:
            self._give_up(error, "no offline run can be made", "this one is not mirrored")

    def line(self, number: int, line: Mapping[str, Scalar]) -> None:
        """Send a line."""
        if self.run is None:
            return
        try:
            self.run.line(number, line)
        except Exception as error:
            self._give_up(error, "a line was not taken", "the rest of the run is not mirrored")

    def end(self, summary: RunSummary) -> None:
        """Send the summary and wait, within bounds, for everything to be confirmed."""
        if self.run is not None:
            self._finish(self.run, partial(self.run.conclude, summary), exit_code=0)

    def close(self) -> None:
        """Leave a run that has not ended; it counts as failed there until it is continued."""
        if self.run is not None:
            self._finish(self.run, self.run.leave, exit_code=1)

    def _finish(self, run: WandbRun, last: Callable[[], object], exit_code: int) -> None:
        self.run = None
        try:
            last()
            bounded(partial(run.finish, exit_code), self.tracking.finish_seconds + GRACE)
        except Exception as error:
            self._give_up(error, "not everything was confirmed", "runs after it go on offline")

    def _give_up(self, error: Exception, what: str, then: str) -> None:
        self.run = None
        PROCESS.unreachable = True
        stop_client()
        why = str(error).partition("\n")[0][:200] or type(error).__name__
        PROCESS.say(
            f"{what} ({why}); {then}, and `sixfold sync {self.path}` uploads what is missing",
            self.quiet,
        )


def bounded(action: Callable[[], Result], seconds: float) -> Result:
    """What an action returns or raises; `TimeoutError` if it takes longer, and it is abandoned."""
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
        # The client leaves the interpreter when its own process has ended badly.
        raise RuntimeError(f"the W&B client ended ({errors[0]!r})") from errors[0]
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    return outcome[0]


def stop_client() -> None:
    """End the client's own process, and with it all that still waits for a server."""
    try:
        bounded(wandb.teardown, TEARDOWN)
    except Exception:
        # Then it ends with this process.
        return

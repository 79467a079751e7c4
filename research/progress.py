"""What a person sees while a run goes on: a bar on a terminal, plain lines when piped."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Seconds between plain lines, so that a log of a long run stays short.
PLAIN_INTERVAL = 15.0


class Reporter:
    """A context around one stage; says nothing when `quiet`."""

    def __init__(self, label: str, most_steps: float, *, quiet: bool = False) -> None:
        """`most_steps` is infinity where another limit ends the stage."""
        self.label = label
        self.total = "" if most_steps == math.inf else f"/{most_steps}"
        self.quiet = quiet
        self.console = Console(file=sys.stdout)
        self.progress: Progress | None = None
        self._said = 0.0

    def __enter__(self) -> Reporter:
        if not self.quiet and self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[steps]} {task.fields[state]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.progress.start()
            self.task = self.progress.add_task(self.label, total=1.0, steps="", state="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.progress is not None:
            self.progress.stop()

    def advance(self, step: int, share: float) -> None:
        """A step has ended, and with it `share` of the stage (0 to 1); nothing is waited for."""
        if self.progress is not None:
            self.progress.update(self.task, completed=share, steps=f"{step}{self.total}")

    def step(self, step: int, loss: float, items_per_second: float) -> None:
        """The state after an interval of steps."""
        state = f"loss {loss:.4f}  {items_per_second:,.0f} items/s"
        if self.progress is not None:
            self.progress.update(self.task, state=state)
        elif not self.quiet and time.monotonic() - self._said > PLAIN_INTERVAL:
            self._said = time.monotonic()
            print(f"{self.label}: step {step}{self.total}  {state}", flush=True)

    def say(self, text: str) -> None:
        """A line that stays, above the bar."""
        if self.quiet:
            return
        if self.progress is not None:
            self.progress.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

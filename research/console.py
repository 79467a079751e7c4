"""What a person sees while a run goes on: a bar on a terminal, plain lines when piped."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import final

from rich.console import Console, HighlighterType, JustifyMethod, OverflowMethod
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.style import Style
from rich.text import Text

from research.storage.untrusted import plain

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


# Wider than any table of ours.
WIDE = 1000


@final
class PlainConsole(Console):
    """A console that takes text as it stands, and obeys nothing in it.

    Names of items, cells and corpora come from strangers, who may write to a terminal what it would
    carry out. Every text on its way to the screen, a table's too, passes `render_str`.
    """

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: HighlighterType | None = None,
    ) -> Text:
        """As rich has it, of plain lines, without markup or highlights."""
        return Text(
            "\n".join(map(plain, text.split("\n"))),
            style=style,
            justify=justify,
            overflow=overflow,
        )


def plain_console() -> Console:
    """A console for text; without a terminal to fit it is as wide as needed."""
    console = PlainConsole()
    if not console.is_terminal:
        console.width = WIDE
    return console


def wide_console() -> Console:
    """As `plain_console`, but a narrow terminal wraps a table's lines rather than lose figures."""
    console = plain_console()
    console.width = WIDE
    return console

"""What a terminal shows: the progress of a stage, and consoles for tables of untrusted text.

The training loop reports to a `Reporter`, which draws a bar on a terminal and prints plain lines
where the output goes into a pipe or a file. The verbs that print tables use `plain_console`.
"""

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

from research.storage.untrusted import printable

# Least seconds between two plain lines, so that the log of a long run stays short.
PLAIN_INTERVAL = 15.0


class Reporter:
    """A context that shows the progress of one stage; it shows nothing when `quiet`.

    With a `prefix`, as several stages share the terminal, it prints only what is said, each line
    after the prefix.
    """

    def __init__(
        self, label: str, max_steps: float, *, quiet: bool = False, prefix: str = ""
    ) -> None:
        """`max_steps` is the stage's number of steps; infinity where another limit ends it."""
        self.label = label
        self.total = "" if max_steps == math.inf else f"/{max_steps}"
        self.quiet = quiet
        self.prefix = prefix
        self.shows_steps = not quiet and not prefix
        self.console = Console(file=sys.stdout)
        self.progress: Progress | None = None
        self._printed_at = 0.0

    def __enter__(self) -> Reporter:
        if self.shows_steps and self.console.is_terminal:
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
        """Move the bar to optimizer step `step` and to `share` (0 to 1) of the stage."""
        if self.progress is not None:
            self.progress.update(self.task, completed=share, steps=f"{step}{self.total}")

    def step(self, step: int, loss: float | None, items_per_second: float) -> None:
        """Show the loss, if there is one, and the speed of the last interval of steps.

        Without a bar this is a line, printed at most once in `PLAIN_INTERVAL` seconds.
        """
        state = f"{items_per_second:,.0f} items/s"
        state = state if loss is None else f"loss {loss:.4f}  {state}"
        if self.progress is not None:
            self.progress.update(self.task, state=state)
        elif self.shows_steps and time.monotonic() - self._printed_at > PLAIN_INTERVAL:
            self._printed_at = time.monotonic()
            print(f"{self.label}: step {step}{self.total}  {state}", flush=True)

    def say(self, text: str) -> None:
        """Print a line that stays on the screen, above the bar."""
        if self.quiet:
            return
        if self.progress is not None:
            self.progress.console.print(text, markup=False, highlight=False)
        else:
            print(f"{self.prefix}{text}", flush=True)


# Columns; wider than any table that is printed.
WIDE = 1000


@final
class PlainConsole(Console):
    """A console that shows text literally, without markup and without control characters.

    Names of items, cells and corpora are untrusted input and may hold control sequences that a
    terminal would carry out. rich passes all text through `render_str`, that of table cells too.
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
        """The text as rich's own method gives it, but without markup, emoji and highlights."""
        return Text(
            "\n".join(map(printable, text.split("\n"))),
            style=style,
            justify=justify,
            overflow=overflow,
        )


def plain_console() -> Console:
    """A console for untrusted text, as wide as the terminal, or `WIDE` columns without one."""
    console = PlainConsole()
    if not console.is_terminal:
        console.width = WIDE
    return console


def wide_console() -> Console:
    """A `plain_console` of `WIDE` columns: a narrow terminal wraps lines and no figure is cut."""
    console = plain_console()
    console.width = WIDE
    return console

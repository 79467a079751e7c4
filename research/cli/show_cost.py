"""`show RUN --cost`: where a run's time went, and how much memory it took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.table import Table

from research.console import wide_console
from research.errors import InputError
from research.storage.provenance_lines import UNKNOWN
from research.storage.records import RunSummary, StageCostRecord
from research.storage.run_folder import CONTINUED_BY, RunFolder
from research.storage.untrusted import printable
from research.training.memory_advice import gigabytes

COLUMNS = (
    *("seconds", "training", "validation", "checkpoints"),
    *("steps", "tokens", "tokens/s", "parameters", "peak memory"),
)


def show_cost(folder: Path) -> None:
    """Print a row for each stage of a finished run, and one for its final evaluation.

    What an earlier version of the code did not record is `unknown`. Raises `InputError` when the
    run has not finished, and when its summary is damaged.
    """
    summary = RunFolder(folder, writes=False).read(RunSummary)
    if summary is None:
        raise InputError(f"{folder} holds a run that has not finished; {CONTINUED_BY}")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("part")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for entries in rows_of(summary):
        table.add_row(*entries)
    console = wide_console()
    console.print(str(folder))
    console.print(table)
    for line in notes_of(summary):
        console.print(line)


def rows_of(summary: RunSummary) -> Iterator[tuple[str, ...]]:
    """The rows of the table: each stage (or the counts of a ranker), the final evaluation, all."""
    cost = summary.cost
    for name, result in summary.best.items():
        stage = None if cost.stages is None else cost.stages.get(name)
        steps = f"{result.steps:,}"
        yield (printable(name), *stage_entries(stage, steps))
    if not summary.best:
        yield ("counting", f"{cost.seconds:,.1f}", *[""] * 8)
    evaluated = cost.evaluation_seconds
    yield (
        "final evaluation",
        UNKNOWN if evaluated is None else f"{evaluated:,.1f}",
        *[""] * 7,
        memory_text(cost.evaluation_peak_bytes),
    )
    peaks = [stage.peak_bytes for stage in (cost.stages or {}).values()]
    peaks.append(cost.evaluation_peak_bytes)
    known = [peak for peak in peaks if peak is not None]
    yield (
        "all",
        UNKNOWN if evaluated is None else f"{cost.seconds + evaluated:,.1f}",
        *[""] * 4,
        "" if cost.items is None else f"{cost.items:,}",
        "",
        f"{cost.parameters:,}",
        memory_text(max(known) if len(known) == len(peaks) else None),
    )


def stage_entries(stage: StageCostRecord | None, steps: str) -> tuple[str, ...]:
    """The entries of a stage's row after its name; None: its cost was not recorded."""
    if stage is None:
        return (*[UNKNOWN] * 4, steps, *[UNKNOWN] * 4)
    training, validation, checkpoints = None, stage.validation_seconds, stage.checkpoint_seconds
    if validation is not None and checkpoints is not None:
        training = max(0.0, stage.seconds - validation - checkpoints)
    return (
        f"{stage.seconds:,.1f}",
        *(share_text(part, stage.seconds) for part in (training, validation, checkpoints)),
        steps,
        f"{stage.items:,}",
        f"{stage.items / training:,.0f}" if training else UNKNOWN,
        f"{stage.parameters:,}",
        memory_text(stage.peak_bytes),
    )


def share_text(seconds: float | None, whole: float) -> str:
    """A part of a stage's time in percent; None: it was not measured."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds / whole:.0%}" if whole > 0.0 else ""


def memory_text(number: int | None) -> str:
    """Bytes as text; None: they were not measured."""
    return UNKNOWN if number is None else gigabytes(number)


def notes_of(summary: RunSummary) -> Iterator[str]:
    """Sentences on what the table cannot show: stages that another run trained."""
    for name, origin in summary.shared.items():
        yield (
            f"{printable(name)} was copied from {printable(origin)}: its row is what it cost there"
        )
    shared = summary.cost.shared_seconds
    if summary.shared and shared is not None:
        yield f"this run itself trained for {summary.cost.seconds - shared:,.1f} s"

"""What a report says of a tuning, read from tuning.json: trials, winners, and what mattered."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from research.errors import InputError
from research.storage.records import read_record
from research.storage.tuning_records import TunedCellRecord, TuningRecord, length_words
from research.storage.untrusted import printable, short_text

# The budget curve in words shows the best value after so many trials, and after all.
SHOWN_AFTER = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class TunedRow:
    """The trials of one cell on one corpus."""

    cell: str
    complete: int
    pruned: int
    """Trials that were ended early, as they were behind the others."""
    failed: int
    left: int
    """Trials that have not ended."""
    best: float | None
    """The tuned metric of the best complete trial, on the validation part; None: none is."""
    winner: int | None
    """The number of that trial, from 0 on."""
    values: tuple[tuple[str, str], ...]
    """The names and values that the winner drew."""
    budget: tuple[tuple[int, float], ...]
    """Numbers of trials, and the best value after so many; from the first complete trial on, at
    every better one and at the last."""
    importances: tuple[tuple[str, float], ...]
    """Parameters and their importances, the largest first; empty: none were computed."""
    errors: tuple[str, ...]
    """How trials failed, each with its number."""

    def best_after(self, trials: int) -> float | None:
        """The best value after so many trials; None: none was complete by then."""
        return next((best for number, best in reversed(self.budget) if number <= trials), None)


@dataclass(frozen=True)
class TunedCorpus:
    """The trials on one corpus."""

    name: str
    rows: tuple[TunedRow, ...]


@dataclass(frozen=True)
class TuningPart:
    """How the cells of a study were tuned."""

    metric: str
    """The metric that decided between trials, on the validation part."""
    trials: int
    """Trials of every cell on every corpus."""
    trial_length: float
    """The share of a winner's limits that a trial had."""
    sampler: str
    pruner: str
    seed: int
    """The seed of all trials."""
    fresh_seeds: tuple[int, ...]
    """The seeds with which the winners were run and tested."""
    importance: str
    """The method by which importances are computed."""
    corpora: tuple[TunedCorpus, ...]

    @property
    def sentence(self) -> str:
        """How it was done, in a sentence or two."""
        seeds = ", ".join(map(str, self.fresh_seeds))
        return (
            f"Each tuned cell had {self.trials} trials on each corpus"
            f"{length_words(self.trial_length)}, drawn {self.sampler}, with "
            f"seed {self.seed}; pruned: {self.pruner}. The trial with the best "
            f"{self.metric.upper()} on the validation part was then run with seeds {seeds}, which "
            "alone rank the test part."
        )

    @property
    def importance_note(self) -> str:
        """What the importances are."""
        return (
            f"Importances: {self.importance}; a parameter's share in what tells the best trials "
            "from the others. Of few trials they are a hint."
        )


def tuning_of(folder: Path, cells: Collection[str]) -> TuningPart | None:
    """The tuning of the folder of a study with these cells; None: its cells were not tuned.

    Raises `InputError` when it has tuned a cell that is not among them.
    """
    record = read_record(folder, TuningRecord)
    if record is None:
        return None
    others = [cell.cell for cell in record.cells if cell.cell not in cells]
    if others:
        raise InputError(
            f"{folder / TuningRecord.FILE} has trials of cell {printable(others[0])}, which the "
            f"study beside it does not have; {TuningRecord.REMEDY}"
        )
    corpora = dict.fromkeys(cell.corpus for cell in record.cells)
    return TuningPart(
        metric=record.metric,
        trials=record.trials,
        trial_length=record.trial_length,
        sampler=printable(record.sampler),
        pruner=printable(record.pruner),
        seed=record.seed,
        fresh_seeds=record.fresh_seeds,
        importance=printable(record.importance),
        corpora=tuple(
            TunedCorpus(
                name=printable(corpus),
                rows=tuple(
                    row_of(cell, record.trials) for cell in record.cells if cell.corpus == corpus
                ),
            )
            for corpus in corpora
        ),
    )


def row_of(cell: TunedCellRecord, trials: int) -> TunedRow:
    """The row of a cell that was to have so many trials."""
    complete, pruned = cell.count("complete"), cell.count("pruned")
    failed = cell.count("failed")
    best = cell.winner
    return TunedRow(
        cell=printable(cell.cell),
        complete=complete,
        pruned=pruned,
        failed=failed,
        left=trials - complete - pruned - failed,
        best=None if best is None else best.value,
        winner=None if best is None else best.number,
        values=tuple(
            (printable(name), value_text(value))
            for name, value in ({} if best is None else best.parameters).items()
        ),
        budget=tuple(budget_curve(cell)),
        importances=tuple(
            (printable(name), share) for name, share in (cell.importances or {}).items()
        ),
        errors=tuple(
            f"trial {trial.number}: {printable(trial.error)}"
            for trial in cell.trials
            if trial.error is not None
        ),
    )


def value_text(value: object) -> str:
    """A drawn value as short text, a number to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else short_text(value)


def budget_curve(cell: TunedCellRecord) -> Iterator[tuple[int, float]]:
    """Yield numbers of trials and the best value after so many, wherever it rose, and at the end.

    Pruned and failed trials count; only complete ones have a value here.
    """
    best: float | None = None
    at, last = 0, 0
    for trial in cell.trials:
        if trial.state == "running":
            continue
        last = trial.number + 1
        if trial.state != "complete" or trial.value is None:
            continue
        if best is None or trial.value > best:
            best, at = trial.value, last
            yield at, best
    if best is not None and at < last:
        yield last, best


def budget_words(row: TunedRow, trials: int) -> str:
    """`.0912 after 1, .0935 after 2, ...`: the best value after some numbers of trials."""
    counts = [count for count in SHOWN_AFTER if count < trials]
    values = [(count, row.best_after(count)) for count in (*counts, trials)]
    return ", ".join(f"{value:.4f} after {count}" for count, value in values if value is not None)


def importance_words(row: TunedRow) -> str:
    """`lr 61 %, dropout 39 %`: the importances of parameters; empty where there are none."""
    return ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in row.importances)


def value_words(row: TunedRow) -> str:
    """`lr 0.00312, block pre`: what the winner drew."""
    return ", ".join(f"{name} {value}" for name, value in row.values)

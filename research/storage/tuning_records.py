"""tuning.json, what the trials of a tuning have come to, and pruned.json, how a trial ended early.

`research/studies/` writes both, and `research/report/` reads the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from research.errors import InputError
from research.storage.records import Record, RunRecord, read_record
from research.storage.untrusted import is_file_name

# What the name of the folder of a tuning's trials adds to that of the winners' study.
TRIALS = "-trials"
TrialState = Literal["complete", "pruned", "failed", "running"]


@dataclass(frozen=True, kw_only=True)
class PrunedRecord(Record):
    """pruned.json: where a trial was ended early, as it was behind the trials before it."""

    FILE: ClassVar[str] = "pruned.json"
    hash: str
    """The run hash, as in config.json."""
    epoch: int
    """Epochs that the last stage had completed."""
    value: float
    """The tuned metric at the last validation."""


def pruned_record(folder: Path, record: RunRecord) -> PrunedRecord | None:
    """Where the run in a folder was ended early; None: it was not, or was another run."""
    pruned = read_record(folder, PrunedRecord)
    return pruned if pruned is not None and pruned.hash == record.hash else None


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial: one run with values that were drawn from a cell's space."""

    number: int
    """The trial's number among those of its cell and corpus, from 0 on."""
    state: TrialState
    """`running` also means that the trial was stopped and will be continued."""
    value: float | None = None
    """The tuned metric on the validation part; of a pruned trial that of its last validation. None:
    the trial failed or has not ended."""
    parameters: Mapping[str, object]
    """The values drawn, by parameter: numbers, and the names of choices."""
    error: str | None = None
    """The first line of a failed trial's error; None: it has not failed."""


@dataclass(frozen=True, kw_only=True)
class TunedCellRecord:
    """The trials of one cell on one corpus."""

    corpus: str
    """The corpus's name."""
    cell: str
    """The cell's name."""
    trials: tuple[TrialRecord, ...]
    """The trials so far, in the order of their numbers."""
    importances: Mapping[str, float] | None = None
    """The share of each parameter in what separates the best trials from the others, by parameter;
    the sum is 1. None: not all trials have ended, or too few are complete."""

    @property
    def winner(self) -> TrialRecord | None:
        """The complete trial with the best value, of equal ones the first; None: there is none."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return max(complete, key=lambda trial: trial.value or 0.0, default=None)

    def count(self, state: TrialState) -> int:
        """The number of trials in a state."""
        return sum(trial.state == state for trial in self.trials)


@dataclass(frozen=True, kw_only=True)
class TuningRecord(Record):
    """tuning.json: how the cells of a study were tuned; written anew whenever a trial ends."""

    FILE: ClassVar[str] = "tuning.json"
    REMEDY: ClassVar[str] = (
        "remove it, and the tuning's command writes it anew: finished trials are not repeated"
    )
    name: str
    """The tuning's name, which is also that of the study of its winners."""
    metric: str
    """The metric that the trials maximize on the validation part, under full ranking."""
    trials: int
    """The number of trials that every cell gets on every corpus."""
    sampler: str
    """How values are drawn, in words."""
    pruner: str
    """How trials are ended early, in words."""
    seed: int
    """The seed of the draws and of every trial's run."""
    fresh_seeds: tuple[int, ...]
    """The seeds with which the winners are run and tested."""
    importance: str
    """The method by which importances are computed, in words."""
    trial_length: float = 1.0
    """The share of a winner's limits, in epochs, steps, tokens or seconds, that a trial had."""
    cells: tuple[TunedCellRecord, ...]
    """The trials by corpus and cell; cells without a space are not among them."""
    command: str
    """The command line that does the tuning, or continues it."""

    def __post_init__(self) -> None:
        for name in (
            self.name,
            *(name for each in self.cells for name in (each.corpus, each.cell)),
        ):
            if not is_file_name(name):
                raise InputError(f"it names {name!r:.80}, which cannot be the name of a folder")


def length_words(trial_length: float) -> str:
    """`, each 33 % as long as a winner`, after a number of trials; empty: they are as long."""
    return "" if trial_length == 1.0 else f", each {100 * trial_length:.0f} % as long as a winner"

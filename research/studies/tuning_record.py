"""tuning.json, which lists the trials of a tuning on all corpora; `tune.py` writes and reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from research.errors import InputError
from research.storage.records import read_record, write_record
from research.storage.tuning_records import TunedCellRecord, TuningRecord
from research.studies.optuna_studies import IMPORTANCE
from research.studies.trials import CellTrials
from research.studies.tuning import Tuning


def check_like_others(tuning: Tuning, earlier: TuningRecord, corpora: Sequence[str]) -> None:
    """Raise `InputError` when other corpora than these were tuned by other rules.

    One tuning.json tells of all corpora of a tuning, and has one word for each rule.
    """
    others = dict.fromkeys(each.corpus for each in earlier.cells if each.corpus not in corpora)
    asked = record_of(tuning, (), "")
    for rule in ("metric", "sampler", "pruner", "seed", "trial_length"):
        before, now = getattr(earlier, rule), getattr(asked, rule)
        if others and before != now:
            raise InputError(
                f"tuning {tuning.name}: {rule} was {before} on {', '.join(others)} and is {now}; "
                f"set it to {before} again, or give the tuning another name"
            )


def record_of(
    tuning: Tuning,
    cells: Sequence[TunedCellRecord],
    command: str,
    earlier: TuningRecord | None = None,
) -> TuningRecord:
    """tuning.json of a tuning with these trials, and those that `earlier` has of other corpora."""
    known = () if earlier is None else earlier.cells
    corpora = dict.fromkeys(each.corpus for each in (*known, *cells))
    own = {each.corpus for each in cells}
    command = command or ("" if earlier is None else earlier.command)
    return TuningRecord(
        name=tuning.name,
        metric=tuning.metric,
        trials=tuning.trials,
        trial_length=tuning.trial_length,
        sampler=str(tuning.sampler),
        pruner="none" if tuning.pruner is None else str(tuning.pruner),
        seed=tuning.seed,
        fresh_seeds=tuning.fresh_seeds,
        importance=IMPORTANCE,
        cells=tuple(
            each
            for corpus in corpora
            for each in (cells if corpus in own else known)
            if each.corpus == corpus
        ),
        command=command,
    )


def write_tuning(
    tuning: Tuning, out: Path, cells: Sequence[CellTrials], command: str
) -> TuningRecord:
    """Write tuning.json into the folder of the winners' study, and return it."""
    earlier = read_record(out / tuning.name, TuningRecord)
    record = record_of(tuning, [cell.record() for cell in cells], command, earlier)
    if record != earlier:
        write_record(out / tuning.name, record)
    return record

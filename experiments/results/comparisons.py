"""How the cells of a study compare, as its report says: what `comparisons.json` here keeps.

Differences are paired by user and seed, which takes the ranks of the runs, so that they cannot be
made of result lines. `collect.py` keeps them beside the lines, and `tables.py` sets them into the
tables and refuses any that does not fit the lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.results.lines import FOLDER
from research.config import record_from_json, record_to_json
from research.evaluation.statistics import Comparison
from research.report.build import report_of
from research.report.schema import ProtocolTable
from research.storage.json_files import read_json, write_json

FILE = "comparisons.json"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A cell minus the base, or the effect of a factor."""

    name: str
    """The cell; of an effect its factors and the levels that are compared, in words."""
    difference: float
    """Mean over seeds and users."""
    low: float
    """Lower end of its 95 % interval over users and seeds."""
    high: float
    """Upper end of the same interval."""
    p: float
    """Two-sided p, after Holm's correction over all that is compared here."""
    significant: bool
    """Whether p is below 0.05 and the interval leaves out 0."""


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """All comparisons of a study on a data set that are corrected together."""

    dataset: str
    """The data set, as lines have it."""
    study: str
    """The study, as lines have it."""
    base: str | None
    """The cell that the others are compared with; None: these are effects of factors."""
    metric: str
    """What is compared, on the test part among all items."""
    compared: tuple[Compared, ...]
    """In the order of the study."""

    @property
    def key(self) -> tuple[str, str, bool, str]:
        """What identifies them, in the order of the file: data set, study and base."""
        return self.dataset, self.study, self.base is None, self.base or ""


@dataclass(frozen=True, kw_only=True)
class ComparisonsFile:
    """comparisons.json."""

    comparisons: tuple[Comparisons, ...]
    """All that are kept, sorted by `Comparisons.key`."""


def kept_comparisons(folder: Path = FOLDER) -> tuple[Comparisons, ...]:
    """What a folder keeps; empty: it has no comparisons.json."""
    path = folder / FILE
    if not path.is_file():
        return ()
    return record_from_json(read_json(path), ComparisonsFile, str(path)).comparisons


def keep(new: Iterable[Comparisons], folder: Path = FOLDER) -> None:
    """Write comparisons into a folder's file, in place of those of the same key."""
    known = {each.key: each for each in (*kept_comparisons(folder), *new)}
    ordered = ComparisonsFile(comparisons=tuple(known[key] for key in sorted(known)))
    write_json(folder / FILE, record_to_json(ordered))


def comparisons_of(study: Path, base: str | None = None) -> list[Comparisons]:
    """What the report of a study's folder compares: cells with the base, and effects of factors.

    `base` is a cell; None: the study's own. `InputError` where there is nothing to report.
    """
    report = report_of(study, figures=False, base=base)
    found = []
    for corpus in report.corpora:
        for table in corpus.tables:
            if table.candidates != "full":
                continue
            families: list[tuple[str | None, tuple[Compared, ...]]] = [
                (report.base, cells_of(table, report.compared))
            ]
            if base is None:
                families.append((None, effects_of(table, report.compared)))
            found += [
                Comparisons(
                    dataset=corpus.name, study=report.name, base=against, metric=report.compared,
                    compared=compared,
                )
                for against, compared in families
                if compared
            ]  # fmt: skip
    return found


def cells_of(table: ProtocolTable, metric: str) -> tuple[Compared, ...]:
    """The comparisons of a table's cells with the base."""
    return tuple(
        compared(cell, figure.comparison, figure.corrected, figure.significant)
        for cell, figure in table.figures(metric).items()
        if figure.comparison is not None and figure.corrected is not None
    )


def effects_of(table: ProtocolTable, metric: str) -> tuple[Compared, ...]:
    """The effects of a table's factors that can be estimated; empty: it crosses none."""
    if table.factorial is None:
        return ()
    return tuple(
        compared(
            f"{effect.name} ({effect.contrast})", effect.comparison, effect.corrected,
            effect.significant,
        )
        for effect in table.factorial.effects[metric]
        if effect.comparison is not None and effect.corrected is not None
    )  # fmt: skip


def compared(name: str, comparison: Comparison, corrected: float, significant: bool) -> Compared:
    """A comparison of a report in the form that is kept."""
    return Compared(
        name=name,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        p=corrected,
        significant=significant,
    )

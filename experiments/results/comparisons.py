"""How the cells of a study compare, as its report says: what `comparisons.json` here keeps.

Differences are paired by user and seed, which takes the ranks of the runs, so that they cannot be
made of result lines. `collect.py` keeps them beside the lines, and `tables.py` sets them into the
tables and refuses those that were made of other runs than the lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.results.lines import FOLDER
from research.config import record_from_json, record_to_json
from research.evaluation.statistics import Comparison, is_significant
from research.report.build import report_of
from research.report.schema import LEVEL, CorpusPart, ProtocolTable
from research.storage.json_files import read_json, write_json
from research.storage.untrusted import printable

FILE = "comparisons.json"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A cell minus the base, or the effect of a factor."""

    name: str
    """The cell; of an effect its factors and the levels that are compared, in words."""
    difference: float
    """Mean over users and over the seeds that both sides have."""
    low: float
    """Lower end of its 95 % interval over users and seeds."""
    high: float
    """Upper end of the same interval."""
    p: float
    """Two-sided p, after Holm's correction over the cells that are compared with the same base, or
    over the effects."""

    @property
    def significant(self) -> bool:
        """Whether p is below 0.05 and the interval leaves out 0, as in a report."""
        return is_significant(self.p, self.low, self.high, LEVEL)


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """All comparisons of a study on a data set."""

    dataset: str
    """The data set, as lines have it."""
    study: str
    """The study, as lines have it."""
    metric: str
    """What is compared, on the test part among all items."""
    values: Mapping[str, float]
    """By CELL/SEED, the metric of each run that they are made of."""
    against: Mapping[str, tuple[Compared, ...]]
    """By base, the other cells, in the order of the study; the study's own base comes first."""
    effects: tuple[Compared, ...]
    """The effects of the study's factors that can be estimated; empty: it crosses none."""

    @property
    def key(self) -> tuple[str, str]:
        """What identifies them: data set and study."""
        return self.dataset, self.study

    def of_cell(self, cell: str) -> dict[str, Compared]:
        """A cell's comparisons with the bases, by base; the base itself has none."""
        return {
            base: compared
            for base, cells in self.against.items()
            for compared in cells
            if compared.name == printable(cell)
        }


@dataclass(frozen=True, kw_only=True)
class ComparisonsFile:
    """comparisons.json."""

    comparisons: tuple[Comparisons, ...]
    """One for each data set and study, sorted by both."""


def kept_comparisons(folder: Path = FOLDER) -> dict[tuple[str, str], Comparisons]:
    """What a folder keeps, by data set and study; empty: it has no comparisons.json."""
    path = folder / FILE
    if not path.is_file():
        return {}
    file = record_from_json(read_json(path), ComparisonsFile, str(path))
    return {kept.key: kept for kept in file.comparisons}


def keep(new: Iterable[Comparisons], folder: Path = FOLDER) -> None:
    """Write comparisons into a folder's file; those of a study replace all that it had before."""
    known = kept_comparisons(folder) | {comparisons.key: comparisons for comparisons in new}
    ordered = ComparisonsFile(comparisons=tuple(known[key] for key in sorted(known)))
    write_json(folder / FILE, record_to_json(ordered))


def comparisons_of(study: Path, bases: Sequence[str] = ()) -> list[Comparisons]:
    """What the report of a study's folder says: cells against its base, and effects of factors.

    There is one for each data set that has finished runs. `bases` are further cells to compare all
    others with. Raises `InputError` for a cell that the study lacks, and where no run has finished.
    """
    report = report_of(study, figures=False)
    others = [report_of(study, figures=False, base=base) for base in bases if base != report.base]
    made = []
    for place, corpus in enumerate(report.corpora):
        table = full_ranking(corpus)
        if table is None:
            continue
        against = {report.base: cells_of(table, report.compared)}
        for other in others:
            with_other = full_ranking(other.corpora[place])
            assert with_other is not None, "a base does not change what has been run"
            against[other.base] = cells_of(with_other, report.compared)
        comparisons = Comparisons(
            dataset=corpus.name,
            study=study.resolve().name,
            metric=report.compared,
            values={
                f"{cell}/{seed}": value
                for cell, figure in table.figures(report.compared).items()
                for seed, value in figure.by_seed.items()
            },
            against={base: cells for base, cells in against.items() if cells},
            effects=effects_of(table, report.compared),
        )
        made.append(comparisons)
    return made


def full_ranking(corpus: CorpusPart) -> ProtocolTable | None:
    """The table of the runs that ranked all items, with the base if it is there; None: none did."""
    return next((table for table in corpus.tables if table.candidates == "full"), None)


def cells_of(table: ProtocolTable, metric: str) -> tuple[Compared, ...]:
    """The comparisons of a table's cells with the base."""
    return tuple(
        compared(cell, figure.comparison, figure.corrected)
        for cell, figure in table.figures(metric).items()
        if figure.comparison is not None and figure.corrected is not None
    )


def effects_of(table: ProtocolTable, metric: str) -> tuple[Compared, ...]:
    """The effects of a table's factors that can be estimated; empty: it crosses none."""
    if table.factorial is None:
        return ()
    return tuple(
        compared(f"{effect.name} ({effect.contrast})", effect.comparison, effect.corrected)
        for effect in table.factorial.effects[metric]
        if effect.comparison is not None and effect.corrected is not None
    )


def compared(name: str, comparison: Comparison, corrected: float) -> Compared:
    """A comparison of a report, in the form that is kept."""
    return Compared(
        name=name,
        difference=comparison.difference,
        low=comparison.low,
        high=comparison.high,
        p=corrected,
    )

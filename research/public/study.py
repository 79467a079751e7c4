"""`sf.study` and `sf.report`: configs compared under equal conditions, and the page about it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final, get_args

import pandas as pd

from research.annotations import suggest
from research.config import packages_of
from research.data.corpus_text import folder_text
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.evaluation.ties import TiePolicy
from research.public.messages import check_argument
from research.public.preparing import corpus_name
from research.public.run import Run, load
from research.public.training import ConfigLike, CorpusLike, config_of, in_session
from research.report.build import report_of
from research.report.csv_table import effects_frame_of, frame_of
from research.report.files import write
from research.report.records import read_study
from research.report.schema import Part, Report
from research.runs.config import RunConfig
from research.runs.execute import RunOptions
from research.storage.records import StudyRecord
from research.storage.untrusted import file_inside, printable
from research.studies.budget import budget_of
from research.studies.factorial import Grid
from research.studies.study import Study, StudyOptions, run_study


def study(
    cells: Mapping[str, ConfigLike],
    corpora: CorpusLike | Sequence[CorpusLike],
    *,
    seeds: Sequence[int] = (0,),
    base: str | None = None,
    name: str = "study",
    question: str = "",
    metrics: Sequence[str] = ("hr@10", "ndcg@10", "mrr"),
    compared: str | None = None,
    budget: str | None = None,
    out: Path | str = "runs",
    workers: int = 1,
    retry: bool = False,
    quiet: bool = True,
    device: str | None = None,
    data_root: Path | str = "data",
) -> StudyResult:
    """Train every cell on every corpus with every seed, and return what can be compared.

    Runs that have finished are not repeated, so a call that was stopped is simply made again. A run
    that fails is recorded and does not stop the others.

        >>> cells = {"full": config, "shallow": sf.change(config, {"encoder.layers": 1})}
        >>> sf.study(cells, corpus, seeds=range(3)).table()

    Args:
        cells: configs by name, each as for `sf.train`; a name is also a folder's. Of a grid
            (`sf.grid`) the report has main effects and interactions as well; add other cells to it
            by `sf.grid(...) | {"name": config}`.
        corpora: a corpus or several, each as for `sf.train`.
        seeds: seeds of every cell that trains.
        base: the cell that the others are compared with. None: the first.
        name: the study's name; its folder is `out/name`.
        question: the question that the comparison answers, for the report. "": how they compare.
        metrics: metrics of the tables.
        compared: the metric that cells are compared by. None: the second of `metrics`, or the only
            one.
        budget: what every run may spend: "steps=N", "tokens=N" or "seconds=N". None: as in the
            configs.
        out: the folder of all studies.
        workers: runs at a time, each in a process of its own. 1: all in this one.
        retry: whether runs that have failed are done again.
        quiet: print nothing. False: the plan, and what each run prints.
        device: as for `sf.train`.
        data_root: the folder of prepared corpora.

    Raises:
        InputError: for a config that is not valid, for two corpora of one name, for a folder that
            holds other runs of the same cells, and while another thread trains.
    """
    check_argument("cells", cells, Mapping[str, object])
    if not isinstance(seeds, Iterable):
        raise InputError(f"seeds is {seeds!r:.60}; give a list of whole numbers, or range(3)")
    if not cells:
        raise InputError("cells is empty; give configs by name")
    configs: Mapping[str, RunConfig] = {cell: config_of(recipe) for cell, recipe in cells.items()}
    if isinstance(cells, Grid):
        configs = Grid(configs, cells.factors, cells.levels)
    chosen = Study(
        name=name,
        question=question or f"How do {', '.join(cells)} compare?",
        cells=configs,
        base=next(iter(cells)) if base is None else base,
        corpora=tuple(map(corpus_name, listed(corpora))),
        seeds=tuple(seeds),
        metrics=tuple(metrics),
        compared=compared,
        budget=None if budget is None else budget_of(budget),
    )
    allow = tuple(package for config in configs.values() for package in packages_of(config))
    options = RunOptions(data_root=str(data_root), quiet=quiet, device=device, allow=allow)
    with in_session():
        run_study(
            chosen,
            Path(out),
            options=options,
            accelerator=make_accelerator(device=device),
            study_options=StudyOptions(workers=workers, retry=retry, probe=False),
        )
    return StudyResult(
        folder=Path(out) / name, device=device, allow=allow, data_root=str(data_root)
    )


def listed(corpora: CorpusLike | Sequence[CorpusLike]) -> Sequence[CorpusLike]:
    """Corpora as a list, where one may stand for itself."""
    if isinstance(corpora, Sequence) and not isinstance(corpora, str):
        return corpora
    return [corpora]


def report(
    folder: Path | str,
    *,
    out: Path | str | None = None,
    ties: TiePolicy | None = None,
    part: Part = "test",
    margin: float | None = None,
    base: str | None = None,
) -> Path:
    """Write the report of a study's folder, and return the path of its page.

    report.html is a page that loads nothing from elsewhere; report.csv and report.tex hold the same
    figures, report-effects.csv those of the effects of a grid's factors, and report-figures the
    pictures as SVG, PDF and PNG. They are written into `out` (None: the study's folder), over older
    ones. `ties` is as for `Run.evaluate`. With the `part` "validation", by which to choose among
    cells, the files are named report-validation and no test figure is used. With a `margin`, such
    as 0.002, each cell is also tested for being no worse than the base by more than that. `base` is
    the cell that others are compared with; None: the study's. Raises `InputError` if the folder is
    no study's or has no finished run with that part, for a margin that is not above 0, and for a
    base that the study does not have.

        >>> sf.report("runs/quickstart")
    """
    if part not in get_args(Part):
        raise InputError(f"part is {part!r:.60}; allowed: {', '.join(get_args(Part))}")
    made = report_of(Path(folder), ties=ties, part=part, margin=margin, base=base)
    page, *_ = write(made, Path(folder if out is None else out))
    return page


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StudyResult:
    """A study's folder, and what its finished runs say when they are first read."""

    folder: Path
    """The study's folder."""
    device: str | None = None
    """The device of runs that are loaded; None: a GPU if there is one."""
    allow: tuple[str, ...] = ()
    """Packages whose config classes are trusted."""
    data_root: str = "data"
    """The folder of prepared corpora."""

    @property
    def record(self) -> StudyRecord:
        """What study.json says: cells, seeds, corpora, and how cells differ from the base."""
        return read_study(self.folder)

    def table(self, *, margin: float | None = None) -> pd.DataFrame:
        """Every figure at full precision: one row for each corpus, protocol, cell and metric.

        The columns mean, low and high are a cell's value with its 95 % interval over users and
        seeds; difference to p_corrected compare it with the base. With a `margin`, such as 0.002,
        p_no_worse and p_equivalent of the compared metric say whether a cell is no worse than the
        base by more than that, and whether neither is better. Raises `InputError` if no run has
        finished; its message says how the first one failed.
        """
        if margin is None:
            return frame_of(self._report)
        return frame_of(report_of(self.folder, figures=False, margin=margin))

    def effects(self) -> pd.DataFrame:
        """The main effects and interactions of a grid's factors at full precision.

        One row for each corpus, protocol, effect and metric; none if the study crosses no factors.
        The columns difference, low, high, p and p_corrected are as in `table`, but p is corrected
        over effects; `obstacle` says why an effect cannot be estimated. Raises `InputError` if no
        run has finished.

            >>> study.effects()[["factors", "levels", "difference", "p_corrected"]]
        """
        return effects_frame_of(self._report)

    def summary(self) -> pd.DataFrame:
        """The compared metric alone, under full ranking: one row for each corpus and cell."""
        table = self.table()
        rows = table[table["compared"] & (table["candidates"] == "full")]
        names = ["corpus", "cell", "metric", "mean", "low", "high"]
        names += ["difference", "p_corrected", "seeds", "users"]
        return rows[names].reset_index(drop=True)

    def run(self, cell: str, *, seed: int | None = None, corpus: str | None = None) -> Run:
        """One finished run; `seed` None: the cell's first, `corpus` None: the first, by its name.

        Raises `InputError` for a run that the study does not have, or that has not finished.
        """
        record = self.record
        corpus = record.corpora[0] if corpus is None else corpus
        if corpus not in record.corpora:
            raise InputError(f"the study has no corpus {corpus!r}{suggest(corpus, record.corpora)}")
        if cell not in record.cells:
            raise InputError(f"the study has no cell {cell!r}{suggest(cell, record.cells)}")
        seeds = list(record.seeds_of(corpus, cell))
        chosen = seeds[0] if seed is None else seed
        if chosen not in seeds:
            raise InputError(f"cell {cell} has no seed {chosen}; it has {seeds}")
        return load(
            file_inside(self.folder, f"{corpus}/{cell}/{chosen}"),
            device=self.device,
            allow=self.allow,
            data_root=self.data_root,
        )

    def report(
        self,
        *,
        out: Path | str | None = None,
        part: Part = "test",
        margin: float | None = None,
    ) -> Path:
        """Write the report and return the path of its page; see `sf.report`."""
        return report(self.folder, out=out, part=part, margin=margin)

    @cached_property
    def _report(self) -> Report:
        """What a report says but for what only a page shows, computed once: it takes a while."""
        return report_of(self.folder, figures=False)

    def unfinished(self) -> list[str]:
        """A line for each run that has failed or not finished, with the first line of its error."""
        return [
            f"{run.folder}: {run.error or run.status}"
            for corpus in self._report.corpora
            for run in corpus.runs
            if run.status != "finished"
        ]

    def __repr__(self) -> str:
        return "\n  ".join([self._heading(), *self._lines()])

    def _repr_html_(self) -> str:
        try:
            body = self.summary().to_html(index=False, float_format="{:.4f}".format)
            lines = self._lines()[1:]
        except InputError as error:
            body, lines = "", [printable(str(error))]
        return "".join([f"<b>{html.escape(self._heading())}</b>", body, *map(html.escape, lines)])

    def _heading(self) -> str:
        record = self.record
        return (
            f"Study {printable(record.name)}: {len(record.cells)} cells on "
            f"{', '.join(map(printable, record.corpora))}, "
            f"seeds {', '.join(map(str, record.seeds))}, in {folder_text(self.folder)}"
        )

    def _lines(self) -> list[str]:
        """The compared metric by cell, and how many runs have not finished, if any."""
        try:
            rows = self.summary()
        except InputError as error:
            return [printable(str(error))]
        figures = [
            f"{cell} {mean:.4f} ({low:.4f} to {high:.4f})"
            for cell, mean, low, high in zip(rows["cell"], rows["mean"], rows["low"], rows["high"])
        ]
        shown = figures[:6] + [f"and {len(figures) - 6} more"] * (len(figures) > 6)
        lines, unfinished = [f"{self.record.compared}: {', '.join(shown)}"], self.unfinished()
        if unfinished:
            lines.append(f"{len(unfinished)} of its runs have not finished, first {unfinished[0]}")
        return lines

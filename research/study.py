"""A study: named cells of runs, seeds and data sets, run one after another, then one table.

Finished runs are recognised and not repeated; an interrupted one continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from accelerate import Accelerator
from rich import box
from rich.table import Table

from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.compare import paired_difference
from research.evaluation.metrics import parse
from research.evaluation.rank import RankTable
from research.execute import RunOptions, execute
from research.run import RunConfig, open_corpus
from research.show import wide_console

Summary = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question asked of several cells under equal conditions."""

    name: str
    """Names the study's folder."""
    question: str
    """What the table answers."""
    cells: Mapping[str, RunConfig]
    """Named runs; their seed and corpus are set by the study."""
    base: str
    """The cell that others are compared with."""
    corpora: tuple[str, ...] = ("ml-100k",)
    """Corpus folders or names of known data sets."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of every cell that trains."""
    metrics: tuple[str, ...] = ("hr@10", "ndcg@10", "mrr")
    """Columns of the table; the second is compared."""

    def __post_init__(self) -> None:
        if self.base not in self.cells:
            raise InputError(
                f"study {self.name}: base is {self.base!r}; cells: {', '.join(self.cells)}"
            )
        if not (self.corpora and self.seeds and self.metrics):
            raise InputError(
                f"study {self.name}: corpora, seeds and metrics need at least one entry each"
            )
        for name in self.metrics:
            parse(name)


@dataclass(frozen=True, eq=False)
class Finished:
    """A run of a study that has ended."""

    cell: str
    seed: int
    folder: Path
    summary: Summary

    def test(self, metric: str) -> float:
        """A test metric under full ranking."""
        test = cast(Mapping[str, Mapping[str, float]], self.summary["test"])
        return test["full"][metric]

    def cost(self, name: str) -> float:
        """Seconds, items or parameters."""
        return float(cast(Mapping[str, float], self.summary["cost"]).get(name, 0.0))

    def ranks(self) -> RankTable:
        """The test's rank table."""
        return RankTable.load(self.folder / "ranks" / "test-full.npz")


def run_study(
    study: Study, out: Path, *, options: RunOptions, accelerator: Accelerator
) -> dict[str, list[Finished]]:
    """Run what is missing; per corpus, the finished runs in the order of cells and seeds."""
    results: dict[str, list[Finished]] = {}
    for corpus_name in study.corpora:
        corpus = open_corpus(corpus_name, options.data_root)
        for cell, config in study.cells.items():
            # Counting rankers draw nothing, so one seed says all.
            for seed in study.seeds if config.stages else study.seeds[:1]:
                evaluation = config.evaluation
                config_of_seed = replace(
                    config,
                    corpus=corpus_name,
                    seed=seed,
                    evaluation=replace(
                        evaluation,
                        metrics=tuple(dict.fromkeys((*evaluation.metrics, *study.metrics))),
                        candidates=tuple(dict.fromkeys((*evaluation.candidates, "full"))),
                    ),
                )
                folder = run_folder(out, study.name, corpus, cell, seed)
                if accelerator.is_main_process and not options.quiet:
                    print(f"— {corpus.name} / {cell} / seed {seed}", flush=True)
                summary = execute(config_of_seed, folder, options=options, accelerator=accelerator)
                results.setdefault(corpus.name, []).append(Finished(cell, seed, folder, summary))
    return results


def run_folder(out: Path, study: str, corpus: Corpus, cell: str, seed: int) -> Path:
    """Where a run's folder lies; `InputError` for a name that would lead elsewhere.

    A corpus may come from a stranger, and so may its name.
    """
    for what, name in (("study", study), ("corpus", corpus.name), ("cell", cell)):
        if name in ("", ".", "..") or set(name) & set("/\\\0"):
            raise InputError(f"{what} is named {name!r}, which cannot be the name of a folder")
    return out / study / corpus.name / cell / str(seed)


def print_tables(study: Study, results: Mapping[str, Sequence[Finished]]) -> None:
    """One table a corpus: means over seeds, and the paired difference to the base cell."""
    console = wide_console()
    compared = study.metrics[min(1, len(study.metrics) - 1)]
    for corpus, runs in results.items():
        seen = cast(Mapping[str, str], runs[0].summary["protocol"])["seen"]
        # Four cells and three metrics fit into a terminal of 80 columns.
        table = Table(
            title=f"{study.question}\n{corpus}, test, full ranking, seen items {seen}",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
        )
        table.add_column("cell", no_wrap=True)
        versus = f"{compared.upper()} vs\n{study.base}\n(2 s.e.)"
        for name in (*map(str.upper, study.metrics), versus, "time\n(s)", "parameters", "seeds"):
            table.add_column(name, justify="right", no_wrap=True)
        base = [run for run in runs if run.cell == study.base]
        for cell in study.cells:
            own = [run for run in runs if run.cell == cell]
            table.add_row(
                cell,
                *(f"{np.mean([run.test(name) for run in own]):.4f}" for name in study.metrics),
                "" if cell == study.base else difference(own, base, compared),
                f"{np.mean([run.cost('seconds') for run in own]):.1f}",
                f"{int(own[0].cost('parameters')):,}",
                str(len(own)),
            )
        console.print(table)
        first = runs[0].folder.parent.parent
        console.print(f"run folders: {first}/CELL/SEED")


def difference(own: Sequence[Finished], base: Sequence[Finished], metric: str) -> str:
    """The mean over seeds of paired differences over users, with two standard errors of one."""
    pairs = [
        paired_difference(run.ranks(), base[min(place, len(base) - 1)].ranks(), metric)
        for place, run in enumerate(own)
    ]
    mean = np.mean([pair[0] for pair in pairs])
    error = np.mean([pair[1] for pair in pairs])
    return f"{mean:+.4f} ±{2 * error:.4f}"

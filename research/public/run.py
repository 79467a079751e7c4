"""`sf.train` and `sf.load`: a run, trained now or read from its folder, and what it can answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, TypeVar, final

import pandas as pd

from research.config import from_json, hash_of, packages_of
from research.data.corpus import Corpus
from research.data.corpus_text import folder_text, html_table
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.statistics import estimate
from research.evaluation.ties import TiePolicy
from research.evaluation.tiles import SeenPolicy
from research.overrides import replace_fields
from research.public.preparing import load_corpus
from research.report.records import read_tables
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.load import load_run, records_of
from research.runs.parts import RunParts
from research.runs.target import import_if_exists, load_target
from research.storage.records import RunSummary
from research.storage.untrusted import file_inside

Config = TypeVar("Config")
# A config, a function that returns one, or a dotted name of such a function.
ConfigLike = RunConfig | Callable[[], RunConfig] | str
CorpusLike = Corpus | Path | str
# torch's generator, its switches and Accelerate's state belong to the whole process.
_training = threading.Lock()


def config_of(recipe: ConfigLike) -> RunConfig:
    """The config that a name, a function or a config stands for.

    A name is a dotted one, `package.module.function` or `module:function`; for the baselines of
    this project the package may be left out. Raises `InputError` where nothing has this name.

        >>> sf.config("sasrec.full_softmax").stages[0].epochs
        200
    """
    if isinstance(recipe, str):
        module = recipe.partition(":")[0].partition(".")[0]
        ours = import_if_exists(module) is None and import_if_exists(f"baselines.{module}")
        return load_target(f"baselines.{recipe}" if ours else recipe, RunConfig)
    result = recipe if isinstance(recipe, RunConfig) else recipe()
    if not isinstance(result, RunConfig):
        raise InputError(
            f"the function returns a {type(result).__name__}; give one that returns a RunConfig"
        )
    return result


def change(config: Config, changes: Mapping[str, object]) -> Config:
    """The config with fields replaced by dotted name; the config given stays as it is.

    A value may be a plain value, a whole config, or the name of a config's class. Raises
    `InputError` for an unknown name (near ones are suggested) or a value that is not allowed.

        >>> sf.change(config, {"stages.0.epochs": 3, "encoder.positions": "Rotary"})
    """
    return replace_fields(config, changes)


def train(
    config: ConfigLike,
    corpus: CorpusLike,
    *,
    out: Path | str | None = None,
    seed: int | None = None,
    quiet: bool = False,
    device: str | None = None,
    allow: Sequence[str] = (),
    data_root: Path | str = "data",
) -> Run:
    """Train and evaluate a config on a corpus, and return the run.

    A run that has finished in `out` is returned at once; one that was interrupted goes on from its
    last checkpoint, so a cell of a notebook that was stopped is simply run again. In the main
    thread, stopping the cell (SIGINT) ends the stage after the step, with a checkpoint; another
    thread cannot be stopped so. One thread of a process trains at a time. When it returns or
    raises, signal handlers are as before, and no process group is left.

        >>> run = sf.train("sasrec.full_softmax", corpus)
        >>> run = sf.train(sf.change(config, {"stages.0.epochs": 3}), corpus, seed=1)

    Args:
        config: a `RunConfig`, a function that returns one, or a name as for `sf.config`.
        corpus: a `Corpus`, or what `sf.load_corpus` takes.
        out: the run's folder. None: `runs/python/CORPUS/HASH/SEED`, so that every config has its
            own.
        seed: seed of initial weights, order of rows, masks and dropout. None: the config's.
        quiet: print nothing. Else a line is printed for each validation.
        device: "cpu", "cuda" or "cuda:N". None: a GPU if there is one.
        allow: packages whose config classes are trusted in the run that `start_from` names.
        data_root: the folder of prepared corpora.

    Raises:
        InputError: for a config that is not valid or does not fit the corpus, for a folder that
            holds another run, and while another thread trains.
    """
    opened = corpus if isinstance(corpus, Corpus) else load_corpus(corpus, data_root=data_root)
    chosen = replace(config_of(config), corpus=str(opened.folder))
    chosen = chosen if seed is None else replace(chosen, seed=seed)
    if out is None:
        cell = hash_of(replace(chosen, seed=0, corpus=""), opened.fingerprint)[:12]
        out = Path("runs", "python", opened.name, cell, str(chosen.seed))
    options = RunOptions(data_root=str(data_root), quiet=quiet, device=device, allow=tuple(allow))
    with alone():
        execute(chosen, Path(out), options=options)
    return load(out, device=device, allow=(*allow, *packages_of(chosen)), data_root=data_root)


def load(
    folder: Path | str,
    *,
    device: str | None = None,
    allow: Sequence[str] = (),
    data_root: Path | str = "data",
) -> Run:
    """The finished run in a folder; weights and corpus are opened when they are first needed.

    `device` ranks: "cpu", "cuda" or "cuda:N"; None: a GPU if there is one. `allow` names packages
    whose config classes are trusted in the run's config, `data_root` is the folder of prepared
    corpora. Raises `InputError` if the folder holds no run, or one that has not finished.

        >>> run = sf.load("runs/quickstart/ml-100k/sasrec/0")
    """
    path = Path(folder)
    record, summary = records_of(path)
    return Run(
        folder=path,
        config=from_json(record.config, RunConfig, allow=allow),
        summary=summary,
        device=device,
        allow=tuple(allow),
        data_root=str(data_root),
    )


@contextmanager
def alone() -> Iterator[None]:
    """Keep other threads of this process from training within; `InputError` while one does."""
    if not _training.acquire(blocking=False):
        raise InputError(
            "another thread of this process is training, and torch's generator and switches belong "
            "to the whole process; wait for it, or train in another process"
        )
    try:
        yield
    finally:
        _training.release()


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Run:
    """A finished run: its config, its figures, and the model that ranks."""

    folder: Path
    """The run's folder."""
    config: RunConfig
    """The run's config."""
    summary: RunSummary
    """What summary.json says: protocol, figures, cost, notes."""
    device: str | None = None
    """The device that ranks; None: a GPU if there is one."""
    allow: tuple[str, ...] = ()
    """Packages whose config classes are trusted."""
    data_root: str = "data"
    """The folder of prepared corpora."""

    @cached_property
    def loaded(self) -> tuple[RunParts, Ranker]:
        """The run's parts and its ranker, opened at first use; `InputError` if they have changed.

        The corpus must be the one that the run was trained on.
        """
        return load_run(self.folder, self.data_root, self.allow, self.device)

    @property
    def corpus(self) -> Corpus:
        """The corpus that the run was trained on."""
        return self.loaded[0].corpus

    def metrics(self, part: Literal["test", "validation"] = "test") -> pd.DataFrame:
        """The run's figures as it stored them, one row for each candidate set and metric.

        Columns: candidates; metric; mean over users; low and high, the ends of the 95 % bootstrap
        interval over users (it does not cover what another seed would change); users, their number.
        The validation part is always ranked in full. Raises `InputError` if a rank table is missing
        or damaged, and with fewer than two users.

            >>> run.metrics().set_index("metric").loc["ndcg@10", ["mean", "low", "high"]]
        """
        if part == "test":
            tables = read_tables(self.folder)
        else:
            _check_part(part)
            name = "ranks/validation-full.npz"
            if not (self.folder / name).is_file():
                raise InputError(f"{self.folder} has no {name}: its split holds nothing out for it")
            tables = {"full": RankTable.load(file_inside(self.folder, name))}
        evaluation = self.config.evaluation
        return figures_of(tables, evaluation.metrics, evaluation.ties)

    def evaluate(
        self,
        part: Literal["test", "validation"] = "test",
        *,
        metrics: Sequence[str] = (),
        candidates: Sequence[str] = (),
        negatives_file: Path | str | None = None,
        seen: SeenPolicy | None = None,
        ties: TiePolicy | None = None,
    ) -> pd.DataFrame:
        """Rank the held-out items again under other rules; the run's folder stays as it is.

            >>> run.evaluate(metrics=["hr@10"], candidates=["full", "uniform-100"])

        Args:
            part: which held-out items are ranked: "test" or "validation".
            metrics: hr@K, ndcg@K, recall@K, precision@K, map@K, mrr@K or mrr. Empty: the run's.
            candidates: "full", "uniform-N", "popularity-N". Empty: the run's.
            negatives_file: a file with the raw ids of a user and of items to rank in every line.
                None: the run's.
            seen: items of the history are "excluded", "kept", or "zero" (kept, with score 0). None:
                the run's.
            ties: where scores tie, a metric is the mean over all orders ("expected") or its value
                at the mean rank ("mean"). None: the run's.

        Returns:
            A frame as `metrics` returns it.

        Raises:
            InputError: for an unknown metric or candidate set, and for a corpus that has changed.
        """
        _check_part(part)
        given = {
            "metrics": tuple(metrics) or None,
            "candidates": tuple(candidates) or None,
            "negatives_file": None if negatives_file is None else str(negatives_file),
            "seen": seen,
            "ties": ties,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        parts, ranker = self.loaded
        evaluation = replace_fields(parts.config.evaluation, changes)
        parts = replace(parts, config=replace(parts.config, evaluation=evaluation))
        return figures_of(parts.tables(ranker, part), evaluation.metrics, evaluation.ties)

    def __reduce__(self) -> tuple[object, ...]:
        # Another process reads the folder again, and is sent no weights.
        again = partial(load, device=self.device, allow=self.allow, data_root=self.data_root)
        return (again, (self.folder,))

    def __repr__(self) -> str:
        facts = self._facts()
        return (
            f"Run of {facts['model']} on {facts['corpus']}, seed {facts['seed']}, "
            f"in {facts['folder']}\n  test, {facts['candidates']}: {facts['figures']}"
        )

    def _repr_html_(self) -> str:
        return html_table("Run", self._facts())

    def _facts(self) -> dict[str, str]:
        """What one asks of a run first: what was trained on what, and its first three figures."""
        candidates, figures = next(iter(self.summary.test.items()))
        stages = [f"{stage.name} ({', '.join(stage.objectives)})" for stage in self.config.stages]
        kind = type(self.config.encoder if stages else self.config.ranker).__name__
        model = kind.removesuffix("Config") + (f": {', '.join(stages)}" if stages else "")
        return {
            "model": model,
            "corpus": Path(self.config.corpus).name,
            "seed": str(self.config.seed),
            "folder": folder_text(self.folder),
            "candidates": f"{candidates} ranking of {self.summary.users.evaluated:,} users",
            "figures": ", ".join(
                f"{name} {value:.4f}" for name, value in list(figures.items())[:4]
            ),
        }


def figures_of(
    tables: Mapping[str, RankTable], names: Sequence[str], ties: TiePolicy
) -> pd.DataFrame:
    """Means and 95 % intervals of metrics, one row for each rank table and metric."""
    rows = []
    for candidates, table in tables.items():
        for name in dict.fromkeys(names):
            result = estimate([table], name, ties=ties)
            rows.append((candidates, name, result.mean, result.low, result.high, result.users))
    return pd.DataFrame(rows, columns=["candidates", "metric", "mean", "low", "high", "users"])


def _check_part(part: str) -> None:
    if part not in ("test", "validation"):
        raise InputError(f"part is {part!r}; allowed: test, validation")

"""`sf.tune`: configs tuned by their validation figures, then compared with fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from research.config import packages_of
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.public.messages import check_argument
from research.public.preparing import corpus_name
from research.public.study import StudyResult, listed
from research.public.training import ConfigLike, CorpusLike, config_of, in_session
from research.runs.config import RunConfig
from research.runs.execute import RunOptions
from research.studies.budget import budget_of
from research.studies.search import TPE, PrunerConfig, SamplerConfig
from research.studies.space import Space, TunedCell
from research.studies.study import StudyOptions
from research.studies.tune import tune as do_tuning
from research.studies.tuning import Tuning


def tune(
    cells: Mapping[str, ConfigLike | tuple[ConfigLike, Space]],
    corpora: CorpusLike | Sequence[CorpusLike],
    *,
    trials: int = 20,
    metric: str = "ndcg@10",
    sampler: SamplerConfig = TPE(),
    pruner: PrunerConfig | None = None,
    at_once: int = 1,
    seed: int = 0,
    fresh_seeds: Sequence[int] = (1, 2, 3, 4, 5),
    base: str | None = None,
    name: str = "tuning",
    question: str = "",
    metrics: Sequence[str] = ("hr@10", "ndcg@10", "mrr"),
    budget: str | None = None,
    out: Path | str = "runs",
    workers: int = 1,
    quiet: bool = True,
    device: str | None = None,
    data_root: Path | str = "data",
) -> StudyResult:
    """Tune cells with equal numbers of trials, run the winners with fresh seeds, and compare them.

    A space gets a `Trial`, draws values from it by name, and returns changes by dotted name. The
    trials never rank the test part: the runs of the winners do, at their end. A call that was
    stopped is simply made again.

        >>> def space(trial):
        ...     return {"stages.0.optimizer.lr": trial.log_uniform("lr", 3e-4, 1e-2)}
        >>> sf.tune({"sasrec": (config, space)}, corpus, trials=12).table()

    Args:
        cells: by name a config, as for `sf.train`, with its space; or a config alone, which is not
            tuned.
        corpora: a corpus or several, each as for `sf.train`; every cell is tuned on each.
        trials: trials of every tuned cell on every corpus; pruned and failed ones count.
        metric: the metric that decides between trials, on the validation part.
        sampler: how values are drawn: `TPE()` or `RandomSearch()`.
        pruner: which trials are ended early: `MedianPruner()` or `ASHA()`. None: none is.
        at_once: trials of one cell that may run at the same time; it changes what is drawn.
        seed: seed of the draws and of every trial.
        fresh_seeds: seeds with which the winners are run.
        base: the cell that the others are compared with. None: the first.
        name: the name of the study of the winners; its folder is `out/name`, and that of the trials
            `out/name-trials`.
        question: the question that the comparison answers, for the report.
        metrics: metrics of the tables; `metric` is the one that is compared.
        budget: as for `sf.study`, for every trial and every run of a winner.
        out: the folder of all studies.
        workers: trials or runs at a time, each in a process of its own. 1: all in this one.
        quiet: print nothing. False: how each trial ended, and what each run prints.
        device: as for `sf.train`.
        data_root: the folder of prepared corpora.

    Raises:
        InputError: for a space that cannot be drawn from, for a folder that holds trials of another
            tuning, when no trial of a cell is complete, without the extra `tune`, and as
            `sf.study` does.
    """
    check_argument("cells", cells, Mapping[str, object])
    chosen = {cell: cell_of(recipe) for cell, recipe in cells.items()}
    tuning = Tuning(
        name=name,
        question=question or f"How do {', '.join(cells)} compare, tuned alike?",
        cells=chosen,
        base=next(iter(cells), "") if base is None else base,
        corpora=tuple(map(corpus_name, listed(corpora))),
        metric=metric,
        trials=trials,
        at_once=at_once,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        fresh_seeds=tuple(fresh_seeds),
        metrics=tuple(metrics),
        budget=None if budget is None else budget_of(budget),
    )
    allow = tuple(
        package for config in tuning.base_runs.values() for package in packages_of(config)
    )
    options = RunOptions(data_root=str(data_root), quiet=quiet, device=device, allow=allow)
    with in_session():
        outcome = do_tuning(
            tuning,
            Path(out),
            options=options,
            accelerator=make_accelerator(device=device),
            study_options=StudyOptions(workers=workers, probe=False),
        )
    if outcome.stopped:
        raise InputError(
            f"{len(outcome.stopped)} trials were stopped before their end, first "
            f"{outcome.stopped[0].name}; make the same call again, which continues them"
        )
    return StudyResult(
        folder=Path(out) / name, device=device, allow=allow, data_root=str(data_root)
    )


def cell_of(recipe: ConfigLike | tuple[ConfigLike, Space]) -> RunConfig | TunedCell:
    """A cell of a tuning: a config with a space, or one alone."""
    if isinstance(recipe, tuple):
        if len(recipe) != 2:
            raise InputError(
                f"a cell is a tuple of {len(recipe)}; give (config, space), or a config alone"
            )
        return TunedCell(base=config_of(recipe[0]), space=recipe[1])
    return config_of(recipe)

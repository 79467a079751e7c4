"""A tuning: cells with spaces, equal numbers of trials, and the study that compares the winners.

`tune.py` does it: the trials of every cell, which never rank the test part, and then the winners
with fresh seeds as an ordinary study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from research.config import check_types
from research.errors import InputError
from research.evaluation.metrics import check_metric_names, of_ranks
from research.runs.config import RunConfig
from research.storage.tuning_records import TRIALS
from research.studies.budget import Budget
from research.studies.search import TPE, PrunerConfig, SamplerConfig, check_at_least
from research.studies.space import TunedCell
from research.studies.study import Study, comparable_run
from research.training.config import StageConfig


def shortened(stage: StageConfig, share: float) -> StageConfig:
    """A stage with this share of its limits, rounded, and at least one epoch, step or token."""
    if share == 1.0:
        return stage
    counts = {name: getattr(stage, name) for name in ("epochs", "steps", "tokens")}
    limits = {
        name: max(1, round(count * share)) for name, count in counts.items() if count is not None
    }
    seconds = None if stage.seconds is None else stage.seconds * share
    return replace(stage, **limits, seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Cells that are tuned with equal numbers of trials, and then compared as a study."""

    name: str
    """The tuning's name: the winners' study has it too, and trials are in the folder NAME-trials.
    """
    question: str
    """The question that the comparison of the winners answers."""
    cells: Mapping[str, TunedCell | RunConfig]
    """By cell name a base run with its space, or the config of a cell that is not tuned."""
    base: str
    """The cell that the others are compared with."""
    corpora: tuple[str, ...] = ("ml-100k",)
    """Corpus folders or names of known data sets; every cell is tuned on each."""
    trial_length: float = 1.0
    """The share of every stage's limits, in epochs, steps, tokens or seconds, that a trial may
    spend; above 0, at most 1. Winners spend them whole. Patience and warm-up stay as they are."""
    metric: str = "ndcg@10"
    """The metric that decides between trials: that of the selected weights on the validation part,
    under full ranking."""
    trials: int = 20
    """Trials of every tuned cell on every corpus; pruned and failed ones count."""
    at_once: int = 1
    """Trials of one cell that may run at the same time. A trial is drawn and pruned by those that
    are at least so many before it, so that the trials do not depend on how many workers there are.
    """
    sampler: SamplerConfig = TPE()
    """How values are drawn."""
    pruner: PrunerConfig | None = None
    """Which trials are ended early; None: none is."""
    seed: int = 0
    """Seed of the draws and of every trial's run. Cells with equal spaces begin with equal draws.
    """
    fresh_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Seeds with which the winners are run and tested; the trials' is not among them."""
    metrics: tuple[str, ...] = ("hr@10", "ndcg@10", "mrr")
    """Metrics of the winners' tables; `metric` is the one that is compared."""
    budget: Budget | None = None
    """What every winner may spend, and a trial `trial_length` of; None: the limits of its own
    config."""
    next_commands: tuple[str, ...] = ()
    """What one may try next, as in `Study`."""

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(f"tuning {self.name}: trials", self.trials, 1)
        check_at_least(f"tuning {self.name}: at_once", self.at_once, 1)
        if not 0.0 < self.trial_length <= 1.0:
            raise InputError(
                f"tuning {self.name}: trial_length is {self.trial_length}; it must be above 0 and "
                "at most 1, the share of a winner's length that a trial has"
            )
        check_metric_names([self.metric], f"tuning {self.name}: metric")
        if not of_ranks([self.metric]):
            raise InputError(
                f"tuning {self.name}: metric is {self.metric}, of recommended lists; trials are "
                "chosen by a metric of ranks, such as ndcg@10"
            )
        if not self.tuned_cells:
            raise InputError(
                f"tuning {self.name}: no cell has a space; give at least one as a TunedCell, or "
                "make it a Study"
            )
        if self.seed in self.fresh_seeds:
            raise InputError(
                f"tuning {self.name}: fresh_seeds has {self.seed}, the seed of the trials; winners "
                "are run with other seeds than those that chose them"
            )
        # Its own checks are made now, before any trial.
        self.study({})

    @property
    def tuned_cells(self) -> dict[str, TunedCell]:
        """The cells that have a space, by name."""
        return {name: cell for name, cell in self.cells.items() if isinstance(cell, TunedCell)}

    @property
    def base_runs(self) -> dict[str, RunConfig]:
        """The config of every cell before it is tuned, by name."""
        return {
            name: cell.base if isinstance(cell, TunedCell) else cell
            for name, cell in self.cells.items()
        }

    @property
    def trial_study(self) -> str:
        """The name of the folder of all trials, beside that of the winners' study."""
        return f"{self.name}{TRIALS}"

    def trial_run(self, config: RunConfig, corpus: str) -> RunConfig:
        """The config of a trial's run: `trial_length` as long, and the test part is left alone."""
        config = comparable_run(config, corpus, self.seed, [self.metric], self.budget)
        stages = tuple(shortened(stage, self.trial_length) for stage in config.stages)
        config = replace(config, stages=stages)
        evaluation = replace(
            config.evaluation, candidates=("full",), negatives_file=None, test=False
        )
        return replace(config, evaluation=evaluation)

    def study(self, winners: Mapping[str, Mapping[str, RunConfig]]) -> Study:
        """The study that compares the winners, given by corpus and cell.

        A cell that is not among them is not tuned.
        """
        return Study(
            name=self.name,
            question=self.question,
            cells=self.base_runs,
            base=self.base,
            corpora=self.corpora,
            seeds=self.fresh_seeds,
            metrics=self.metrics if self.metric in self.metrics else (*self.metrics, self.metric),
            compared=self.metric,
            budget=self.budget,
            on_corpus=winners,
            next_commands=self.next_commands,
        )

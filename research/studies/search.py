"""How the values of trials are drawn, and which trials are ended early: Optuna's ways, as configs.

An own way is a class of one's own with `build`, as any config of this project.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from research.config import check_types
from research.errors import InputError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


class SamplerConfig(ABC):
    """Abstract: how the values of a trial are drawn."""

    @abstractmethod
    def build(self, seed: int) -> BaseSampler:
        """Optuna's sampler, which draws one trial; `seed` is below 2^32."""


@dataclass(frozen=True, kw_only=True)
class RandomSearch(SamplerConfig):
    """Every trial is drawn anew, whatever the others came to."""

    def build(self, seed: int) -> BaseSampler:
        """Optuna's `RandomSampler`."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)

    def __str__(self) -> str:
        return "at random"


@dataclass(frozen=True, kw_only=True)
class TPE(SamplerConfig):
    """Tree-structured Parzen estimator: values like those of the best trials so far are likelier.

    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011, as in Optuna.
    """

    startup_trials: int = 10
    """Trials that are drawn at random first."""

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least("TPE.startup_trials", self.startup_trials, 1)

    def build(self, seed: int) -> BaseSampler:
        """Optuna's `TPESampler`."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, n_startup_trials=self.startup_trials)

    def __str__(self) -> str:
        return f"by TPE after {self.startup_trials} at random"


class PrunerConfig(ABC):
    """Abstract: which trials are ended early, by their validation curves."""

    @abstractmethod
    def build(self) -> BasePruner:
        """Optuna's pruner; its steps are epochs of a run's last stage."""


@dataclass(frozen=True, kw_only=True)
class MedianPruner(PrunerConfig):
    """A trial ends when its best validation is below the median of earlier trials at that epoch."""

    startup_trials: int = 5
    """Complete trials before any is pruned."""
    startup_epochs: int = 1
    """Epochs before a trial is pruned."""

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least("MedianPruner.startup_trials", self.startup_trials, 1)
        check_at_least("MedianPruner.startup_epochs", self.startup_epochs, 0)

    def build(self) -> BasePruner:
        """Optuna's `MedianPruner`."""
        from optuna import pruners

        return pruners.MedianPruner(self.startup_trials, self.startup_epochs)

    def __str__(self) -> str:
        return (
            f"below the median at an epoch, after {self.startup_trials} complete trials and "
            f"{self.startup_epochs} epochs"
        )


@dataclass(frozen=True, kw_only=True)
class ASHA(PrunerConfig):
    """Successive halving: at each rung a trial must be among the best 1/factor of those there.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, as in Optuna:
    a trial that fails at a rung is ended, and never taken up again.
    """

    first_epoch: int = 1
    """The epoch of the first rung; each rung is at `factor` times the epoch of the one before."""
    factor: int = 3
    """The share of trials that pass a rung is 1/factor."""

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least("ASHA.first_epoch", self.first_epoch, 1)
        check_at_least("ASHA.factor", self.factor, 2)

    def build(self) -> BasePruner:
        """Optuna's `SuccessiveHalvingPruner`."""
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(min_resource=self.first_epoch, reduction_factor=self.factor)

    def __str__(self) -> str:
        return (
            f"by ASHA: the best 1/{self.factor} go on at epoch {self.first_epoch} and each "
            f"{self.factor} times later one"
        )


def check_at_least(what: str, number: int, least: int) -> None:
    """Raise `InputError` for a number below `least`."""
    if number < least:
        raise InputError(f"{what} is {number}; it must be at least {least}")

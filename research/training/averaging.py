"""Weight averaging: the weights that validate, rank and are kept are an average over training.

The optimizer goes on from its own weights. All else of a stage uses the average: its validations,
the best state, the test, exports, recommendations, and the next stage, which starts from it. The
loop (`research/training/loop.py`) has one `AveragedWeights` a stage, as `Weights.averaged`.

Weights are kept in fp32 in every precision (`research/model/compute.py`), and so are averages. No
statistics have to be estimated again for averaged weights, as they must be for batch norm: the
encoders normalize each token by itself (LayerNorm).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.checkpoint.tensors import fill_tensors
from research.config import check_types
from research.errors import InputError


class AveragingConfig(ABC):
    """Abstract: which weights of a stage are averaged, and how. Subclasses are frozen dataclasses.

    A rule says by `is_due_after_step` and `is_due_after_epoch` when the weights of that moment are
    added. One that keeps a running mean says by `share` how.
    """

    @property
    def kept(self) -> int:
        """Copies of earlier weights that are kept, and weigh the same; 0: a running mean alone."""
        return 0

    @property
    def copies(self) -> int:
        """Copies of the weights that are held beside the ones that train."""
        return 1 + self.kept

    def is_due_after_step(self, step: int) -> bool:
        """Whether the weights are added after the stage's `step`-th step, counted from 1."""
        return False

    def is_due_after_epoch(self, epoch: int) -> bool:
        """Whether the weights are added after the stage's `epoch`-th epoch, counted from 1."""
        return False

    def reason_never_due(self, epochs: int | None, steps: int | None) -> str | None:
        """Why a stage of so many epochs and steps (None: no limit) never adds any weights.

        None: it does.
        """
        return None

    @abstractmethod
    def share(self, count: int) -> float:
        """The share of the newest weights in the average of all `count` weights added so far."""


@dataclass(frozen=True, kw_only=True)
class ExponentialMovingAverage(AveragingConfig):
    """The exponential moving average (EMA) of the weights after each step.

    Weights that were added i times ago have a share in proportion to decay^i. The shares add up to
    1 from the beginning, as under Adam's correction for its start at 0 (Kingma and Ba 2015, section
    3), so that early averages follow the weights closely and initial weights have no part. A step
    that is left out (`max_skipped`) counts as one that changed nothing. Every weight is read and
    written each time, also where the optimizer moves touched rows alone: for a large item table
    raise `every_steps`.
    """

    decay: float = 0.999
    """The factor by which an added weight's share shrinks each time; the average reaches back over
    about 1 / (1 - decay) of the weights added."""
    every_steps: int = 1
    """Optimizer steps between two additions."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 < self.decay < 1.0:
            raise InputError(f"averaging.decay is {self.decay}; it must be above 0 and below 1")
        if self.every_steps < 1:
            raise InputError(f"averaging.every_steps is {self.every_steps}; it must be at least 1")

    def is_due_after_step(self, step: int) -> bool:
        """Whether `step` is a multiple of `every_steps`."""
        return step % self.every_steps == 0

    def reason_never_due(self, epochs: int | None, steps: int | None) -> str | None:
        """A reason where `every_steps` is more than the stage's steps."""
        if steps is None or self.every_steps <= steps:
            return None
        return f"averaging.every_steps is {self.every_steps}, more than the stage's {steps} steps"

    def share(self, count: int) -> float:
        """(1 - decay) / (1 - decay^count): 1 for the first weights."""
        return float((1.0 - self.decay) / (1.0 - self.decay**count))


@dataclass(frozen=True, kw_only=True)
class CheckpointAverage(AveragingConfig):
    """The mean of the weights at the ends of the last epochs (checkpoint averaging).

    With a number in `last` it is latest weight averaging (LAWA, Kaddour 2022), with `last` None
    stochastic weight averaging (SWA, Izmailov et al. 2018), whose learning rate is constant or
    cyclic after `from_epoch`. The end of a stage counts as the end of an epoch, and what it added
    stays where the stage is extended later. Until weights have been added, the average is the
    weights that train.
    """

    last: int | None = 5
    """How many weights are averaged, each of which is held in memory and in checkpoints; None: all
    since `from_epoch`, of which the running mean alone is held."""
    every_epochs: int = 1
    """Epochs between two additions."""
    from_epoch: int = 1
    """The first epoch at whose end weights are added, counted from 1."""

    def __post_init__(self) -> None:
        check_types(self)
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise InputError(f"averaging.{name} is {value}; it must be at least 1")

    @property
    def kept(self) -> int:
        """The number in `last`; 0 where it is None."""
        return self.last or 0

    def is_due_after_epoch(self, epoch: int) -> bool:
        """Whether `epoch` is `from_epoch`, or so many epochs later."""
        return epoch >= self.from_epoch and (epoch - self.from_epoch) % self.every_epochs == 0

    def reason_never_due(self, epochs: int | None, steps: int | None) -> str | None:
        """A reason where `from_epoch` is after the stage's last epoch."""
        if epochs is None or self.from_epoch <= epochs:
            return None
        return f"averaging.from_epoch is {self.from_epoch}, after the stage's {epochs} epochs"

    def share(self, count: int) -> float:
        """1 / count."""
        return 1.0 / count


def held_by_averages(rule: AveragingConfig | None, module: nn.Module) -> int:
    """Bytes of what `AveragedWeights` holds of a module's parameters."""
    learning = sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)
    return 0 if rule is None else rule.copies * learning


class AveragedWeights:
    """The average of a module's parameters that learn; without a rule, the parameters themselves.

    A parameter may be split over processes: each averages what it holds.
    """

    def __init__(
        self, rule: AveragingConfig | None, module: nn.Module, device: torch.device
    ) -> None:
        """Hold the averages on `device`, to which the module's parameters may move later."""
        self.rule = rule
        learning: dict[str, Tensor] = {
            name: parameter
            for name, parameter in module.named_parameters()
            if rule is not None and parameter.requires_grad
        }

        def copies() -> dict[str, Tensor]:
            return {name: weight.detach().clone().to(device) for name, weight in learning.items()}

        self._weights = learning
        self._averages = copies()
        self._earlier = [copies() for _ in range(0 if rule is None else rule.kept)]
        # How many weights have been added, on the host.
        self._count = torch.zeros((), dtype=torch.int64)

    def after_step(self, step: int) -> None:
        """Add the weights if that is due after the stage's step with this number."""
        if self.rule is not None and self.rule.is_due_after_step(step):
            self._add(self.rule)

    def after_epoch(self, epoch: int) -> None:
        """Add the weights if that is due after the stage's epoch with this number."""
        if self.rule is not None and self.rule.is_due_after_epoch(epoch):
            self._add(self.rule)

    @torch.no_grad()
    def _add(self, rule: AveragingConfig) -> None:
        count = int(self._count.add_(1))
        if not self._earlier:
            averages, weights = list(self._averages.values()), list(self._weights.values())
            torch._foreach_lerp_(averages, weights, rule.share(count))
            return
        oldest, added = (count - 1) % rule.kept, min(count, rule.kept)
        for name, average in self._averages.items():
            self._earlier[oldest][name].copy_(self._weights[name])
            average.copy_(self._earlier[0][name])
            for other in self._earlier[1:added]:
                average.add_(other[name])
            average.div_(added)

    @contextmanager
    def in_module(self) -> Iterator[None]:
        """Within the block the module holds the average, and afterwards again its own weights."""
        self.put_into_module()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def put_into_module(self) -> None:
        """Exchange the module's weights and the average: the stage trains no more."""
        if not self._count:
            for name, weight in self._weights.items():
                self._averages[name].copy_(weight)
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, weight in self._weights.items():
            # One parameter at a time, so that no more than one is held a third time.
            kept = weight.clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(kept)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside the average, by name; to be called within `in_module`.

        `training.NAME` is the weight from which training goes on, `earlier.I.NAME` one of those
        that are averaged, and `count` the number of weights added. Without a rule there is none.
        """
        if self.rule is None:
            return {}
        tensors = {f"training.{name}": weight for name, weight in self._averages.items()}
        for index, weights in enumerate(self._earlier):
            tensors |= {f"earlier.{index}.{name}": weight for name, weight in weights.items()}
        return {**tensors, "count": self._count}

    def fill(
        self,
        stored: Mapping[str, Tensor],
        source: str,
        local_part: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Fill `tensors()` from those of a checkpoint; to be called within `in_module`.

        `InputError` when they do not fit. `local_part` gives a process its part of a tensor.
        """
        fill_tensors(stored, self.tensors(), source, local_part=local_part)

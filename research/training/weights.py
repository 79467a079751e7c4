"""The weights that a stage trains: whole in every process, or split over the processes."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from research.checkpoint.tensors import on_host
from research.training.multi_objective import MultiObjectiveModel
from research.training.stage_run import StageRun, Validate


class Weights(ABC):
    """Abstract: where a stage's parameters lie while it trains."""

    split = False
    """Whether a process holds a part of them alone, so that all take part where they are read."""

    def __init__(self, model: MultiObjectiveModel, trained: MultiObjectiveModel) -> None:
        self.model = model
        """Ranks, and holds all weights after the stage."""
        self.trained = trained
        """Holds the parameters that the optimizer steps."""

    @abstractmethod
    def wrapped(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """What is called, and what is stepped: `trained` and its optimizer, for many processes."""

    @abstractmethod
    def with_whole(self, validate: Validate) -> Mapping[str, float]:
        """The figures of a validation, with all weights in `model`."""

    @abstractmethod
    def join(self) -> None:
        """Leave all weights in `model`, in every process."""

    @abstractmethod
    def whole(self, tensor: Tensor) -> Tensor:
        """A parameter, its gradient or moment, whole in every process."""

    @abstractmethod
    def on_host(self, tensor: Tensor) -> Tensor:
        """One of these on the host as it is written: whole in the main process."""

    @abstractmethod
    def like(self, stored: Tensor, target: Tensor) -> Tensor:
        """A whole tensor, as it was read, as `target` holds it."""


class WholeWeights(Weights):
    """Every process holds all weights; `model` is trained as it stands."""

    def __init__(self, model: MultiObjectiveModel, accelerator: Accelerator) -> None:
        super().__init__(model, model)
        self.accelerator = accelerator

    def wrapped(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """As Accelerate wraps them."""
        with warnings.catch_warnings():
            # torch 2.13 has another name for it, which Accelerate does not know.
            known = "`broadcast_buffers` is deprecated"
            warnings.filterwarnings("ignore", known, FutureWarning)
            model, wrapped = self.accelerator.prepare(self.trained, optimizer)
        return model, wrapped

    def with_whole(self, validate: Validate) -> Mapping[str, float]:
        """They are there."""
        return validate()

    def join(self) -> None:
        """They are there."""

    def whole(self, tensor: Tensor) -> Tensor:
        """As it is."""
        return tensor

    def on_host(self, tensor: Tensor) -> Tensor:
        """A copy where it is not on the host."""
        return on_host(tensor)

    def like(self, stored: Tensor, target: Tensor) -> Tensor:
        """As it was read."""
        return stored


def place_weights(model: MultiObjectiveModel, run: StageRun) -> Weights:
    """The model's weights where a stage trains them; with one process there is nothing to split."""
    if not run.split_weights or run.accelerator.num_processes == 1:
        return WholeWeights(model, run.accelerator)
    # It brings in torch's FSDP, which other runs do without.
    from research.training.fsdp import SplitWeights

    return SplitWeights(model, run.accelerator)

"""Where a stage's weights are while it trains: full in every process, or sharded over processes.

`WholeWeights` is here, `ShardedWeights` in `research/training/fsdp.py`. The loop, its step and the
checkpointer use either through `Weights`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from research.checkpoint.tensors import on_host
from research.training.averaging import AveragedWeights, AveragingConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.stage_run import StageRun, Validate


class Weights(ABC):
    """Abstract: where a stage's parameters are while it trains."""

    sharded = False
    """Whether each process holds only a part of the parameters, so that all must read them
    together."""
    averaged: AveragedWeights
    """The average of the weights of `trained`, which `place_weights` sets."""

    def __init__(self, model: MultiObjectiveModel, trained: MultiObjectiveModel) -> None:
        self.model = model
        """The model that ranks, and that holds all weights after the stage."""
        self.trained = trained
        """The model whose parameters the optimizer steps."""

    @abstractmethod
    def wrap(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the module that a step calls and the optimizer it steps, for many processes."""

    @abstractmethod
    def validate_with_full_weights(self, validate: Validate) -> Mapping[str, float]:
        """Validate while `model` holds all weights, and return the figures by name."""

    @abstractmethod
    def gather_into_model(self) -> None:
        """Put all weights into `model`, in every process."""

    @abstractmethod
    def full_tensor(self, tensor: Tensor) -> Tensor:
        """Return the full tensor of a parameter, or of its gradient or moment, in every process."""

    @abstractmethod
    def on_host(self, tensor: Tensor) -> Tensor:
        """Return such a tensor on the host, as a file holds it: full in the main process."""

    @abstractmethod
    def local_part(self, stored: Tensor, target: Tensor) -> Tensor:
        """Return this process's part of a full tensor, as read from a file, in the form of
        `target`."""


class WholeWeights(Weights):
    """Every process holds all weights, and `model` itself is trained."""

    def __init__(self, model: MultiObjectiveModel, accelerator: Accelerator) -> None:
        super().__init__(model, model)
        self.accelerator = accelerator

    def wrap(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the model and the optimizer as Accelerate wraps them."""
        with warnings.catch_warnings():
            # torch 2.13 has another name for this argument, which Accelerate does not know.
            warning = "`broadcast_buffers` is deprecated"
            warnings.filterwarnings("ignore", warning, FutureWarning)
            model, wrapped = self.accelerator.prepare(self.trained, optimizer)
        return model, wrapped

    def validate_with_full_weights(self, validate: Validate) -> Mapping[str, float]:
        """Validate and return the figures; `model` holds all weights already."""
        return validate()

    def gather_into_model(self) -> None:
        """Do nothing, as `model` holds all weights already."""

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """Return the tensor unchanged."""
        return tensor

    def on_host(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the host, copied there if it lies elsewhere."""
        return on_host(tensor)

    def local_part(self, stored: Tensor, target: Tensor) -> Tensor:
        """Return the tensor unchanged, as it was read."""
        return stored


def place_weights(
    model: MultiObjectiveModel, run: StageRun, averaging: AveragingConfig | None = None
) -> Weights:
    """Return the model's weights where a stage trains them, and their average by `averaging`."""
    weights = _where_trained(model, run)
    weights.averaged = AveragedWeights(averaging, weights.trained, run.accelerator.device)
    return weights


def _where_trained(model: MultiObjectiveModel, run: StageRun) -> Weights:
    """Return the model's weights, sharded if the run says so; one process has nothing to split."""
    if not run.shard_weights or run.accelerator.num_processes == 1:
        return WholeWeights(model, run.accelerator)
    # Imported here, since it imports torch's FSDP, which other runs do not need.
    from research.training.fsdp import ShardedWeights

    return ShardedWeights(model, run.accelerator)

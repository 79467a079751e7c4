"""Splits a stage's weights, gradients and optimizer moments over the processes, by torch's FSDP2.

While a stage trains, a split copy of its model holds the parameters, and each process holds some
rows of every parameter (DTensors). While the stage ranks, and outside of stages, the model itself
holds them whole, so that no other code has to know of the splitting. The module is imported only
where it is needed, since importing torch's FSDP takes time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from research.distributed.collectives import host_group
from research.objectives.base import LossSum
from research.training.multi_objective import MultiObjectiveModel, StepInputs
from research.training.stage_run import Validate
from research.training.weights import Weights


class ShardedWeights(Weights):
    """Weights that are split by rows, in a copy of the model, while a stage trains.

    Rows are split as `torch.chunk` does, so the last processes may have none of a small tensor. All
    processes call each method together where it gathers a tensor.
    """

    sharded = True

    def __init__(self, model: MultiObjectiveModel, accelerator: Accelerator) -> None:
        """Split the parameters; until `gather_into_model`, `model` has them only inside
        `validate_with_full_weights`."""
        memo: dict[int, object] = {id(model.catalogue): model.catalogue}
        for parameter in model.parameters():
            # A deep copy would hold every parameter twice.
            copied_parameter = nn.Parameter(
                parameter.detach(), requires_grad=parameter.requires_grad
            )
            memo[id(parameter)] = copied_parameter
        super().__init__(model, copy.deepcopy(model, memo))
        self.accelerator = accelerator
        self.device = accelerator.device
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        mesh = init_device_mesh(self.device.type, (self.world,))
        for part in self.trained.encoder.parts_to_shard():
            fully_shard(part, mesh=mesh)
        # All other parameters form one group, since heads read the encoder's item table too.
        fully_shard(self.trained, mesh=mesh)
        self._release()
        # Ranking uses `model`, so what is no parameter (buffers) must be on the device too.
        model.to(self.device)

    def wrap(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return the split copy, called in the run's precision, and the optimizer unchanged."""
        return AutocastModule(self.trained, self.accelerator), optimizer

    def _release(self) -> None:
        for parameter in self.model.parameters():
            parameter.data = parameter.data.new_empty(0)

    @torch.no_grad()
    def gather_into_model(self) -> None:
        """Fill `model` with the full current weights, in every process."""
        parts = dict(self.trained.named_parameters())
        for name, parameter in self.model.named_parameters():
            parameter.data = self.full_tensor(parts[name].detach())

    def validate_with_full_weights(self, validate: Validate) -> Mapping[str, float]:
        """Validate while `model` holds the full weights, and return the figures by name."""
        self.gather_into_model()
        try:
            return validate()
        finally:
            self._release()

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """Return the full tensor, in every process."""
        if not isinstance(tensor, DTensor):
            return tensor
        full: Tensor = tensor.full_tensor()
        return full

    def on_host(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the host: full in the main process, elsewhere the process's part."""
        if not isinstance(tensor, DTensor):
            return tensor.detach().cpu().contiguous()
        local: Tensor = tensor.to_local().detach().cpu().contiguous()
        if self.rank > 0:
            if local.numel():
                dist.send(local, 0, group=host_group())
            return local
        full = torch.empty(tensor.shape, dtype=tensor.dtype)
        for rank, rows in enumerate(full.chunk(self.world)):
            if rank == 0:
                rows.copy_(local)
            else:
                dist.recv(rows, rank, group=host_group())
        return full

    def local_part(self, stored: Tensor, target: Tensor) -> Tensor:
        """Return what `target` holds of a full tensor: this process's rows where it is sharded."""
        if not isinstance(target, DTensor):
            return stored
        rows = stored.chunk(self.world)
        local = rows[self.rank] if self.rank < len(rows) else stored[:0]
        return DTensor.from_local(
            # A view would keep the memory of all rows.
            local.to(self.device, copy=True),
            target.device_mesh,
            target.placements,
            shape=target.shape,
            stride=target.stride(),
        )


class AutocastModule(nn.Module):
    """Calls the split copy in the run's precision, as Accelerate's wrapper would."""

    def __init__(self, module: MultiObjectiveModel, accelerator: Accelerator) -> None:
        super().__init__()
        self.module = module
        self.accelerator = accelerator

    def forward(self, seen: StepInputs, *, measured: bool = False) -> dict[str, LossSum]:
        """Return each objective's loss, by key, computed in the run's precision.

        With `measured` each has its accuracy too, as in `MultiObjectiveModel.forward`.
        """
        with self.accelerator.autocast():
            losses: dict[str, LossSum] = self.module(seen, measured=measured)
        return losses

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within the block, gradients are not reduced over processes.

        They add up in each process, and are reduced in the first backward pass after the block.
        """
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.module.set_requires_gradient_sync(True)

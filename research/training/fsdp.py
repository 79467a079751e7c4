"""Weights, gradients and moments of a stage split over the processes, by torch's FSDP2.

While a stage trains, a twin of its model holds the parameters, of which each process has some
rows (DTensors). While it ranks, and outside of stages, the model itself holds them whole, so
that nothing else knows of splitting. Imported only where it is asked for: torch's FSDP takes time.
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


class SplitWeights(Weights):
    """A model whose parameters lie split in a twin; what is gathered, all processes ask for.

    Rows are split as `torch.chunk` does; the last processes may have none of a small tensor.
    """

    split = True

    def __init__(self, model: MultiObjectiveModel, accelerator: Accelerator) -> None:
        """Split the parameters; until `join` the model has none but inside `with_whole`."""
        kept: dict[int, object] = {id(model.catalogue): model.catalogue}
        for parameter in model.parameters():
            # A deep copy would hold them twice.
            copied = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
            kept[id(parameter)] = copied
        super().__init__(model, copy.deepcopy(model, kept))
        self.accelerator = accelerator
        self.device = accelerator.device
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        mesh = init_device_mesh(self.device.type, (self.world,))
        for part in self.trained.encoder.parts_to_shard():
            fully_shard(part, mesh=mesh)
        # All else is one group: heads read the item table beside the encoder.
        fully_shard(self.trained, mesh=mesh)
        self._release()
        # Ranking needs what is no parameter there as well.
        model.to(self.device)

    def wrapped(self, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The twin in the run's precision; the optimizer steps each process's part."""
        return AutocastModule(self.trained, self.accelerator), optimizer

    def _release(self) -> None:
        for parameter in self.model.parameters():
            parameter.data = parameter.data.new_empty(0)

    @torch.no_grad()
    def join(self) -> None:
        """Fill the model with the weights as they stand, in every process."""
        parts = dict(self.trained.named_parameters())
        for name, parameter in self.model.named_parameters():
            parameter.data = self.whole(parts[name].detach())

    def with_whole(self, validate: Validate) -> Mapping[str, float]:
        """The figures of a validation by the model, whose weights are there so long."""
        self.join()
        try:
            return validate()
        finally:
            self._release()

    def whole(self, tensor: Tensor) -> Tensor:
        """A tensor whole in every process."""
        if not isinstance(tensor, DTensor):
            return tensor
        full: Tensor = tensor.full_tensor()
        return full

    def on_host(self, tensor: Tensor) -> Tensor:
        """A tensor on the host: in the main process the whole, elsewhere what is there of it."""
        if not isinstance(tensor, DTensor):
            return tensor.detach().cpu().contiguous()
        own: Tensor = tensor.to_local().detach().cpu().contiguous()
        if self.rank > 0:
            if own.numel():
                dist.send(own, 0, group=host_group())
            return own
        gathered = torch.empty(tensor.shape, dtype=tensor.dtype)
        for rank, rows in enumerate(gathered.chunk(self.world)):
            if rank == 0:
                rows.copy_(own)
            else:
                dist.recv(rows, rank, group=host_group())
        return gathered

    def like(self, stored: Tensor, target: Tensor) -> Tensor:
        """A whole tensor as `target` holds it: this process's rows where that one is split."""
        if not isinstance(target, DTensor):
            return stored
        rows = stored.chunk(self.world)
        own = rows[self.rank] if self.rank < len(rows) else stored[:0]
        return DTensor.from_local(
            # A view would keep all rows.
            own.to(self.device, copy=True),
            target.device_mesh,
            target.placements,
            shape=target.shape,
            stride=target.stride(),
        )


class AutocastModule(nn.Module):
    """The twin as a step calls it: in the run's precision, as Accelerate's wrapper would."""

    def __init__(self, split: MultiObjectiveModel, accelerator: Accelerator) -> None:
        super().__init__()
        self.split = split
        self.accelerator = accelerator

    def forward(self, seen: StepInputs, *, measured: bool = False) -> dict[str, LossSum]:
        """Each objective's loss, as `MultiObjectiveModel.forward`."""
        with self.accelerator.autocast():
            losses: dict[str, LossSum] = self.split(seen, measured=measured)
        return losses

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients of the block stay whole in each process, and are summed with those after it."""
        assert isinstance(self.split, FSDPModule)
        self.split.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.split.set_requires_gradient_sync(True)

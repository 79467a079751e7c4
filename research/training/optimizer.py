"""Optimizers, and how a step sets their learning rate.

No scheduler object exists: before every step the loop computes `factor_at`
(`research/training/schedule.py`) from what the stage has done, and `set_rate` applies it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from research.config import check_types
from research.errors import InputError
from research.model.initialization import is_bias, norm_parameters
from research.model.item_table import ItemTable
from research.training.schedule import ScheduleConfig
from research.training.touched_rows import AdamByRows


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam, AdamW or SGD with momentum."""

    method: Literal["adam", "adamw", "sgd"] = "adam"
    """adam couples weight decay into the gradient, adamw decouples it."""
    lr: float = 1e-3
    """Learning rate, which the schedule multiplies by a factor."""
    beta1: float = 0.9
    """Adam: decay of the running mean of gradients; SGD: momentum."""
    beta2: float = 0.999
    """Adam: decay of the running mean of squared gradients."""
    eps: float = 1e-8
    """Adam: added to the square root in the denominator."""
    weight_decay: float = 0.0
    """Weight decay; not applied to norms and biases, nor to what a combination of objectives
    learns."""
    bias_correction: bool = True
    """Adam: whether the running means are corrected for their start at 0; the original BERT4Rec
    code goes without."""
    clip_norm: float | None = None
    """Largest norm of the gradient over all parameters; None: no clipping."""
    item_rows: Literal["all", "touched"] = "all"
    """Adam and AdamW: which rows of the item tables a step moves: all of them, as published; or
    only those in its inputs and among its candidates, so that a step with a sampled loss takes no
    longer where there are more items. The others then stay as they are, moments included
    (`research/training/touched_rows.py`), and rare items move less than under Adam over all rows,
    so that the rate is to be chosen anew (experiments/LOG.md, 2026-11-29). A loss that scores all
    items, such as the full softmax, gives all rows a gradient, so that a stage with one moves them
    all. For one process, and not for a combination that merges gradients."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes over the stage."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.lr <= 0.0:
            raise InputError(f"optimizer.lr is {self.lr}; it must be above 0")
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= value < 1.0:
                raise InputError(f"optimizer.{name} is {value}; it must be in [0, 1)")
        for name, value in (("eps", self.eps), ("weight_decay", self.weight_decay)):
            if not value >= 0.0:
                raise InputError(f"optimizer.{name} is {value}; it must be 0 or more")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise InputError(
                f"optimizer.clip_norm is {self.clip_norm}; it must be above 0, or None"
            )
        if self.item_rows == "touched" and self.method == "sgd":
            raise InputError(
                "optimizer.item_rows is 'touched', which adam and adamw know; take one of them, or "
                "'all' for sgd"
            )


def build_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer over all parameters that learn.

    Norms, biases and the parameters of a combination form a group without weight decay. Sets
    `touched_rows` of the item tables of `module`, as `item_rows` asks for.
    """
    for part in module.modules():
        if isinstance(part, ItemTable):
            part.touched_rows = config.item_rows == "touched"
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    norms = norm_parameters(module)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        has_no_decay = name in norms or is_bias(name) or name.startswith("combination.")
        (undecayed if has_no_decay else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
    ]
    if config.method == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.beta1, fused=True)
        if config.beta1:
            # torch's own buffers are uninitialized at first, and stay so when the first step is
            # left out.
            for parameter in (*decayed, *undecayed):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    method = AdamByRows if config.item_rows == "touched" else torch.optim.Adam
    return method(
        groups,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
        decoupled_weight_decay=config.method == "adamw",
    )


def held_by_updates(config: OptimizerConfig, module: nn.Module) -> int:
    """Bytes of gradients and of the optimizer's running means, whatever the batch.

    The gradient of an item table whose touched rows move alone is not counted: it grows with the
    batch.
    """
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    moments = int(config.beta1 > 0.0) if config.method == "sgd" else 2
    sparse = [
        part.weight
        for part in module.modules()
        if isinstance(part, ItemTable) and config.item_rows == "touched"
    ]
    total = (1 + moments) * sum(parameter.nbytes for parameter in learning)
    return total - sum(table.nbytes for table in sparse if table is not None)


def set_rate(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, lr: float, step: int
) -> None:
    """Prepare the groups for the step with number `step` (0-based) at learning rate `lr`.

    Without bias correction, torch's own is undone exactly: with c1 = 1 - beta1^t and
    c2 = sqrt(1 - beta2^t) torch's update lr / c1 * m / (sqrt(v) / c2 + eps) becomes
    lr * m / (sqrt(v) + eps) by lr -> lr * c1 / c2 and eps -> eps / c2.
    """
    factor, root = 1.0, 1.0
    if config.method != "sgd" and not config.bias_correction:
        root = math.sqrt(1.0 - config.beta2 ** (step + 1))
        factor = (1.0 - config.beta1 ** (step + 1)) / root
        # torch does not count a step that was left out; its count is set to the one by which its
        # correction is undone here.
        counts = [parameter_state["step"] for parameter_state in optimizer.state.values()]
        if counts:
            torch._foreach_zero_(counts)
            torch._foreach_add_(counts, float(step))
    decays: Sequence[float] = (config.weight_decay, 0.0)
    for group, decay in zip(optimizer.param_groups, decays):
        group["lr"] = lr * factor
        if config.method != "sgd":
            group["eps"] = config.eps / root
        # AdamW multiplies the weight decay by the rate that torch is given; divided by `factor`,
        # the product stays lr * decay.
        group["weight_decay"] = decay / factor if config.method == "adamw" else decay

"""Tensors of modules and optimizers, on their way into a checkpoint's file and out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from research.errors import InputError


def on_host(tensor: Tensor) -> Tensor:
    """Return a tensor as a file holds it: on the host, contiguous, without a graph."""
    return tensor.detach().cpu().contiguous()


def like(stored: Tensor, target: Tensor) -> Tensor:
    """Return `stored` unchanged, for a `target` that is not split over processes."""
    return stored


def fill_weights(
    stored: Mapping[str, Tensor],
    module: nn.Module,
    source: str,
    *,
    like: Callable[[Tensor, Tensor], Tensor] = like,
) -> None:
    """Fill the module's parameters; `InputError` lists every name and shape that does not match.

    `source` names the file in the message. `like` gives a process its part of a tensor that is
    split.
    """
    wanted = dict(module.named_parameters())
    problems = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
    problems += [f"unknown {name}" for name in sorted(stored.keys() - wanted.keys())]
    problems += [
        f"{name} has shape {tuple(stored[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in sorted(stored.keys() & wanted.keys())
        if stored[name].shape != wanted[name].shape
    ]
    if problems:
        raise InputError(f"{source} does not fit this configuration: {'; '.join(problems)}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(like(stored[name], parameter))


def fill_optimizer(
    stored: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    source: str,
    *,
    like: Callable[[Tensor, Tensor], Tensor] = like,
) -> None:
    """Fill an optimizer built over the same parameters; `InputError` when they do not fit.

    `source` names the file in the message. `like` gives a process its part of a tensor that is
    split.
    """
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    momentum = isinstance(optimizer, torch.optim.SGD)
    kept = {"momentum_buffer"} if momentum else {"step", "exp_avg", "exp_avg_sq"}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        index, _, field = name.partition(".")
        known = field in kept and index.isdecimal() and int(index) < len(parameters)
        if not known or tensor.shape != (() if field == "step" else parameters[int(index)].shape):
            raise InputError(
                f"{source} does not fit this configuration: {name} has shape {tuple(tensor.shape)}"
            )
        part = tensor if field == "step" else like(tensor, parameters[int(index)])
        state.setdefault(int(index), {})[field] = part
    lacking = [
        f"{index}.{field}" for index in state for field in sorted(kept - state[index].keys())
    ]
    if lacking:
        raise InputError(f"{source} does not fit this configuration: missing {', '.join(lacking)}")
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def weights_of(
    module: nn.Module, on_host: Callable[[Tensor], Tensor] = on_host
) -> dict[str, Tensor]:
    """Return the module's parameters by name, as model.safetensors holds them."""
    return {name: on_host(each) for name, each in module.named_parameters()}


def moments_of(
    optimizer: torch.optim.Optimizer, on_host: Callable[[Tensor], Tensor] = on_host
) -> dict[str, Tensor]:
    """Return the optimizer's tensors as `NUMBER.FIELD`, as optimizer.safetensors holds them.

    NUMBER counts the optimizer's parameters from 0.
    """
    return {
        f"{index}.{field}": on_host(value)
        for index, fields in optimizer.state_dict()["state"].items()
        for field, value in fields.items()
        if isinstance(value, Tensor)
    }

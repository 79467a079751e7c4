"""Tensors of modules and optimizers, on their way into a checkpoint's file and out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from research.errors import InputError


def on_host(tensor: Tensor) -> Tensor:
    """Return a tensor as a file holds it: on the host, contiguous, without a graph."""
    return tensor.detach().cpu().contiguous()


def local_part(stored: Tensor, target: Tensor) -> Tensor:
    """Return `stored` unchanged, for a `target` that is not split over processes."""
    return stored


def fill_weights(
    stored: Mapping[str, Tensor],
    module: nn.Module,
    source: str,
    *,
    local_part: Callable[[Tensor, Tensor], Tensor] = local_part,
) -> None:
    """Fill the module's parameters as `fill_tensors` does."""
    fill_tensors(stored, dict(module.named_parameters()), source, local_part=local_part)


@torch.no_grad()
def fill_tensors(
    stored: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    source: str,
    *,
    local_part: Callable[[Tensor, Tensor], Tensor] = local_part,
) -> None:
    """Fill tensors by name; `InputError` lists every name and shape that does not match.

    `source` names the file in the message. `local_part` gives a process its part of a tensor that
    is split.
    """
    problems = [f"missing {name}" for name in sorted(targets.keys() - stored.keys())]
    problems += [f"unknown {name}" for name in sorted(stored.keys() - targets.keys())]
    problems += [
        f"{name} has shape {tuple(stored[name].shape)}, expected {tuple(targets[name].shape)}"
        for name in sorted(stored.keys() & targets.keys())
        if stored[name].shape != targets[name].shape
    ]
    if problems:
        raise InputError(f"{source} does not fit this configuration: {'; '.join(problems)}")
    for name, target in targets.items():
        target.copy_(local_part(stored[name], target))


def fill_optimizer(
    stored: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    source: str,
    *,
    local_part: Callable[[Tensor, Tensor], Tensor] = local_part,
) -> None:
    """Fill an optimizer built over the same parameters; `InputError` when they do not fit.

    `source` names the file in the message. `local_part` gives a process its part of a tensor that
    is split.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    momentum = isinstance(optimizer, torch.optim.SGD)
    fields = {"momentum_buffer"} if momentum else {"step", "exp_avg", "exp_avg_sq"}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        index, _, field = name.partition(".")
        is_known = field in fields and index.isdecimal() and int(index) < len(parameters)
        if not is_known or tensor.shape != (
            () if field == "step" else parameters[int(index)].shape
        ):
            raise InputError(
                f"{source} does not fit this configuration: {name} has shape {tuple(tensor.shape)}"
            )
        part = tensor if field == "step" else local_part(tensor, parameters[int(index)])
        state.setdefault(int(index), {})[field] = part
    missing = [
        f"{index}.{field}" for index in state for field in sorted(fields - state[index].keys())
    ]
    if missing:
        raise InputError(f"{source} does not fit this configuration: missing {', '.join(missing)}")
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def weights_of(
    module: nn.Module, on_host: Callable[[Tensor], Tensor] = on_host
) -> dict[str, Tensor]:
    """Return the module's parameters by name, as model.safetensors holds them."""
    return {name: on_host(parameter) for name, parameter in module.named_parameters()}


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

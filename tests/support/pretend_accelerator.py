"""A pretended accelerator: a device whose tensors are in CPU memory, and a count of its work.

Inside `pretended()` a tensor on `device()` computes on the CPU, and a `Tally` counts by project
line: operations (what a GPU launches as a kernel: no views, no allocations), host reads and
blocking copies (each makes the host wait for the device), and non-blocking copies from or to memory
that is not pinned (which may wait as well). Host and device tensors in one operation are an error.

Attention, a recurrent layer and dropout count as one operation in each direction, as their kernels
on a GPU do; torch takes them apart on a device that it does not know.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils, backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
ROOT = f"{Path(__file__).parents[2]}/"
PRODUCT = tuple(f"{ROOT}{room}/" for room in ("research", "baselines", "experiments"))

# The host waits for the results of these: a value, or a shape that depends on values.
READS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount",
    "_unique2", "unique_dim", "unique_consecutive",
}  # fmt: skip
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
# These launch no kernel, although their result is not a view.
FREE = {
    "_local_scalar_dense", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty",
    "new_empty_strided",
}  # fmt: skip
# Like every pointwise operation, these accept a host tensor without dimensions as a number.
TAKE_NUMBERS = {"fill_", "masked_fill", "masked_fill_"}


def unsupported_reason() -> str | None:
    """Return why this torch cannot have a pretended device; None: it can."""
    if "_setup_privateuseone_for_python_backend" in vars(backend_registration):
        return None
    return f"torch {torch.__version__} has no hook for a device that is written in Python"


@cache
def device() -> torch.device:
    """Return the pretended device; the first call registers it with torch."""

    class Backend(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    # torch handles many gradients in one operation only if it knows their class.
    _foreach_utils._foreach_supported_types.append(OnDevice)
    return torch.device(NAME, 0)


class OnDevice(torch.Tensor):
    """A tensor on the pretended device; `host` holds its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> OnDevice:
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=device(),
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *rest: object) -> None:
        raise RuntimeError(f"{func} of a tensor on the made-up device outside of `pretended()`")

    def __repr__(self) -> str:
        return f"OnDevice({self.host!r})"


def wrapped(value: object) -> object:
    """Return a host tensor as a tensor of the device, and anything else unchanged."""
    return OnDevice(value) if isinstance(value, Tensor) else value


def unwrapped(value: object) -> object:
    """Return a tensor of the device as a host tensor, and anything else unchanged."""
    return value.host if isinstance(value, OnDevice) else value


class DoneEvent:
    """Replaces `torch.Event`: everything on the device is done at once."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def record(self, stream: object = None) -> None: ...

    def synchronize(self) -> None: ...


@dataclass(eq=False)
class Tally:
    """Counts of what the device did."""

    operations: Counter[str] = field(default_factory=Counter)
    """Operations by project line; those of a backward pass by the line that begins it."""
    reads: Counter[str] = field(default_factory=Counter)
    """Host reads and blocking copies by project line and kind."""
    unpinned: Counter[str] = field(default_factory=Counter)
    """Non-blocking copies of memory that is not pinned, by project line."""
    pinned: dict[int, Tensor] = field(default_factory=dict)
    """Pinned tensors by the address of their memory. They are kept, so that it is not reused."""

    def taken(self) -> Tally:
        """Return what was counted since the last call."""
        taken = Tally(self.operations, self.reads, self.unpinned)
        self.operations, self.reads, self.unpinned = Counter(), Counter(), Counter()
        return taken

    def operate(self) -> None:
        """Count an operation."""
        self.operations[line()] += 1

    def read(self, kind: str) -> None:
        """Count a host read or a blocking copy."""
        self.reads[f"{line()} {kind}"] += 1

    def copy(self, host: Tensor, *, blocking: bool) -> None:
        """Count a copy between the device and a host tensor."""
        if blocking:
            self.read("blocking copy")
        elif not self.is_pinned(host):
            self.unpinned[line()] += 1

    def pin(self, host: Tensor) -> Tensor:
        """Mark a host tensor as pinned, and return it."""
        self.pinned[host.untyped_storage().data_ptr()] = host
        return host

    def is_pinned(self, host: Tensor) -> bool:
        """Whether a host tensor's memory is pinned."""
        return host.untyped_storage().data_ptr() in self.pinned


def line() -> str:
    """Return the innermost line of this project that is running, as FILE:LINE."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_filename.startswith(PRODUCT):
            return f"{frame.f_code.co_filename.removeprefix(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class Operations(TorchDispatchMode):
    """Runs every operation on the CPU, and counts those of the device."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::")
        if name == "is_pinned":
            return self.tally.is_pinned(args[0])
        if name == "_pin_memory":
            return self.tally.pin(args[0].clone())
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        hosts = [each for each in tensors if not isinstance(each, OnDevice)]
        begins = ends = len(hosts) < len(tensors)
        if kwargs.get("device") is not None:
            ends = torch.device(kwargs["device"]).type == NAME
            kwargs["device"] = torch.device("cpu")
        pinned = kwargs.pop("pin_memory", False)
        if begins or ends:
            self._count(func, name, args, kwargs, hosts)
        result = func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
        if name == "_to_copy" and begins is not ends:
            # torch itself pins what it copies to the host without blocking.
            host = hosts[0] if ends else self.tally.pin(result)
            self.tally.copy(host, blocking=not kwargs.get("non_blocking"))
        if pinned:
            self.tally.pin(result)
        if "out" in kwargs:
            return kwargs["out"]
        if isinstance(result, Tensor) and is_view(func, writes=True):
            return args[0]
        return tree_map(wrapped, result) if ends else result

    def _count(
        self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], hosts: list[Any]
    ) -> None:
        if name in INDEXED:
            self._count_index(*args[:3])
        elif name == "copy_" and hosts:
            self.tally.copy(hosts[0], blocking=not (len(args) > 2 and args[2]))
        elif name != "_to_copy":
            numbers = torch.Tag.pointwise in func.tags or name in TAKE_NUMBERS
            refuse(any(each.dim() or not numbers for each in hosts), func)
        if name in READS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.tally.read(name)
        if name not in FREE and not is_view(func, writes=False):
            self.tally.operate()

    def _count_index(
        self, mine: Tensor, indices: Sequence[Tensor | None], values: Tensor | None = None
    ) -> None:
        """Count what indexing costs: the size of a mask is read, an index on the host is copied."""
        wrong = values is not None and values.dim() > 0 and not isinstance(values, OnDevice)
        refuse(wrong or not isinstance(mine, OnDevice), "indexing")
        for index in indices:
            if index is not None and not isinstance(index, OnDevice):
                self.tally.read("index on the host")
            elif index is not None and index.dtype == torch.bool:
                # To fill in a single value, the mask is not read.
                if values is None or values.numel() != 1:
                    self.tally.read("mask as an index")


def is_view(func: Any, *, writes: bool) -> bool:
    """Whether an operation returns one of its arguments: after writing to it, or as a view."""
    aliases = [each.alias_info for each in func._schema.returns]
    return any(each is not None and each.is_write is writes for each in aliases)


def refuse(mixed: bool, what: object) -> None:
    """Raise RuntimeError if an operation mixes host and device tensors."""
    if mixed:
        raise RuntimeError(f"{what} mixes host and device tensors at {line()}")


class Calls(TorchFunctionMode):
    """Handles calls that torch would split into operations, or refuse, on a device like this."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": args[0].device, **kwargs}
            func, args = torch.tensor, args[1:]
        if func in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            return self._made(func, args, kwargs)
        if not args or not isinstance(args[0], OnDevice):
            return func(*args, **kwargs)
        if func is Tensor.tolist:
            self.tally.read("tolist")
            return args[0].host.tolist()
        if func is F.scaled_dot_product_attention:
            core = partial(func, **tree_map(unwrapped, kwargs))
            return Fused.apply(self.tally, core, *args)
        if func is torch.gru:
            return self._recurrent(*args)
        if func is F.dropout:
            probability = kwargs["p"] if "p" in kwargs else args[1]
            return torch.native_dropout(args[0], probability, kwargs.get("training", True))[0]
        return func(*args, **kwargs)

    def _recurrent(
        self, x: Tensor, first: Tensor, weights: Sequence[Tensor], *rest: Any
    ) -> tuple[Tensor, Tensor]:
        """Run one GRU layer over padded inputs; returns all states, and those of the last step."""

        def core(x: Tensor, first: Tensor, *weights: Tensor) -> Tensor:
            states: Tensor = torch.gru(x, first, weights, *rest)[0]
            return states

        states = Fused.apply(self.tally, core, x, first, *weights)
        return states, states[-1:]

    def _made(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """Make a tensor from Python numbers; the host waits for its copy to the device."""
        place = torch.device(kwargs.pop("device", None) or "cpu")
        pinned = kwargs.pop("pin_memory", False)
        made: Tensor = func(*args, **kwargs)
        if place.type != NAME:
            return self.tally.pin(made) if pinned else made
        self.tally.read("upload of numbers")
        self.tally.operate()
        return OnDevice(made)


class Fused(torch.autograd.Function):
    """Computes `core` on the host, and counts as one operation in each direction."""

    @staticmethod
    def forward(ctx: Any, tally: Tally, core: Callable[..., Tensor], *inputs: OnDevice) -> OnDevice:
        ctx.tally, ctx.inputs = tally, [each.host.detach().requires_grad_() for each in inputs]
        with torch.enable_grad():
            ctx.output = core(*ctx.inputs)
        tally.operate()
        return OnDevice(ctx.output.detach())

    @staticmethod
    def backward(ctx: Any, grad: OnDevice) -> tuple[OnDevice | None, ...]:
        ctx.tally.operate()
        return None, None, *map(OnDevice, torch.autograd.grad(ctx.output, ctx.inputs, grad.host))


@contextmanager
def pretended() -> Iterator[Tally]:
    """Give a tally that counts within this context; the device works only there."""
    device()
    tally = Tally()
    with (
        # The caller's thread runs backward passes; torch may have none for this device.
        torch.autograd.set_multithreading_enabled(False),
        mock.patch.object(torch, "Event", DoneEvent),
        Operations(tally),
        Calls(tally),
    ):
        yield tally

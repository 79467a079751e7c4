"""What the processes of a job exchange on the host: the main one's results, all values, flags.

Tensors on the accelerator are summed by Accelerate. What is on the host goes through a process
group of its own (gloo), so that nothing here waits for a GPU.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from research.distributed.liveness import WAITING_MODULES
from research.errors import InputError
from research.storage.run_folder import FolderLocked

Value = TypeVar("Value")
# Tells the watchdog that a main thread in this module waits for other ranks.
WAITING_MODULES.add(__name__)


class Processes:
    """This process's rank, and its exchange with the others; with one process nothing is sent.

    All processes call each method together.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank = accelerator.process_index
        self.world = accelerator.num_processes
        self.main = accelerator.is_main_process

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Return in every process what `make` returns in the main one; all raise its `InputError`.

        The value must be JSON: lists and not tuples, objects with text for keys.
        """
        if self.world == 1:
            return make()
        response: dict[str, object] = {}
        if self.main:
            try:
                response = {"value": make()}
            except InputError as error:
                response = {"error": str(error), "held": isinstance(error, FolderLocked)}
        response = cast(dict[str, object], self._text_of_main(response))
        if "error" in response:
            raise (FolderLocked if response["held"] else InputError)(str(response["error"]))
        return cast(Value, response["value"])

    def _text_of_main(self, value: object) -> object:
        text = json.dumps(value).encode() if self.main else b""
        length = torch.tensor(len(text))
        dist.broadcast(length, 0, group=host_group())
        content = torch.frombuffer(bytearray(text or bytes(int(length))), dtype=torch.uint8)
        dist.broadcast(content, 0, group=host_group())
        return json.loads(content.numpy().tobytes())

    def gathered(self, value: object) -> list[object]:
        """Return every process's value (JSON values), in the order of ranks."""
        if self.world == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = torch.zeros(self.world, dtype=torch.int64)
        lengths[self.rank] = len(text)
        dist.all_reduce(lengths, group=host_group())
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8)
        padded[: len(text)] = text
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded, group=host_group())
        return [
            json.loads(part[:length].numpy().tobytes())
            for part, length in zip(parts, lengths.tolist())
        ]

    def tensors_of_main(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the main process's host tensors, by name; what other processes give is ignored."""
        if self.world == 1:
            return dict(tensors)
        shapes = {name: [str(tensor.dtype)[6:], *tensor.shape] for name, tensor in tensors.items()}
        shapes_of_main = cast(dict[str, list[int]], self._text_of_main(shapes))
        received = {}
        for name, (kind, *shape) in shapes_of_main.items():
            tensor = torch.empty(shape, dtype=getattr(torch, str(kind)))
            if self.main:
                tensor = tensors[name].contiguous()
            dist.broadcast(tensor, 0, group=host_group())
            received[name] = tensor
        return received

    def summed(self, tensor: Tensor) -> Tensor:
        """Return the sum of a host tensor over all processes, computed in place."""
        if self.world > 1:
            dist.all_reduce(tensor, group=host_group())
        return tensor


class Agreement:
    """Flags that any process may raise, known to all processes before the same step.

    With several processes none waits for the others: a flag is known at the call after the one at
    which it was raised.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._sent: tuple[Tensor, dist.Work] | None = None

    def exchange(self, flags: Sequence[bool], *, wait: bool = False) -> list[bool]:
        """Return which flags some process raised at the call before; with `wait`, at this one too.

        `flags` are this process's flags. With one process they are returned at once. All processes
        call it together.
        """
        if self.processes.world == 1:
            return list(flags)
        raised = self._receive() or [False] * len(flags)
        sent = torch.tensor(list(flags), dtype=torch.int32)
        work = dist.all_reduce(sent, dist.ReduceOp.MAX, group=host_group(), async_op=True)
        assert work is not None, "asynchronous, and this process is one of the group"
        self._sent = sent, work
        if wait:
            raised = [earlier or later for earlier, later in zip(raised, self._receive() or raised)]
        return raised

    def _receive(self) -> list[bool] | None:
        if self._sent is None:
            return None
        flags, work = self._sent
        self._sent = None
        work.wait()
        return [bool(flag) for flag in flags.tolist()]


@functools.cache
def host_group() -> dist.ProcessGroup:
    """Return the gloo group of all processes for host tensors; all make it together once."""
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup), "every process is one of it"
    return group

"""What the processes of a job exchange on the host: the main one's results, all values, flags.

Tensors on the accelerator are summed by Accelerate. What is on the host goes through a process
group of its own (gloo). Accelerate's `broadcast_object_list` and `gather_object` are the same calls
of torch on the default group, which on GPUs is NCCL's: they would wait for the GPU's queue, and a
main process that prepares a corpus for longer than NCCL's timeout would end the job.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from research.distributed.liveness import WAITING_MODULES
from research.errors import InputError

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

        The value, or the error, is pickled. Any other error of the main process leaves the others
        waiting until the watchdog ends the job.
        """
        if self.world == 1:
            return make()
        answer: list[Value | InputError | None] = [None]
        if self.main:
            try:
                answer = [make()]
            except InputError as error:
                answer = [error]
        dist.broadcast_object_list(answer, src=0, group=host_group())
        if isinstance(answer[0], InputError):
            raise answer[0]
        return cast(Value, answer[0])

    def gathered(self, value: Value) -> list[Value]:
        """Return every process's value, in the order of ranks; the values are pickled."""
        values = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(values, value, group=host_group())
        return values

    def tensors_of_main(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the main process's host tensors, by name; what other processes give is ignored."""
        if self.world == 1:
            return dict(tensors)
        received = {}
        kinds = self.from_main(lambda: {name: (t.dtype, t.shape) for name, t in tensors.items()})
        for name, (dtype, shape) in kinds.items():
            tensor = tensors[name].contiguous() if self.main else torch.empty(shape, dtype=dtype)
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

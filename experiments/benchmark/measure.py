"""Time, memory, arithmetic and the machine's rates, measured the same way on every side.

A peer's environment runs this file too, so it imports nothing but torch and the standard library.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

WARM_STEPS = 5


@dataclass(frozen=True)
class Duration:
    """The time that a work took."""

    seconds: float
    """Wall time."""
    cpu: float
    """CPU seconds of this process, summed over its threads."""


class Clock:
    """Measures time from its creation on, and waits for the device before it looks."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        synchronize(device)
        self.started, self.cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Duration:
        """The time since the clock was created."""
        synchronize(self.device)
        return Duration(time.perf_counter() - self.started, time.process_time() - self.cpu)


def synchronize(device: str) -> None:
    """Wait until a GPU has done all that it was asked; nothing on a CPU."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_megabytes(device: str = "cpu") -> float:
    """Peak resident memory of this process, or on a GPU of torch's allocations, in MiB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Unlike the peak that getrusage gives, this one begins with the process.
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return int(peak) / 1024


def gflop_of(function: Callable[[], object]) -> float:
    """10^9 floating-point operations in the matrix products of a call, backward ones included."""
    # The counter does not know the attention of torch's CPU kernel, nor products in place.
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    added_product = torch.ops.aten.addmm_

    def attention_flop(
        query: tuple[int, ...], key: tuple[int, ...], *_: object, **__: object
    ) -> int:
        rows, heads, queries, width = query
        return 4 * rows * heads * queries * key[-2] * width

    def added_product_flop(
        _: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...], **__: object
    ) -> int:
        return 2 * first[0] * first[1] * second[1]

    formulas = {cpu_attention: attention_flop, added_product: added_product_flop}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with counter:
        function()
    return float(counter.get_total_flops()) / 1e9


def product_rate(device: str = "cpu") -> float:
    """Best of six fp32 products of 2048 x 2048 matrices, in GFLOP/s."""
    first, second = torch.randn(2, 2048, 2048, device=device).unbind()
    return 2 * 2048**3 / best_of(6, lambda: first @ second, device) / 1e9


def copy_rate(device: str = "cpu") -> float:
    """Best of six copies of 256 MiB, in GB/s, read and written bytes together."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * 2**26 / best_of(6, lambda: target.copy_(source), device) / 1e9


def best_of_three(function: Callable[[], object], device: str) -> Duration:
    """The time of that one of three calls which took the least CPU time."""
    times = []
    for _ in range(3):
        clock = Clock(device)
        function()
        times.append(clock.spent())
    return min(times, key=lambda spent: spent.cpu)


def best_of(times: int, function: Callable[[], object], device: str) -> float:
    """The shortest wall time of so many calls, in seconds."""
    best = float("inf")
    for _ in range(times):
        clock = Clock(device)
        function()
        best = min(best, clock.spent().seconds)
    return best

"""Errors told apart: what one process met alone, what all meet alike, what follows from another's
end, and memory that ran out."""

from __future__ import annotations

from research.errors import InputError, said_of

# Exit codes of a run that failed, and of one that was stopped and can be continued.
FAILED, STOPPED = 1, 75
CONTINUES = "The same command continues from the last checkpoint."
# What torch says of memory in a plain RuntimeError: its CPU allocator (Linux, Windows), C++, MPS
# and CUDA's libraries.
_SAID = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or on the host."""
    # Whoever only needs an exit code does not wait for torch.
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in _SAID)


LOST = (
    "Connection closed by peer", "Connection reset", "Connection refused", "Broken pipe",
    "Timed out", "timed out", "timeout", "failed to recv", "failed to connect", "gloo", "NCCL",
)  # fmt: skip


def is_consequence(error: BaseException) -> bool:
    """Whether an error only tells that the exchange with another rank broke.

    What counts is the first error: others may come while it is cleared up.
    """
    while True:
        earlier = error.__cause__
        if earlier is None and not error.__suppress_context__:
            earlier = error.__context__
        if not isinstance(earlier, Exception):
            return isinstance(error, RuntimeError) and any(mark in str(error) for mark in LOST)
        error = earlier


def in_a_line(error: BaseException) -> str | None:
    """What is said of an error that a user can mend; None: a bug, which needs its traceback."""
    if isinstance(error, OSError):
        return said_of(error)
    if is_out_of_memory(error):
        return f"out of memory: {error}"
    return str(error) if isinstance(error, (InputError, FloatingPointError)) else None

"""Sorts errors: a user's mistake, a lost connection to another rank, memory that ran out, bugs.

It also has the exit codes of a run. The command line, a study's workers and the watchdog use it.
"""

from __future__ import annotations

from research.errors import InputError, disk_error_message

# Exit codes of a run that failed, and of one that was stopped and can be continued.
FAILED, STOPPED = 1, 75
RESUME_HINT = "The same command continues from the last checkpoint."
# Messages by which torch reports in a plain RuntimeError that memory ran out: of its CPU allocator
# (Linux, Windows), C++, MPS and CUDA's libraries.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "std::bad_alloc",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a device or on the host."""
    # Imported here, so that code that needs only an exit code does not wait for torch.
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


# Text in the messages of errors that are raised when the connection to another rank is lost.
CONNECTION_LOST = (
    "Connection closed by peer", "Connection reset", "Connection refused", "Broken pipe",
    "Timed out", "timed out", "timeout", "failed to recv", "failed to connect", "gloo", "NCCL",
)  # fmt: skip


def is_consequence(error: BaseException) -> bool:
    """Whether an error only says that the exchange with another rank broke.

    The first error of a chain decides, since others may be raised while it is handled.
    """
    while True:
        cause = error.__cause__
        if cause is None and not error.__suppress_context__:
            cause = error.__context__
        if not isinstance(cause, Exception):
            return isinstance(error, RuntimeError) and any(
                text in str(error) for text in CONNECTION_LOST
            )
        error = cause


def user_message(error: BaseException) -> str | None:
    """Return the message of an error a user can mend; None: a bug, which needs its traceback."""
    if isinstance(error, OSError):
        return disk_error_message(error)
    if is_out_of_memory(error):
        return f"out of memory: {error}"
    return str(error) if isinstance(error, (InputError, FloatingPointError)) else None

"""Makes Accelerate's object for a process: its device, its precision, how models are spread.

Accelerate's state and torch's switches belong to the whole process, so each run sets them when it
begins (`accelerator_for`). Only the training loop and what is built on it know Accelerate.
"""

from __future__ import annotations

import os
import re

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from research.errors import InputError
from research.model.compute import ComputeConfig
from research.model.kernels.precision import allow_tf32

# Ways in which Accelerate may spread a run over processes.
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def accelerator_for(
    accelerator: Accelerator | None, compute: ComputeConfig, device: str | None = None
) -> Accelerator:
    """Return an accelerator that computes as `compute` says: `accelerator`, or else a new one.

    torch's own switches are set as well. Raises `InputError` as `make_accelerator` does.
    """
    name = precision_name(compute.precision)
    if accelerator is not None and accelerator.mixed_precision == name:
        # `mixed_precision` is the same in all accelerators of a process: that of the newest. These
        # two attributes are the accelerator's own.
        actual = accelerator.native_amp, accelerator.scaler is not None
        if actual == (name != "no", name == "fp16"):
            set_switches(compute)
            return accelerator
    return make_accelerator(compute, device)


def precision_name(precision: str) -> str:
    """Return Accelerate's name of a precision; "no" for fp32 and tf32, whose tensors are fp32."""
    return "no" if precision in ("fp32", "tf32") else precision


def make_accelerator(
    compute: ComputeConfig = ComputeConfig(), device: str | None = None
) -> Accelerator:
    """Return an accelerator for this process, on a `device` named as for --device.

    None is the device that the process already uses, else a GPU if there is one, else the CPU.
    `InputError` for a device that does not exist, for fp16 without a GPU, and for a way of
    spreading models over processes that is not supported.
    """
    cpu = not uses_gpu(device)
    if compute.precision == "fp16" and cpu:
        raise InputError("compute.precision is fp16, which needs a GPU; use bf16 or fp32 here")
    name = precision_name(compute.precision)
    if is_initialized() and AcceleratorState().mixed_precision != name:
        # Accelerate allows one precision in a process, but a study's runs may have several. The
        # process group stays as it is.
        AcceleratorState._reset_state()
    # Precision, gradient accumulation and compilation come from the config, whatever a launcher
    # puts into the environment. Buffers are not broadcast, since training changes none.
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=name,
        gradient_accumulation_steps=1,
        dynamo_backend="no",
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if accelerator.distributed_type not in SUPPORTED:
        raise InputError(
            f"the launcher asks for {accelerator.distributed_type}; leave --use_fsdp, "
            "--use_deepspeed and the like out: models are spread by copies (DDP) or, with "
            "compute.shard_weights=True in the run's config, split by torch's FSDP2"
        )
    set_switches(compute)
    return accelerator


def uses_gpu(device: str | None) -> bool:
    """Whether a process that was asked for `device` (cpu, cuda, cuda:N or None) uses a GPU.

    None: the kind of device that the process already uses, else a GPU if there is one. With cuda:N,
    GPU N becomes torch's current device. `InputError` for another name, for a GPU that torch does
    not see, for cuda:N with several processes, and for cpu or cuda when the process already uses
    the other.
    """
    current = AcceleratorState().device.type if is_initialized() else None
    if device is None:
        return current == "cuda" if current else torch.cuda.is_available()
    match = re.fullmatch(r"(cpu|cuda)(?::(\d{1,3}))?", device)
    if match is None or device.startswith("cpu:"):
        raise InputError(f"--device is {device!r}; allowed: cpu, cuda, cuda:N")
    kind, number = match.groups()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and gpus == 0:
        raise InputError(f"--device is {device}, but torch sees no GPU here; leave it out")
    if current not in (None, kind):
        raise InputError(f"--device is {device}, but this process uses {current}; start another")
    if kind == "cpu":
        return False
    if number is not None and int(number) >= gpus:
        raise InputError(f"--device is {device}, but torch sees cuda:0 to cuda:{gpus - 1} here")
    if number is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"--device is {device}, but a launcher gives each process a GPU of its own; say cuda"
        )
    if number is not None:
        torch.cuda.set_device(int(number))
    return True


def set_switches(compute: ComputeConfig) -> None:
    """Set torch's switches, which hold for the whole process, as a run's `compute` says."""
    # cuDNN builds and keeps a plan for every new shape, and packed batches have a new one each
    # step.
    torch.backends.cuda.enable_cudnn_sdp(False)
    allow_tf32(compute.precision == "tf32")
    # Setting this switch imports torch's compiler, so it is set only where it changes.
    if compute.deterministic is not torch.are_deterministic_algorithms_enabled():
        if compute.deterministic:
            # Without this variable, torch in deterministic mode refuses matrix products on a GPU.
            # It is read at the first product.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(compute.deterministic)

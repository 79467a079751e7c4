"""State dicts of other programs, in files of `torch.save`: read as untrusted input, and written.

Nothing but tensors is ever unpickled. `import_export.py` reads and writes with this; what the
tensors mean is up to the format (`s3rec.py`).
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, cast

import torch
from torch import Tensor

from research.errors import InputError
from research.interop.new_run import check_free
from research.storage.atomic import replacing

# The globals that a pickle of tensors refers to: functions that rebuild them, storages and types.
_TENSOR_GLOBALS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_\w+|torch \w+Storage|torch Size"
    r"|torch [a-z0-9_]+|torch\.storage (Typed|Untyped)Storage"
    r"|torch\.serialization _get_layout|torch\.nn\.parameter Parameter"
)

PLAIN = "write a plain state dict: torch.save(model.state_dict(), FILE)"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a file that `torch.save` wrote, in the zip or the older format: tensors by key, on CPU.

    `InputError` for a file that is missing, is no checkpoint, has a compressed member, refers to
    more than tensors, or holds anything but a dict of name -> tensor with at least one entry.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    value = _load(path)
    if not isinstance(value, dict) or not value:
        raise InputError(
            f"{path} holds {'an empty ' * (value == {})}{type(value).__name__}, not a dict of name "
            f"-> tensor; {PLAIN}"
        )
    state: dict[str, Tensor] = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(
                f"{path}: {name!r:.100} is of type {type(tensor).__name__}; each key of a state "
                f"dict is a name and its value a tensor; {PLAIN}"
            )
        state[name] = tensor.detach()
    return state


def _load(path: Path) -> object:
    try:
        _check_pickles(path)
        with warnings.catch_warnings():
            # torch warns of pickle protocols and TorchScript; what it cannot read is refused below.
            warnings.simplefilter("ignore")
            value: object = torch.load(path, map_location="cpu", weights_only=True)
            return value
    except InputError:
        raise
    # Untrusted bytes can make torch raise any kind of exception.
    except Exception as error:
        match = re.search(r"GLOBAL ([\w.]{1,100})", str(error))
        if isinstance(error, UnpicklingError) and match is not None:
            raise _not_only_tensors(path, match[1]) from error
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path} is no checkpoint that torch reads as tensors alone "
            f"({type(error).__name__}: {reason}); {PLAIN}"
        ) from error


def _check_pickles(path: Path) -> None:
    """Raise `InputError` when a pickle refers to what no tensor needs, or a member is compressed.

    `weights_only` runs no code, but with it a few bytes can still ask for any amount of memory: for
    a bytearray of a given length, or by a compressed member, which torch itself never writes.
    """
    with path.open("rb") as opened:
        # torch tells the two formats apart by these bytes too.
        zipped = opened.read(4) == b"PK\x03\x04"
    if zipped:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise InputError(
                        f"{path}: member {member.filename!r:.100} is compressed, which torch.save "
                        f"never does; {PLAIN}"
                    )
                if member.filename.endswith("data.pkl"):
                    _check_globals(path, io.BytesIO(archive.read(member)))
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        # The older format is five pickles: magic number, version, machine, value and keys.
        for _ in range(5):
            _check_globals(path, cast(IO[bytes], content))


def _check_globals(path: Path, content: IO[bytes]) -> None:
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("GLOBAL", "INST") and not _TENSOR_GLOBALS.fullmatch(str(argument)):
            raise _not_only_tensors(path, str(argument).replace(" ", "."))


def _not_only_tensors(path: Path, name: str) -> InputError:
    return InputError(
        f"{path} holds more than tensors (it asks for {name:.100}), which could run code and is "
        f"not read; {PLAIN}"
    )


def checked_float(name: str, tensor: Tensor, path: Path) -> Tensor:
    """The tensor as float32; `InputError` unless it is dense, floating-point and finite.

    `name` and `path`, its key and file, are for the message.
    """
    if not tensor.is_floating_point():
        raise InputError(
            f"{path}: {name} is of type {str(tensor.dtype).removeprefix('torch.')}; allowed: "
            "floating types; convert it to one, or leave it out of the file"
        )
    dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
    # A view of a single stored number can claim any shape, and any amount of memory when copied.
    if not dense or tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise InputError(
            f"{path}: {name}, {tuple(tensor.shape)}, is not a dense tensor with a value for each "
            "place; write it with .contiguous()"
        )
    plain = tensor.float()
    wrong = plain.numel() - int(plain.isfinite().sum())
    if wrong:
        raise InputError(
            f"{path}: {name} has {wrong} of {plain.numel()} values that are not finite in "
            "float32; use another checkpoint"
        )
    return plain


def write_state_dict(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict with `torch.save`, atomically; `InputError` when `path` exists."""
    check_free(path)
    with replacing(path) as file:
        torch.save(dict(state), file)

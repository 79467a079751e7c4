"""JSON files: read as untrusted input, written atomically and without the home folder's name."""

from __future__ import annotations

import json
from pathlib import Path

from research.errors import InputError
from research.storage.atomic import replacing
from research.storage.untrusted import parse_json, read_bytes, without_home

JsonObject = dict[str, object]


def read_json(path: Path, remedy: str = "") -> JsonObject:
    """Read a JSON object; `InputError` names the file, what is wrong with it, and the `remedy`."""
    suffix = f"; {remedy}" if remedy else ""
    try:
        value = parse_json(read_bytes(path).decode())
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error!s:.100}){suffix}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, not an object{suffix}")
    return value


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; paths below the home folder are written with `~`."""
    text = json.dumps(without_home(value), indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())

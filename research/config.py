"""Configs: frozen dataclasses to JSON and back, hashes, and overrides by dotted name.

JSON names each dataclass as `module:Class`. Reading accepts only frozen config dataclasses of this
project (or of modules that the user allows), checks every field's name and type, and calls nothing
but those dataclasses: a run folder from a stranger is data, never code.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
import math
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from research.errors import InputError

Config = TypeVar("Config")
PACKAGES = ("research", "baselines")
_CLASS = "class"
_THAWED = types.SimpleNamespace(frozen=False)


def to_json(value: Any) -> Any:
    """A config as JSON values: dataclasses become objects with a `class` entry."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        fields = {
            each.name: to_json(getattr(value, each.name)) for each in dataclasses.fields(value)
        }
        return {_CLASS: f"{kind.__module__}:{kind.__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(part) for part in value]
    assert value is None or isinstance(value, (bool, int, float, str)), type(value)
    return value


def from_json(value: Any, expected: type[Config], *, allow: Sequence[str] = ()) -> Config:
    """The config that `to_json` wrote; `InputError` names the field that is wrong."""
    made = _read(value, (*PACKAGES, *allow), "config")
    if not isinstance(made, expected):
        raise InputError(f"config: a {expected.__name__} is wanted, not {type(made).__name__}")
    return made


def hash_of(value: Any, *context: str) -> str:
    """16 hexadecimal digits over a config and any further strings."""
    text = json.dumps([to_json(value), *context], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(value: Any, packages: Sequence[str], path: str) -> Any:
    if isinstance(value, list):
        return tuple(_read(part, packages, f"{path}.{i}") for i, part in enumerate(value))
    if not isinstance(value, dict):
        return value
    if _CLASS not in value:
        return {name: _read(part, packages, f"{path}.{name}") for name, part in value.items()}
    kind = _config_class(value[_CLASS], packages, path)
    hints = get_type_hints(kind)
    names = {each.name for each in dataclasses.fields(kind)}
    fields = {}
    for name, part in value.items():
        if name == _CLASS:
            continue
        if name not in names:
            raise InputError(f"{path}: {kind.__name__} has no field {name!r}{near(name, names)}")
        fields[name] = _read(part, packages, f"{path}.{name}")
        if isinstance(fields[name], int) and _fits(float(0), hints[name]):
            if not isinstance(fields[name], bool) and not _fits(fields[name], hints[name]):
                fields[name] = float(fields[name])
        if not _fits(fields[name], hints[name]):
            raise InputError(f"{path}.{name} is {part!r}; allowed: {hints[name]}")
    try:
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{path}: {kind.__name__} cannot be made: {error}") from error


def _config_class(name: object, packages: Sequence[str], path: str) -> type:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.]+:\w+", name):
        raise InputError(f"{path}.class is {name!r}; it must look like module:Class")
    module_name, class_name = name.split(":")
    if not any(module_name == each or module_name.startswith(f"{each}.") for each in packages):
        raise InputError(
            f"{path}.class is {name}, outside {', '.join(packages)}; name its module with --allow "
            "if you trust it"
        )
    try:
        module = sys.modules.get(module_name) or importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{path}.class is {name}, but {module_name} does not exist") from error
    kind = vars(module).get(class_name)
    if not isinstance(kind, type) or not vars(kind).get("__dataclass_params__", _THAWED).frozen:
        raise InputError(f"{path}.class is {name}, which is not a config of {module_name}")
    return kind


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    if origin in (Mapping, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        part_hint = get_args(hint)[1]
        return isinstance(value, Mapping) and all(_fits(p, part_hint) for p in value.values())
    if hint is float:
        return isinstance(value, float) and not math.isnan(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def near(name: str, names: Sequence[str] | set[str]) -> str:
    """`; did you mean ...?` for a misspelt name, or the allowed ones when nothing is near."""
    found = difflib.get_close_matches(name, list(names), 3, 0.5)
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; allowed: {', '.join(sorted(names))}" if len(names) <= 30 else ""


def override(config: Config, arguments: Sequence[str], *, program: str = "run") -> Config:
    """The config with fields replaced by `--a.b 1`, `--a.b=1` or `a.b=1`.

    An unknown name or a value of the wrong type ends the program with status 2 and a message that
    suggests near names; `--help` prints every field with its type, default and meaning.
    """
    import tyro

    plain = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    given: list[str] = []
    for argument in arguments:
        dotted = re.fullmatch(r"[A-Za-z_][\w.-]*=.*", argument, flags=re.DOTALL)
        given.append(f"--{argument}" if dotted and not argument.startswith("-") else argument)
    return tyro.cli(
        type(config), prog=program, default=config, args=given, config=plain, use_underscores=True
    )

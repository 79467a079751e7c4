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
import inspect
import json
import math
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from research.errors import InputError, needing

Config = TypeVar("Config")
PACKAGES = ("research", "baselines")
_CLASS = "class"
# Whole numbers below this are floats without rounding.
_EXACT = 1 << 53
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
    try:
        made = _read(value, (*PACKAGES, *allow), "config")
    except RecursionError as error:
        raise InputError("config: it is nested too deeply") from error
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
        fields[name] = _fitting(fields[name], hints[name], f"{path}.{name}", part)
    try:
        return kind(**fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{path}: {kind.__name__} cannot be made: {error!s:.300}") from error


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


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(part, get_args(hint)[0]) for part in value)
    if origin in (Mapping, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        part_hint = get_args(hint)[1]
        return isinstance(value, Mapping) and all(fits(p, part_hint) for p in value.values())
    if hint is float:
        return isinstance(value, float) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def near(name: str, names: Sequence[str] | set[str]) -> str:
    """`; did you mean ...?` for a misspelt name, or the allowed ones when nothing is near."""
    found = difflib.get_close_matches(name, list(names), 3, 0.5)
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; allowed: {', '.join(sorted(names))}" if len(names) <= 30 else ""


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with fields replaced by dotted name: `{"encoder.layers": 3, "stages.0.steps": 9}`.

    All are replaced at once, so values that fit only together need no order. A value may be a whole
    config, None where that may stand, or that of a new key of a mapping. `InputError` for a name
    that does not exist, a value of the wrong type, and what the configs themselves refuse.
    """
    for name in changes:
        inside = [each for each in changes if each.startswith(f"{name}.")]
        if inside:
            raise InputError(f"{name} and {inside[0]}, a part of it, are both changed; give one")
    paths = {tuple(name.split(".")): value for name, value in changes.items()}
    changed_config: Config = _changed(config, paths, type(config), "")
    return changed_config


def _changed(value: Any, changes: Mapping[tuple[str, ...], Any], hint: Any, path: str) -> Any:
    """`changes` by what is left of their paths, inside the value at `path`, annotated `hint`."""
    if () in changes:
        return _fitting(changes[()], hint, path, changes[()])
    hints = _hints_of_parts(value, hint)
    parts: dict[str, dict[tuple[str, ...], Any]] = {}
    for (name, *rest), new in changes.items():
        parts.setdefault(name, {})[tuple(rest)] = new
    made = {}
    for name, inner in parts.items():
        added = isinstance(value, Mapping) and () in inner and name
        if name not in hints and not added:
            owner = f"{path} ({type(value).__name__})" if path else type(value).__name__
            some = near(name, set(hints)) if hints else f"; it is {value!r} and has no parts"
            raise InputError(f"{owner} has no {name!r}{some}")
        part_hint = hints[name] if name in hints else get_args(hint)[1]
        where = f"{path}.{name}" if path else name
        made[name] = _changed(_part(value, [name]), inner, part_hint, where)
    return _with_parts(value, made) if made else value


def _hints_of_parts(value: Any, hint: Any) -> dict[str, Any]:
    """The annotations of a config's fields, of a mapping's entries or a tuple's; {}: no parts."""
    if dataclasses.is_dataclass(value):
        return get_type_hints(type(value))
    if isinstance(value, Mapping):
        return dict.fromkeys(value, get_args(hint)[1])
    if isinstance(value, tuple):
        return dict.fromkeys(map(str, range(len(value))), get_args(hint)[0])
    return {}


def _fitting(value: Any, hint: Any, path: str, given: Any) -> Any:
    """A value, a whole number made a float where one is wanted; `InputError` for a wrong type."""
    fitting = value
    if isinstance(value, int) and not isinstance(value, bool) and not fits(value, hint):
        if fits(float(0), hint):
            fitting = float(value) if abs(value) < _EXACT else math.inf
    if not fits(fitting, hint):
        raise InputError(f"{path} is {given!r}; allowed: {hint}")
    return fitting


def override(config: Config, arguments: Sequence[str], *, program: str = "run") -> Config:
    """The config with fields replaced by `--a.b 1`, `--a.b=1` or `a.b=1`.

    `None` replaces a part that may be absent. An unknown name or a value of the wrong type ends the
    program with status 2 and a message that suggests near names; `--help` prints every field with
    its type, default and meaning.
    """
    if not arguments:
        return config
    with needing(("tyro", "typeguard", "docstring_parser"), "an override", "pip install tyro"):
        import tyro

    config, given = _without_parts(config, _spelled(arguments))
    config, given = _with_abstract_parts(config, given, program)
    plain = (tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands)
    return tyro.cli(
        type(config), prog=program, default=config, args=given, config=plain, use_underscores=True
    )


def _spelled(arguments: Sequence[str]) -> list[str]:
    """Every `a.b=1` and `--a.b=1` as the two words `--a.b` and `1`."""
    given: list[str] = []
    for argument in arguments:
        assigned = re.fullmatch(r"(?:--)?([A-Za-z_][\w.-]*)=(.*)", argument, flags=re.DOTALL)
        given += [f"--{assigned[1]}", assigned[2]] if assigned else [argument]
    return given


def _without_parts(config: Config, given: list[str]) -> tuple[Config, list[str]]:
    """Carry out `--a.b None` where a config stands now; the other words are left."""
    left = list(given)
    for place in range(len(given) - 1, 0, -1):
        if given[place] != "None" or not given[place - 1].startswith("--"):
            continue
        path = given[place - 1][2:].replace("-", "_").split(".")
        if dataclasses.is_dataclass(_part(config, path)) and _may_lack(config, path):
            config = _replaced(config, path, None)
            del left[place - 1 : place + 1]
    return config, left


def _part(value: Any, path: Sequence[str]) -> Any:
    """What a dotted path leads to; None when it leads nowhere."""
    for name in path:
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, tuple):
            value = value[int(name)] if name.isdecimal() and int(name) < len(value) else None
        else:
            value = vars(value).get(name) if dataclasses.is_dataclass(value) else None
    return value


def _may_lack(config: Any, path: Sequence[str]) -> bool:
    """Whether None may stand at the end of a path."""
    owner = type(_part(config, path[:-1]))
    return dataclasses.is_dataclass(owner) and fits(None, get_type_hints(owner)[path[-1]])


def _replaced(value: Any, path: Sequence[str], new: Any) -> Any:
    """A copy of nested configs in which the end of a path is replaced."""
    if not path:
        return new
    inner = _replaced(_part(value, path[:1]), path[1:], new)
    return _with_parts(value, {path[0]: inner})


def _with_parts(value: Any, parts: Mapping[str, Any]) -> Any:
    """A copy of a config, mapping or tuple with some of its parts replaced, all at once."""
    if isinstance(value, Mapping):
        return {**value, **parts}
    if isinstance(value, tuple):
        placed = {int(name): part for name, part in parts.items()}
        return tuple(placed.get(place, part) for place, part in enumerate(value))
    return dataclasses.replace(value, **parts)


def _with_abstract_parts(
    config: Config, given: list[str], program: str
) -> tuple[Config, list[str]]:
    """Override parts whose annotation is abstract or absent, which tyro would hold fixed."""
    hints = get_type_hints(type(config))
    for name, hint in hints.items():
        part = getattr(config, name)
        if part is None or not any(inspect.isabstract(each) for each in (hint, *get_args(hint))):
            continue
        own = [place for place, word in enumerate(given) if word.startswith(f"--{name}.")]
        words = [each for place in own for each in given[place : place + 2]]
        words[::2] = [f"--{word[len(name) + 3 :]}" for word in words[::2]]
        if words:
            part = override(part, words, program=f"{program} {name}")
            config = _replaced(config, [name], part)
        kept = {place + after for place in own for after in (0, 1)}
        given = [word for place, word in enumerate(given) if place not in kept]
    return config, given

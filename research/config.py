"""Configs and records: frozen dataclasses to JSON and back, their type checks and their hashes.

JSON names a class by its own name (`research/config_index.py`), never by the file that defines it.
Reading accepts only frozen config dataclasses of this project and of packages that the user allows,
checks every field's name and type, and calls nothing but those dataclasses: a run folder is
untrusted input, so it is data and never code. A hash leaves out fields that have their default
value, so that a field which is added later changes no hash of a run that does not use it.

Records (`research/storage/records.py`) are dataclasses too, but their JSON names no classes: the
annotations say which class each value has (`record_from_json`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from research.annotations import (
    convert_value,
    default_of,
    field_hints,
    has_type,
    int_to_float,
    is_config,
    is_dataclass_type,
    is_generic_of,
    join_path,
    json_type_name,
    members,
    part_hints,
    part_of,
    suggest,
)
from research.config_index import PACKAGES, check_class, config_class, package_of, stored_name
from research.errors import InputError

Config = TypeVar("Config")
_CLASS = "class"
OLD_FORMAT_MESSAGE = (
    "that is the form of an earlier version of Sixfold, which named classes by their modules. "
    "Names of classes and fields, random orders and the hashes that recognise runs have changed "
    "since. Do the run again in a new folder, or read this one with the version that made it"
)


def to_json(value: Any, hint: Any = None, *, short: bool = False) -> Any:
    """A config as JSON values; each dataclass becomes an object with an entry `class`.

    `short` gives the form that is hashed: a class by its own name without its package, and only the
    fields that differ from the defaults that the class declares. `hint` is the annotation of the
    value: a whole number is written as a float (1.0) where the annotation wants one.
    """
    parts = {
        name: to_json(part_of(value, name), part_hint, short=short)
        for name, part_hint in part_hints(value, hint).items()
    }
    if is_config(value):
        kind: type = type(value)
        if not short:
            return {_CLASS: stored_name(kind), **parts}
        return {_CLASS: kind.__name__, **non_default_fields(kind, parts)}
    if isinstance(value, Mapping):
        return parts
    if isinstance(value, (tuple, list)):
        return list(parts.values())
    assert value is None or isinstance(value, (bool, int, float, str)), type(value)
    return int_to_float(value, hint)


def hash_of(value: Any, *context: str) -> str:
    """The hash of a config in its short form and of further strings: 16 hexadecimal digits."""
    text = _json_text([to_json(value, type(value), short=True), *context])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def non_default_fields(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, by name in their short form, that differ from the defaults of the class."""
    hints, defaults = field_hints(kind), _defaults(kind)
    converted = {name: int_to_float(part, hints[name]) for name, part in fields.items()}
    return {name: part for name, part in converted.items() if _json_text(part) != defaults[name]}


@functools.cache
def _defaults(kind: type) -> dict[str, str | None]:
    """For each field the short form of its default as JSON text; None: it has no default."""
    hints = field_hints(kind)
    return {
        name: None
        if default is dataclasses.MISSING
        else _json_text(to_json(default, hint, short=True))
        for name, hint in hints.items()
        for default in [default_of(kind, name)]
    }


def _json_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def from_json(value: Any, expected: type[Config], *, allow: Sequence[str] = ()) -> Config:
    """The config that `to_json` wrote, an instance of `expected`.

    `allow` names packages, beside this project's, whose classes may occur. Raises `InputError`,
    which names the field, for anything else.
    """
    try:
        config = _config_from_json(value, allow, "config")
    except RecursionError as error:
        raise InputError("config: it is nested too deeply") from error
    if not isinstance(config, expected):
        raise InputError(f"config: a {expected.__name__} is expected, not {type(config).__name__}")
    return config


def _config_from_json(value: Any, allow: Sequence[str], path: str) -> Any:
    if isinstance(value, list):
        return tuple(_config_from_json(part, allow, f"{path}.{i}") for i, part in enumerate(value))
    if not isinstance(value, dict):
        return value
    if _CLASS not in value:
        return {
            name: _config_from_json(part, allow, f"{path}.{name}") for name, part in value.items()
        }
    kind = _class_named(value[_CLASS], allow, f"{path}.class")
    hints = field_hints(kind)
    fields = {}
    for name, part in value.items():
        if name == _CLASS:
            continue
        if name not in hints:
            raise InputError(f"{path}: {kind.__name__} has no field {name!r}{suggest(name, hints)}")
        field_value = _config_from_json(part, allow, f"{path}.{name}")
        fields[name] = convert_value(field_value, hints[name], f"{path}.{name}")
    try:
        return build_config(kind, fields)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _class_named(name: object, allow: Sequence[str], path: str) -> type:
    if not isinstance(name, str) or not re.fullmatch(r"(?:[\w.]+:)?\w+", name):
        raise InputError(f"{path} is {name!r:.100}; it must look like Name or package:Name")
    package, _, class_name = name.rpartition(":")
    if is_old_format(name):
        raise InputError(f"{path} is {name}: {OLD_FORMAT_MESSAGE}")
    if package and package not in allow:
        packages = ", ".join(dict.fromkeys((*PACKAGES, *allow)))
        raise InputError(
            f"{path} is {name}, outside {packages}; name its package with --allow {package} if you "
            "trust it"
        )
    try:
        return config_class(class_name, package or None)
    except InputError as error:
        raise InputError(f"{path} is {name}, but {error}") from error


def is_old_format(name: object) -> bool:
    """Whether a class is named `module:Class`, as earlier versions of the project wrote it."""
    module = name.rpartition(":")[0] if isinstance(name, str) else ""
    return "." in module or module in PACKAGES


def build_config(kind: type, fields: Mapping[str, Any]) -> Any:
    """An instance of a config class; `InputError` if a value is missing or invalid."""
    missing = [
        name
        for name in field_hints(kind)
        if name not in fields and default_of(kind, name) is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{kind.__name__} needs a value for {' and '.join(missing)}")
    try:
        return kind(**fields)
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"{kind.__name__} cannot be built: {error!s:.300}") from error


def check_config(config: Any) -> None:
    """Raise `InputError` for a config that could not be read back from config.json.

    The causes are a value that does not fit its annotation, a class that cannot be found by its
    name, and two classes of one name. A config written in Python is checked here before anything is
    trained.
    """
    class_by_name: dict[str, type] = {}
    for path, part in _configs(config, "config"):
        for name, hint in part_hints(part, None).items():
            convert_value(part_of(part, name), hint, f"{path}.{name}")
        try:
            check_class(type(part))
            other = class_by_name.setdefault(type(part).__name__, type(part))
            if other is not type(part):
                raise InputError(
                    f"classes {stored_name(other)} and {stored_name(type(part))} have one name; "
                    "configs are known by their names, so rename one of them"
                )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    stored = json.loads(json.dumps(to_json(config, type(config))))
    read_back = from_json(stored, type(config), allow=packages_of(config))
    if read_back != config:
        field = _first_difference(config, read_back, "config")
        raise InputError(
            f"{field} changes when it is written to config.json and read back; give configs only "
            "fields of plain types"
        )


def check_types(config: Any) -> None:
    """Raise `InputError` for a field that is not of its annotated type.

    A config calls it at the start of `__post_init__`, so that a wrong type is reported as one and
    not as a failed comparison of text with a number.
    """
    kind: type = type(config)
    for name, hint in field_hints(kind).items():
        convert_value(vars(config)[name], hint, f"{kind.__name__}.{name}")


def packages_of(config: Any) -> tuple[str, ...]:
    """The packages, beside this project's, that the classes in a config belong to."""
    packages = dict.fromkeys(package_of(type(part)) for _, part in _configs(config, ""))
    return tuple(package for package in packages if package not in PACKAGES)


def _configs(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every config in a value, the value itself first, each with its dotted name."""
    if is_config(value):
        yield path, value
    for name in part_hints(value, None):
        yield from _configs(part_of(value, name), f"{path}.{name}")


def _first_difference(ours: Any, theirs: Any, path: str) -> str:
    for name in part_hints(ours, None):
        if name in part_hints(theirs, None) and part_of(ours, name) != part_of(theirs, name):
            return _first_difference(part_of(ours, name), part_of(theirs, name), f"{path}.{name}")
    return path


def record_to_json(value: Any) -> Any:
    """A record as JSON values, without the fields that are None where None is the default."""
    if is_config(value):
        kind: type = type(value)
        return {
            name: record_to_json(part)
            for name in field_hints(kind)
            for part in [part_of(value, name)]
            if part is not None or default_of(kind, name) is not None
        }
    if isinstance(value, Mapping):
        return {name: record_to_json(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [record_to_json(part) for part in value]
    return value


def record_from_json(
    value: Any, kind: type[Config], path: str = "", *, more: bool = False
) -> Config:
    """The record of class `kind` that `record_to_json` wrote.

    A field that has a default may be absent. With `more`, fields that the class does not have are
    ignored. Raises `InputError`, which names the field, for anything else.
    """
    record: Config = _value_from_json(value, kind, path, more)
    return record


def _value_from_json(value: Any, hint: Any, path: str, more: bool) -> Any:
    record_class = next(filter(is_dataclass_type, members(hint)), None)
    if record_class is not None and isinstance(value, dict):
        return _record_from_json(value, record_class, path, more)
    container = tuple if isinstance(value, list) else Mapping
    if isinstance(value, (dict, list)) and any(
        is_generic_of(each, container) for each in members(hint)
    ):
        value = value if isinstance(value, dict) else tuple(value)
        parts = {
            name: _value_from_json(part_of(value, name), part_hint, join_path(path, name), more)
            for name, part_hint in part_hints(value, hint).items()
        }
        value = parts if isinstance(value, dict) else tuple(parts.values())
    if not has_type(int_to_float(value, hint), hint):
        raise InputError(f"{path} is {value!r:.200}; allowed: {json_type_name(hint)}")
    return convert_value(value, hint, path)


def _record_from_json(value: dict[str, Any], kind: type, path: str, more: bool) -> Any:
    hints = field_hints(kind)
    for name in value if not more else ():
        if name not in hints:
            raise InputError(f"{join_path(path, name)} is not a known field{suggest(name, hints)}")
    for name, hint in hints.items():
        if name not in value and default_of(kind, name) is dataclasses.MISSING:
            raise InputError(f"{join_path(path, name)} is missing; allowed: {json_type_name(hint)}")
    given_hints = {name: hint for name, hint in hints.items() if name in value}
    fields = {
        name: _value_from_json(value[name], hint, join_path(path, name), more)
        for name, hint in given_hints.items()
    }
    try:
        return build_config(kind, fields)
    except InputError as error:
        raise InputError(f"{path}: {error}" if path else str(error)) from error

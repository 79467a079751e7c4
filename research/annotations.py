"""Checks whether values have their annotated types, and words the messages where they do not."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import re
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from research.config_index import config_classes
from research.errors import InputError

# Whole numbers below this are exact as floats.
_MAX_EXACT_INT = 1 << 53


def is_config(value: Any) -> bool:
    """Whether a value is an instance of a dataclass, as configs and records are."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


@functools.cache
def field_hints(kind: type) -> dict[str, Any]:
    """The annotation of each field of a config class, by name in the order of the fields.

    Raises `InputError` if an annotation cannot be resolved.
    """
    try:
        hints = get_type_hints(kind)
    except (NameError, TypeError) as error:
        raise InputError(f"the annotations of {kind.__name__} cannot be read: {error}") from error
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def default_of(kind: type, name: str) -> Any:
    """The default value of a field of a class; `dataclasses.MISSING` if it has none."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def part_hints(value: Any, hint: Any) -> dict[str, Any]:
    """The annotation of each part of a value: a config's fields, a mapping's or tuple's entries.

    Entries of a tuple are named "0", "1", ...; a value without parts gives {}. `hint` is the
    annotation of the value; where it does not annotate the entries, theirs are None.
    """
    kind: type = type(value)
    if is_config(value):
        return field_hints(kind)
    if isinstance(value, Mapping):
        member_args = [
            get_args(member)[1] for member in members(hint) if is_generic_of(member, Mapping)
        ]
        return dict.fromkeys(value, member_args[0] if member_args else None)
    if isinstance(value, (tuple, list)):
        member_args = [get_args(member) for member in members(hint) if is_generic_of(member, tuple)]
        entry_hints = member_args[0] if member_args and member_args[0][-1] is not ... else ()
        common_hint = member_args[0][0] if member_args and not entry_hints else None
        hints = dict.fromkeys(map(str, range(len(value))), common_hint)
        return hints | {str(index): entry for index, entry in enumerate(entry_hints[: len(value)])}
    return {}


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union annotation; any other annotation alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def is_generic_of(hint: Any, kind: type) -> bool:
    """Whether an annotation is a parametrized `kind` or subclass of it, such as `tuple[int,
    ...]`."""
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, kind) and bool(get_args(hint))


def part_of(value: Any, name: str) -> Any:
    """The part of a config, a mapping or a tuple that has a name from `part_hints`."""
    if isinstance(value, Mapping):
        return value[name]
    return value[int(name)] if isinstance(value, (tuple, list)) else getattr(value, name)


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; `convert_value` also checks its entries."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(has_type(value, member) for member in get_args(hint))
    if get_origin(hint) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if hint is float:
        return isinstance(value, float) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if is_generic_of(hint, tuple):
        entry_hints = get_args(hint)
        if not isinstance(value, tuple):
            return False
        return entry_hints[-1] is ... or len(value) == len(entry_hints)
    if is_generic_of(hint, Mapping):
        return isinstance(value, Mapping)
    if hint is None or hint is Any:
        return True
    return isinstance(hint, type) and get_origin(hint) is None and isinstance(value, hint)


def int_to_float(value: Any, hint: Any) -> Any:
    """The value, as a float where it is a whole number and the annotation wants a float."""
    if isinstance(value, int) and not isinstance(value, bool) and not has_type(value, hint):
        if float in members(hint) and abs(value) < _MAX_EXACT_INT:
            return float(value)
    return value


def convert_value(value: Any, hint: Any, path: str) -> Any:
    """The value converted to its annotated type.

    Whole numbers become floats where floats are annotated, in mappings and tuples too. The fields
    of a config are not checked here: reading it does that, or `check_config`. What is annotated as
    `object` may be any value and is not checked. Raises `InputError`, which names the first part
    that does not fit.
    """
    if hint is object:
        return value
    value = int_to_float(value, hint)
    if not has_type(value, hint):
        description = f"a {type(value).__name__}" if is_config(value) else f"{value!r:.200}"
        allowed = type_name(hint)
        if isinstance(value, float) and float in members(hint):
            allowed = allowed.replace("float", "a finite float")
        raise InputError(f"{path} is {description}; allowed: {allowed}")
    if not isinstance(value, (Mapping, tuple)):
        if not (value is None or is_config(value) or isinstance(value, (bool, int, float, str))):
            raise InputError(
                f"{path} is {value!r:.200}, which JSON cannot hold; a config holds numbers, text, "
                "booleans, None, tuples, mappings and configs"
            )
        return value
    wrong_keys = (
        [name for name in value if not isinstance(name, str)] if isinstance(value, Mapping) else []
    )
    if wrong_keys:
        raise InputError(f"{path} has the key {wrong_keys[0]!r:.100}; keys are text")
    parts = {
        name: convert_value(part_of(value, name), part_hint, f"{path}.{name}")
        for name, part_hint in part_hints(value, hint).items()
    }
    return parts if isinstance(value, Mapping) else tuple(parts.values())


def is_dataclass_type(hint: Any) -> TypeGuard[type]:
    """Whether an annotation is a dataclass."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def json_type_name(hint: Any) -> str:
    """An annotation in the words of JSON, for errors: `a list of int`, `an object with a, b`."""
    if len(members(hint)) > 1:
        return " | ".join(json_type_name(member) for member in members(hint))
    if is_dataclass_type(hint):
        return f"an object with {', '.join(field_hints(hint))}"
    if not (is_generic_of(hint, Mapping) or is_generic_of(hint, tuple)):
        return type_name(hint)
    container, part_index = ("an object", 1) if is_generic_of(hint, Mapping) else ("a list", 0)
    part = get_args(hint)[part_index]
    return container if part is object else f"{container} of {json_type_name(part)}"


def join_path(path: str, name: str) -> str:
    """The dotted name of the part `name` below `path`; `name` alone at the top."""
    return f"{path}.{name}" if path else name


def type_name(hint: Any) -> str:
    """An annotation as text for errors and help: `int | None`, `post | pre`, `tuple[str, ...]`."""
    if get_origin(hint) is Literal or len(members(hint)) > 1:
        return " | ".join(type_name(member) for member in get_args(hint))
    if hint in (None, type(None)):
        return "None"
    # In Python 3.10 a mapping with types of its entries counts as an abstract class.
    if get_origin(hint) is None and inspect.isabstract(hint):
        # An abstract class has no instances, so its subclasses are what is allowed.
        return " | ".join(kind.__name__ for kind in config_classes(hint)) or hint.__name__
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    return re.sub(r"\w+\.(?=\w)", "", str(hint))


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that are like a misspelled one, the nearest first."""
    return difflib.get_close_matches(name, list(dict.fromkeys(names)), 3, 0.5)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean ...?` with up to three of `names` like a misspelled one; "" if none is."""
    similar = near_names(name, names)
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


def suggest(name: str, names: Collection[str]) -> str:
    """`; did you mean ...?` for a misspelled name, and all allowed names where these are few.

    "" where no name is similar and more than 30 are allowed.
    """
    question, allowed = did_you_mean(name, names), f"allowed: {', '.join(sorted(names))}"
    if question:
        return f"{question} ({allowed})" if len(names) <= 8 else question
    return f"; {allowed}" if len(names) <= 30 else ""

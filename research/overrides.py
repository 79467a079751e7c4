"""Replaces fields of a config by dotted name: in Python, or by words of a command line.

A field that holds a config may be given the name of a class. The class is then made with its own
defaults and the fields that are named below it: `--split GlobalTemporal --split.test_share 0.2`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Literal, TypeVar, cast, get_args, get_origin

from research.annotations import (
    convert_value,
    default_of,
    field_hints,
    has_type,
    is_config,
    members,
    part_hints,
    part_of,
    suggest,
    type_name,
)
from research.config import build_config
from research.config_index import config_classes, file_of, stored_name
from research.errors import InputError

Config = TypeVar("Config")
# New values by their dotted names, relative to the part of the config that is being changed.
Changes = Mapping[tuple[str, ...], object]
_NO_VALUE = object()
# An entry of a list and the comma after it; quotes that enclose text may hold commas.
_ENTRY = re.compile(r"""(\s*(?:"[^"]*"|'[^']*')\s*|[^,]*),""")
# In the order in which a text is tried as each of them.
_SCALARS = (bool, int, float, str)
_NON_CONFIG_TYPES = (*_SCALARS, type(None))


@dataclass(frozen=True)
class Words:
    """The words of a command line that are the value of a field."""

    texts: tuple[str, ...]


def replace_fields(
    config: Config, changes: Mapping[str, object], *, packages: Sequence[str] = ()
) -> Config:
    """The config with fields replaced by dotted name: `{"encoder.layers": 3, "stages.0.steps": 9}`.

    All fields are replaced at once, so values that are valid only together need no order. A value
    may be a whole config, the name of a class of this project or of `packages` where the field
    holds a config, None where the annotation allows it, or the value of a new key of a mapping.
    Fields named below such a value are changed in the new value. Raises `InputError` for a name
    that does not exist, a value of the wrong type, and values that a config refuses.
    """
    paths = {tuple(name.split(".")): value for name, value in changes.items()}
    return cast(Config, _replace(config, paths, type(config), "", packages))


def override(
    config: Config,
    arguments: Sequence[str],
    *,
    program: str = "run",
    packages: Sequence[str] = (),
    own_options: str = "",
) -> Config:
    """The config with fields replaced by `--a.b 1`, `--a.b=1` or `a.b=1`; the last one counts.

    A list is written `a.b=[x,y]`, `--a.b x y` or `--a.b x,y`, None is written `None` or `null`.
    `--help` prints every field with its type, default and meaning, and `own_options`, a line on the
    program's options that are no fields; then it ends the program. Raises
    `InputError` as `replace_fields` does, and for a word that belongs to no field or a field
    without a value.
    """
    words = [word for word in arguments if word not in ("-h", "--help")]
    new_config = replace_fields(config, _words_of(words), packages=packages)
    if len(words) < len(arguments):
        print("\n".join(_help_lines(new_config, program, packages, own_options)))
        raise SystemExit(0)
    return new_config


def overridden_fields(arguments: Sequence[str]) -> frozenset[str]:
    """The names of the fields that these words set, also where they set a field to its default.

    The words are those of `override`. Raises `InputError` for a word that belongs to no field or a
    field without a value.
    """
    return frozenset(name.partition(".")[0].replace("-", "_") for name in _words_of(arguments))


def _words_of(arguments: Sequence[str]) -> dict[str, Words]:
    """The words given for each dotted name; of several assignments to one name, the last."""
    words: dict[str, tuple[str, ...]] = {}
    name = ""
    for word in arguments:
        assigned = re.fullmatch(r"(?:--)?([A-Za-z_][\w.-]*)=(.*)", word, flags=re.DOTALL)
        if assigned and words.get(name) != ():
            name = assigned[1]
            words[name] = (assigned[2],)
        elif word.startswith("--") and len(word) > 2:
            name = word[2:]
            words[name] = ()
        elif name:
            words[name] += (word,)
        else:
            raise InputError(f"{word!r} belongs to no field; write --a.b 1, --a.b=1 or a.b=1")
    for name, texts in words.items():
        if not texts:
            raise InputError(f"--{name} has no value; write --{name} VALUE or {name}=VALUE")
    return {name: Words(texts) for name, texts in words.items()}


def _replace(
    value: object, changes: Changes, hint: object, path: str, packages: Sequence[str]
) -> object:
    """The value at `path`, annotated `hint`, after `changes`.

    A value that is a class means a config of that class that is yet to be built.
    """
    if () in changes:
        value = _choose_value(changes[()], hint, path, packages)
    hints = field_hints(value) if isinstance(value, type) else part_hints(value, hint)
    parts: dict[str, dict[tuple[str, ...], object]] = {}
    for (name, *rest), new in ((names, new) for names, new in changes.items() if names):
        field_name = name if name in hints else name.replace("-", "_")
        parts.setdefault(field_name if field_name in hints else name, {})[tuple(rest)] = new
    new_parts = {}
    for name, part_changes in parts.items():
        if isinstance(value, Mapping) and () in part_changes and name:
            hints = {**part_hints({name: None}, hint), **hints}
        if name not in hints:
            kind = value if isinstance(value, type) else type(value)
            owner = f"{path} ({kind.__name__})" if path else kind.__name__
            hint_text = (
                _meant(value, hint, name, path) or suggest(name, hints)
                if hints
                else _no_parts_message(value, hint, path, packages)
            )
            raise InputError(f"{owner} has no {name!r}{hint_text}")
        part_path = f"{path}.{name}" if path else name
        new_parts[name] = _replace(
            _current_part(value, name), part_changes, hints[name], part_path, packages
        )
    return _with_parts(value, new_parts) if new_parts or isinstance(value, type) else value


def _meant(value: object, hint: object, name: str, path: str) -> str:
    """The fields of this name that lie deeper in a value, as a question; "" if there is none."""
    if isinstance(value, type):
        return ""
    fields = [field for field, *_ in _fields(value, hint, path, "")]
    named = [field for field in fields if field.rpartition(".")[2] == name.replace("-", "_")]
    others = f" or {len(named) - 3} more" if len(named) > 3 else ""
    return f"; did you mean {', '.join(named[:3])}{others}?" if named else ""


def _no_parts_message(value: object, hint: object, path: str, packages: Sequence[str]) -> str:
    classes = ", ".join(_classes(hint, packages))
    advice = f"; give it a class first, {path}=NAME with one of {classes}" if classes else ""
    return f"; it is {value!r:.200} and has no parts{advice}"


def _current_part(value: object, name: str) -> object:
    """The present value of a part; None where there is none."""
    if isinstance(value, type):
        default = default_of(value, name)
        return None if default is dataclasses.MISSING else default
    if isinstance(value, Mapping):
        return value.get(name)
    return part_of(value, name)


def _with_parts(value: object, parts: Mapping[str, object]) -> object:
    """A new config if `value` is a class, else a copy of it, with `parts` set all at once."""
    if isinstance(value, type):
        return build_config(value, parts)
    if isinstance(value, Mapping):
        return {**value, **parts}
    if isinstance(value, tuple):
        return tuple(parts.get(str(index), part) for index, part in enumerate(value))
    present = {name: part_of(value, name) for name in part_hints(value, None)}
    return build_config(type(value), {**present, **parts})


def _choose_value(new: object, hint: object, path: str, packages: Sequence[str]) -> object:
    """The value that `new` means for the annotation; the class if it names one."""
    if isinstance(new, Words):
        for member in sorted(members(hint), key=_order):
            parsed = _parse(new.texts, member)
            if parsed is not _NO_VALUE:
                return convert_value(parsed, hint, path)
        new = " ".join(new.texts)
    elif not isinstance(new, str) or has_type(new, hint):
        return convert_value(new, hint, path)
    classes = _classes(hint, packages)
    if new in classes:
        return classes[new]
    allowed = suggest(new, classes) if classes else f"; allowed: {type_name(hint)}"
    raise InputError(f"{path} is {new!r:.200}{allowed}")


def _classes(hint: object, packages: Sequence[str]) -> dict[str, type]:
    """The config classes that an annotation allows, by name and by stored name.

    Raises `InputError` if two of them have one name.
    """
    kinds = [
        kind
        for base in members(hint)
        if isinstance(base, type) and get_origin(base) is None and base not in _NON_CONFIG_TYPES
        for kind in config_classes(base, packages)
    ]
    classes: dict[str, type] = {}
    for kind in kinds:
        other = classes.setdefault(kind.__name__, kind)
        if other is not kind:
            raise InputError(
                f"{file_of(other)} and {file_of(kind)} both define a config class "
                f"{kind.__name__}; configs are known by their names, so rename yours"
            )
        classes[stored_name(kind)] = kind
    return classes


def _order(hint: object) -> int:
    """In which order a text is tried as the members of a union, those with the least value first.

    None, literals, tuples and configs come first, then bool, int and float, and last str, which
    every text is.
    """
    return 1 + _SCALARS.index(hint) if isinstance(hint, type) and hint in _SCALARS else 0


def _parse(texts: Sequence[str], hint: object) -> object:
    """The value that words mean as a type that is no union; `_NO_VALUE` where they do not fit
    it."""
    text = " ".join(texts)
    if get_origin(hint) is tuple:
        entry_hints = get_args(hint)
        parts = [_parse_any(entry, entry_hints[0]) for entry in _split_list(texts)]
        return _NO_VALUE if _NO_VALUE in parts else tuple(parts)
    if hint is type(None) and text in ("None", "null"):
        return None
    if get_origin(hint) is Literal:
        return next((choice for choice in get_args(hint) if str(choice) == text), _NO_VALUE)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), _NO_VALUE)
    if hint in (int, float):
        return _number(text, whole=hint is int)
    return text if hint is str and len(texts) == 1 else _NO_VALUE


def _parse_any(text: str, hint: object) -> object:
    values = (_parse([text], member) for member in sorted(members(hint), key=_order))
    return next((value for value in values if value is not _NO_VALUE), _NO_VALUE)


def _split_list(texts: Sequence[str]) -> list[str]:
    """The entries of a list: several words, or the parts of one word or of brackets between commas.

    A comma within quotes separates nothing.
    """
    text = " ".join(texts).strip()
    if text[:1] + text[-1:] in ("[]", "()"):
        inner = text[1:-1].strip().removesuffix(",")
    elif len(texts) == 1 and "," in text.strip(","):
        inner = text
    else:
        return list(texts)
    entries: list[str] = re.findall(_ENTRY, f"{inner},") if inner else []
    return [entry.strip().strip("'\"") for entry in entries]


def _number(text: str, *, whole: bool) -> object:
    if re.fullmatch(r"[+-]?[0-9]{1,4000}", text) and whole:
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return _NO_VALUE
    if not math.isfinite(number):
        return _NO_VALUE
    if not whole:
        return number
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else _NO_VALUE


def _help_lines(
    config: object, program: str, packages: Sequence[str], own_options: str
) -> Iterator[str]:
    """The lines of `--help`: every field with its type, its meaning and its value."""
    yield f"usage: {program} [--FIELD VALUE ...]   (--FIELD=VALUE and FIELD=VALUE mean the same)"
    if own_options:
        yield own_options
    for path, hint, value, meaning in _fields(config, type(config), "", ""):
        classes = [kind.__name__ for kind in dict.fromkeys(_classes(hint, packages).values())]
        none = ["None"] if has_type(None, hint) else []
        shown = type(value).__name__ if is_config(value) else value
        meaning_line = f"{meaning} (default: {shown})".lstrip()
        yield f"\n--{path}  {' | '.join(classes + none) if classes else type_name(hint)}"
        yield textwrap.fill(meaning_line, 96, initial_indent="    ", subsequent_indent="    ")


def _fields(
    value: object, hint: object, path: str, meaning: str
) -> Iterator[tuple[str, object, object, str]]:
    """Dotted name, annotation, value and meaning of every field that words can change in a value.

    `meaning` is the meaning of the value itself.
    """
    hints = part_hints(value, hint)
    has_inner_fields = is_config(value) or any(is_config(part_of(value, name)) for name in hints)
    if path and (is_config(value) or not has_inner_fields):
        yield path, hint, value, meaning
    meanings = field_meanings(type(value)) if is_config(value) else None
    for name, part_hint in hints.items() if has_inner_fields else ():
        part = part_of(value, name)
        # An entry of a mapping or a tuple has no docstring of its own, so its class explains it.
        first_line = str(type(part).__doc__).partition("\n")[0]
        part_meaning = first_line if meanings is None else meanings.get(name, "")
        yield from _fields(part, part_hint, f"{path}.{name}" if path else name, part_meaning)


def field_meanings(kind: type) -> dict[str, str]:
    """The docstrings below a config class's fields, inherited ones included, by field name."""
    meanings: dict[str, str] = {}
    for base in reversed(inspect.getmro(kind)):
        meanings |= _own_field_meanings(base)
    return meanings


@functools.cache
def _own_field_meanings(kind: type) -> dict[str, str]:
    """The docstrings below the fields that a class itself declares; none without its source."""
    node = _top_level_classes(inspect.getmodule(kind)).get(kind.__name__)
    return {
        ast.unparse(field.target): " ".join(str(ast.literal_eval(after.value)).split())
        for field, after in pairwise([] if node is None else node.body)
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr)
    }


@functools.cache
def _top_level_classes(module: ModuleType | None) -> dict[str, ast.ClassDef]:
    """The classes of a module, by name, as its source has them; none without a source."""
    try:
        tree = ast.parse("" if module is None else inspect.getsource(module))
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

"""Replaces fields of a config by dotted name: `changed` in Python, `override` on a command line.

A field that holds a config may be given the name of a class. The class is then made with its own
defaults and the fields that are named below it: `--split GlobalTemporal --split.test_share 0.2`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar, cast, get_args, get_origin

from research.annotations import (
    default_of,
    field_hints,
    fits,
    fitted,
    is_config,
    members,
    near,
    part_hints,
    part_of,
    type_name,
)
from research.config import make
from research.config_index import config_classes, file_of, stored_name
from research.errors import InputError

Config = TypeVar("Config")
# New values by their dotted names, relative to the part of the config that is being changed.
Changes = Mapping[tuple[str, ...], object]
_NOTHING = object()
# In the order in which a text is tried as each of them.
_SCALARS = (bool, int, float, str)
_NO_CONFIGS = (*_SCALARS, type(None))


@dataclass(frozen=True)
class Words:
    """The words of a command line that are the value of a field."""

    texts: tuple[str, ...]


def changed(
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
    return cast(Config, _changed(config, paths, type(config), "", packages))


def override(
    config: Config,
    arguments: Sequence[str],
    *,
    program: str = "run",
    packages: Sequence[str] = (),
) -> Config:
    """The config with fields replaced by `--a.b 1`, `--a.b=1` or `a.b=1`; the last one counts.

    A list is written `a.b=[x,y]` or `--a.b x y`, None is written `None` or `null`. `--help` prints
    every field with its type, default and meaning, and ends the program. Raises `InputError` as
    `changed` does, and for a word that belongs to no field or a field without a value.
    """
    left = [word for word in arguments if word not in ("-h", "--help")]
    given = changed(config, _words_of(left), packages=packages)
    if len(left) < len(arguments):
        print("\n".join(_help_of(given, program, packages)))
        raise SystemExit(0)
    return given


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
            raise InputError(f"--{name} is given no value; write --{name} VALUE or {name}=VALUE")
    return {name: Words(texts) for name, texts in words.items()}


def _changed(
    value: object, changes: Changes, hint: object, path: str, packages: Sequence[str]
) -> object:
    """The value at `path`, annotated `hint`, with `changes` made in it.

    A value that is a class stands for a config of it that is yet to be made.
    """
    if () in changes:
        value = _chosen(changes[()], hint, path, packages)
    hints = field_hints(value) if isinstance(value, type) else part_hints(value, hint)
    parts: dict[str, dict[tuple[str, ...], object]] = {}
    for (name, *rest), new in ((names, new) for names, new in changes.items() if names):
        spelled = name if name in hints else name.replace("-", "_")
        parts.setdefault(spelled if spelled in hints else name, {})[tuple(rest)] = new
    made = {}
    for name, inner in parts.items():
        if isinstance(value, Mapping) and () in inner and name:
            hints = {**part_hints({name: None}, hint), **hints}
        if name not in hints:
            kind = value if isinstance(value, type) else type(value)
            owner = f"{path} ({kind.__name__})" if path else kind.__name__
            why = near(name, hints) if hints else _without_parts(value, hint, path, packages)
            raise InputError(f"{owner} has no {name!r}{why}")
        where = f"{path}.{name}" if path else name
        made[name] = _changed(_current(value, name), inner, hints[name], where, packages)
    return _with_parts(value, made) if made or isinstance(value, type) else value


def _without_parts(value: object, hint: object, path: str, packages: Sequence[str]) -> str:
    classes = ", ".join(_classes(hint, packages))
    give = f"; give it a class first, {path}=NAME with one of {classes}" if classes else ""
    return f"; it is {value!r:.200} and has no parts{give}"


def _current(value: object, name: str) -> object:
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
        return make(value, parts)
    if isinstance(value, Mapping):
        return {**value, **parts}
    if isinstance(value, tuple):
        return tuple(parts.get(str(place), part) for place, part in enumerate(value))
    present = {name: part_of(value, name) for name in part_hints(value, None)}
    return make(type(value), {**present, **parts})


def _chosen(new: object, hint: object, path: str, packages: Sequence[str]) -> object:
    """The value that `new` means for the annotation; the class if it names one."""
    if isinstance(new, Words):
        for member in sorted(members(hint), key=_order):
            found = _parsed(new.texts, member)
            if found is not _NOTHING:
                return fitted(found, hint, path)
        new = " ".join(new.texts)
    elif not isinstance(new, str) or fits(new, hint):
        return fitted(new, hint, path)
    classes = _classes(hint, packages)
    if new in classes:
        return classes[new]
    allowed = near(new, classes) if classes else f"; allowed: {type_name(hint)}"
    raise InputError(f"{path} is {new!r:.200}{allowed}")


def _classes(hint: object, packages: Sequence[str]) -> dict[str, type]:
    """The config classes that an annotation allows, by name and by stored name.

    Raises `InputError` if two of them have one name.
    """
    found = [
        kind
        for base in members(hint)
        if isinstance(base, type) and get_origin(base) is None and base not in _NO_CONFIGS
        for kind in config_classes(base, packages)
    ]
    classes: dict[str, type] = {}
    for kind in found:
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


def _parsed(texts: Sequence[str], hint: object) -> object:
    """The value that words mean as a type that is no union; `_NOTHING` where they do not fit it."""
    text = " ".join(texts)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        parts = [_parsed_any(each, inner[0]) for each in _listed(texts)]
        return _NOTHING if _NOTHING in parts else tuple(parts)
    if hint is type(None) and text in ("None", "null"):
        return None
    if get_origin(hint) is Literal:
        return next((each for each in get_args(hint) if str(each) == text), _NOTHING)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), _NOTHING)
    if hint in (int, float):
        return _number(text, whole=hint is int)
    return text if hint is str and len(texts) == 1 else _NOTHING


def _parsed_any(text: str, hint: object) -> object:
    found = (_parsed([text], each) for each in sorted(members(hint), key=_order))
    return next((each for each in found if each is not _NOTHING), _NOTHING)


def _listed(texts: Sequence[str]) -> list[str]:
    """The entries of a list: the words, or the text between commas where brackets enclose it."""
    text = " ".join(texts).strip()
    if text[:1] + text[-1:] not in ("[]", "()"):
        return list(texts)
    inner = text[1:-1].strip().removesuffix(",")
    return [each.strip().strip("'\"") for each in inner.split(",")] if inner else []


def _number(text: str, *, whole: bool) -> object:
    if re.fullmatch(r"[+-]?[0-9]{1,4000}", text) and whole:
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return _NOTHING
    if not math.isfinite(number):
        return _NOTHING
    if not whole:
        return number
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else _NOTHING


def _help_of(config: object, program: str, packages: Sequence[str]) -> Iterator[str]:
    """The lines of `--help`: every field with its type, its meaning and its value."""
    yield f"usage: {program} [--FIELD VALUE ...]   (--FIELD=VALUE and FIELD=VALUE mean the same)"
    for path, hint, value, meaning in _fields(config, type(config), "", ""):
        classes = [kind.__name__ for kind in dict.fromkeys(_classes(hint, packages).values())]
        none = ["None"] if fits(None, hint) else []
        shown = type(value).__name__ if is_config(value) else value
        told = f"{meaning} (default: {shown})".lstrip()
        yield f"\n--{path}  {' | '.join(classes + none) if classes else type_name(hint)}"
        yield textwrap.fill(told, 96, initial_indent="    ", subsequent_indent="    ")


def _fields(
    value: object, hint: object, path: str, meaning: str
) -> Iterator[tuple[str, object, object, str]]:
    """Dotted name, annotation, value and meaning of every field that words can change in a value.

    `meaning` is the meaning of the value itself.
    """
    hints = part_hints(value, hint)
    inside = is_config(value) or any(is_config(part_of(value, name)) for name in hints)
    if path and (is_config(value) or not inside):
        yield path, hint, value, meaning
    told = _meanings(type(value)) if is_config(value) else None
    for name, part_hint in hints.items() if inside else ():
        part = part_of(value, name)
        # An entry of a mapping or a tuple has no docstring of its own, so its class explains it.
        first_line = str(type(part).__doc__).partition("\n")[0]
        said = first_line if told is None else told.get(name, "")
        yield from _fields(part, part_hint, f"{path}.{name}" if path else name, said)


def _meanings(kind: type) -> dict[str, str]:
    """The docstrings below a config class's fields, inherited ones included, by field name."""
    told = {}
    for each in reversed(inspect.getmro(kind)):
        try:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, after in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                told[ast.unparse(field.target)] = " ".join(
                    str(ast.literal_eval(after.value)).split()
                )
    return told

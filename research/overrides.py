"""Fields of a config replaced by dotted name: `changed` from Python, `override` from words.

A field that holds a config can be given a class by its name, which is then made with its own
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

from research.config import (
    default_of,
    field_hints,
    fits,
    fitted,
    is_config,
    make,
    members,
    near,
    part_hints,
    part_of,
    type_name,
)
from research.config_index import config_classes, file_of, stored_name
from research.errors import InputError

Config = TypeVar("Config")
# New values by what is left of their dotted names.
Changes = Mapping[tuple[str, ...], object]
_NOTHING = object()
# In the order in which text is tried for them.
_SCALARS = (bool, int, float, str)
_NO_CONFIGS = (*_SCALARS, type(None))


@dataclass(frozen=True)
class Words:
    """What a command line gives for a field."""

    texts: tuple[str, ...]


def changed(
    config: Config, changes: Mapping[str, object], *, packages: Sequence[str] = ()
) -> Config:
    """The config with fields replaced by dotted name: `{"encoder.layers": 3, "stages.0.steps": 9}`.

    All are replaced at once, so values that fit only together need no order. A value may be a whole
    config, the name of a class where a config may stand (of ours or of `packages`), None where that
    may stand, or what a new key of a mapping holds; fields below it are changed in what it is then.
    `InputError` for a name that does not exist, a value of the wrong type, and what the configs
    themselves refuse.
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
    """The config with fields replaced by `--a.b 1`, `--a.b=1` or `a.b=1`; of two, the last counts.

    A list is `a.b=[x,y]` or `--a.b x y`, nothing is `None` or `null`. `--help` prints every field
    with its type, default and meaning, and ends the program. `InputError` as of `changed`.
    """
    left = [word for word in arguments if word not in ("-h", "--help")]
    given = changed(config, _words_of(left), packages=packages)
    if len(left) < len(arguments):
        print("\n".join(_help_of(given, program, packages)))
        raise SystemExit(0)
    return given


def _words_of(arguments: Sequence[str]) -> dict[str, Words]:
    """The words after each name."""
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
    """`changes` inside the value at `path`, annotated `hint`; a class stands for a new config."""
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
    """What stands at a part now; None where nothing does."""
    if isinstance(value, type):
        default = default_of(value, name)
        return None if default is dataclasses.MISSING else default
    if isinstance(value, Mapping):
        return value.get(name)
    return part_of(value, name)


def _with_parts(value: object, parts: Mapping[str, object]) -> object:
    """A config of the class, or a copy of the value, with some parts replaced, all at once."""
    if isinstance(value, type):
        return make(value, parts)
    if isinstance(value, Mapping):
        return {**value, **parts}
    if isinstance(value, tuple):
        return tuple(parts.get(str(place), part) for place, part in enumerate(value))
    present = {name: part_of(value, name) for name in part_hints(value, None)}
    return make(type(value), {**present, **parts})


def _chosen(new: object, hint: object, path: str, packages: Sequence[str]) -> object:
    """A new value of the annotated type; a class where one is named."""
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
    """By name, the classes of configs that may stand where an annotation is."""
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
    """Text is what comes closest: nothing, a word of a few, a number, and any text last."""
    return 1 + _SCALARS.index(hint) if isinstance(hint, type) and hint in _SCALARS else 0


def _parsed(texts: Sequence[str], hint: object) -> object:
    """What words mean as one annotated type; `_NOTHING` where they mean nothing."""
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
    """The entries of a list: its words, or what stands between brackets and commas."""
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
    """Every field with its type, its meaning and its value."""
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
    """Dotted name, annotation, value and meaning of all that words can change in a value."""
    hints = part_hints(value, hint)
    inside = is_config(value) or any(is_config(part_of(value, name)) for name in hints)
    if path and (is_config(value) or not inside):
        yield path, hint, value, meaning
    told = _meanings(type(value)) if is_config(value) else None
    for name, part_hint in hints.items() if inside else ():
        part = part_of(value, name)
        # An entry of a mapping or a tuple is explained by its class.
        first_line = str(type(part).__doc__).partition("\n")[0]
        said = first_line if told is None else told.get(name, "")
        yield from _fields(part, part_hint, f"{path}.{name}" if path else name, said)


def _meanings(kind: type) -> dict[str, str]:
    """The docstrings below a config class's fields."""
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

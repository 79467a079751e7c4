"""Finds the run or study that a command line names, as a dotted path or as `module:name`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import TypeVar

from research.annotations import suggest
from research.errors import InputError

Wanted = TypeVar("Wanted")


def found(target: str, kind: type[Wanted]) -> Wanted:
    """The object of class `kind` that a target names; a function is called to make it.

    A target is `module:name`, a dotted path, or a module, which stands for its entry named like the
    class in lower case (`study` for a `Study`). Raises `InputError` when it does not exist, needs
    arguments, or is or gives something else.
    """
    import_from_here()
    module_name, colon, attribute = target.partition(":")
    module = None
    if not colon:
        module = imported(target)
        attribute = kind.__name__.lower() if module else ""
        if module is None:
            module_name, _, attribute = target.rpartition(".")
    module = module or imported(module_name)
    if module is None:
        raise InputError(
            f"{target}: there is no module {module_name or target!r}; write "
            "package.module.function or module:function"
        )
    value = vars(module).get(attribute)
    if value is None:
        names = {name for name, each in vars(module).items() if makes(each, kind)}
        said = f"{target} is a module" if module.__name__ == target else ""
        said = said or f"{module.__name__} has no {attribute!r}"
        hint = suggest(attribute, names) if names else f"; nothing in it gives a {kind.__name__}"
        raise InputError(said + hint)
    if (needed := arguments_of(value)) and not isinstance(value, kind):
        raise InputError(
            f"{target} needs arguments ({', '.join(needed)}); name a function that needs none"
        )
    made = value() if callable(value) and not isinstance(value, kind) else value
    if not isinstance(made, kind):
        raise InputError(f"{target} gives a {type(made).__name__}, not a {kind.__name__}")
    return made


def import_from_here() -> None:
    """Make modules of the working folder importable.

    Python does this itself for `python -m`, but not for an installed script.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def package_of(target: str) -> str:
    """The top-level package or module of a target."""
    return target.partition(":")[0].partition(".")[0]


def makes(value: object, kind: type) -> bool:
    """Whether a value is a `kind`, or a function without arguments annotated to return one."""
    hints = getattr(value, "__annotations__", {})
    returns = hints.get("return") in (kind, kind.__name__) and not arguments_of(value)
    return isinstance(value, kind) or returns


def arguments_of(value: object) -> list[str]:
    """Names of a callable's arguments without default; empty for what is not callable."""
    if not callable(value):
        return []
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        # Some built-in types have no signature that Python can read.
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        each.name for each in parameters if each.default is each.empty and each.kind not in free
    ]


def imported(name: str) -> ModuleType | None:
    """The module `name`; None: no such module exists. Errors raised inside it are not caught."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise

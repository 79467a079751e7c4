"""What the words of a command line name: a run or a study, as a dotted path or `module:name`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from types import ModuleType
from typing import TypeVar

from research.config import near
from research.errors import InputError

Wanted = TypeVar("Wanted")


def found(target: str, kind: type[Wanted]) -> Wanted:
    """What a dotted path or `module:name` names, called if it is a function."""
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
        hint = near(attribute, names) if names else f"; nothing in it gives a {kind.__name__}"
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
    """Let modules of the working folder be imported, also where a script runs the program."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def package_of(target: str) -> str:
    """The package, or the single module, that a target stands in."""
    return target.partition(":")[0].partition(".")[0]


def makes(value: object, kind: type) -> bool:
    """Whether a module's entry is of a kind or a function annotated to return it."""
    hints = getattr(value, "__annotations__", {})
    returns = hints.get("return") in (kind, kind.__name__) and not arguments_of(value)
    return isinstance(value, kind) or returns


def arguments_of(value: object) -> list[str]:
    """Names of the arguments without which a function cannot be called."""
    if not callable(value):
        return []
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        # Some built-in types tell no signature.
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        each.name for each in parameters if each.default is each.empty and each.kind not in free
    ]


def imported(name: str) -> ModuleType | None:
    """A module, or None when no such module exists; errors inside it are its own."""
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise

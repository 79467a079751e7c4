"""Finds the run, study or tuning that a command line names: a dotted path or `module:name`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from research.annotations import suggest
from research.errors import InputError
from research.runs.config import RunConfig
from research.studies.known_targets import known_targets, near_targets
from research.studies.shadowing import hidden_message
from research.studies.study import Study
from research.studies.tuning import Tuning

Target = TypeVar("Target")
# The verb that does what a target is or returns.
VERB_OF: dict[type, str] = {RunConfig: "run", Study: "study", Tuning: "tune"}


def load_target(target: str, kind: type[Target]) -> Target:
    """The object of class `kind` that a target names; a function is called to make it.

    A target is `module:name`, a dotted path, or a module, which stands for its entry named like the
    class in lower case (`study` for a `Study`). Raises `InputError` when it does not exist, needs
    arguments, or is or gives something else, with what to type instead where that can be told.
    """
    import_from_working_folder()
    if os.path.isfile(target.partition(":")[0]):
        raise InputError(f"{target} is a file{_of_file(target, kind)}")
    module_name, colon, attribute = target.partition(":")
    module = None
    if not colon:
        module = import_if_exists(target)
        attribute = kind.__name__.lower() if module else ""
        if module is None:
            module_name, _, attribute = target.rpartition(".")
    module = module or import_if_exists(module_name)
    if module is None:
        advice = hidden_message(package_of(target)) or (
            "write package.module.function or module:function (`sixfold list` lists what there is)"
        )
        missing = f"{target}: there is no module {module_name or target!r}"
        raise InputError(f"{missing}{_meant(target, kind)}; {advice}")
    value = vars(module).get(attribute)
    if value is None:
        candidates = {name for name, member in vars(module).items() if is_or_returns(member, kind)}
        problem = f"{target} is a module" if module.__name__ == target else ""
        problem = problem or f"{module.__name__} has no {attribute!r}"
        nothing = f"; nothing in it is or returns a {kind.__name__}" * (not candidates)
        if problem.endswith("is a module"):
            candidates = {f"{target}.{name}" for name in candidates}
        names = suggest(attribute, candidates) if candidates else ""
        other = "" if candidates and module.__name__ != target else _other_verb(module, kind)
        raise InputError(f"{problem}{nothing}{other}{names}")
    if (needed := required_arguments(value)) and not isinstance(value, kind):
        raise InputError(
            f"{target} needs arguments ({', '.join(needed)}); name a function that needs none"
        )
    result = value() if callable(value) and not isinstance(value, kind) else value
    if not isinstance(result, kind):
        verb = VERB_OF.get(type(result))
        raise InputError(
            f"{target} is or returns a {type(result).__name__}, not a {kind.__name__}"
            + (f"; type `sixfold {verb} {target}`" if verb else "")
        )
    return result


def _meant(target: str, kind: type) -> str:
    """`; did you mean ...?` with what a target may have meant, and its verb; "" if nothing is."""
    near = near_targets(target, VERB_OF[kind])
    if not near:
        return ""
    return f"; did you mean {_command([known.target for known in near], near[0].verb)}?"


def _of_file(target: str, kind: type) -> str:
    """What to type in place of a file's path, which may be followed by a colon and a name."""
    file, colon, name = target.partition(":")
    relative = Path(os.path.relpath(file)).with_suffix("")
    module = ".".join(relative.parts)
    if not colon and any(known.module == module for known in known_targets()):
        return _meant(target, kind)
    if ".." in relative.parts:
        return f"; type its module's name in the folder {Path(file).resolve().parent}"
    return f"; type `sixfold {VERB_OF[kind]} {module}{colon}{name}`"


def _other_verb(module: ModuleType, kind: type) -> str:
    """What to type for a module that has something for the other verb; "" if it has nothing."""
    # What a module is for stands under the name of its class; other things may only be imported.
    kinds = sorted(VERB_OF, key=lambda each: each.__name__.lower() not in vars(module))
    for other, verb in ((each, VERB_OF[each]) for each in kinds):
        names = [name for name, member in vars(module).items() if is_or_returns(member, other)]
        if other is not kind and names:
            targets = [
                module.__name__ if name == other.__name__.lower() else f"{module.__name__}.{name}"
                for name in names
            ]
            return f"; type {_command(targets, verb)}"
    return ""


def _command(targets: list[str], verb: str) -> str:
    """The command of a verb for one of some targets, in words."""
    if len(targets) == 1:
        return f"`sixfold {verb} {targets[0]}`"
    return f"`sixfold {verb}` with {', '.join(targets[:-1])} or {targets[-1]}"


def import_from_working_folder() -> None:
    """Make modules of the working folder importable.

    Python does this itself for `python -m`, but not for an installed script.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def package_of(target: str) -> str:
    """The top-level package or module of a target."""
    return target.partition(":")[0].partition(".")[0]


def is_or_returns(value: object, kind: type) -> bool:
    """Whether a value is a `kind`, or a function without arguments annotated to return one."""
    hints = getattr(value, "__annotations__", {})
    returns = hints.get("return") in (kind, kind.__name__) and not required_arguments(value)
    return isinstance(value, kind) or returns


def required_arguments(value: object) -> list[str]:
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
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty and parameter.kind not in free
    ]


def import_if_exists(name: str) -> ModuleType | None:
    """The module `name`; None: no such module exists. Errors raised inside it are not caught.

    Raises `InputError` where it lacks a module of ours because another package hides ours.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        hidden = hidden_message((error.name or "").partition(".")[0])
        if hidden is not None:
            raise InputError(f"{name} cannot be imported: {error}; {hidden}") from error
        raise

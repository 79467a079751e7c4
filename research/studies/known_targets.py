"""The runs, studies and tunings that the verbs know by name, read from the source files.

Nothing is imported, so that `list`, and a message about a misspelled name, need not wait for torch.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from typing import Literal

from research.annotations import near_names
from research.config_index import parsed_sources

PACKAGES = ("baselines", "experiments")
TargetVerb = Literal["run", "study", "tune"]
_KINDS: dict[str, TargetVerb] = {"RunConfig": "run", "Study": "study", "Tuning": "tune"}
# The function for which a module stands, by verb: it is called like what it returns.
_DEFAULTS = {"study": "study", "tune": "tuning"}


@dataclass(frozen=True, kw_only=True)
class KnownTarget:
    """A function without arguments that returns a RunConfig, a Study or a Tuning."""

    verb: TargetVerb
    """The verb that does it."""
    module: str
    """The dotted name of its module."""
    name: str
    """The function's name."""
    about: str
    """The first line of its docstring."""
    module_about: str
    """The first line of its module's docstring."""

    @property
    def target(self) -> str:
        """What to type after the verb; a module alone stands for its `study` or `tuning`."""
        return (
            self.module if self.name == _DEFAULTS.get(self.verb) else f"{self.module}.{self.name}"
        )


@functools.cache
def known_targets() -> tuple[KnownTarget, ...]:
    """The runs, studies and tunings of this project, module by module."""
    return tuple(
        KnownTarget(
            verb=verb,
            module=module,
            name=node.name,
            about=_first_line(node),
            module_about=_first_line(tree),
        )
        for package in PACKAGES
        for module, _, tree in parsed_sources(package)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and (verb := _verb_of(node)) is not None
    )


def _verb_of(node: ast.FunctionDef) -> TargetVerb | None:
    """The verb for what a function returns; None: it needs arguments, or is for no verb."""
    arguments = node.args
    needed = len(arguments.posonlyargs + arguments.args) - len(arguments.defaults)
    if needed or None in arguments.kw_defaults or node.name.startswith("_") or not node.returns:
        return None
    return _KINDS.get(ast.unparse(node.returns).strip("'\""))


def _first_line(node: ast.FunctionDef | ast.Module) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def near_targets(target: str, verb: str) -> list[KnownTarget]:
    """The runs, studies or tunings that a target which does not exist may have meant.

    These are all of the named module or function, of the verb that was typed or else of another;
    where the name is misspelled, up to three that are like it, of the verb that was typed.
    """
    word = target.removesuffix(".py").replace("/", ".").replace(":", ".").strip(".").lower()
    known = sorted(known_targets(), key=lambda each: each.verb != verb)
    named = [each for each in known if word in _words_of(each)]
    if named:
        return [each for each in named if each.verb == named[0].verb]
    meant: dict[str, KnownTarget] = {}
    for each in known:
        if each.verb == verb:
            for name in _words_of(each):
                meant.setdefault(name, each)
    return list(dict.fromkeys(meant[name] for name in near_names(word, meant)))


def _words_of(known: KnownTarget) -> tuple[str, ...]:
    """What a user may type for a target: all of it, its module, or the last word of either."""
    return known.target, known.module, known.module.rpartition(".")[2], known.name

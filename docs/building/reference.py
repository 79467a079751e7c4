"""Writes the reference pages of the site from the code: functions, config fields, commands.

`pages.py` calls it while the site is built. What it prints is what docstrings say, so a sentence
that is wrong here is mended there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import get_args, get_origin

from research.annotations import default_of, field_hints, is_config, members, type_name
from research.cli.main import main
from research.cli.verbs import VERBS
from research.config_index import config_classes
from research.data.preparation.options import PrepareConfig
from research.overrides import field_meanings
from research.public import names
from research.runs.config import RunConfig
from research.studies.budget import Budget
from research.studies.space import TunedCell
from research.studies.study import Study
from research.studies.tuning import Tuning

# Functions in the order in which they are used; one that is missing here comes behind these.
ORDER = (
    "prepare", "load_corpus", "config", "change", "train", "load", "study", "tune", "report",
    "export", "import_hub", "one_factor", "grid", "levels", "with_stage", "without_stage",
    "without_objectives",
)  # fmt: skip
# The first word of an example that calls a method of each class.
CLASSES = {"Corpus": "corpus", "Run": "run", "StudyResult": "result", "Trial": "trial"}
SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:    .*\n|\n)+)", flags=re.MULTILINE)
ENTRY = re.compile(r"^(\S[^:\n]*): (.*(?:\n .*)*)", flags=re.MULTILINE)


def python_page() -> str:
    """The page of `import sixfold as sf`: its functions, its classes, and where configs stand."""
    parts = [
        "# Python interface",
        "`import sixfold as sf` loads nothing heavy before the first use of a name.",
    ]
    functions = public_functions()
    for name in functions:
        function = getattr(names, name)
        parts += [f"## sf.{name}", signature_of(f"sf.{name}", function), text_of(function)]
    for name, example in CLASSES.items():
        kind = getattr(names, name)
        parts += [f"## sf.{name}", text_of(kind)]
        for key, member in public_members(kind):
            parts.append(f"### {example}.{key}")
            if inspect.isfunction(member):
                parts.append(signature_of(f"{example}.{key}", member))
            parts.append(text_of(member))
    parts += ["## sf.InputError", text_of(names.InputError), "## Configs"]
    parts.append(
        "These are dataclasses, frozen and with named fields alone; [config fields](configs.md) "
        "has every field of each."
    )
    others = set(names.__all__) - {*functions, *CLASSES, "InputError"}
    parts.append(
        "\n".join(
            f"- [sf.{name}](configs.md#{name.lower()}): {first_line(getattr(names, name))}"
            for name in sorted(others, key=str.lower)
        )
    )
    parts.append("Beside these, the files of studies and tunings take from their modules:")
    parts.append(
        "\n".join(
            f"- [{kind.__name__}](configs.md#{kind.__name__.lower()}), "
            f"`from {kind.__module__} import {kind.__name__}`: {first_line(kind)}"
            for kind in (Study, Budget, Tuning, TunedCell)
        )
    )
    return "\n\n".join(parts) + "\n"


def public_functions() -> list[str]:
    """The names of all functions of `sf`, those of `ORDER` first."""
    functions = {name for name in names.__all__ if inspect.isfunction(getattr(names, name))}
    return [*ORDER, *sorted(functions.difference(ORDER))]


def public_members(kind: type) -> Iterator[tuple[str, object]]:
    """The methods and properties of a class that have a docstring, in the order of the source."""
    for key, member in vars(kind).items():
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        is_member = (
            inspect.isfunction(plain) or isinstance(plain, property) or hasattr(plain, "func")
        )
        if not key.startswith("_") and is_member and inspect.getdoc(plain):
            yield key, plain


def signature_of(name: str, function: object) -> str:
    """A function's name, arguments and result as a block of Python, an argument a line."""
    signature = inspect.signature(function)  # type: ignore[arg-type]
    lines = []
    kinds = [each.kind for each in signature.parameters.values()]
    for place, argument in enumerate(signature.parameters.values()):
        if argument.name in ("self", "cls"):
            continue
        if argument.kind is argument.KEYWORD_ONLY and argument.KEYWORD_ONLY not in kinds[:place]:
            lines.append("    *,")
        default = "" if argument.default is argument.empty else f" = {argument.default!r}"
        lines.append(f"    {argument.name}: {argument.annotation}{default},")
    inner = "\n" + "\n".join(lines) + "\n" if lines else ""
    return f"```python\n{name}({inner}) -> {signature.return_annotation}\n```"


def text_of(thing: object) -> str:
    """A docstring as Markdown: its sections of arguments, results and errors become lists."""
    text = inspect.getdoc(thing) or ""
    return SECTION.sub(_section, text + "\n").strip()


def _section(found: re.Match[str]) -> str:
    body = textwrap.dedent(found[2])
    if found[1] == "Returns":
        return f"**Returns** {' '.join(body.split())}\n\n"
    title = "Arguments" if found[1] == "Args" else found[1]
    entries = [f"- `{name}`: {' '.join(text.split())}" for name, text in ENTRY.findall(body)]
    return f"**{title}**\n\n" + "\n".join(entries) + "\n\n"


def first_line(thing: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def configs_page() -> str:
    """The page of every config class and its fields, in the order in which configs hold them."""
    parts = [
        "# Config fields",
        "A run is a `RunConfig`; each of its fields is a number, a text or another config of this "
        "page. On the command line a field has its dotted name (`--stages.0.optimizer.lr 0.002`), "
        "in Python `sf.change(config, {...})` takes the same names. Where a type names several "
        "classes, the class is given by its name: `--encoder.positions Rotary`.",
    ]
    kinds = config_kinds()
    for kind in kinds:
        parts += [f"## {kind.__name__}", text_of(kind)]
        hints = field_hints(kind)
        if not hints:
            parts.append("It has no fields.")
            continue
        meanings = field_meanings(kind)
        rows = [
            f"| `{name}` | {cell(meanings.get(name, ''))} "
            f"| {cell(linked(type_name(hint), kinds))} | {cell(default_text(kind, name))} |"
            for name, hint in hints.items()
        ]
        parts.append(
            "\n".join(["| field | meaning | type | default |", "|---|---|---|---|", *rows])
        )
    return "\n\n".join(parts) + "\n"


def config_kinds() -> list[type]:
    """Every config class that a run, a study, a tuning or the preparation of a corpus can hold."""
    found: list[type] = []
    for root in (RunConfig, Study, Tuning, PrepareConfig):
        add_kinds(root, found)
    return found


def add_kinds(root: type, found: list[type]) -> None:
    """Add a config class to those found, and after it every class that its fields can hold."""
    waiting: list[object] = [root]
    while waiting:
        hint = waiting.pop(0)
        if get_origin(hint) is not None or len(members(hint)) > 1:
            waiting[:0] = get_args(hint)
        elif isinstance(hint, type) and hint.__module__.partition(".")[0] in (
            "research",
            "baselines",
        ):
            kinds = config_classes(hint) if hint is not Study else [Study]
            new = [kind for kind in kinds if kind not in found]
            found += new
            waiting += [part for kind in new for part in field_hints(kind).values()]


def default_text(kind: type, name: str) -> str:
    """A field's default as code; a config by its name; empty where the field must be given."""
    default = default_of(kind, name)
    if default is dataclasses.MISSING:
        return "(needed)"
    if is_config(default):
        changed = [
            each
            for each in field_hints(type(default))
            if getattr(default, each) != default_of(type(default), each)
        ]
        inner = ", ".join(f"{each}={getattr(default, each)!r}" for each in changed)
        return f"`{type(default).__name__}({inner})`"
    return f"`{default!r}`"


def linked(text: str, kinds: list[type]) -> str:
    """The text of a type, in which each config class links to its fields."""
    known = {kind.__name__ for kind in kinds}
    return re.sub(
        r"\w+",
        lambda found: f"[{found[0]}](#{found[0].lower()})" if found[0] in known else found[0],
        text,
    )


def cell(text: str) -> str:
    """Text as the cell of a table, where a vertical line would end it."""
    inside_code = re.compile(r"(`[^`]*`)")
    parts = inside_code.split(text)
    return "".join(
        part if part.startswith("`") else part.replace("|", "&#124;").replace("*", "&#42;")
        for part in parts
    )


def command_line_page() -> str:
    """The page of the command line: what `--help` prints, verb by verb."""
    parts = [
        "# Command line",
        "`sixfold VERB` and `python -m research VERB` are the same program. Exit codes: 0 done, 1 "
        "failed, 2 wrong usage or bad input, 75 stopped and can be continued.",
        block(help_of([])),
    ]
    for verb in VERBS:
        parts += [f"## sixfold {verb}", block(help_of([verb]))]
        if verb == "prepare":
            parts += ["`sixfold prepare csv --help`, as that of every source, has all fields:"]
            parts += [block(help_of([verb, "csv"]))]
    return "\n\n".join(parts) + "\n"


def help_of(words: list[str]) -> str:
    """What a verb prints for `--help`, in 88 columns and without colours."""
    told = io.StringIO()
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR", "TERM")}
    os.environ.update(COLUMNS="88", NO_COLOR="1", TERM="dumb")
    try:
        with contextlib.redirect_stdout(told):
            main([*words, "--help"])
    finally:
        restore(before)
    # A percent sign is doubled for argparse, and an optional argument stands without brackets.
    lines = [line.rstrip() for line in told.getvalue().replace("%%", "%").split("\n")]
    return with_brackets("\n".join(lines).strip("\n"))


def with_brackets(text: str) -> str:
    """The text of a help whose usage has positional arguments in brackets where none is needed."""
    _, _, arguments = text.partition(" positional arguments\n")
    arguments, _, _ = arguments.partition("\n options\n")
    entry = re.search(r"^  ([A-Z_]+(?: \.\.\.)?) ", arguments, flags=re.MULTILINE)
    if entry is None or "(required)" in arguments:
        return text
    usage, rest = text.split("\n", 1)
    return usage.replace(f" {entry[1]}", f" [{entry[1]}]") + "\n" + rest


def restore(variables: Mapping[str, str | None]) -> None:
    """Give environment variables the values that they had."""
    for name, value in variables.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def block(text: str) -> str:
    """Text as a block that is shown as it is."""
    return f"```text\n{text}\n```"

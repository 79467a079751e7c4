"""Names and files that docstrings and comments quote in backticks exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT
from tests.support.source_code import SOURCES, module_of

TOPS = ("research", "baselines", "experiments")
MODULES = {
    path: importlib.import_module(module_of(path))
    for path in SOURCES
    if not path.stem.startswith("__")
}
CLASSES = {
    name: value
    for module in MODULES.values()
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__.startswith(TOPS)
}
FILE = r"[\w./-]+\.(py|md)"
# Files of other projects.
FOREIGN = {"paramfiles/rsc15_xe_shared_100_best.py"}


def quoted(text: str) -> Iterator[str]:
    """Dotted names, and Python and Markdown files, in backticks in docstrings and comments."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    pieces = [token.string for token in tokens if token.type == tokenize.COMMENT]
    expressions = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    pieces += [str(node.value) for node in expressions if isinstance(node, ast.Constant)]
    for name in re.findall(r"`+([^`]+?)`+", "\n".join(pieces)):
        if re.fullmatch(rf"{FILE}|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
            yield name


def has(holder: object, name: str) -> bool:
    """Whether an object has an attribute, or a class a field or an attribute of its instances."""
    kinds = [kind for kind in getattr(holder, "__mro__", ()) if kind.__module__.startswith(TOPS)]
    return hasattr(holder, name) or any(
        name in inspect.get_annotations(kind)
        or re.search(rf"\bself\.{name}\b", inspect.getsource(kind)) is not None
        for kind in kinds
    )


def exists(name: str, path: Path) -> bool:
    """Whether a file exists, or a name whose first part is a class or is known in the module."""
    if re.fullmatch(FILE, name):
        folders = (path.parent, ROOT / "research", ROOT)
        return name in FOREIGN or any((folder / name).is_file() for folder in folders)
    first, *rest = name.split(".")
    holder: object = vars(MODULES[path]).get(first, CLASSES.get(first))
    if first in TOPS:
        holder = importlib.import_module(first)
    for part in rest:
        # What a field holds is not followed.
        if holder is not None and not has(holder, part):
            return False
        holder = getattr(holder, part, None)
    return True


def test_a_name_that_nothing_has_is_found() -> None:
    path = ROOT / "research" / "packed.py"
    for name in ("Packed.items_T", "Head.padding_row", "data/loader.py", "research.runs.execute"):
        assert exists(name, path)
    for name in ("Packed.none", "Head.none", "data/none.py", "research.packed.none", "research.no"):
        assert not exists(name, path)


def test_what_docstrings_and_comments_quote_exists() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in quoted(path.read_text(encoding="utf-8"))
        if not exists(name, path)
    ]
    assert wrong == []

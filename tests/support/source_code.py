"""The project's own source: its files, what they import, and how long they are.

`python -m tests.support.source_code` prints the numbers of rooms, imports and lines;
`python -m tests.support.source_code --docstrings 30 --seed 13` draws docstrings at random, for a
reader who is shown them without the code.
"""

from __future__ import annotations

import argparse
import ast
import io
import random
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

SOURCES = sorted(
    path for top in ("research", "baselines", "experiments") for path in (ROOT / top).rglob("*.py")
)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            # `from research import config` names a module as well.
            if node.module in ("research", "baselines", "experiments"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lines_of_code(path: Path) -> tuple[int, dict[str, int]]:
    """Lines of code, without docstrings and comments, of a file and of each function in it."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    docstrings = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
        for line in range(token.start[0], token.end[0] + 1)
    } - docstrings
    functions = {
        f"{node.name} in line {node.lineno}": sum(
            node.lineno <= line <= (node.end_lineno or 0) for line in code
        )
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    return len(code), functions


def edges() -> set[tuple[str, str]]:
    """(importer, imported) of each pair of rooms, or modules at the root, of `research`."""
    found = set()
    for path in SOURCES:
        importer = module_of(path).split(".")
        if importer[0] != "research" or len(importer) == 1:
            continue
        for name in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
            imported = name.split(".")
            if imported[0] == "research" and len(imported) > 1 and imported[1] != importer[1]:
                found.add((importer[1], imported[1]))
    return found


def print_counts() -> None:
    """Print how many rooms, imports between them and lines of code there are."""
    package = ROOT / "research"
    rooms = {path.relative_to(package).parts[0] for path in package.glob("*/**/*.py")}
    loose = [path for path in package.glob("*.py") if path.name != "__init__.py"]
    product = {path: lines_of_code(path) for path in SOURCES}
    tests = [lines_of_code(path)[0] for path in (ROOT / "tests").rglob("*.py")]
    largest = max(product, key=lambda path: product[path][0])
    longest = max(
        (lines, f"{module_of(path)}.{name}")
        for path, (_, functions) in product.items()
        for name, lines in functions.items()
    )
    print(f"rooms of research            {len(rooms)}")
    print(f"modules at its root          {len(loose)}")
    print(f"imports between these        {len(edges())}")
    print(f"lines of code, product       {sum(total for total, _ in product.values()):,}")
    print(f"lines of code, tests         {sum(tests):,}")
    print(f"largest file                 {product[largest][0]} ({module_of(largest)})")
    print(f"largest function             {longest[0]} ({longest[1]})")


def documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """The name and node of each public class and function with a docstring, methods too."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            continue
        if not child.name.startswith("_") and ast.get_docstring(child):
            yield prefix + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from documented(child, f"{prefix}{child.name}.")


def print_docstrings(number: int, seed: int) -> None:
    """Print docstrings drawn at random, with their signatures and without the code."""
    found = [
        (module_of(path), name, node)
        for path in SOURCES
        if not module_of(path).startswith("experiments")
        for name, node in documented(ast.parse(path.read_text(encoding="utf-8")), "")
    ]
    for position, (module, name, node) in enumerate(random.Random(seed).sample(found, number), 1):
        node.body = [node.body[0]]
        print(f"### {position}. {module}: {name}\n\n{ast.unparse(node)}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docstrings", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.docstrings is None:
        print_counts()
    else:
        print_docstrings(arguments.docstrings, arguments.seed)

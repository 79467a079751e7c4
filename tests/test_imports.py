"""Imports point one way (design, section 2), and no config field is dead; read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from tests import ROOT
from tests.support.source_code import SOURCES, imports_of, lines_of_code, module_of

# The language of the house: modules at the root of `research`, which know nothing of its rooms.
ROOT_MODULES = {
    "packed", "rectangles", "randomness", "errors",
    "annotations", "config", "config_index", "overrides",
}  # fmt: skip
# Each room of `research` may import itself, the root's modules and what is listed, and no other.
BELOW: dict[str, set[str]] = {
    "root": set(),
    "storage": set(),
    "console": {"storage"},
    "data": {"storage"},
    "model": set(),
    "objectives": {"data", "model"},
    "distributed": {"storage", "model"},
    "checkpoint": {"storage"},
    "evaluation": {"storage", "data", "distributed"},
    "training": {
        "storage", "console", "data", "model", "objectives", "distributed", "checkpoint",
    },
    "tracking": {"storage", "checkpoint"},
    "runs": {
        "storage", "console", "data", "model", "objectives", "distributed", "checkpoint",
        "evaluation", "training", "tracking",
    },
    "studies": {
        "storage", "console", "data", "distributed", "evaluation", "training", "tracking", "runs",
    },
    "recommend": {
        "storage", "data", "model", "objectives", "checkpoint", "evaluation", "runs",
    },
    "report": {"storage", "console", "data", "evaluation", "tracking"},
    "interop": {
        "storage", "data", "model", "objectives", "distributed", "checkpoint", "evaluation",
        "training", "runs",
    },
    "public": {
        "storage", "data", "distributed", "evaluation", "runs", "studies", "report",
        "model", "objectives", "training", "recommend", "interop",
    },
    "cli": {
        "storage", "console", "data", "model", "objectives", "distributed", "checkpoint",
        "evaluation", "training", "tracking", "runs", "studies", "recommend", "report", "interop",
    },
    "__main__": {"cli"},
}  # fmt: skip


# Of all files in one place: a test that reads them takes a second otherwise.
TREES: dict[Path, ast.Module] = {}


@pytest.fixture(autouse=True, scope="module")
def _trees_go_with_the_tests() -> Iterator[None]:
    yield
    TREES.clear()


def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a file of ours."""
    if path not in TREES:
        TREES[path] = ast.parse(path.read_text(encoding="utf-8"))
    return TREES[path]


def part_of(module: str) -> str:
    """`root`, a room of `research`, or another package."""
    parts = module.split(".")
    if parts[0] != "research":
        return parts[0]
    name = parts[1] if len(parts) > 1 else "root"
    if name in ROOT_MODULES or name == "root":
        return "root"
    return name


def allowed(importer: str, imported: str) -> bool:
    top = imported.split(".")[0]
    if top == "tests":
        return False
    if top not in ("research", "baselines", "experiments"):
        return True
    if importer.startswith("experiments"):
        return True
    if importer.startswith("baselines"):
        return top != "experiments"
    if top != "research":
        return False
    ours, theirs = part_of(importer), part_of(imported)
    return theirs in {"root", ours} | BELOW[ours]


def test_the_rule_itself_refuses_what_it_should() -> None:
    assert allowed("research.objectives.cloze", "research.model.transformer")
    assert not allowed("research.model.transformer", "research.data.corpus")
    assert not allowed("research.evaluation.ranking", "research.training.loop")
    assert not allowed("research.packed", "research.data.corpus")
    assert not allowed("research.runs.config", "baselines.sasrec")
    assert not allowed("baselines.sasrec", "experiments.quickstart")
    assert not allowed("research.runs.config", "tests.support.synthetic")
    assert not allowed("research.training.loop", "research.runs.config")


def test_imports_point_one_way() -> None:
    wrong = [
        f"{module_of(path)} must not import {name}"
        for path in SOURCES
        for name in imports_of(tree_of(path))
        if not allowed(module_of(path), name)
    ]
    assert wrong == []


def test_no_drawer_for_odds_and_ends_exists() -> None:
    names = {path.stem for path in SOURCES}
    assert not names & {"utils", "util", "common", "helpers", "registry", "misc"}


def is_config(node: ast.ClassDef) -> bool:
    """A frozen dataclass with keyword-only fields: what a run can be told."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass":
            options = {each.arg: ast.unparse(each.value) for each in decorator.keywords}
            return options.get("frozen") == "True" and options.get("kw_only") == "True"
    return False


def trees() -> list[ast.Module]:
    return [tree_of(path) for path in SOURCES]


def config_fields() -> list[tuple[str, str]]:
    """(class, field) of every config; what a record holds may be for people alone."""
    records = ("research.storage.records", "research.storage.nonfinite_record")
    paths = [path for path in SOURCES if module_of(path) not in records]
    return [
        (node.name, field.target.id)
        for path in paths
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and is_config(node)
        for field in node.body
        if is_field(field) and isinstance(field.target, ast.Name)
    ]


def is_field(node: ast.stmt) -> TypeGuard[ast.AnnAssign]:
    """Whether a statement of a config class declares a field of it."""
    return isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation)


def names_read() -> set[str]:
    """Attributes read anywhere but in a `__post_init__`, which only checks them."""
    names = set()
    for tree in trees():
        checks = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == "__post_init__"
            for part in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                if id(node) not in checks:
                    names.add(node.attr)
    return names


def strings_of(tree: ast.AST) -> Iterator[str]:
    """Every string in a file that is no docstring."""
    told = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def test_nothing_is_hashed_drawn_or_decided_by_a_modules_name() -> None:
    ours = [path for path in SOURCES if not module_of(path).startswith("experiments")]
    modules = {module_of(path) for path in ours} - {"research", "baselines"}
    found, asking = set(), set()
    for path in ours:
        tree = tree_of(path)
        found |= {name for name in strings_of(tree) if name.partition(":")[0] in modules}
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        asking |= {module_of(path)} if names & {"__module__", "__qualname__"} else set()
    # One is the command that starts a process of its own.
    assert found <= {"research.report.wandb_client"}
    # Names in JSON alone come of where a class stands, and only of its package.
    assert asking == {"research.config_index"}


def test_every_field_of_every_config_is_read() -> None:
    found = config_fields()
    assert ("TransformerConfig", "norm_eps") in found
    assert ("MaskItems", "last_only_share") in found
    read = names_read()
    assert [f"{kind}.{name}" for kind, name in found if name not in read] == []


def test_every_field_of_every_config_is_explained() -> None:
    silent = []
    for tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or not is_config(node):
                continue
            for field, following in zip(node.body, [*node.body[1:], None]):
                told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if is_field(field) and not told:
                    silent.append(f"{node.name}.{ast.unparse(field.target)}")
    assert silent == []


def at_import(tree: ast.Module) -> Iterator[str]:
    """Modules that a file imports when it is imported itself: not in functions, not for types."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports_of(ast.Module([node], []))


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {module_of(path): path for path in SOURCES}
    imports = {
        name: {each for each in at_import(tree_of(path)) if each in names}
        for name, path in names.items()
    }
    while imports:
        free = [name for name, above in imports.items() if not above & imports.keys()]
        assert free, f"a circle among {', '.join(sorted(imports))}"
        for name in free:
            del imports[name]


def test_no_test_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        imported = set(imports_of(ast.parse(path.read_text(encoding="utf-8"))))
        tests = {name for name in imported if name.rpartition(".")[2].startswith("test_")}
        assert not tests, f"{path}: what tests share stands in tests/support"


def test_no_file_and_no_function_is_longer_than_one_reads_in_a_sitting() -> None:
    long = []
    for path in SOURCES:
        lines, functions = lines_of_code(path)
        long += [f"{path}: {lines} lines"] if lines > 300 else []
        long += [f"{path}, {name}: {count}" for name, count in functions.items() if count > 60]
    assert long == []

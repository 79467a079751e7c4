"""Where config classes stand: found by their own names in the sources of packages.

Sources are parsed and not imported, so looking for a name runs nobody's code; `config_class` then
imports the one module that defines it. `research/config.py` reads and writes by these names.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import sys
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from research.errors import InputError

# The packages whose classes are known by their names alone.
PACKAGES = ("research", "baselines")
_WRITTEN = "one is written as @dataclass(frozen=True, kw_only=True) at the top level of its file"
_THAWED = types.SimpleNamespace(frozen=False, eq=False)


@dataclass(frozen=True)
class Definition:
    """A class at the top level of a source file."""

    name: str
    module: str
    path: Path
    bases: tuple[str, ...]
    """Names of the classes that it inherits from, without their modules."""
    is_config: bool
    """Whether it is written as `@dataclass(frozen=True, kw_only=True)`."""


def definitions(package: str) -> Mapping[str, tuple[Definition, ...]]:
    """The classes that a package's sources define, by name; `InputError` when there is no package.

    A package is a folder of modules or a single file. A file that Python cannot parse has no
    classes, as it cannot be imported either.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise InputError(
            f"there is no package {package} to find classes in; run this from the folder that "
            "holds it, or put that folder on PYTHONPATH"
        )
    places = spec.submodule_search_locations or [spec.origin or ""]
    return _definitions(package, tuple(dict.fromkeys(places)))


@functools.cache
def _definitions(package: str, places: Sequence[str]) -> Mapping[str, tuple[Definition, ...]]:
    found: dict[str, tuple[Definition, ...]] = {}
    for module, path in (each for place in places for each in _sources(package, Path(place))):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                made = Definition(node.name, module, path, bases, _is_written_as_config(node))
                found[node.name] = (*found.get(node.name, ()), made)
    return found


def _sources(package: str, place: Path) -> Iterator[tuple[str, Path]]:
    """The modules of a package and their files."""
    if place.is_file():
        yield package, place
    for folder, inner, files in os.walk(place):
        # What cannot be part of a module's name is not part of the package: .venv, site-packages.
        inner[:] = sorted(name for name in inner if name.isidentifier())
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix == ".py":
                parts = path.relative_to(place).with_suffix("").parts
                yield ".".join((package, *(name for name in parts if name != "__init__"))), path


def _is_written_as_config(node: ast.ClassDef) -> bool:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and "dataclass" in ast.unparse(decorator.func):
            options = {each.arg: ast.unparse(each.value) for each in decorator.keywords}
            if options.get("frozen") == options.get("kw_only") == "True":
                return options.get("eq", "True") == "True"
    return False


def is_config_class(kind: object) -> bool:
    """Whether a class is a frozen dataclass, compared by value, with keyword-only fields."""
    if not isinstance(kind, type):
        return False
    options = vars(kind).get("__dataclass_params__", _THAWED)
    return options.frozen and options.eq and all(each.kw_only for each in dataclasses.fields(kind))


def config_class(name: str, package: str | None = None) -> type:
    """The config class of that name in a package; None: in one of ours.

    `InputError` for a name that stands there twice, or not at all.
    """
    packages = PACKAGES if package is None else (package,)
    known = [each for package in packages for each in definitions(package).get(name, ())]
    if not known:
        raise InputError(f"there is no such class in {' and '.join(packages)}")
    found = [each for each in known if each.is_config]
    if not found:
        raise InputError(f"{name} of {known[0].path} is not a config; {_WRITTEN}")
    if len(found) > 1:
        raise InputError(
            f"{found[0].path} and {found[1].path} both define a config class {name}; configs are "
            "known by their names, so rename one of them"
        )
    kind = _imported(found[0])
    if not isinstance(kind, type) or not is_config_class(kind):
        raise InputError(f"{name} of {found[0].path} is not a config; {_WRITTEN}")
    return kind


def _imported(found: Definition) -> object:
    """What a module calls by a definition's name, the module imported unless it is the script."""
    module = sys.modules.get("__main__")
    if module is None or _name_of(module) != found.module:
        try:
            module = importlib.import_module(found.module)
        except ImportError as error:
            raise InputError(f"{found.path} cannot be imported: {error}") from error
    return vars(module).get(found.name)


def config_classes(base: type, packages: Iterable[str] = ()) -> list[type]:
    """The config classes of ours and of `packages` that may stand where a `base` is wanted.

    They are in order of their names. `base` itself is one of them unless it is abstract.
    """
    known = [
        each
        for package in dict.fromkeys((*PACKAGES, *packages))
        for alike in definitions(package).values()
        for each in alike
    ]
    names = {base.__name__}
    while more := {each.name for each in known if names.intersection(each.bases)} - names:
        names |= more
    kinds = {base}
    for each in known:
        if each.is_config and each.name in names:
            kind = _imported(each)
            kinds |= {kind} if isinstance(kind, type) and issubclass(kind, base) else set()
    return sorted(
        (kind for kind in kinds if is_config_class(kind) and not inspect.isabstract(kind)),
        key=lambda kind: kind.__name__,
    )


def stored_name(kind: type) -> str:
    """What JSON calls a class: `Name` where it is one of ours, else `package:Name`."""
    package = package_of(kind)
    return kind.__name__ if package in PACKAGES else f"{package}:{kind.__name__}"


def package_of(kind: type) -> str:
    """The package that a class belongs to; a script is a package of its own."""
    module = sys.modules.get(kind.__module__)
    name = kind.__module__ if module is None else _name_of(module)
    return name.partition(".")[0]


def _name_of(module: types.ModuleType) -> str:
    """The name by which a module can be imported, also where it runs as the script."""
    if module.__name__ not in ("__main__", "__mp_main__"):
        return module.__name__
    spec, file = module.__spec__, vars(module).get("__file__")
    if spec is not None:
        return spec.name
    return module.__name__ if file is None else Path(file).stem


def file_of(kind: type) -> str:
    """The file that defines a class, for errors."""
    module = sys.modules.get(kind.__module__)
    file = None if module is None else vars(module).get("__file__")
    return str(file or kind.__module__)


def check_class(kind: type) -> None:
    """`InputError` for a class that its stored name would not lead back to."""
    package, where = package_of(kind), f"class {kind.__name__} of {file_of(kind)}"
    if not is_config_class(kind):
        raise InputError(f"{where} is not a config; {_WRITTEN}")
    if package == "__main__":
        raise InputError(f"{where} was typed into a session; put it into a file and import it")
    if kind.__qualname__ != kind.__name__:
        raise InputError(
            f"{where} stands inside a class or a function; move it to the top level of its file"
        )
    if package not in PACKAGES:
        ours = [each for name in PACKAGES for each in definitions(name).get(kind.__name__, ())]
        if ours:
            raise InputError(
                f"{where} has the name of a class in {ours[0].path}; configs are known by their "
                "names, so give yours another one"
            )
    found = config_class(kind.__name__, None if package in PACKAGES else package)
    if found is not kind:
        raise InputError(
            f"{where} is not the one that its name leads to, in {file_of(found)}; configs are "
            "known by their names, so give it another one"
        )

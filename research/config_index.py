"""Finds config classes by their own names in the source files of packages.

Source files are parsed, not imported, so the search runs no code; `config_class` then imports only
the module that defines the class. `research/config.py` reads and writes JSON with these names.
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

# Classes of these packages are stored by their own names, without the package.
PACKAGES = ("research", "baselines")
_REMEDY = "one is written as @dataclass(frozen=True, kw_only=True) at the top level of its file"
_NO_DATACLASS = types.SimpleNamespace(frozen=False, eq=False)


@dataclass(frozen=True)
class Definition:
    """A class at the top level of a source file."""

    name: str
    module: str
    path: Path
    bases: tuple[str, ...]
    """Names of its base classes, without their modules."""
    is_config: bool
    """Whether it is written as `@dataclass(frozen=True, kw_only=True)`."""


def definitions(package: str) -> Mapping[str, tuple[Definition, ...]]:
    """The classes at the top level of a package's source files, by name.

    A package is a folder of modules or a single file. A file that Python cannot parse counts as
    empty, as it cannot be imported either. Raises `InputError` if the package does not exist.
    """
    return _definitions(package, _locations(package))


def parsed_sources(package: str) -> Iterator[tuple[str, Path, ast.Module]]:
    """The dotted name, the file and the syntax tree of every module of a package.

    A file that Python cannot parse is left out, as it cannot be imported either. Raises
    `InputError` if the package does not exist.
    """
    return _parsed(package, _locations(package))


def _locations(package: str) -> tuple[str, ...]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise InputError(
            f"there is no package {package} to find classes in; run this from the folder that "
            "holds it, or put that folder on PYTHONPATH"
        )
    return tuple(dict.fromkeys(spec.submodule_search_locations or [spec.origin or ""]))


@functools.cache
def _definitions(package: str, locations: Sequence[str]) -> Mapping[str, tuple[Definition, ...]]:
    by_name: dict[str, tuple[Definition, ...]] = {}
    for module, path, tree in _parsed(package, locations):
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                definition = Definition(node.name, module, path, bases, _is_written_as_config(node))
                by_name[node.name] = (*by_name.get(node.name, ()), definition)
    return by_name


def _parsed(package: str, locations: Sequence[str]) -> Iterator[tuple[str, Path, ast.Module]]:
    for location in locations:
        for module, path in _sources(package, Path(location)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, RecursionError, MemoryError, OSError):
                continue
            yield module, path, tree


def _sources(package: str, location: Path) -> Iterator[tuple[str, Path]]:
    """The dotted name and the file of every module of a package at `location`, a folder or file."""
    if location.is_file():
        yield package, location
    for folder, subfolders, files in os.walk(location):
        # A folder whose name cannot be part of a module's is no part of the package, such as .venv.
        subfolders[:] = sorted(name for name in subfolders if name.isidentifier())
        for file in sorted(files):
            path = Path(folder, file)
            if path.suffix == ".py":
                parts = path.relative_to(location).with_suffix("").parts
                yield ".".join((package, *(name for name in parts if name != "__init__"))), path


def _is_written_as_config(node: ast.ClassDef) -> bool:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and "dataclass" in ast.unparse(decorator.func):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in decorator.keywords}
            if options.get("frozen") == options.get("kw_only") == "True":
                return options.get("eq", "True") == "True"
    return False


def is_config_class(kind: object) -> bool:
    """Whether a value is a frozen dataclass, compared by value, with keyword-only fields."""
    if not isinstance(kind, type):
        return False
    options = vars(kind).get("__dataclass_params__", _NO_DATACLASS)
    return (
        options.frozen and options.eq and all(field.kw_only for field in dataclasses.fields(kind))
    )


def config_class(name: str, package: str | None = None) -> type:
    """The config class called `name` in a package; None: in one of this project's packages.

    Raises `InputError` if there is no such class, if it is no config, if there are two, or if its
    module cannot be imported.
    """
    packages = PACKAGES if package is None else (package,)
    classes = [
        definition for package in packages for definition in definitions(package).get(name, ())
    ]
    if not classes:
        raise InputError(f"there is no such class in {' and '.join(packages)}")
    configs = [definition for definition in classes if definition.is_config]
    if not configs:
        raise InputError(f"{name} of {classes[0].path} is not a config; {_REMEDY}")
    if len(configs) > 1:
        raise InputError(
            f"{configs[0].path} and {configs[1].path} both define a config class {name}; configs "
            "are known by their names, so rename one of them"
        )
    kind = _import_definition(configs[0])
    if not isinstance(kind, type) or not is_config_class(kind):
        raise InputError(f"{name} of {configs[0].path} is not a config; {_REMEDY}")
    return kind


def _import_definition(definition: Definition) -> object:
    """The object that a definition's name has in its module; None: the module lacks it.

    The module is imported, unless it is the one that runs as the script, which must not run twice.
    Raises `InputError` if the import fails.
    """
    module = sys.modules.get("__main__")
    if module is None or _name_of(module) != definition.module:
        try:
            module = importlib.import_module(definition.module)
        except ImportError as error:
            raise InputError(f"{definition.path} cannot be imported: {error}") from error
    return vars(module).get(definition.name)


def config_classes(base: type, packages: Iterable[str] = ()) -> list[type]:
    """The config classes of this project and of `packages` that are `base` or inherit from it.

    Abstract classes are left out; the others are sorted by name. Raises `InputError` if a package
    does not exist or a module that defines one of the classes cannot be imported.
    """
    candidates = [
        definition
        for package in dict.fromkeys((*PACKAGES, *packages))
        for same_named in definitions(package).values()
        for definition in same_named
    ]
    names = {base.__name__}
    num_names = 0
    while len(names) > num_names:
        num_names = len(names)
        names |= {
            definition.name for definition in candidates if names.intersection(definition.bases)
        }
    kinds = {base}
    for definition in candidates:
        if definition.is_config and definition.name in names:
            kind = _import_definition(definition)
            kinds |= {kind} if isinstance(kind, type) and issubclass(kind, base) else set()
    return sorted(
        (kind for kind in kinds if is_config_class(kind) and not inspect.isabstract(kind)),
        key=lambda kind: kind.__name__,
    )


def stored_name(kind: type) -> str:
    """The name of a class in JSON: `Name` for a class of this project, else `package:Name`."""
    package = package_of(kind)
    return kind.__name__ if package in PACKAGES else f"{package}:{kind.__name__}"


def package_of(kind: type) -> str:
    """The top-level package of a class; for a class of a script, the name of the script."""
    module = sys.modules.get(kind.__module__)
    name = kind.__module__ if module is None else _name_of(module)
    return name.partition(".")[0]


def _name_of(module: types.ModuleType) -> str:
    """The name to import a module by, also for the module that runs as the script."""
    if module.__name__ not in ("__main__", "__mp_main__"):
        return module.__name__
    spec, file = module.__spec__, vars(module).get("__file__")
    if spec is not None:
        return spec.name
    return module.__name__ if file is None else Path(file).stem


def file_of(kind: type) -> str:
    """The file that defines a class, for errors; its module where no file is known."""
    module = sys.modules.get(kind.__module__)
    file = None if module is None else vars(module).get("__file__")
    return str(file or kind.__module__)


def check_class(kind: type) -> None:
    """Raise `InputError` for a class that cannot be found again by its stored name.

    Such a class is no config, was typed into a session, is nested in a class or function, or shares
    its name with another one.
    """
    package, where = package_of(kind), f"class {kind.__name__} of {file_of(kind)}"
    if not is_config_class(kind):
        raise InputError(f"{where} is not a config; {_REMEDY}")
    if package == "__main__":
        raise InputError(f"{where} was typed into a session; put it into a file and import it")
    if kind.__qualname__ != kind.__name__:
        raise InputError(
            f"{where} is defined inside a class or a function; move it to the top level of its file"
        )
    if package not in PACKAGES:
        same_named = [
            definition
            for name in PACKAGES
            for definition in definitions(name).get(kind.__name__, ())
        ]
        if same_named:
            raise InputError(
                f"{where} has the name of a class in {same_named[0].path}; configs are known by "
                "their names, so give yours another one"
            )
    other = config_class(kind.__name__, None if package in PACKAGES else package)
    if other is not kind:
        raise InputError(
            f"{where} is not the one that its name leads to, in {file_of(other)}; configs are "
            "known by their names, so give it another one"
        )

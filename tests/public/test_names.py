"""`import sixfold` is quick, offers what it lists, and is packed as setup.cfg says."""

from __future__ import annotations

import ast
import configparser
import doctest
import importlib
import inspect
import os
import subprocess
import sys

import pytest

import sixfold as sf
from research.public import names
from tests import ROOT


def run_python(code: str) -> str:
    """What the code prints in a process of its own, in which sixfold is installed by its path."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "research" / "public" / "facade")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_it_brings_in_neither_torch_nor_pandas() -> None:
    heavy = ("torch", "pandas", "numpy", "pyarrow", "accelerate", "wandb", "matplotlib")
    code = f"import sys, sixfold; print(*(name for name in {heavy} if name in sys.modules))"
    assert run_python(code) == ""


def test_every_name_is_the_project_s_own_object() -> None:
    assert set(dir(sf)) == set(names.__all__)
    assert sf.RunConfig is importlib.import_module("research.runs.config").RunConfig
    for name in names.__all__:
        value = getattr(sf, name)
        assert value is getattr(names, name)
        assert value.__module__.startswith("research.")
        assert inspect.getdoc(value)


@pytest.mark.long
def test_all_names_can_be_imported_at_once_without_w_and_b_and_what_draws() -> None:
    code = (
        "import sys; from sixfold import *; "
        "print(RunConfig.__name__, *{'wandb', 'matplotlib', 'jinja2'} & set(sys.modules))"
    )
    assert run_python(code) == "RunConfig"


def functions() -> dict[str, object]:
    """Every public function and method, by how an example calls it."""
    found = {f"sf.{name}": getattr(sf, name) for name in sf.__all__}
    for name, kind in (("run", sf.Run), ("study", sf.StudyResult), ("corpus", sf.Corpus)):
        found |= {f"{name}.{key}": value for key, value in vars(kind).items() if key[0] != "_"}
    return {name: value for name, value in found.items() if inspect.isfunction(value)}


def test_every_function_says_what_it_raises_or_returns() -> None:
    assert {"sf.prepare", "sf.train", "run.recommend", "study.table"} <= functions().keys()
    for name, function in functions().items():
        text = inspect.getdoc(function)
        assert text, name
        assert "InputError" in text or len(text) < 200, name


def test_what_the_examples_of_docstrings_call_exists() -> None:
    calls = 0
    for function in functions().values():
        for example in doctest.DocTestParser().get_examples(inspect.getdoc(function) or ""):
            for node in ast.walk(ast.parse(example.source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in functions():
                    called = functions()[ast.unparse(node.func)]
                    assert callable(called)
                    keywords = {word.arg for word in node.keywords if word.arg is not None}
                    assert keywords <= inspect.signature(called).parameters.keys()
                    calls += 1
    assert calls > 15


def test_an_unknown_name_suggests_a_near_one() -> None:
    with pytest.raises(
        AttributeError, match=r"no attribute 'trian'; did you mean train or Trial\?"
    ):
        sf.trian  # noqa: B018


def packages() -> list[str]:
    """Every package in the project's three folders, by its dotted name."""
    folders = [ROOT / top for top in ("research", "baselines", "experiments")]
    found = []
    while folders:
        folder = folders.pop()
        if (folder / "__init__.py").is_file():
            found.append(".".join(folder.relative_to(ROOT).parts))
            folders += [path for path in folder.iterdir() if path.is_dir()]
    return found


def test_setup_cfg_lists_every_package() -> None:
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    listed = [line for line in options["options"]["packages"].split("\n") if line]
    assert sorted(listed) == sorted(["sixfold", *packages()])


def test_the_facade_is_no_package_of_the_project_under_a_second_name() -> None:
    assert "research.public" in packages()
    assert not [name for name in packages() if "facade" in name]
    (folder,) = (ROOT / "research" / "public" / "facade").iterdir()
    modules = sorted(path.name for path in folder.iterdir() if path.is_file())
    assert (folder.name, modules) == ("sixfold", ["__init__.py", "py.typed"])

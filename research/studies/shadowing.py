"""Recognizes packages of the working folder that hide those of this project with the same names.

`research`, `baselines` and `experiments` are plain words, so a folder that somebody works in may
well have an `experiments` of its own. Python then imports that one, in place of ours.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import research

PACKAGES = ("research", "baselines", "experiments")


def hidden_packages() -> dict[str, Path]:
    """By the name of each of our packages that another one hides: the other's folder or file.

    Python looks into the working folder first, in `python -m research` and where `sixfold` looks
    for a run or a study. A folder without `__init__.py` hides nothing.
    """
    ours = Path(str(research.__file__)).parent.parent
    hiding = {}
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, [os.getcwd(), *sys.path])
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        found = origin.parent if origin.name == "__init__.py" else origin
        if found.resolve() != (ours / name).resolve():
            hiding[name] = found
    return hiding


def hidden_message(name: str) -> str | None:
    """What to do about another package or module that hides our package `name`; None: none does."""
    found = hidden_packages().get(name)
    if found is None:
        return None
    ours = Path(str(research.__file__)).parent.parent / name
    return (
        f"{found} hides Sixfold's own package `{name}` ({ours}); give it another name, or work in "
        "another folder, to have Sixfold's"
    )

"""What is fuzzed: valid inputs of every kind that is read, and the function that reads each.

A target's case alters one file or value of a valid input and reads it. `InputError` is the one
error that is documented; `allowed` says which other may come, and why stands beside it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from research.errors import InputError
from tests.fuzz.mutations import alteration_of

Case = Callable[[Random], object]


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that reads what a stranger may have written."""

    name: str
    milliseconds: float
    """What a case takes, roughly: of many cases, cheap targets have more."""
    begin: Callable[[Path], Case]
    """Writes valid inputs into an empty folder, once; gives the function that does a case."""
    allowed: tuple[type[BaseException], ...] = (InputError,)


def altering(folder: Path, read: Callable[[Random], object], names: Sequence[str] = ()) -> Case:
    """A case that alters one file of `folder` (of those named), reads, and puts it back.

    Now and then a file is missing, empty, a folder, a link that leads out, or a pipe without end.
    """
    chosen = names or [
        str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    valid = {name: (folder / name).read_bytes() for name in chosen}
    kinds = {name: name[name.rfind(".") :] for name in chosen}
    alike = {
        name: [valid[other] for other in chosen if kinds[other] == kinds[name]] for name in chosen
    }
    alter = {name: alteration_of(name) for name in chosen}

    def case(random: Random) -> object:
        name = random.choice(chosen)
        path = folder / name
        odd = random.random()
        if odd < 0.01:
            path.unlink()
            _something_else(path, random)
        elif odd < 0.015:
            path.write_bytes(b"")
        elif odd > 0.02:
            path.write_bytes(alter[name](random, valid[name], alike[name]))
        try:
            return read(random)
        finally:
            if odd < 0.01:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(
                    True
                )
            path.write_bytes(valid[name])

    return case


def _something_else(path: Path, random: Random) -> None:
    kind = random.randrange(5)
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(random.choice(("/etc/passwd", "/dev/zero", "..", path.name, "nowhere")))
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.write_bytes(b"")
        path.chmod(0)


def written(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """The folder, with these files in it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def all_targets() -> dict[str, Target]:
    """Every target by name."""
    from tests.fuzz import of_configs, of_data, of_folders, of_tunings, of_vectors

    modules = (of_data, of_configs, of_folders, of_tunings, of_vectors)
    found = [target for module in modules for target in module.TARGETS]
    assert len({each.name for each in found}) == len(found)
    return {each.name: each for each in found}


def some(case: Case, *others: Case) -> Case:
    """Any of several cases."""
    cases = (case, *others)
    return lambda random: random.choice(cases)(random)


__all__ = ["Case", "Target", "all_targets", "altering", "partial", "some", "written"]

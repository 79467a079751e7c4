"""A corpus and undisturbed runs on it, made once for all tests of faults."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.harness import Forked, Job, checkpoints, outcome, words
from tests.faults.small import write_corpus


@dataclass(frozen=True)
class Whole:
    """A run that nothing happened to."""

    run: Path
    outcome: dict[str, object]
    seconds: float
    """What it took, its start included."""


# Of an undisturbed run every checkpoint is kept, so that any moment of it can be made again.
ALL = ("--keep-checkpoints", "1000")
Undisturbed = Callable[[int], Whole]


@pytest.fixture(scope="session", autouse=True)
def forking() -> Iterator[None]:
    """Ends what the first job has begun."""
    yield
    Forked.close()


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes share; it holds the data root, `data`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "faults"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "data").exists():
            write_corpus(folder / "data")
    return folder


@pytest.fixture(scope="session")
def data(common: Path) -> Path:
    """The data root."""
    return common / "data"


@pytest.fixture(scope="session")
def undisturbed(common: Path, data: Path) -> Undisturbed:
    """The undisturbed run by its number of ranks."""

    def whole(ranks: int) -> Whole:
        run, seconds = common / f"whole-{ranks}", common / f"seconds-{ranks}"
        with (common / f"lock-{ranks}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not seconds.exists():
                begun = time.monotonic()
                with Job(words(run, data, *ALL), common / "said", ranks=ranks) as job:
                    assert job.result() == [0] * ranks, job.said
                seconds.write_text(str(time.monotonic() - begun))
        return Whole(run, outcome(run), float(seconds.read_text()))

    return whole


def copied(source: Path, target: Path) -> Path:
    """A run folder for one test."""
    shutil.copytree(source, target)
    return target


@pytest.fixture
def finished(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """A run that has ended, with the newest checkpoints alone."""
    run = copied(undisturbed(1).run, tmp_path / "finished")
    for stage in ("pretrain", "finetune"):
        for kind in ("step", "best"):
            for older in checkpoints(run, stage, kind)[:-1]:
                shutil.rmtree(older)
    return run


@pytest.fixture
def halfway(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """A run as a kill leaves it in its last stage, with some lines after its last checkpoint.

    It has two checkpoints; the newer one names a best one that the older does not know of.
    """
    run = copied(undisturbed(1).run, tmp_path / "halfway")
    (run / "summary.json").unlink()
    shutil.rmtree(run / "ranks")
    steps = checkpoints(run, "finetune")
    bests = [json.loads((each / "state.json").read_text())["best_step"] for each in steps]
    last = next(place for place in range(4, len(steps)) if bests[place] != bests[place - 1])
    kept = [*steps[last - 1 : last + 1]]
    kept += [steps[0].with_name(f"best_{bests[place]:08d}") for place in (last - 1, last)]
    for folder in (*steps, *checkpoints(run, "finetune", "best")):
        if folder not in kept:
            shutil.rmtree(folder)
    return run

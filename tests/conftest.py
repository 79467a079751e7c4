"""Settings of every test: one thread, no W&B account (setup.cfg has the others); tiny corpora."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from research.data.corpus import Corpus
from tests.support.synthetic import markov_histories, write_histories
from tests.support.trainer import Trainer

# Long runs share the machine, and one thread makes sums come out the same on every machine.
torch.set_num_threads(1)

# Who begins the tests in the background has them ignore Ctrl-C, and all that they begin.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Nor do tests know a developer's W&B key, server or sweep; processes that they start neither.
for name in [each for each in os.environ if each.startswith("WANDB_")]:
    del os.environ[name]
os.environ |= {"NETRC": os.devnull, "WANDB_CONFIG_DIR": os.devnull}
# Whoever forgets to name a server of the tests asks a closed port of this machine.
os.environ["WANDB_BASE_URL"] = "http://127.0.0.1:9"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without garbage collections, and let later ones leave out what is there.

    Modules and tests are a million objects, and every run ends in a garbage collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Let what tests write stay in the cache; processes that they start do flush it to the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> Corpus:
    """Four users, six items; item 5 is only ever held out, user 3 is too short to evaluate."""
    histories = [[0, 1, 2, 3, 4], [1, 2, 0, 5], [3, 4, 5], [0, 1]]
    return write_histories(tmp_path / "tiny", histories, num_items=6)


@pytest.fixture(scope="session")
def markov_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """300 users, 40 items; nine of ten items follow from the one before."""
    folder = tmp_path_factory.mktemp("corpora") / "markov"
    histories = markov_histories(num_users=300, num_items=40, length=12, seed=7)
    return write_histories(folder, histories, num_items=40)


@pytest.fixture(scope="session")
def loop_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """40 users, so that an epoch of `tests.support.trainer.STAGE` is three steps."""
    histories = markov_histories(num_users=40, num_items=20, length=9, seed=3)
    return write_histories(tmp_path_factory.mktemp("loop") / "corpus", histories, num_items=20)


@pytest.fixture(scope="session")
def accelerator() -> Accelerator:
    """Accelerate's view of one process on a CPU."""
    return Accelerator(cpu=True)


@pytest.fixture
def trainer(loop_corpus: Corpus, tmp_path: Path, accelerator: Accelerator) -> Trainer:
    """A stage that has not begun, in a run folder of its own."""
    return Trainer(loop_corpus, tmp_path / "run", accelerator)


@pytest.fixture
def wandb_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A W&B client that knows of nothing before and leaves nothing, by its environment.

    It keeps its files in `tmp_path`.
    """
    from research.tracking import wandb_mirror as mirror
    from research.tracking import wandb_run as run

    # One that a test without this fixture began would go on with the server that it knew.
    mirror.stop_client()
    monkeypatch.setattr(mirror, "PROCESS", mirror.Process())
    monkeypatch.setattr(run, "_claimed", {})
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield monkeypatch
    mirror.stop_client()

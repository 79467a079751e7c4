"""What stands beside a run: another process on its folder, and a W&B server in trouble."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from research.runs.execute import RunOptions, execute
from tests.faults.conftest import Undisturbed
from tests.faults.harness import Job, differences, lines_of, outcome, words
from tests.faults.small import two_stages
from tests.support.command_line import command_error
from tests.support.wandb_answers import Answer
from tests.support.wandb_run_folders import SHORT_TIMEOUTS
from tests.support.wandb_server import WandbServer

pytestmark = pytest.mark.long


def test_a_second_run_on_a_folder_is_refused_and_the_first_unharmed(
    undisturbed: Undisturbed, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with Job(words(run, data), tmp_path) as job:
        assert job.until(lambda: len(lines_of(run)) >= 2), job.said
        # So that it does not end meanwhile.
        job.send(signal.SIGSTOP)
        line = command_error(capsys, *words(run, data))
        assert f"another process is doing the run in {run}" in line
        job.send(signal.SIGCONT)
        assert job.result() == [0], job.said
    assert differences(outcome(run), undisturbed(1).outcome) == []


@dataclass(eq=False)
class Troubled(WandbServer):
    """Answers until it is told to answer no more."""

    silent: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Answer]:
        """As any server; from the trouble on nothing, until all is over."""
        if self.silent.is_set():
            self.over.wait(60)
        return super().answer(method, path, body)


@pytest.mark.parametrize("trouble", ["dies", "hangs"])
def test_a_server_in_trouble_changes_nothing(
    trouble: str,
    data: Path,
    undisturbed: Undisturbed,
    tmp_path: Path,
    wandb_client: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    server = Troubled()
    server.__enter__()
    for name, value in server.environment(tmp_path).items():
        wandb_client.setenv(name, value)

    def strike() -> None:
        while len(lines_of(run)) < 5 and not server.over.is_set():
            time.sleep(0.001)
        if trouble == "hangs":
            server.silent.set()
        else:
            server.__exit__(None, None, None)

    striking = threading.Thread(target=strike)
    striking.start()
    try:
        begun = time.monotonic()
        execute(two_stages(), run, options=RunOptions(data_root=str(data), tracking=SHORT_TIMEOUTS))
        # A run waits at most 1 s at its beginning and 2 s at its end, and for the client to go.
        assert time.monotonic() - begun < 30.0
    finally:
        server.over.set()
        striking.join(60)
        if trouble == "hangs":
            server.__exit__(None, None, None)
    assert f"sixfold sync {run}" in capfd.readouterr().out
    assert differences(outcome(run), undisturbed(1).outcome) == []

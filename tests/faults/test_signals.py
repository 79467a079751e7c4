"""SIGTERM and SIGINT: the step is finished and saved, exit code 75, and the command continues."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.harness import Job, checkpoints, differences, lines_of, outcome, unfinished, words
from tests.support.command_line import run_command

pytestmark = pytest.mark.long

STOPPED = 75


def steps_of(run: Path) -> list[int]:
    """The steps of a run's checkpoints, those of both stages."""
    found = [*checkpoints(run, "pretrain"), *checkpoints(run, "finetune")]
    return [int(path.name.partition("_")[2]) for path in found]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_continues_from_the_very_step(
    number: signal.Signals,
    undisturbed: Undisturbed,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Nothing but the signal makes it save within a stage that does not validate.
    run, rare = tmp_path / "run", ("--checkpoint-steps", "1000")
    with Job(words(run, data, *rare), tmp_path) as job:
        assert job.until(lambda: len(lines_of(run)) >= 3), job.said
        job.send(number)
        assert job.result() == [STOPPED], job.said
    assert len(steps_of(run)) == 1
    assert steps_of(run)[0] >= lines_of(run)[-1]["step"]
    assert unfinished(run) == []
    assert number.name in job.said
    assert "the same command continues" in job.said
    assert "Traceback" not in job.said
    assert run_command(capsys, *words(run, data)).code == 0
    assert differences(outcome(run), undisturbed(1).outcome) == []


@pytest.mark.parametrize("launcher", [False, True])
def test_ranks_stop_after_the_same_step(
    launcher: bool, undisturbed: Undisturbed, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with Job(words(run, data), tmp_path, ranks=2, launcher=launcher) as job:
        assert job.until(lambda: len(lines_of(run)) >= 3), job.said
        if launcher:
            job.send(signal.SIGTERM)
            assert job.result() == [1], job.said
        else:
            # One rank alone is told, and not the one that writes.
            job.send(signal.SIGTERM, 1)
            assert job.result() == [STOPPED, STOPPED], job.said
    assert not (run / "summary.json").exists()
    assert unfinished(run) == []
    assert "the same command continues" in job.said
    with Job(words(run, data), tmp_path, ranks=2) as job:
        assert job.result() == [0, 0], job.said
    assert differences(outcome(run), undisturbed(2).outcome) == []


def test_more_signals_while_a_stopping_run_saves_do_no_harm(
    undisturbed: Undisturbed, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with Job(words(run, data, "--checkpoint-steps", "1000"), tmp_path) as job:
        assert job.until(lambda: len(lines_of(run)) >= 3), job.said
        job.send(signal.SIGTERM)
        if job.until(lambda: bool(unfinished(run)), every=0.0001):
            # The save takes longer than a person waits before pressing Ctrl-C again.
            job.send(signal.SIGSTOP)
            time.sleep(2.5)
            job.send(signal.SIGTERM)
            job.send(signal.SIGINT)
            job.send(signal.SIGCONT)
        assert job.result() == [STOPPED], job.said
    assert "Traceback" not in job.said
    assert unfinished(run) == []
    assert run_command(capsys, *words(run, data)).code == 0
    assert differences(outcome(run), undisturbed(1).outcome) == []

"""One of two ranks is killed or stands still: the job ends. Both sleep: it goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.harness import Job, checkpoints, differences, outcome, words

pytestmark = pytest.mark.long


def test_a_job_whose_rank_was_killed_ends_and_continues(
    undisturbed: Undisturbed, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with Job(words(run, data), tmp_path, ranks=2) as job:
        assert job.until(lambda: bool(checkpoints(run, "pretrain"))), job.said
        job.send(signal.SIGKILL, 1)
        code, _ = job.result(30.0)
        assert code == 1, job.said
    assert "rank 1 of 2" in job.said_by(0)
    with Job(words(run, data), tmp_path, ranks=2) as job:
        assert job.result() == [0, 0], job.said
    assert differences(outcome(run), undisturbed(2).outcome) == []


@pytest.mark.parametrize("place", [0, 1])
def test_a_job_whose_rank_stands_still_ends_within_the_bound(
    place: int, undisturbed: Undisturbed, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with Job(words(run, data, "--stall-seconds", "4"), tmp_path, ranks=2) as job:
        assert job.until(lambda: bool(checkpoints(run, "pretrain"))), job.said
        begun = time.monotonic()
        job.send(signal.SIGSTOP, place)
        assert job.until(lambda: job.codes[1 - place] is not None, 30.0), job.said
        assert time.monotonic() - begun < 20.0
        assert job.codes[1 - place] == 1, job.said
        # Whoever lets the other one go on finds that it does not go on alone.
        job.send(signal.SIGCONT, place)
        assert job.result(30.0)[place] != 0, job.said
    # Rank 0 has the store by which the ranks talk, so it is missed in another way.
    missed = ("rank 0 at 127.0.0.1:", "rank 1 of 2 on ")[place]
    assert missed in job.said_by(1 - place)
    assert ("has not answered for 4 s", "has fallen silent")[place] in job.said_by(1 - place)


def test_a_job_that_slept_as_a_whole_goes_on(
    undisturbed: Undisturbed, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    # On a busy machine one of them may wake seconds after the other.
    with Job(words(run, data, "--stall-seconds", "6"), tmp_path, ranks=2) as job:
        assert job.until(lambda: bool(checkpoints(run, "pretrain"))), job.said
        # As on a machine that is suspended: nobody is late, all are.
        job.send(signal.SIGSTOP)
        time.sleep(8.0)
        job.send(signal.SIGCONT)
        assert job.result() == [0, 0], job.said
    assert differences(outcome(run), undisturbed(2).outcome) == []

"""A process that gets no more memory says so, and continues when it does."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.faults.harness import Job, checkpoints, lines_of, words


@pytest.mark.long
def test_a_run_without_memory_says_so_and_continues_where_there_is_more(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = words(run, data)
    command[1] = "tests.faults.small:large"
    with Job(command, tmp_path) as job:
        assert job.until(lambda: bool(lines_of(run))), job.said
        process = job.processes[0].pid
        status = Path(f"/proc/{process}/status").read_text().split()
        size = int(status[status.index("VmSize:") + 1]) * 1024
        # The second stage wants 250 MB at once.
        bound = size + (100 << 20)
        resource.prlimit(process, resource.RLIMIT_AS, (bound, bound))
        assert job.result() == [1], job.said
    assert "memory" in job.said
    assert "Traceback" not in job.said
    first = checkpoints(run, "pretrain")[-1]
    before = first.stat()
    with Job(command, tmp_path) as job:
        assert job.result() == [0], job.said
    # The stage that had ended was not trained again.
    assert first.stat() == before

"""docs/slurm.sh, with a SLURM of two lines: what is stopped in time is queued again."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.command_line import TINY, shop_corpus
from tests.support.launching import ROOT, free_port, launched

pytestmark = pytest.mark.long

# As many processes as asked for; the highest exit code, as SLURM's own.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
    echo "task $!."
done
for task in "${tasks[@]}"; do
    wait "$task"
    code=$?
    ((highest = code > highest ? code : highest))
done
exit "$highest"
"""
SCONTROL = """#!/bin/bash
[[ $1 == requeue ]] && echo "queued again: $2" || echo 127.0.0.1
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a SLURM, and the Python of the tests as `python`."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    (commands / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (commands / "python").chmod(0o755)
    return f"{commands}:{os.environ['PATH']}"


def test_a_job_that_is_stopped_is_queued_again_and_then_done(path: str, tmp_path: Path) -> None:
    corpus, out = shop_corpus(tmp_path / "shop"), tmp_path / "run"
    given = ["baselines.sasrec.full_softmax", f"corpus={corpus.folder}", "--out", str(out), *TINY]
    command = ["bash", str(ROOT / "docs" / "slurm.sh"), *given, "--quiet", "stages.0.epochs=20"]
    environment = {"PATH": path, "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "one"}
    # The script makes its port of this number.
    environment["SLURM_JOB_ID"] = str(20000 + free_port() % 20000)
    with launched([command], [environment], tmp_path / "first") as job:
        job.wait_until(lambda: (out / "metrics.jsonl").is_file(), "no step")
        for task in re.findall(r"task (\d+)\.", job.text):
            os.kill(int(task), signal.SIGTERM)
        codes, _ = job.wait_for_exit()
    assert codes == [75], job.text
    assert f"queued again: {environment['SLURM_JOB_ID']}" in job.text
    assert not (out / "summary.json").exists()
    with launched([command], [environment], tmp_path / "second") as job:
        codes, _ = job.wait_for_exit()
    assert codes == [0], job.text
    assert "queued again" not in job.text
    assert (out / "summary.json").exists()

"""A wall clock that jumps, and files from the future and the past: nothing asks for either."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.harness import Job, differences, outcome, words

pytestmark = pytest.mark.long

# For a module that Python imports before all others.
JUMPING = """
import random
import time

true, draws = time.time, random.Random(1)
time.time = lambda: true() + draws.uniform(-3e8, 3e8)
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_a_clock_that_jumps_changes_nothing(
    halfway: Path, data: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING)
    paths = sorted(halfway.rglob("*"))
    for place, path in enumerate(paths):
        moment = (0.0, 1e9, 4e9)[place % 3]
        os.utime(path, (moment, moment))
    jumping = {"PYTHONPATH": str(tmp_path / "clock")}
    with Job(words(halfway, data), tmp_path, environment=jumping) as job:
        assert job.result() == [0], job.said
    assert differences(outcome(halfway), undisturbed(1).outcome) == []

"""Imported weights score as RecBole itself does; runs where its release stands.

`python -m experiments.benchmark` installs it, into an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from experiments.benchmark.peers.environment import DONE, environment_folder
from research.packed import Packed
from research.runs.load import load_run
from tests import ROOT
from tests.evaluation.reference_ranks import scores_of_all
from tests.support.command_line import run_command
from tests.support.s3rec_files import HISTORIES, ITEMS, Capture, numbered_corpus, raw_ids

RECBOLE = environment_folder("recbole", Path.home() / ".cache" / "sixfold" / "peers")
LENGTH = 9
ROWS = [[4], [1, 3, 5], [0, 2, 4, 6, 8, 10, 1, 3]]


@pytest.mark.long
@pytest.mark.skipif(not (RECBOLE / DONE).is_file(), reason="RecBole's environment is not there")
@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec"])
def test_scores_are_recboles_own(capsys: Capture, tmp_path: Path, model: str) -> None:
    corpus = numbered_corpus(tmp_path / "numbered")
    # RecBole's BERT4Rec drops the oldest item of every history when it ranks.
    first = [[0]] if model == "BERT4Rec" else [[]]
    rows = [first[0] + row for row in ROWS]
    task = {
        "model": model,
        "length": LENGTH,
        "histories": raw_ids(HISTORIES),
        "rows": [[str(item) for item in row] for row in raw_ids(rows)],
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    done = subprocess.run(
        [RECBOLE / "bin" / "python", ROOT / "tests" / "interop" / "recbole_side.py", tmp_path],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = run_command(
        capsys, "import", tmp_path / "model.pt", "--format", f"recbole-{model.lower()}",
        "--corpus", corpus.folder, "--out", tmp_path / "run", "--heads", 2, "--item-ids",
        tmp_path / "ids.txt",
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")
    _, ranker = load_run(tmp_path / "run", "data")
    found = scores_of_all(ranker, Packed.from_lists(ROWS))
    theirs = json.loads((tmp_path / "scores.json").read_text())
    wanted = torch.tensor([[scores[str(item)] for item in ITEMS] for scores in theirs])
    # Float32 sums of a few dozen terms in another order.
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-5)

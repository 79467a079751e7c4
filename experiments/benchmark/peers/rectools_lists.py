"""RecTools recommends items to every user, and writes them as CSV, for `experiments.recommend_all`.

Runs in RecTools's environment:
python -m experiments.benchmark.peers.rectools_lists TASK.json K OUT.csv
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

from experiments.benchmark.measure import Clock
from experiments.benchmark.peers.rectools_side import dataset_of, model_of, trainer_of
from experiments.benchmark.peers.task import Histories, Task

# It imports nothing but torch.
from research.training.peak_memory import peak_bytes, restart_peak


def recommend(task: Task, histories: Histories, k: int, out: Path) -> dict[str, float]:
    """Recommend the k best unseen items to every user, by a model trained for one step."""
    model, dataset = model_of(task), dataset_of(histories, youngest=0)
    model._trainer = trainer_of(task, 1, None)
    model.fit(dataset)
    cpu = torch.device("cpu")
    restart_peak(cpu)
    before, clock = peak_bytes(cpu) or 0, Clock()
    lists = model.recommend(np.unique(histories.users), dataset, k=k, filter_viewed=True)
    ranked = clock.spent()
    lists.to_csv(out, index=False)
    whole = clock.spent()
    return {
        "rows": len(lists),
        "seconds": whole.seconds,
        "cpu": whole.cpu,
        "seconds ranking": ranked.seconds,
        "before": before,
        "peak": peak_bytes(cpu) or 0,
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    asked = Task.read(sys.argv[1])
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    measured = recommend(asked, Histories.read(asked.arrays), int(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps(measured), flush=True)

"""Saves a model of RecBole with random weights, and what it scores; runs in RecBole's environment.

python recbole_side.py FOLDER: reads FOLDER/task.json, writes FOLDER/model.pt (its state dict),
FOLDER/ids.txt (its item tokens by internal id) and FOLDER/scores.json.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")
folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
# RecBole reads the command line itself.
sys.argv = sys.argv[:1]

from recbole.config import Config  # type: ignore[import-not-found]  # noqa: E402
from recbole.data import create_dataset, data_preparation  # type: ignore  # noqa: E402
from recbole.data.interaction import Interaction  # type: ignore  # noqa: E402
from recbole.utils import get_model  # type: ignore  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(0)
lines = ["user_id:token\titem_id:token\ttimestamp:float"]
for user, items in enumerate(task["histories"]):
    lines += [f"u{user}\t{item}\t{place}" for place, item in enumerate(items)]
(folder / "corpus").mkdir()
(folder / "corpus" / "corpus.inter").write_text("\n".join(lines) + "\n")
config = Config(
    model=task["model"],
    dataset="corpus",
    config_dict={
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": task["length"],
        "hidden_size": 8,
        "inner_size": 12,
        "n_heads": 2,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    },
)
dataset = create_dataset(config)
training, _, _ = data_preparation(config, dataset)
model = get_model(task["model"])(config, training.dataset).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.4)
torch.save(model.state_dict(), folder / "model.pt")
(folder / "ids.txt").write_text("\n".join(dataset.field2id_token["item_id"]) + "\n")
scores = []
for row in task["rows"]:
    ids = [dataset.token2id("item_id", item) for item in row]
    sequence = torch.tensor([ids + [0] * (task["length"] - len(ids))])
    interaction = Interaction(
        {model.ITEM_SEQ: sequence, model.ITEM_SEQ_LEN: torch.tensor([len(ids)])}
    )
    with torch.no_grad():
        found = model.full_sort_predict(interaction)[0].tolist()
    scores.append({dataset.id2token("item_id", n): found[n] for n in range(1, len(found))})
(folder / "scores.json").write_text(json.dumps(scores))

"""RecBole trains or ranks a work, by its own data set, loaders and model.

RecBole 1.2.1 gives back the names that NumPy 1.24 lost (`numpy.float` and others) itself, by names
that NumPy 2 lost; so NumPy is pinned to 1.26, and nothing is patched here. The loop does what its
trainer's does in an epoch, as that one cannot stop within an epoch. Runs in RecBole's environment:
python -m experiments.benchmark.peers.recbole_side TASK.json
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.benchmark.measure import best_of_three, gflop_of, peak_megabytes
from experiments.benchmark.peers.task import (
    FULL_SOFTMAX,
    S3_LOSSES,
    Histories,
    StepTimer,
    Task,
    report,
    report_ranking,
)
from experiments.benchmark.results import Fact

MODELS = {"sasrec": "SASRec", "bert4rec": "BERT4Rec", "s3rec": "S3Rec"}
DATA = "corpus"


def write_atomic(histories: Histories, folder: Path, attributes: bool) -> None:
    """Write the corpus as RecBole's atomic files; a place in the data stands for the time."""
    (folder / DATA).mkdir()
    users, places = histories.users, np.arange(len(histories.items))
    places = places - histories.offsets[users]
    lines = [f"{user}\t{item}\t{time}" for user, item, time in zip(users, histories.items, places)]
    head = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / DATA / f"{DATA}.inter").write_text("\n".join([head, *lines]) + "\n")
    if not attributes:
        return
    starts = histories.attribute_offsets
    cells = [
        " ".join(map(str, histories.attribute_ids[starts[item] : starts[item + 1]]))
        for item in range(len(starts) - 1)
    ]
    lines = [f"{item}\t{cell}" for item, cell in enumerate(cells)]
    (folder / DATA / f"{DATA}.item").write_text(
        "\n".join(["item_id:token\tclass:token_seq", *lines]) + "\n"
    )


def config_of(task: Task, folder: Path) -> Any:
    """RecBole's config of a task; its data lie in `folder`."""
    from recbole.config import Config

    load = {"inter": ["user_id", "item_id", "timestamp"]}
    if task.model == "s3rec":
        load["item"] = ["item_id", "class"]
    values = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": load,
        "MAX_ITEM_LIST_LENGTH": task.length,
        "n_layers": task.layers,
        "n_heads": task.heads,
        "hidden_size": task.width,
        "inner_size": task.feed_forward,
        "hidden_dropout_prob": task.dropout,
        "attn_dropout_prob": task.dropout,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": task.batch,
        "learning_rate": task.lr,
        "mask_ratio": task.mask_rate,
        # No batch in which only the last item is masked.
        "ft_ratio": 0.0,
        "train_stage": "pretrain",
        "item_attribute": "class",
        "eval_args": {
            "split": {"LS": "valid_and_test"},
            "order": "TO",
            "group_by": "user",
            "mode": "full",
        },
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "use_gpu": task.device == "cuda",
        "show_progress": False,
        "state": "ERROR",
    }
    return Config(model=MODELS[task.model], dataset=DATA, config_dict=values)


def facts_of(task: Task, model: Any) -> dict[str, Fact]:
    """The facts of a model, read off the model."""
    layer = model.trm_encoder.layer[0]
    # Row 0 is padding, and S3Rec counts its mask as an item.
    extra = 2 if task.model == "s3rec" else 1
    return {
        "items": int(model.n_items) - extra,
        "length": int(model.max_seq_length),
        "width": int(model.hidden_size),
        "layers": len(model.trm_encoder.layer),
        "heads": int(layer.multi_head_attention.num_attention_heads),
        "feed-forward": int(layer.feed_forward.dense_1.out_features),
        "dropout": float(model.dropout.p),
        "attention dropout": float(layer.multi_head_attention.attn_dropout.p),
    }


def count_targets(task: Task, loader: Any, model: Any) -> int:
    """Targets of an epoch; for masked items those of one pass over RecBole's own batches."""
    if task.model == "bert4rec":
        return sum(int((batch[model.POS_ITEMS] > 0).sum()) for batch in loader)
    return len(loader.dataset)


def train(task: Task, config: Any, model: Any, loader: Any) -> None:
    """Train an epoch, or some steps of it, and report."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])
    timer, loss = StepTimer(task), torch.tensor(0.0)
    model.train()
    for interaction in loader:
        interaction = interaction.to(config["device"])
        optimizer.zero_grad()
        loss = model.calculate_loss(interaction)
        loss.backward()
        optimizer.step()
        timer.after(len(interaction))
        if timer.enough:
            break
    timer.stop()
    if not bool(loss.isfinite()):
        raise SystemExit(f"the loss is {float(loss)}")
    peak = peak_megabytes(task.device)
    batch = next(iter(loader)).to(config["device"])
    gflop = gflop_of(lambda: model.calculate_loss(batch).backward()) / len(batch)
    facts: dict[str, Fact] = {"rows": len(loader.dataset)}
    if task.model != "s3rec":
        facts["targets"] = count_targets(task, loader, model)
    facts |= {
        **facts_of(task, model),
        "rows a step": int(loader.step),
        "loss": S3_LOSSES if task.model == "s3rec" else FULL_SOFTMAX,
        "learning rate": float(optimizer.param_groups[0]["lr"]),
    }
    if task.mask_rate:
        facts["mask rate"] = float(model.mask_ratio)
    report(task, timer, peak=peak, gflop_a_row=gflop, facts=facts)


def rank(task: Task, config: Any, model: Any, loader: Any) -> None:
    """Evaluate an untrained model on every user's test item, by RecBole's own evaluation."""
    from recbole.trainer import Trainer

    trainer = Trainer(config, model)
    spent = best_of_three(lambda: trainer.evaluate(loader, load_best_model=False), task.device)
    facts = {
        "questions": len(loader.dataset),
        **facts_of(task, model),
        "seen items": "candidates",
        "answer": "metrics at 10",
    }
    report_ranking(task, spent, facts=facts)


def main(task: Task) -> None:
    """Build RecBole's data set and model, and do the task."""
    # RecBole reads the command line itself.
    sys.argv = sys.argv[:1]
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        write_atomic(Histories.read(task.arrays), Path(scratch), task.model == "s3rec")
        config = config_of(task, Path(scratch))
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model

        dataset = create_dataset(config)
        training, _, test = data_preparation(config, dataset)
        model = get_model(config["model"])(config, training.dataset).to(config["device"])
        if task.ranks:
            rank(task, config, model, test)
        else:
            train(task, config, model, training)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    asked = Task.read(sys.argv[1])
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    main(asked)

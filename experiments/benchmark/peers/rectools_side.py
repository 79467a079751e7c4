"""RecTools trains or ranks a work, by its own model, loader and Lightning trainer.

Runs in RecTools's environment: python -m experiments.benchmark.peers.rectools_side TASK.json
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import torch

from experiments.benchmark.measure import WARM_STEPS, best_of_three, gflop_of, peak_megabytes
from experiments.benchmark.peers.task import (
    FULL_SOFTMAX,
    ONE_NEGATIVE,
    Histories,
    StepTimer,
    Task,
    report,
    report_ranking,
)
from experiments.benchmark.results import Fact

LOSSES = {FULL_SOFTMAX: "softmax", ONE_NEGATIVE: "BCE"}
TOP = 10


def dataset_of(histories: Histories, youngest: int) -> Any:
    """RecTools's dataset of all interactions but the newest `youngest` of each user."""
    import pandas as pd
    from rectools.dataset import Dataset

    kept = histories.ages >= youngest
    frame = pd.DataFrame(
        {
            "user_id": histories.users[kept],
            "item_id": histories.items[kept],
            "weight": 1.0,
            # The order is all that is read of the times.
            "datetime": pd.to_datetime(np.flatnonzero(kept), unit="s"),
        }
    )
    return Dataset.construct(frame)


def model_of(task: Task) -> Any:
    """RecTools's model of a task, with the feed-forward part four times as wide as the model."""
    from rectools.models import BERT4RecModel, SASRecModel
    from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers

    assert task.feed_forward == 4 * task.width, "RecTools's PreLNTransformerLayers multiply by 4"
    bert = task.model == "bert4rec"
    options = {"mask_prob": task.mask_rate} if bert else {}
    return (BERT4RecModel if bert else SASRecModel)(
        n_blocks=task.layers,
        n_heads=task.heads,
        n_factors=task.width,
        dropout_rate=task.dropout,
        session_max_len=task.length,
        batch_size=task.batch,
        loss=LOSSES[task.loss],
        n_negatives=1,
        lr=task.lr,
        transformer_layers_type=PreLNTransformerLayers,
        recommend_torch_device=task.device,
        **options,
    )


def trainer_of(task: Task, steps: int | None, timer: StepTimer | None) -> Any:
    """A Lightning trainer of one epoch, or of its first `steps`, that tells `timer` of each."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.callbacks import LambdaCallback

    callbacks = []
    if timer is not None:
        # Lightning passes (trainer, module, outputs, batch, number), and (trainer, module).
        after = LambdaCallback(
            on_train_batch_end=lambda *values: timer.after(len(values[3]["x"])),
            on_train_epoch_end=lambda *values: timer.stop(),
        )
        callbacks.append(after)
    return Trainer(
        max_epochs=1,
        limit_train_batches=1.0 if steps is None else steps,
        accelerator="gpu" if task.device == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )


def facts_of(task: Task, model: Any) -> dict[str, Fact]:
    """The facts of a model that was fitted, read off the model."""
    layers = model.torch_model.transformer_layers.transformer_blocks
    block = layers[0]
    extra = model.data_preparator.n_item_extra_tokens
    return {
        "items": int(model.torch_model.item_model.n_items) - extra,
        "length": int(model.data_preparator.session_max_len),
        "width": int(block.multi_head_attn.embed_dim),
        "layers": len(layers),
        "heads": int(block.multi_head_attn.num_heads),
        "feed-forward": int(block.feed_forward.ff_linear_1.out_features),
        "dropout": float(block.dropout_1.p),
        "attention dropout": float(block.multi_head_attn.dropout),
    }


def count_targets(model: Any) -> tuple[int, int]:
    """(rows, targets) of one pass over RecTools's own training batches."""
    rows = targets = 0
    for batch in model.data_preparator.get_dataloader_train():
        rows += len(batch["x"])
        targets += int((batch["y"] != 0).sum())
    return rows, targets


def train(task: Task, histories: Histories) -> None:
    """Train an epoch, or some steps of it, and report."""
    model, timer = model_of(task), StepTimer(task)
    steps = None if task.steps is None else WARM_STEPS + task.steps
    model._trainer = trainer_of(task, steps, timer)
    model.fit(dataset_of(histories, youngest=2))
    peak = peak_megabytes(task.device)
    rows, targets = count_targets(model)
    module = model.lightning_model.to(task.device).train()
    batch = next(iter(model.data_preparator.get_dataloader_train()))
    batch = {name: values.to(task.device) for name, values in batch.items()}

    def backward() -> None:
        logits = module.get_batch_logits(batch)
        module.loss_calculator(logits, batch["y"], batch["yw"]).backward()

    facts = {
        "rows": rows,
        "targets": targets,
        **facts_of(task, model),
        "rows a step": int(model.data_preparator.batch_size),
        "loss": {name: loss for loss, name in LOSSES.items()}[module.loss],
        "learning rate": float(module.optimizer.param_groups[0]["lr"]),
    }
    if task.mask_rate:
        facts["mask rate"] = float(model.data_preparator.mask_prob)
    gflop = gflop_of(backward) / len(batch["x"])
    report(task, timer, peak=peak, gflop_a_row=gflop, facts=facts)


def rank(task: Task, histories: Histories) -> None:
    """Recommend the ten best unseen items to every user, by a model trained for one step."""
    model = model_of(task)
    # One step on whole histories, so that the model knows every item.
    model._trainer = trainer_of(task, 1, None)
    model.fit(dataset_of(histories, youngest=0))
    seen, users = dataset_of(histories, youngest=1), np.unique(histories.users)

    def recommend() -> None:
        model.recommend(users, seen, k=TOP, filter_viewed=True)

    spent = best_of_three(recommend, task.device)
    facts = {
        "questions": len(users),
        **facts_of(task, model),
        "seen items": "excluded",
        "answer": f"the {TOP} best items",
    }
    report_ranking(task, spent, facts=facts)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    asked = Task.read(sys.argv[1])
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    (rank if asked.ranks else train)(asked, Histories.read(asked.arrays))

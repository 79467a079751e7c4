"""RecTools's `fast_transformers`: its FlatSASRecNet and its vectorized sequences.

RecTools 0.19 has no trainer for this network; the loop here is the plainest one, with Adam. Runs in
RecTools's environment: python -m experiments.benchmark.peers.fast_side TASK.json
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from experiments.benchmark.measure import gflop_of, peak_megabytes
from experiments.benchmark.peers.task import FULL_SOFTMAX, Histories, StepTimer, Task, report
from experiments.benchmark.results import Fact


def sequences_of(task: Task, histories: Histories) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Inputs and targets, int64 [U, L] padded at the left by 0, and the number of items."""
    from rectools.fast_transformers import build_sequences

    kept = torch.from_numpy(histories.ages >= 2)
    users, items = torch.from_numpy(histories.users), torch.from_numpy(histories.items)
    x, y, known, _ = build_sequences(
        users[kept], items[kept], torch.arange(len(items))[kept], max_len=task.length
    )
    return x, y, len(known)


def facts_of(net: Any, loader: Any, optimizer: torch.optim.Optimizer) -> dict[str, Fact]:
    """The facts of an epoch, read off the network and the data."""
    block = net.blocks[0]
    return {
        "rows": len(loader.dataset),
        "targets": int((loader.dataset.y != 0).sum()),
        "items": int(net.n_items),
        "length": int(net.session_max_len),
        "width": int(block.mha.embed_dim),
        "layers": len(net.blocks),
        "heads": int(block.mha.num_heads),
        "feed-forward": int(block.ffn[0].out_features),
        "dropout": float(net.emb_dropout.p),
        "attention dropout": float(block.mha.dropout),
        "rows a step": int(loader.batch_size),
        "loss": FULL_SOFTMAX,
        "learning rate": float(optimizer.param_groups[0]["lr"]),
    }


def train(task: Task, histories: Histories) -> None:
    """Train an epoch, or some steps of it, and report."""
    from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset

    assert task.loss == FULL_SOFTMAX, "the network is run with one loss here"
    x, y, num_items = sequences_of(task, histories)
    net = FlatSASRecNet(
        num_items, task.width, task.layers, task.heads, task.length, task.dropout
    ).to(task.device)
    loader = DataLoader(SequenceBatchDataset(x, y), batch_size=task.batch, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=task.lr)

    def backward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        batch = {name: values.to(task.device) for name, values in batch.items()}
        logits = net(batch).flatten(0, 1)
        # The logits have no column for padding, whose target becomes -1.
        loss = cross_entropy(logits, batch["y"].flatten() - 1, ignore_index=-1)
        loss.backward()
        return loss.detach()

    timer, loss = StepTimer(task), torch.tensor(0.0)
    for batch in loader:
        optimizer.zero_grad()
        loss = backward(batch)
        optimizer.step()
        timer.after(len(batch["x"]))
        if timer.enough:
            break
    timer.stop()
    if not bool(loss.isfinite()):
        raise SystemExit(f"the loss is {float(loss)}")
    peak, batch = peak_megabytes(task.device), next(iter(loader))
    gflop = gflop_of(lambda: backward(batch)) / len(batch["x"])
    report(task, timer, peak=peak, gflop_a_row=gflop, facts=facts_of(net, loader, optimizer))


if __name__ == "__main__":
    asked = Task.read(sys.argv[1])
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    train(asked, Histories.read(asked.arrays))

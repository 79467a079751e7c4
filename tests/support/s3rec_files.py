"""A corpus whose raw ids are other numbers than its dense ids, and S3-Rec state dicts for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus, write_corpus
from research.data.names import Names
from research.packed import Packed
from research.runs.load import load_run
from tests.support.checkpoints import newest_checkpoint
from tests.support.command_line import CommandResult, command_error, run_command
from tests.support.synthetic import ends, flat

Capture = pytest.CaptureFixture[str]

# The raw id of each item, by dense id, and that of each attribute.
ITEMS = (7, 2, 12, 1, 9, 4, 11, 3, 8, 6, 10, 5)
ATTRIBUTES = (3, 1, 4, 2, 5)
NUM_ITEMS, NUM_ATTRIBUTES, WIDTH, LENGTH, LAYERS, HEADS, INNER = 12, 5, 8, 50, 2, 2, 32

# Histories of dense ids: with one item before the held-out ones, with an odd number, with 50 and
# more. Some held-out items are in the history before them; the last one is too short to evaluate.
HISTORIES = [
    [0, 5, 11],
    [3, 1, 4, 2, 9],
    [10, 8, 7, 0, 1, 6, 3],
    [(3 * place + place // 5) % 9 for place in range(50)] + [9],
    [(5 * place + place // 7) % 10 for place in range(59)] + [11],
    [2, 3, 2, 5, 2],
    [4, 6],
]
# Rows of dense ids: of one item, of an odd number, of as many as the encoder reads, of more.
ROWS = [[4], [1, 3, 5], HISTORIES[3][:50], HISTORIES[4], list(range(12))]


def numbered_corpus(
    folder: Path,
    *,
    items: tuple[int | str, ...] = ITEMS,
    attributes: tuple[int | str, ...] = ATTRIBUTES,
) -> Corpus:
    """Write a corpus of `HISTORIES` with these raw ids, without timestamps.

    Item v has the attributes v % A and v // 3 % A, where there are any. With fewer than 12 items
    the ids in the histories are taken modulo their number.
    """
    num_items, num_attributes = len(items), len(attributes)
    histories = [[item % num_items for item in history] for history in HISTORIES]
    described: list[list[int]] = [[] for _ in items]
    if num_attributes:
        pairs = [{item % num_attributes, item // 3 % num_attributes} for item in range(num_items)]
        described = [sorted(pair) for pair in pairs]
    return write_corpus(
        folder,
        name=folder.name,
        items=flat(histories).astype(np.int32),
        offsets=ends(histories),
        timestamps=None,
        attribute_offsets=ends(described),
        attribute_ids=flat(described).astype(np.int32),
        user_names=Names.from_strings([f"u{user}" for user in range(len(histories))]),
        item_names=Names.from_strings([str(item) for item in items]),
        attribute_names=Names.from_strings([str(each) for each in attributes]),
        item_titles=None,
        options={},
        report={},
    )


def published_state(seed: int = 0) -> dict[str, Tensor]:
    """Return random weights under the keys of the published code, norms and biases included."""
    draws = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws) * 0.4

    state = {
        "item_embeddings.weight": drawn(NUM_ITEMS + 2, WIDTH),
        "attribute_embeddings.weight": drawn(NUM_ATTRIBUTES + 1, WIDTH),
        "position_embeddings.weight": drawn(LENGTH, WIDTH),
        "LayerNorm.weight": 1 + drawn(WIDTH),
        "LayerNorm.bias": drawn(WIDTH),
    }
    for layer in range(LAYERS):
        stem = f"item_encoder.layer.{layer}"
        for name in ("query", "key", "value", "dense"):
            state[f"{stem}.attention.{name}.weight"] = drawn(WIDTH, WIDTH)
            state[f"{stem}.attention.{name}.bias"] = drawn(WIDTH)
        state[f"{stem}.attention.LayerNorm.weight"] = 1 + drawn(WIDTH)
        state[f"{stem}.attention.LayerNorm.bias"] = drawn(WIDTH)
        state[f"{stem}.intermediate.dense_1.weight"] = drawn(INNER, WIDTH)
        state[f"{stem}.intermediate.dense_1.bias"] = drawn(INNER)
        state[f"{stem}.intermediate.dense_2.weight"] = drawn(WIDTH, INNER)
        state[f"{stem}.intermediate.dense_2.bias"] = drawn(WIDTH)
        state[f"{stem}.intermediate.LayerNorm.weight"] = 1 + drawn(WIDTH)
        state[f"{stem}.intermediate.LayerNorm.bias"] = drawn(WIDTH)
    for name in ("aap", "mip", "map", "sp"):
        state[f"{name}_norm.weight"] = drawn(WIDTH, WIDTH)
        state[f"{name}_norm.bias"] = drawn(WIDTH)
    return state


def equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts have the same keys in the same order, and equal values."""
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def import_file(
    capsys: Capture, file: Path, corpus: Corpus, run: Path, *further: str
) -> CommandResult:
    """Import a file on a corpus as the run folder `run`, and return what the command printed."""
    answer = run_command(
        capsys, "import", file, "--format", "s3rec", "--corpus", corpus.folder, "--out", run,
        "--heads", HEADS, *further,
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, ""), answer.err
    return answer


def export_file(capsys: Capture, run: Path, file: Path) -> dict[str, Tensor]:
    """Export a run to a file, and return the state dict in it."""
    answer = run_command(capsys, "export", run, "--format", "s3rec", "--out", file)
    assert (answer.code, answer.err) == (0, ""), answer.err
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    return state


def raw_ids(rows: list[list[int]]) -> list[list[int]]:
    """Return rows of dense ids with raw ids instead."""
    return [[ITEMS[item] for item in row] for row in rows]


def encoder_states(run: Path, rows: list[list[int]], *, causal: bool) -> list[Tensor]:
    """Return the encoder's states [L, D] of each row's newest items, with a run's weights."""
    run_parts, _ = load_run(run, "data")
    stage = run_parts.config.stages[-1]
    model = run_parts.model(stage, run_parts.components()).eval()
    kept = "step" if stage.validation is None else "best"
    checkpoint.load_weights(newest_checkpoint(run / "stages" / stage.name, kept), model)
    packed = Packed.from_lists(rows).newest(LENGTH)
    with torch.no_grad():
        hidden_TD = model.encoder(packed, causal=causal)
    return list(hidden_TD.split(packed.lengths_S.tolist()))


def import_error(
    capsys: Capture, file: Path, corpus: Corpus | Path, heads: int = HEADS, *further: object
) -> str:
    """Import a file that must be refused, and return the message; no file may be left behind."""
    before = set(os.listdir(file.parent))
    folder = corpus.folder if isinstance(corpus, Corpus) else corpus
    said = command_error(
        capsys, "import", file, "--format", "s3rec", "--corpus", folder, "--out",
        file.parent / "run", "--heads", heads, *further,
    )  # fmt: skip
    assert set(os.listdir(file.parent)) == before
    return said.removeprefix("sixfold import: ").rstrip("\n")

"""A shop whose raw ids are numbers but not our ids, and state dicts in S3-Rec's format for it."""

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

# Our item 0 is their item 7, and so on; attributes likewise.
ITEMS = (7, 2, 12, 1, 9, 4, 11, 3, 8, 6, 10, 5)
ATTRIBUTES = (3, 1, 4, 2, 5)
NUM_ITEMS, NUM_ATTRIBUTES, WIDTH, LENGTH, LAYERS, HEADS, INNER = 12, 5, 8, 50, 2, 2, 32

# Histories of our ids: of one item before the held-out ones, odd, 50 and more; the last two hold
# a held-out item that they have seen, and the shortest is not evaluated.
HISTORIES = [
    [0, 5, 11],
    [3, 1, 4, 2, 9],
    [10, 8, 7, 0, 1, 6, 3],
    [(3 * place + place // 5) % 9 for place in range(50)] + [9],
    [(5 * place + place // 7) % 10 for place in range(59)] + [11],
    [2, 3, 2, 5, 2],
    [4, 6],
]
# Rows of our ids: one item, odd, full, longer than the encoder reads.
ROWS = [[4], [1, 3, 5], HISTORIES[3][:50], HISTORIES[4], list(range(12))]


def numbered_corpus(
    folder: Path,
    *,
    items: tuple[int | str, ...] = ITEMS,
    attributes: tuple[int | str, ...] = ATTRIBUTES,
) -> Corpus:
    """A corpus of `HISTORIES` whose raw names are these; item v has attributes v % A, v // 3 % A.

    Of fewer items than 12, items of the histories wrap around; without attributes there are none.
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
    """Random values under the published keys; norms and biases too, so that none hides."""
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
    """The same keys in the same order, and the same values to the last bit."""
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


def import_file(
    capsys: Capture, file: Path, corpus: Corpus, run: Path, *further: str
) -> CommandResult:
    answer = run_command(
        capsys, "import", file, "--format", "s3rec", "--corpus", corpus.folder, "--out", run,
        "--heads", HEADS, *further,
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, ""), answer.err
    return answer


def export_file(capsys: Capture, run: Path, file: Path) -> dict[str, Tensor]:
    answer = run_command(capsys, "export", run, "--format", "s3rec", "--out", file)
    assert (answer.code, answer.err) == (0, ""), answer.err
    state: dict[str, Tensor] = torch.load(file, weights_only=True)
    return state


def raw_ids(rows: list[list[int]]) -> list[list[int]]:
    """Rows of our ids as the other code names them."""
    return [[ITEMS[item] for item in row] for row in rows]


def encoder_states(run: Path, rows: list[list[int]], *, causal: bool) -> list[Tensor]:
    """[L, D] of each row's newest items, through the run as `load_run` opens it."""
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
    """The message; neither the run folder nor anything beside it is there afterwards."""
    before = set(os.listdir(file.parent))
    folder = corpus.folder if isinstance(corpus, Corpus) else corpus
    said = command_error(
        capsys, "import", file, "--format", "s3rec", "--corpus", folder, "--out",
        file.parent / "run", "--heads", heads, *further,
    )  # fmt: skip
    assert set(os.listdir(file.parent)) == before
    return said.removeprefix("sixfold import: ").rstrip("\n")

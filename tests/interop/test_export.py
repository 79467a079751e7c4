"""A run as an S3-Rec state dict: what was imported comes back, what was trained goes out whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from baselines import s3rec
from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from tests.support.checkpoints import newest_checkpoint
from tests.support.command_line import run_command, table_rows
from tests.support.s3rec_files import (
    ATTRIBUTES,
    ITEMS,
    NUM_ITEMS,
    ROWS,
    Capture,
    encoder_states,
    equal_states,
    export_file,
    import_file,
    numbered_corpus,
    published_state,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "corpus")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return published_state()


@pytest.fixture
def file(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, tmp_path / "s3rec.pt")
    return tmp_path / "s3rec.pt"


@pytest.fixture
def imported(capsys: Capture, file: Path, corpus: Corpus, tmp_path: Path) -> Path:
    import_file(capsys, file, corpus, tmp_path / "imported")
    return tmp_path / "imported"


def test_export_gives_back_what_was_imported_but_for_rows_0(
    capsys: Capture, state: dict[str, Tensor], imported: Path, tmp_path: Path
) -> None:
    expected = {key: tensor.clone() for key, tensor in state.items()}
    expected["item_embeddings.weight"][0] = 0
    expected["attribute_embeddings.weight"][0] = 0
    assert equal_states(export_file(capsys, imported, tmp_path / "back.pt"), expected)


def test_rows_0_that_were_kept_aside_come_back_too(
    capsys: Capture, file: Path, state: dict[str, Tensor], corpus: Corpus, tmp_path: Path
) -> None:
    answer = import_file(capsys, file, corpus, tmp_path / "run", "--keep-zero-rows")
    assert answer.out.count("row 0 kept aside in zero_rows.safetensors") == 2
    assert (tmp_path / "run" / "zero_rows.safetensors").is_file()
    stage = tmp_path / "run" / "stages" / "imported"
    assert equal_states(export_file(capsys, stage, tmp_path / "back.pt"), state)


def test_row_0_of_the_items_comes_back_from_where_it_competed(
    capsys: Capture, file: Path, state: dict[str, Tensor], corpus: Corpus, tmp_path: Path
) -> None:
    options = ("--special-classes", "--keep-zero-rows")
    answer = import_file(capsys, file, corpus, tmp_path / "run", *options)
    assert "row 0 objectives.next.head.padding_row" in answer.out
    assert answer.out.count("row 0 kept aside in zero_rows.safetensors") == 1
    assert equal_states(export_file(capsys, tmp_path / "run", tmp_path / "back.pt"), state)
    import_file(capsys, file, corpus, tmp_path / "without", "--special-classes")
    expected = {key: tensor.clone() for key, tensor in state.items()}
    expected["attribute_embeddings.weight"][0] = 0
    assert equal_states(export_file(capsys, tmp_path / "without", tmp_path / "b.pt"), expected)


def trained(corpus: Corpus, run: Path, accelerator: Accelerator, config: RunConfig) -> Path:
    """A run of this config with every stage of one epoch, on a tiny encoder."""
    stages = tuple(
        replace(stage, epochs=1, batches=BatchConfig(sequences_per_batch=4))
        for stage in config.stages
    )
    encoder = replace(config.encoder, width=8, feed_forward=16)
    evaluation = EvaluationConfig(metrics=("ndcg@10",))
    tiny = replace(
        config, corpus=str(corpus.folder), encoder=encoder, stages=stages, evaluation=evaluation
    )
    execute(tiny, run, options=RunOptions(quiet=True), accelerator=accelerator)
    return run


@pytest.fixture(scope="module")
def two_stages(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, accelerator: Accelerator
) -> Path:
    """S3-Rec as published: four heads, then the next item."""
    return trained(corpus, tmp_path_factory.mktemp("s3") / "run", accelerator, s3rec.published())


def test_a_trained_run_comes_back_with_the_same_states(
    capsys: Capture, two_stages: Path, corpus: Corpus, tmp_path: Path
) -> None:
    export_file(capsys, two_stages, tmp_path / "ours.pt")
    import_file(capsys, tmp_path / "ours.pt", corpus, tmp_path / "back")
    for causal in (True, False):
        before = encoder_states(two_stages, ROWS, causal=causal)
        after = encoder_states(tmp_path / "back", ROWS, causal=causal)
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_what_a_fine_tuned_stage_lacks_comes_from_the_stage_before(
    capsys: Capture, two_stages: Path, tmp_path: Path
) -> None:
    state = export_file(capsys, two_stages, tmp_path / "last.pt")
    first = checkpoint.read_weights(newest_checkpoint(two_stages / "stages" / "pretrain"))
    last = checkpoint.read_weights(newest_checkpoint(two_stages / "stages" / "finetune", "best"))
    assert "objectives.sp.dense.weight" not in last
    assert torch.equal(state["sp_norm.weight"], first["objectives.sp.dense.weight"])
    attributes = first["shared.attributes.attribute_table.weight"]
    assert torch.equal(state["attribute_embeddings.weight"][list(ATTRIBUTES)], attributes)
    items = last["encoder.item_table.weight"]
    assert torch.equal(state["item_embeddings.weight"][[*ITEMS, NUM_ITEMS + 1]], items)
    # As published both rows 0 are scored, so that such a run has them.
    assert torch.equal(state["attribute_embeddings.weight"][:1], first["shared.zero.row"])
    padding = last["objectives.next.head.padding_row"]
    assert torch.equal(state["item_embeddings.weight"][:1], padding)


def test_an_earlier_stage_is_exported_as_it_was(
    capsys: Capture, two_stages: Path, tmp_path: Path
) -> None:
    state = export_file(capsys, two_stages / "stages" / "pretrain", tmp_path / "first.pt")
    first = checkpoint.read_weights(newest_checkpoint(two_stages / "stages" / "pretrain"))
    positions = first["encoder.positions.weight"]
    assert torch.equal(state["position_embeddings.weight"], positions.flip(0))
    key = first["encoder.blocks.0.qkv.bias"][8:16]
    assert torch.equal(state["item_encoder.layer.0.attention.key.bias"], key)
    assert torch.equal(state["item_embeddings.weight"][0], torch.zeros(8))


def test_what_no_stage_has_is_zeros_and_said(
    capsys: Capture, corpus: Corpus, tmp_path: Path, accelerator: Accelerator
) -> None:
    published = s3rec.published_softmax()
    config = replace(published, stages=published.stages[1:])
    run = trained(corpus, tmp_path / "run", accelerator, config)
    answer = run_command(capsys, "export", run, "--format", "s3rec", "--out", tmp_path / "next.pt")
    rows = {row[0]: row[1:] for row in table_rows(answer.out)}
    lacking = f"zeros: no stage of {run} has objectives.mip.head.dense.bias"
    assert rows["mip_norm.bias"] == ["(8,)", lacking]
    assert rows["LayerNorm.bias"][1] == "encoder.embedding_norm.bias, of stage finetune"
    assert "\nheads: 2, which the file does not say; import asks for it\n" in answer.out
    state = torch.load(tmp_path / "next.pt", weights_only=True)
    zeros = [key for key, tensor in state.items() if not tensor.any()]
    heads = [f"{name}_norm.weight" for name in ("aap", "mip", "map", "sp")]
    assert {*heads, "attribute_embeddings.weight"} <= set(zeros)
    assert state["attribute_embeddings.weight"].shape == (6, 8)


def test_what_the_format_has_no_place_for_is_named(
    capsys: Capture, corpus: Corpus, tmp_path: Path, accelerator: Accelerator
) -> None:
    fine = s3rec.published_softmax().stages[1]
    cloze = ClozeConfig(head=HeadConfig(transform="linear"))
    objectives = {**fine.objectives, "cloze": cloze}
    stage = replace(fine, objectives=objectives, rank_by="next")
    config = replace(s3rec.published_softmax(), stages=(stage,))
    run = trained(corpus, tmp_path / "run", accelerator, config)
    answer = run_command(capsys, "export", run, "--format", "s3rec", "--out", tmp_path / "o.pt")
    said = "not written, as the format has no place for it: objectives.cloze.head.dense."
    assert said in answer.out

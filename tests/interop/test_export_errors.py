"""What `export` refuses: a run that S3-Rec's format cannot express, and files in the way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from torch import Tensor

from baselines import s3rec
from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.interop.s3rec_checks import expressible_encoder
from research.model.positions import LearnedPositions
from research.model.transformer_block import PreNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.storage.atomic import replacing
from research.training.config import StageConfig
from tests.support.checkpoints import newest_checkpoint
from tests.support.command_line import command_error, files_of
from tests.support.s3rec_files import ATTRIBUTES, ITEMS, numbered_corpus
from tests.support.tampering import replace_tensors

Capture = pytest.CaptureFixture[str]
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "corpus")


def run_of(config: RunConfig, corpus: Corpus, folder: Path, accelerator: Accelerator) -> Path:
    """A run of one step."""
    stages = tuple(replace(stage, steps=1, validation=None) for stage in config.stages)
    tiny = replace(config, corpus=str(corpus.folder), stages=stages)
    execute(tiny, folder, options=RunOptions(quiet=True), accelerator=accelerator)
    return folder


ENCODER = TransformerConfig(length=50, width=8, layers=2, heads=2, feed_forward=16)
STAGE = StageConfig(name="only", objectives={"next": NextItemConfig()})
PLAIN = RunConfig(encoder=ENCODER, stages=(STAGE,))


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, accelerator: Accelerator
) -> Path:
    return run_of(PLAIN, corpus, tmp_path_factory.mktemp("plain") / "run", accelerator)


def refused_export(capsys: Capture, run: Path, out: Path) -> str:
    """The message; nothing new lies where the file would."""
    before = files_of(out.parent)
    said = command_error(capsys, "export", run, "--format", "s3rec", "--out", out)
    assert files_of(out.parent) == before
    return said.removeprefix("sixfold export: ").rstrip("\n")


FIELDS: dict[str, tuple[TransformerConfig, str]] = {
    "block": (
        replace(ENCODER, block=PreNorm()),
        "PreNorm(); the s3rec format allows only PostNorm()",
    ),
    "activation": (
        replace(ENCODER, activation="relu"),
        "'relu'; the s3rec format allows only 'gelu'",
    ),
    "output_projection": (replace(ENCODER, output_projection=False), "False; the s3rec format al"),
    "embedding_norm": (
        replace(ENCODER, embedding_norm=False),
        "False; the s3rec format allows only Tr",
    ),
    "embedding_scale": (
        replace(ENCODER, embedding_scale=True),
        "True; the s3rec format allows only Fa",
    ),
    "final_norm": (replace(ENCODER, final_norm=True), "True; the s3rec format allows only False"),
    "norm_eps": (
        replace(ENCODER, norm_eps=1e-5),
        "1e-05; the s3rec format allows only 1e-12",
    ),
    "positions": (
        replace(ENCODER, positions=LearnedPositions(count_from="oldest")),
        "LearnedPositions(count_from='oldest'); the s3rec format allows only LearnedPosi",
    ),
    "segments": (replace(ENCODER, segments=2), "2; the s3rec format allows only 0"),
}
HEADS_OF_NEXT: dict[str, tuple[HeadConfig, str]] = {
    "table": (HeadConfig(table="own"), "'own'; the s3rec format allows only 'tied'"),
    "bias": (HeadConfig(bias=True), "True; the s3rec format allows only False"),
    "transform": (
        HeadConfig(transform="linear"),
        "'linear'; the s3rec format allows only 'none'",
    ),
    "similarity": (HeadConfig(similarity="cosine"), "'cosine'; the s3rec format allows only 'dot'"),
    "temperature": (HeadConfig(temperature=0.5), "0.5; the s3rec format allows only 1.0"),
}


@pytest.mark.parametrize(("field", "encoder", "said"), [(k, *v) for k, v in FIELDS.items()])
def test_an_encoder_that_the_format_cannot_express_is_refused(
    capsys: Capture,
    corpus: Corpus,
    tmp_path: Path,
    accelerator: Accelerator,
    field: str,
    encoder: TransformerConfig,
    said: str,
) -> None:
    config = replace(PLAIN, encoder=encoder)
    run = run_of(config, corpus, tmp_path / "run", accelerator)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert message.startswith(f"{run} (stage only): encoder.{field} is {said}")
    assert message.endswith("; export a run with the encoder and heads of baselines/s3rec.py")


@pytest.mark.parametrize(("field", "head", "said"), [(k, *v) for k, v in HEADS_OF_NEXT.items()])
def test_a_next_item_head_that_the_format_cannot_express_is_refused(
    capsys: Capture,
    corpus: Corpus,
    tmp_path: Path,
    accelerator: Accelerator,
    field: str,
    head: HeadConfig,
    said: str,
) -> None:
    stage = replace(STAGE, objectives={"mine": NextItemConfig(head=head)})
    run = run_of(replace(PLAIN, stages=(stage,)), corpus, tmp_path / "run", accelerator)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert message.startswith(f"{run} (stage only): objectives.mine.head.{field} is {said}")


def test_a_next_item_objective_that_reads_both_ways_is_refused(
    capsys: Capture, corpus: Corpus, tmp_path: Path, accelerator: Accelerator
) -> None:
    both_ways = NextItemConfig(predict="last", direction="bidirectional")
    stage = replace(STAGE, objectives={"mine": both_ways})
    run = run_of(replace(PLAIN, stages=(stage,)), corpus, tmp_path / "run", accelerator)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert "objectives.mine.direction is 'bidirectional'; the s3rec format allows only" in message


def test_a_run_on_a_corpus_of_other_names_is_not_exported(
    capsys: Capture, tmp_path: Path, accelerator: Accelerator
) -> None:
    other = numbered_corpus(tmp_path / "other", items=(*ITEMS[:-1], "B5"))
    run = run_of(PLAIN, other, tmp_path / "run", accelerator)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert "corpus other: item 'B5' is not a number from 1 to 12" in message
    other = numbered_corpus(tmp_path / "genres", attributes=(*ATTRIBUTES[:-1], "Drama"))
    run = run_of(PLAIN, other, tmp_path / "second", accelerator)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert "corpus genres: attribute 'Drama' is not a number from 1 to 5" in message


def test_a_file_is_not_overwritten(capsys: Capture, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "f.pt").write_text("mine")
    message = refused_export(capsys, plain, tmp_path / "f.pt")
    assert message == (
        f"{tmp_path / 'f.pt'} exists and is not overwritten; remove it or choose another name"
    )


def test_what_is_no_ended_stage_is_not_exported(
    capsys: Capture, plain: Path, tmp_path: Path
) -> None:
    out = tmp_path / "f.pt"
    assert refused_export(capsys, tmp_path / "none", out).startswith(
        f"RUN {tmp_path / 'none'} is neither an earlier run's folder nor one of its stages, "
    )
    message = refused_export(capsys, plain / "stages" / "pretrain", out)
    assert message.endswith("there is no such stage; its stages: only")
    gone = shutil.copytree(plain, tmp_path / "copy")
    shutil.rmtree(newest_checkpoint(gone / "stages" / "only"))
    assert "holds no checkpoint" in refused_export(capsys, gone, out)


def test_weights_of_another_size_than_the_config_are_not_exported(
    capsys: Capture, plain: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(plain, tmp_path / "copy")
    path = newest_checkpoint(run / "stages" / "only") / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    replace_tensors(path, {**weights, "encoder.item_table.weight": torch.ones(5, 8)})
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert message == (
        "encoder.item_table.weight has shape (5, 8), but the run's config says (13, 8); the "
        "checkpoint is of another run"
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"item_embeddings.weight": torch.ones(7)}, "{'item_embeddings.weight': (7,)}; allowed"),
        ({"sp_norm.weight": torch.ones(8)}, "rows 0 are {'sp_norm.weight': (8,)}; allowed: (8,)"),
        (None, "zero_rows.safetensors is damaged ("),
    ],
)
def test_rows_0_that_do_not_fit_are_not_exported(
    capsys: Capture, plain: Path, tmp_path: Path, rows: State | None, message: str
) -> None:
    run = shutil.copytree(plain, tmp_path / "copy")
    data = b"no tensors" if rows is None else safetensors.torch.save(rows)
    (run / "zero_rows.safetensors").write_bytes(data)
    assert message in refused_export(capsys, run, tmp_path / "f.pt")


def test_a_corpus_that_has_changed_is_noticed(
    capsys: Capture, tmp_path: Path, accelerator: Accelerator
) -> None:
    other = numbered_corpus(tmp_path / "other")
    run = run_of(PLAIN, other, tmp_path / "run", accelerator)
    shutil.rmtree(other.folder)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert message.startswith(f"RUN {run} (stage only) was trained on corpus ")
    numbered_corpus(tmp_path / "other", items=tuple(range(1, 13)))
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert "was trained on a corpus with fingerprint" in message


def test_a_counting_run_has_no_stage_to_export(
    capsys: Capture, corpus: Corpus, tmp_path: Path, accelerator: Accelerator
) -> None:
    run = run_of(popularity(), corpus, tmp_path / "run", accelerator)
    message = refused_export(capsys, run, tmp_path / "f.pt")
    assert message == f"RUN {run}: there is no such stage; it has no stages"


def test_a_file_that_is_written_halfway_is_not_there(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "f.pt") as file:
            file.write(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_the_published_recipe_can_be_expressed() -> None:
    for config in (s3rec.published(), s3rec.published_softmax(), s3rec.corrected()):
        for stage in config.stages:
            expressible_encoder(config.encoder, config.items, stage.objectives, "published")

"""Stages that hand over, and runs that start from earlier ones, with other vocabularies too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.data.splits import UserHoldout
from research.errors import InputError
from research.model.item_table import ItemTableConfig
from research.runs.execute import execute
from research.storage.records import RunSummary, read_record
from tests.support.checkpoints import newest_checkpoint
from tests.support.small_runs import (
    ENCODER,
    FINETUNE,
    ITEM_TABLE,
    PRETRAIN,
    QUIET,
    config_of,
    corpus_in,
    frozen,
    input_error_of,
    third_stage,
    weights_of,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("data") / "first")


@pytest.fixture(scope="module")
def earlier(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two stages."""
    run = tmp_path_factory.mktemp("runs") / "earlier"
    execute(config_of(corpus, PRETRAIN, FINETUNE), run, options=QUIET)
    return run


def test_a_run_starts_from_the_stage_that_is_named(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    config = config_of(corpus, frozen(FINETUNE), start_from=start)
    summary = execute(config, tmp_path, options=QUIET)
    given = weights_of(newest_checkpoint(earlier / "stages" / "pretrain"))
    after = weights_of(newest_checkpoint(tmp_path / "stages" / "finetune"))
    assert torch.equal(after[ITEM_TABLE], given[ITEM_TABLE])
    assert list(summary.carried["finetune"].moved) == [f"{earlier} (stage pretrain)"]


def test_a_run_starts_from_the_best_state_of_the_last_stage(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    config = config_of(corpus, frozen(FINETUNE), start_from=str(earlier))
    execute(config, tmp_path, options=QUIET)
    given = weights_of(newest_checkpoint(earlier / "stages" / "finetune", "best"))
    assert torch.equal(
        weights_of(newest_checkpoint(tmp_path / "stages" / "finetune"))[ITEM_TABLE],
        given[ITEM_TABLE],
    )


def test_fine_tuning_from_a_folder_is_fine_tuning_in_the_run(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    apart = execute(config_of(corpus, FINETUNE, start_from=start), tmp_path, options=QUIET)
    within = read_record(earlier, RunSummary)
    assert within is not None
    assert apart.test == within.test
    assert apart.best["finetune"] == within.best["finetune"]


def test_items_of_another_vocabulary_are_matched_by_raw_id(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    # Dense id 0 is called i9, 1 i8, ...; the last two are unknown to the earlier run.
    names = [f"i{9 - item}" for item in range(8)] + ["new1", "new2"]
    other = corpus_in(tmp_path / "second", names=names, seed=1)
    config = config_of(other, frozen(FINETUNE), start_from=str(earlier / "stages" / "pretrain"))
    summary = execute(config, tmp_path / "run", options=QUIET)
    given = weights_of(newest_checkpoint(earlier / "stages" / "pretrain"))[ITEM_TABLE]
    after = weights_of(newest_checkpoint(tmp_path / "run" / "stages" / "finetune"))[ITEM_TABLE]
    for item in range(8):
        assert torch.equal(after[item], given[9 - item])
    assert torch.equal(after[10], given[10])  # the mask
    scratch = execute(config_of(other, frozen(FINETUNE)), tmp_path / "scratch", options=QUIET)
    fresh = weights_of(newest_checkpoint(tmp_path / "scratch" / "stages" / "finetune"))[ITEM_TABLE]
    assert torch.equal(after[8:10], fresh[8:10])
    assert scratch.carried == {}
    rows = summary.carried["finetune"].rows
    assert rows["items"] == {"matched": 8, "fresh": 2, "left": 2}
    assert rows["attributes"] == {"matched": 3, "fresh": 0, "left": 0}


def test_a_run_is_recognised_by_the_weights_it_starts_from_not_by_their_folder(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(earlier, moved)
    config = config_of(corpus, FINETUNE, start_from=str(earlier))
    first = execute(config, tmp_path / "run", options=QUIET)
    again = execute(replace(config, start_from=str(moved)), tmp_path / "run", options=QUIET)
    assert again.hash == first.hash
    other = replace(config, start_from=str(earlier / "stages" / "pretrain"))
    with pytest.raises(InputError, match="holds another run"):
        execute(other, tmp_path / "run", options=QUIET)


def test_a_later_stage_gets_the_heads_of_the_run_that_was_started_from(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    config = config_of(corpus, FINETUNE, third_stage(), start_from=start)
    summary = execute(config, tmp_path, options=QUIET)
    given = weights_of(newest_checkpoint(earlier / "stages" / "pretrain"))
    tuned = weights_of(newest_checkpoint(tmp_path / "stages" / "finetune", "best"))
    after = weights_of(newest_checkpoint(tmp_path / "stages" / "third"))
    for name, tensor in after.items():
        assert torch.equal(tensor, (tuned if name in tuned else given)[name]), name
    assert list(summary.carried["third"].moved) == [
        f"{earlier} (stage pretrain)", "stage finetune",
    ]  # fmt: skip


def test_a_finished_run_is_known_when_its_start_is_gone(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    config = config_of(corpus, FINETUNE, start_from=str(copy))
    first = execute(config, tmp_path / "run", options=QUIET)
    shutil.rmtree(copy)
    assert execute(config, tmp_path / "run", options=QUIET) == first


def test_a_start_whose_weights_have_changed_is_told_apart(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    execute(config_of(corpus, FINETUNE, start_from=start), tmp_path / "run", options=QUIET)
    other = config_of(corpus, FINETUNE, start_from=str(earlier))
    message = (
        r"start_from is stage pretrain \(.* in the folder and stage finetune \(.* in this run; "
        "run hash"
    )
    with pytest.raises(InputError, match=message):
        execute(other, tmp_path / "run", options=QUIET)


def test_a_folder_that_is_no_run_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    message = input_error_of(
        config_of(corpus, FINETUNE, start_from=str(tmp_path / "none")), tmp_path
    )
    assert message == (
        f"start_from {tmp_path / 'none'} is neither an earlier run's folder nor one of its stages, "
        "RUN/stages/NAME: it does not exist"
    )


def test_an_unknown_stage_is_refused(corpus: Corpus, earlier: Path, tmp_path: Path) -> None:
    start = earlier / "stages" / "warmup"
    message = input_error_of(config_of(corpus, FINETUNE, start_from=str(start)), tmp_path)
    assert message == f"start_from {start}: there is no such stage; its stages: pretrain, finetune"


def test_a_stage_without_a_checkpoint_is_refused(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    shutil.rmtree(newest_checkpoint(copy / "stages" / "pretrain"))
    start = str(copy / "stages" / "pretrain")
    message = input_error_of(config_of(corpus, FINETUNE, start_from=start), tmp_path)
    assert "stages/pretrain holds no checkpoint" in message


def test_a_stage_that_has_not_ended_is_refused(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    path = newest_checkpoint(copy / "stages" / "pretrain") / "state.json"
    path.write_text(checkpoint.state_text({**json.loads(path.read_text()), "finished": False}))
    start = str(copy / "stages" / "pretrain")
    message = input_error_of(config_of(corpus, FINETUNE, start_from=start), tmp_path)
    # The run has ended: its command would see that, and continue nothing.
    assert message.endswith(
        f"the final checkpoint of stage pretrain is damaged; remove {copy / 'summary.json'}, and "
        "run the command of that run again"
    )
    (copy / "summary.json").unlink()
    message = input_error_of(config_of(corpus, FINETUNE, start_from=start), tmp_path)
    assert message.endswith("stage pretrain has not ended; run its own command to finish it first")


def test_another_encoder_is_refused_field_by_field(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    # Heads and activation show in no shape: the weights would be taken and mean something else.
    other = replace(ENCODER, heads=1, activation="relu", width=8)
    config = replace(config_of(corpus, FINETUNE, start_from=str(earlier)), encoder=other)
    assert input_error_of(config, tmp_path) == (
        f"start_from {earlier} (stage finetune) does not fit this run: encoder.width is 4 in that "
        "run and 8 in this one; encoder.heads is 2 in that run and 1 in this one; "
        "encoder.activation is 'gelu' in that run and 'relu' in this one; use the same encoder, "
        "or start from another run"
    )


def test_dropout_may_differ_from_the_earlier_run(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    config = config_of(corpus, frozen(FINETUNE), start_from=str(earlier))
    gentle = replace(
        config, encoder=replace(ENCODER, hidden_dropout=0.1, init_std=0.1),
        items=ItemTableConfig(dropout=0.1),
    )  # fmt: skip
    summary = execute(gentle, tmp_path, options=QUIET)
    assert summary.status == "finished"


def test_the_other_corpus_must_be_at_hand(corpus: Corpus, earlier: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    stored = json.loads((copy / "config.json").read_text())
    stored["config"]["corpus"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(stored))
    other = corpus_in(tmp_path / "second", seed=1)
    message = input_error_of(config_of(other, FINETUNE, start_from=str(copy)), tmp_path)
    assert f"was trained on corpus '{tmp_path / 'gone'}'" in message
    assert "whose item names are needed, but: " in message


def test_a_start_without_a_stage_is_refused(corpus: Corpus) -> None:
    from baselines.popularity import popularity

    with pytest.raises(InputError, match="start_from is set, but the run has no stage to start"):
        replace(popularity(), start_from="runs/a")


def test_another_split_of_the_same_corpus_would_leak_and_is_refused(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    config = config_of(corpus, FINETUNE, start_from=str(earlier), split=UserHoldout())
    message = input_error_of(config, tmp_path)
    assert (
        "was trained on LeaveOneOut(validation_in_training=False), but this run's split is"
        in message
    )
    assert message.endswith(
        "the weights were trained on items that it holds out; use the same split"
    )

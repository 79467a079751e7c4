"""Stages of one run hand over what both have, and the account of it is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from research.cli.show import show
from research.data.corpus import Corpus
from research.data.windows import LastItems
from research.distributed.collectives import Processes
from research.errors import InputError
from research.model.item_table import ItemTableConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.map import MAPConfig
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.runs.execute import execute
from research.storage.records import CoverageRecord
from research.studies.cost_estimate import estimate_cost
from research.training.pcgrad import PCGrad
from tests.support.checkpoints import newest_checkpoint
from tests.support.small_runs import (
    FINETUNE,
    PRETRAIN,
    QUIET,
    S3REC_OBJECTIVES,
    OneOfTwo,
    config_of,
    corpus_in,
    frozen,
    input_error_of,
    third_stage,
    weights_of,
)
from tests.support.synthetic import markov_histories, write_histories


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("data") / "first")


def test_the_encoder_moves_and_heads_are_accounted_for(corpus: Corpus, tmp_path: Path) -> None:
    summary = execute(config_of(corpus, PRETRAIN, frozen(FINETUNE)), tmp_path, options=QUIET)
    before = weights_of(newest_checkpoint(tmp_path / "stages" / "pretrain"))
    after = weights_of(newest_checkpoint(tmp_path / "stages" / "finetune"))
    assert all(torch.equal(after[name], before[name]) for name in after)
    carried = summary.carried["finetune"]
    assert set(carried.moved) == {"stage pretrain"}
    assert set(carried.moved["stage pretrain"]) == set(after)
    assert carried.new == ()
    assert set(carried.left) == {
        "shared.attributes.attribute_table.weight",
        *(f"objectives.{key}.head.dense.{part}" for key in ("aap", "mip", "map")
          for part in ("weight", "bias")),
        "objectives.sp.dense.weight", "objectives.sp.dense.bias",
    }  # fmt: skip


def test_a_head_that_both_stages_have_moves_as_well(corpus: Corpus, tmp_path: Path) -> None:
    both = replace(
        frozen(FINETUNE),
        objectives={"next": NextItemConfig(), "mip": MIPConfig(), "map": MAPConfig()},
    )
    execute(config_of(corpus, PRETRAIN, both), tmp_path, options=QUIET)
    before = weights_of(newest_checkpoint(tmp_path / "stages" / "pretrain"))
    after = weights_of(newest_checkpoint(tmp_path / "stages" / "finetune"))
    for name in ("objectives.mip.head.dense.weight", "shared.attributes.attribute_table.weight"):
        assert torch.equal(after[name], before[name])


def test_what_moves_is_printed(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(config_of(corpus, PRETRAIN, FINETUNE), tmp_path)
    out = capsys.readouterr().out
    assert "attributes: 3, of which 0 belong to no training item; 0 of 10 items (0.0%)" in out
    assert (
        "finetune: parameters moved: 16 from stage pretrain; none newly initialized; not used"
        in out
    )


def test_heads_come_from_the_nearest_stage_that_has_them(corpus: Corpus, tmp_path: Path) -> None:
    stages = (PRETRAIN, FINETUNE, third_stage())
    summary = execute(config_of(corpus, *stages), tmp_path, options=QUIET)
    pretrained = weights_of(newest_checkpoint(tmp_path / "stages" / "pretrain"))
    finetuned = weights_of(newest_checkpoint(tmp_path / "stages" / "finetune", "best"))
    after = weights_of(newest_checkpoint(tmp_path / "stages" / "third"))
    heads = {name for name in after if name not in finetuned}
    assert "shared.attributes.attribute_table.weight" in heads
    for name, tensor in after.items():
        assert torch.equal(tensor, (pretrained if name in heads else finetuned)[name]), name
    carried = summary.carried["third"]
    assert {source: set(names) for source, names in carried.moved.items()} == {
        "stage pretrain": heads,
        "stage finetune": set(finetuned),
    }
    assert carried.new == ()


def test_a_stage_that_never_ranks_need_not_say_by_what(corpus: Corpus, tmp_path: Path) -> None:
    both = {"next": NextItemConfig(), "cloze": ClozeConfig()}
    first = replace(PRETRAIN, objectives=both, windows=LastItems())
    summary = execute(config_of(corpus, first, FINETUNE), tmp_path, options=QUIET)
    assert summary.status == "finished"


def test_several_processes_that_would_move_touched_rows_are_refused_before_the_first_stage(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What two processes exchange, without a second one (with one: tests/distributed).
    monkeypatch.setattr(Processes, "from_main", lambda self, make: make())
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value] * self.world)
    touching = replace(FINETUNE, optimizer=replace(FINETUNE.optimizer, item_rows="touched"))
    config = config_of(corpus, PRETRAIN, touching)
    expected = (
        "stage finetune: optimizer.item_rows is 'touched', which is for one process, but there "
        "are 2; use 'all', or one process"
    )
    assert input_error_of(config, tmp_path, OneOfTwo(cpu=True)) == expected
    # A study's trial.
    with pytest.raises(InputError, match=r"stage finetune: .*, but there are 2"):
        estimate_cost(config, "data", OneOfTwo(cpu=True))


def test_dropout_of_the_item_table_is_of_all_rows_so_touched_rows_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    stage = replace(FINETUNE, optimizer=replace(FINETUNE.optimizer, item_rows="touched"))
    config = replace(config_of(corpus, stage), items=ItemTableConfig(dropout=0.2))
    message = input_error_of(config, tmp_path)
    assert message == (
        "stage finetune: optimizer.item_rows is 'touched', but items.dropout is 0.2: dropout of "
        "the whole table has gradients of all rows; use 'all', or set items.dropout to 0"
    )


def test_merged_gradients_are_dense_so_touched_rows_are_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    touching = replace(PRETRAIN.optimizer, item_rows="touched")
    stage = replace(PRETRAIN, combination=PCGrad(), optimizer=touching)
    message = input_error_of(config_of(corpus, stage, FINETUNE), tmp_path)
    assert message == (
        "stage pretrain: optimizer.item_rows is 'touched', but combination is PCGrad, which merges "
        "gradients into dense ones; use 'all', or another combination"
    )


@pytest.mark.parametrize("key", ["aap", "map"])
def test_attributes_that_the_corpus_lacks_are_named(key: str, tmp_path: Path) -> None:
    histories = markov_histories(num_users=15, num_items=10, length=8, seed=0)
    bare = write_histories(
        tmp_path / "bare", histories, num_items=10, attributes=[[]] * 10, num_attributes=0
    )
    stage = replace(PRETRAIN, objectives={key: S3REC_OBJECTIVES[key]})
    message = input_error_of(config_of(bare, stage, FINETUNE), tmp_path)
    assert message.startswith(
        "the corpus has no item attributes, which aap, map and items.attributes"
    )


def test_an_encoder_that_reads_attributes_needs_them(tmp_path: Path) -> None:
    histories = markov_histories(num_users=15, num_items=10, length=8, seed=0)
    bare = write_histories(
        tmp_path / "bare", histories, num_items=10, attributes=[[]] * 10, num_attributes=0
    )
    config = replace(config_of(bare, FINETUNE), items=ItemTableConfig(attributes=True))
    assert "items.attributes need" in input_error_of(config, tmp_path)


def test_aap_of_attributes_that_the_encoder_is_shown_is_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = config_of(corpus, PRETRAIN, FINETUNE)
    shown = replace(config, items=ItemTableConfig(attributes=True))
    assert "but items.attributes adds them to the input; remove one" in input_error_of(
        shown, tmp_path
    )


def test_items_without_attributes_are_counted_in_the_summary(tmp_path: Path) -> None:
    # Item 9 and attribute 3 are bare; attribute 2 stands on item 8 alone, which nobody has.
    histories = [[user % 8, (user + 1) % 8, (user + 2) % 8, (user + 3) % 8] for user in range(9)]
    attributes = [[0]] * 7 + [[0, 1], [2], []]
    corpus = write_histories(
        tmp_path / "c", histories, num_items=10, attributes=attributes, num_attributes=4
    )
    summary = execute(config_of(corpus, PRETRAIN, FINETUNE), tmp_path / "run", options=QUIET)
    assert summary.attributes == CoverageRecord(
        items=10, items_without=1, attributes=4, never_seen=2
    )


def test_show_tells_what_moved(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(config_of(corpus, PRETRAIN, FINETUNE), tmp_path / "run", options=QUIET)
    show(tmp_path / "run")
    out = capsys.readouterr().out
    assert "carried into finetune: 16 from stage pretrain, 0 newly initialized, 9 not used" in out
    assert "; 0 of 10 items have none\n" in out

"""Stages that hand over, and runs that start from earlier ones, with other vocabularies too."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.splits import UserHoldout
from research.data.windows import EveryPrefix, LastItems
from research.errors import InputError
from research.execute import RunOptions, execute
from research.model.encoder import EncoderConfig
from research.objectives.aap import AAPConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.map import MAPConfig
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.run import RunConfig
from research.training.optim import OptimiserConfig
from research.training.stage import StageConfig, ValidationConfig
from tests.synthetic import Histories, markov_histories, write_histories

QUIET = RunOptions(quiet=True)
ENCODER = EncoderConfig(length=5, width=4, layers=1, heads=2, feed_forward=8)
FOUR = {"aap": AAPConfig(), "mip": MIPConfig(), "map": MAPConfig(), "sp": SPConfig()}
PRETRAIN = StageConfig(
    name="pretrain",
    objectives=FOUR,
    windows=EveryPrefix(),
    batches=BatchConfig(sequences_per_batch=20),
    epochs=1,
    normalise="sequences",
    validation=None,
)
FINETUNE = StageConfig(
    name="finetune",
    objectives={"next": NextItemConfig()},
    epochs=2,
    validation=ValidationConfig(metric="mrr"),
)
TABLE = "encoder.item_table.weight"


def corpus_in(folder: Path, *, names: list[str] | None = None, seed: int = 0) -> Corpus:
    histories: Histories = markov_histories(num_users=15, num_items=10, length=8, seed=seed)
    return write_histories(folder, histories, num_items=10, item_names=names)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("data") / "first")


@pytest.fixture(scope="module")
def earlier(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two stages."""
    run = tmp_path_factory.mktemp("runs") / "earlier"
    execute(config_of(corpus, PRETRAIN, FINETUNE), run, options=QUIET)
    return run


def config_of(corpus: Corpus, *stages: StageConfig, **changes: Any) -> RunConfig:
    return RunConfig(corpus=str(corpus.folder), encoder=ENCODER, stages=stages, **changes)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def still(stage: StageConfig) -> StageConfig:
    """A stage that moves nothing, so that what it began with can be read afterwards."""
    return replace(stage, epochs=1, validation=None, optimiser=OptimiserConfig(lr=1e-30))


def test_the_encoder_moves_and_heads_are_accounted_for(corpus: Corpus, tmp_path: Path) -> None:
    summary: Any = execute(config_of(corpus, PRETRAIN, still(FINETUNE)), tmp_path, options=QUIET)
    before = weights_of(tmp_path / "stages" / "pretrain" / "last")
    after = weights_of(tmp_path / "stages" / "finetune" / "last")
    assert all(torch.equal(after[name], before[name]) for name in after)
    carried = summary["carried"]["finetune"]
    assert set(carried["moved"]) == {"stage pretrain"}
    assert set(carried["moved"]["stage pretrain"]) == set(after)
    assert carried["new"] == []
    assert set(carried["left"]) == {
        "shared.attributes.attribute_table.weight",
        *(f"objectives.{key}.head.dense.{part}" for key in ("aap", "mip", "map")
          for part in ("weight", "bias")),
        "objectives.sp.dense.weight", "objectives.sp.dense.bias",
    }  # fmt: skip


def test_a_head_that_both_stages_have_moves_as_well(corpus: Corpus, tmp_path: Path) -> None:
    both = replace(
        still(FINETUNE),
        objectives={"next": NextItemConfig(), "mip": MIPConfig(), "map": MAPConfig()},
    )
    execute(config_of(corpus, PRETRAIN, both), tmp_path, options=QUIET)
    before = weights_of(tmp_path / "stages" / "pretrain" / "last")
    after = weights_of(tmp_path / "stages" / "finetune" / "last")
    for name in ("objectives.mip.head.dense.weight", "shared.attributes.attribute_table.weight"):
        assert torch.equal(after[name], before[name])


def test_what_moves_is_printed(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(config_of(corpus, PRETRAIN, FINETUNE), tmp_path)
    out = capsys.readouterr().out
    assert "attributes: 3, of which 0 stand on no training item; 0 of 10 items (0.0%)" in out
    assert "finetune: parameters moved: 16 from stage pretrain; none newly made; left beh" in out


def test_a_run_starts_from_the_stage_that_is_named(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    config = config_of(corpus, still(FINETUNE), start_from=start)
    summary: Any = execute(config, tmp_path, options=QUIET)
    given = weights_of(earlier / "stages" / "pretrain" / "last")
    after = weights_of(tmp_path / "stages" / "finetune" / "last")
    assert torch.equal(after[TABLE], given[TABLE])
    assert list(summary["carried"]["finetune"]["moved"]) == [f"{earlier} (stage pretrain)"]


def test_a_run_starts_from_the_best_state_of_the_last_stage(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    config = config_of(corpus, still(FINETUNE), start_from=str(earlier))
    execute(config, tmp_path, options=QUIET)
    given = weights_of(earlier / "stages" / "finetune" / "best")
    assert torch.equal(weights_of(tmp_path / "stages" / "finetune" / "last")[TABLE], given[TABLE])


def test_fine_tuning_from_a_folder_is_fine_tuning_in_the_run(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    apart: Any = execute(config_of(corpus, FINETUNE, start_from=start), tmp_path, options=QUIET)
    within = json.loads((earlier / "summary.json").read_text())
    assert apart["test"] == within["test"]
    assert apart["best"]["finetune"] == within["best"]["finetune"]


def test_items_of_another_vocabulary_are_matched_by_raw_id(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    # Dense id 0 is called i9, 1 i8, ...; the last two are unknown to the earlier run.
    names = [f"i{9 - item}" for item in range(8)] + ["new1", "new2"]
    other = corpus_in(tmp_path / "second", names=names, seed=1)
    config = config_of(other, still(FINETUNE), start_from=str(earlier / "stages" / "pretrain"))
    summary: Any = execute(config, tmp_path / "run", options=QUIET)
    given = weights_of(earlier / "stages" / "pretrain" / "last")[TABLE]
    after = weights_of(tmp_path / "run" / "stages" / "finetune" / "last")[TABLE]
    for item in range(8):
        assert torch.equal(after[item], given[9 - item])
    assert torch.equal(after[10], given[10])  # the mask
    scratch: Any = execute(config_of(other, still(FINETUNE)), tmp_path / "scratch", options=QUIET)
    fresh = weights_of(tmp_path / "scratch" / "stages" / "finetune" / "last")[TABLE]
    assert torch.equal(after[8:10], fresh[8:10])
    assert scratch["carried"] == {}
    rows = summary["carried"]["finetune"]["rows"]
    assert rows["items"] == {"matched": 8, "fresh": 2, "left": 2}
    assert rows["attributes"] == {"matched": 3, "fresh": 0, "left": 0}


def test_a_run_is_recognised_by_the_weights_it_starts_from_not_by_their_folder(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(earlier, moved)
    config = config_of(corpus, FINETUNE, start_from=str(earlier))
    first: Any = execute(config, tmp_path / "run", options=QUIET)
    again: Any = execute(replace(config, start_from=str(moved)), tmp_path / "run", options=QUIET)
    assert again["hash"] == first["hash"]
    other = replace(config, start_from=str(earlier / "stages" / "pretrain"))
    with pytest.raises(InputError, match="holds another run"):
        execute(other, tmp_path / "run", options=QUIET)


def third(**changes: Any) -> StageConfig:
    """A last stage that moves nothing and has two of the pretraining's heads again."""
    objectives = {"next": NextItemConfig(), "mip": MIPConfig(), "map": MAPConfig()}
    return replace(still(FINETUNE), name="third", objectives=objectives, **changes)


def test_heads_come_from_the_nearest_stage_that_has_them(corpus: Corpus, tmp_path: Path) -> None:
    stages = (PRETRAIN, FINETUNE, third())
    summary: Any = execute(config_of(corpus, *stages), tmp_path, options=QUIET)
    pretrained = weights_of(tmp_path / "stages" / "pretrain" / "last")
    finetuned = weights_of(tmp_path / "stages" / "finetune" / "best")
    after = weights_of(tmp_path / "stages" / "third" / "last")
    heads = {name for name in after if name not in finetuned}
    assert "shared.attributes.attribute_table.weight" in heads
    for name, tensor in after.items():
        assert torch.equal(tensor, (pretrained if name in heads else finetuned)[name]), name
    carried = summary["carried"]["third"]
    assert {source: set(names) for source, names in carried["moved"].items()} == {
        "stage pretrain": heads,
        "stage finetune": set(finetuned),
    }
    assert carried["new"] == []


def test_a_later_stage_gets_the_heads_of_the_run_that_was_started_from(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    config = config_of(corpus, FINETUNE, third(), start_from=start)
    summary: Any = execute(config, tmp_path, options=QUIET)
    given = weights_of(earlier / "stages" / "pretrain" / "last")
    tuned = weights_of(tmp_path / "stages" / "finetune" / "best")
    after = weights_of(tmp_path / "stages" / "third" / "last")
    for name, tensor in after.items():
        assert torch.equal(tensor, (tuned if name in tuned else given)[name]), name
    assert list(summary["carried"]["third"]["moved"]) == [
        f"{earlier} (stage pretrain)", "stage finetune",
    ]  # fmt: skip


def test_a_finished_run_is_known_when_its_start_is_gone(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    config = config_of(corpus, FINETUNE, start_from=str(copy))
    first: Any = execute(config, tmp_path / "run", options=QUIET)
    shutil.rmtree(copy)
    assert execute(config, tmp_path / "run", options=QUIET) == first


def test_a_start_whose_weights_have_changed_is_told_apart(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    start = str(earlier / "stages" / "pretrain")
    execute(config_of(corpus, FINETUNE, start_from=start), tmp_path / "run", options=QUIET)
    other = config_of(corpus, FINETUNE, start_from=str(earlier))
    with pytest.raises(InputError, match=r"it started from \{'folder': .*'stage': 'pretrain'"):
        execute(other, tmp_path / "run", options=QUIET)


def refusal(config: RunConfig, tmp_path: Path) -> str:
    """What is said of a run that cannot start; nothing may have been written."""
    with pytest.raises(InputError) as caught:
        execute(config, tmp_path / "refused", options=QUIET)
    assert not (tmp_path / "refused").exists()
    return str(caught.value)


def test_a_folder_that_is_no_run_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    said = refusal(config_of(corpus, FINETUNE, start_from=str(tmp_path / "none")), tmp_path)
    assert said == (
        f"start_from {tmp_path / 'none'} holds no config.json; give an earlier run's folder or one "
        "of its stages, RUN/stages/NAME"
    )


def test_an_unknown_stage_is_refused(corpus: Corpus, earlier: Path, tmp_path: Path) -> None:
    start = earlier / "stages" / "warmup"
    said = refusal(config_of(corpus, FINETUNE, start_from=str(start)), tmp_path)
    assert said == f"start_from {start}: there is no such stage; its stages: pretrain, finetune"


def test_a_stage_without_a_checkpoint_is_refused(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    shutil.rmtree(copy / "stages" / "pretrain" / "last")
    start = str(copy / "stages" / "pretrain")
    said = refusal(config_of(corpus, FINETUNE, start_from=start), tmp_path)
    assert "stages/pretrain/last holds no checkpoint" in said


def test_a_stage_that_has_not_ended_is_refused(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    path = copy / "stages" / "pretrain" / "last" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "finished": False}))
    start = str(copy / "stages" / "pretrain")
    said = refusal(config_of(corpus, FINETUNE, start_from=start), tmp_path)
    assert said.endswith("stage pretrain has not ended; let its own command continue it first")


def test_another_encoder_is_refused_field_by_field(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    # Heads and activation show in no shape: the weights would be taken and mean something else.
    other = replace(ENCODER, heads=1, activation="relu", width=8)
    config = replace(config_of(corpus, FINETUNE, start_from=str(earlier)), encoder=other)
    assert refusal(config, tmp_path) == (
        f"start_from {earlier} (stage finetune) does not fit this run: encoder.width is 4 there "
        "and 8 here; encoder.heads is 2 there and 1 here; encoder.activation is 'gelu' there and "
        "'relu' here; give this run the other's encoder, or start from another run"
    )


def test_dropout_may_differ_from_the_earlier_run(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    config = config_of(corpus, still(FINETUNE), start_from=str(earlier))
    gentle = replace(config, encoder=replace(ENCODER, hidden_dropout=0.1, init_std=0.1))
    summary: Any = execute(gentle, tmp_path, options=QUIET)
    assert summary["status"] == "finished"


def test_the_other_corpus_must_be_at_hand(corpus: Corpus, earlier: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(earlier, copy)
    stored = json.loads((copy / "config.json").read_text())
    stored["config"]["corpus"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(stored))
    other = corpus_in(tmp_path / "second", seed=1)
    said = refusal(config_of(other, FINETUNE, start_from=str(copy)), tmp_path)
    assert f"was trained on corpus '{tmp_path / 'gone'}'" in said
    assert "whose item names are needed, but: " in said


def test_a_start_without_a_stage_is_refused(corpus: Corpus) -> None:
    from baselines.popularity import popularity

    with pytest.raises(InputError, match="start_from is set, but the run has no stage to start"):
        replace(popularity(), start_from="runs/a")


@pytest.mark.parametrize("key", ["aap", "map"])
def test_attributes_that_the_corpus_lacks_are_named(key: str, tmp_path: Path) -> None:
    histories = markov_histories(num_users=15, num_items=10, length=8, seed=0)
    bare = write_histories(
        tmp_path / "bare", histories, num_items=10, attributes=[[]] * 10, num_attributes=0
    )
    stage = replace(PRETRAIN, objectives={key: FOUR[key]})
    said = refusal(config_of(bare, stage, FINETUNE), tmp_path)
    assert said.startswith("the corpus has no item attributes, which aap, map and encoder.attrib")


def test_an_encoder_that_reads_attributes_needs_them(tmp_path: Path) -> None:
    histories = markov_histories(num_users=15, num_items=10, length=8, seed=0)
    bare = write_histories(
        tmp_path / "bare", histories, num_items=10, attributes=[[]] * 10, num_attributes=0
    )
    config = replace(config_of(bare, FINETUNE), encoder=replace(ENCODER, attribute_input=True))
    assert "encoder.attribute_input need" in refusal(config, tmp_path)


def test_items_without_attributes_are_counted_in_the_summary(tmp_path: Path) -> None:
    # Item 9 and attribute 3 are bare; attribute 2 stands on item 8 alone, which nobody has.
    histories = [[user % 8, (user + 1) % 8, (user + 2) % 8, (user + 3) % 8] for user in range(9)]
    attributes = [[0]] * 7 + [[0, 1], [2], []]
    corpus = write_histories(
        tmp_path / "c", histories, num_items=10, attributes=attributes, num_attributes=4
    )
    summary: Any = execute(config_of(corpus, PRETRAIN, FINETUNE), tmp_path / "run", options=QUIET)
    assert summary["attributes"] == {
        "items": 10, "items_without": 1, "attributes": 4, "never_seen": 2,
    }  # fmt: skip


def test_another_split_of_the_same_corpus_would_leak_and_is_refused(
    corpus: Corpus, earlier: Path, tmp_path: Path
) -> None:
    config = config_of(corpus, FINETUNE, start_from=str(earlier), split=UserHoldout())
    said = refusal(config, tmp_path)
    assert "was trained on LeaveOneOut(validation_in_training=False), this run holds out by" in said
    assert said.endswith("the weights know items that would test them; split both alike")


def test_aap_of_attributes_that_the_encoder_is_shown_is_refused(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = config_of(corpus, PRETRAIN, FINETUNE)
    shown = replace(config, encoder=replace(ENCODER, attribute_input=True))
    assert "and encoder.attribute_input shows them; take one" in refusal(shown, tmp_path)


def test_a_stage_that_never_ranks_need_not_say_by_what(corpus: Corpus, tmp_path: Path) -> None:
    both = {"next": NextItemConfig(), "cloze": ClozeConfig()}
    first = replace(PRETRAIN, objectives=both, windows=LastItems())
    summary: Any = execute(config_of(corpus, first, FINETUNE), tmp_path, options=QUIET)
    assert summary["status"] == "finished"

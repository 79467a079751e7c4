"""Stages that runs of a study have in common are trained once, and every folder is complete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.objectives.mip import MIPConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.run_hash import stage_hashes
from research.storage.run_folder import RunFolder
from research.training.stage_run import CheckpointPlan
from research.training.step import TrainStep
from tests.support.checkpoints import newest_checkpoint
from tests.support.small_runs import (
    FINETUNE,
    ITEM_TABLE,
    PRETRAIN,
    QUIET,
    config_of,
    corpus_in,
    weights_of,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("sharing") / "corpus")


@pytest.fixture
def config(corpus: Corpus) -> RunConfig:
    return config_of(corpus, PRETRAIN, FINETUNE)


def other_end(config: RunConfig) -> RunConfig:
    """The same pretraining under another fine-tuning."""
    return replace(config, stages=(PRETRAIN, replace(FINETUNE, epochs=3)))


def taking(*paths: Path) -> RunOptions:
    return RunOptions(quiet=True, reuse_from=paths)


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    """Steps of a stage are an error, though its state may be read."""

    def step(self: TrainStep, *given: Any, **named: Any) -> Any:
        assert self.config.name != forbidden, f"stage {forbidden} is trained again"
        return real(self, *given, **named)

    real = TrainStep.__call__
    monkeypatch.setattr(TrainStep, "__call__", step)


def lines_of(folder: Path, stage: str) -> list[dict[str, object]]:
    lines = RunFolder(folder, writes=False).metrics()
    return [
        {name: value for name, value in line.items() if "items_per_second" not in name}
        for line in lines
        if line["stage"] == stage
    ]


def test_a_shared_stage_is_trained_once_and_gives_the_same_run(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(config, tmp_path / "first", options=QUIET)
    alone = execute(other_end(config), tmp_path / "alone", options=QUIET)
    forbid(monkeypatch, "pretrain")
    shared = execute(other_end(config), tmp_path / "second", options=taking(tmp_path / "first"))
    for part in ("val", "test", "carried", "protocol", "hash"):
        assert vars(shared)[part] == vars(alone)[part]
    assert shared.shared == {"pretrain": "../first"}
    assert alone.shared == {}
    for stage in ("pretrain", "finetune"):
        assert lines_of(tmp_path / "second", stage) == lines_of(tmp_path / "alone", stage)
        state = newest_checkpoint(tmp_path / "second" / "stages" / stage)
        ours, theirs = (
            weights_of(state),
            weights_of(newest_checkpoint(tmp_path / "alone" / "stages" / stage)),
        )
        assert ours.keys() == theirs.keys()
        assert ours[ITEM_TABLE].equal(theirs[ITEM_TABLE])


def test_the_cost_says_what_was_shared(config: RunConfig, tmp_path: Path) -> None:
    first = execute(config, tmp_path / "first", options=QUIET)
    second = execute(other_end(config), tmp_path / "second", options=taking(tmp_path / "first"))
    assert first.cost.shared_seconds == 0.0
    pretrained = checkpoint.read_state(
        newest_checkpoint(tmp_path / "first" / "stages" / "pretrain"), first.fingerprint
    )
    assert second.cost.shared_seconds == pretrained["seconds"]
    assert second.cost.seconds > second.cost.shared_seconds


def test_a_run_without_another_that_fits_trains_for_itself(
    config: RunConfig, corpus: Corpus, tmp_path: Path
) -> None:
    execute(config, tmp_path / "first", options=QUIET)
    changed = replace(config, stages=(replace(PRETRAIN, epochs=2), FINETUNE))
    second = execute(
        changed, tmp_path / "second", options=taking(tmp_path / "nowhere", tmp_path / "first")
    )
    assert second.shared == {}
    assert second.best["pretrain"].epochs == 2


@pytest.mark.long
def test_a_damaged_stage_is_not_taken(config: RunConfig, tmp_path: Path) -> None:
    alone = replace(QUIET, checkpoints=CheckpointPlan(keep=1))
    execute(config, tmp_path / "first", options=alone)
    weights = newest_checkpoint(tmp_path / "first" / "stages" / "pretrain") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    second = execute(other_end(config), tmp_path / "second", options=taking(tmp_path / "first"))
    assert second.shared == {}


def test_a_stage_that_has_not_ended_is_not_taken(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = replace(config, stages=(replace(PRETRAIN, epochs=3), FINETUNE))
    often = replace(QUIET, checkpoints=CheckpointPlan(steps=1))
    saves = []

    def save(folder: Path, *rest: Any, **named: Any) -> None:
        real(folder, *rest, **named)
        saves.append(folder)
        if len(saves) == 2:
            raise KeyboardInterrupt

    real = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            execute(begun, tmp_path / "first", options=often)
    assert checkpoint.checkpoints_by_step(tmp_path / "first" / "stages" / "pretrain")
    second = execute(begun, tmp_path / "second", options=taking(tmp_path / "first"))
    assert second.shared == {}


def test_a_stage_that_this_run_has_begun_is_not_replaced(config: RunConfig, tmp_path: Path) -> None:
    execute(config, tmp_path / "first", options=QUIET)
    execute(config, tmp_path / "second", options=QUIET)
    (tmp_path / "second" / "summary.json").unlink()
    again = execute(config, tmp_path / "second", options=taking(tmp_path / "first"))
    assert again.shared == {}


@pytest.mark.long
def test_what_was_shared_is_known_after_a_crash(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(config, tmp_path / "first", options=QUIET)

    def save(folder: Path, *rest: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            execute(other_end(config), tmp_path / "second", options=taking(tmp_path / "first"))
    # The other run may be gone by now: the folder is complete.
    again = execute(other_end(config), tmp_path / "second", options=QUIET)
    assert again.shared == {"pretrain": "../first"}
    alone = execute(other_end(config), tmp_path / "alone", options=QUIET)
    assert again.test == alone.test
    assert lines_of(tmp_path / "second", "pretrain") == lines_of(tmp_path / "alone", "pretrain")


@pytest.mark.long
def test_lines_that_a_crash_left_are_not_doubled(config: RunConfig, tmp_path: Path) -> None:
    execute(config, tmp_path / "first", options=QUIET)
    folder = RunFolder(tmp_path / "second")
    folder.path.mkdir()
    # As if the process had died between copying the lines and renaming the stage's folder.
    folder.append(RunFolder(tmp_path / "first").metrics()[:1])
    execute(other_end(config), tmp_path / "second", options=taking(tmp_path / "first"))
    assert lines_of(tmp_path / "second", "pretrain") == lines_of(tmp_path / "first", "pretrain")


@pytest.mark.long
def test_a_third_run_names_the_one_that_trained(config: RunConfig, tmp_path: Path) -> None:
    execute(config, tmp_path / "first", options=QUIET)
    execute(other_end(config), tmp_path / "second", options=taking(tmp_path / "first"))
    (tmp_path / "first" / "summary.json").unlink()
    third = execute(
        replace(config, stages=(PRETRAIN, replace(FINETUNE, epochs=1))),
        tmp_path / "third",
        options=taking(tmp_path / "second"),
    )
    assert third.shared == {"pretrain": "../first"}


# What decides a stage


def changed_stage(config: RunConfig, place: int, **fields: Any) -> RunConfig:
    stages = list(config.stages)
    stages[place] = replace(stages[place], **fields)
    return replace(config, stages=tuple(stages))


def hashes_of_stages(config: RunConfig, corpus: Corpus, start: str | None = None) -> list[str]:
    return list(stage_hashes(config, corpus, start).values())


def test_what_is_reported_and_what_follows_do_not_decide_a_stage(
    config: RunConfig, corpus: Corpus
) -> None:
    reported = EvaluationConfig(metrics=("hr@3",), candidates=("full", "uniform-5"))
    assert hashes_of_stages(replace(config, evaluation=reported), corpus) == hashes_of_stages(
        config, corpus
    )
    assert hashes_of_stages(replace(config, corpus="elsewhere"), corpus) == hashes_of_stages(
        config, corpus
    )
    later = changed_stage(config, 1, epochs=7)
    assert hashes_of_stages(later, corpus)[0] == hashes_of_stages(config, corpus)[0]
    assert hashes_of_stages(later, corpus)[1] != hashes_of_stages(config, corpus)[1]


def test_all_that_a_stage_learns_from_decides_it(config: RunConfig, corpus: Corpus) -> None:
    changes = [
        replace(config, seed=1),
        replace(config, encoder=replace(config.encoder, width=8)),
        changed_stage(config, 0, epochs=2),
        changed_stage(config, 0, objectives={"mip": MIPConfig()}),
    ]
    first = [hashes_of_stages(each, corpus)[0] for each in (config, *changes)]
    first += [
        hashes_of_stages(replace(config, start_from="run"), corpus, start)[0]
        for start in ("a", "b")
    ]
    assert len(set(first)) == len(first)
    # A path decides nothing, its content does.
    assert hashes_of_stages(replace(config, start_from="there"), corpus, "a") == hashes_of_stages(
        replace(config, start_from="here"), corpus, "a"
    )


@pytest.mark.parametrize(
    "evaluation", [EvaluationConfig(seen="kept"), EvaluationConfig(ties="mean")]
)
def test_how_seen_items_and_ties_rank_decides_the_stages_that_select_by_it(
    evaluation: EvaluationConfig, config: RunConfig, corpus: Corpus
) -> None:
    other = replace(config, evaluation=evaluation)
    # The pretraining has no validation, the fine-tuning has.
    assert hashes_of_stages(other, corpus)[0] == hashes_of_stages(config, corpus)[0]
    assert hashes_of_stages(other, corpus)[1] != hashes_of_stages(config, corpus)[1]

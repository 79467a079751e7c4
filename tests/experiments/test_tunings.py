"""The tunings that ship: first trials are the recipes, spaces make valid runs, sizes are alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from experiments import less_data, objectives, prior_shift, strongest, temporal, tuned_leaderboard
from research.data.windows import EveryPrefix, Sliding
from research.model.transformer_config import TransformerConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.studies.space import Distribution, TunedCell, Value, check_space, given_first, run_of
from research.studies.tuning import Tuning
from research.training.uncertainty import UncertaintyWeights

LEADERBOARDS = (tuned_leaderboard.tuning, tuned_leaderboard.further, tuned_leaderboard.small)
TUNINGS = (*LEADERBOARDS, tuned_leaderboard.ml_100k, strongest.tuning, strongest.lastfm)


def cells_of(*makers: Callable[[], Tuning]) -> Iterator[tuple[str, str, TunedCell]]:
    for make in makers:
        tuning = make()
        yield from ((tuning.name, name, cell) for name, cell in tuning.tuned_cells.items())


def first_run(cell: TunedCell, number: int = 0) -> RunConfig:
    def nothing_else(name: str, distribution: Distribution) -> Value:
        raise AssertionError(f"first lacks {name}")

    return run_of("cell", cell, given_first(cell, number, nothing_else)).config


def test_the_first_trial_of_a_recipe_is_the_recipe() -> None:
    recipes = 0
    for tuning, name, cell in cells_of(*LEADERBOARDS):
        if cell.base.stages:
            assert first_run(cell) == cell.base, (tuning, name)
            recipes += 1
    assert recipes == 22


def test_the_first_trial_of_the_strongest_is_sasrec_but_for_a_millionth_of_weight_decay() -> None:
    for _, _, cell in cells_of(strongest.tuning, strongest.lastfm):
        run, base = first_run(cell), cell.base
        optimizer = replace(run.stages[0].optimizer, weight_decay=0.0)
        encoder = run.encoder
        assert isinstance(encoder, TransformerConfig)
        assert encoder.dropouts == base.encoder.dropouts  # type: ignore[attr-defined]
        encoder = replace(encoder, attention_dropout=None)
        stage = replace(run.stages[0], optimizer=optimizer)
        assert replace(run, encoder=encoder, stages=(stage,)) == base


def test_the_second_trial_on_beauty_is_what_won_on_lastfm() -> None:
    (cell,) = strongest.tuning().tuned_cells.values()
    run = first_run(cell, 1)
    (stage,) = run.stages
    assert set(stage.objectives) == {"next", "cloze"}
    assert stage.combination == UncertaintyWeights()
    assert stage.windows == Sliding()
    assert stage.batches == cell.base.stages[0].batches
    assert strongest.lastfm().tuned_cells["strongest"].firsts[1:] == ()


def test_every_recipe_of_a_leaderboard_keeps_weights_by_what_is_compared() -> None:
    for tuning, name, cell in cells_of(*LEADERBOARDS):
        for stage in cell.base.stages[-1:]:
            assert stage.validation is not None
            assert stage.validation.metric == "ndcg@10", (tuning, name)


def test_every_recipe_of_a_leaderboard_is_of_width_64_and_length_50() -> None:
    for tuning, name, cell in cells_of(*LEADERBOARDS):
        if cell.base.stages:
            encoder = cell.base.encoder
            assert (encoder.width, encoder.length) == (64, 50), (tuning, name)


@pytest.mark.long
@pytest.mark.parametrize("make", TUNINGS, ids=lambda make: f"{make.__module__}.{make.__name__}")
def test_whatever_a_space_draws_is_a_valid_run(make: Callable[[], Tuning]) -> None:
    tuning = make()
    assert tuning.trial_length == 1 / 3
    for name, cell in tuning.tuned_cells.items():
        check_space(name, cell, tuning.seed, prunes=tuning.pruner is not None)


def test_every_prefix_is_seen_for_as_many_epochs_as_whole_rows() -> None:
    none, s3, longer = objectives.every_prefix().cells.values()
    assert none.stages[0].tokens == objectives.LASTFM_TOKENS
    assert [stage.tokens for stage in s3.stages] == [objectives.LASTFM_TOKENS // 2] * 2
    assert longer.stages[1] == s3.stages[1]
    # An epoch of the newest 50 training items of LastFM has 25,983 tokens.
    assert longer.stages[0].epochs == round(objectives.LASTFM_TOKENS / 2 / 25_983)


def test_what_is_trained_under_a_cut_sees_as_many_tokens() -> None:
    for name, config in temporal.study().cells.items():
        tokens = [stage.tokens or 0 for stage in config.stages]
        assert sum(tokens) == (objectives.BEAUTY_TOKENS if config.stages else 0), name


def test_recipes_on_small_corpora_have_as_many_steps() -> None:
    special = {"bert4rec": 4_000, "gsasrec": 7_200}
    for name, config in tuned_leaderboard.trained_on_small().items():
        steps = special.get(name, tuned_leaderboard.SMALL_STEPS)
        assert (config.stages[-1].steps, config.stages[-1].epochs) == (steps, None), name


def test_pretraining_under_a_cut_and_with_less_data_is_the_same_as_in_the_ablation() -> None:
    pretrained = less_data.study().cells["pretraining=s3,users=0.1"].stages[0]
    assert not isinstance(pretrained.windows, EveryPrefix)
    assert set(pretrained.objectives) == {"aap", "mip", "map", "sp"}
    cut = temporal.study().cells["s3rec"].stages
    assert cut[0].objectives == pretrained.objectives
    assert sum(stage.tokens or 0 for stage in cut) == temporal.BUDGET.amount


def test_prior_shift_and_calibration_are_all_that_differs_between_four_runs_of_gsasrec() -> None:
    study = prior_shift.study()
    loss = "stages.0.objectives.next.loss"
    assert len(study.cells) == 4
    for cell, levels in study.cells.levels.items():
        changes = {
            f"{loss}.calibration": float(levels["calibration"]),
            f"{loss}.prior_shift": levels["prior_shift"] == "yes",
        }
        assert study.cells[cell] == replace_fields(study.cells["gsasrec"], changes)
    stage = study.cells["gsasrec"].stages[0]
    assert (stage.steps, stage.optimizer.lr) == (prior_shift.STEPS, 1e-3)
    assert stage.validation is not None
    assert stage.validation.patience is None

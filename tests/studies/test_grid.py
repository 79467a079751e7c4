"""Grids: factors of values and of structure are crossed, and every cell knows its levels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines.popularity import popularity
from baselines.s3rec import corrected_objectives
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.runs.config import RunConfig
from research.studies.cells import (
    grid,
    levels,
    named_cells,
    one_factor,
    with_stage,
    without_objectives,
    without_stage,
)
from research.studies.changes import Levels
from research.studies.factorial import Grid
from research.studies.study import Study
from research.training.config import StageConfig

PRETRAIN = StageConfig(name="pretrain", objectives=corrected_objectives(), validation=None)
FINETUNE = StageConfig(name="finetune", objectives={"next": NextItemConfig()})
BASE = RunConfig(stages=(FINETUNE,))
BOTH = RunConfig(stages=(PRETRAIN, FINETUNE))


def pretrained(config: RunConfig) -> RunConfig:
    return with_stage(config, PRETRAIN, before="finetune")


def without_sp(config: RunConfig) -> RunConfig:
    return without_objectives(config, "pretrain", "sp")


def not_pretrained(config: RunConfig) -> RunConfig:
    return without_stage(config, "pretrain")


def refused(base: RunConfig, factors: dict[str, Levels], **rest: object) -> str:
    with pytest.raises(InputError) as caught:
        grid(base, factors, **rest)  # type: ignore[arg-type]
    return str(caught.value)


# What stages are called


def test_a_stage_more_does_not_shift_what_another_factor_means() -> None:
    cells = grid(BASE, {
        "pretrain": {"no": {}, "yes": pretrained},
        "epochs": levels("stages.0.epochs", (200, 5)),
    })  # fmt: skip
    assert list(cells) == [
        "base", "pretrain=no,epochs=5", "pretrain=yes,epochs=200", "pretrain=yes,epochs=5",
    ]  # fmt: skip
    both = cells["pretrain=yes,epochs=5"].stages
    assert both == (PRETRAIN, replace(FINETUNE, epochs=5))
    assert cells["pretrain=no,epochs=5"].stages == (replace(FINETUNE, epochs=5),)


def test_a_stage_less_does_not_shift_what_another_factor_means() -> None:
    for name in ("stages.1.epochs", "stages.finetune.epochs"):
        cells = grid(BOTH, {
            "pretrain": {"yes": {}, "no": not_pretrained},
            "epochs": levels(name, (5, 7)),
        })  # fmt: skip
        assert cells["pretrain=no,epochs=5"].stages == (replace(FINETUNE, epochs=5),)
        assert cells["pretrain=yes,epochs=5"].stages == (PRETRAIN, replace(FINETUNE, epochs=5))


def test_the_order_of_factors_does_not_matter() -> None:
    factors: dict[str, Levels] = {
        "pretrain": {"no": {}, "yes": pretrained},
        "cloze": {"no": {}, "yes": {"stages.0.objectives.cloze": ClozeConfig()}},
    }
    base = replace(BASE, stages=(replace(FINETUNE, rank_by="next"),))
    one = grid(base, factors)
    other = grid(base, dict(reversed(factors.items())))
    assert one["pretrain=yes,cloze=yes"] == other["cloze=yes,pretrain=yes"]


def test_stages_are_named_in_any_builder() -> None:
    expected = replace(BOTH, stages=(PRETRAIN, replace(FINETUNE, epochs=5)))
    change = {"stages.finetune.epochs": 5}
    assert named_cells(BOTH, {"short": change})["short"] == expected
    assert one_factor(BOTH, {"epochs": {"5": change}})["epochs=5"] == expected


def test_a_level_may_be_a_function_in_any_builder() -> None:
    assert named_cells(BOTH, {"none": not_pretrained})["none"] == BASE
    assert list(one_factor(BASE, {"pretrain": {"no": {}, "yes": pretrained}})) == [
        "base",
        "pretrain=yes",
    ]


def test_stages_are_set_before_behind_and_taken_away() -> None:
    assert pretrained(BASE) == BOTH
    assert not_pretrained(BOTH) == BASE
    assert with_stage(BASE, PRETRAIN).stages == (FINETUNE, PRETRAIN)
    with pytest.raises(InputError, match="has no stage 'fintune'; did you mean finetune"):
        with_stage(BASE, PRETRAIN, before="fintune")
    with pytest.raises(InputError, match="names must differ"):
        with_stage(BOTH, PRETRAIN)


# What cannot be crossed


def test_a_change_of_what_another_factor_takes_away_is_refused() -> None:
    message = refused(BOTH, {
        "pretrain": {"yes": {}, "no": not_pretrained},
        "epochs": levels("stages.pretrain.epochs", (5,)),
    })  # fmt: skip
    assert message == (
        "cell pretrain=no,epochs=5: one factor changes stages.0.epochs and another takes stage "
        "pretrain away; leave such combinations out (`omit` of `grid`)"
    )
    message = refused(BOTH, {
        "sp": {"yes": {}, "no": without_sp},
        "weight": levels("stages.pretrain.objectives.sp.weight", (0.1,)),
    })  # fmt: skip
    assert message.startswith(
        "cell sp=no,weight=0.1: one factor changes what another takes away (stages.0.objectives"
    )


def test_a_function_may_not_overwrite_what_another_factor_sets() -> None:
    message = refused(BASE, {
        "layers": levels("encoder.layers", (1, 3)),
        "size": {"small": lambda config: replace(config, encoder=TransformerConfig(width=8))},
    })  # fmt: skip
    assert "cell layers=1,size=small: one factor changes encoder.layers and the fun" in message


def test_functions_that_mean_another_run_in_another_order_are_refused() -> None:
    third = StageConfig(name="third", objectives={"sp": SPConfig()}, validation=None)
    message = refused(BASE, {
        "one": {"no": {}, "yes": lambda config: with_stage(config, PRETRAIN, before="finetune")},
        "two": {"no": {}, "yes": lambda config: with_stage(config, third, before="finetune")},
    })  # fmt: skip
    assert message == (
        "cell one=yes,two=yes: the functions of factors one and two give another run in the "
        "opposite order; make one factor of them, whose levels say the order"
    )


def test_all_stages_at_once_are_not_one_of_several_factors() -> None:
    whole = {"pretrain": {"no": {}, "yes": {"stages": (PRETRAIN, FINETUNE)}}}
    assert grid(BASE, whole)["pretrain=yes"] == BOTH
    message = refused(BASE, {**whole, "epochs": levels("stages.0.epochs", (5,))})
    assert "cell pretrain=yes,epochs=5: one of several factors sets all stages" in message


def test_two_factors_do_not_set_one_field_under_two_names() -> None:
    message = refused(BOTH, {
        "epochs": levels("stages.1.epochs", (1, 3)),
        "length": levels("stages.finetune.epochs", (1, 3)),
    })  # fmt: skip
    assert "cell epochs=1,length=1: two factors change stages.1.epochs; choose" in message


def test_a_factor_without_an_effect_on_the_config_is_refused() -> None:
    message = refused(BASE, {
        "layers": levels("encoder.layers", (1, 2)),
        "nothing": {"no": {}, "yes": lambda config: config},
    })  # fmt: skip
    assert message == (
        "cell layers=1,nothing=yes is the same run as layers=1,nothing=no; leave one of them out"
    )


def test_names_that_cannot_be_told_apart_are_refused() -> None:
    assert "'a=1' names a factor of a grid; allowed: letters" in refused(BASE, {"a=1": {"x": {}}})
    assert "'1,b=2' names a level of a grid" in refused(BASE, {"a": {"1,b=2": {}}})
    assert "factor a is {}; give its levels by name" in refused(BASE, {"a": {}})
    assert "factor a is [1, 2]; give" in refused(BASE, {"a": [1, 2]})  # type: ignore[dict-item]


def test_a_level_is_changes_or_a_function() -> None:
    message = refused(BASE, {"a": {"x": None}})  # type: ignore[dict-item]
    assert "cell a=x: a level of a is None; give changes by dotted name, {} for none, or" in message


def test_a_function_must_return_a_config() -> None:
    message = refused(BASE, {"a": {"x": lambda config: None}})  # type: ignore[arg-type, return-value]
    assert "cell a=x: the function of a level returns a NoneType; give one that" in message


# What a grid knows


def test_every_cell_has_a_level_of_every_factor() -> None:
    cells = grid(BASE, {
        "pretrain": {"no": {}, "yes": pretrained},
        "layers": levels("encoder.layers", (1, 2)),
    })  # fmt: skip
    assert cells.factors == {"pretrain": ("no", "yes"), "layers": ("1", "2")}
    assert cells.levels == {
        "base": {"pretrain": "no", "layers": "2"},
        "pretrain=no,layers=1": {"pretrain": "no", "layers": "1"},
        "pretrain=yes,layers=1": {"pretrain": "yes", "layers": "1"},
        "pretrain=yes,layers=2": {"pretrain": "yes", "layers": "2"},
    }
    assert list(cells) == list(cells.levels)


def test_a_base_outside_has_its_own_name_for_a_level() -> None:
    cells = grid(
        BASE,
        {"layers": levels("encoder.layers", (1, 3)), "heads": levels("encoder.heads", (1, 2))},
        name="two",
    )
    assert cells.levels["two"] == {"layers": "two", "heads": "2"}
    assert len(cells) == 5


def test_combinations_are_left_out() -> None:
    factors: dict[str, Levels] = {
        "pretrain": {"yes": {}, "no": not_pretrained},
        "epochs": levels("stages.pretrain.epochs", (200, 5)),
        "layers": levels("encoder.layers", (1, 2)),
    }
    cells = grid(BOTH, factors, omit=[{"pretrain": "no", "epochs": 5}])
    assert list(cells) == [
        "base",
        "pretrain=yes,epochs=200,layers=1",
        "pretrain=yes,epochs=5,layers=1",
        "pretrain=yes,epochs=5,layers=2",
        "pretrain=no,epochs=200,layers=1",
        "pretrain=no,epochs=200,layers=2",
    ]
    # Without the stage its epochs are those of the base, of which nothing is left to check.
    assert cells["pretrain=no,epochs=200,layers=2"] == BASE
    assert "omit names factor 'epoch'; did you mean epochs" in refused(
        BOTH, factors, omit=[{"epoch": 5}]
    )
    assert "omit names level '6' of epochs" in refused(BOTH, factors, omit=[{"epochs": 6}])
    assert "omit leaves out pretrain=yes,epochs=200,layers=2, which is the base" in refused(
        BOTH, factors, omit=[{"pretrain": "no"}, {"epochs": 200, "layers": 2}]
    )
    assert "omit has an entry without levels" in refused(BOTH, factors, omit=[{}])


def test_cells_may_stand_beside_a_grid() -> None:
    cells = grid(BASE, {"layers": levels("encoder.layers", (1, 2))})
    after, before = cells | {"popularity": popularity()}, {"popularity": popularity()} | cells
    assert isinstance(before, Grid)
    assert list(after) == ["base", "layers=1", "popularity"]
    assert list(before) == ["popularity", "base", "layers=1"]
    assert after.levels == before.levels == cells.levels
    with pytest.raises(InputError, match="the grid has a cell base already"):
        cells | {"base": popularity()}
    assert repr(after) == "Grid of 3 cells: layers (1, 2)"


def test_a_study_knows_the_factors_of_its_cells() -> None:
    cells = grid(BASE, {"layers": levels("encoder.layers", (1, 2))})
    study = Study(name="s", question="?", cells=cells, base="base")
    assert (study.grid.factors, study.grid.levels) == (cells.factors, cells.levels)
    plain = Study(name="s", question="?", cells=dict(cells), base="base")
    assert (plain.grid.factors, plain.grid.levels) == ({}, {})


def test_a_factor_of_one_level_is_refused_with_what_to_do() -> None:
    layers, dropout = levels("encoder.layers", (1, 2)), levels("encoder.dropout", (0.5,))
    assert refused(BASE, {"layers": layers, "dropout": dropout}) == (
        "factor dropout has one level, '0.5', and so no effect; give it another level ({} for the "
        "base as it is), or make this level part of the base"
    )

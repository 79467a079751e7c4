"""Cells of a study: the builders, and what a cell changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from baselines.popularity import PopularityConfig, popularity
from baselines.s3rec import corrected_objectives
from research.data.negatives import NegativesConfig
from research.data.windows import EveryPrefix
from research.errors import InputError
from research.model.transformer_block import PreNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import BinaryCrossEntropy, SampledSoftmax
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.runs.differences import difference_of
from research.studies.cells import (
    grid,
    leave_one_out,
    levels,
    named_cells,
    one_factor,
    one_only,
    without_objectives,
)
from research.training.config import StageConfig
from research.training.optimizer import OptimizerConfig

PRETRAIN = StageConfig(name="pretrain", objectives=corrected_objectives(), validation=None)
FINETUNE = StageConfig(name="finetune", objectives={"next": NextItemConfig()})
BASE = RunConfig(stages=(PRETRAIN, FINETUNE))
RATE = "stages.0.objectives.mip.corruption.rate"
PRETRAINING = "200 epochs, adam at 0.001, aap 0.2 + mip 1 + map 1 + sp 0.5"
JOINT = RunConfig(
    stages=(
        StageConfig(
            objectives={"next": NextItemConfig(), "cloze": ClozeConfig(), **corrected_objectives()},
            own_windows={"cloze": EveryPrefix(), "sp": EveryPrefix()},
            rank_by="next",
        ),
    )
)


def refused(call: object, *given: object, **by_name: object) -> str:
    assert callable(call)
    with pytest.raises(InputError) as caught:
        call(*given, **by_name)
    return str(caught.value)


# Builders


def test_one_factor_at_a_time_gives_the_base_and_a_cell_a_level() -> None:
    cells = one_factor(
        BASE,
        {
            "layers": levels("encoder.layers", (1, 2, 3)),
            "norm": {"pre": {"encoder.block": PreNorm(), "encoder.final_norm": True}},
        },
    )
    assert list(cells) == ["base", "layers=1", "layers=3", "norm=pre"]
    assert cells["base"] is BASE
    assert cells["layers=3"] == replace(BASE, encoder=TransformerConfig(layers=3))
    assert cells["norm=pre"].encoder == TransformerConfig(block=PreNorm(), final_norm=True)


def test_the_base_has_the_name_that_it_is_given() -> None:
    for cells in (
        named_cells(BASE, {"deep": {"encoder.layers": 9}}, name="shallow"),
        one_factor(BASE, {"layers": levels("encoder.layers", (9, 10))}, name="shallow"),
        grid(BASE, {"layers": levels("encoder.layers", (9, 10))}, name="shallow"),
        leave_one_out(BASE, "pretrain", name="shallow"),
        one_only(BASE, "pretrain", name="shallow"),
    ):
        assert next(iter(cells)) == "shallow"
        assert cells["shallow"] is BASE


def test_a_level_may_set_several_fields() -> None:
    dropouts = ("encoder.embedding_dropout", "encoder.hidden_dropout")
    cells = one_factor(BASE, {"dropout": levels(dropouts, (0.1,))})
    expected = TransformerConfig(embedding_dropout=0.1, hidden_dropout=0.1)
    assert cells["dropout=0.1"].encoder == expected


def test_levels_are_named_as_a_person_would() -> None:
    values = (1, 0.25, 1e-5, "pre", True, False, None, EveryPrefix())
    expected = ["1", "0.25", "1e-05", "pre", "yes", "no", "none", "EveryPrefix"]
    assert list(levels("field", values)) == expected


def test_two_levels_of_one_name_are_refused() -> None:
    losses = (SampledSoftmax(number=16), SampledSoftmax(number=128))
    with pytest.raises(InputError, match=r"two levels of .* are called 'SampledSoftmax'; give a"):
        levels("stages.0.objectives.next.loss", losses)
    with pytest.raises(InputError, match=r"called '0\.00123457'"):
        levels("stages.0.optimizer.lr", (0.0012345678, 0.0012345679))


def test_a_full_grid_crosses_every_level_and_keeps_the_base_once() -> None:
    masks = "stages.0.objectives.mip.corruption"
    factors = {
        "rate": levels(f"{masks}.rate", (0.2, 0.4)),
        "keep": levels(f"{masks}.keep_share", (0.0, 0.1)),
    }
    cells = grid(BASE, factors)
    assert list(cells) == ["base", "rate=0.2,keep=0.1", "rate=0.4,keep=0", "rate=0.4,keep=0.1"]
    assert cells["rate=0.4,keep=0.1"] == replace_fields(BASE, {
        f"{masks}.rate": 0.4, f"{masks}.keep_share": 0.1
    })  # fmt: skip


def test_a_grid_may_stand_beside_its_base() -> None:
    cells = grid(BASE, {"layers": levels("encoder.layers", (1, 3))})
    assert list(cells) == ["base", "layers=1", "layers=3"]


def test_one_objective_after_the_other_is_left_out() -> None:
    cells = leave_one_out(BASE, "pretrain")
    assert list(cells) == ["base", "no-aap", "no-mip", "no-map", "no-sp"]
    assert list(cells["no-mip"].stages[0].objectives) == ["aap", "map", "sp"]
    assert cells["no-mip"].stages[1] == FINETUNE


def test_one_objective_after_the_other_is_alone() -> None:
    cells = one_only(BASE, "pretrain")
    assert list(cells) == ["base", "only-aap", "only-mip", "only-map", "only-sp"]
    assert list(cells["only-map"].stages[0].objectives) == ["map"]
    assert cells["only-map"].stages[1] == FINETUNE


def test_some_objectives_stay_in_every_cell() -> None:
    out = leave_one_out(JOINT, "train", always=("next",))
    assert list(out) == ["base", "no-cloze", "no-aap", "no-mip", "no-map", "no-sp"]
    only = one_only(JOINT, "train", always=("next",))
    assert list(only["only-sp"].stages[0].objectives) == ["next", "sp"]
    assert only["only-sp"].stages[0].own_windows == {"sp": EveryPrefix()}


def test_a_stage_of_one_objective_has_it_alone_already() -> None:
    assert one_only(BASE, "finetune") == {"base": BASE}


def test_an_objective_goes_with_its_windows() -> None:
    stage = without_objectives(JOINT, "train", "cloze", "aap").stages[0]
    assert list(stage.objectives) == ["next", "mip", "map", "sp"]
    assert stage.own_windows == {"sp": EveryPrefix()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"wide": {"encoder.widht": 9}},
            "cell wide: encoder (TransformerConfig) has no 'widht'; did",
        ),
        ({"wide": {"encoder.heads": 3}}, "cell wide: encoder.heads is 3, which does not divide"),
        ({"same": {"encoder.layers": 2}}, "cell same is the same run as base; leave one of them"),
        (
            {"one": {"encoder.layers": 1}, "another": {"encoder.layers": 1}},
            "cell another is the same run as one; leave one of them out",
        ),
        ({"base": {"encoder.layers": 1}}, "cell base has the name of the base"),
        ({"a/b": {"encoder.layers": 1}}, "cell 'a/b': a cell's name is a folder's; allowed: "),
        ({"..": {"encoder.layers": 1}}, "cell '..': a cell's name is a folder's"),
        ({"two words": {"encoder.layers": 1}}, "cell 'two words': a cell's name is a folder's"),
        ({"": {"encoder.layers": 1}}, "cell '': a cell's name is a folder's"),
        ({"n" * 65: {"encoder.layers": 1}}, "allowed: at most 64 letters"),
    ],
)
def test_cells_that_make_no_sense_are_refused(
    changes: dict[str, dict[str, object]], message: str
) -> None:
    assert message in refused(named_cells, BASE, changes)


def test_two_factors_of_a_grid_do_not_change_the_same_field() -> None:
    layers = levels("encoder.layers", (1, 3))
    message = refused(grid, BASE, {"layers": layers, "depth": layers})
    assert "cell layers=1,depth=1: two factors change encoder.layers" in message


def test_what_cannot_be_left_out_is_said() -> None:
    assert refused(leave_one_out, BASE, "pretrian") == (
        "the run has no stage 'pretrian'; did you mean pretrain? (allowed: finetune, pretrain)"
    )
    assert "stage pretrain has no objective 'spp'; did you mean sp?" in refused(
        without_objectives, BASE, "pretrain", "spp"
    )
    assert "stage train has no objective 'nxt'; did you mean next?" in refused(
        one_only, JOINT, "train", always=("nxt",)
    )
    assert refused(without_objectives, JOINT, "train", "next") == (
        "stage train ranks by next, which cannot be left out"
    )
    assert "objectives is empty" in refused(leave_one_out, BASE, "finetune")


# What a cell changes


def changes_of(changes: Mapping[str, object], base: RunConfig = BASE) -> dict[str, list[object]]:
    return difference_of(base, replace_fields(base, changes))


def test_what_a_cell_changes_is_told_by_dotted_name() -> None:
    assert difference_of(BASE, BASE) == {}
    assert changes_of({"encoder.layers": 3, RATE: 0.4, "stages.1.validation.patience": None}) == {
        "encoder.layers": [2, 3],
        RATE: [0.2, 0.4],
        "stages.1.validation.patience": [10, None],
    }


def test_a_missing_objective_is_told_by_its_class() -> None:
    assert difference_of(BASE, without_objectives(BASE, "pretrain", "aap")) == {
        "stages.0.objectives.aap": ["AAPConfig", None]
    }


def test_a_new_objective_is_told_with_what_is_not_its_default() -> None:
    masks = MaskItems(rate=0.4)
    added = {"stages.0.objectives.cloze": ClozeConfig(weight=0.1, corruption=masks)}
    assert changes_of(added) == {
        "stages.0.objectives.cloze": [None, "ClozeConfig"],
        "stages.0.objectives.cloze.weight": [None, 0.1],
        "stages.0.objectives.cloze.corruption.rate": [None, 0.4],
    }


def test_a_config_of_another_class_is_told_with_the_fields_that_differ() -> None:
    loss = "stages.1.objectives.next.loss"
    sampled = replace_fields(BASE, {loss: SampledSoftmax(log_q=True)})
    assert difference_of(BASE, sampled) == {
        loss: ["FullSoftmax", "SampledSoftmax"],
        f"{loss}.log_q": [None, True],
    }
    negatives = NegativesConfig(include_mask=True)
    assert changes_of({loss: BinaryCrossEntropy(negatives=negatives)}, sampled) == {
        loss: ["SampledSoftmax", "BinaryCrossEntropy"],
        f"{loss}.negatives.include_mask": [False, True],
        f"{loss}.number": [256, 1],
        f"{loss}.log_q": [True, None],
    }


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (FINETUNE, "200 epochs, adam at 0.001, next"),
        (
            replace(FINETUNE, epochs=None, steps=5000, optimizer=OptimizerConfig(lr=3e-4)),
            "5,000 steps, adam at 0.0003, next",
        ),
        (
            replace(FINETUNE, tokens=2_000_000, optimizer=OptimizerConfig(method="sgd")),
            "200 epochs or 2,000,000 tokens, sgd at 0.001, next",
        ),
        (PRETRAIN, PRETRAINING),
    ],
)
def test_a_new_stage_is_told_by_its_length_rate_and_objectives(
    stage: StageConfig, said: str
) -> None:
    changes = difference_of(popularity(), RunConfig(stages=(stage,)))
    assert changes[f"stages.{stage.name}"] == [None, said]


def test_stages_of_other_names_are_told_by_name() -> None:
    alone = replace(BASE, stages=(replace(FINETUNE, epochs=5),))
    assert difference_of(BASE, alone) == {
        "stages.pretrain": [PRETRAINING, None],
        "stages.finetune.epochs": [200, 5],
    }
    added = "stages.pretrain.objectives"
    masked = {
        f"{added}.{key}.corruption.mask_last_share": [None, 1.0] for key in ("aap", "mip", "map")
    }
    assert difference_of(alone, BASE) == {
        "stages.finetune.epochs": [5, 200],
        "stages.pretrain": [None, PRETRAINING],
        f"{added}.aap": [None, "AAPConfig"],
        f"{added}.aap.weight": [None, 0.2],
        f"{added}.mip": [None, "MIPConfig"],
        f"{added}.map": [None, "MAPConfig"],
        f"{added}.sp": [None, "SPConfig"],
        f"{added}.sp.weight": [None, 0.5],
        "stages.pretrain.validation": [None, None],
        **masked,
    }


def test_stages_in_another_order_differ() -> None:
    turned = replace(BASE, stages=(FINETUNE, PRETRAIN))
    assert difference_of(BASE, turned) == {
        "stages": [["pretrain", "finetune"], ["finetune", "pretrain"]]
    }


def test_a_counting_ranker_differs_from_training() -> None:
    one = RunConfig(stages=(FINETUNE,))
    recent = RunConfig(ranker=PopularityConfig(newest_share=0.1))
    assert difference_of(one, recent) == {
        "stages.finetune": ["200 epochs, adam at 0.001, next", None],
        "ranker": [None, "PopularityConfig"],
        "ranker.newest_share": [None, 0.1],
    }
    assert difference_of(popularity(), recent) == {"ranker.newest_share": [1.0, 0.1]}


def test_a_difference_is_json() -> None:
    both = difference_of(JOINT, replace_fields(BASE, {"evaluation.metrics": ("mrr",)}))
    assert json.loads(json.dumps(both)) == both
    assert both["evaluation.metrics"][1] == ["mrr"]

"""Fields of a config changed by dotted name in Python; test_overrides.py: on a command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines.s3rec import corrected_objectives
from research.data.splits import GlobalTemporal
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import BinaryCrossEntropy, SampledSoftmax
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.training.config import StageConfig

PRETRAIN = StageConfig(name="pretrain", objectives=corrected_objectives(), validation=None)
FINETUNE = StageConfig(name="finetune", objectives={"next": NextItemConfig()})
BASE = RunConfig(stages=(PRETRAIN, FINETUNE))
RATE = "stages.0.objectives.mip.corruption.rate"


def refused(config: RunConfig, changes: dict[str, object]) -> str:
    with pytest.raises(InputError) as caught:
        replace_fields(config, changes)
    return str(caught.value)


def test_fields_are_replaced_by_their_dotted_names() -> None:
    config = replace_fields(BASE, {"encoder.layers": 3, "stages.1.epochs": 7, RATE: 0.4})
    assert config.encoder == TransformerConfig(layers=3)
    assert config.stages[1] == replace(FINETUNE, epochs=7)
    masks = MaskItems(rate=0.4, mask_last_share=1.0)
    assert config.stages[0].objectives["mip"] == MIPConfig(corruption=masks)
    assert config.stages[0].objectives["aap"] == BASE.stages[0].objectives["aap"]


def test_nothing_changed_is_the_same_config() -> None:
    assert replace_fields(BASE, {}) == BASE


def test_values_that_fit_only_together_need_no_order() -> None:
    together = {"encoder.width": 30, "encoder.heads": 3}
    for changes in (together, dict(reversed(together.items()))):
        assert replace_fields(BASE, changes).encoder == TransformerConfig(width=30, heads=3)


def test_a_value_may_be_a_whole_config_or_nothing() -> None:
    changes = {"stages.1.validation": None, "stages.1.objectives.next.loss": BinaryCrossEntropy()}
    stage = replace_fields(BASE, changes).stages[1]
    assert stage.validation is None
    assert stage.objectives["next"] == NextItemConfig(loss=BinaryCrossEntropy())


def test_an_objective_is_added_by_its_key() -> None:
    config = replace_fields(BASE, {"stages.0.objectives.cloze": ClozeConfig(weight=2.0)})
    assert list(config.stages[0].objectives) == ["aap", "mip", "map", "sp", "cloze"]
    assert config.stages[0].objectives["cloze"].weight == 2.0


def test_a_whole_number_may_stand_for_a_float() -> None:
    config = replace_fields(BASE, {"encoder.hidden_dropout": 0})
    assert config.encoder.hidden_dropout == 0.0
    assert isinstance(config.encoder.hidden_dropout, float)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("encodr.layers", 3, "RunConfig has no 'encodr'; did you mean encoder or corpus?"),
        ("encoder.layer", 3, "encoder (TransformerConfig) has no 'layer'; did you mean layers?"),
        ("stages.2.epochs", 3, "stages (tuple) has no '2'; allowed: 0, 1"),
        ("stages.0.objectives.spp.weight", 1.0, "has no 'spp'; did you mean sp?"),
        ("encoder.layers.more", 1, "encoder.layers (int) has no 'more'; it is 2"),
        ("ranker.newest_share", 0.5, "ranker (NoneType) has no 'newest_share'; it is None"),
        ("encoder.layers", 1.5, "encoder.layers is 1.5; allowed: int"),
        ("encoder.layers", True, "encoder.layers is True; allowed: int"),
        (
            "encoder.activation",
            "tanh",
            "encoder.activation is 'tanh'; allowed: gelu | gelu_tanh | relu",
        ),
        ("encoder.hidden_dropout", "0.1", "encoder.hidden_dropout is '0.1'; allowed: "),
        ("encoder.hidden_dropout", float("nan"), "encoder.hidden_dropout is nan; allowed: "),
        ("encoder", None, "encoder is None; allowed: "),
        (
            "stages.0.objectives.cloze",
            MaskItems(),
            "stages.0.objectives.cloze is a MaskItems; al",
        ),
        ("evaluation.metrics", ["mrr"], "evaluation.metrics is ['mrr']; allowed: tuple[str, ...]"),
        ("encoder.heads", 3, "encoder.heads is 3, which does not divide encoder.width 64"),
    ],
)
def test_a_change_that_cannot_be_made_says_why(name: str, value: object, message: str) -> None:
    assert message in refused(BASE, {name: value})


@pytest.mark.parametrize("encoder", [TransformerConfig(width=32), "TransformerConfig"])
def test_a_part_is_changed_in_what_it_is_then(encoder: object) -> None:
    config = replace_fields(BASE, {"encoder.layers": 3, "encoder": encoder})
    expected = TransformerConfig() if encoder == "TransformerConfig" else encoder
    assert config.encoder == replace(expected, layers=3)


def test_a_class_is_given_by_its_name() -> None:
    changes = {
        "split": "GlobalTemporal", "split.test_share": 0.2,
        "stages.1.objectives.next.loss": "SampledSoftmax",
        "stages.1.objectives.cloze": "ClozeConfig", "stages.1.objectives.cloze.weight": 2,
        "stages.1.rank_by": "next",
    }  # fmt: skip
    config = replace_fields(BASE, changes)
    assert config.split == GlobalTemporal(test_share=0.2)
    assert config.stages[1].objectives == {
        "next": NextItemConfig(loss=SampledSoftmax()), "cloze": ClozeConfig(weight=2.0),
    }  # fmt: skip


def test_text_is_no_number_in_python() -> None:
    assert refused(BASE, {"encoder.layers": "3"}) == "encoder.layers is '3'; allowed: int"
    assert refused(BASE, {"split": "GlobalTemprl"}).startswith(
        "split is 'GlobalTemprl'; did you mean GlobalTemporal or TemporalCut? (allowed: "
    )
    assert refused(BASE, {"split": GlobalTemporal}).startswith("split is <class ")

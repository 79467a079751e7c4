"""Configs: JSON and back, and what a stranger's file may not do."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from research.config import from_json, hash_of, near, to_json
from research.data.splits import LeaveOneOut, UserHoldout
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.item_losses import BayesianPersonalizedRanking
from research.objectives.next_item import NextItemConfig
from research.run import RunConfig
from research.training.optim import OptimizerConfig
from research.training.stage import StageConfig
from tests.configs import CONFIGS, TWO_STAGES


def stored(config: object) -> object:
    """What is read from the file that a config was written to."""
    return json.loads(json.dumps(to_json(config), allow_nan=False))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_json(name: str) -> None:
    config = CONFIGS[name]()
    assert from_json(stored(config), RunConfig) == config


def test_json_names_the_class_of_every_part() -> None:
    value = to_json(LeaveOneOut())
    assert value == {"class": "research.data.splits:LeaveOneOut", "validation_in_training": False}


def test_a_whole_number_may_stand_for_a_float() -> None:
    value = stored(OptimizerConfig())
    assert isinstance(value, dict)
    value["lr"] = 1
    read = from_json(value, OptimizerConfig)
    assert (read.lr, type(read.lr)) == (1.0, float)


def test_a_field_that_is_not_said_has_its_default() -> None:
    value = {"class": "research.model.transformer_config:TransformerConfig", "width": 32}
    assert from_json(value, TransformerConfig) == TransformerConfig(width=32)


def refusal(value: object, expected: type = RunConfig, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        from_json(value, expected, **options)
    return str(caught.value)


def changed(path: str, part: object) -> object:
    """`TWO_STAGES` as JSON with one part replaced."""
    value = stored(TWO_STAGES)
    *steps, last = (int(step) if step.isdecimal() else step for step in path.split("."))
    place = value
    for step in steps:
        place = place[step]
    place[last] = part
    return value


@pytest.mark.parametrize(
    ("path", "part", "message"),
    [
        ("sed", 1, "config: RunConfig has no field 'sed'; did you mean seed?"),
        (
            "encoder.widht",
            8,
            "config.encoder: TransformerConfig has no field 'widht'; did you mean w",
        ),
        ("stages.1.epoch", 8, "config.stages.1: StageConfig has no field 'epoch'; did you mean ep"),
        ("seed", "1", "config.seed is '1'; allowed: <class 'int'>"),
        ("seed", 1.5, "config.seed is 1.5; allowed: <class 'int'>"),
        ("seed", True, "config.seed is True; allowed: <class 'int'>"),
        ("seed", None, "config.seed is None; allowed: <class 'int'>"),
        ("encoder.block", "both", "config.encoder.block is 'both'; allowed: "),
        ("encoder.width", 64.0, "config.encoder.width is 64.0; allowed: <class 'int'>"),
        ("encoder.final_norm", 1, "config.encoder.final_norm is 1; allowed: <class 'bool'>"),
        ("encoder.norm_eps", True, "config.encoder.norm_eps is True; allowed: <class 'float'>"),
        ("encoder.norm_eps", float("nan"), "config.encoder.norm_eps is nan; allowed: "),
        ("encoder.norm_eps", float("inf"), "config.encoder.norm_eps is inf; allowed: "),
        ("encoder.norm_eps", 10**400, "config.encoder.norm_eps is 1000000"),
        ("encoder", None, "config.encoder is None; allowed: <class "),
        ("stages", {}, "config.stages is {}; allowed: tuple["),
        ("stages.0.objectives", [1], "config.stages.0.objectives is [1]; allowed: "),
        ("stages.0.objectives.cloze", 1, "config.stages.0.objectives is {'cloze': 1}; allowed: "),
        ("evaluation.metrics", "hr@10", "config.evaluation.metrics is 'hr@10'; allowed: "),
        ("encoder.heads", 3, "config.encoder: encoder.heads is 3, which does not divide encoder."),
        ("stages.1.name", "a/b", "config.stages.1: stage 'a/b': 'a/b' names a stage or an obj"),
    ],
)
def test_a_wrong_field_is_named(path: str, part: object, message: str) -> None:
    assert message in refusal(changed(path, part))


def test_a_part_of_another_kind_is_refused() -> None:
    value = changed("split", stored(TransformerConfig()))
    assert refusal(value).startswith("config.split is {'class': 'research.model.transformer_")
    assert refusal(stored(LeaveOneOut())) == "config: a RunConfig is wanted, not LeaveOneOut"
    assert refusal([1]) == "config: a RunConfig is wanted, not tuple"
    assert refusal(None) == "config: a RunConfig is wanted, not NoneType"


def test_a_missing_field_is_named() -> None:
    value = changed("stages.0", {"class": "research.training.stage:StageConfig", "name": "x"})
    assert "config.stages.0: StageConfig cannot be made" in refusal(value)
    assert "'objectives'" in refusal(value)


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "researcher.x:Y", "tests.a:B"])
def test_classes_outside_the_project_are_refused(name: str) -> None:
    message = refusal(changed("ranker", {"class": name}))
    assert message.startswith(f"config.ranker.class is {name}, outside research, baselines; name")
    assert "--allow" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (3, "config.ranker.class is 3; it must look like module:Class"),
        ("research.run", "config.ranker.class is 'research.run'; it must look like module:Class"),
        ("research.run:a.b", "it must look like module:Class"),
        ("research.nowhere:X", "is research.nowhere:X, but research.nowhere does not exist"),
        ("research.:X", "is research.:X, but research. does not exist"),
        ("research.run:Nothing", "which is not a config of research.run"),
        ("research.run:execute", "which is not a config of research.run"),
        ("research.tracking:RunFolder", "which is not a config of research.tracking"),
    ],
)
def test_what_is_not_a_config_of_ours_is_refused(name: object, message: str) -> None:
    assert message in refusal(changed("ranker", {"class": name}))


def test_a_module_outside_is_not_even_imported(tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('executed')\n")
    sys.path.insert(0, str(tmp_path))
    try:
        assert "outside research, baselines" in refusal({"class": "stranger:Thing"})
    finally:
        sys.path.remove(str(tmp_path))
    assert "stranger" not in sys.modules


@dataclass(frozen=True, kw_only=True)
class Mine:
    """A config outside the project's packages."""

    number: int = 1


def test_a_module_that_the_user_allows_is_read() -> None:
    value = stored(Mine(number=2))
    assert from_json(value, Mine, allow=(__name__,)) == Mine(number=2)
    assert "outside research, baselines" in refusal(value, Mine)


@dataclass(kw_only=True)
class Loose:
    """Not frozen, hence no config."""

    number: int = 1


def test_only_frozen_dataclasses_are_configs() -> None:
    message = refusal({"class": f"{__name__}:Loose"}, Loose, allow=(__name__,))
    assert f"{__name__}:Loose, which is not a config of {__name__}" in message


def test_a_hash_sees_every_field_and_its_context() -> None:
    marks = {
        hash_of(TWO_STAGES),
        hash_of(replace(TWO_STAGES, seed=1)),
        hash_of(replace(TWO_STAGES, split=UserHoldout())),
        hash_of(TWO_STAGES, "fingerprint"),
        hash_of(TWO_STAGES, "finger", "print"),
    }
    assert len(marks) == 5
    assert hash_of(TWO_STAGES) == hash_of(from_json(stored(TWO_STAGES), RunConfig))
    assert len(hash_of(TWO_STAGES)) == 16


def test_near_names_are_suggested_and_all_names_when_none_is_near() -> None:
    assert near("widht", {"width", "heads"}) == "; did you mean width?"
    assert near("xyz", {"width", "heads"}) == "; allowed: heads, width"


def test_a_run_has_stages_or_a_ranker() -> None:
    with pytest.raises(InputError, match="either stages or a counting ranker, and not both"):
        RunConfig()
    with pytest.raises(InputError, match="either stages or a counting ranker, and not both"):
        replace(TWO_STAGES, ranker=PopularityConfig())


def test_stages_have_names_of_their_own() -> None:
    stage = StageConfig(objectives={"next": NextItemConfig(loss=BayesianPersonalizedRanking())})
    with pytest.raises(InputError, match="stages are named train, train; names must differ"):
        RunConfig(stages=(stage, stage))

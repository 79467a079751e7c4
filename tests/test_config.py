"""Configs: JSON and back, and what a stranger's file may not do."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from baselines.popularity import PopularityConfig
from research.annotations import suggest
from research.config import check_config, from_json, hash_of, to_json
from research.data.splits import LeaveOneOut, UserHoldout
from research.data.windows import Sliding
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import BayesianPersonalizedRanking, FullSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.training.config import StageConfig
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from tests.support.configs import CONFIGS, TWO_STAGES


def stored(config: object) -> object:
    """What is read from the file that a config was written to."""
    return json.loads(json.dumps(to_json(config), allow_nan=False))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_survives_json(name: str) -> None:
    config = CONFIGS[name]()
    assert from_json(stored(config), RunConfig) == config


def test_json_names_classes_by_their_own_names_and_says_every_field() -> None:
    assert to_json(LeaveOneOut()) == {"class": "LeaveOneOut", "validation_in_training": False}


def test_json_names_a_class_of_another_package_with_the_package() -> None:
    assert to_json(Mine(number=2)) == {"class": "tests:Mine", "number": 2}


def test_a_whole_number_may_stand_for_a_float() -> None:
    value = stored(OptimizerConfig())
    assert isinstance(value, dict)
    value["lr"] = 1
    read = from_json(value, OptimizerConfig)
    assert (read.lr, type(read.lr)) == (1.0, float)


def test_a_field_that_is_not_said_has_its_default() -> None:
    value = {"class": "TransformerConfig", "width": 32}
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
        ("seed", "1", "config.seed is '1'; allowed: int"),
        ("seed", 1.5, "config.seed is 1.5; allowed: int"),
        ("seed", True, "config.seed is True; allowed: int"),
        ("seed", None, "config.seed is None; allowed: int"),
        ("encoder.activation", "tanh", "config.encoder.activation is 'tanh'; allowed: gelu | gel"),
        ("encoder.width", 64.0, "config.encoder.width is 64.0; allowed: int"),
        ("encoder.final_norm", 1, "config.encoder.final_norm is 1; allowed: bool"),
        ("encoder.norm_eps", True, "config.encoder.norm_eps is True; allowed: float"),
        ("encoder.norm_eps", float("nan"), "config.encoder.norm_eps is nan; allowed: "),
        ("encoder.norm_eps", float("inf"), "config.encoder.norm_eps is inf; allowed: "),
        ("encoder.norm_eps", 10**400, "config.encoder.norm_eps is 1000000"),
        ("encoder", None, "config.encoder is None; allowed: CaserConfig | GRUConfig | Trans"),
        ("stages", {}, "config.stages is {}; allowed: tuple["),
        ("stages.0.objectives", [1], "config.stages.0.objectives is (1,); allowed: Mapping["),
        (
            "stages.0.objectives.cloze",
            1,
            "config.stages.0.objectives.cloze is 1; allowed: AAPConfig | ",
        ),
        ("evaluation.metrics", "hr@10", "config.evaluation.metrics is 'hr@10'; allowed: "),
        ("encoder.heads", 3, "config.encoder: encoder.heads is 3, which does not divide encoder."),
        ("stages.1.name", "a/b", "config.stages.1: stage 'a/b': 'a/b' names a stage or an obj"),
    ],
)
def test_a_wrong_field_is_named(path: str, part: object, message: str) -> None:
    assert message in refusal(changed(path, part))


def test_a_part_of_another_kind_is_refused() -> None:
    value = changed("split", stored(TransformerConfig()))
    allowed = (
        "LeaveOneOut | UserHoldout | GlobalTemporal | TemporalCut | TimepointLeaveOneOut | "
        "ColdItems"
    )
    assert refusal(value) == f"config.split is a TransformerConfig; allowed: {allowed}"
    assert refusal(stored(LeaveOneOut())) == "config: a RunConfig is expected, not LeaveOneOut"
    assert refusal([1]) == "config: a RunConfig is expected, not tuple"
    assert refusal(None) == "config: a RunConfig is expected, not NoneType"


def test_a_missing_field_is_named() -> None:
    value = changed("stages.0", {"class": "StageConfig", "name": "x"})
    assert refusal(value) == "config.stages.0: StageConfig needs a value for objectives"


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "researcher:Y", "tests:Mine"])
def test_classes_of_other_packages_are_refused(name: str) -> None:
    message = refusal(changed("ranker", {"class": name}))
    package = name.partition(":")[0]
    assert message == (
        f"config.ranker.class is {name}, outside research, baselines; name its package with "
        f"--allow {package} if you trust it"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (3, "config.ranker.class is 3; it must look like Name or package:Name"),
        ("a b", "config.ranker.class is 'a b'; it must look like Name or package:Name"),
        ("a:b:c", "it must look like Name or package:Name"),
        ("Nowhere", "is Nowhere, but there is no such class in research and baselines"),
        ("execute", "but there is no such class in research and baselines"),
        ("RunFolder", "is not a config; one is written as @dataclass(fro"),
        ("Ranges", "is not a config; one is written as @dataclass(fro"),
        ("RankerConfig", "is not a config; one is written as @dataclass(fro"),
    ],
)
def test_what_is_not_a_config_of_ours_is_refused(name: object, message: str) -> None:
    assert message in refusal(changed("ranker", {"class": name}))


@pytest.mark.parametrize(
    "name",
    ["research.run:RunConfig", "research:RunConfig", "mine.sub:Mine"],
)
def test_a_config_of_an_earlier_version_is_refused_with_what_to_do(name: str) -> None:
    message = refusal(changed("ranker", {"class": name}))
    assert message.startswith(f"config.ranker.class is {name}: that is the form of an earlier ver")
    assert "hashes that recognise runs have changed" in message
    assert "Do the run again in a new folder" in message


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


def test_a_package_that_the_user_allows_is_read() -> None:
    value = stored(Mine(number=2))
    assert from_json(value, Mine, allow=("tests",)) == Mine(number=2)
    assert "outside research, baselines" in refusal(value, Mine)


@dataclass(kw_only=True)
class Loose:
    """Not frozen, hence no config."""

    number: int = 1


def test_only_frozen_dataclasses_are_configs() -> None:
    message = refusal({"class": "tests:Loose"}, Loose, allow=("tests",))
    assert message.startswith(
        f"config.class is tests:Loose, but Loose of {__file__} is not a config;"
    )


# What is hashed


def growing(*fields: tuple[str, type, object]) -> type:
    """A config class of one name, with the fields that it has at some time."""
    declared = [(name, kind, field(default=default)) for name, kind, default in fields]
    return make_dataclass("Growing", declared, frozen=True, kw_only=True)


def test_a_field_that_is_added_at_its_default_changes_no_hash() -> None:
    before = growing(("width", int, 64))
    after = growing(("width", int, 64), ("rotary", bool, False))
    assert hash_of(before(width=32)) == hash_of(after(width=32))
    assert hash_of(after(width=32, rotary=True)) != hash_of(after(width=32))


def test_what_is_hashed_leaves_out_what_is_at_its_default() -> None:
    optimizer = OptimizerConfig(lr=1, beta1=0.9, schedule=ScheduleConfig(shape="linear"))
    assert to_json(optimizer, short=True) == {
        "class": "OptimizerConfig", "lr": 1.0,
        "schedule": {"class": "ScheduleConfig", "shape": "linear"},
    }  # fmt: skip


def test_a_class_chosen_by_name_is_always_named() -> None:
    own = replace(TWO_STAGES, split=UserHoldout()).split
    assert to_json(own, short=True) == {"class": "UserHoldout"}
    config = RunConfig(split=UserHoldout(), ranker=PopularityConfig())
    assert to_json(config, short=True) == {
        "class": "RunConfig",
        "split": {"class": "UserHoldout"},
        "ranker": {"class": "PopularityConfig"},
    }
    assert to_json(replace(config, split=LeaveOneOut()), short=True) == {
        "class": "RunConfig", "ranker": {"class": "PopularityConfig"},
    }  # fmt: skip


def test_mappings_and_tuples_are_hashed_whole_and_required_fields_always() -> None:
    stage = StageConfig(objectives={"next": NextItemConfig(), "cloze": ClozeConfig(weight=2)})
    assert to_json(stage, short=True) == {
        "class": "StageConfig",
        "objectives": {
            "next": {"class": "NextItemConfig"}, "cloze": {"class": "ClozeConfig", "weight": 2.0},
        },
    }  # fmt: skip
    evaluation = EvaluationConfig(metrics=("hr@5", "mrr"))
    assert to_json(evaluation, short=True) == {
        "class": "EvaluationConfig", "metrics": ["hr@5", "mrr"],
    }  # fmt: skip
    assert hash_of(stage) == hash_of(replace(stage, objectives=reversed_(stage.objectives)))
    empty = replace(stage, own_windows={})
    assert to_json(empty, short=True) == to_json(stage, short=True)


def reversed_(mapping: Mapping[str, object]) -> dict[str, object]:
    return dict(reversed(mapping.items()))


def test_one_and_one_point_nothing_are_one() -> None:
    whole = OptimizerConfig(lr=1, clip_norm=5)
    assert hash_of(whole) == hash_of(OptimizerConfig(lr=1.0, clip_norm=5.0))
    assert to_json(whole)["lr"] == 1.0
    assert isinstance(to_json(whole)["clip_norm"], float)


def test_a_hash_knows_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hash_of(Mine(number=2)), hash_of(Sliding(stride=3))
    monkeypatch.setattr(Mine, "__module__", "elsewhere.mine")
    monkeypatch.setattr(Sliding, "__module__", "research.rows")
    assert (hash_of(Mine(number=2)), hash_of(Sliding(stride=3))) == before


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
    assert suggest("widht", {"width", "heads"}) == "; did you mean width? (allowed: heads, width)"
    many = {"width", *(f"field{number}" for number in range(20))}
    assert suggest("widht", many) == "; did you mean width?"
    assert suggest("xyz", {"width", "heads"}) == "; allowed: heads, width"


def test_a_run_has_stages_or_a_ranker() -> None:
    with pytest.raises(InputError, match="either stages or a counting ranker, and not both"):
        RunConfig()
    with pytest.raises(InputError, match="either stages or a counting ranker, and not both"):
        replace(TWO_STAGES, ranker=PopularityConfig())


def test_stages_have_names_of_their_own() -> None:
    stage = StageConfig(objectives={"next": NextItemConfig(loss=BayesianPersonalizedRanking())})
    with pytest.raises(InputError, match="stages are named train, train; names must differ"):
        RunConfig(stages=(stage, stage))


# A config made in Python


def check_refuses(config: object) -> str:
    with pytest.raises(InputError) as caught:
        check_config(config)
    return str(caught.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_our_configs_pass_the_check(name: str) -> None:
    check_config(CONFIGS[name]())


FIRST_STAGE = TWO_STAGES.stages[0]


@pytest.mark.parametrize(
    ("given", "changes", "message"),
    [
        (TWO_STAGES, {"seed": "1"}, "RunConfig.seed is '1'; allowed: int"),
        (TWO_STAGES, {"seed": True}, "RunConfig.seed is True; allowed: int"),
        (TWO_STAGES, {"corpus": Path("x")}, "RunConfig.corpus is PosixPath('x'); allowed: str"),
        (TWO_STAGES, {"encoder": None}, "RunConfig.encoder is None; allowed: CaserConfig | GRUCon"),
        (TWO_STAGES, {"encoder": LeaveOneOut()}, "RunConfig.encoder is a LeaveOneOut; allowed: "),
        (TWO_STAGES, {"stages": list(TWO_STAGES.stages)}, "RunConfig.stages is [StageConfig("),
        (TWO_STAGES, {"stages": FIRST_STAGE}, "RunConfig.stages is a StageConfig; allowed: tuple"),
        (TWO_STAGES.encoder, {"heads": "2"}, "TransformerConfig.heads is '2'; allowed: int"),
        (
            TWO_STAGES.evaluation, {"metrics": ["mrr"]},
            "EvaluationConfig.metrics is ['mrr']; allowed: tuple[str, ...]",
        ),
        (
            TWO_STAGES.evaluation, {"candidates": "full"},
            "EvaluationConfig.candidates is 'full'; allowed: tuple[str, ...]",
        ),
        (FIRST_STAGE, {"epochs": 2.0}, "StageConfig.epochs is 2.0; allowed: int | None"),
        (
            FIRST_STAGE, {"own_windows": {"cloze": 3}},
            "StageConfig.own_windows.cloze is 3; allowed: EveryPrefix | LastItems | Sliding",
        ),
        (NextItemConfig(), {"weight": "heavy"}, "NextItemConfig.weight is 'heavy'; allowed: float"),
        (
            FIRST_STAGE, {"objectives": {"next": FullSoftmax()}},
            "StageConfig.objectives.next is a FullSoftmax; allowed: ",
        ),
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_type_is_named_where_it_is_given(
    given: object, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        replace(given, **changes)
    assert str(caught.value).startswith(message)


def test_the_check_looks_at_classes_that_check_nothing_themselves() -> None:
    stages = (replace(FIRST_STAGE, windows=Sliding(stride="2")), TWO_STAGES.stages[1])
    message = check_refuses(replace(TWO_STAGES, stages=stages))
    assert message == "config.stages.0.windows.stride is '2'; allowed: int | None"


def test_a_whole_number_for_a_float_passes_the_check() -> None:
    check_config(RunConfig(ranker=PopularityConfig(newest_share=1)))


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Numbers in tuples and mappings, and what has no type."""

    shares: tuple[float, ...] = (1.0,)
    pair: tuple[int, float] = (1, 1.0)
    weights: Mapping[str, float] = field(default_factory=dict)
    anything: Any = None
    untyped: dict = field(default_factory=dict)
    place: Path | None = None


def test_whole_numbers_become_floats_in_tuples_and_mappings_too() -> None:
    whole = Numbers(shares=(1, 2), pair=(2, 2), weights={"a": 1})
    assert json.dumps(to_json(whole, short=True)) == (
        '{"class": "Numbers", "shares": [1.0, 2.0], "pair": [2, 2.0], "weights": {"a": 1.0}}'
    )
    assert to_json(Numbers(shares=(1,), pair=(1, 1)), short=True) == {"class": "Numbers"}
    read = from_json(stored(whole), Numbers, allow=["tests"])
    assert [type(share) for share in (*read.shares, *read.pair)] == [float, float, int, float]
    check_config(whole)


def test_a_field_without_a_type_holds_anything_that_json_can() -> None:
    check_config(Numbers(anything=(1, "a", None), untyped={"b": 2.5}))
    assert check_refuses(Numbers(pair=(1, 2, 3))).startswith("config.pair is (1, 2, 3); allowed: ")
    assert check_refuses(Numbers(untyped={3: 4})) == "config.untyped has the key 3; keys are text"
    for name, value in {"place": Path("x"), "anything": {3}}.items():
        message = check_refuses(replace(Numbers(), **{name: value}))
        assert message.startswith(
            f"config.{name} is {value!r}, which JSON cannot hold; a config holds"
        )


@dataclass(frozen=True, kw_only=True)
class Forgetful:
    """What JSON cannot tell: a field that its own creation changes."""

    number: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "number", self.number + 1)


def test_a_config_that_is_another_one_after_its_json_is_refused() -> None:
    assert check_refuses(Forgetful()).startswith("config.number changes when it is writ")


@dataclass(frozen=True)
class Positional:
    """A frozen dataclass whose fields may go without a name."""

    number: int = 1


def test_what_is_no_config_class_is_refused() -> None:
    assert check_refuses(Positional()) == (
        f"config: class Positional of {__file__} is not a config; one is written as "
        "@dataclass(frozen=True, kw_only=True) at the top level of its file"
    )


def test_a_class_inside_a_function_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        number: int = 1

    assert check_refuses(Inner()) == (
        f"config: class Inner of {__file__} is defined inside a class or a function; move it to "
        "the top level of its file"
    )

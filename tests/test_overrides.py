"""Fields replaced by dotted name from the command line, and what a mistake there says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from baselines.transitions import TransitionsConfig
from research.data.preparation.options import PrepareConfig
from research.data.splits import GlobalTemporal, LeaveOneOut, UserHoldout
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import FullSoftmax, SampledSoftmax
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.overrides import override
from research.runs.config import RunConfig
from research.training.config import ValidationConfig
from tests.support.configs import CONFIGS, TWO_STAGES


def refusal(given: list[str], config: object = TWO_STAGES) -> str:
    with pytest.raises(InputError) as caught:
        override(config, given)
    return str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ["--encoder.width", "32"], ["--encoder.width=32"], ["encoder.width=32"],
        ["--encoder.width", "9", "encoder.width=32"],
    ],
)  # fmt: skip
def test_a_field_is_overridden_in_three_ways_and_the_last_counts(given: list[str]) -> None:
    config = override(TWO_STAGES, given)
    assert config == replace(TWO_STAGES, encoder=TransformerConfig(width=32))


def test_nothing_given_changes_nothing() -> None:
    for make in CONFIGS.values():
        assert override(make(), []) == make()


@pytest.mark.parametrize(
    "name", ["--encoder.final_norm", "encoder.final_norm", "--encoder.final-norm"]
)
@pytest.mark.parametrize(("on", "off"), [("True", "False"), ("true", "false")])
def test_booleans_are_said_in_words(name: str, on: str, off: str) -> None:
    assert override(TWO_STAGES, [f"{name}={on}"]).encoder.final_norm is True
    assert override(TWO_STAGES, [f"{name}={off}"]).encoder.final_norm is False


@pytest.mark.parametrize(
    ("given", "value"),
    [("64", 64), ("+64", 64), ("64.0", 64), ("6.4e1", 64)],
)  # fmt: skip
def test_a_whole_number_may_be_said_as_a_float(given: str, value: int) -> None:
    width = override(TWO_STAGES, [f"encoder.width={given}"]).encoder.width
    assert (width, type(width)) == (value, int)


def test_a_seed_may_have_many_digits() -> None:
    assert override(TWO_STAGES, ["seed=12345678901234567891"]).seed == 12345678901234567891


@pytest.mark.parametrize("given", ["1", "1.0", "1e0"])
def test_a_float_may_be_said_as_a_whole_number(given: str) -> None:
    lr = override(TWO_STAGES, [f"stages.0.optimizer.lr={given}"]).stages[0].optimizer.lr
    assert (lr, type(lr)) == (1.0, float)


@pytest.mark.parametrize(
    "given",
    [
        ["--stages.1.objectives.next.weight", "0.5"],
        ["--stages.1.objectives.next.weight=0.5"],
        ["stages.1.objectives.next.weight=0.5"],
    ],
)
def test_a_weight_inside_a_stage_is_overridden(given: list[str]) -> None:
    config = override(TWO_STAGES, given)
    assert config.stages[1].objectives["next"].weight == 0.5
    assert config.stages[1].objectives["cloze"] == TWO_STAGES.stages[1].objectives["cloze"]
    assert config.stages[0] == TWO_STAGES.stages[0]


def test_a_weight_of_zero_is_kept() -> None:
    config = override(TWO_STAGES, ["--stages.1.objectives.next.weight", "0"])
    assert config.stages[1].objectives["next"].weight == 0.0


def test_fields_of_the_chosen_classes_are_reached() -> None:
    given = [
        "--split.test_share=0.3", "--stages.1.windows.stride", "5",
        "stages.1.objectives.next.loss.number=9",
        "--stages.1.objectives.cloze.corruption.max_picked=None",
        "--stages.0.steps=12",
    ]  # fmt: skip
    config = override(TWO_STAGES, given)
    assert config.split == GlobalTemporal(test_share=0.3)
    assert config.stages[1].windows == Sliding(stride=5)
    assert config.stages[1].objectives["next"].loss == SampledSoftmax(log_q=True, number=9)
    assert config.stages[1].objectives["cloze"].corruption == MaskItems(count="rounded")
    assert config.stages[0].steps == 12


@pytest.mark.parametrize(
    "given",
    [
        ["--evaluation.metrics", "hr@1", "ndcg@3"],
        ["evaluation.metrics=hr@1", "ndcg@3"],
        ["evaluation.metrics=[hr@1,ndcg@3]"],
        ["evaluation.metrics=['hr@1', \"ndcg@3\"]"],
        ["--evaluation.metrics", "[hr@1,", "ndcg@3,]"],
        ["evaluation.metrics=(hr@1, ndcg@3)"],
    ],
)
def test_a_list_is_words_or_stands_in_brackets(given: list[str]) -> None:
    config = override(TWO_STAGES, [*given, "--seed", "3"])
    assert config.evaluation.metrics == ("hr@1", "ndcg@3")
    assert config.seed == 3


def test_a_list_may_be_of_one_or_none() -> None:
    assert override(TWO_STAGES, ["--evaluation.metrics", "mrr"]).evaluation.metrics == ("mrr",)
    assert override(TWO_STAGES, ["evaluation.metrics=[mrr]"]).evaluation.metrics == ("mrr",)
    assert override(TWO_STAGES, ["evaluation.candidates=[]"]).evaluation.candidates == ()


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A config with lists of numbers."""

    shares: tuple[float, ...] = ()
    limits: tuple[int | None, ...] = ()


def test_the_entries_of_a_list_are_of_its_type() -> None:
    config = override(Sizes(), ["shares=[1,0.5]", "--limits", "3", "null"])
    assert config == Sizes(shares=(1.0, 0.5), limits=(3, None))
    assert [type(share) for share in config.shares] == [float, float]
    assert refusal(["shares=[1,half]"], Sizes()) == (
        "shares is '[1,half]'; allowed: tuple[float, ...]"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["category,brand"], ("category", "brand")),
        (["category, brand"], ("category", "brand")),
        (["category", "brand"], ("category", "brand")),
        (["[category,'city, state']"], ("category", "city, state")),
        (["'city, state',brand"], ("city, state", "brand")),
        (["a,b", "c"], ("a,b", "c")),
        (["category"], ("category",)),
        ([","], (",",)),
    ],
)
def test_commas_separate_the_entries_of_a_list(given: list[str], expected: tuple[str, ...]) -> None:
    config = PrepareConfig(source="csv")
    assert override(config, ["--missing-words", *given]).missing_words == expected


@pytest.mark.parametrize("nothing", ["None", "null"])
def test_what_may_be_absent_is_removed(nothing: str) -> None:
    given = [f"--stages.0.validation={nothing}", "--stages.0.epochs", nothing, "stages.0.steps=3"]
    first = replace(TWO_STAGES.stages[0], validation=None, epochs=None, steps=3)
    assert override(TWO_STAGES, given) == replace(TWO_STAGES, stages=(first, TWO_STAGES.stages[1]))
    assert override(replace(TWO_STAGES, start_from="r"), [f"start_from={nothing}"]) == TWO_STAGES


@pytest.mark.parametrize(
    "path",
    ["encoder", "split", "stages.0", "stages.1.objectives.next", "stages.0.optimizer", "seed"],
)
def test_a_part_that_must_be_there_is_not_removed(path: str) -> None:
    assert refusal([f"--{path}", "None"]).startswith(f"{path} is 'None'; allowed: ")


# A class by its name


def test_a_part_is_given_a_class_by_name_with_fields_of_its_own_in_any_order() -> None:
    given = ["--split.test_share", "0.2", "--split", "GlobalTemporal"]
    for words in (given, [*given[2:], *given[:2]]):
        config = override(CONFIGS["sasrec, bce"](), words)
        assert config.split == GlobalTemporal(test_share=0.2)


def test_a_class_that_is_named_begins_at_its_own_defaults() -> None:
    assert TWO_STAGES.split == GlobalTemporal(test_share=0.2)
    assert override(TWO_STAGES, ["split=GlobalTemporal"]).split == GlobalTemporal()
    loss = "stages.1.objectives.next.loss"
    config = override(TWO_STAGES, [f"{loss}=SampledSoftmax", f"{loss}.number=7"])
    assert config.stages[1].objectives["next"].loss == SampledSoftmax(number=7)


def test_classes_are_named_anywhere() -> None:
    given = [
        "stages.1.objectives.next.loss=FullSoftmax", "--stages.0.windows", "Sliding",
        "--stages.0.windows.stride=3", "stages.0.own_windows.cloze=LastItems",
        "stages.1.validation=ValidationConfig", "stages.1.validation.patience=2",
        "stages.1.objectives.again=ClozeConfig", "stages.1.objectives.again.corruption.rate=0.5",
    ]  # fmt: skip
    assert (
        "my-own"
        in override(
            TWO_STAGES, ["stages.0.objectives.my-own=NextItemConfig", "stages.0.rank_by=my-own"]
        )
        .stages[0]
        .objectives
    )
    first, second = override(TWO_STAGES, given).stages
    assert second.objectives["next"] == NextItemConfig(loss=FullSoftmax())
    assert first.windows == Sliding(stride=3)
    assert first.own_windows == {"cloze": LastItems()}
    assert second.validation == ValidationConfig(patience=2)
    assert second.objectives["again"] == ClozeConfig(corruption=MaskItems(rate=0.5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("split=GlobalTemporl", "split is 'GlobalTemporl'; did you mean GlobalTemporal or "),
        ("split=x", "split is 'x'; allowed: ColdItems, GlobalTemporal, LeaveOneOut, TemporalCut"),
        ("split=Sliding", "split is 'Sliding'; "),
        ("split=os:system", "split is 'os:system'; "),
        ("stages.0.windows=RunConfig", "stages.0.windows is 'RunConfig'; "),
        ("encoder=ObjectiveConfig", "encoder is 'ObjectiveConfig'; did you mean CaserConfig or GR"),
        ("stages.0.objectives.new=ObjectiveConfig", "stages.0.objectives.new is 'ObjectiveConfig'"),
        ("stages.0.objectives.new.weight=2", "stages.0.objectives (dict) has no 'new'; allowed: "),
        ("stages=x", "stages is 'x'; allowed: tuple[StageConfig, ...]"),
        ("stages.0.objectives=x", "stages.0.objectives is 'x'; allowed: Mapping[str, ObjectiveC"),
        ("stages.0=StageConfig", "StageConfig needs a value for objectives"),
    ],
)
def test_a_class_that_does_not_fit_is_refused(given: str, message: str) -> None:
    assert refusal([given]).startswith(message)


@pytest.mark.parametrize("given", [["--ranker.newest_share", "0.5"], ["ranker.newest_share=0.5"]])
def test_a_ranker_of_ones_own_class_is_overridden(given: list[str]) -> None:
    config = override(CONFIGS["recent popularity"](), [*given, "seed=3"])
    assert config == RunConfig(ranker=PopularityConfig(newest_share=0.5), seed=3)


def test_a_ranker_is_replaced_by_another() -> None:
    config = override(CONFIGS["recent popularity"](), ["ranker=TransitionsConfig"])
    assert config == RunConfig(ranker=TransitionsConfig())


def test_what_is_not_there_has_no_fields_until_it_is_given_a_class() -> None:
    message = refusal(["--ranker.newest_share", "0.5"])
    assert message == (
        "ranker (NoneType) has no 'newest_share'; it is None and has no parts; give it a class "
        "first, ranker=NAME with one of EASEConfig, ItemKNNConfig, PopularityConfig, "
        "TransitionsConfig"
    )


class Shape:
    """No config by itself."""


@dataclass(frozen=True, kw_only=True)
class Square(Shape):
    """A shape of the tests' package."""

    side: float
    """Length."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Holds a shape."""

    shape: Shape | None = None
    """What is drawn."""
    sizes: tuple[int, ...] = field(default=(1, 2))
    """Lists of lengths."""


def test_a_users_class_is_named_where_its_package_is_known() -> None:
    for name in ("Square", "tests:Square"):
        given = [f"shape={name}", "shape.side=2"]
        assert override(Drawing(), given, packages=["tests"]) == Drawing(shape=Square(side=2.0))
        assert refusal(given, Drawing()) == f"shape is '{name}'; allowed: Shape | None"
    with pytest.raises(InputError, match="Square needs a value for side"):
        override(Drawing(), ["shape=Square"], packages=["tests"])


def test_two_classes_of_one_name_are_refused_where_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rivals.py").write_text(
        "from dataclasses import dataclass\n"
        "from research.model.positions import PositionsConfig\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Rotary(PositionsConfig):\n"
        "    def build(self, config):\n        raise NotImplementedError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        override(TWO_STAGES, ["encoder.positions=Rotary"], packages=["rivals"])
    for part in ("rivals.py", "rotary.py", "both define a config class Rotary"):
        assert part in str(caught.value)


# Mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--encoder.widht", "32"], "encoder (TransformerConfig) has no 'widht'; did you mean wid"),
        (["encoder.widht=32"], "encoder (TransformerConfig) has no 'widht'; did you mean width?"),
        (["--stages.1.objectives.nxt.weight", "1"], "stages.1.objectives (dict) has no 'nxt'; did"),
        (["--encoder.width", "wide"], "encoder.width is 'wide'; allowed: int"),
        (["--encoder.width", "1.5"], "encoder.width is '1.5'; allowed: int"),
        (["--encoder.width", "true"], "encoder.width is 'true'; allowed: int"),
        (["--encoder.width", "1", "2"], "encoder.width is '1 2'; allowed: int"),
        (["--encoder.width", "1e300"], "encoder.width is '1e300'; allowed: int"),
        (["--stages.0.optimizer.lr", "nan"], "stages.0.optimizer.lr is 'nan'; allowed: float"),
        (["--stages.0.optimizer.lr", "1e999"], "stages.0.optimizer.lr is '1e999'; allowed: float"),
        (["--encoder.activation", "tanh"], "encoder.activation is 'tanh'; allowed: gelu | gelu_"),
        (["encoder.final_norm=1"], "encoder.final_norm is '1'; allowed: bool"),
        (["stages.0.epochs=many"], "stages.0.epochs is 'many'; allowed: int | None"),
        (["corpus=a", "b"], "corpus is 'a b'; allowed: str"),
        (["--stages.7.validation", "None"], "stages (tuple) has no '7'; allowed: 0, 1"),
        (["stages.0.validatoin=None"], "stages.0 (StageConfig) has no 'validatoin'; did you mean"),
        (["--seed"], "--seed has no value; write --seed VALUE or seed=VALUE"),
        (["--seed", "--corpus", "x"], "--seed has no value; write --seed VALUE or seed=VALUE"),
        (["word"], "'word' belongs to no field; write --a.b 1, --a.b=1 or a.b=1"),
        (["--", "seed"], "'--' belongs to no field; write --a.b 1, --a.b=1 or a.b=1"),
        (["--=3", "4"], "RunConfig has no '=3'"),
        (["encoder..width=3"], "encoder (TransformerConfig) has no ''"),
        (["width=3"], "RunConfig has no 'width'; did you mean encoder.width?"),
        (
            ["clip-norm=3"],
            "RunConfig has no 'clip-norm'; did you mean stages.0.optimizer.clip_norm, "
            "stages.1.optimizer.clip_norm?",
        ),
    ],
)  # fmt: skip
def test_a_mistake_says_what_was_given_and_what_is_near(given: list[str], message: str) -> None:
    assert refusal(given).startswith(message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--ranker.newest_shar", "0.5"],
            "ranker (PopularityConfig) has no 'newest_shar'; did y",
        ),
        (["--ranker.newest_share", "half"], "ranker.newest_share is 'half'; allowed: float"),
        (["--ranker.newest_share"], "--ranker.newest_share has no value"),
    ],
)
def test_a_mistake_about_a_ranker_says_the_same(given: list[str], message: str) -> None:
    assert refusal(given, CONFIGS["recent popularity"]()).startswith(message)


def test_a_word_after_a_name_is_its_value_whatever_it_looks_like() -> None:
    config = override(TWO_STAGES, ["--corpus", "a=b", "--start_from=--x", "seed=3"])
    assert (config.corpus, config.start_from, config.seed) == ("a=b", "--x", 3)


def test_a_value_that_post_init_refuses_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"encoder\.heads is 3, which does not divide"):
        override(TWO_STAGES, ["--encoder.heads", "3"])


# Help


def help_of(capsys: pytest.CaptureFixture[str], config: object, *given: str) -> str:
    with pytest.raises(SystemExit) as caught:
        override(config, [*given, "--help"], program="the program", packages=["tests"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_tells_each_fields_type_meaning_and_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert help_of(capsys, Drawing(), "shape=Square", "shape.side=3") == (
        "usage: the program [--FIELD VALUE ...]   (--FIELD=VALUE and FIELD=VALUE mean the same)\n"
        "\n--shape  Square | None\n    What is drawn. (default: Square)\n"
        "\n--shape.side  float\n    Length. (default: 3.0)\n"
        "\n--sizes  tuple[int, ...]\n    Lists of lengths. (default: (1, 2))\n"
    )


def test_help_names_the_classes_that_a_part_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    help_text = help_of(capsys, TWO_STAGES)
    for part in (
        "--split  LeaveOneOut | UserHoldout | GlobalTemporal | TemporalCut | ",
        "--stages.1.windows  EveryPrefix | LastItems | ",
        "--stages.1.windows.stride  int | None\n",
        "--stages.1.objectives.next.weight  float\n    Weight among the stage's objectives. (def",
        # Classes of the tests are among them too.
        "--ranker  EASEConfig | ItemKNNConfig | PopularityConfig | ",
        " | TransitionsConfig | None\n    A ranker that only counts",
        "--encoder.activation  gelu | gelu_tanh | relu\n",
        "--stages.0  StageConfig\n    One stage of training: any objectives, on one kind of rows.",
    ):
        assert part in help_text


def test_help_tells_every_field_of_a_preparation(capsys: pytest.CaptureFixture[str]) -> None:
    help_text = help_of(capsys, PrepareConfig(source="csv"))
    assert (
        "--min_rating  float | None\n    Interactions rated lower are removed; None: none are."
        in help_text
    )


def test_other_splits_are_chosen_for_any_run() -> None:
    for split in (LeaveOneOut(), UserHoldout(), GlobalTemporal()):
        assert override(CONFIGS["two stages"](), [f"split={type(split).__name__}"]).split == split
    assert (
        override(CONFIGS["s3rec, corrected"](), ["stages.0.windows=EveryPrefix"]).stages[0].windows
        == EveryPrefix()
    )

"""Fields replaced by dotted name from the command line, and what a mistake there says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from baselines.popularity import PopularityConfig
from research.data.splits import GlobalTemporal
from research.data.windows import Sliding
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.item_losses import SampledSoftmax
from research.objectives.masking import MaskItems
from research.overrides import override
from research.run import RunConfig
from tests.configs import CONFIGS, TWO_STAGES


@pytest.mark.parametrize(
    "given", [["--encoder.width", "32"], ["--encoder.width=32"], ["encoder.width=32"]]
)
def test_a_field_is_overridden_in_three_ways(given: list[str]) -> None:
    config = override(TWO_STAGES, given)
    assert config == replace(TWO_STAGES, encoder=TransformerConfig(width=32))


def test_nothing_given_changes_nothing() -> None:
    for make in CONFIGS.values():
        assert override(make(), []) == make()


@pytest.mark.parametrize("given", ["--encoder.final_norm=True", "encoder.final_norm=True"])
def test_booleans_are_said_in_words(given: str) -> None:
    assert override(TWO_STAGES, [given]).encoder.final_norm is True
    off = given.replace("True", "False")
    assert override(TWO_STAGES, [off]).encoder.final_norm is False


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


def test_a_tuple_of_strings_is_overridden() -> None:
    config = override(TWO_STAGES, ["--evaluation.metrics", "hr@1", "ndcg@3"])
    assert config.evaluation.metrics == ("hr@1", "ndcg@3")


@pytest.mark.parametrize("given", [["--stages.0.validation", "None"], ["stages.0.validation=None"]])
def test_a_part_that_may_be_absent_is_removed(given: list[str]) -> None:
    config = override(TWO_STAGES, [*given, "--seed", "3"])
    first = replace(TWO_STAGES.stages[0], validation=None)
    assert config == replace(TWO_STAGES, stages=(first, TWO_STAGES.stages[1]), seed=3)


@pytest.mark.parametrize(
    "path", ["encoder", "split", "stages.0", "stages.1.objectives.next", "stages.0.optimizer"]
)
def test_a_part_that_must_be_there_is_not_removed(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        override(TWO_STAGES, [f"--{path}", "None"])
    assert caught.value.code == 2
    assert f"--{path}" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--ranker.newest_share", "0.5"], ["ranker.newest_share=0.5"]])
def test_a_ranker_of_ones_own_class_is_overridden(given: list[str]) -> None:
    config = override(CONFIGS["recent popularity"](), [*given, "seed=3"])
    assert config == RunConfig(ranker=PopularityConfig(newest_share=0.5), seed=3)


def test_a_ranker_that_is_not_there_has_no_fields() -> None:
    with pytest.raises(SystemExit) as caught:
        override(TWO_STAGES, ["--ranker.newest_share", "0.5"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("given", "hints"),
    [
        (["--ranker.newest_shar", "0.5"], ["newest_shar,", "--newest_share", "newest share of"]),
        (["ranker.newest_shar=0.5"], ["newest_shar,", "--newest_share"]),
        (["--ranker.newest_share", "half"], ["--newest_share", "half"]),
        (["--ranker.newest_share"], ["--newest_share"]),
    ],
)
def test_a_mistake_about_a_ranker_ends_with_status_2_too(
    given: list[str], hints: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        override(CONFIGS["recent popularity"](), given)
    assert caught.value.code == 2
    said = capsys.readouterr()
    for hint in hints:
        assert hint in said.err + said.out


@pytest.mark.parametrize(
    ("given", "hints"),
    [
        (["--encoder.widht", "32"], ["--encoder.width"]),
        (["encoder.widht=32"], ["--encoder.width"]),
        (["--stages.1.objectives.nxt.weight", "1"], ["--stages.1.objectives.next.weight"]),
        (["--encoder.width", "wide"], ["--encoder.width", "wide"]),
        (["--encoder.activation", "tanh"], ["activation", "tanh"]),
        (["--stages.7.validation", "None"], ["--stages.7.validation", "--stages.0.validation"]),
        (["stages.0.validatoin=None"], ["--stages.0.validatoin", "--stages.0.validation"]),
    ],
)
def test_a_mistake_ends_with_status_2_and_says_what_is_near(
    given: list[str], hints: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        override(TWO_STAGES, given)
    assert caught.value.code == 2
    said = capsys.readouterr()
    for hint in hints:
        assert hint in said.err + said.out


def test_help_tells_each_fields_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        override(TWO_STAGES, ["--help"], program="the program")
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("the program", "--encoder.width", "--stages.1.objectives.next.weight", "default"):
        assert part in said


def test_a_value_that_post_init_refuses_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"encoder\.heads is 3, which does not divide"):
        override(TWO_STAGES, ["--encoder.heads", "3"])

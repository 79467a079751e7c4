"""The runs and studies read from the sources are those that the imported modules have."""

from __future__ import annotations

import importlib
from inspect import isfunction

import pytest

from research.config_index import parsed_sources
from research.runs.config import RunConfig
from research.studies.known_targets import KnownTarget, known_targets, near_targets
from research.studies.study import Study
from research.studies.target import is_or_returns
from research.studies.tuning import Tuning


@pytest.mark.parametrize("package", ["baselines", "experiments"])
def test_known_targets_are_the_functions_that_importing_finds(package: str) -> None:
    modules = {name for name, _, _ in parsed_sources(package) if ".benchmark" not in name}
    imported = {
        (name, each.__name__)
        for name in modules
        for each in vars(importlib.import_module(name)).values()
        if isfunction(each) and each.__module__ == name and not each.__name__.startswith("_")
        if any(is_or_returns(each, kind) for kind in (RunConfig, Study, Tuning))
    }
    assert imported == {
        (entry.module, entry.name) for entry in known_targets() if entry.module in modules
    }


def test_a_known_target_says_what_to_type_and_what_it_is() -> None:
    (entry,) = [entry for entry in known_targets() if entry.module == "baselines.transitions"]
    assert (entry.verb, entry.target) == ("run", "baselines.transitions.transitions")
    assert entry.about == "Rank by counts of direct successors."
    assert entry.module_about.startswith("A counting ranker by first-order transitions: ")
    (study,) = [entry for entry in known_targets() if entry.module == "experiments.quickstart"]
    assert (study.verb, study.target) == ("study", "experiments.quickstart")


def targets(found: list[KnownTarget]) -> list[str]:
    return [f"{entry.verb} {entry.target}" for entry in found]


def test_a_modules_last_word_means_all_of_it() -> None:
    assert targets(near_targets("popularity", "run")) == [
        "run baselines.popularity.popularity",
        "run baselines.popularity.recent",
        "run baselines.popularity.pop_7_days",
    ]
    assert targets(near_targets("bert4rec", "study")) == [
        "study experiments.bert4rec",
        "study experiments.subsequences.bert4rec",
    ]
    assert targets(near_targets("losses", "run")) == ["study experiments.losses"]


def test_a_word_like_none_gives_none() -> None:
    assert near_targets("zzz", "run") == []

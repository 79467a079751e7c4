"""Targets: configs as JSON, overrides, names of metrics, budgets, and what a target word names."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from research.config import from_json, to_json
from research.config_index import PACKAGES, definitions
from research.data.preparation.options import PrepareConfig
from research.errors import InputError
from research.evaluation.metrics import metrics, parse_metric
from research.interop.bert4rec_config import read_bert_config
from research.overrides import override, replace_fields
from research.runs.config import EvaluationConfig
from research.runs.execute import RunConfig
from research.storage.json_files import read_json
from research.studies.budget import budget_of
from research.studies.target import load_target
from tests.fuzz.mutations import number_of, string_of, value_altered, value_of
from tests.fuzz.targets import Case, Target, altering, written
from tests.support.configs import CONFIGS
from tests.support.study_folders import table_of

# `override` ends the program after --help.
ENDS = (InputError, SystemExit)
CLASSES = ("GlobalTemporal", "Sliding", "FullSoftmax", "SampledSoftmax", "ClozeConfig", "RunConfig")
CLASSES += (
    "StageConfig",
    "ObjectiveConfig",
    "os:system",
    "tests:Mine",
    "research.run:RunConfig",
)


def config_json(folder: Path) -> Case:
    """Run configs as a run folder has them, from the bytes of the file on."""
    files = {
        f"{place}.json": json.dumps(to_json(make())) for place, make in enumerate(CONFIGS.values())
    }
    written(folder, {**files, "class.json": json.dumps(to_json(PrepareConfig(source="csv")))})
    paths = sorted(folder.iterdir())
    cases = [
        altering(
            folder, lambda random, path=path: from_json(read_json(path), RunConfig), [path.name]
        )
        for path in paths
    ]
    return lambda random: random.choice(cases)(random)


def config_value(folder: Path) -> Case:
    """Run configs as any JSON values, those that no file can hold among them."""
    stored = [to_json(make()) for make in CONFIGS.values()]
    return lambda random: from_json(value_altered(random, random.choice(stored)), RunConfig)


def config_class_names(folder: Path) -> Case:
    """Run configs in which a class has another name: of ours, of any package, or of no class."""
    stored = [to_json(make()) for make in CONFIGS.values()]
    ours = [name for package in PACKAGES for name in definitions(package)]
    odd = ["os:system", "builtins:eval", "tests:Words", "tests.own:X", "research:RunConfig"]
    odd += [
        "research.run:RunConfig",
        ":",
        "a:",
        ":RunConfig",
        "RunConfig:",
        "",
        "__class__",
    ]

    def case(random: Random) -> None:
        config = copy.deepcopy(random.choice(stored))
        part = random.choice(list(parts_with_class(config)))
        name = random.choice((random.choice(ours), random.choice(odd), string_of(random)))
        part["class"] = name
        from_json(config, RunConfig, allow=random.choice(((), ("tests",))))

    return case


def parts_with_class(value: object) -> Iterator[dict[str, object]]:
    """Every object in JSON that stands for a config."""
    if isinstance(value, dict) and "class" in value:
        yield value
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from parts_with_class(part)


def words_of(random: Random, names: list[str]) -> list[str]:
    """Words of a command line: names of fields, near and odd ones, with any values."""
    words = []
    for _ in range(random.choice((1, 1, 2, 3))):
        name = random.choice(names)
        change = random.randrange(8)
        if change == 0:
            name = name[: random.randrange(len(name))] + string_of(random)
        elif change == 1:
            name = name.replace(".0", f".{number_of(random)}")
        elif change == 2:
            name = string_of(random)
        usual = ["1", "0.5", "None", "null", "full", "ndcg@10", "True", "false", "a b", "[x, 1]"]
        usual += [str(number_of(random)), random.choice(CLASSES), string_of(random)]
        value = random.choice(usual)
        form = random.randrange(5)
        words += [f"--{name}", value] if form <= 1 else [f"{'--' * (form == 2)}{name}={value}"]
        if random.random() < 0.05:
            words.append(random.choice(("--", "-", "--help", "-x", value, f"--{name}")))
    # A process cannot be given a null byte, and what is no Unicode comes as halves of surrogates.
    return [word.replace("\x00", "") for word in words]


def leaves(value: object, path: str = "") -> list[str]:
    """Dotted names of a config's JSON."""
    own = [path] if path else []
    parts = {}
    if isinstance(value, dict):
        parts = {name: part for name, part in value.items() if name != "class"}
    elif isinstance(value, list):
        parts = {str(place): part for place, part in enumerate(value)}
    dotted = f"{path}." if path else ""
    return own + [name for key, part in parts.items() for name in leaves(part, f"{dotted}{key}")]


def overriding(makes: list[Callable[[], object]], folder: Path) -> Case:
    made = [make() for make in makes]
    known = [(config, leaves(to_json(config))) for config in made]

    def case(random: Random) -> None:
        config, names = random.choice(known)
        override(config, words_of(random, names))

    return case


def changes(folder: Path) -> Case:
    """Cells of a study: fields by dotted name, with any values."""
    known = [(make(), leaves(to_json(make()))) for make in CONFIGS.values()]

    def case(random: Random) -> None:
        config, names = random.choice(known)
        chosen = {}
        for _ in range(random.choice((1, 1, 2))):
            name = random.choice(names) if random.random() < 0.8 else string_of(random)
            name += random.choice(("", "", "", ".x", ".0", ".", f".{string_of(random)}"))
            chosen[name] = random.choice((value_of(random), random.choice(CLASSES)))
        replace_fields(config, chosen)

    return case


def metric_names(folder: Path) -> Case:
    table = table_of([1.0, 2.0, 3.5, float("inf"), 5.0, 9.0])

    def case(random: Random) -> None:
        kind = random.choice(("hr", "ndcg", "mrr", "recall", "precision", "map", string_of(random)))
        middle = random.choice(("@", "@", "@", "", "@@", string_of(random)))
        name = kind + middle + random.choice((str(number_of(random)), "10", "", string_of(random)))
        parse_metric(name)
        metrics(table, [name])
        EvaluationConfig(metrics=(name,), candidates=(name.replace("hr@", "uniform-"),))

    return case


def budgets(folder: Path) -> Case:
    config = CONFIGS["two stages"]()

    def case(random: Random) -> None:
        of = random.choice(("steps", "tokens", "seconds", string_of(random)))
        between = random.choice(("=", "=", "=", "", "==", string_of(random)))
        amount = random.choice((str(number_of(random)), "1e9", "0.1", "1e308", string_of(random)))
        budget = budget_of(of + between + amount)
        str(budget)
        budget.apply_to(config)

    return case


def target_words(folder: Path) -> Case:
    """What `run` and `study` are told to import, of our own modules: any other may do anything."""
    words = ["baselines.sasrec.full_softmax", "baselines.popularity:popularity", "baselines.sasrec"]
    words += [
        "baselines",
        "research.run:RunConfig",
        "research.studies.study",
        "tests.support.configs:TWO_STAGES",
    ]

    def case(random: Random) -> None:
        word = random.choice(words)
        place = random.randrange(len(word) + 1)
        change = random.randrange(4)
        if change == 0:
            word = word[:place] + string_of(random) + word[place:]
        elif change == 1:
            word = word[:place] + random.choice(":.:._ ") + word[place + random.randrange(2) :]
        elif change == 2:
            word = word[:place] + word[place + 1 + random.randrange(3) :]
        else:
            word = string_of(random) + random.choice((".", ":", "")) + string_of(random)
        if word.partition(":")[0].partition(".")[0] in ("baselines", "research", "tests", ""):
            load_target(word, RunConfig)
        elif not word.isidentifier() and ":" not in word:
            load_target(word.replace(".", ".\u00b2"), RunConfig)

    return case


def bert_config(folder: Path) -> Case:
    fields = {
        "attention_probs_dropout_prob": 0.2, "hidden_act": "gelu", "hidden_dropout_prob": 0.5,
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 256,
        "max_position_embeddings": 200, "num_attention_heads": 2, "num_hidden_layers": 2,
        "type_vocab_size": 2, "vocab_size": 3420,
    }  # fmt: skip
    path = written(folder, {"bert_config.json": json.dumps(fields)}) / "bert_config.json"
    return altering(folder, lambda random: read_bert_config(path))


TARGETS = (
    Target(name="config-json", milliseconds=2.5, begin=config_json),
    Target(name="config-value", milliseconds=1.5, begin=config_value),
    Target(name="config-class-names", milliseconds=1.0, begin=config_class_names),
    Target(
        name="overrides-run",
        milliseconds=2.0,
        begin=partial(overriding, list(CONFIGS.values())),
        allowed=ENDS,
    ),
    Target(
        name="overrides-prepare",
        milliseconds=0.5,
        begin=partial(overriding, [lambda: PrepareConfig(source="csv", raw="x")]),
        allowed=ENDS,
    ),
    Target(name="changes", milliseconds=10.0, begin=changes),
    Target(name="metric-names", milliseconds=0.2, begin=metric_names),
    Target(name="budgets", milliseconds=0.1, begin=budgets),
    Target(name="target-words", milliseconds=2.0, begin=target_words),
    Target(name="bert-config", milliseconds=0.2, begin=bert_config),
)

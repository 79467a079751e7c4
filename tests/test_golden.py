"""The golden list: every config class that a run or a corpus may hold, its fields and defaults, and
hashes of six runs. `python -m tests.test_golden` says how the code differs from it, and `--write`
writes it anew.

A hash leaves out what is at its default, so that a run keeps its hash while configs grow. The list
may grow as well; a line of it may never change nor go once runs are kept: a default that changed
would give two different runs one hash. What shall mean something else is a new field, whose default
gives what the code did before there was one.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from dataclasses import MISSING
from pathlib import Path
from typing import get_args

from baselines.popularity import PopularityConfig
from research.annotations import default_of, field_hints
from research.config import hash_of, to_json
from research.config_index import config_classes
from research.data.loader import BatchConfig
from research.data.preparation.options import PrepareConfig
from research.data.splits import GlobalTemporal, LeaveOneOut
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.losses import BinaryCrossEntropy, SampledSoftmax
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig

GOLDEN = Path(__file__).with_name("golden_configs.txt")
# Written out, and not taken from baselines/, which may improve.
RUNS = {
    "next item, all defaults": RunConfig(
        stages=(StageConfig(objectives={"next": NextItemConfig()}),)
    ),
    "next item, sampled": RunConfig(
        corpus="ml-1m",
        encoder=TransformerConfig(length=200, width=128, layers=3, heads=4),
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(loss=SampledSoftmax(number=100, log_q=True))},
                batches=BatchConfig(sequences_per_batch=128, micro_batches=2),
                epochs=None,
                steps=10_000,
                optimizer=OptimizerConfig(lr=0.002, clip_norm=1.0),
            ),
        ),
        seed=3,
    ),
    "cloze": RunConfig(
        stages=(
            StageConfig(
                name="cloze",
                objectives={
                    "cloze": ClozeConfig(
                        corruption=MaskItems(rate=0.4, random_share=0.1),
                        head=HeadConfig(bias=True, transform="nonlinear"),
                    )
                },
                windows=Sliding(stride=10),
                optimizer=OptimizerConfig(
                    method="adamw", schedule=ScheduleConfig(shape="linear", warmup_steps=100)
                ),
                validation=ValidationConfig(metric="mrr", patience=None),
            ),
        ),
        evaluation=EvaluationConfig(metrics=("hr@1", "mrr"), candidates=("full", "uniform-100")),
    ),
    "two stages": RunConfig(
        stages=(
            StageConfig(
                name="pretrain",
                objectives={
                    "aap": AAPConfig(weight=0.2),
                    "mip": MIPConfig(),
                    "map": MAPConfig(),
                    "sp": SPConfig(weight=0.5),
                },
                windows=EveryPrefix(),
                epochs=100,
                normalize="sequences",
                validation=None,
            ),
            StageConfig(
                name="finetune", objectives={"next": NextItemConfig(loss=BinaryCrossEntropy())}
            ),
        ),
    ),
    "two in one stage": RunConfig(
        split=GlobalTemporal(test_share=0.2),
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(weight=2), "cloze": ClozeConfig()},
                windows=LastItems(),
                own_windows={"cloze": EveryPrefix()},
                rank_by="next",
            ),
        ),
    ),
    "counting": RunConfig(
        split=LeaveOneOut(validation_in_training=True), ranker=PopularityConfig(newest_share=0.5)
    ),
}


def inside(hint: object) -> Iterator[object]:
    """An annotation and all annotations in it."""
    yield hint
    for each in get_args(hint):
        yield from inside(each)


def held_by(*kinds: type) -> set[type]:
    """The classes, and those of all configs that they may hold."""
    found, left = set[type](), list(kinds)
    while left:
        kind = left.pop()
        if kind not in found:
            found.add(kind)
            hints = [each for hint in field_hints(kind).values() for each in inside(hint)]
            bases = [hint for hint in hints if isinstance(hint, type) and not get_args(hint)]
            left += [each for base in bases for each in config_classes(base)]
    return found


def lines() -> Iterator[str]:
    """What the golden list says."""
    for kind in sorted(held_by(RunConfig, PrepareConfig), key=lambda kind: kind.__name__):
        yield kind.__name__
        for name, hint in field_hints(kind).items():
            default = default_of(kind, name)
            yield f"    {name}" + ("" if default is MISSING else f" = {short_json(default, hint)}")
    yield "hashes"
    yield from (f"    {name}: {hash_of(config)}" for name, config in RUNS.items())


def short_json(default: object, hint: object) -> str:
    return json.dumps(to_json(default, hint, short=True), sort_keys=True)


def difference() -> str:
    """How the code differs from the golden list, as `diff` has it."""
    golden = GOLDEN.read_text().splitlines()
    return "\n".join(
        difflib.unified_diff(golden, list(lines()), "golden", "code", lineterm="", n=9)
    )


def test_classes_fields_defaults_and_hashes_are_those_of_the_golden_list() -> None:
    assert difference() == "", "see the docstring of tests/test_golden.py"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        GOLDEN.write_text("\n".join(lines()) + "\n")
    else:
        print(difference() or "the code is as the golden list says")

"""The studies that ship: cells change what they are named for, budgets are equal, all run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import experiments.encoder
import experiments.losses
import experiments.masking
import experiments.objectives
import experiments.published_quirks
import experiments.weights
from research.config import hash_of
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.distributed.accelerator import make_accelerator
from research.runs.config import RunConfig
from research.runs.differences import difference_of
from research.runs.execute import RunOptions
from research.studies.budget import Budget
from research.studies.cells import Cells
from research.studies.study import Study, StudyOptions, run_study
from tests.support.synthetic import markov_histories, write_histories

pytestmark = pytest.mark.long

STUDIES = {
    "objectives": experiments.objectives.study,
    "objectives against none": experiments.objectives.against_none,
    "objectives, lastfm": experiments.objectives.lastfm,
    "objectives, beauty": experiments.objectives.beauty,
    "losses": experiments.losses.study,
    "masking": experiments.masking.study,
    "encoder": experiments.encoder.study,
    "published_quirks": experiments.published_quirks.study,
    "published_quirks, bce": experiments.published_quirks.bce,
    "weights": experiments.weights.study,
}
PRETRAIN, LOSS = "stages.0.objectives", "stages.0.objectives.next.loss"
HEAD = "stages.0.objectives.next.head"
MASKS = "stages.0.objectives.cloze.corruption"
FINETUNE = "stages.1.objectives.next"
Changes = dict[str, list[object]]


def missing(*keys: str) -> Changes:
    classes = {"aap": "AAPConfig", "mip": "MIPConfig", "map": "MAPConfig", "sp": "SPConfig"}
    return {f"{PRETRAIN}.{key}": [classes[key], None] for key in keys}


def cloze(**fields: object) -> Changes:
    """Cloze beside the heads, hiding what they hide."""
    return {
        f"{PRETRAIN}.cloze": [None, "ClozeConfig"],
        **{f"{PRETRAIN}.cloze.{name}": [None, value] for name, value in fields.items()},
        f"{PRETRAIN}.cloze.corruption.mask_last_share": [None, 1.0],
    }


def loss(kind: str, **fields: object) -> Changes:
    return {
        LOSS: ["FullSoftmax", kind],
        **{f"{LOSS}.{name}": [None, value] for name, value in fields.items()},
    }


def set_in(keys: tuple[str, ...], field: str, values: list[object]) -> Changes:
    return {f"{PRETRAIN}.{key}.{field}": values for key in keys}


MIP, SP = f"{PRETRAIN}.mip", f"{PRETRAIN}.sp"
QUIRKS: dict[str, Changes] = {
    "mip-sigmoid": {f"{MIP}.loss.inner_sigmoid": [False, True]},
    "sp-sigmoid": {f"{SP}.inner_sigmoid": [False, True]},
    "mip-mask": {f"{MIP}.loss.negatives.include_mask": [False, True]},
    "mip-window": {f"{MIP}.loss.negatives.exclude": ["training", "window"]},
    "sp-everything": {f"{SP}.corruption.foreign": ["training", "everything"]},
    "sp-short-rows": {f"{SP}.corruption.short_rows": [False, True]},
    "zero-attribute": set_in(("aap", "map"), "zero_attribute", [False, True]),
    "bare-items": set_in(("aap", "map"), "count_bare_items", [False, True]),
    "last-masked": set_in(("aap", "mip", "map"), "corruption.mask_last_share", [0.0, 1.0]),
    "sums": {"stages.0.normalize": ["terms", "sequences"]},
}
PRETRAINING = "150 epochs, adam at 0.003, aap 0.2 + mip 1 + map 1 + sp 0.5"
JOINT: Changes = {
    "stages.joint": [
        None,
        "200 epochs, adam at 0.003, next 1 + cloze 1 + aap 0.2 + mip 1 + map 1 + sp 0.5",
    ],
    "stages.joint.objectives.next": [None, "NextItemConfig"],
    "stages.joint.objectives.cloze": [None, "ClozeConfig"],
    "stages.joint.objectives.aap": [None, "AAPConfig"],
    "stages.joint.objectives.aap.weight": [None, 0.2],
    "stages.joint.objectives.mip": [None, "MIPConfig"],
    "stages.joint.objectives.map": [None, "MAPConfig"],
    "stages.joint.objectives.sp": [None, "SPConfig"],
    "stages.joint.objectives.sp.weight": [None, 0.5],
    **{
        f"stages.joint.objectives.{key}.corruption.mask_last_share": [None, 1.0]
        for key in ("cloze", "aap", "mip", "map")
    },
    "stages.joint.windows": [None, "Sliding"],
    "stages.joint.batches.sequences_per_batch": [None, 64],
    "stages.joint.optimizer.lr": [None, 0.003],
    "stages.joint.rank_by": [None, "next"],
    "stages.joint.validation.patience": [None, None],
}
# By study and cell: all that the cell changes of the base, apart from what its stages may spend.
EXPECTED: dict[str, dict[str, Changes]] = {
    "objectives": {
        "none": {"stages.pretrain": [PRETRAINING, None]},
        "no-aap": missing("aap"),
        "no-mip": missing("mip"),
        "no-map": missing("map"),
        "no-sp": missing("sp"),
        "only-aap": missing("mip", "map", "sp"),
        "only-mip": missing("aap", "map", "sp"),
        "only-map": missing("aap", "mip", "sp"),
        "only-sp": missing("aap", "mip", "map"),
        "cloze": {**missing("aap", "mip", "map", "sp"), **cloze()},
        "cloze+s3": cloze(),
        "joint": {
            "stages.pretrain": [PRETRAINING, None],
            "stages.finetune": ["200 epochs, adam at 0.003, next", None],
            **JOINT,
        },
    },
    "losses": {
        "softmax-bf16": {f"{LOSS}.bf16_logits": [False, True]},
        "softmax-smoothed": {f"{LOSS}.label_smoothing": [0.0, 0.1]},
        "softmax-cosine": {
            f"{HEAD}.similarity": ["dot", "cosine"], f"{HEAD}.temperature": [1.0, 0.05],
        },
        "bce-1": loss("BinaryCrossEntropy"),
        "bce-4": loss("BinaryCrossEntropy", number=4),
        "bce-16": loss("BinaryCrossEntropy", number=16),
        "bce-64": loss("BinaryCrossEntropy", number=64),
        "gbce-64": loss("GeneralizedBCE", number=64),
        "gbce-64-t1": loss("GeneralizedBCE", number=64, calibration=1.0),
        "sampled-16": loss("SampledSoftmax", number=16),
        "sampled-64": loss("SampledSoftmax", number=64),
        "sampled-256-shared": loss("SampledSoftmax", share="sequence"),
        "sampled-256-logq": {
            **loss("SampledSoftmax", share="sequence", log_q=True),
            f"{LOSS}.negatives.distribution": [None, "popularity"],
        },
        "sampled-256-target": {
            **loss("SampledSoftmax", share="sequence", log_q=True, corrected=True),
            f"{LOSS}.negatives.distribution": [None, "popularity"],
        },
        "in-batch": loss("InBatchSoftmax"),
        "in-batch-logq": loss("InBatchSoftmax", log_q=True, q_from="training"),
        "in-batch-target": loss(
            "InBatchSoftmax", log_q=True, q_from="training", corrected=True
        ),
        "mixed-256": loss("MixedSoftmax", number=256),
        "mixed-256-target": loss("MixedSoftmax", number=256, corrected=True),
        "bpr-1": loss("BayesianPersonalizedRanking"),
        "bpr-16": loss("BayesianPersonalizedRanking", number=16),
    },
    "masking": {
        **{f"rate={rate}": {f"{MASKS}.rate": [0.3, rate]} for rate in (0.1, 0.2, 0.4, 0.6, 0.8)},
        "last=0": {f"{MASKS}.mask_last_share": [0.5, 0.0]},
        "last=0.25": {f"{MASKS}.mask_last_share": [0.5, 0.25]},
        "last=1": {f"{MASKS}.mask_last_share": [0.5, 1.0]},
        "last-only=0.1": {f"{MASKS}.last_only_share": [0.0, 0.1]},
        "behind=80-10-10": {
            f"{MASKS}.random_share": [0.0, 0.1], f"{MASKS}.keep_share": [0.0, 0.1],
        },
        "behind=random": {f"{MASKS}.random_share": [0.0, 0.2]},
        "behind=kept": {f"{MASKS}.keep_share": [0.0, 0.2]},
    },
    "encoder": {
        **{f"layers={layers}": {"encoder.layers": [2, layers]} for layers in (1, 3, 4)},
        **{f"heads={heads}": {"encoder.heads": [2, heads]} for heads in (1, 4, 8)},
        "width=16": {"encoder.width": [64, 16], "encoder.feed_forward": [256, 64]},
        "width=32": {"encoder.width": [64, 32], "encoder.feed_forward": [256, 128]},
        "width=128": {"encoder.width": [64, 128], "encoder.feed_forward": [256, 512]},
        "inner=64": {"encoder.feed_forward": [256, 64]},
        "inner=128": {"encoder.feed_forward": [256, 128]},
        **{f"length={length}": {"encoder.length": [50, length]} for length in (10, 20, 100)},
        "positions=oldest": {"encoder.positions.count_from": ["newest", "oldest"]},
        "activation=relu": {"encoder.activation": ["gelu", "relu"]},
        "norm=post": {
            "encoder.block": ["PreNorm", "PostNorm"], "encoder.final_norm": [True, False],
            "encoder.embedding_norm": [False, True],
        },
        "norm=query": {"encoder.block": ["PreNorm", "QueryNorm"]},
        "norm=embedding-on": {"encoder.embedding_norm": [False, True]},
        "norm=final-off": {"encoder.final_norm": [True, False]},
        **{f"dropout={rate:g}": {"encoder.dropout": [0.2, rate]} for rate in (0.0, 0.1, 0.5)},
        "attention-dropout=0.2": {"encoder.attention_dropout": [0.0, 0.2]},
    },
    "published_quirks": {
        **QUIRKS,
        "all": {field: values for changes in QUIRKS.values() for field, values in changes.items()},
        "special-classes": {f"{FINETUNE}.head.special_classes": [False, True]},
        "seen-zero": {"evaluation.seen": ["excluded", "zero"]},
    },
    "published_quirks, bce": {
        "bce-mask": {f"{FINETUNE}.loss.negatives.include_mask": [False, True]},
        "bce-history": {f"{FINETUNE}.loss.negatives.exclude": ["training", "history"]},
        "bce-special-classes": {f"{FINETUNE}.head.special_classes": [False, True]},
        "softmax": {f"{FINETUNE}.loss": ["BinaryCrossEntropy", "FullSoftmax"]},
    },
    "weights": {
        "aap=x0.1": {f"{PRETRAIN}.aap.weight": [0.2, 0.02]},
        "aap=x10": {f"{PRETRAIN}.aap.weight": [0.2, 2.0]},
        "mip=x0.1": {f"{PRETRAIN}.mip.weight": [1.0, 0.1]},
        "mip=x10": {f"{PRETRAIN}.mip.weight": [1.0, 10.0]},
        "map=x0.1": {f"{PRETRAIN}.map.weight": [1.0, 0.1]},
        "map=x10": {f"{PRETRAIN}.map.weight": [1.0, 10.0]},
        "sp=x0.1": {f"{PRETRAIN}.sp.weight": [0.5, 0.05]},
        "sp=x10": {f"{PRETRAIN}.sp.weight": [0.5, 5.0]},
        "cloze=0.1": cloze(weight=0.1),
        "cloze=1": cloze(),
        "cloze=10": cloze(weight=10.0),
        "all=equal": {f"{PRETRAIN}.aap.weight": [0.2, 1.0], f"{PRETRAIN}.sp.weight": [0.5, 1.0]},
        "all=equal-means": {
            f"{PRETRAIN}.aap.weight": [0.2, 1.0], f"{PRETRAIN}.sp.weight": [0.5, 1.0],
            "stages.0.normalize": ["sequences", "terms"],
        },
        "combination=sp-ramp": {
            "stages.0.combination": ["WeightedSum", "WeightRamps"],
            "stages.0.combination.ramps.sp": [None, "Ramp"],
            "stages.0.combination.ramps.sp.end": [None, 300],
        },
        "combination=uncertainty": {"stages.0.combination": ["WeightedSum", "UncertaintyWeights"]},
        "combination=pcgrad": {"stages.0.combination": ["WeightedSum", "PCGrad"]},
        "combination=one-a-step": {"stages.0.combination": ["WeightedSum", "OneObjective"]},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """40 users; more items than the 256 negatives of a loss, each with attributes, as films have.

    A tenth of the items have none.
    """
    histories = markov_histories(num_users=40, num_items=300, length=9, seed=5)
    attributes = [[item % 3] if item % 10 else [] for item in range(300)]
    folder = tmp_path_factory.mktemp("films") / "films"
    return write_histories(folder, histories, num_items=300, attributes=attributes)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_cell_changes_what_its_name_says_and_nothing_else(name: str) -> None:
    study = STUDIES[name]()
    base = study.cells[study.base]
    found = {cell: difference_of(base, config) for cell, config in study.cells.items()}
    assert found == {study.base: {}, **EXPECTED[name]}


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_names_are_folders_and_no_two_cells_are_the_same_run(make: Callable[[], Study]) -> None:
    study = make()
    assert len({hash_of(config) for config in study.cells.values()}) == len(study.cells)
    for name in (study.name, *study.cells):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", name), name
        assert len(name) <= 24


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_every_run_of_a_study_may_see_as_many_tokens(make: Callable[[], Study]) -> None:
    study = make()
    assert study.budget is not None
    for cell in study.cells:
        stages = study.run(cell, "ml-100k", 0).stages
        assert sum(cast(int, stage.tokens) for stage in stages) == study.budget.amount
        assert [stage.name for stage in stages if stage.validation is not None] == [stages[-1].name]


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_a_stage_that_ranks_is_selected_alike_in_every_cell(make: Callable[[], Study]) -> None:
    study = make()
    last = [study.run(cell, "ml-100k", 0).stages[-1] for cell in study.cells]
    assert len({(stage.windows, stage.validation, stage.optimizer) for stage in last}) == 1


def test_both_questions_about_objectives_are_asked_of_the_same_runs() -> None:
    study, other = experiments.objectives.study(), experiments.objectives.against_none()
    assert (study.name, study.cells, study.budget) == (other.name, other.cells, other.budget)
    assert (study.base, other.base) == ("s3", "none")


# Every study, small


def small(config: RunConfig) -> RunConfig:
    """A fifth of the length, a quarter of the width: levels stay apart."""
    own = config.encoder
    encoder = replace(
        own, length=own.length // 5, width=own.width // 4, feed_forward=own.feed_forward // 8
    )
    batches = BatchConfig(sequences_per_batch=16)
    stages = tuple(replace(stage, batches=batches) for stage in config.stages)
    return replace(config, encoder=encoder, stages=stages)


def shrunk(study: Study, corpus: Corpus) -> Study:
    """The study on a small corpus with one seed: three steps a run, and every factor kept."""
    cells: Cells = {cell: small(config) for cell, config in study.cells.items()}
    assert study.budget is not None
    budget = Budget(of="steps", amount=3, shares=study.budget.shares)
    corpora = (str(corpus.folder),)
    return replace(study, cells=cells, corpora=corpora, seeds=(0,), budget=budget)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_study_runs_end_to_end(name: str, films: Corpus, tmp_path: Path) -> None:
    study = shrunk(STUDIES[name](), films)
    jobs = run_study(
        study,
        tmp_path,
        options=RunOptions(quiet=True),
        accelerator=make_accelerator(),
        study_options=StudyOptions(probe=False),
    )
    assert {job.cell: job.failure() for job in jobs} == dict.fromkeys(study.cells)
    record = json.loads((tmp_path / study.name / "study.json").read_text())
    assert record["cells"] == list(study.cells)
    assert record["changes"].keys() == study.cells.keys()
    protocols = {}
    for job in jobs:
        summary = job.summary()
        assert sum(stage.steps for stage in summary.best.values()) == 3
        assert np.isfinite(summary.test["full"]["ndcg@10"])
        protocols[job.cell] = summary.protocol
    apart = [cell for cell in study.cells if protocols[cell] != protocols[study.base]]
    assert apart == [cell for cell in study.cells if cell.endswith(("special-classes", "zero"))]

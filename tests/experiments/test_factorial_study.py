"""A factorial study of real runs finds the effect that was planted, and no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.distributed.accelerator import make_accelerator
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.next_item import NextItemConfig
from research.report.build import report_of
from research.report.html import page_of
from research.runs.config import RunConfig
from research.runs.execute import RunOptions
from research.storage.records import RunRecord, read_record
from research.studies.cells import grid, levels, with_stage
from research.studies.study import Study, StudyOptions, run_study
from research.tracking.wandb_fields import config_of
from research.training.config import StageConfig
from research.training.optimizer import OptimizerConfig
from tests.support.synthetic import write_histories

pytestmark = pytest.mark.long

NUM_ITEMS, NUM_USERS, LENGTH, WALKS = 40, 200, 15, 3
TRAIN = StageConfig(
    objectives={"next": NextItemConfig()},
    batches=BatchConfig(sequences_per_batch=64),
    epochs=None,
    steps=200,
    optimizer=OptimizerConfig(lr=0.01),
    validation=None,
)
# A stage that hardly learns, and below an objective that hardly weighs: runs get no better by them.
IDLE = StageConfig(
    name="idle",
    objectives={"aap": AAPConfig()},
    batches=BatchConfig(sequences_per_batch=64),
    epochs=None,
    steps=2,
    optimizer=OptimizerConfig(lr=1e-5),
    validation=None,
)


def interleaved_corpus(folder: Path) -> Corpus:
    """Histories in which an item follows from the third last, and the last two say nothing.

    Each is three walks along one cycle of all items, from random places, taken in turn.
    """
    draws = np.random.default_rng(0)
    cycle = draws.permutation(NUM_ITEMS)
    starts = draws.integers(NUM_ITEMS, size=(NUM_USERS, WALKS))
    histories = [
        [int(cycle[(places[step % WALKS] + step // WALKS) % NUM_ITEMS]) for step in range(LENGTH)]
        for places in starts
    ]
    return write_histories(folder, histories, num_items=NUM_ITEMS)


def test_an_effect_is_found_where_it_was_planted_and_nowhere_else(tmp_path: Path) -> None:
    corpus = interleaved_corpus(tmp_path / "interleaved")
    encoder = TransformerConfig(length=6, width=16, layers=1, heads=2, feed_forward=32)
    cells = grid(
        RunConfig(encoder=encoder, stages=(TRAIN,)),
        {
            # Of two items nothing can be known of the next: this is the planted effect.
            "length": levels("encoder.length", (6, 2)),
            "idle": {"no": {}, "yes": lambda config: with_stage(config, IDLE, before="train")},
            "aap": {"off": {}, "on": {"stages.0.objectives.aap": AAPConfig(weight=1e-4)}},
        },
    )
    assert len(cells) == 8
    study = Study(
        name="planted",
        question="What matters?",
        cells=cells,
        base="base",
        corpora=(str(corpus.folder),),
        seeds=(0, 1, 2),
    )
    jobs = run_study(
        study,
        tmp_path,
        options=RunOptions(quiet=True),
        accelerator=make_accelerator(),
        study_options=StudyOptions(probe=False),
    )
    assert [job.state() for job in jobs] == ["finished"] * 24
    report = report_of(tmp_path / "planted")
    factorial = report.corpora[0].tables[0].factorial
    assert factorial is not None
    effects = {effect.name: effect for effect in factorial.effects["ndcg@10"]}
    assert list(effects) == ["length", "idle", "aap", "length × idle", "length × aap", "idle × aap"]
    assert [name for name, effect in effects.items() if effect.significant] == ["length"]
    planted = effects["length"].comparison
    assert planted is not None
    assert planted.difference < -0.3
    assert (planted.seeds, planted.users) == (3, NUM_USERS)
    assert factorial.notes == ()
    assert page_of(report).count("NDCG@10 by ") >= 3
    for job in jobs:
        record = read_record(job.folder, RunRecord)
        assert record is not None
        ablation = config_of(job.folder, record, None)["ablation"]
        assert isinstance(ablation, dict)
        assert ablation["factors"] == cells.levels[job.cell]

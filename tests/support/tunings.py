"""A small tuning for the tests: one cell with a space, beside popularity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.objectives.losses import FullSoftmax, SampledSoftmax
from research.runs.execute import RunOptions
from research.storage.tuning_records import TuningRecord
from research.studies.changes import Changes
from research.studies.optuna_studies import TrialStore
from research.studies.search import TPE
from research.studies.space import Trial, TunedCell
from research.studies.study import StudyOptions
from research.studies.tune import TuningOutcome, tune
from research.studies.tuning import Tuning
from tests.support.small_runs import FINETUNE, QUIET, config_of

LOSS = "stages.0.objectives.next.loss"


def space(trial: Trial) -> Changes:
    """A rate and a loss; the sampled loss has a number of negatives."""
    changes: dict[str, object] = {
        "stages.0.optimizer.lr": trial.log_uniform("lr", 1e-4, 1e-1),
        LOSS: FullSoftmax(),
    }
    if trial.choice("loss", ("full", "sampled")) == "sampled":
        changes[LOSS] = SampledSoftmax(number=trial.integer("negatives", 1, 4))
    return changes


def tuning_of(corpus: Corpus, **changes: object) -> Tuning:
    """A tuning of one cell, beside popularity."""
    stage = replace(FINETUNE, epochs=3)
    fields: dict[str, object] = {
        "name": "mine",
        "question": "Which is best?",
        "cells": {
            "popularity": popularity(),
            "next": TunedCell(base=config_of(corpus, stage), space=space),
        },
        "base": "popularity",
        "corpora": (str(corpus.folder),),
        "metric": "mrr",
        "trials": 3,
        "sampler": TPE(startup_trials=2),
        "fresh_seeds": (1, 2),
        "metrics": ("hr@3", "mrr"),
    }
    return Tuning(**{**fields, **changes})  # type: ignore[arg-type]


def done(
    tuning: Tuning, out: Path, options: RunOptions = QUIET, **changes: object
) -> TuningOutcome:
    chosen = StudyOptions(probe=False, **changes)  # type: ignore[arg-type]
    return tune(tuning, out, options=options, accelerator=make_accelerator(), study_options=chosen)


def refusal(tuning: Tuning, out: Path, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        done(tuning, out, **changes)
    return str(caught.value)


def trials_in(out: Path, name: str = "mine") -> Any:
    """The cells of tuning.json."""
    return json.loads((out / name / TuningRecord.FILE).read_text())["cells"]


def journal_states(out: Path, cell: str = "next") -> list[str]:
    stored = TrialStore(out / "mine-trials")
    study_id = stored.storage.get_study_id_from_name(f"films/{cell}")
    return [trial.state.name for trial in stored.storage.get_all_trials(study_id)]

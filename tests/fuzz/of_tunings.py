"""Targets: the journal of a tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from research.studies.optuna_studies import (
    Curve,
    StoredTrial,
    TrialStore,
    drawing,
    importances_of,
    pruning_rule,
)
from research.studies.search import ASHA, TPE, RandomSearch
from research.studies.space import Choice, FloatRange, IntegerRange
from tests.fuzz.targets import Case, Target, altering

FACTS = {"metric": "mrr", "sampler": {"class": "TPE", "startup_trials": 2}, "seed": 0}
TRIAL = StoredTrial(
    number=0,
    state="running",
    value=None,
    parameters={"lr": 0.01, "negatives": 3, "loss": "full"},
    distributions={
        "lr": FloatRange(1e-4, 0.1, log=True),
        "negatives": IntegerRange(1, 8),
        "loss": Choice(("full", "sampled")),
    },
    curve=Curve((), None),
)
POINTS = ((1, 0.25), (2, 0.5))


def journal(folder: Path) -> Case:
    """A journal of two cells: trials that are complete, pruned, failed and running."""
    store = TrialStore(folder)
    for cell in ("base", "more"):
        stored = store.trials_of("films", cell, FACTS)
        for number in range(6):
            rate = {**TRIAL.parameters, "lr": 0.01 * (number + 1)}
            stored.begin(replace(TRIAL, number=number, parameters=rate))
        for number in range(4):
            value = 0.5 - 0.1 * number
            stored.end(number, "complete", value, Curve(POINTS, value))
        stored.end(4, "pruned", 0.25, Curve(POINTS[:1], None))

    def read(random: Random) -> object:
        again = TrialStore(folder, writes=random.random() < 0.5)
        trials = [again.trials_of("films", cell, FACTS).all() for cell in ("base", "more")]
        ended = [trial for trial in trials[0] if trial.state != "running"]
        sampler = TPE(startup_trials=2) if random.random() < 0.1 else RandomSearch()
        draw = drawing(sampler, 0, ended, trials[0][len(ended) :])
        rule = pruning_rule(ASHA(), [trial.curve for trial in ended])
        return draw("new", FloatRange(0.0, 1.0)), rule(1, 0.3), importances_of(trials[1])

    return altering(folder, read)


TARGETS = (Target(name="tuning-journal", milliseconds=10.0, begin=journal),)

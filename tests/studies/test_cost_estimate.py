"""The estimate of a run's cost: what happens once is counted once, the rest by steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from torch import nn

from baselines.popularity import popularity
from research.data.splits import HeldOut, LeaveOneOut, Ranges, TemporalCut
from research.evaluation.candidates import AllItems, CandidateSet
from research.evaluation.popularity import Popularity
from research.model.item_table import ItemTable
from research.runs.parts import RunParts
from research.runs.popularity_floor import has_recent_floor
from research.storage.records import CostRecord, StageCostRecord
from research.studies import cost_estimate
from research.studies.cost_estimate import CostEstimate, estimate_cost, evenly_drawn
from research.studies.job import Job, JobCost
from research.studies.plan import print_plan
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig, held_by_updates
from research.training.peak_memory import PeakMemory
from research.training.state import StageState
from tests.support.records import run_record, run_summary, write_as_json
from tests.support.small_runs import FINETUNE, config_of, corpus_in
from tests.support.synthetic import markov_histories, write_histories

# Trials of two steps and of one, and one of 11 that takes 0.2 s for each step after the first. An
# epoch is a step of 15 rows.
TRIALS = {
    2: StageState(step=2, rows=30, items=60, seconds=9.0, checkpoint_seconds=0.5),
    1: StageState(step=1, rows=15, items=30, seconds=1.0, checkpoint_seconds=0.5, peak_bytes=8000),
    None: StageState(
        step=11, rows=165, items=330, seconds=3.0, checkpoint_seconds=0.5, peak_bytes=2000
    ),
}


def estimate_of(stage: StageConfig, path: Path, patch: pytest.MonkeyPatch) -> CostEstimate:
    """The estimate where trials end as in `TRIALS`, and validation takes 5 s, the test 7 s."""
    patch.setattr(cost_estimate, "train", lambda model, loader, config, run: TRIALS[config.steps])
    patch.setattr(cost_estimate, "_ranking_seconds", lambda *given: (5.0, 7.0))
    patch.setattr(PeakMemory, "bytes", lambda peak: 1000)
    config = config_of(corpus_in(path / "corpus"), stage)
    return estimate_cost(config, "data", Accelerator(cpu=True))


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        # 100 steps at 0.2 s, 100 validations of 5 s, each with a checkpoint of 0.5 s.
        ({"epochs": None, "steps": 100}, 20.0 + 550.0),
        ({"epochs": 100}, 20.0 + 550.0),
        # A stage of 3,000 tokens has 100 steps of 30.
        ({"epochs": None, "tokens": 3000, "validation": None}, 20.0),
        # Validated after epochs 3, 6, 9 and 10.
        ({"epochs": 10, "validation": ValidationConfig(metric="mrr", every_epochs=3)}, 2.0 + 22.0),
        # Shorter than its trial.
        ({"epochs": 1}, 0.2 + 5.5),
        ({"epochs": 100, "seconds": 60.0}, 60.0),
        ({"epochs": None, "seconds": 60.0}, 60.0),
    ],
)
def test_a_stage_takes_its_steps_validations_and_checkpoints(
    changes: dict[str, object], seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(FINETUNE, **changes)  # type: ignore[arg-type]
    estimate = estimate_of(stage, tmp_path, monkeypatch)
    assert estimate.stages == {"finetune": pytest.approx(seconds)}
    assert estimate.evaluation == 12.0


def test_memory_is_the_most_of_trial_and_ranking_and_what_the_heap_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 1.5 times the 2,000 bytes of the trial, which saw every batch.
    assert estimate_of(FINETUNE, tmp_path, monkeypatch).peak_bytes == 3000
    # 1,000 are held before, and 200 are the update's; of the rest there is half as much again in
    # the largest batch.
    monkeypatch.setattr(cost_estimate, "_largest_batch", lambda *given: 1.5)
    monkeypatch.setattr(cost_estimate, "held_by_updates", lambda *given: 200)
    assert estimate_of(FINETUNE, tmp_path / "again", monkeypatch).peak_bytes == 3600


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        # A table of 10 x 4 and a dense layer of 4 + 1: a gradient and two moments.
        (OptimizerConfig(), 3 * 45),
        (OptimizerConfig(method="sgd", beta1=0.9), 2 * 45),
        (OptimizerConfig(method="sgd", beta1=0.0), 45),
        (OptimizerConfig(item_rows="touched"), 2 * 40 + 3 * 5),
    ],
)
def test_an_update_holds_gradients_and_moments(config: OptimizerConfig, numbers: int) -> None:
    table = ItemTable(10, 4, init_std=0.1, seed=0, masked=False)
    frozen = nn.Linear(3, 3).requires_grad_(False)
    assert held_by_updates(config, nn.Sequential(table, nn.Linear(4, 1), frozen)) == 4 * numbers


def test_candidate_sets_are_drawn_outside_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(popularity(), corpus=str(corpus_in(tmp_path / "corpus").folder))
    times = [0.0]
    monkeypatch.setattr(cost_estimate.time, "monotonic", lambda: times[0])

    def slow(parts: RunParts, asked: HeldOut, part: str) -> list[CandidateSet]:
        # A file of negatives is read whole.
        times[0] += 100.0
        return [AllItems()]

    monkeypatch.setattr(RunParts, "candidate_sets", slow)
    assert estimate_cost(config, "data", Accelerator(cpu=True)).evaluation == 0.0


@pytest.mark.parametrize(("first", "floors"), [(1_398_902_400, 2), (0, 1)])
def test_popularity_of_the_last_days_costs_where_it_is_ranked(
    first: int, floors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From May 2014 on times have days, from 0 on they have none.
    histories = markov_histories(num_users=15, num_items=10, length=8, seed=0)
    times = [[first + 86_400 * place for place in range(len(row))] for row in histories]
    corpus = write_histories(tmp_path / "c", histories, num_items=10, timestamps=times)
    parts = RunParts.of(config_of(corpus, FINETUNE, split=TemporalCut()), "data")
    assert has_recent_floor(parts) == (floors == 2)
    ranked: list[str] = []
    monkeypatch.setattr(
        RunParts, "tables", lambda parts, ranker, part, sets: ranked.append(part) or {}
    )
    cost_estimate._ranking_seconds(parts, Popularity(parts.catalogue.training.counts_V))
    # Both rankers once to warm up, the run's own, and the floors.
    assert ranked.count("test") == 3 + floors


def test_histories_are_drawn_evenly_with_all_their_questions() -> None:
    # Ten histories; every other one has two held-out items.
    users = np.array([0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9])
    held_out = HeldOut(Ranges(users, users * 10, users * 10 + 4), np.arange(15))
    assert evenly_drawn(held_out, 4).histories.users.tolist() == [0, 0, 3, 6, 6, 9]
    assert len(evenly_drawn(held_out, 1).histories.users) == 2
    assert evenly_drawn(held_out, 10).targets.tolist() == list(range(15))
    nothing = held_out.select(np.array([], dtype=np.int64))
    assert len(evenly_drawn(nothing, 4)) == 0


def test_a_real_trial_estimates_time_and_memory(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    estimate = estimate_cost(config_of(corpus, FINETUNE), "data", Accelerator(cpu=True))
    assert len(LeaveOneOut().split(corpus).test) == 15
    assert 0.0 < estimate.stages["finetune"] < 10.0
    assert 0.0 < estimate.evaluation < 10.0


def test_the_plan_says_what_the_largest_run_of_a_cell_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = popularity()
    jobs = [
        Job("films", cell, seed, config, Path("nowhere"), run_record(config))
        for cell, seed in (("a", 0), ("a", 1), ("b", 0))
    ]
    costs = [JobCost(30.0, 400_000_000), JobCost(40.0, 1_500_000_000), JobCost(1.0)]
    print_plan("Why?", None, jobs, dict.fromkeys(jobs, "new"), jobs, costs, 1)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][-3:] == ["at", "most", "memory"]
    assert lines[4][-4:] == ["70", "s", "1.5", "GB"]
    assert lines[5][-3:] == ["1", "s", "unknown"]
    assert " ".join(lines[6]) == "3 runs, about 71 s at most with one process"


def test_a_finished_job_costs_what_its_summary_says(tmp_path: Path) -> None:
    config = popularity()
    job = Job("films", "a", 0, config, tmp_path, run_record(config))
    write_as_json(tmp_path, run_record(config))
    # Of an older run, which trained for 10 s, no more is known.
    write_as_json(tmp_path, run_summary())
    assert job.cost() == JobCost(10.0, None)
    stage = StageCostRecord(seconds=100.0, items=1, parameters=2, peak_bytes=3000)
    cost = CostRecord(
        parameters=2, seconds=150.0, shared_seconds=100.0, stages={"pretrain": stage},
        evaluation_seconds=7.25, evaluation_peak_bytes=2000,
    )  # fmt: skip
    write_as_json(tmp_path, run_summary(cost=cost))
    assert job.cost() == JobCost(57.25, 3000)

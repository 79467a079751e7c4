"""Limits of a stage (epochs, steps, tokens, seconds), and equal budgets over a run's stages."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from baselines.popularity import popularity
from baselines.s3rec import published_softmax
from baselines.sasrec import full_softmax
from research.data.batch import Batch
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.distributed import signals
from research.errors import InputError
from research.objectives.mip import MIPConfig
from research.runs.execute import RunOptions, execute
from research.runs.parts import RunParts
from research.studies.budget import Budget, budget_of
from research.training.config import StageConfig
from research.training.limits import Limits
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from research.training.state import StageState
from tests.support.small_runs import FINETUNE, PRETRAIN, config_of, corpus_in
from tests.support.trainer import STAGE, Trainer, request_stop_at

PLAIN = replace(STAGE, validation=None, optimizer=OptimizerConfig())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("budget") / "corpus")


BY_TOKENS = BatchConfig(sequences_per_batch=None, tokens_per_batch=50)


def batches_of(trainer: Trainer, stage: StageConfig, steps: int) -> list[Batch]:
    """The first batches of a stage."""
    loader = trainer.loader(stage)
    batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())
    return list(itertools.islice(batches, steps))


def tokens_of(trainer: Trainer, stage: StageConfig, steps: int) -> list[int]:
    """Tokens of the first steps, from the batches themselves."""
    return [batch.num_tokens for batch in batches_of(trainer, stage, steps)]


@pytest.mark.parametrize("sizes", [PLAIN.batches, BY_TOKENS], ids=["rows", "tokens"])
@pytest.mark.parametrize(("further", "steps"), [(-1, 4), (0, 4), (1, 5)])
def test_a_stage_ends_with_the_batch_that_reaches_its_tokens(
    trainer: Trainer, sizes: BatchConfig, further: int, steps: int
) -> None:
    stage = replace(PLAIN, batches=sizes)
    tokens = sum(tokens_of(trainer, stage, 4)) + further
    state, _ = trainer.train(replace(stage, epochs=None, tokens=tokens))
    assert (state.step, state.finished) == (steps, True)
    assert state.items == sum(tokens_of(trainer, stage, steps))


@pytest.mark.parametrize(
    ("limits", "steps", "epochs"),
    [
        # An epoch has three steps of 16, 16 and 8 rows.
        ({"epochs": 2}, 6, 2),
        ({"epochs": 2, "steps": 5}, 5, 2),
        ({"epochs": 2, "steps": 6}, 6, 2),
        ({"epochs": 2, "steps": 7}, 6, 2),
        ({"epochs": None, "steps": 3}, 3, 1),
        # The first three batches have 157 tokens, the first four 218.
        ({"epochs": 2, "steps": 5, "tokens": 160}, 4, 2),
        ({"epochs": 1, "steps": 5, "tokens": 160}, 3, 1),
        ({"epochs": 2, "steps": 2, "tokens": 160}, 2, 1),
        # Of a billion epochs none is walked to find out that the steps end first.
        ({"epochs": 10**9, "steps": 4, "batches": BY_TOKENS}, 4, 1),
        ({"epochs": 2, "batches": BY_TOKENS}, 8, 2),
        ({"epochs": 2, "steps": 7, "batches": BY_TOKENS}, 7, 2),
    ],
)
def test_the_first_limit_that_is_reached_ends_a_stage(
    trainer: Trainer, limits: dict[str, object], steps: int, epochs: int
) -> None:
    state, _ = trainer.train(replace(PLAIN, **limits))
    assert (state.step, state.epoch, state.finished) == (steps, epochs, True)


def test_limits_are_counted_in_steps_where_an_epochs_are_known() -> None:
    by_rows = replace(PLAIN, epochs=7)
    assert Limits.of(by_rows, 40) == Limits(21, inf, inf)
    assert Limits.of(replace(by_rows, steps=20), 40) == Limits(20, inf, inf)
    assert Limits.of(replace(by_rows, steps=22, tokens=9), 40) == Limits(21, inf, 9)
    assert Limits.of(replace(by_rows, batches=BY_TOKENS, steps=20), 40) == Limits(20, 280, inf)
    assert Limits.of(replace(by_rows, epochs=None, seconds=1.0), 40) == Limits(inf, inf, inf)


def test_the_share_done_is_that_to_the_nearest_of_the_limits() -> None:
    state = StageState(step=5, rows=30, items=70, warmup_rows=10, warmup_items=60)
    assert Limits(20, inf, inf).share(state) == 0.25
    assert Limits(20, 40, 100).share(state) == 0.75
    assert Limits(20, 120, 70).share(state) == 1.0
    assert Limits(inf, inf, 60).share(state) == 1.0
    assert Limits(inf, inf, inf).share(state) == 0.0
    # Since a warm-up of four steps, 10 rows and 60 tokens.
    assert Limits(20, 50, 80).share_after(state, 4) == 0.5
    at_its_end = replace(state, step=4, rows=10, items=60)
    assert Limits(20, 50, 80).share_after(at_its_end, 4) == 0.0


def rates_of(trainer: Trainer, stage: StageConfig) -> list[float]:
    """The learning rate of each step, as a factor."""
    trainer.train(replace(stage, log_every=1))
    return [float(str(line["train/lr"])) for line in trainer.folder.metrics()]


LINEAR = OptimizerConfig(lr=1.0, schedule=ScheduleConfig(shape="linear", warmup_steps=2))


def test_under_a_limit_of_tokens_the_rate_follows_the_tokens_seen(trainer: Trainer) -> None:
    stage = replace(PLAIN, epochs=None, tokens=300, optimizer=LINEAR)
    seen = [0, *itertools.accumulate(tokens_of(trainer, stage, 6))]
    assert seen[6] >= 300 > seen[5]
    expected = [0.5, 1.0, *(1 - (seen[step] - seen[2]) / (300 - seen[2]) for step in range(2, 6))]
    assert rates_of(trainer, stage) == pytest.approx(expected, rel=1e-12)


def test_token_batches_and_a_limit_of_epochs_make_the_rate_follow_the_rows(
    trainer: Trainer,
) -> None:
    stage = replace(PLAIN, epochs=2, batches=BY_TOKENS, optimizer=LINEAR)
    sizes = [len(batch.rows_S) for batch in batches_of(trainer, stage, 8)]
    done = [0, *itertools.accumulate(sizes)]
    assert done[8] == 80
    expected = [0.5, 1.0, *(1 - (done[step] - done[2]) / (80 - done[2]) for step in range(2, 8))]
    assert rates_of(trainer, stage) == pytest.approx(expected, rel=1e-12)


def test_a_resumed_stage_under_a_limit_of_tokens_has_the_same_rates(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(PLAIN, epochs=None, tokens=300, batches=BY_TOKENS, optimizer=LINEAR)
    expected = rates_of(
        Trainer(trainer.corpus, trainer.folder.path / "whole", trainer.accelerator), stage
    )
    # In the warm-up, at its end, and later: it asks before each step.
    for time in (2, 2, 3):
        with monkeypatch.context() as patch:
            request_stop_at(patch, time)
            with pytest.raises(signals.Stopped):
                rates_of(trainer, stage)
    assert rates_of(trainer, stage) == expected


def test_tokens_count_the_rows_of_other_rules_too(corpus: Corpus, tmp_path: Path) -> None:
    stage = replace(
        FINETUNE,
        objectives={**FINETUNE.objectives, "mip": MIPConfig()},
        own_windows={"mip": EveryPrefix()},
        rank_by="next",
        validation=None,
        epochs=None,
        tokens=150,
    )
    config = config_of(corpus, stage)
    batch = next(RunParts.of(config, "data").loader(stage, 0, 1).batches(0))
    assert batch.num_tokens > batch.packed.num_tokens
    summary = execute(config, tmp_path / "run", options=RunOptions(quiet=True))
    steps = summary.best["finetune"].steps
    assert (summary.cost.items or 0) >= 150
    assert steps < -(-150 // batch.packed.num_tokens)


def test_a_stage_ends_when_its_time_is_over(trainer: Trainer) -> None:
    stage = replace(PLAIN, epochs=None, seconds=0.3, log_every=1)
    state, _ = trainer.train(stage)
    assert state.finished
    assert 0.3 <= state.seconds < 5.0
    assert state.step > 1


def test_a_stage_that_runs_out_of_time_has_the_lines_of_all_its_steps(trainer: Trainer) -> None:
    state, _ = trainer.train(replace(PLAIN, seconds=1e-6, log_every=2))
    assert state.step == 1
    assert state.items == sum(tokens_of(trainer, PLAIN, 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": None}, "epochs, steps, tokens and seconds are all None; set at least one"),
        ({"tokens": 0}, "stage train: tokens is 0; each must be above 0"),
        ({"seconds": float("inf")}, "StageConfig.seconds is inf; allowed: a finite float"),
        ({"seconds": -1.0}, "stage train: seconds is -1.0"),
        (
            {
                "epochs": None,
                "seconds": 1.0,
                "optimizer": OptimizerConfig(schedule=ScheduleConfig(shape="linear")),
            },
            "a linear schedule needs a limit in epochs, steps or tokens",
        ),
    ],
)
def test_limits_that_make_no_sense_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(PLAIN, **fields)
    assert message in str(caught.value)


# Budgets


def test_a_budget_takes_the_place_of_limits_and_patience() -> None:
    config = full_softmax()
    assert config.stages[0].validation is not None
    (stage,) = Budget(of="tokens", amount=1000).apply_to(config).stages
    assert (stage.epochs, stage.steps, stage.tokens, stage.seconds) == (None, None, 1000, None)
    assert stage.validation is not None
    assert stage.validation.patience is None
    assert stage.validation.metric == config.stages[0].validation.metric
    (stage,) = Budget(of="seconds", amount=2.5).apply_to(config).stages
    assert (stage.epochs, stage.steps, stage.tokens, stage.seconds) == (None, None, None, 2.5)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [({}, [50, 51]), ({"pretrain": 3.0}, [75, 26]), ({"finetune": 4.0, "other": 9.0}, [20, 81])],
)
def test_a_budget_is_divided_between_the_stages_without_loss(
    shares: dict[str, float], expected: list[int]
) -> None:
    two = Budget(of="steps", amount=101, shares=shares).apply_to(published_softmax())
    assert [stage.steps for stage in two.stages] == expected
    one = replace(published_softmax(), stages=published_softmax().stages[-1:])
    (alone,) = Budget(of="steps", amount=101, shares=shares).apply_to(one).stages
    assert alone.steps == 101


def test_counting_spends_nothing() -> None:
    assert Budget(of="steps", amount=3).apply_to(popularity()) == popularity()


@pytest.mark.long
def test_runs_under_a_budget_spend_it(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("runs")
    config = config_of(corpus, PRETRAIN, FINETUNE)
    options = RunOptions(quiet=True)
    by_steps = execute(Budget(of="steps", amount=9).apply_to(config), out / "a", options=options)
    assert {name: each.steps for name, each in by_steps.best.items()} == {
        "pretrain": 4,
        "finetune": 5,
    }
    by_tokens = execute(
        Budget(of="tokens", amount=900).apply_to(config), out / "b", options=options
    )
    # Each stage ends with the batch that reaches its half.
    assert 900 <= (by_tokens.cost.items or 0) < 900 + 2 * 20 * 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"of": "epochs", "amount": 3}, "Budget.of is 'epochs'; allowed: steps | tokens | seco"),
        ({"of": "steps", "amount": 0}, "budget.amount is 0; it must be above 0"),
        ({"of": "steps", "amount": float("nan")}, "Budget.amount is nan; allowed: a finite float"),
        ({"of": "steps", "amount": 5, "shares": {"a": 0.0}}, "budget.shares.a is 0.0"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Budget(**fields)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_budget_that_leaves_a_stage_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="a budget of 1 steps leaves stage pretrain none"):
        Budget(of="steps", amount=1).apply_to(published_softmax())


def test_a_budget_says_what_is_equal() -> None:
    assert str(Budget(of="tokens", amount=2_000_000)) == (
        "2,000,000 tokens a run, all stages together"
    )
    assert str(Budget(of="seconds", amount=45.5, shares={"pretrain": 3})).endswith(
        "45.5 seconds (and a last validation) a run, all stages together, divided as pretrain 3"
    )


def test_a_budget_from_the_command_line() -> None:
    assert budget_of("tokens=2e6") == Budget(of="tokens", amount=2e6)
    for wrong in ("tokens", "epochs=3", "steps=x", "steps=-1", "steps=0", "=3", "seconds=nan"):
        with pytest.raises(InputError, match="write steps=N, tokens=N or seconds=N"):
            budget_of(wrong)

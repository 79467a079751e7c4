"""Limits of a stage (epochs, steps, tokens, seconds), and equal budgets over a run's stages."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from baselines.popularity import popularity
from baselines.s3rec import published_softmax
from baselines.sasrec import full_softmax
from research.ablation.budget import Budget, budget_of
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.errors import InputError
from research.execute import RunOptions, execute
from research.objectives.mip import MIPConfig
from research.training.optim import OptimizerConfig, ScheduleConfig
from research.training.stage import StageConfig
from tests.bench import STAGE, Bench
from tests.stages import FINETUNE, PRETRAIN, config_of, corpus_in

PLAIN = replace(STAGE, validation=None, optimizer=OptimizerConfig())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("budget") / "corpus")


def tokens_of(bench: Bench, stage: StageConfig, steps: int) -> list[int]:
    """Tokens of the first steps, from the batches themselves."""
    loader = bench.loader(stage)
    batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())
    return [batch.num_tokens for batch in itertools.islice(batches, steps)]


@pytest.mark.parametrize(
    "batches",
    [
        BatchConfig(sequences_per_batch=16),
        BatchConfig(sequences_per_batch=16, replacement=True),
        BatchConfig(sequences_per_batch=None, tokens_per_batch=50),
    ],
    ids=["rows", "replacement", "tokens"],
)
def test_sizes_are_the_tokens_of_the_batches(bench: Bench, batches: BatchConfig) -> None:
    stage = replace(PLAIN, batches=batches)
    sizes = list(itertools.islice(bench.loader(stage).sizes(), 11))
    assert sizes == tokens_of(bench, stage, 11)


def test_a_stage_ends_with_the_batch_that_reaches_its_tokens(bench: Bench) -> None:
    first, second, third = tokens_of(bench, PLAIN, 3)
    loader = bench.loader(PLAIN)
    assert loader.num_steps(None, None, 1) == 1
    assert loader.num_steps(None, None, first) == 1
    assert loader.num_steps(None, None, first + 1) == 2
    assert loader.num_steps(None, None, first + second + third) == 3
    assert loader.num_steps(None, None, first + second + third + 1) == 4
    stage = replace(PLAIN, epochs=None, tokens=first + second + third + 1)
    state, _ = bench.train(stage)
    assert (state.step, state.finished) == (4, True)
    assert state.items == sum(tokens_of(bench, PLAIN, 4))


def test_the_first_limit_that_is_reached_ends_a_stage(bench: Bench) -> None:
    # An epoch has three steps.
    loader = bench.loader(PLAIN)
    sizes = tokens_of(bench, PLAIN, 5)
    assert loader.num_steps(2, None, None) == 6
    assert loader.num_steps(2, 5, None) == 5
    assert loader.num_steps(2, 5, sum(sizes[:4])) == 4
    assert loader.num_steps(1, 5, sum(sizes[:4])) == 3
    assert loader.num_steps(2, 2, sum(sizes[:4])) == 2
    assert loader.num_steps(None, None, None) is None
    by_tokens = bench.loader(
        replace(PLAIN, batches=BatchConfig(sequences_per_batch=None, tokens_per_batch=50))
    )
    assert by_tokens.num_steps(None, 7) == 7
    # No one walks a billion epochs to find out that the steps end first.
    assert by_tokens.num_steps(10**9, 7) == 7


def test_tokens_count_the_rows_of_other_rules_too(corpus: Corpus) -> None:
    stage = replace(
        FINETUNE,
        objectives={**FINETUNE.objectives, "mip": MIPConfig()},
        own_windows={"mip": EveryPrefix()},
        rank_by="next",
    )
    from research.workbench import Workbench

    loader = Workbench.of(config_of(corpus, stage), "data").loader(stage, 0, 1)
    batches = itertools.chain.from_iterable(loader.batches(epoch) for epoch in itertools.count())
    expected = [batch.num_tokens for batch in itertools.islice(batches, 7)]
    assert list(itertools.islice(loader.sizes(), 7)) == expected
    assert any(size > 40 for size in expected)


def test_a_stage_ends_when_its_time_is_over(bench: Bench) -> None:
    stage = replace(PLAIN, epochs=None, seconds=0.3, log_every=1)
    state, _ = bench.train(stage)
    assert state.finished
    assert 0.3 <= state.seconds < 5.0
    assert state.step > 1


def test_a_stage_that_runs_out_of_time_has_the_lines_of_all_its_steps(bench: Bench) -> None:
    state, _ = bench.train(replace(PLAIN, seconds=1e-6, log_every=2))
    assert state.step == 1
    assert state.items == sum(tokens_of(bench, PLAIN, 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": None}, "epochs, steps, tokens and seconds are all None; set at least one"),
        ({"tokens": 0}, "stage train: tokens is 0; each must be above 0"),
        ({"seconds": float("inf")}, "stage train: seconds is inf; each must be above 0"),
        ({"seconds": -1.0}, "stage train: seconds is -1.0"),
        (
            {
                "epochs": None,
                "seconds": 1.0,
                "optimizer": OptimizerConfig(schedule=ScheduleConfig(shape="linear")),
            },
            "a linear schedule needs to know where the stage ends",
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
    (stage,) = Budget(of="tokens", amount=1000).applied(config).stages
    assert (stage.epochs, stage.steps, stage.tokens, stage.seconds) == (None, None, 1000, None)
    assert stage.validation is not None
    assert stage.validation.patience is None
    assert stage.validation.metric == config.stages[0].validation.metric
    (stage,) = Budget(of="seconds", amount=2.5).applied(config).stages
    assert (stage.epochs, stage.steps, stage.tokens, stage.seconds) == (None, None, None, 2.5)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [({}, [50, 51]), ({"pretrain": 3.0}, [75, 26]), ({"finetune": 4.0, "other": 9.0}, [20, 81])],
)
def test_a_budget_is_divided_between_the_stages_without_loss(
    shares: dict[str, float], expected: list[int]
) -> None:
    two = Budget(of="steps", amount=101, shares=shares).applied(published_softmax())
    assert [stage.steps for stage in two.stages] == expected
    one = replace(published_softmax(), stages=published_softmax().stages[-1:])
    (alone,) = Budget(of="steps", amount=101, shares=shares).applied(one).stages
    assert alone.steps == 101


def test_counting_spends_nothing() -> None:
    assert Budget(of="steps", amount=3).applied(popularity()) == popularity()


def test_runs_under_a_budget_spend_it(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("runs")
    config = config_of(corpus, PRETRAIN, FINETUNE)
    options = RunOptions(quiet=True)
    by_steps = execute(Budget(of="steps", amount=9).applied(config), out / "a", options=options)
    assert {name: each["steps"] for name, each in by_steps["best"].items()} == {  # type: ignore[attr-defined]
        "pretrain": 4,
        "finetune": 5,
    }
    by_tokens = execute(Budget(of="tokens", amount=900).applied(config), out / "b", options=options)
    items = by_tokens["cost"]["items"]  # type: ignore[index]
    # Each stage ends with the batch that reaches its half.
    assert 900 <= items < 900 + 2 * 20 * 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"of": "epochs", "amount": 3}, "budget.of is 'epochs'; allowed: steps, tokens, seconds"),
        ({"of": "steps", "amount": 0}, "budget.amount is 0; it must be finite and above 0"),
        ({"of": "steps", "amount": float("nan")}, "budget.amount is nan"),
        ({"of": "steps", "amount": 5, "shares": {"a": 0.0}}, "budget.shares.a is 0.0"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Budget(**fields)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_a_budget_that_leaves_a_stage_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="a budget of 1 steps leaves stage pretrain none"):
        Budget(of="steps", amount=1).applied(published_softmax())


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

"""Gradient norms and cosines of objectives: hand numbers, and the vectors of one pass a term."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from research.data.corpus import Corpus
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.training.gradient_conflict import GradientCosines
from tests.support.synthetic import markov_histories, write_histories
from tests.support.trainer import STAGE, Trainer


def gradient_figures(
    terms: dict[str, torch.Tensor], parameters: list[nn.Parameter], accelerator: Accelerator
) -> dict[str, float]:
    cosines = GradientCosines(parameters)
    cosines.add(terms)
    return cosines.log_values(accelerator)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return make_accelerator()


def test_norms_and_cosines_of_known_vectors(accelerator: Accelerator) -> None:
    weight, bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    terms = {
        "a": 3.0 * weight[0] + 4.0 * bias[0],
        "b": 2.0 * weight[1],
        "c": -6.0 * weight[0] - 8.0 * bias[0],
    }
    figures = gradient_figures(terms, [weight, bias], accelerator)
    assert figures == pytest.approx({
        "gradient_norm/a": 5.0, "gradient_norm/b": 2.0, "gradient_norm/c": 10.0,
        "gradient_cosine/a+b": 0.0, "gradient_cosine/a+c": -1.0, "gradient_cosine/b+c": 0.0,
    })  # fmt: skip


def test_a_zero_gradient_has_a_norm_and_no_cosine(accelerator: Accelerator) -> None:
    weight = nn.Parameter(torch.ones(2))
    figures = gradient_figures({"a": weight.sum(), "b": 0.0 * weight.sum()}, [weight], accelerator)
    assert figures["gradient_norm/b"] == 0.0
    assert "gradient_cosine/a+b" not in figures


def test_the_graph_is_left_for_the_step(accelerator: Accelerator) -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    term = weight.square().sum()
    gradient_figures({"a": term}, [weight], accelerator)
    assert weight.grad is None
    term.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 4.0]


def test_micro_batches_add_up(accelerator: Accelerator) -> None:
    weight = nn.Parameter(torch.zeros(2))
    cosines = GradientCosines([weight])
    cosines.add({"a": 3.0 * weight[0], "b": weight[0]})
    cosines.add({"a": 4.0 * weight[1], "b": 2.0 * weight[0]})
    figures = cosines.log_values(accelerator)
    assert figures["gradient_norm/a"] == pytest.approx(5.0)
    assert figures["gradient_cosine/a+b"] == pytest.approx(0.6)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    histories = markov_histories(num_users=40, num_items=12, length=9, seed=1)
    return write_histories(tmp_path / "corpus", histories, num_items=12)


def test_a_stage_logs_them_at_its_interval_and_trains_as_without(
    corpus: Corpus, tmp_path: Path, accelerator: Accelerator
) -> None:
    stage = replace(STAGE, epochs=2, validation=None)
    plain = Trainer(corpus, tmp_path / "plain", accelerator)
    asking = Trainer(corpus, tmp_path / "asking", accelerator)
    _, without = plain.train(stage)
    state, with_figures = asking.train(replace(stage, gradients_every=2))
    found = [line for line in asking.folder.metrics() if "train/gradient_norm/next" in line]
    assert [line["step"] for line in found] == list(range(2, state.step + 1, 2))
    for line in found:
        assert line["train/gradient_norm/cloze"] > 0.0
        assert -1.0 <= line["train/gradient_cosine/next+cloze"] <= 1.0
    # Asking costs time and changes nothing.
    for ours, theirs in zip(with_figures.parameters(), without.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_interval_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="gradients_every is 0; each must be above 0"):
        replace(STAGE, gradients_every=0)

"""Dropout of ours: the rate is met, the mean stays, and it acts in training alone."""

from __future__ import annotations

import math

import pytest
import torch

from research.model.kernels.dropout import dropout, keep_scales
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from tests.support.synthetic import encoder_of


@pytest.mark.parametrize("probability", [0.1, 0.2, 0.5, 0.9])
def test_the_share_of_zeros_is_the_probability(probability: float) -> None:
    torch.manual_seed(1)
    draws = 200_001
    share = (dropout(torch.ones(draws), probability, True) == 0).double().mean().item()
    # Five standard errors of a binomial share: chance fails once in two million.
    assert abs(share - probability) < 5 * math.sqrt(probability * (1 - probability) / draws)


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    scales = keep_scales(torch.empty(1000, dtype=torch.float64), 0.5)
    assert set(scales.tolist()) == {0.0, 2.0}
    # 0.2 is rounded to 13107 / 65536, and the scale is the inverse of what that keeps.
    assert keep_scales(torch.empty(1000, dtype=torch.float64), 0.2).max().item() == 65536 / 52429


@pytest.mark.parametrize("elements", [0, 1, 3, 5])
def test_any_number_of_elements_is_served(elements: int) -> None:
    assert dropout(torch.ones(elements), 0.5, True).shape == (elements,)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(2)
    kept = (keep_scales(torch.empty(400_000), 0.5) > 0).double() - 0.5
    for shift in (1, 2, 3, 4, 8):
        # A correlation of n fair coins has standard error 1 / sqrt(n).
        correlation = 4 * (kept[shift:] * kept[:-shift]).mean().item()
        assert abs(correlation) < 5 / math.sqrt(400_000)


def test_nothing_is_dropped_outside_training_or_with_probability_zero() -> None:
    x = torch.randn(10)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0, training=True) is x


def test_the_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(3)
    x = torch.ones(100, requires_grad=True)
    dropped = dropout(x, 0.3, True)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


@pytest.mark.parametrize("kind", ["embedding", "hidden", "attention", "inner"])
def test_each_dropout_acts_in_training_alone(kind: str) -> None:
    others = {f"{each}_dropout": 0.0 for each in ("embedding", "hidden", "attention", "inner")}
    config = TransformerConfig(width=8, feed_forward=8, **{**others, f"{kind}_dropout": 0.5})
    encoder = encoder_of(config, 20)
    packed = Packed.from_lists([[1, 2, 3, 4, 5, 6]])
    assert not torch.equal(encoder(packed, causal=True), encoder(packed, causal=True))
    encoder.eval()
    assert torch.equal(encoder(packed, causal=True), encoder(packed, causal=True))

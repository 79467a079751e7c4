"""Attention with dropped weights, tile by tile, equals torch's and a loop under the same draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import research.model.attention as attention_module
from research.model.attention import attention
from research.packed import Packed

HEADS, WIDTH = 2, 3
# In order of length, as a rectangle holds them, so that the draws of a row are easily told.
ROWS = {"ragged": [[], [4], [8, 9], [1, 2, 3]], "full": [[1, 2], [3, 4]], "single": [[5]]}


@pytest.fixture(params=[1, 20, 1 << 18], ids=["a row a tile", "a few rows", "one tile"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of several sizes."""
    monkeypatch.setattr(attention_module, "SCORES_TILE", request.param)


def qkv(tokens: int, copies: int = 1) -> list[Tensor]:
    draws = torch.Generator().manual_seed(4)
    shape = (tokens, HEADS, WIDTH)
    parts = [torch.randn(shape, generator=draws, dtype=torch.float64) for _ in range(3)]
    return [part.repeat(copies, 1, 1).requires_grad_() for part in parts]


def with_gradients(output: Tensor, parts: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a fixed weighing of it."""
    for part in parts:
        part.grad = None
    weights = torch.sin(torch.arange(output.numel(), dtype=torch.float64)).view_as(output)
    (output * weights).sum().backward()
    return [output.detach(), *(part.grad for part in parts)]


# Sums of at most three terms in float64, in another order.
def assert_twins(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def keep_all(kept: Tensor, probability: float) -> float:
    kept.fill_(True)
    return 1.0


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_it_equals_torch_when_nothing_falls(
    rows: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_module, "fill_kept", keep_all)
    packed = Packed.from_lists(ROWS[rows])
    parts = qkv(packed.num_tokens)
    results = [
        with_gradients(attention(*parts, packed, causal=causal, dropout=probability), parts)
        for probability in (0.5, 0.0)
    ]
    assert_twins(*results)


class Draws:
    """Keeps weights at random, remembers which, and says a scale that no other place knows."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(6)
        self.kept: list[Tensor] = []

    def __call__(self, kept: Tensor, probability: float) -> float:
        kept.copy_(torch.rand(kept.shape, generator=self.generator) < 0.6)
        self.kept.append(kept.clone())
        return 1.75


def loop(parts: list[Tensor], rows: list[list[int]], kept_RLL: Tensor, causal: bool) -> Tensor:
    """A sequence, a head and a query at a time."""
    outputs, first, filled = [], 0, 0
    for row in rows:
        size = len(row)
        q, k, v = (part[first : first + size] for part in parts)
        for place in range(size):
            visible = place + 1 if causal else size
            for head in range(HEADS):
                scores = k[:visible, head] @ q[place, head] / math.sqrt(WIDTH)
                shares = torch.exp(scores) / torch.exp(scores).sum()
                kept = kept_RLL[filled * HEADS + head, place, :visible]
                outputs.append((1.75 * shares * kept) @ v[:visible, head])
        first, filled = first + size, filled + (size > 0)
    return torch.stack(outputs).view(-1, HEADS, WIDTH)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_value_and_gradients_equal_a_loop_under_the_same_draws(
    rows: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = Draws()
    monkeypatch.setattr(attention_module, "fill_kept", draws)
    packed = Packed.from_lists(ROWS[rows])
    parts = qkv(packed.num_tokens)
    ours = with_gradients(attention(*parts, packed, causal=causal, dropout=0.4), parts)
    kept_RLL = torch.cat(draws.kept)
    theirs = with_gradients(loop(parts, ROWS[rows], kept_RLL, causal), parts)
    assert_twins(ours, theirs)


@pytest.mark.parametrize("causal", [False, True])
def test_dropped_attention_has_the_mean_of_attention(causal: bool) -> None:
    torch.manual_seed(5)
    copies = 20_000
    parts = qkv(3, copies)
    packed = Packed.from_lists([[1, 2, 3]] * copies)
    dropped = attention(*parts, packed, causal=causal, dropout=0.3).detach().view(copies, -1)
    whole = attention(*parts, packed, causal=causal, dropout=0.0).detach().view(copies, -1)[0]
    errors = dropped.std(0) / math.sqrt(copies)
    # 18 means at five standard errors each.
    assert ((dropped.mean(0) - whole).abs() <= 5 * errors).all()


def test_each_head_and_sequence_drops_weights_of_its_own() -> None:
    torch.manual_seed(7)
    parts = [torch.ones(40, HEADS, WIDTH) for _ in range(3)]
    packed = Packed.from_lists([[1, 2, 3, 4]] * 10)
    output = attention(*parts, packed, causal=False, dropout=0.5)
    # Equal weights on equal values: an output tells how many of its four weights were kept.
    rows = output[..., 0].view(10, 4, HEADS).transpose(1, 2).reshape(20, 4)
    assert len({tuple(row) for row in rows.tolist()}) > 15


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("rows", [[], [[]]])
def test_nothing_to_attend_to_gives_nothing(rows: list[list[int]], dropout: float) -> None:
    parts = qkv(0)
    output = attention(*parts, Packed.from_lists(rows), causal=True, dropout=dropout)
    assert output.shape == (0, HEADS, WIDTH)


@pytest.mark.parametrize("causal", [False, True])
def test_more_sequences_than_a_gpu_takes_at_once_change_nothing(
    causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Packed.from_lists([[1], [2, 3], [4, 5, 6], [7, 8], [9]])
    parts = qkv(packed.num_tokens)
    results = []
    for most in (2, 1 << 16):
        monkeypatch.setattr(attention_module, "MOST_SEQUENCES", most)
        output = attention(*parts, packed, causal=causal, dropout=0.0)
        results.append(with_gradients(output, parts))
    assert_twins(*results)

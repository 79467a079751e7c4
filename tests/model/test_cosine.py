"""Cosine scores equal those of a table of unit vectors, value and gradient, however scored."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.kernels.candidate_scores as candidates_module
import research.model.kernels.cosine as cosine_module
from research.errors import InputError
from research.model.item_table import ItemTable
from research.model.transformer_config import TransformerConfig
from research.objectives.head import Head, HeadConfig
from tests.support.synthetic import randomize_parameters

ITEMS = 13
WIDTH = 5


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients are projected four rows at a time."""
    monkeypatch.setattr(cosine_module, "ROWS", 4)


def build_table(dtype: torch.dtype = torch.float64) -> ItemTable:
    table = ItemTable(ITEMS, WIDTH, init_std=0.02, seed=0).to(dtype)
    randomize_parameters(table)
    return table


def unit_rows(table: ItemTable) -> Tensor:
    """The twin: every row over its norm, by torch's own gradients."""
    return torch.stack([row / (row * row).sum().sqrt() for row in table.weight])


def states_of(number: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draws = torch.Generator().manual_seed(number)
    return torch.randn(number, WIDTH, generator=draws, dtype=dtype).requires_grad_()


def assert_same(table: ItemTable, states: Tensor, ours: Tensor, theirs: Tensor) -> None:
    """The values, and the gradients of some weighted sum, are the same."""
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.arange(1.0, ours.numel() + 1, dtype=ours.dtype).view(ours.shape)
    leaves = [table.weight, states]
    found, expected = (
        torch.autograd.grad((scores * weights).sum(), leaves, retain_graph=True)
        for scores in (ours, theirs)
    )
    for left, right in zip(found, expected, strict=True):
        left = left.to_dense() if left.is_sparse else left
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_candidates_of_each_state(
    number: int, gathered: bool, touched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "CPU_ROWS_PER_GATHER", 0 if gathered else 1 << 30)
    table, states = build_table(), states_of(number)
    table.touched_rows = touched
    # The mask is a candidate too, and an item twice.
    ids_PN = torch.tensor([[ITEMS, 5, 5], [0, 1, 12]]).repeat(4, 1)[:number]
    bias_V = torch.arange(ITEMS + 1, dtype=torch.float64)
    ours = table.scores(states, ids_PN, bias_V=bias_V, cosine=True)
    theirs = torch.einsum("PD,PND->PN", states, unit_rows(table)[ids_PN]) + bias_V[ids_PN]
    assert_same(table, states, ours, theirs)


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("ids", [[], [4], [4, 0, 12, 4]])
def test_candidates_that_all_states_share(ids: list[int], touched: bool) -> None:
    table, states = build_table(), states_of(6)
    table.touched_rows = touched
    ids_N = torch.tensor(ids, dtype=torch.int64)
    ours = table.scores(states, ids_N, cosine=True)
    assert_same(table, states, ours, states @ unit_rows(table)[ids_N].T)


@pytest.mark.parametrize("rows", [ITEMS, ITEMS + 1])
@pytest.mark.parametrize("number", [0, 1, 7])
def test_all_rows(number: int, rows: int) -> None:
    table, states = build_table(), states_of(number)
    theirs = states @ unit_rows(table)[:rows].T
    assert_same(table, states, table.scores(states, rows=rows, cosine=True), theirs)
    targets_P = torch.arange(number) % ITEMS
    ours = table.softmax_loss(states, targets_P, rows=rows, cosine=True)
    assert_same(table, states, ours, F.cross_entropy(theirs, targets_P, reduction="sum"))
    best = int((theirs.argmax(1) == targets_P).sum()) if number else 0
    assert table.top_one(states, targets_P, rows=rows, cosine=True).item() == best
    scored = table.scored_rows(rows, cosine=True)
    torch.testing.assert_close(scored.scores(states.detach(), 0, rows), theirs.detach())


def test_low_precision_is_near_the_exact_loss_and_gradients() -> None:
    found = []
    for low in (True, False):
        table, states = build_table(torch.float32), states_of(37, torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            total = table.softmax_loss(states, torch.arange(37) % ITEMS, cosine=True)
        found.append([total.detach(), *torch.autograd.grad(total, [table.weight, states])])
    for left, right in zip(*found, strict=True):
        assert left.dtype == torch.float32
        # bf16 has 8 bits: an error of 2^-9 a factor, four in a row at most.
        assert (left - right).norm() <= 2**-7 * right.norm()


def test_a_row_of_zeros_has_cosine_zero_and_a_finite_gradient() -> None:
    table, states = build_table(), states_of(3)
    with torch.no_grad():
        table.weight[4] = 0
    scores_PV = table.scores(states, cosine=True)
    assert (scores_PV[:, 4] == 0).all()
    table.softmax_loss(states, torch.tensor([4, 0, 1]), cosine=True).backward()
    assert table.weight.grad.isfinite().all()


def head_of(config: HeadConfig) -> Head:
    sizes = TransformerConfig(width=WIDTH, heads=1)
    head = Head(config, sizes, ITEMS, 0, "head")
    randomize_parameters(head)
    return head.double()


@pytest.mark.parametrize("table", ["tied", "own"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_a_heads_scores_are_the_same_in_training_and_ranking(
    similarity: str, bias: bool, table: str
) -> None:
    config = HeadConfig(similarity=similarity, temperature=0.05, bias=bias, table=table)
    head, items, states = head_of(config), build_table(), states_of(4).detach()
    own = items if head.item_table is None else head.item_table
    expected_PV = torch.stack([
        torch.stack([
            (state * row).sum() / (state.norm() * row.norm() if similarity == "cosine" else 1.0)
            / 0.05 + (head.item_bias[item] if bias else 0.0)
            for item, row in enumerate(own.weight[:ITEMS])
        ])
        for state in states
    ])  # fmt: skip
    ranked_PV = head.scored_rows(items).scores(head.transform(states), 0, ITEMS)
    torch.testing.assert_close(ranked_PV, expected_PV.detach())
    every_P = torch.arange(ITEMS).repeat(4, 1)
    for ids in (every_P, every_P[0]):
        torch.testing.assert_close(head.candidate_scores(states, ids, items), expected_PV)
    targets_P = torch.tensor([3, 1, 0, 12])
    total = head.softmax_loss(states, targets_P, items)
    torch.testing.assert_close(total, F.cross_entropy(expected_PV, targets_P, reduction="sum"))
    best = (expected_PV.argmax(1) == targets_P).sum()
    assert torch.equal(head.top_one(states, targets_P, items), best)


def test_the_length_of_states_and_embeddings_does_not_matter() -> None:
    head, items, states = head_of(HeadConfig(similarity="cosine")), build_table(), states_of(4)
    scores = [head.candidate_scores(states, torch.arange(ITEMS), items)]
    with torch.no_grad():
        items.weight *= torch.rand(ITEMS + 1, 1, dtype=torch.float64) + 0.5
    scores.append(head.candidate_scores(states * 7.0, torch.arange(ITEMS), items))
    torch.testing.assert_close(*scores)
    assert scores[0].abs().max() <= 1.0


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(InputError, match=r"head\.temperature is .*; it must be above 0"):
        HeadConfig(temperature=temperature)


def test_special_classes_are_compared_by_inner_products_alone() -> None:
    config = HeadConfig(special_classes=True)
    with pytest.raises(InputError, match=r"head\.special_classes needs similarity 'dot'"):
        replace(config, similarity="cosine")

"""The item table equals plain products with its rows, value and gradient, whatever competes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.kernels.candidate_scores as candidates_module
import research.model.kernels.cross_entropy as softmax_module
from research.model.item_table import ItemTable
from research.model.transformer_config import TransformerConfig
from research.objectives.components import ModelComponents
from tests.support.synthetic import catalogue_of, randomize_parameters

ITEMS = 13
WIDTH = 5
# What competes: (rows, further rows, a bias).
COMPETING = {
    "items": (ITEMS, 0, False),
    "items with a bias": (ITEMS, 0, True),
    "items and the mask": (ITEMS + 1, 0, False),
    "items, the mask and a padding row": (ITEMS + 1, 1, False),
    "items, the mask and three rows, with a bias": (ITEMS + 1, 3, True),
    "items and a padding row": (ITEMS, 1, False),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of 16 rows, the smallest there is."""
    monkeypatch.setattr(softmax_module, "CPU_TILE", 1)


def build_table(dtype: torch.dtype = torch.float64) -> ItemTable:
    table = ItemTable(ITEMS, WIDTH, init_std=0.02, seed=0).to(dtype)
    randomize_parameters(table)
    return table


def inputs(case: str, picked: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """States, targets, and what stands beside the table's rows."""
    rows, further, biased = COMPETING[case]
    draws = torch.Generator().manual_seed(picked)
    parts = {
        "states": torch.randn(picked, WIDTH, generator=draws, dtype=dtype),
        "targets": torch.randint(ITEMS, (picked,), generator=draws),
    }
    if biased:
        parts["bias"] = torch.randn(rows, generator=draws, dtype=dtype)
    if further:
        parts["further"] = torch.randn(further, WIDTH, generator=draws, dtype=dtype)
    return parts


def naive_scores(table: ItemTable, case: str, parts: dict[str, Tensor]) -> Tensor:
    """The twin: one inner product a column."""
    rows, _, _ = COMPETING[case]
    bias = parts.get("bias", torch.zeros(rows, dtype=table.weight.dtype))
    columns = [(parts["states"] * table.weight[row]).sum(1) + bias[row] for row in range(rows)] + [
        (parts["states"] * row).sum(1) for row in parts.get("further", [])
    ]
    return torch.stack(columns, dim=1)


def with_gradients(table: ItemTable, parts: dict[str, Tensor], total: Tensor) -> list[Tensor]:
    """The value and its gradients with respect to table, states and bias."""
    leaves = [table.weight, parts["states"], *([parts["bias"]] if "bias" in parts else [])]
    return [total.detach(), *torch.autograd.grad(3.0 * total, leaves)]


def learnable(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    for name in ("states", "bias"):
        if name in parts:
            parts[name].requires_grad_()
    return parts


# Sums of a few dozen terms in float64 are exact to about 1e-14.
@pytest.mark.parametrize("picked", [0, 1, 16, 37])
@pytest.mark.parametrize("case", COMPETING)
def test_the_softmax_loss_and_its_gradients_equal_the_naive_ones(case: str, picked: int) -> None:
    table, parts = build_table(), learnable(inputs(case, picked))
    ours = table.softmax_loss(
        parts["states"], parts["targets"], rows=COMPETING[case][0],
        bias_V=parts.get("bias"), further_ED=parts.get("further"),
    )  # fmt: skip
    naive_PC = naive_scores(table, case, parts)
    theirs = F.cross_entropy(naive_PC, parts["targets"], reduction="sum")
    for left, right in zip(
        with_gradients(table, parts, ours), with_gradients(table, parts, theirs), strict=True
    ):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", COMPETING)
def test_huge_scores_of_any_column_neither_overflow_nor_lose_the_loss(case: str) -> None:
    table, parts = build_table(), inputs(case, 5)
    for name in ("bias", "further"):
        if name in parts:
            parts[name] *= 1e4
    ours = table.softmax_loss(
        parts["states"], parts["targets"], rows=COMPETING[case][0],
        bias_V=parts.get("bias"), further_ED=parts.get("further"),
    )  # fmt: skip
    naive_PC = naive_scores(table, case, parts)
    theirs = F.cross_entropy(naive_PC, parts["targets"], reduction="sum")
    assert ours.isfinite()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("picked", [0, 1, 37])
@pytest.mark.parametrize("case", COMPETING)
def test_scores_and_the_best_of_them_equal_the_naive_ones(case: str, picked: int) -> None:
    table, parts = build_table(), inputs(case, picked)
    beside = {"rows": COMPETING[case][0], "bias_V": parts.get("bias"),
              "further_ED": parts.get("further")}  # fmt: skip
    naive_PC = naive_scores(table, case, parts)
    with torch.no_grad():
        apart_PC = table.scores(parts["states"], **beside)
    scores_PC = table.scores(parts["states"], **beside)
    torch.testing.assert_close(scores_PC, naive_PC, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(apart_PC, scores_PC, rtol=1e-13, atol=1e-13)
    right = int((naive_PC.argmax(1) == parts["targets"]).sum()) if picked else 0
    assert table.top_one(parts["states"], parts["targets"], **beside).item() == right


def test_without_a_word_on_rows_the_items_alone_compete() -> None:
    table, parts = build_table(), inputs("items", 7)
    assert table.scores(parts["states"]).shape == (7, ITEMS)
    plain = table.softmax_loss(parts["states"], parts["targets"])
    assert torch.equal(plain, table.softmax_loss(parts["states"], parts["targets"], rows=ITEMS))


@pytest.mark.parametrize("case", COMPETING)
def test_low_precision_is_near_the_exact_loss_and_gradients(case: str) -> None:
    table, parts = build_table(torch.float32), learnable(inputs(case, 37, torch.float32))
    found = []
    for low in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            total = table.softmax_loss(
                parts["states"], parts["targets"], rows=COMPETING[case][0],
                bias_V=parts.get("bias"), further_ED=parts.get("further"),
            )  # fmt: skip
        found.append(with_gradients(table, parts, total))
    for left, right in zip(*found, strict=True):
        assert left.dtype == torch.float32
        # bf16 has 8 bits: an error of 2^-9 a factor, four in a row at most.
        assert (left - right).norm() <= 2**-7 * right.norm()


@pytest.mark.parametrize("gathered", [False, True])
def test_each_state_scores_its_own_ids_which_may_be_the_masks(
    gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "CPU_ROWS_PER_GATHER", 0 if gathered else 1 << 30)
    table, parts = build_table(), learnable(inputs("items and the mask", 3))
    ids_PN = torch.tensor([[0, ITEMS], [5, 5], [ITEMS, 12]])
    bias_V = torch.arange(ITEMS + 1, dtype=torch.float64, requires_grad=True)
    parts["bias"] = bias_V
    ours = table.scores(parts["states"], ids_PN, bias_V=bias_V)
    theirs = torch.stack([
        torch.stack([(state * table.weight[each]).sum() + bias_V[each] for each in ids])
        for state, ids in zip(parts["states"], ids_PN)
    ])  # fmt: skip
    weights_PN = torch.tensor([[1.0, 2.0], [3.0, -4.0], [5.0, 6.0]], dtype=torch.float64)
    for left, right in zip(
        with_gradients(table, parts, (ours * weights_PN).sum()),
        with_gradients(table, parts, (theirs * weights_PN).sum()),
        strict=True,
    ):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_no_rows_gradient_but_those_of_what_competes() -> None:
    table, parts = build_table(), inputs("items", 4)
    table.softmax_loss(parts["states"], parts["targets"]).backward()
    assert table.weight.grad[:ITEMS].any(dim=1).all()
    assert not table.weight.grad[ITEMS].any()


def test_a_heads_own_table_has_no_mask() -> None:
    table = ItemTable(ITEMS, WIDTH, init_std=0.02, seed=0, purpose="cloze head", masked=False)
    assert table.weight.shape == (ITEMS, WIDTH)
    with pytest.raises(AssertionError, match="the mask may"):
        table.scores(torch.zeros(1, WIDTH), rows=ITEMS + 1)


def test_the_start_is_keyed_by_a_name_that_is_written_down() -> None:
    # The first values of 'item_table.weight' drawn for an encoder with seed 0 and a width of 5.
    table = ItemTable(ITEMS, WIDTH, init_std=0.02, seed=0)
    expected = [-0.014106552, -0.0033948615, 0.0097600305, 0.026220275, -0.02155719]
    torch.testing.assert_close(table.weight[0], torch.tensor(expected), rtol=1e-5, atol=0.0)


def test_attributes_are_added_where_items_are_looked_up_and_nowhere_else() -> None:
    attributes = [[0], [0, 1], []]
    catalogue = catalogue_of([], 3, attributes=attributes, num_attributes=2)
    shared = ModelComponents(TransformerConfig(width=WIDTH, heads=1), catalogue, 0)
    width = WIDTH
    table = ItemTable(3, width, init_std=0.02, seed=0, attributes=shared.attributes)
    randomize_parameters(table)
    first, second = shared.attributes.attribute_table.weight
    ids = torch.tensor([[0, 1], [2, 3]])
    added = table.lookup(ids) - table.weight[ids]
    expected = torch.stack([torch.stack([first, first + second]), torch.zeros(2, width)])
    # Differences of numbers of order 1 in float32.
    torch.testing.assert_close(added, expected, rtol=0.0, atol=1e-6)
    states = torch.ones(2, width)
    torch.testing.assert_close(table.scores(states), states @ table.weight[:3].T)

"""Rows made of vectors equal a loop over items, in lookups, losses and ranking, with gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import research.model.item_vectors as vectors_module
from research.errors import InputError
from research.model.initialization import initialize
from research.model.item_table import ItemTable, ItemTableConfig
from research.model.item_vectors import ItemVectors, VectorProjection
from research.model.transformer_config import TransformerConfig
from research.objectives.components import ModelComponents
from tests.support.synthetic import catalogue_of, randomize_parameters

ITEMS, SIZE, WIDTH = 7, 3, 4
MASK = ITEMS
VECTORS = np.random.default_rng(0).normal(2.0, 3.0, (ITEMS, SIZE)).astype(np.float32)
MODES = [("beside", None), ("alone", None), ("beside", 5), ("alone", 5)]


def build(mode: str, hidden: int | None, vectors: np.ndarray = VECTORS) -> ItemTable:
    """A table with random parameters, whose statistics of the vectors are as they are."""
    known = ItemVectors(vectors)
    projection = VectorProjection(known, WIDTH, hidden, init_std=0.02, seed=0)
    table = ItemTable(
        len(vectors), WIDTH, init_std=0.02, seed=0, projection=projection, has_ids=mode == "beside"
    )
    statistics = [known.mean.clone(), known.deviation.clone()]
    randomize_parameters(table)
    with torch.no_grad():
        known.mean.copy_(statistics[0])
        known.deviation.copy_(statistics[1])
    return table.double()


def twin_rows(table: ItemTable) -> Tensor:
    """The twin: each item by itself, from the raw vectors by the definition; the mask last."""
    projection = table.projection
    assert projection is not None
    columns = [[float(row[e]) for row in VECTORS] for e in range(SIZE)]
    mean = [sum(column) / ITEMS for column in columns]
    deviation = [
        math.sqrt(sum((x - m) ** 2 for x in column) / ITEMS)
        for column, m in zip(columns, mean, strict=True)
    ]
    rows = []
    for item in range(ITEMS):
        x = torch.tensor(
            [(float(VECTORS[item, e]) - mean[e]) / deviation[e] for e in range(SIZE)]
        ).double()
        if projection.hidden is not None:
            x = projection.hidden.weight @ (x / math.sqrt(SIZE)) + projection.hidden.bias
            x = 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))
        row = projection.dense.weight @ (x / math.sqrt(len(x))) + projection.dense.bias
        rows.append(row if table.weight is None else row + table.weight[item])
    mask = table.mask_row[0] if table.weight is None else table.weight[MASK]
    return torch.stack([*rows, mask])


def gradients(table: ItemTable, total: Tensor) -> list[Tensor]:
    leaves = [part for part in table.parameters() if part.requires_grad]
    return list(torch.autograd.grad(total, leaves))


# Statistics are float32 in the table and float64 in the twin.
NEAR = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("ids", [[], [3], [MASK], [0, MASK, 6, 6, 1], [*range(8), *range(8)]])
@pytest.mark.parametrize(("mode", "hidden"), MODES)
def test_lookups_and_their_gradients_equal_the_loop(
    mode: str, hidden: int | None, ids: list[int]
) -> None:
    table = build(mode, hidden)
    ids_T = torch.tensor(ids, dtype=torch.int64)
    found_TD, twin_TD = table.lookup(ids_T), twin_rows(table)[ids_T]
    torch.testing.assert_close(found_TD, twin_TD, **NEAR)
    weights_TD = torch.arange(1.0, 1.0 + found_TD.numel()).double().view_as(found_TD)
    for ours, theirs in zip(
        gradients(table, (found_TD * weights_TD).sum()),
        gradients(table, (twin_TD * weights_TD).sum() + 0.0 * twin_rows(table).sum()),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **NEAR)


LOSSES: dict[str, Callable[[ItemTable, Tensor, Tensor], Tensor]] = {
    "full softmax": lambda table, states, targets: table.softmax_loss(states, targets),
    "full softmax with the mask": lambda table, states, targets: table.softmax_loss(
        states, targets, rows=ITEMS + 1
    ),
    "all scores": lambda table, states, targets: table.scores(states).square().sum(),
    "few candidates": lambda table, states, targets: table.scores(
        states, torch.tensor([[0, MASK], [6, 6], [2, 0]])
    ).square().sum(),
    "more candidates than items": lambda table, states, targets: table.scores(
        states, torch.tensor([[0, MASK, 3], [6, 6, 1], [2, 0, 0]])
    ).square().sum(),
    "candidates of all states": lambda table, states, targets: table.scores(
        states, torch.tensor([MASK, 2])
    ).square().sum(),
}  # fmt: skip
TWINS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "full softmax": lambda rows, states, targets: F.cross_entropy(
        states @ rows[:ITEMS].T, targets, reduction="sum"
    ),
    "full softmax with the mask": lambda rows, states, targets: F.cross_entropy(
        states @ rows.T, targets, reduction="sum"
    ),
    "all scores": lambda rows, states, targets: (states @ rows[:ITEMS].T).square().sum(),
    "few candidates": lambda rows, states, targets: sum(
        (states[p] @ rows[v]) ** 2 for p, v in ((0, 0), (0, MASK), (1, 6), (1, 6), (2, 2), (2, 0))
    ),
    "more candidates than items": lambda rows, states, targets: sum(
        (states[p] @ rows[v]) ** 2
        for p, listed in enumerate([[0, MASK, 3], [6, 6, 1], [2, 0, 0]])
        for v in listed
    ),
    "candidates of all states": lambda rows, states, targets: sum(
        (states[p] @ rows[v]) ** 2 for p in range(3) for v in (MASK, 2)
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("mode", "hidden"), MODES)
def test_losses_and_their_gradients_equal_the_loop(
    mode: str, hidden: int | None, loss: str
) -> None:
    table = build(mode, hidden)
    draws = torch.Generator().manual_seed(1)
    states_PD = torch.randn(3, WIDTH, generator=draws).double()
    targets_P = torch.tensor([5, 0, 5])
    twin = TWINS[loss](twin_rows(table), states_PD, targets_P)
    with table.one_step():
        for whole_first in (False, True):
            if whole_first:
                table.rows()
            ours = LOSSES[loss](table, states_PD, targets_P)
            torch.testing.assert_close(ours, twin, **NEAR)
            for left, right in zip(
                torch.autograd.grad(ours, list(table.projection.dense.parameters()),
                                    retain_graph=True),
                torch.autograd.grad(twin, list(table.projection.dense.parameters()),
                                    retain_graph=True),
                strict=True,
            ):  # fmt: skip
                torch.testing.assert_close(left, right, **NEAR)


def test_within_a_step_all_rows_are_computed_once_and_their_gradients_add_up() -> None:
    table, calls = build("alone", None), []
    table.projection.register_forward_hook(lambda *_: calls.append(1))
    states_PD = torch.ones(2, WIDTH).double()
    with table.one_step():
        first = table.softmax_loss(states_PD, torch.tensor([0, 1]))
        second = table.lookup(torch.arange(8)).sum()
        assert torch.equal(table.rows(), table.rows())
    assert len(calls) == 1
    together = gradients(table, first + second)
    apart = [
        gradients(table, table.softmax_loss(states_PD, torch.tensor([0, 1]))),
        gradients(table, table.lookup(torch.arange(8)).sum()),
    ]
    for whole, parts in zip(together, zip(*apart, strict=True), strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-12, atol=1e-12)
    # A later step computes them anew.
    table.rows()
    assert len(calls) > 2


@pytest.mark.parametrize("ids", [[], [2]])
@pytest.mark.parametrize("mode", ["beside", "alone"])
def test_every_parameter_has_a_gradient_even_where_nothing_is_looked_up(
    mode: str, ids: list[int]
) -> None:
    table = build(mode, 5)
    table.lookup(torch.tensor(ids, dtype=torch.int64)).sum().backward()
    for name, parameter in table.named_parameters():
        assert (parameter.grad is None) == (name.split(".")[-1] in ("mean", "deviation")), name


@pytest.mark.parametrize("mode", ["beside", "alone"])
def test_no_candidates_have_no_scores_and_gradients_of_zeros(mode: str) -> None:
    table = build(mode, None)
    scores_PN = table.scores(torch.zeros(0, WIDTH).double(), torch.zeros(0, 4).long())
    assert scores_PN.shape == (0, 4)
    scores_PN.sum().backward()
    for parameter in (table.projection.dense.weight, table.projection.dense.bias):
        assert not parameter.grad.any()


OPTIMIZERS = {
    "fused adam": lambda parts: torch.optim.Adam(parts, fused=True),
    "adam": lambda parts: torch.optim.Adam(parts, foreach=False),
    "foreach adamw": lambda parts: torch.optim.AdamW(parts, foreach=True),
    "fused sgd": lambda parts: torch.optim.SGD(parts, lr=0.1, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_ranking_computes_the_rows_once_until_a_parameter_changes(optimizer: str) -> None:
    table, calls = build("beside", None).float(), []
    table.projection.register_forward_hook(lambda *_: calls.append(1))
    first = table.scored_rows(ITEMS).table_RD
    assert table.scored_rows(ITEMS).table_RD.data_ptr() == first.data_ptr()
    with torch.no_grad():
        assert torch.equal(table.lookup(torch.tensor([2])), first[2:3])
    assert len(calls) == 1
    before = first.clone()
    with table.one_step():
        table.lookup(torch.tensor([1]))
        # The accuracy of a step, which comes before its update.
        with torch.no_grad():
            table.scores(torch.zeros(1, WIDTH), torch.tensor([[1, 2]]))
            table.scores(torch.zeros(1, WIDTH))
    for parameter in table.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    OPTIMIZERS[optimizer]([part for part in table.parameters() if part.requires_grad]).step()
    after = table.scored_rows(ITEMS).table_RD
    assert (after != before).all()
    torch.testing.assert_close(after, table.rows()[:ITEMS].detach(), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        table.projection.dense.bias.add_(1.0)
    torch.testing.assert_close(table.scored_rows(ITEMS).table_RD, after + 1.0, rtol=1e-6, atol=1e-6)


def test_statistics_that_were_filled_from_a_file_decide_from_then_on() -> None:
    vectors = ItemVectors(VECTORS)
    before = vectors.table().clone()
    # Mean 0 and variance 1, as rounded to float32.
    torch.testing.assert_close(before.mean(0), torch.zeros(SIZE), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(before.square().mean(0), torch.ones(SIZE), rtol=1e-5, atol=0.0)
    with torch.no_grad():
        vectors.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        vectors.deviation.fill_(2.0)
    expected = (torch.from_numpy(VECTORS) - torch.tensor([1.0, 2.0, 3.0])) / 2.0
    assert torch.equal(vectors.table(), expected)


def test_many_rows_are_standardized_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ItemVectors(VECTORS).table()
    monkeypatch.setattr(vectors_module, "_ROWS", 2)
    torch.testing.assert_close(ItemVectors(VECTORS).table(), whole, rtol=1e-6, atol=1e-6)


def test_a_number_that_all_items_share_is_taken_away_and_not_divided() -> None:
    shared = np.array([[1000.1, 1.0], [1000.1, 3.0]], dtype=np.float32)
    assert ItemVectors(shared).table().tolist() == [[0.0, -1.0], [0.0, 1.0]]
    alone = np.array([[5.0, 0.0]], dtype=np.float32)
    assert ItemVectors(alone).table().tolist() == [[0.0, 0.0]]


def test_rows_of_vectors_begin_about_as_large_as_embeddings_of_ids() -> None:
    vectors = np.random.default_rng(0).normal(5.0, 2.0, (400, 96)).astype(np.float32)
    for hidden in (None, 64):
        projection = VectorProjection(ItemVectors(vectors), 32, hidden, init_std=0.02, seed=0)
        # GELU halves a normal number's size, roughly.
        assert 0.008 < float(projection().detach().std()) < 0.025


def test_the_start_is_keyed_by_names_that_are_written_down() -> None:
    vectors = ItemVectors(VECTORS)
    plain = VectorProjection(vectors, WIDTH, None, init_std=0.02, seed=3)
    deep = VectorProjection(vectors, WIDTH, 5, init_std=0.02, seed=3)
    table = ItemTable(ITEMS, WIDTH, init_std=0.02, seed=3, projection=plain, has_ids=False)
    twins = torch.nn.Linear(SIZE, WIDTH), torch.nn.Linear(SIZE, 5)
    initialize(twins[0], 0.02, 3, "item vectors")
    initialize(twins[1], 1.0, 3, "item vectors, hidden")
    assert torch.equal(plain.dense.weight, twins[0].weight)
    assert torch.equal(deep.hidden.weight, twins[1].weight)
    assert table.mask_row.shape == (1, WIDTH)
    assert [name for name, _ in table.named_parameters()] == [
        "mask_row", "projection.vectors.mean", "projection.vectors.deviation",
        "projection.dense.weight", "projection.dense.bias",
    ]  # fmt: skip


def test_the_id_embeddings_start_as_they_do_without_vectors() -> None:
    beside = build_components(ItemTableConfig(vectors="beside"))
    without = build_components(ItemTableConfig())
    assert torch.equal(beside.encoder.item_table.weight, without.encoder.item_table.weight)


def build_components(items: ItemTableConfig) -> ModelComponents:
    catalogue = replace(catalogue_of([[0, 1]], ITEMS), item_vectors=VECTORS)
    return ModelComponents(TransformerConfig(width=WIDTH, heads=1), catalogue, 0, items)


DROPOUT = 0.25


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", ["ids", "beside", "alone"])
def test_a_steps_lookups_and_scores_are_of_the_same_dropped_rows(mode: str, loss: str) -> None:
    table = build("beside" if mode == "ids" else mode, 5)
    if mode == "ids":
        table.projection = None
    whole_RD = table.rows().detach()
    table.dropout = DROPOUT
    draws = torch.Generator().manual_seed(1)
    states_PD = torch.randn(3, WIDTH, generator=draws).double()
    targets_P = torch.tensor([5, 0, 5])
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        with table.one_step():
            looked_up_RD = table.lookup(torch.arange(ITEMS + 1))
            scale_RD = (looked_up_RD / whole_RD).detach()
            ours = LOSSES[loss](table, states_PD, targets_P)
            with torch.no_grad():
                assert torch.equal(table.rows(), looked_up_RD), "an accuracy is of the same rows"
        kept = torch.tensor([0.0, 1 / (1 - DROPOUT)]).double()
        assert torch.isclose(scale_RD[..., None], kept, atol=1e-4).any(-1).all()
        seen.add(tuple(scale_RD.flatten().tolist()))
        table.dropout = 0.0
        twin_RD = table.rows() * scale_RD
        table.dropout = DROPOUT
        twin = TWINS[loss](twin_RD, states_PD, targets_P)
        torch.testing.assert_close(ours, twin, **NEAR)
        total, twin_total = ours + looked_up_RD.sum(), twin + twin_RD.sum()
        for left, right in zip(gradients(table, total), gradients(table, twin_total), strict=True):
            torch.testing.assert_close(left, right, **NEAR)
    assert len(seen) == 20, "every step draws anew"


def test_the_table_has_its_dropout_in_training_alone_and_its_share() -> None:
    table = ItemTable(2_000, 8, init_std=1.0, seed=0, dropout=DROPOUT)
    zeros = table.lookup(torch.arange(2_000)) == 0.0
    # A standard deviation is .0034.
    assert zeros.double().mean().item() == pytest.approx(DROPOUT, abs=0.015)
    assert torch.equal(table.scored_rows(2_000).table_RD, table.weight[:2_000])
    with torch.no_grad():
        assert table.rows() is table.weight
    table.eval()
    assert table.rows() is table.weight


def test_a_dropout_of_all_is_refused() -> None:
    for share in (-0.1, 1.0):
        with pytest.raises(InputError, match=r"items\.dropout is .*at least 0 and below 1"):
            ItemTableConfig(dropout=share)


def test_wrong_configs_and_a_corpus_without_vectors_are_refused() -> None:
    bare = ModelComponents(
        TransformerConfig(width=WIDTH), catalogue_of([[0]], ITEMS), 0,
        ItemTableConfig(vectors="alone"),
    )  # fmt: skip
    with pytest.raises(InputError, match="--item-vectors FILE"):
        _ = bare.encoder
    with pytest.raises(InputError, match=r"items\.vectors is none"):
        ItemTableConfig(projection_width=8)
    with pytest.raises(InputError, match="allowed: 1 to"):
        ItemTableConfig(vectors="alone", projection_width=0)

"""Which item has which attributes, and the sum of their embeddings, against loops over lists."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.attribute_embedding import AttributeTable
from research.model.item_table import ItemTableConfig
from research.model.transformer_block import BlockConfig, PostNorm, PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.components import ModelComponents
from research.packed import Packed
from tests.support import reference
from tests.support.synthetic import catalogue_of, randomize_parameters

# Items 1 and 5, the last, have none; nobody has attribute 3; the mask is 6.
ATTRIBUTES = [[0, 2], [], [4], [0, 1, 2, 4], [1], []]
MASK = ITEMS = 6
WIDTH = 4
READING = ItemTableConfig(attributes=True)
# Attributes first and last, none between, the mask, an item twice, and none at all.
LISTS = [
    [0, 1, 2, 3, 4, 5, 6],
    [6, 5, 4, 3, 2, 1, 0],
    [3],
    [1],
    [6],
    [1, 5, 6],
    [3, 3, 1, 3, 6, 0],
    [],
]


@pytest.fixture
def catalogue() -> Catalogue:
    return catalogue_of([[0]], ITEMS, attributes=ATTRIBUTES, num_attributes=5)


@pytest.fixture
def table(catalogue: Catalogue) -> AttributeTable:
    return ModelComponents(TransformerConfig(width=WIDTH), catalogue, 0).attributes.double()


def own(item: int) -> list[int]:
    return [] if item == MASK else ATTRIBUTES[item]


@pytest.mark.parametrize("items", LISTS)
def test_numbers_and_pairs_equal_the_loop(items: list[int], table: AttributeTable) -> None:
    items_P = torch.tensor(items, dtype=torch.int64)
    assert table.number(items_P).tolist() == [len(own(item)) for item in items]
    rows_M, labels_M = table.pairs(items_P)
    twin = [(place, each) for place, item in enumerate(items) for each in own(item)]
    assert list(zip(rows_M.tolist(), labels_M.tolist(), strict=True)) == twin


@pytest.mark.parametrize("items", LISTS)
def test_sums_and_their_gradients_equal_the_loop(items: list[int], table: AttributeTable) -> None:
    weight_AD = table.attribute_table.weight
    rows = [
        sum((weight_AD[each] for each in own(item)), start=torch.zeros(WIDTH).double())
        for item in items
    ]
    twin_TD = torch.stack(rows) if rows else torch.zeros(0, WIDTH).double()
    sums_TD = table.sums(torch.tensor(items, dtype=torch.int64))
    torch.testing.assert_close(sums_TD, twin_TD, rtol=1e-12, atol=1e-12)
    # Each token and column counts differently, so that no two gradients can be exchanged.
    factors_TD = torch.arange(1.0, 1.0 + sums_TD.numel()).double().view(-1, WIDTH)
    ours, theirs = (gradient(each_TD * factors_TD, weight_AD) for each_TD in (sums_TD, twin_TD))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def gradient(values: Tensor, weight_AD: Tensor) -> Tensor:
    if not values.requires_grad:
        return torch.zeros_like(weight_AD)
    (grad_AD,) = torch.autograd.grad(values.sum(), weight_AD, allow_unused=True)
    return torch.zeros_like(weight_AD) if grad_AD is None else grad_AD


def test_the_mask_and_bare_items_sum_to_zero(table: AttributeTable) -> None:
    assert table.sums(torch.tensor([6, 1, 5])).tolist() == [[0.0] * WIDTH] * 3


def test_every_attribute_that_an_item_has_can_learn(table: AttributeTable) -> None:
    table.sums(torch.arange(ITEMS)).sum().backward()
    # How many items have attribute 0, 1, ...; the first is an attribute like any other.
    assert table.attribute_table.weight.grad[:, 0].tolist() == [2, 2, 2, 0, 2]


@pytest.mark.parametrize("block", [PostNorm, PreNorm, QueryNorm])
def test_an_encoder_that_reads_attributes_equals_the_loop(
    block: type[BlockConfig], catalogue: Catalogue
) -> None:
    config = TransformerConfig(
        length=7, width=WIDTH, layers=1, heads=2, feed_forward=6, block=block(),
        embedding_scale=block is QueryNorm,
    )  # fmt: skip
    encoder = ModelComponents(config, catalogue, 0, READING).encoder.double().eval()
    randomize_parameters(encoder)
    packed = Packed.from_lists(LISTS)
    hidden_TD = encoder(packed, causal=False)
    grads = torch.autograd.grad(hidden_TD.square().sum(), list(encoder.parameters()))
    twin_TD = torch.cat(
        [reference.encode(encoder, row, False, attributes=ATTRIBUTES) for row in LISTS]
    )
    twin_grads = torch.autograd.grad(twin_TD.square().sum(), list(encoder.parameters()))
    torch.testing.assert_close(hidden_TD, twin_TD, rtol=1e-10, atol=1e-10)
    for ours, theirs in itertools.zip_longest(grads, twin_grads):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_start_of_the_encoder_is_the_same_with_and_without_attributes(
    catalogue: Catalogue,
) -> None:
    config = TransformerConfig(width=WIDTH, heads=1, layers=1)
    without, encoder = (
        ModelComponents(config, catalogue, 0, items).encoder
        for items in (ItemTableConfig(), READING)
    )
    for name, parameter in without.named_parameters():
        assert torch.equal(parameter, encoder.get_parameter(name))


def test_a_corpus_without_attributes_is_named_with_the_remedy() -> None:
    bare = catalogue_of([[0]], ITEMS)
    with pytest.raises(InputError) as caught:
        _ = ModelComponents(TransformerConfig(width=WIDTH), bare, 0).attributes
    assert "the corpus has no item attributes" in str(caught.value)
    assert "or leave those objectives out" in str(caught.value)

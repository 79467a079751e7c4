"""Weights that move: by name, by raw name of items, and never without being accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from research.checkpoint.transfer import RowMatch, transfer_weights
from research.errors import InputError


class TransformerEncoder(nn.Module):
    """Four items and a mask, two positions."""

    def __init__(self, items: int = 4, width: int = 2) -> None:
        super().__init__()
        self.item_table = nn.Embedding(items + 1, width)
        self.position_table = nn.Embedding(2, width)


class Model(nn.Module):
    """An encoder, and a head with a row an item."""

    def __init__(self, items: int = 4, width: int = 2, head: bool = True) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(items, width)
        if head:
            self.item_bias = nn.Parameter(torch.zeros(items))
        for parameter in self.parameters():
            nn.init.constant_(parameter, -1.0)


def numbered(model: Model) -> dict[str, torch.Tensor]:
    """Its parameters, row r filled with r."""
    return {
        name: torch.arange(len(each)).float().view(-1, *[1] * (each.ndim - 1)).expand_as(each)
        for name, each in model.named_parameters()
    }


def test_parameters_move_to_those_of_the_same_name() -> None:
    model = Model()
    carried = transfer_weights(numbered(Model()), model, source="before")
    assert model.encoder.item_table.weight[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    names = ("item_bias", "encoder.item_table.weight", "encoder.position_table.weight")
    assert dict(carried.moved) == {"before": names}
    assert (carried.new, carried.left, dict(carried.rows)) == ((), (), {})
    assert carried.line == "parameters moved: 3 from before; none newly initialized"


def test_what_is_new_and_what_stays_behind_is_named() -> None:
    weights = numbered(Model(head=False)) | {"objectives.mip.dense": torch.zeros(1)}
    model = Model()
    carried = transfer_weights(weights, model, source="before")
    assert (carried.new, carried.left) == (("item_bias",), ("objectives.mip.dense",))
    assert model.item_bias.tolist() == [-1.0] * 4
    assert "newly initialized: item_bias; not used: objectives.mip.dense" in carried.line
    assert carried.new == ("item_bias",)


def test_rows_of_another_vocabulary_move_by_raw_name() -> None:
    # Old items p q r s; new ones s x p: s and p are known, x is fresh, q and r are left.
    match = RowMatch.of(["p", "q", "r", "s"], ["s", "x", "p"])
    model = Model(items=3)
    carried = transfer_weights(numbered(Model(items=4)), model, source="before", items=match)
    # Rows s = 3, x = its own start, p = 0, and the mask's row 4 after them.
    assert model.encoder.item_table.weight[:, 0].tolist() == [3.0, -1.0, 0.0, 4.0]
    assert model.item_bias.tolist() == [3.0, -1.0, 0.0]
    assert model.encoder.position_table.weight[:, 0].tolist() == [0.0, 1.0]
    assert carried.rows["items"] == {"matched": 2, "fresh": 1, "left": 2}
    assert "items: 2 matched by raw name, 1 new, 2 not used" in carried.line


def test_vocabularies_without_a_common_name_move_the_mask_alone() -> None:
    match = RowMatch.of(["p"], ["x", "y"])
    model = Model(items=2)
    transfer_weights(numbered(Model(items=1)), model, source="before", items=match)
    assert model.encoder.item_table.weight[:, 0].tolist() == [-1.0, -1.0, 1.0]
    assert match.counts == {"matched": 0, "fresh": 2, "left": 1}


def test_every_shape_that_differs_is_listed() -> None:
    with pytest.raises(InputError) as caught:
        transfer_weights(numbered(Model(width=3)), Model(), source="runs/a")
    assert str(caught.value).startswith(
        "runs/a does not fit this stage: encoder.item_table.weight has shape (5, 3), expected "
        "(5, 2); encoder.position_table.weight has shape (2, 3), expected (2, 2); give"
    )


def test_a_wider_table_is_refused_also_where_vocabularies_differ() -> None:
    match = RowMatch.of(["p", "q", "r", "s"], ["p"])
    with pytest.raises(InputError, match=r"item_table.weight has shape \(5, 3\), expected \(2, 2"):
        transfer_weights(numbered(Model(width=3)), Model(items=1), source="before", items=match)


def test_a_source_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="before has none of the encoder's parameters"):
        transfer_weights({"item_bias": torch.zeros(4)}, Model(), source="before")


def test_of_two_sources_the_later_one_counts_and_both_are_told() -> None:
    model = Model()
    first = transfer_weights(numbered(Model()) | {"old": torch.zeros(1)}, model, source="first")
    second = transfer_weights(numbered(Model(head=False)), model, source="second")
    account = second.combined_with(first)
    assert dict(account.moved) == {
        "first": ("item_bias",),
        "second": ("encoder.item_table.weight", "encoder.position_table.weight"),
    }
    assert (account.new, account.left) == ((), ("old",))
    assert account.line.startswith("parameters moved: 1 from first, 2 from second; none newly")

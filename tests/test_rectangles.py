"""The padded layouts inside attention: every token has a slot, and what is read a query."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import research.rectangles as rectangles_module
from research.packed import Packed
from research.rectangles import SlotIndex, buckets, cost, lay_out, one_rectangle

ROWS = [[1, 2, 3, 4], [5], [6, 7, 8, 9], [10], []]


@pytest.fixture(autouse=True)
def free(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rectangle costs nothing, so that only like stands with like, unless a test says more."""
    monkeypatch.setattr(rectangles_module, "RECTANGLE_COST", getattr(request, "param", 0))


def test_sequences_of_one_length_stand_together_with_all_tokens_as_queries() -> None:
    packed = Packed.from_lists(ROWS)
    short, long = packed.rectangles.blocks
    assert short.slots_BL.tolist() == [[4], [9]]
    assert long.slots_BL.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert long.queries_BQ.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert long.places_BQ.tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert long.distances_BQL[:, :2].tolist() == [[[0, -1, -2, -3], [1, 0, -1, -2]]]
    assert (short.lengths_B, long.lengths_B) == (None, None)
    assert packed.rectangles is packed.rectangles


@pytest.mark.parametrize("free", [10**9], indirect=True)
def test_behind_a_short_sequence_stands_no_token() -> None:
    (block,) = Packed.from_lists([[1, 2], [3], []]).rectangles.blocks
    assert block.slots_BL.tolist() == [[2, 3], [0, 1]]
    assert block.lengths_B is not None
    assert block.lengths_B.tolist() == [1, 2]


@pytest.mark.parametrize("free", [10**9], indirect=True)
def test_only_what_is_read_asks_and_what_nobody_reads_of_is_left_out() -> None:
    packed = Packed.from_lists([[1, 2, 3], [4, 5], [6], [7, 8]])
    layout = lay_out(packed, torch.tensor([0, 2, 7]))
    (block,) = layout.blocks
    # One query stands before two: sequence 3, then sequence 0.
    assert block.slots_BL.tolist() == [[6, 7, 8], [0, 1, 2]]
    assert block.queries_BQ.tolist() == [[7, 8], [0, 2]]
    assert block.places_BQ.tolist() == [[1, 0], [0, 2]]
    assert block.distances_BQL.tolist() == [[[1, 0, -1], [0, -1, -2]], [[0, -1, -2], [2, 1, 0]]]
    assert layout.outputs[0].tolist() == [[2, 3], [0, 1]]
    assert (layout.num_outputs, layout.order) == (3, None)


def test_one_query_of_a_sequence_stands_apart_from_many() -> None:
    packed = Packed.from_lists([[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]])
    one, all_four = lay_out(packed, torch.tensor([3, 4, 5, 6, 7, 11])).blocks
    assert one.queries_BQ.tolist() == [[3], [11]]
    assert all_four.queries_BQ.tolist() == [[4, 5, 6, 7]]
    assert not all_four.reads_all


def test_tokens_read_twice_or_in_disorder_ask_once_in_order() -> None:
    layout = lay_out(Packed.from_lists([[1, 2, 3], [4, 5]]), torch.tensor([4, 0, 4, 2]))
    assert [block.queries_BQ.tolist() for block in layout.blocks] == [[[4]], [[0, 2]]]
    assert layout.num_outputs == 3
    assert layout.order is not None
    assert layout.order.tolist() == [2, 0, 2, 1]


def test_an_accelerator_has_one_rectangle_with_all_queries_and_selects_afterwards() -> None:
    (block,) = one_rectangle(Packed.from_lists([[1, 2], [], [3]])).blocks
    assert block.slots_BL.tolist() == [[0, 1], [3, 3], [2, 3]]
    assert block.queries_BQ is block.slots_BL
    assert block.lengths_B is not None
    assert block.lengths_B.tolist() == [2, 0, 1]
    packed = Packed.from_lists([[1, 2], [], [3]]).to(torch.device("meta"))
    read_P = torch.empty(4, dtype=torch.int64, device="meta")
    layout = lay_out(packed, read_P)
    assert layout.blocks is packed.rectangles.blocks
    assert layout.order is read_P


@pytest.mark.parametrize("free", [10**9], indirect=True)
def test_positions_and_fields_stand_in_the_slots_of_their_tokens() -> None:
    packed = replace(
        Packed.from_lists([[1, 2, 3], [4]]), fields={"segment": torch.tensor([5, 6, 7, 8])}
    )
    (block,) = replace(packed, positions_T=packed.positions_T + 3).rectangles.blocks
    assert block.positions_BL.tolist() == [[3, 0, 0], [3, 4, 5]]
    assert {name: field.tolist() for name, field in block.fields.items()} == {
        "segment": [[8, 0, 0], [5, 6, 7]]
    }


@pytest.mark.parametrize("free", [10**9], indirect=True)
def test_a_query_sees_its_own_sequence_and_under_causal_nothing_newer() -> None:
    packed = Packed.from_lists([[1, 2, 3], [4]])
    (block,) = packed.rectangles.blocks
    everything, past = block.visible(causal=False), block.visible(causal=True)
    assert everything is not None
    assert past is not None
    assert everything.int().tolist() == [[[1, 0, 0]], [[1, 1, 1]]]
    assert past.int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]
    (read,) = lay_out(packed, torch.tensor([1, 3])).blocks
    past = read.visible(causal=True)
    assert past is not None
    assert past.int().tolist() == [[[1, 0, 0]], [[1, 1, 0]]]
    (full,) = Packed.from_lists([[1, 2], [3, 4]]).rectangles.blocks
    assert full.visible(causal=False) is None


def test_rows_know_their_slots_and_slots_their_rows() -> None:
    # Row 2 stands in no slot; slot 1 is empty.
    index = SlotIndex.of([torch.tensor([1, 7]), torch.tensor([0])], 3)
    assert index.row_of_slot.tolist() == [1, 3, 0]
    assert index.slot_of_row.tolist() == [2, 0, 3]


@pytest.mark.parametrize("free", [0, 20_000, 10**9], indirect=True)
@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=12), heads=st.integers(1, 3))
def test_each_token_has_a_slot_and_each_read_one_a_query(lengths: list[int], heads: int) -> None:
    packed = Packed.from_lists([[7] * length for length in lengths])
    tokens = packed.num_tokens
    read = [token for token in range(tokens) if token * token % 7 < 2]
    for read_P in (None, torch.tensor(read, dtype=torch.int64)):
        layout = lay_out(packed, read_P)
        wanted = list(range(tokens)) if read_P is None else read
        queries = [block.queries_BQ.flatten().tolist() for block in layout.blocks]
        assert sorted(q for part in queries for q in part if q < tokens) == wanted
        owners = {packed.owner_T[token].item() for token in wanted}
        held = [token for token in range(tokens) if packed.owner_T[token].item() in owners]
        slots = [block.slots_BL.flatten().tolist() for block in layout.blocks]
        assert sorted(slot for part in slots for slot in part if slot < tokens) == held
        if not layout.blocks:
            continue
        parts, outputs = layout.indices(heads)
        for index in (parts, outputs):
            slots, rows = len(index.row_of_slot), len(index.slot_of_row)
            held_rows = (index.slot_of_row < slots).nonzero()[:, 0]
            assert torch.equal(index.row_of_slot[index.slot_of_row[held_rows]], held_rows)
            assert (index.row_of_slot < rows).sum() == len(held_rows)
        assert (outputs.slot_of_row < len(outputs.row_of_slot)).all()


@pytest.mark.parametrize("free", [20_000], indirect=True)
@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=40))
def test_rectangles_hold_every_read_sequence_once_and_cost_no_more_than_one(
    pairs: list[tuple[int, int]],
) -> None:
    lengths_S = np.array([max(pair) for pair in pairs], dtype=np.int64)
    reads_S = np.array([min(pair) for pair in pairs], dtype=np.int64)
    groups = buckets(lengths_S, reads_S)
    held = np.flatnonzero(reads_S).tolist()
    assert sorted(row for rows in groups for row in rows.tolist()) == held
    if not held:
        return

    def cost_of(rows: np.ndarray) -> int:
        return cost(len(rows), int(reads_S[rows].max()), int(lengths_S[rows].max()))

    assert sum(cost_of(rows) for rows in groups) <= cost_of(np.flatnonzero(reads_S))

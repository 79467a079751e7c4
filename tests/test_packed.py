"""Packed batches: sequences end to end, the padded layout inside attention, and its gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import research.packed as packed_module
from research.packed import Packed, bucket_ends, pad, unpad

ROWS = [[5, 6, 7], [], [8], [9, 10]]


def test_lists_are_laid_end_to_end() -> None:
    packed = Packed.from_lists(ROWS)
    assert packed.items_T.tolist() == [5, 6, 7, 8, 9, 10]
    assert packed.offsets.tolist() == [0, 3, 3, 4, 6]
    assert packed.positions_T.tolist() == [0, 1, 2, 0, 0, 1]
    assert packed.longest == 3
    assert (packed.num_tokens, packed.num_sequences) == (6, 4)


def test_derived_tensors_name_owner_age_length_and_newest() -> None:
    packed = Packed.from_lists(ROWS)
    assert packed.lengths_S.tolist() == [3, 0, 1, 2]
    assert packed.owner_T.tolist() == [0, 0, 0, 2, 3, 3]
    assert packed.ages_T.tolist() == [2, 1, 0, 0, 1, 0]
    assert Packed.from_lists([[1, 2], [3]]).last_S.tolist() == [1, 2]


def test_newest_keeps_the_end_of_each_sequence_and_counts_positions_anew() -> None:
    kept = Packed.from_lists(ROWS).newest(2)
    assert kept.items_T.tolist() == [6, 7, 8, 9, 10]
    assert kept.offsets.tolist() == [0, 2, 2, 3, 5]
    assert kept.positions_T.tolist() == [0, 1, 0, 0, 1]
    assert kept.longest == 2


def with_fields(rows: list[list[int]]) -> Packed:
    """An item's time is ten times its id, its segment the id's last bit."""
    fields = {
        "time": [[10 * item for item in row] for row in rows],
        "segment": [[item % 2 for item in row] for row in rows],
    }
    return Packed.from_lists(rows, fields)


def assert_fields_follow(packed: Packed) -> None:
    assert packed.fields["time"].tolist() == [10 * item for item in packed.items_T.tolist()]
    assert packed.fields["segment"].tolist() == [item % 2 for item in packed.items_T.tolist()]


def test_fields_travel_with_their_tokens_through_every_operation() -> None:
    packed = with_fields(ROWS)
    assert packed.num_tokens == 6
    assert_fields_follow(packed.newest(2))
    assert_fields_follow(packed.newest(1))
    assert_fields_follow(packed.select(torch.tensor([3, 1, 3])))
    assert_fields_follow(packed.between((2, 4), (3, 6)))
    assert_fields_follow(Packed.cat([packed, packed.newest(1)]))
    lengths_S = torch.tensor([1, 0, 1, 1])
    assert_fields_follow(packed.keep(packed.positions_T == 0, lengths_S, 1))
    assert packed.newest(2).items_T.tolist() == [6, 7, 8, 9, 10]


def test_selected_sequences_stand_in_the_order_asked_for() -> None:
    packed = Packed.from_lists([[1, 2], [], [3, 4, 5]]).select(torch.tensor([2, 0, 1, 2]))
    assert packed.items_T.tolist() == [3, 4, 5, 1, 2, 3, 4, 5]
    assert packed.positions_T.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert packed.offsets.tolist() == [0, 3, 5, 5, 8]


def test_neighbouring_sequences_are_cut_out() -> None:
    packed = Packed.from_lists([[1, 2], [], [3, 4, 5], [6]]).between((1, 3), (2, 5))
    assert packed.items_T.tolist() == [3, 4, 5]
    assert packed.offsets.tolist() == [0, 0, 3]


def test_an_appended_token_has_the_newest_time_and_segment_0() -> None:
    packed = with_fields([[3, 5], [], [7]]).append(9)
    assert packed.items_T.tolist() == [3, 5, 9, 9, 7, 9]
    assert packed.positions_T.tolist() == [0, 1, 2, 0, 0, 1]
    assert packed.offsets.tolist() == [0, 3, 4, 6]
    assert packed.longest == 3
    assert packed.fields["time"].tolist() == [30, 50, 50, 0, 70, 70]
    assert packed.fields["segment"].tolist() == [1, 1, 0, 0, 1, 0]
    assert with_fields([[]]).append(9).fields["time"].tolist() == [0]
    assert Packed.from_lists([]).append(9).num_tokens == 0


def test_newest_zero_leaves_empty_sequences() -> None:
    kept = Packed.from_lists(ROWS).newest(0)
    assert kept.offsets.tolist() == [0, 0, 0, 0, 0]
    assert kept.num_tokens == 0


def test_cat_lays_batches_end_to_end() -> None:
    joined = Packed.cat([Packed.from_lists([[1, 2]]), Packed.from_lists([[], [3, 4, 5]])])
    assert joined.items_T.tolist() == [1, 2, 3, 4, 5]
    assert joined.positions_T.tolist() == [0, 1, 0, 1, 2]
    assert joined.offsets.tolist() == [0, 2, 2, 5]
    assert joined.longest == 3
    assert joined.fields == {}


def test_cat_refuses_sequences_with_other_fields() -> None:
    typed = Packed.from_lists([[3]], {"segment": [[1]]})
    with pytest.raises(ValueError, match=r"fields \[\] cannot be laid beside .* \['segment'\]"):
        Packed.cat([Packed.from_lists([[1, 2]]), typed])


def test_an_empty_batch_has_no_tokens_and_no_sequences() -> None:
    packed = Packed.from_lists([])
    assert (packed.num_tokens, packed.num_sequences, packed.longest) == (0, 0, 0)
    assert packed.rectangles.shapes == ()


@pytest.mark.parametrize("overhead", [0, 30_000])
@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 12), max_size=12))
def test_padding_and_back_loses_nothing(lengths: list[int], overhead: int) -> None:
    packed = Packed.from_lists([[7] * length for length in lengths])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_module, "RECTANGLE_OVERHEAD", overhead)
        rectangles = packed.rectangles
    x_T2 = torch.arange(2 * packed.num_tokens).double().view(-1, 2)
    padded_C2 = pad(x_T2, rectangles)
    assert padded_C2.shape == (rectangles.num_slots, 2)
    assert torch.equal(unpad(padded_C2, rectangles), x_T2)
    # Slots without a token hold zeros, so nothing else can have been written.
    assert padded_C2.sum() == x_T2.sum()


def test_each_rectangle_holds_whole_sequences_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_module, "RECTANGLE_OVERHEAD", 0)
    rectangles = Packed.from_lists([[1, 2, 3, 4], [5], [6, 7, 8, 9], [10]]).rectangles
    assert rectangles.shapes == ((2, 1), (2, 4))
    assert rectangles.slot_T.tolist() == [2, 3, 4, 5, 0, 6, 7, 8, 9, 1]
    assert rectangles.lengths == (None, None)


def test_lengths_are_kept_where_a_rectangle_is_not_full() -> None:
    rectangles = Packed.from_lists([[1, 2], [3]]).rectangles
    assert rectangles.shapes == ((2, 2),)
    assert rectangles.lengths[0].tolist() == [1, 2]
    assert rectangles.slot_T.tolist() == [2, 3, 0]


def test_gradients_of_pad_and_unpad_are_each_other() -> None:
    rectangles = Packed.from_lists([[1, 2, 3], [4], []]).rectangles
    x_T2 = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    x_C2 = torch.randn(rectangles.num_slots, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pad(x, rectangles), x_T2)
    assert torch.autograd.gradcheck(lambda x: unpad(x, rectangles), x_C2)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=40))
def test_buckets_cover_all_sequences_and_never_cost_more_than_one(lengths: list[int]) -> None:
    sorted_S = torch.tensor(sorted(lengths)).numpy()
    ends = bucket_ends(sorted_S)
    assert ends == sorted(set(ends))
    assert ends[-1] == len(lengths)

    def cost(begin: int, end: int) -> int:
        longest = int(sorted_S[end - 1])
        return packed_module.RECTANGLE_OVERHEAD + (end - begin) * longest * (longest + 64)

    total = sum(cost(begin, end) for begin, end in zip([0, *ends], ends))
    assert total <= cost(0, len(lengths))

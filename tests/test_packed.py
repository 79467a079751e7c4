"""Packed batches: sequences end to end."""

from __future__ import annotations

import pytest
import torch

from research.packed import Packed

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

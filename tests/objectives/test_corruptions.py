"""What the encoder is shown: masks and shifts, equal to a loop, at the rates that are asked for."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.transformer import TransformerEncoder
from research.model.transformer_config import TransformerConfig
from research.objectives.base import View
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig, NextItemShift
from research.packed import Packed
from research.randomness import fold
from tests.support import reference
from tests.support.synthetic import batch_of, catalogue_of, encoder_of

ITEMS = 30
MASK = 30
ROWS = [[7], [], [0, 1, 2, 3, 4, 5, 6, 8, 9], [29, 28, 27], list(range(12)), [3, 3, 3, 3, 3]]
CONFIGS: dict[str, MaskItems] = {
    "bernoulli": MaskItems(rate=0.3),
    "rounded": MaskItems(rate=0.4, count="rounded"),
    "rounded and bounded": MaskItems(rate=0.6, count="rounded", max_picked=3),
    "80/10/10": MaskItems(rate=0.5, random_share=0.1, keep_share=0.1),
    "no mask at all": MaskItems(rate=0.5, random_share=0.7, keep_share=0.3),
    "last in half of the rows": MaskItems(rate=0.2, mask_last_share=0.5),
    "last alone in some rows": MaskItems(rate=0.2, last_only_share=0.3),
    "none at all in some rows": MaskItems(rate=0.2, at_least_one=False),
    "everything at once": MaskItems(
        rate=0.4, count="rounded", max_picked=4, random_share=0.2, keep_share=0.2,
        mask_last_share=0.5, last_only_share=0.25,
    ),
}  # fmt: skip


@pytest.fixture
def catalogue() -> Catalogue:
    return catalogue_of([list(range(ITEMS))], ITEMS)


def rows_of(view: View) -> list[list[int]]:
    """What stands in each sequence of a view."""
    bounds = view.packed.offsets.tolist()
    return [view.packed.items_T[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def picked_of(view: View) -> list[list[int]]:
    """The places picked in each sequence of a view."""
    places: list[list[int]] = [[] for _ in range(view.packed.num_sequences)]
    for owner, place in zip(
        view.row_P.tolist(), view.packed.positions_T[view.picked_P].tolist(), strict=True
    ):
        places[owner].append(place)
    return places


def many(rows: int, length: int, config: MaskItems, catalogue: Catalogue) -> torch.Tensor:
    """bool [rows, length]: what is picked in many full rows."""
    batch = batch_of([[1] * length] * rows, length=length)
    view = config.view(batch, catalogue)
    picked_T = torch.zeros(rows * length, dtype=torch.bool)
    picked_T[view.picked_P] = True
    return picked_T.view(rows, length)


def assert_share(flags: torch.Tensor, expected: float) -> None:
    """Within five standard errors of a binomial share; chance fails once in two million."""
    bound = 5 * math.sqrt(expected * (1 - expected) / flags.numel())
    assert abs(flags.double().mean().item() - expected) < bound


@pytest.mark.parametrize("length", [1, 5, 12, 50])
@pytest.mark.parametrize("name", CONFIGS)
def test_masking_equals_the_loop(name: str, length: int, catalogue: Catalogue) -> None:
    config = CONFIGS[name]
    batch = batch_of(ROWS * 5, length=length)
    view = config.view(batch, catalogue)
    twins = [
        reference.mask_items(config, row, state, ITEMS, length)
        for row, state in zip(ROWS * 5, batch.random_states_S.tolist(), strict=True)
    ]
    assert rows_of(view) == [seen for seen, _ in twins]
    assert picked_of(view) == [picked for _, picked in twins]
    assert config.causal is False


@pytest.mark.parametrize("name", CONFIGS)
def test_only_picked_tokens_change_and_targets_are_what_stood_there(
    name: str, catalogue: Catalogue
) -> None:
    batch = batch_of(ROWS * 20, length=50)
    view = CONFIGS[name].view(batch, catalogue)
    clean_T = batch.packed.items_T
    assert torch.equal(view.items_P, clean_T[view.picked_P])
    untouched_T = torch.ones(len(clean_T), dtype=torch.bool)
    untouched_T[view.picked_P] = False
    assert torch.equal(view.packed.items_T[untouched_T], clean_T[untouched_T])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_row_that_is_not_empty_has_a_target_unless_said(
    name: str, catalogue: Catalogue
) -> None:
    view = CONFIGS[name].view(batch_of(ROWS * 50, length=50), catalogue)
    for row, picked in zip(ROWS * 50, picked_of(view), strict=True):
        if CONFIGS[name].at_least_one:
            assert bool(picked) == bool(row)


def test_where_none_may_be_picked_as_many_rows_have_none_as_chance_has_it(
    catalogue: Catalogue,
) -> None:
    picked = many(40_000, 5, MaskItems(rate=0.2, at_least_one=False), catalogue)
    assert_share(~picked.any(1), 0.8**5)
    assert_share(picked, 0.2)


def test_the_clean_batch_is_left_as_it_was(catalogue: Catalogue) -> None:
    batch = batch_of([[1, 2, 3]], length=50)
    MaskItems(rate=0.9).view(batch, catalogue)
    assert batch.packed.items_T.tolist() == [1, 2, 3]


def test_a_long_window_is_cut_to_its_newest_items(catalogue: Catalogue) -> None:
    view = MaskItems(rate=0.9, keep_share=1.0).view(batch_of([[1, 2, 3, 4]], length=3), catalogue)
    assert rows_of(view) == [[2, 3, 4]]
    assert view.packed.positions_T.tolist() == [0, 1, 2]
    assert view.packed.longest == 3


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.6])
def test_the_rate_of_independent_picks_is_met_at_every_place(
    rate: float, catalogue: Catalogue
) -> None:
    picked = many(4000, 40, MaskItems(rate=rate), catalogue)
    # A row with no pick gets one, which adds (1 - rate)^40 / 40 to every place.
    expected = rate + (1 - rate) ** 40 / 40
    assert_share(picked, expected)
    for place in (0, 20, 39):
        assert_share(picked[:, place], expected)


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.2, 0.3, 0.4, 0.6])
def test_a_rounded_count_is_that_of_the_original_code(rate: float, catalogue: Catalogue) -> None:
    # gen_data_fin.py: min(max_predictions, max(1, int(round(len(tokens) * masked_lm_prob)))).
    lengths = range(1, 401)
    config = MaskItems(rate=rate, count="rounded", max_picked=60)
    view = config.view(batch_of([[1] * length for length in lengths], length=400), catalogue)
    expected = [min(60, max(1, round(length * rate))) for length in lengths]
    assert torch.bincount(view.row_P).tolist() == expected


def test_rounded_picks_fall_on_every_place_alike(catalogue: Catalogue) -> None:
    picked = many(20_000, 10, MaskItems(rate=0.3, count="rounded"), catalogue)
    assert (picked.sum(1) == 3).all()
    for place in range(10):
        assert_share(picked[:, place], 0.3)


def test_the_last_item_is_masked_in_its_share_of_rows_in_addition(catalogue: Catalogue) -> None:
    picked = many(20_000, 10, MaskItems(rate=0.2, mask_last_share=0.5), catalogue)
    # A row with no pick gets one at random, unless its last item is masked anyway.
    forced = 0.8**10 / 10
    assert_share(picked[:, -1], 0.5 + 0.5 * (0.2 + forced))
    assert_share(picked[:, 0], 0.2 + 0.5 * forced)


def test_a_share_of_one_masks_every_last_item(catalogue: Catalogue) -> None:
    picked = many(20_000, 3, MaskItems(rate=0.2, mask_last_share=1.0), catalogue)
    assert picked[:, -1].all()
    # And nothing is added to the others (S3-Rec masks each of them with probability 0.2).
    assert_share(picked[:, :-1], 0.2)


def test_rows_with_only_the_last_masked_have_their_share(catalogue: Catalogue) -> None:
    picked = many(20_000, 40, MaskItems(rate=0.5, last_only_share=1 / 11), catalogue)
    # By chance alone, a row has just its last item with probability 2^-40.
    assert_share(picked[:, -1] & (picked.sum(1) == 1), 1 / 11)


def test_picked_items_become_mask_random_or_stay_in_their_shares(catalogue: Catalogue) -> None:
    config = MaskItems(rate=0.5, random_share=0.1, keep_share=0.1)
    view = config.view(batch_of([[5] * 50] * 2000, length=50), catalogue)
    shown_P = view.packed.items_T[view.picked_P]
    assert_share(shown_P == MASK, 0.8)
    # A random item is the true one with probability 1/30.
    assert_share(shown_P == 5, 0.1 + 0.1 / ITEMS)


def test_random_items_cover_the_whole_catalogue_and_never_the_mask(catalogue: Catalogue) -> None:
    config = MaskItems(rate=0.5, random_share=1.0)
    view = config.view(batch_of([[5] * 50] * 1000, length=50), catalogue)
    counts = torch.bincount(view.packed.items_T[view.picked_P], minlength=ITEMS)
    assert len(counts) == ITEMS
    # Chi-square with 29 degrees of freedom exceeds 66.2 with probability 1e-4.
    expected = counts.sum() / ITEMS
    assert ((counts - expected) ** 2 / expected).sum() < 66.2


def test_masks_of_rows_differ(catalogue: Catalogue) -> None:
    picked = many(50, 40, MaskItems(rate=0.5), catalogue)
    assert len({tuple(row) for row in picked.tolist()}) == 50


def test_masks_of_other_states_differ(catalogue: Catalogue) -> None:
    rows = torch.arange(4)
    views = [
        MaskItems(rate=0.5).view(
            batch_of([[1] * 30] * 4, length=30, states=fold(epoch, rows)), catalogue
        )
        for epoch in (1, 2)
    ]
    assert picked_of(views[0]) != picked_of(views[1])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mask_does_not_depend_on_the_other_rows_of_a_batch(
    name: str, catalogue: Catalogue
) -> None:
    batch = batch_of(ROWS, length=50)
    together = rows_of(CONFIGS[name].view(batch, catalogue))
    for row, sequence in enumerate(ROWS):
        alone = batch_of([sequence], length=50, states=batch.random_states_S[row : row + 1])
        assert rows_of(CONFIGS[name].view(alone, catalogue)) == [together[row]]


@pytest.mark.parametrize("rows", [[], [[]]])
def test_masking_nothing_picks_nothing(rows: list[list[int]], catalogue: Catalogue) -> None:
    view = CONFIGS["everything at once"].view(batch_of(rows, length=5), catalogue)
    assert view.picked_P.shape == view.items_P.shape == (0,)


def test_the_shift_pairs_each_item_with_the_following_one(catalogue: Catalogue) -> None:
    view = NextItemShift().view(batch_of([[1, 2, 3], [4], [], [5, 6]], length=50), catalogue)
    assert rows_of(view) == [[1, 2], [], [], [5]]
    assert view.items_P.tolist() == [2, 3, 6]
    assert view.picked_P.tolist() == [0, 1, 2]
    assert view.packed.positions_T.tolist() == [0, 1, 0]
    assert view.packed.longest == 2
    assert NextItemShift().causal is True


@pytest.mark.parametrize("length", [1, 2, 5, 11, 12])
def test_the_shift_equals_the_loop(length: int, catalogue: Catalogue) -> None:
    view = NextItemShift().view(batch_of(ROWS, length=length), catalogue)
    twins = [reference.next_item_shift(row, length) for row in ROWS]
    assert rows_of(view) == [inputs for inputs, _ in twins]
    assert view.items_P.tolist() == [item for _, targets in twins for item in targets]
    assert view.packed.longest == max(len(inputs) for inputs, _ in twins)


def of_length(length: int) -> TransformerEncoder:
    return encoder_of(TransformerConfig(length=length, width=4, heads=1, feed_forward=4), ITEMS)


def test_cloze_ranks_from_a_mask_after_the_history(catalogue: Catalogue) -> None:
    encoder = of_length(4)
    objective = ClozeConfig().build(ModelComponents(encoder.config, catalogue, 0), 0)
    histories = Packed.from_lists([[1, 2], [], [3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13, 14]])
    view = objective.ranking_view(histories, 4, ITEMS)
    # The oldest falls only when the view is full: at four items or more of history.
    assert rows_of(view) == [
        [1, 2, MASK], [MASK], [3, 4, 5, MASK], [7, 8, 9, MASK], [12, 13, 14, MASK],
    ]  # fmt: skip
    assert view.packed.positions_T.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    assert view.picked_P.tolist() == [2, 3, 7, 11, 15]
    assert view.packed.longest == 4
    assert objective.corruption.causal is False


def test_next_item_ranks_from_the_newest_of_up_to_L_items(catalogue: Catalogue) -> None:
    encoder = of_length(3)
    objective = NextItemConfig().build(ModelComponents(encoder.config, catalogue, 0), 0)
    view = objective.ranking_view(Packed.from_lists([[1], [2, 3, 4, 5]]), 3, ITEMS)
    assert rows_of(view) == [[1], [3, 4, 5]]
    assert view.picked_P.tolist() == [0, 3]
    assert objective.corruption.causal is True


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 0.0}, "corruption.rate is 0.0; it must be between 0 and 1"),
        ({"rate": 1.0}, "corruption.rate is 1.0; it must be between 0 and 1"),
        ({"random_share": -0.1}, "corruption.random_share is -0.1; allowed: 0 to 1"),
        ({"keep_share": 1.1}, "corruption.keep_share is 1.1; allowed: 0 to 1"),
        ({"mask_last_share": 2.0}, "corruption.mask_last_share is 2.0; allowed: 0 to 1"),
        ({"last_only_share": -1.0}, "corruption.last_only_share is -1.0; allowed: 0 to 1"),
        ({"random_share": 0.6, "keep_share": 0.5}, "shares of the picked items; together at most"),
        ({"max_picked": 3}, "corruption.max_picked is 3 with count 'bernoulli'; it needs count"),
        ({"at_least_one": False, "count": "rounded"}, "with count 'rounded', which picks at least"),
        ({"max_picked": 0, "count": "rounded"}, "corruption.max_picked is 0 with count 'rounded'"),
    ],
)
def test_shares_out_of_range_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        MaskItems(**fields)
    assert message in str(caught.value)

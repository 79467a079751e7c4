"""Negatives: real items alone, never from what is excluded, at the stated rates."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.negatives import Negatives, NegativesConfig
from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.packed import Packed
from research.randomness import fold
from tests.support import reference
from tests.support.synthetic import catalogue_of

ITEMS = 11
# Item 10 is in no history.
HISTORIES = [[0, 1, 2, 1], [5], list(range(9)), [0, 0, 9]]
UNIFORM = NegativesConfig()
POPULAR = NegativesConfig(distribution="popularity")
WINDOW = NegativesConfig(exclude="window")
MASK_TOO = NegativesConfig(exclude="window", include_mask=True)


@pytest.fixture
def catalogue() -> Catalogue:
    return catalogue_of(HISTORIES, ITEMS)


def drawn_for(config: NegativesConfig, catalogue: Catalogue, user: int, draws: int) -> Tensor:
    states = fold(user + 10, torch.arange(draws // 10))
    return Negatives(config, catalogue).draw(states, torch.full_like(states, user), 10).flatten()


def chi_square(drawn: Tensor, weights: list[float]) -> float:
    """Against frequencies in proportion to `weights`; items of weight 0 must not occur."""
    counts = torch.bincount(drawn, minlength=len(weights)).double()
    expected = torch.tensor(weights).double() / sum(weights) * len(drawn)
    assert len(counts) == len(weights)
    assert not counts[expected == 0].any()
    kept = expected > 0
    return (((counts - expected) ** 2)[kept] / expected[kept]).sum().item()


@pytest.mark.parametrize("exclude", ["training", "history", "nothing"])
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_draws_equal_the_loop(distribution: str, exclude: str) -> None:
    # User 2 has seen seven of ten items, so that redraws of redraws occur.
    histories = [[0, 1, 2, 1], [9, 8, 8], [0, 1, 2, 3, 4, 5, 6]]
    catalogue = catalogue_of(histories, 10, held_out=[[9], [], [7]])
    config = NegativesConfig(distribution=distribution, exclude=exclude)
    users = torch.tensor([0, 1, 2, 2, 1, 0])
    states = fold(99, torch.arange(6))
    drawn = Negatives(config, catalogue).draw(states, users, 8)
    for row in range(6):
        twin = reference.draw_negatives(config, catalogue, states[row].item(), users[row].item(), 8)
        assert drawn[row].tolist() == twin


@pytest.mark.parametrize("include_mask", [False, True])
def test_draws_from_outside_a_window_equal_the_loop(
    include_mask: bool, catalogue: Catalogue
) -> None:
    config = NegativesConfig(exclude="window", include_mask=include_mask)
    windows = [[0, 1, 2, 1], [0], [], [10, 9, 8, 7, 6, 5, 4, 3], [0, 10]]
    negatives = Negatives(config, catalogue)
    rows = torch.tensor([0, 1, 2, 3, 4, 3, 0])
    states = fold(98, torch.arange(7))
    drawn = negatives.draw(states, rows, 9, negatives.window_pairs(Packed.from_lists(windows)))
    for row, window in enumerate(rows.tolist()):
        twin = reference.draw_negatives(
            config, catalogue, states[row].item(), 0, 9, windows[window]
        )
        assert drawn[row].tolist() == twin


def test_uniform_draws_spare_the_history_and_treat_all_others_alike(catalogue: Catalogue) -> None:
    # 7 degrees of freedom: 29.9 is exceeded with probability 1e-4.
    weights = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert chi_square(drawn_for(UNIFORM, catalogue, 0, 20_000), weights) < 29.9


def test_popular_draws_follow_training_counts(catalogue: Catalogue) -> None:
    # Counts over all users, without user 1's own item 5; 8 degrees of freedom.
    weights = [4.0, 3.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert chi_square(drawn_for(POPULAR, catalogue, 1, 20_000), weights) < 31.8


def test_excluding_nothing_draws_from_the_whole_catalogue(catalogue: Catalogue) -> None:
    config = NegativesConfig(exclude="nothing")
    # 10 degrees of freedom: 35.6 is exceeded with probability 1e-4.
    assert chi_square(drawn_for(config, catalogue, 2, 20_000), [1.0] * ITEMS) < 35.6


def test_the_mask_is_never_drawn(catalogue: Catalogue) -> None:
    for config in (UNIFORM, POPULAR, NegativesConfig(exclude="nothing")):
        drawn = drawn_for(config, catalogue, 1, 20_000)
        assert drawn.min() >= 0
        assert drawn.max() < ITEMS


def test_a_user_who_has_seen_all_but_one_item_gets_that_one() -> None:
    everything_but_four = catalogue_of([[0, 1, 2, 3, 5, 6]], 7)
    assert set(drawn_for(UNIFORM, everything_but_four, 0, 1000).tolist()) == {4}


def test_a_rare_item_is_found_when_redraws_give_up() -> None:
    # Item 3 has a millionth of the popularity; 64 redraws miss it, the walk finds it.
    catalogue = catalogue_of([[0, 1, 2], [3]], 5)
    catalogue.training.counts_V[:3] = 1_000_000
    drawn = Negatives(POPULAR, catalogue).draw(fold(1, torch.arange(20)), torch.zeros(20).long(), 2)
    assert set(drawn.flatten().tolist()) == {3}


def test_held_out_items_may_be_drawn(tiny_corpus: Corpus) -> None:
    # User 1's test item is 5, validation item 0, training items 1 and 2.
    catalogue = Catalogue.of(tiny_corpus, LeaveOneOut().split(tiny_corpus))
    assert set(drawn_for(UNIFORM, catalogue, 1, 1000).tolist()) == {0, 3, 4, 5}


def test_excluding_the_whole_history_spares_held_out_items_too(tiny_corpus: Corpus) -> None:
    # The leak by exclusion of S3-Rec's fine-tuning: user 1's history is 1, 2, 0, 5.
    catalogue = Catalogue.of(tiny_corpus, LeaveOneOut().split(tiny_corpus))
    config = NegativesConfig(exclude="history")
    assert set(drawn_for(config, catalogue, 1, 1000).tolist()) == {3, 4}


def outside(
    config: NegativesConfig, catalogue: Catalogue, windows: list[list[int]], row: int
) -> Tensor:
    """20 000 draws for one row of a batch."""
    negatives = Negatives(config, catalogue)
    states, rows = fold(row + 10, torch.arange(2000)), torch.full((2000,), row)
    pairs = negatives.window_pairs(Packed.from_lists(windows))
    return negatives.draw(states, rows, 10, pairs).flatten()


def test_a_window_spares_its_own_items_alone(catalogue: Catalogue) -> None:
    # Row 1 is of a user who has trained on 1 and 2 too, and stands between rows with other items.
    windows = [[5, 6], [0, 3], [7, 8]]
    weights = [0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    # 8 degrees of freedom: 31.8 is exceeded with probability 1e-4.
    assert chi_square(outside(WINDOW, catalogue, windows, 1), weights) < 31.8


def test_popular_draws_may_come_from_outside_a_window(catalogue: Catalogue) -> None:
    config = NegativesConfig(distribution="popularity", exclude="window")
    # Training counts without items 0 and 1, the row's own; 6 degrees of freedom: 27.9.
    weights = [0.0, 0.0, 2.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert chi_square(outside(config, catalogue, [[5], [0, 1]], 1), weights) < 27.9


@pytest.mark.parametrize("exclude", ["nothing", "training", "history"])
def test_the_mask_is_drawn_like_an_item_where_it_may_be(exclude: str, catalogue: Catalogue) -> None:
    config = NegativesConfig(exclude=exclude, include_mask=True)
    # User 2's ids would go on to 33, which is also item 0 of user 3, who has it.
    weights = [1.0 if exclude == "nothing" else 0.0] * 9 + [1.0, 1.0, 1.0]
    # With up to 11 degrees of freedom 37.4 is exceeded with probability 1e-4.
    assert chi_square(drawn_for(config, catalogue, 2, 20_000), weights) < 37.4


def test_the_mask_of_a_row_is_not_the_next_rows_item_0(catalogue: Catalogue) -> None:
    weights = [1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    # 10 degrees of freedom: 35.6.
    assert chi_square(outside(MASK_TOO, catalogue, [[1], [0], [0]], 0), weights) < 35.6
    weights = [0.0, *[1.0] * 11]
    assert chi_square(outside(MASK_TOO, catalogue, [[1], [0], [0]], 1), weights) < 35.6


def test_an_empty_window_spares_nothing(catalogue: Catalogue) -> None:
    # 10 degrees of freedom: 35.6.
    assert chi_square(outside(WINDOW, catalogue, [[1], [], [0]], 1), [1.0] * ITEMS) < 35.6


def test_a_batch_of_empty_windows_spares_nothing(catalogue: Catalogue) -> None:
    assert len(outside(WINDOW, catalogue, [[], []], 0)) == 20_000


def test_a_window_of_everything_leaves_the_mask() -> None:
    catalogue = catalogue_of([[0, 1, 2]], 3)
    assert set(outside(MASK_TOO, catalogue, [[2, 0, 1]], 0).tolist()) == {3}


def test_the_mask_has_no_popularity() -> None:
    with pytest.raises(InputError, match="include_mask needs distribution 'uniform'"):
        NegativesConfig(distribution="popularity", include_mask=True)


def test_popularity_knows_training_alone(tiny_corpus: Corpus) -> None:
    catalogue = Catalogue.of(tiny_corpus, LeaveOneOut().split(tiny_corpus))
    # Training: [0, 1, 2], [1, 2], [3], [0, 1]; items 4 and 5 are held out everywhere.
    assert catalogue.training.counts_V.tolist() == [2, 3, 2, 1, 0, 0]
    assert set(drawn_for(POPULAR, catalogue, 2, 1000).tolist()) == {0, 1, 2}


def test_a_draw_depends_on_its_own_state_alone(catalogue: Catalogue) -> None:
    negatives = Negatives(UNIFORM, catalogue)
    states, users = fold(5, torch.arange(6)), torch.tensor([0, 1, 2, 3, 0, 1])
    together = negatives.draw(states, users, 4)
    assert torch.equal(negatives.draw(states[3:4], users[3:4], 4), together[3:4])
    assert torch.equal(negatives.draw(states, users, 2), together[:, :2])


def test_log_probabilities_are_those_of_the_draw(catalogue: Catalogue) -> None:
    uniform = Negatives(UNIFORM, catalogue).log_probability_V
    popular = Negatives(POPULAR, catalogue).log_probability_V
    torch.testing.assert_close(uniform, torch.full((11,), -2.3978953))  # log 1/11
    assert popular[0].item() == pytest.approx(-1.4469190)  # 4 of 17 interactions
    assert popular[10].item() == -torch.inf
    with_mask = Negatives(MASK_TOO, catalogue).log_probability_V
    torch.testing.assert_close(with_mask, torch.full((12,), -2.4849066))  # log 1/12


def test_seen_looks_at_the_right_user(catalogue: Catalogue) -> None:
    negatives = Negatives(UNIFORM, catalogue)
    users = torch.tensor([0, 0, 1, 1, 3, 3])
    items = torch.tensor([2, 5, 5, 0, 0, 8])
    assert negatives.is_excluded(users, items).tolist() == [True, False, True, False, True, False]


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_a_user_who_has_seen_everything_is_named(distribution: str) -> None:
    with pytest.raises(InputError) as caught:
        Negatives(NegativesConfig(distribution=distribution), catalogue_of([[0], [2, 1, 0]], 3))
    assert "1 users (dense id 1 the first) have interacted with every item" in str(caught.value)
    assert "set exclude to 'nothing'" in str(caught.value)

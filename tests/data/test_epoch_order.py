"""Random orders found a place at a time: each holds every row once, and all are equally likely."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from research.randomness import permutation, permutation_at, seed_of
from tests.data.reference_loader import order_of, row_at

# The largest order that is sorted, the smallest that is not, a square of an even number, one more.
SIZES = [0, 1, 2, 3, 4, 17, 4096, 4097, 4225, 4356, 4357, 10_007, 65_536]


@pytest.mark.parametrize("size", SIZES)
def test_every_row_stands_at_one_place(size: int) -> None:
    for state in (0, -1, seed_of(3, "order", 7)):
        rows = permutation_at(state, torch.arange(size), size)
        assert torch.equal(rows.sort().values, torch.arange(size))


@pytest.mark.parametrize("size", [0, 1, 5, 4096, 4097, 5000])
def test_an_order_equals_its_slow_twin(size: int) -> None:
    state = seed_of(size)
    assert permutation_at(state, torch.arange(size), size).tolist() == order_of(state % 2**64, size)


@pytest.mark.parametrize("size", [4097, 10**8, 10**8 + 1, 2**40 + 1])
def test_a_place_of_a_long_order_is_found_alone(size: int) -> None:
    places = torch.tensor([0, 1, size // 2, size - 2, size - 1, 0])
    rows = permutation_at(-5, places, size)
    assert rows.tolist() == [row_at(-5 % 2**64, place, size) for place in places.tolist()]
    assert rows.tolist() == [permutation_at(-5, place, size).item() for place in places[:, None]]
    assert rows[0] == rows[-1]


def test_no_row_of_a_hundred_million_comes_twice() -> None:
    size = 10**8
    places = torch.arange(0, size, 499)
    rows = permutation_at(11, places, size)
    assert (rows.min() >= 0, rows.max() < size, len(rows.unique())) == (True, True, len(places))


def test_places_stay_as_they_were() -> None:
    places = torch.arange(5000)
    permutation_at(1, places, 5000)
    assert torch.equal(places, torch.arange(5000))


# Uniformity. The same statistics, with the same bounds, of the keyed order and of sorting by random
# bits. A bound is exceeded by chance with probability 1e-4; seeds are fixed.

Order = Callable[[int], Tensor]
SIZE = 5000
EPOCHS = 200
# Halves of the network for 5,000 rows: places that share one are the pairs that it mixes last.
LEFTS, RIGHTS = 72, 70


def keyed(state: int) -> Tensor:
    return permutation_at(state, torch.arange(SIZE), SIZE)


def by_sorting(state: int) -> Tensor:
    return permutation(state, SIZE)


@pytest.fixture(scope="module", params=[keyed, by_sorting])
def orders_EN(request: pytest.FixtureRequest) -> Tensor:
    """int64 [EPOCHS, SIZE]: the orders of as many epochs."""
    order: Order = request.param
    return torch.stack([order(seed_of(0, "order", epoch)) for epoch in range(EPOCHS)])


def chi_square(first: Tensor, second: Tensor, parts: int) -> float:
    """Of a table of pairs, each number of 0..SIZE-1 sorted into as many equal parts."""
    cells = first.flatten() * parts // SIZE * parts + second.flatten() * parts // SIZE
    counts = torch.bincount(cells, minlength=parts * parts).double()
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def test_every_row_is_as_likely_at_every_place(orders_EN: Tensor) -> None:
    # 20 x 20 parts; margins are fixed, which leaves 361 degrees of freedom: 269.5 to 469.6.
    places_EN = torch.arange(SIZE).expand_as(orders_EN)
    assert 269.5 < chi_square(places_EN, orders_EN, 20) < 469.6


def test_every_row_is_as_likely_at_one_place() -> None:
    places = torch.tensor([0, 1, 2500, 4999])
    drawn = torch.stack([permutation_at(seed_of(1, epoch), places, SIZE) for epoch in range(2000)])
    for column in drawn.T:
        counts = torch.bincount(column * 50 // SIZE, minlength=50)
        # 49 degrees of freedom.
        assert 20.3 < ((counts - 40) ** 2 / 40).sum() < 94.6


@pytest.mark.parametrize("apart", [1, 2, RIGHTS - 1, RIGHTS, LEFTS, LEFTS * RIGHTS // 2])
def test_pairs_of_places_have_every_pair_of_rows_alike(orders_EN: Tensor, apart: int) -> None:
    first, second = orders_EN[:, :-apart], orders_EN[:, apart:]
    # 20 x 20 parts; 399 degrees of freedom, or 361 where nearly all rows are in both.
    assert 269.5 < chi_square(first, second, 20) < 512.7


@pytest.mark.parametrize("apart", [1, RIGHTS, LEFTS])
def test_rows_do_not_depend_on_those_before_them(orders_EN: Tensor, apart: int) -> None:
    first, second = orders_EN[:, :-apart].double(), orders_EN[:, apart:].double()
    # Of n pairs the correlation is about normal with a standard deviation of 1 / sqrt(n).
    correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(correlation) * first.numel() ** 0.5 < 3.9


def test_an_order_does_not_depend_on_that_of_the_epoch_before(orders_EN: Tensor) -> None:
    assert 269.5 < chi_square(orders_EN[:-1], orders_EN[1:], 20) < 469.6


def test_as_many_rows_keep_their_place_as_chance_has_it(orders_EN: Tensor) -> None:
    # One an epoch, Poisson: 200 with a standard deviation of 14.1.
    kept = int((orders_EN == torch.arange(SIZE)).sum())
    assert abs(kept - EPOCHS) < 3.9 * 14.1


def test_rows_that_stood_in_one_half_are_not_kept_together(orders_EN: Tensor) -> None:
    # Of the pairs of places that share their right half, 1 in 70.0 shares that of its rows.
    halves_EN = orders_EN % RIGHTS
    columns = [halves_EN[:, right::RIGHTS] for right in range(RIGHTS)]
    counts = [torch.stack([(each == half).sum(1) for half in range(RIGHTS)]) for each in columns]
    together = float(sum((count * (count - 1) // 2).sum() for count in counts))
    pairs = EPOCHS * sum(each.shape[1] * (each.shape[1] - 1) // 2 for each in columns)
    sizes = torch.bincount(torch.arange(SIZE) % RIGHTS).double()
    share = float((sizes * (sizes - 1)).sum()) / (SIZE * (SIZE - 1))
    assert abs(together - pairs * share) < 3.9 * (pairs * share * (1 - share)) ** 0.5


def test_all_orders_of_four_rows_are_equally_likely() -> None:
    drawn = [permutation_at(seed_of(2, epoch), torch.arange(4), 4) for epoch in range(4800)]
    counts = Counter(tuple(order.tolist()) for order in drawn)
    # Chi-square with 23 degrees of freedom.
    assert len(counts) == 24
    assert 5.7 < sum((count - 200) ** 2 / 200 for count in counts.values()) < 57.1


def test_odd_permutations_are_as_many_as_even_ones(orders_EN: Tensor) -> None:
    # Of 200 a binomial share of half: a standard deviation of 7.1.
    odd = sum(is_odd(order.tolist()) for order in orders_EN)
    assert abs(odd - EPOCHS / 2) < 3.9 * 7.1


def is_odd(order: list[int]) -> bool:
    """Whether an odd number of swaps leads to this order."""
    seen, cycles = [False] * len(order), 0
    for place in range(len(order)):
        cycles += not seen[place]
        while not seen[place]:
            seen[place] = True
            place = order[place]
    return (len(order) - cycles) % 2 == 1

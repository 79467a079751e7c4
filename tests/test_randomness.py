"""The counter-based generator: published values, a Python twin, and what follows from purity."""

from __future__ import annotations

import pytest
import torch

from research.randomness import below, fold, generator, permutation, seed_of, uniform
from tests.support import reference


def unsigned(bits: torch.Tensor) -> list[int]:
    return [value % 2**64 for value in bits.tolist()]


def test_the_stream_is_splitmix64_as_published() -> None:
    # The first outputs for seed 1234567, as printed on Rosetta Code's page on splitmix64.
    assert unsigned(fold(1234567, torch.arange(5))) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("state", [0, 1, -1, 2**63 - 1, -(2**63), 0x1234567890ABCDEF])
@pytest.mark.parametrize("counter", [0, 1, 999, -5, 2**62, -(2**63), 2**63 - 1])
def test_every_form_of_arguments_gives_the_bits_of_the_python_twin(
    state: int, counter: int
) -> None:
    expected = reference.random_bits(state, counter)
    state_tensor, counter_tensor = torch.tensor(state), torch.tensor(counter)
    assert unsigned(fold(state, counter).view(1)) == [expected]
    assert unsigned(fold(state_tensor, counter).view(1)) == [expected]
    assert unsigned(fold(state, counter_tensor).view(1)) == [expected]
    assert unsigned(fold(state_tensor, counter_tensor).view(1)) == [expected]


def test_fold_leaves_its_arguments_as_they_were() -> None:
    states, counters = torch.arange(4), torch.arange(4)
    fold(states, counters)
    assert states.tolist() == counters.tolist() == [0, 1, 2, 3]


def test_a_draw_does_not_depend_on_its_neighbours() -> None:
    states = fold(5, torch.arange(100))
    together = fold(states[:, None], torch.arange(7))
    assert torch.equal(together[31, 4], fold(states[31], 4))


def test_uniform_takes_the_upper_53_bits() -> None:
    bits = torch.tensor([0, -1, -(2**63), 2**11 - 1, 2**11])
    expected = [0.0, 1.0 - 2.0**-53, 0.5, 0.0, 2.0**-53]
    assert uniform(bits).tolist() == expected


def test_uniform_fills_its_sixteenths_evenly() -> None:
    # Chi-square with 15 degrees of freedom exceeds 44.3 with probability 1e-4.
    draws = uniform(fold(3, torch.arange(100_000)))
    counts = torch.histc(draws, 16, 0.0, 1.0)
    assert ((counts - 6250) ** 2 / 6250).sum() < 44.3


def test_below_reaches_every_value_and_never_the_bound() -> None:
    assert sorted(set(below(fold(1, torch.arange(1000)), 7).tolist())) == [0, 1, 2, 3, 4, 5, 6]
    assert below(torch.tensor([-1]), 7).tolist() == [6]


def test_below_takes_a_bound_for_each_draw() -> None:
    assert below(torch.tensor([-1, -1, 0]), torch.tensor([1, 5, 9])).tolist() == [0, 4, 0]


@pytest.mark.parametrize("size", [0, 1, 17])
def test_a_permutation_holds_every_index_once(size: int) -> None:
    assert sorted(permutation(11, size).tolist()) == list(range(size))


def test_permutations_of_other_states_differ() -> None:
    assert permutation(1, 50).tolist() != permutation(2, 50).tolist()


def test_a_seed_is_the_same_in_every_process() -> None:
    # `printf 'int:0\x1fstr:order\x1fint:3' | b2sum -l 64`, its bytes read as little-endian.
    expected = int.from_bytes(bytes.fromhex("5ef5458030538033"), "little", signed=True)
    assert seed_of(0, "order", 3) == expected


def test_seeds_tell_types_borders_and_order_apart() -> None:
    parts = [(1, "a"), ("1", "a"), ("a", 1), ("1a",), (1,), ("a",), (11, ""), (1, 1), ()]
    assert len({seed_of(*each) for each in parts}) == len(parts)


def test_a_keyed_generator_repeats_itself() -> None:
    first = torch.rand(3, generator=generator(0, "encoder", "item_table"))
    again = torch.rand(3, generator=generator(0, "encoder", "item_table"))
    other = torch.rand(3, generator=generator(1, "encoder", "item_table"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

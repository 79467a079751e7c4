"""Random numbers as a pure function of (seed, epoch or step, row, purpose).

The generator is counter-based: splitmix64 (Steele, Lea and Flood, OOPSLA 2014) in wrapping int64
arithmetic, computed on the device of its inputs. So a CPU and a GPU, one process and eight, and a
run that was interrupted and continued draw the same numbers (docs/pitfalls.md, "results depend on
workers"), and each epoch others (docs/pitfalls.md, "masks repeat"). Only dropout uses torch's
global generator, which `model/kernels/dropout.py` seeds for every micro-batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MULTIPLIER_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = -7723592293110705685  # 0x94D049BB133111EB
# `permutation_at` sorts random keys up to `_SORTED` numbers, and runs `_ROUNDS` rounds of a Feistel
# network for more. From five rounds on no statistic in the tests finds a difference between the two
# kinds of order; two more rounds are a margin.
_SORTED = 1 << 12
_ROUNDS = 7


def seed_of(*parts: int | str) -> int:
    """A random state (signed 64 bits) hashed from its parts, such as a run's seed and a purpose.

    Equal parts of equal types always give the same state.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _logical_shift(bits: Tensor, by: int) -> Tensor:
    # `>>` on int64 copies the sign bit; the mask makes it the logical shift of splitmix64.
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def fold(state: Tensor | int, counter: Tensor | int) -> Tensor:
    """int64 tensor of random bits: output number `counter` of the random stream of `state`.

    State and counter are broadcast; at least one is a tensor. The result may serve as a state.
    """
    # counter + 1, as splitmix64 adds its constant before the first output.
    if isinstance(counter, int):
        counter = torch.tensor(((counter + 1) * GOLDEN + 2**63) % 2**64 - 2**63)
    else:
        counter = (counter + 1) * GOLDEN
    bits = counter + state
    bits = (bits ^ _logical_shift(bits, 30)).mul_(_MULTIPLIER_1)
    bits = (bits ^ _logical_shift(bits, 27)).mul_(_MULTIPLIER_2)
    return bits ^ _logical_shift(bits, 31)


def uniform(bits: Tensor) -> Tensor:
    """float64 in [0, 1), from the upper 53 of the random bits."""
    return _logical_shift(bits, 11).double().mul_(2.0**-53)


def below(bits: Tensor, high: int | Tensor) -> Tensor:
    """int64 in [0, high), from random bits; the values are equally likely to within high / 2**53.

    `high` is broadcast against `bits`.
    """
    numbers = (uniform(bits) * high).long()
    if isinstance(high, int):
        return numbers.clamp_(max=high - 1)
    return torch.minimum(numbers, high - 1)


def permutation(state: int, size: int) -> Tensor:
    """int64 [size]: a random order of 0..size-1."""
    return torch.argsort(fold(state, torch.arange(size)), stable=True)


def permutation_at(state: int, positions: Tensor, size: int) -> Tensor:
    """int64 [P]: the numbers at `positions` (int64 [P], 0..size-1) of a random order of 0..size-1.

    `state` (64 random bits) chooses the order; the same state and size give the same order. A
    number takes constant time on average, as the order is never built: a Feistel network permutes
    pairs (left, right), of which there are up to about sqrt(size) more than `size`, and a result of
    `size` or above goes through the network again (Black and Rogaway, CT-RSA 2002). Five rounds or
    more are proven to suffice (Patarin, CRYPTO 2004). Small halves mix slowly, so an order of at
    most 4,096 numbers is sorted instead, the whole of it at every call.
    """
    if size <= _SORTED:
        return permutation(state, size).to(positions.device)[positions]
    # `lefts` is even, because with two odd numbers the network gives only even permutations.
    lefts = 2 * math.ceil(math.sqrt(size) / 2)
    rights = -(-size // lefts)
    keys = fold(state, torch.arange(_ROUNDS)).tolist()
    numbers = _feistel(keys, positions, lefts, rights)
    while len(too_large := (numbers >= size).nonzero()[:, 0]):
        numbers[too_large] = _feistel(keys, numbers[too_large], lefts, rights)
    return numbers


def _feistel(keys: Sequence[int], pairs: Tensor, lefts: int, rights: int) -> Tensor:
    """int64 like `pairs`: a permutation of the numbers left * rights + right, one round a key."""
    left = pairs // rights
    right = pairs - left * rights
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = below(fold(key, right), lefts).add_(left).remainder_(lefts)
        else:
            right = below(fold(key, left), rights).add_(right).remainder_(rights)
    return left.mul_(rights).add_(right)


def generator(*parts: int | str) -> torch.Generator:
    """A torch generator on the CPU seeded by `seed_of(*parts)`, for initial weights."""
    random_generator = torch.Generator()
    random_generator.manual_seed(seed_of(*parts) & (2**63 - 1))
    return random_generator

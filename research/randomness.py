"""Randomness as a pure function of (seed, epoch or step, row, purpose).

A counter-based generator: splitmix64 (Steele, Lea and Flood, OOPSLA 2014) in wrapping int64
arithmetic on the tensor's own device, so that a CPU and a GPU, one process or eight, and a
continued run all draw the same. Dropout alone uses torch's own generator.
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
# The most rows whose order is sorted, and the rounds of the network that orders more of them: from
# the fifth on no statistic in the tests tells it from sorting, the last two are to spare.
_SORTED = 1 << 12
_ROUNDS = 7


def seed_of(*parts: int | str) -> int:
    """A signed 64-bit state from a run's seed and names of purposes; equal parts, equal state."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _shifted(bits: Tensor, by: int) -> Tensor:
    # `>>` on int64 copies the sign; the mask makes it the logical shift that splitmix64 means.
    return (bits >> by).bitwise_and_((1 << (64 - by)) - 1)


def fold(state: Tensor | int, counter: Tensor | int) -> Tensor:
    """int64 tensor of random bits: the `counter`-th output of the stream that `state` names.

    State and counter broadcast; at least one is a tensor. The result may itself be a state.
    """
    # (counter + 1), as splitmix64 adds its constant before the first output.
    if isinstance(counter, int):
        counter = torch.tensor(((counter + 1) * GOLDEN + 2**63) % 2**64 - 2**63)
    else:
        counter = (counter + 1) * GOLDEN
    bits = counter + state
    bits = (bits ^ _shifted(bits, 30)).mul_(_MULTIPLIER_1)
    bits = (bits ^ _shifted(bits, 27)).mul_(_MULTIPLIER_2)
    return bits ^ _shifted(bits, 31)


def uniform(bits: Tensor) -> Tensor:
    """float64 in [0, 1) from the upper 53 bits."""
    return _shifted(bits, 11).double().mul_(2.0**-53)


def below(bits: Tensor, high: int | Tensor) -> Tensor:
    """int64 in [0, high), each value equally likely to within high / 2**53."""
    drawn = (uniform(bits) * high).long()
    if isinstance(high, int):
        return drawn.clamp_(max=high - 1)
    return torch.minimum(drawn, high - 1)


def permutation(state: int, size: int) -> Tensor:
    """int64 [size]: a random order of 0..size-1."""
    return torch.argsort(fold(state, torch.arange(size)), stable=True)


def permuted(state: int, places: Tensor, size: int) -> Tensor:
    """int64 like `places` [P]: the numbers that stand there in a random order of 0..size-1.

    Each is found alone, in constant time, by a Feistel network over pairs (left, right), of which
    there are a few more than `size`: a result beyond `size` goes through the network again (Black
    and Rogaway, CT-RSA 2002). Five rounds and more are proven (Patarin, CRYPTO 2004). Small halves
    mix slowly, so an order of at most 4,096 numbers is sorted instead, whole at every call.
    """
    if size <= _SORTED:
        return permutation(state, size).to(places.device)[places]
    # One number is even: with two odd ones only even permutations would come of it.
    lefts = 2 * math.ceil(math.sqrt(size) / 2)
    rights = -(-size // lefts)
    keys = fold(state, torch.arange(_ROUNDS)).tolist()
    rows = _feistel(keys, places, lefts, rights)
    while len(beyond := (rows >= size).nonzero()[:, 0]):
        rows[beyond] = _feistel(keys, rows[beyond], lefts, rights)
    return rows


def _feistel(keys: Sequence[int], pairs: Tensor, lefts: int, rights: int) -> Tensor:
    """A permutation of the pairs left * rights + right, one key a round."""
    left = pairs // rights
    right = pairs - left * rights
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = below(fold(key, right), lefts).add_(left).remainder_(lefts)
        else:
            right = below(fold(key, left), rights).add_(right).remainder_(rights)
    return left.mul_(rights).add_(right)


def generator(*parts: int | str) -> torch.Generator:
    """A torch CPU generator seeded by `seed_of`, for initial weights."""
    made = torch.Generator()
    made.manual_seed(seed_of(*parts) & (2**63 - 1))
    return made

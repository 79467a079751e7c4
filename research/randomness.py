"""Randomness as a pure function of (seed, epoch or step, row, purpose).

A counter-based generator: splitmix64 (Steele, Lea and Flood, OOPSLA 2014) in wrapping int64
arithmetic on the tensor's own device, so that a CPU and a GPU, one process or eight, and a
continued run all draw the same. Dropout alone uses torch's own generator.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MULTIPLIER_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = -7723592293110705685  # 0x94D049BB133111EB


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


def generator(*parts: int | str) -> torch.Generator:
    """A torch CPU generator seeded by `seed_of`, for initial weights."""
    made = torch.Generator()
    made.manual_seed(seed_of(*parts) & (2**63 - 1))
    return made

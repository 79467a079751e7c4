"""The slow twins of the transformer's blocks: one sequence, one query and one head at a time.

All arithmetic is written out; weights are read from the modules under test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from research.model.bsarec import BSARecBlock
from research.model.fmlp import FMLPBlock
from research.model.hstu import HSTUBlock
from research.model.ligr import LiGRBlock
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.rotary_time import RotaryTime
from research.model.transformer_block import (
    PostNormBlock,
    PreNormBlock,
    SelfAttentionBlock,
    SoftmaxBlock,
)


def dense(x: Tensor, layer: torch.nn.Linear) -> Tensor:
    """W x + b."""
    return x @ layer.weight.T + layer.bias


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """Ba et al. 2016, eq. 3-4, over the last dimension."""
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def activation(x: Tensor, name: str) -> Tensor:
    """ReLU, or GELU (Hendrycks and Gimpel 2016) in its erf or tanh form."""
    if name == "relu":
        return torch.where(x > 0, x, torch.zeros_like(x))
    if name == "gelu":
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class Told:
    """What attention is told of tokens beside their states."""

    times: Sequence[int] | None = None
    """The tokens' seconds, if a block or positions read them."""
    biases: Tensor | None = None
    """The weights of T5's positions, [buckets, heads]."""


def attend(
    block: SoftmaxBlock | BSARecBlock, query_LD: Tensor, x_LD: Tensor, causal: bool, told: Told
) -> Tensor:
    """Multi-head attention (Vaswani et al. 2017, eq. 1), a head and a query at a time."""
    positions = block.config.positions
    width, heads = block.config.width, block.config.heads
    size = width // heads
    weight, bias = block.qkv.weight, block.qkv.bias
    q_LD = query_LD @ weight[:width].T + bias[:width]
    k_LD = x_LD @ weight[width : 2 * width].T + bias[width : 2 * width]
    v_LD = x_LD @ weight[2 * width :].T + bias[2 * width :]
    rows = []
    for place in range(len(x_LD)):
        visible = place + 1 if causal else len(x_LD)
        parts = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            query, keys = q_LD[place, columns], list(k_LD[:visible, columns])
            if isinstance(positions, (Rotary, RotaryTime)):
                query = turn(positions, query, place, told.times)
                keys = [turn(positions, key, other, told.times) for other, key in enumerate(keys)]
            scores = torch.stack([(key * query).sum() for key in keys]) / math.sqrt(size)
            if isinstance(positions, RelativePositions):
                assert told.biases is not None
                buckets = [bucket_of_t5(positions, other - place) for other in range(visible)]
                scores = scores + torch.stack([told.biases[each, head] for each in buckets])
            shares = torch.exp(scores - scores.max())
            shares = shares / shares.sum()
            parts.append(shares @ v_LD[:visible, columns])
        rows.append(torch.cat(parts))
    mixed_LD = torch.stack(rows)
    if not block.config.output_projection:
        return mixed_LD
    return dense(mixed_LD, block.output)


def rotate(row_K: Tensor, place: int, base: float) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 14-15), a pair at a time: i and i + K/2 are one."""
    size = len(row_K)
    turned_K = [torch.empty(())] * size
    for pair in range(size // 2):
        angle = place * base ** (-2 * pair / size)
        x, y = row_K[pair], row_K[pair + size // 2]
        turned_K[pair] = x * math.cos(angle) - y * math.sin(angle)
        turned_K[pair + size // 2] = x * math.sin(angle) + y * math.cos(angle)
    return torch.stack(turned_K)


def turn(
    positions: Rotary | RotaryTime, row_K: Tensor, place: int, times: Sequence[int] | None
) -> Tensor:
    """Rotary positions, of places or of places and times (Wei et al. 2025)."""
    if isinstance(positions, Rotary):
        return rotate(row_K, place, positions.base)
    assert times is not None
    units = (times[place] - times[0]) / positions.unit_seconds
    pairs, base = len(row_K) // 2, positions.base
    if positions.angles == "time":
        return turn_pairs(row_K, [units * base ** (-pair / pairs) for pair in range(pairs)])
    if positions.angles == "sum":
        angles = [(place + units) * base ** (-pair / pairs) for pair in range(pairs)]
        return turn_pairs(row_K, angles)
    half = pairs // 2
    angles = [place * base ** (-pair / half) for pair in range(half)]
    angles += [units * base ** (-pair / (pairs - half)) for pair in range(pairs - half)]
    return turn_pairs(row_K, angles)


def turn_pairs(row_K: Tensor, angles: Sequence[float]) -> Tensor:
    """Pair i of a head's numbers, i and i + K/2, turned by angle i."""
    half = len(row_K) // 2
    firsts = [
        row_K[i] * math.cos(angle) - row_K[i + half] * math.sin(angle)
        for i, angle in enumerate(angles)
    ]
    seconds = [
        row_K[i] * math.sin(angle) + row_K[i + half] * math.cos(angle)
        for i, angle in enumerate(angles)
    ]
    return torch.stack([*firsts, *seconds])


def bucket_of_t5(positions: RelativePositions, ahead: int) -> int:
    """T5's bucket of a key that is `ahead` places newer than the query (below 0: older)."""
    buckets, first = positions.buckets, 0
    if positions.sides == "both":
        buckets //= 2
        first = buckets if ahead > 0 else 0
    distance, exact = abs(ahead), buckets // 2
    if distance < exact:
        return first + distance
    # The largest n for which exact (max / exact)^(n / (buckets - exact)) is at most the distance.
    last = exact
    for number in range(buckets - exact):
        if distance ** (buckets - exact) * exact**number >= (
            positions.max_distance**number * exact ** (buckets - exact)
        ):
            last = exact + number
    return first + last


def feed_forward(block: SelfAttentionBlock | BSARecBlock | FMLPBlock, x_LD: Tensor) -> Tensor:
    """Dense, activation, dense."""
    return dense(activation(dense(x_LD, block.inner), block.config.activation), block.outer)


def run_block(block: torch.nn.Module, x: Tensor, causal: bool, told: Told) -> Tensor:
    """A transformer block, its norms where its class has them."""
    if isinstance(block, HSTUBlock):
        return run_hstu(block, x, causal, told.times)
    if isinstance(block, LiGRBlock):
        return run_ligr(block, x, causal, told)
    if isinstance(block, FMLPBlock):
        return run_fmlp(block, x)
    if isinstance(block, BSARecBlock):
        return run_bsarec(block, x, told)
    assert isinstance(block, SelfAttentionBlock)
    if isinstance(block, PostNormBlock):  # BERT: y = LN(x + Attn(x)); LN(y + FFN(y))
        y = layer_norm(x + attend(block, x, x, causal, told), block.attention_norm)
        return layer_norm(y + feed_forward(block, y), block.feed_forward_norm)
    if isinstance(block, PreNormBlock):  # y = x + Attn(LN(x)); y + FFN(LN(y))
        normed = layer_norm(x, block.attention_norm)
        y = x + attend(block, normed, normed, causal, told)
        return y + feed_forward(block, layer_norm(y, block.feed_forward_norm))
    # SASRec's code: q = LN(x); y = LN(q + Attn(q, x, x)); y + FFN(y)
    q = layer_norm(x, block.attention_norm)
    y = layer_norm(q + attend(block, q, x, causal, told), block.feed_forward_norm)
    return y + feed_forward(block, y)


def normed(x: Tensor, norm: torch.nn.Module) -> Tensor:
    """LayerNorm (Ba et al. 2016) with gain and shift or without, or RMSNorm (Zhang et al. 2019)."""
    if isinstance(norm, torch.nn.RMSNorm):
        return x / torch.sqrt((x**2).mean(-1, keepdim=True) + norm.eps) * norm.weight
    assert isinstance(norm, torch.nn.LayerNorm)
    if norm.elementwise_affine:
        return layer_norm(x, norm)
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + norm.eps)


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x) (Hendrycks and Gimpel 2016)."""
    return x / (1 + torch.exp(-x))


def run_ligr(block: LiGRBlock, x: Tensor, causal: bool, told: Told) -> Tensor:
    """y = x + sigmoid(x G + g) Attn(norm(x)); y + sigmoid(y G' + g') FF(norm(y)) (LiGR)."""
    n = normed(x, block.attention_norm)
    y = x + attend(block, n, n, causal, told) / (1 + torch.exp(-dense(x, block.attention_gate)))
    n = normed(y, block.feed_forward_norm)
    if block.block.swiglu:  # Shazeer 2020, eq. 6, without biases
        w, v = block.inner.weight.split(block.config.feed_forward)
        fed = (silu(n @ w.T) * (n @ v.T)) @ block.outer.weight.T
    else:
        fed = dense(activation(dense(n, block.inner), block.config.activation), block.outer)
    return y + fed / (1 + torch.exp(-dense(y, block.feed_forward_gate)))


def run_hstu(block: HSTUBlock, x: Tensor, causal: bool, times: Sequence[int] | None) -> Tensor:
    """HSTU (Zhai et al. 2024, eq. 1-3), a query, a head and a key at a time."""
    heads, length = block.config.heads, block.config.length
    size = block.block.head_width or block.config.width // heads
    projected = silu(normed(x, block.input_norm) @ block.projection.weight.T)
    u, q, k, v = projected.split(heads * size, dim=1)
    rows = []
    for place in range(len(x)):
        keys = range(place + 1 if causal else len(x))
        parts = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            total = torch.zeros(size, dtype=x.dtype)
            for key in keys:
                query_K, key_K = q[place, columns], k[key, columns]
                if isinstance(block.config.positions, (Rotary, RotaryTime)):
                    query_K = turn(block.config.positions, query_K, place, times)
                    key_K = turn(block.config.positions, key_K, key, times)
                score = (query_K * key_K).sum() + block.position_weights[length - 1 + place - key]
                if block.block.times:
                    assert times is not None
                    score = score + block.time_weights[bucket(times[place] - times[key], block)]
                total = total + silu(score) * v[key, columns]
            parts.append(total / (length if block.block.divisor == "length" else len(keys)))
        rows.append(torch.cat(parts))
    return x + dense(normed(torch.stack(rows), block.mixed_norm) * u, block.output)


def bucket(seconds: int, block: HSTUBlock) -> int:
    """floor(ln(max(1, |seconds|)) / 0.301), at most the number of buckets (HSTU's code)."""
    return min(int(math.log(max(1, abs(seconds))) / 0.301), block.block.time_buckets)


def frequency(rows: Sequence[Tensor], number: int) -> Tensor:
    """The discrete Fourier transform of D signals at one frequency, over sqrt(L): complex [D]."""
    length = len(rows)
    total = torch.zeros_like(rows[0], dtype=torch.complex128)
    for place, row_D in enumerate(rows):
        angle = -2 * math.pi * number * place / length
        total = total + row_D * complex(math.cos(angle), math.sin(angle))
    return total / math.sqrt(length)


def wave(frequency_D: Tensor, number: int, place: int, length: int) -> Tensor:
    """What one frequency adds to the inverse transform at one place, real [D]."""
    angle = 2 * math.pi * number * place / length
    return (frequency_D * complex(math.cos(angle), math.sin(angle))).real / math.sqrt(length)


def right_aligned(x: Tensor, length: int) -> list[Tensor]:
    """A row of `length` places that ends with the rows of x, after zeros."""
    return [torch.zeros_like(x[0])] * (length - len(x)) + list(x)


def run_bsarec(block: BSARecBlock, x: Tensor, told: Told) -> Tensor:
    """BSARec (Shin et al. 2024), frequency by frequency; its attention is causal."""
    length = block.config.length
    rows = right_aligned(x, length)
    # Frequencies of both signs: the constant and c // 2 of either sign, as long as there are.
    kept = {number % length for number in range(-(block.block.c // 2), block.block.c // 2 + 1)}
    spectrum = {number: frequency(rows, number) for number in sorted(kept)}
    filtered = []
    for place in range(length - len(x), length):
        low = torch.zeros_like(x[0])
        for number, frequency_D in spectrum.items():
            low = low + wave(frequency_D, number, place, length)
        filtered.append(low + block.sqrt_beta * block.sqrt_beta * (rows[place] - low))
    by_frequency = layer_norm(x + torch.stack(filtered), block.filter_norm)
    by_attention = layer_norm(x + attend(block, x, x, True, told), block.attention_norm)
    y = block.block.alpha * by_frequency + (1 - block.block.alpha) * by_attention
    return layer_norm(y + feed_forward(block, y), block.feed_forward_norm)


def run_fmlp(block: FMLPBlock, x: Tensor) -> Tensor:
    """FMLP-Rec (Zhou et al. 2022, eq. 3-8), frequency by frequency."""
    length = block.config.length
    rows = right_aligned(x, length)
    spectrum = []
    for number in range(length // 2 + 1):
        real_D, imaginary_D = block.filter_weights[number, :, 0], block.filter_weights[number, :, 1]
        spectrum.append(frequency(rows, number) * torch.complex(real_D, imaginary_D))
    filtered = []
    for place in range(length - len(x), length):
        total = torch.zeros_like(x[0])
        for number, frequency_D in enumerate(spectrum):
            # All but the constant, and the highest of an even length, stand for their negative too.
            twice = 1 if number == 0 or 2 * number == length else 2
            total = total + twice * wave(frequency_D, number, place, length)
        filtered.append(total)
    y = layer_norm(x + torch.stack(filtered), block.filter_norm)
    return layer_norm(y + feed_forward(block, y), block.feed_forward_norm)

"""The slow twins of the transformer's blocks: one sequence, one query and one head at a time.

All arithmetic is written out; weights are read from the modules under test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from research.model.hstu import HSTUBlock
from research.model.ligr import LiGRBlock
from research.model.rotary import Rotary
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


def attend(block: SoftmaxBlock, query_LD: Tensor, x_LD: Tensor, causal: bool) -> Tensor:
    """Multi-head attention (Vaswani et al. 2017, eq. 1), a head and a query at a time."""
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
            if isinstance(block.config.positions, Rotary):
                base = block.config.positions.base
                query = rotate(query, place, base)
                keys = [rotate(key, other, base) for other, key in enumerate(keys)]
            scores = torch.stack([(key * query).sum() for key in keys]) / math.sqrt(size)
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


def feed_forward(block: SelfAttentionBlock, x_LD: Tensor) -> Tensor:
    """Dense, activation, dense."""
    return dense(activation(dense(x_LD, block.inner), block.config.activation), block.outer)


def run_block(
    block: torch.nn.Module, x: Tensor, causal: bool, times: Sequence[int] | None = None
) -> Tensor:
    """A transformer block, its norms where its class has them; `times` are the tokens' seconds."""
    if isinstance(block, HSTUBlock):
        return run_hstu(block, x, causal, times)
    if isinstance(block, LiGRBlock):
        return run_ligr(block, x, causal)
    assert isinstance(block, SelfAttentionBlock)
    if isinstance(block, PostNormBlock):  # BERT: y = LN(x + Attn(x)); LN(y + FFN(y))
        y = layer_norm(x + attend(block, x, x, causal), block.attention_norm)
        return layer_norm(y + feed_forward(block, y), block.feed_forward_norm)
    if isinstance(block, PreNormBlock):  # y = x + Attn(LN(x)); y + FFN(LN(y))
        normed = layer_norm(x, block.attention_norm)
        y = x + attend(block, normed, normed, causal)
        return y + feed_forward(block, layer_norm(y, block.feed_forward_norm))
    # SASRec's code: q = LN(x); y = LN(q + Attn(q, x, x)); y + FFN(y)
    q = layer_norm(x, block.attention_norm)
    y = layer_norm(q + attend(block, q, x, causal), block.feed_forward_norm)
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


def run_ligr(block: LiGRBlock, x: Tensor, causal: bool) -> Tensor:
    """y = x + sigmoid(x G + g) Attn(norm(x)); y + sigmoid(y G' + g') FF(norm(y)) (LiGR)."""
    n = normed(x, block.attention_norm)
    y = x + attend(block, n, n, causal) / (1 + torch.exp(-dense(x, block.attention_gate)))
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
                if isinstance(block.config.positions, Rotary):
                    query_K = rotate(query_K, place, block.config.positions.base)
                    key_K = rotate(key_K, key, block.config.positions.base)
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

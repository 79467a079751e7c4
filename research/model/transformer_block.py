"""Transformer blocks: self-attention and a feed-forward part, with norms at the published places.

A block is a config, chosen as `encoder.block`, and the module that it builds. A new kind of block
is a file of its own, as `ligr.py` and `hstu.py` are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from research.model.attention import attention
from research.model.backbone import BOTH_DIRECTIONS, Direction
from research.model.compute import compile_part
from research.model.kernels.dropout import dropout
from research.model.positions import Positions
from research.packed import Packed

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig

Activation = Literal["gelu", "gelu_tanh", "relu"]
Part = TypeVar("Part")
# Bytes of a number in fp32.
FLOAT = 4


class BlockConfig(ABC):
    """Abstract: a kind of block; a subclass is a frozen dataclass."""

    @property
    def directions(self) -> Collection[Direction]:
        """The directions in which the block can encode; by default both."""
        return BOTH_DIRECTIONS

    @property
    def attends(self) -> bool:
        """Whether it has attention, which positions may rotate or bias; by default True."""
        return True

    @property
    def fields(self) -> Collection[str]:
        """The fields of a `Packed` that the block needs; by default none."""
        return ()

    def width_of_head(self, config: TransformerConfig) -> int:
        """K, the width of a head's queries, keys and values."""
        return config.width // config.heads

    @abstractmethod
    def build(self, config: TransformerConfig) -> Block:
        """One block of an encoder; the encoder draws its initial weights afterwards."""

    def activation_bytes(
        self, config: TransformerConfig, tokens: int, rows: int, longest: int
    ) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that one block in fp32 keeps for its backward pass.

        The batch has `rows` sequences with `tokens` tokens in all; the longest has `longest`. By
        default the estimate is that of softmax attention and two dense layers. Hidden states are
        T (8 D + 2 F) + S L 3 D numbers, the second term for queries, keys and values laid out in a
        rectangle (within 10 % of what torch saves, measured on a CPU).
        """
        width = config.width
        states = tokens * (8 * width + 2 * config.feed_forward) + rows * longest * 3 * width
        return {"hidden states": FLOAT * states, **softmax_bytes(config, rows, longest)}


def softmax_bytes(config: TransformerConfig, rows: int, longest: int) -> Mapping[str, int]:
    """Estimates, by name, of the bytes that one block's attention scores keep for backward.

    The dropout mask of the weights takes S H L^2 bytes on a CPU; an accelerator draws it again. A
    bias from positions takes S H L^2 numbers in fp32.
    """
    scores = rows * config.heads * longest**2
    return {
        "dropped attention weights": scores,
        **({"a bias on scores": FLOAT * scores} if config.positions.biases_scores else {}),
    }


class Block(nn.Module, ABC):
    """Abstract: one layer of a transformer."""

    compiles = False
    """Whether its position-wise parts are to be compiled while it trains."""
    initial_stds: Mapping[str, float] = MappingProxyType({})
    """By name of a weight, the standard deviation of its initial values, if not `init_std`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dropouts = config.dropouts

    @abstractmethod
    def forward(
        self,
        x_TD: Tensor,
        packed: Packed,
        positions: Positions,
        *,
        causal: bool,
        read_P: Tensor | None = None,
    ) -> Tensor:
        """[T, D] -> [T, D], or [P, D]: the output at the tokens with the indices `read_P`."""

    def maybe_compiled(self, part: Callable[..., Part], rows: int) -> Callable[..., Part]:
        """`part`, or its compiled form where the block compiles and trains.

        With 0 or 1 rows it stays as it is, as torch would compile it once more for each of these.
        """
        return compile_part(part) if self.compiles and self.training and rows > 1 else part

    def attend(
        self,
        qkv_TE: Tensor,
        packed: Packed,
        positions: Positions,
        *,
        causal: bool,
        read_P: Tensor | None = None,
    ) -> Tensor:
        """Softmax attention [P, H, K] at the tokens `read_P`, or all, as positions change it.

        `qkv_TE` [T, 3 D] has query, key and value side by side.
        """
        qkv_T3HK = rearrange(qkv_TE, "T (three H K) -> T three H K", three=3, H=self.config.heads)
        biases = self.config.positions.biases_scores
        attended_PHK = attention(
            positions.apply_positions(qkv_T3HK, packed),
            packed,
            causal=causal,
            dropout=self.dropouts.attention if self.training else 0.0,
            read_P=read_P,
            bias=positions.bias if biases else None,
        )
        return with_zero_gradients(attended_PHK, positions.parameters()) if biases else attended_PHK

    def two_dense(self, inner: nn.Linear, outer: nn.Linear, x_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: dense, activation, dropout, dense, dropout, on each token alone."""
        inner_PF = activate(inner(x_PD), self.config.activation)
        inner_PF = dropout(inner_PF, self.dropouts.inner, self.training)
        return dropout(outer(inner_PF), self.dropouts.hidden, self.training)


@dataclass(frozen=True, kw_only=True)
class PostNorm(BlockConfig):
    """LayerNorm after each residual sum: x = LN(x + Attn(x)); LN(x + FF(x)) (BERT, S3-Rec)."""

    def build(self, config: TransformerConfig) -> PostNormBlock:
        """One block."""
        return PostNormBlock(config)


@dataclass(frozen=True, kw_only=True)
class PreNorm(BlockConfig):
    """LayerNorm before each part: x + Attn(LN(x)); x + FF(LN(x)) (most ports)."""

    def build(self, config: TransformerConfig) -> PreNormBlock:
        """One block."""
        return PreNormBlock(config)


@dataclass(frozen=True, kw_only=True)
class QueryNorm(BlockConfig):
    """SASRec's order: q = LN(x), y = LN(q + Attn(q, x, x)), y + FF(y); residuals are normalized."""

    def build(self, config: TransformerConfig) -> QueryNormBlock:
        """One block."""
        return QueryNormBlock(config)


class SoftmaxBlock(Block):
    """Abstract: softmax attention, between two parts that treat each token by itself.

    The two parts, `before_attention` and `after_attention`, are what torch.compile may compile.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        width = config.width
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width) if config.output_projection else nn.Identity()

    @abstractmethod
    def before_attention(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual [T, D], and query, key and value side by side [T, 3 D]."""

    @abstractmethod
    def after_attention(self, residual_PD: Tensor, attended_PHK: Tensor) -> Tensor:
        """The block's output [P, D], from the residual [P, D] and attention's output [P, H, K]."""

    def forward(
        self,
        x_TD: Tensor,
        packed: Packed,
        positions: Positions,
        *,
        causal: bool,
        read_P: Tensor | None = None,
    ) -> Tensor:
        """[T, D] -> [T, D], or [P, D]: the output at the tokens with the indices `read_P`."""
        kind = type(self)
        residual_TD, qkv_TE = self.maybe_compiled(kind.before_attention, x_TD.shape[0])(self, x_TD)
        attended_PHK = self.attend(qkv_TE, packed, positions, causal=causal, read_P=read_P)
        residual_PD = residual_TD if read_P is None else residual_TD.index_select(0, read_P)
        return self.maybe_compiled(kind.after_attention, residual_PD.shape[0])(
            self, residual_PD, attended_PHK
        )

    def project_attention(self, attended_PHK: Tensor) -> Tensor:
        """[P, H, K] -> [P, D]: attention's output after its projection and dropout."""
        attended_PD = self.output(rearrange(attended_PHK, "P H K -> P (H K)"))
        return dropout(attended_PD, self.dropouts.attention_output, self.training)


class SelfAttentionBlock(SoftmaxBlock):
    """Abstract: softmax attention, then a feed-forward part; subclasses place the norms."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.inner = nn.Linear(config.width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    @abstractmethod
    def after_residual_sum(self, summed_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: from the residual sum of attention to the block's output."""

    def feed_forward(self, x_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: two dense layers, on each token alone."""
        return self.two_dense(self.inner, self.outer, x_PD)

    def after_attention(self, residual_PD: Tensor, attended_PHK: Tensor) -> Tensor:
        """[P, D]: the block's output, after the residual sum of attention."""
        return self.after_residual_sum(residual_PD + self.project_attention(attended_PHK))


class PostNormBlock(SelfAttentionBlock):
    """A block with a LayerNorm after each of its two residual sums (see `PostNorm`)."""

    def before_attention(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual is x, and query, key and value are projected from x."""
        return x_TD, self.qkv(x_TD)

    def after_residual_sum(self, summed_PD: Tensor) -> Tensor:
        """Each of the two residual sums goes through a norm."""
        x_PD = self.attention_norm(summed_PD)
        out_PD: Tensor = self.feed_forward_norm(x_PD + self.feed_forward(x_PD))
        return out_PD


class PreNormBlock(SelfAttentionBlock):
    """A block with a LayerNorm before attention and before the feed-forward part (`PreNorm`)."""

    def before_attention(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual is x; query, key and value are projected from LN(x)."""
        return x_TD, self.qkv(self.attention_norm(x_TD))

    def after_residual_sum(self, summed_PD: Tensor) -> Tensor:
        """The residual is the sum; the feed-forward part reads its norm."""
        return summed_PD + self.feed_forward(self.feed_forward_norm(summed_PD))


class QueryNormBlock(SelfAttentionBlock):
    """SASRec's own block, which normalizes the queries but not keys and values (`QueryNorm`)."""

    def before_attention(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual is LN(x), the query is projected from LN(x), key and value from x."""
        normed_TD: Tensor = self.attention_norm(x_TD)
        width, qkv = self.config.width, self.qkv
        q_TD = F.linear(normed_TD, qkv.weight[:width], qkv.bias[:width])
        kv_TE = F.linear(x_TD, qkv.weight[width:], qkv.bias[width:])
        return normed_TD, torch.cat([q_TD, kv_TE], dim=1)

    def after_residual_sum(self, summed_PD: Tensor) -> Tensor:
        """The norm of the sum is both the residual and the feed-forward part's input."""
        normed_PD: Tensor = self.feed_forward_norm(summed_PD)
        return normed_PD + self.feed_forward(normed_PD)


def with_zero_gradients(x_P: Tensor, parameters: Iterable[Tensor]) -> Tensor:
    """`x_P` itself; if it has no rows, `parameters` then get gradients of zeros from it.

    It is for what only attention reads: where no token is read, nothing else touches it.
    """
    return x_P if x_P.shape[0] else x_P + sum(parameter.sum() for parameter in parameters)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """GELU (erf or tanh form; Hendrycks and Gimpel 2016) or ReLU of x, elementwise."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")

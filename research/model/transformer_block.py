"""Transformer blocks: self-attention and feed-forward, in the orders in which papers put the norms.

A block is a config and the module that it builds; a new one is a file like this, named by
`encoder.block`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from research.model.attention import attention
from research.model.compute import compiled
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
    """Abstract: a kind of block; a frozen dataclass below."""

    @property
    def fields(self) -> Collection[str]:
        """The fields of a `Packed` that it cannot do without; none unless said."""
        return ()

    def width_of_head(self, config: TransformerConfig) -> int:
        """K, numbers of a head in queries, keys and values."""
        return config.width // config.heads

    @abstractmethod
    def build(self, config: TransformerConfig) -> Block:
        """One block of an encoder; the encoder draws its initial weights."""

    def activation_bytes(
        self, config: TransformerConfig, tokens: int, rows: int, longest: int
    ) -> Mapping[str, int]:
        """Estimates, by name, of what one block in fp32 keeps for its backward pass, in bytes.

        Of `rows` sequences of `tokens` tokens in all, the longest of `longest`. Unless a block says
        otherwise, it is of softmax attention and two dense layers. Hidden states: T (8 D + 2 F) and
        S L 3 D, the second for queries, keys and values laid out in a rectangle (within 10 % of
        what torch saves, measured on a CPU).
        """
        width = config.width
        states = tokens * (8 * width + 2 * config.feed_forward) + rows * longest * 3 * width
        return {"hidden states": FLOAT * states, **softmax_bytes(config, rows, longest)}


def softmax_bytes(config: TransformerConfig, rows: int, longest: int) -> Mapping[str, int]:
    """Estimates, by name, of what the scores of one block's softmax attention keep, in bytes.

    Which weights were dropped: S H L^2 bytes on a CPU; on an accelerator they are drawn again. A
    bias of positions: as many scores in fp32.
    """
    scores = rows * config.heads * longest**2
    return {
        "dropped attention weights": scores,
        **({"a bias on scores": FLOAT * scores} if config.positions.biases_scores else {}),
    }


class Block(nn.Module, ABC):
    """Abstract: one layer of a transformer."""

    compiles = False
    """Whether the encoder has been asked to compile what is position-wise."""

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
        """[T, D] -> [T, D], or [P, D] of the tokens that are read from it."""

    def built(self, part: Callable[..., Part], rows: int) -> Callable[..., Part]:
        """A part as it stands, or compiled: but 0 rows and 1 would be compiled for themselves."""
        return compiled(part) if self.compiles and self.training and rows > 1 else part


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
    """SASRec's own: q = LN(x), y = LN(q + Attn(q, x, x)), y + FF(y); the residual is normalized."""

    def build(self, config: TransformerConfig) -> QueryNormBlock:
        """One block."""
        return QueryNormBlock(config)


class SoftmaxBlock(Block):
    """Abstract: softmax attention between two parts that are computed token by token."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.dropouts = config.dropouts
        width = config.width
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width) if config.output_projection else nn.Identity()

    @abstractmethod
    def before(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """What the residual sum starts from [T, D]; query, key and value [T, 3 D]."""

    @abstractmethod
    def rest(self, carried_PD: Tensor, mixed_PHK: Tensor) -> Tensor:
        """The block's output [P, D], of what was carried [P, D] and what attention gave."""

    def forward(
        self,
        x_TD: Tensor,
        packed: Packed,
        positions: Positions,
        *,
        causal: bool,
        read_P: Tensor | None = None,
    ) -> Tensor:
        """[T, D] -> [T, D], or [P, D] of the tokens that are read from it."""
        kind, heads = type(self), self.config.heads
        carried_TD, qkv_TE = self.built(kind.before, len(x_TD))(self, x_TD)
        qkv_T3HK = rearrange(qkv_TE, "T (three H K) -> T three H K", three=3, H=heads)
        mixed_PHK = attention(
            positions.turned(qkv_T3HK, packed),
            packed,
            causal=causal,
            dropout=self.dropouts.attention if self.training else 0.0,
            read_P=read_P,
            bias=positions.bias if self.config.positions.biases_scores else None,
        )
        carried_PD = carried_TD if read_P is None else carried_TD.index_select(0, read_P)
        return self.built(kind.rest, len(carried_PD))(self, carried_PD, mixed_PHK)

    def attended(self, mixed_PHK: Tensor) -> Tensor:
        """[P, H, K] -> [P, D]: what attention gave, projected, with dropout."""
        mixed_PD = self.output(rearrange(mixed_PHK, "P H K -> P (H K)"))
        return dropout(mixed_PD, self.dropouts.attention_output, self.training)


class SelfAttentionBlock(SoftmaxBlock):
    """Abstract: softmax attention, then a feed-forward part; subclasses place the norms."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.inner = nn.Linear(config.width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, config.width)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    @abstractmethod
    def after(self, summed_PD: Tensor) -> Tensor:
        """What follows the residual sum of attention: [P, D] -> [P, D]."""

    def feed_forward(self, x_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D], token by token."""
        inner_PF = activate(self.inner(x_PD), self.config.activation)
        inner_PF = dropout(inner_PF, self.dropouts.inner, self.training)
        return dropout(self.outer(inner_PF), self.dropouts.hidden, self.training)

    def rest(self, carried_PD: Tensor, mixed_PHK: Tensor) -> Tensor:
        """The residual sum of attention, and what follows it: [P, D]."""
        return self.after(carried_PD + self.attended(mixed_PHK))


class PostNormBlock(SelfAttentionBlock):
    """See `PostNorm`."""

    def before(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Everything from x."""
        return x_TD, self.qkv(x_TD)

    def after(self, summed_PD: Tensor) -> Tensor:
        """Two norms."""
        x_PD = self.attention_norm(summed_PD)
        out_PD: Tensor = self.feed_forward_norm(x_PD + self.feed_forward(x_PD))
        return out_PD


class PreNormBlock(SelfAttentionBlock):
    """See `PreNorm`."""

    def before(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual from x, the rest from its norm."""
        return x_TD, self.qkv(self.attention_norm(x_TD))

    def after(self, summed_PD: Tensor) -> Tensor:
        """The residual from the sum, the rest from its norm."""
        return summed_PD + self.feed_forward(self.feed_forward_norm(summed_PD))


class QueryNormBlock(SelfAttentionBlock):
    """See `QueryNorm`."""

    def before(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Residual and query from the norm of x, key and value from x."""
        normed_TD: Tensor = self.attention_norm(x_TD)
        width, qkv = self.config.width, self.qkv
        q_TD = F.linear(normed_TD, qkv.weight[:width], qkv.bias[:width])
        kv_TE = F.linear(x_TD, qkv.weight[width:], qkv.bias[width:])
        return normed_TD, torch.cat([q_TD, kv_TE], dim=1)

    def after(self, summed_PD: Tensor) -> Tensor:
        """Residual and all else from the norm of the sum."""
        normed_PD: Tensor = self.feed_forward_norm(summed_PD)
        return normed_PD + self.feed_forward(normed_PD)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """GELU (erf or tanh form; Hendrycks and Gimpel 2016) or ReLU, elementwise."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")

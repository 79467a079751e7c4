"""The shared encoder: one stack of transformer blocks under every objective.

What papers differ in is a field of `TransformerConfig`. Bidirectional or causal is an argument of
the call. The encoder owns the item table (row V is the mask) and nothing of any objective.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from research.errors import InputError
from research.model.attention import attention
from research.model.compute import ComputeConfig, begin_compiling, compiled
from research.model.dropout import dropout
from research.model.initial import initialize
from research.model.item_table import ItemTable
from research.packed import Packed

# No size of a config may be larger; a stranger's config cannot ask for endless memory by one field.
LARGEST = 1 << 20

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes and the choices in which published backbones differ."""

    length: int = 50
    """Longest history that the encoder reads, in items."""
    width: int = 64
    """Width D of the hidden states and of the item embeddings."""
    layers: int = 2
    """Number of transformer blocks."""
    heads: int = 2
    """Attention heads; must divide the width."""
    feed_forward: int = 256
    """Inner width of the feed-forward part."""
    activation: Literal["gelu", "gelu_tanh", "relu"] = "gelu"
    """Activation of the feed-forward part; gelu is the erf form."""
    norm: Literal["post", "pre", "query"] = "post"
    """LayerNorm after each residual sum (BERT, S3-Rec), before each part (most ports), or SASRec's
    own: only the query is normalized, and the residual starts from the normalized value."""
    output_projection: bool = True
    """Whether attention ends in a dense layer (SASRec has none)."""
    embedding_norm: bool = True
    """LayerNorm on the sum of embeddings (BERT, S3-Rec)."""
    embedding_scale: bool = False
    """Multiply item embeddings by sqrt(width) on the input side only (SASRec)."""
    final_norm: bool = False
    """LayerNorm after the last block (SASRec, pre-norm stacks)."""
    norm_eps: float = 1e-12
    """Epsilon of every LayerNorm."""
    positions: Literal["newest", "oldest"] = "newest"
    """The end from which learned positions are counted."""
    segments: int = 0
    """Number of segment types with an embedding; 0: none. Tokens are of type 0 unless said."""
    embedding_dropout: float = 0.5
    """Dropout on the sum of embeddings."""
    hidden_dropout: float = 0.5
    """Dropout on the output of attention and of the feed-forward part."""
    attention_dropout: float = 0.5
    """Dropout on attention weights."""
    attention_output_dropout: float | None = None
    """Dropout on the output of attention (0: SASRec and its descendants); None: as hidden."""
    inner_dropout: float = 0.0
    """Dropout after the activation inside the feed-forward part (SASRec, the PyTorch ports)."""
    init_std: float = 0.02
    """Standard deviation of normal initial weights; biases start at 0."""

    def __post_init__(self) -> None:
        for name in ("length", "width", "layers", "heads", "feed_forward"):
            if getattr(self, name) < 1:
                raise InputError(f"encoder.{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("length", "width", "layers", "heads", "feed_forward", "segments"):
            if getattr(self, name) > LARGEST:
                raise InputError(f"encoder.{name} is {getattr(self, name)}; at most {LARGEST}")
        if self.width % self.heads:
            raise InputError(
                f"encoder.heads is {self.heads}, which does not divide encoder.width "
                f"{self.width}; choose a divisor of the width"
            )
        for name in ("embedding", "hidden", "attention", "attention_output", "inner"):
            probability = getattr(self, f"{name}_dropout")
            if not 0.0 <= (probability or 0.0) < 1.0:
                raise InputError(f"encoder.{name}_dropout is {probability}; it must be in [0, 1)")
        for name in ("segments", "norm_eps", "init_std"):
            if not getattr(self, name) >= 0:
                raise InputError(f"encoder.{name} is {getattr(self, name)}; it must be 0 or more")


class Block(nn.Module):
    """Self-attention and feed-forward with their residual sums and norms."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width) if config.output_projection else nn.Identity()
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.inner = nn.Linear(width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.compile_parts = False

    def forward(
        self, x_TD: Tensor, packed: Packed, causal: bool, read_P: Tensor | None = None
    ) -> Tensor:
        """[T, D] -> [T, D], or [P, D] of the tokens that are read from it."""
        width, heads = self.config.width, self.config.heads
        carried_TD, projected = self._built(Block._before, len(x_TD))(self, x_TD)
        q_THK, k_THK, v_THK = (
            rearrange(part_TD, "T (H K) -> T H K", H=heads)
            for part in projected
            for part_TD in torch.split(part, width, dim=-1)
        )
        probability = self.config.attention_dropout if self.training else 0.0
        mixed_THK = attention(q_THK, k_THK, v_THK, packed, causal=causal, dropout=probability)
        carried_PD, mixed_PHK = _rows(carried_TD, read_P), _rows(mixed_THK, read_P)
        return self._built(Block._after, len(carried_PD))(self, carried_PD, mixed_PHK)

    def _before(self, x_TD: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """What the residual sum starts from [T, D], and query, key and value [T, 3 D], in parts."""
        if self.config.norm == "post":
            return x_TD, (self.qkv(x_TD),)
        normed_TD: Tensor = self.attention_norm(x_TD)
        if self.config.norm == "pre":
            return x_TD, (self.qkv(normed_TD),)
        width = self.config.width
        q_TD = F.linear(normed_TD, self.qkv.weight[:width], self.qkv.bias[:width])
        kv_TE = F.linear(x_TD, self.qkv.weight[width:], self.qkv.bias[width:])
        return normed_TD, (q_TD, kv_TE)

    def _after(self, carried_PD: Tensor, mixed_PHK: Tensor) -> Tensor:
        """All that follows attention, token by token: [P, D] and [P, H, K] -> [P, D]."""
        mixed_PD = rearrange(mixed_PHK, "P H K -> P (H K)")
        after = self.config.attention_output_dropout
        after = self.config.hidden_dropout if after is None else after
        summed_PD = carried_PD + dropout(self.output(mixed_PD), after, self.training)
        if self.config.norm == "pre":
            return summed_PD + self._feed_forward(self.feed_forward_norm(summed_PD))
        if self.config.norm == "query":
            normed_PD: Tensor = self.feed_forward_norm(summed_PD)
            return normed_PD + self._feed_forward(normed_PD)
        x_PD = self.attention_norm(summed_PD)
        out_PD: Tensor = self.feed_forward_norm(x_PD + self._feed_forward(x_PD))
        return out_PD

    def _built(self, part: Callable[..., Part], rows: int) -> Callable[..., Part]:
        """A part as it stands, or compiled: but 0 rows and 1 would be compiled for themselves."""
        return compiled(part) if self.compile_parts and self.training and rows > 1 else part

    def _feed_forward(self, x_TD: Tensor) -> Tensor:
        inner_TF = activate(self.inner(x_TD), self.config.activation)
        inner_TF = dropout(inner_TF, self.config.inner_dropout, self.training)
        return dropout(self.outer(inner_TF), self.config.hidden_dropout, self.training)


def _rows(x_TD: Tensor, read_P: Tensor | None) -> Tensor:
    return x_TD if read_P is None else x_TD.index_select(0, read_P)


def activate(x: Tensor, activation: str) -> Tensor:
    """GELU (erf or tanh form; Hendrycks and Gimpel 2016) or ReLU, elementwise."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class TransformerEncoder(nn.Module):
    """`Packed` in, hidden states out; also the item table."""

    def __init__(self, config: TransformerConfig, item_table: ItemTable, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.item_table = item_table
        self.position_table = nn.Embedding(config.length, config.width)
        if config.segments:
            self.segment_table = nn.Embedding(config.segments, config.width)
        if config.embedding_norm:
            self.embedding_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        if config.final_norm:
            self.final_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        initialize(self, config.init_std, seed, "encoder", skip=[item_table])
        self.recompute = self.compiles = False

    @property
    def num_items(self) -> int:
        """V."""
        return self.item_table.num_items

    @property
    def mask_id(self) -> int:
        """The id that stands for a hidden item: V, the row after the last item's."""
        return self.item_table.mask_id

    def use(self, compute: ComputeConfig) -> None:
        """Train as `compute` says from now on; parameters and their names stay as they are."""
        self.recompute, self.compiles = compute.recompute, compute.compile
        for block in self.blocks:
            assert isinstance(block, Block)
            block.compile_parts = compute.compile
        if compute.compile:
            begin_compiling()

    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """Hidden states [T, D] of every token, each sequence by itself.

        With `read_P` [P, D], those of these tokens alone; the last block then spends nothing but
        attention on the others.
        """
        config = self.config
        assert packed.longest <= config.length, "a view longer than encoder.length"
        x_TD = self.item_table.lookup(packed.items_T)
        if config.embedding_scale:
            x_TD = x_TD * math.sqrt(config.width)
        places_T = packed.positions_T
        if config.positions == "newest":
            places_T = (packed.offsets.diff() - 1)[packed.owner_T] - places_T
        x_TD = x_TD + self.position_table(places_T)
        if config.segments:
            segments_T = packed.segments_T
            if segments_T is None:
                segments_T = torch.zeros_like(packed.items_T)
            x_TD = x_TD + self.segment_table(segments_T)
        if config.embedding_norm:
            x_TD = self.embedding_norm(x_TD)
        x_TD = dropout(x_TD, config.embedding_dropout, self.training)
        for block in self.blocks[:-1]:
            x_TD = self._through(block, x_TD, packed, causal, None)
        x_PD = self._through(self.blocks[-1], x_TD, packed, causal, read_P)
        return self.final_norm(x_PD) if config.final_norm else x_PD

    def _through(
        self, block: nn.Module, x_TD: Tensor, packed: Packed, causal: bool, read_P: Tensor | None
    ) -> Tensor:
        """The block's states, of which the backward pass keeps the input alone if it recomputes."""
        states_PD: Tensor
        if self.recompute and self.training and torch.is_grad_enabled():
            # Dropout draws the same again: torch keeps the generator's state beside the input.
            states_PD = checkpoint(block, x_TD, packed, causal, read_P, use_reentrant=False)
        else:
            states_PD = block(x_TD, packed, causal, read_P)
        return states_PD

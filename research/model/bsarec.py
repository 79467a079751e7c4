"""BSARec's block: low and high frequencies of the row, rescaled, beside self-attention.

    low = the part of x with the c lowest frequencies along the row,    high = x - low
    F(x) = LN(x + low + beta high),    A(x) = LN(x + Attn(x))
    y = alpha F(x) + (1 - alpha) A(x),    z = LN(y + FF(y))

Source: Shin et al. 2024, "An Attentive Inductive Bias for Sequential Recommendation beyond the
Self-Attention" (arXiv 2312.10325), and its code, `BSARecBlock` of yehjin-shin/BSARec. beta is the
square of D learned numbers, which begin as standard normal draws. Attention is causal; low and high
are not, since every token of a row has a part in each of its frequencies. So all states but the
newest token's know newer items: the block encodes bidirectional states alone, and its loss must be
at tokens whose item the row does not hold (a mask, or the item that follows the row).

The frequencies are those of a row of `encoder.length` places, right-aligned, with zeros before its
oldest token. As a filter of the frequencies is a circular convolution, the zeros add nothing, and
low_i = sum over the row's tokens of h(i - j) x_j, where h is the filter of the lowest frequencies;
this is how it is computed, without padding. A departure: the published code fills the places before
a row with the embedding of its padding id plus a position's, which every layer changes like those
of items, so that its low frequencies also tell how long the row is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError
from research.model.attention import mix_rows
from research.model.backbone import MAX_SIZE, Direction
from research.model.kernels.dropout import dropout
from research.model.kernels.precision import without_autocast
from research.model.positions import Positions
from research.model.transformer_block import FLOAT, Block, BlockConfig, softmax_bytes
from research.packed import Packed
from research.rectangles import Rectangle

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class BSARec(BlockConfig):
    """Rescaled frequencies of the row beside causal self-attention, post-norm (BSARec)."""

    alpha: float = 0.7
    """Share of the frequencies in the sum; attention has 1 - alpha."""
    c: int = 5
    """How many of the lowest frequencies are kept as they are, positive and negative ones counted:
    the constant and c // 2 pairs."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"encoder.block.alpha is {self.alpha}; it must be from 0 to 1")
        if not 1 <= self.c <= MAX_SIZE:
            raise InputError(
                f"encoder.block.c is {self.c}; it must be at least 1 and at most {MAX_SIZE}"
            )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Only bidirectional: low frequencies of a row know its newer items."""
        return ("bidirectional",)

    def build(self, config: TransformerConfig) -> BSARecBlock:
        """One block."""
        return BSARecBlock(self, config)

    def activation_bytes(
        self, config: TransformerConfig, tokens: int, rows: int, longest: int
    ) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that one block in fp32 keeps for its backward pass.

        Hidden states are T (8 D + 2 F) + S L 4 D numbers. Hidden dropout adds T 3 D, dropout inside
        the feed-forward part T F.
        """
        width, dropouts = config.width, config.dropouts
        states = tokens * width * (8 + 3 * (dropouts.hidden > 0)) + rows * longest * 4 * width
        states += tokens * config.feed_forward * (2 + (dropouts.inner > 0))
        return {"hidden states": FLOAT * states, **softmax_bytes(config, rows, longest)}


class BSARecBlock(Block):
    """Frequencies and attention side by side, then a feed-forward part (see `BSARec`)."""

    initial_stds = MappingProxyType({"sqrt_beta": 1.0})
    low_pass_L: Tensor
    """float64 [L]: h, the weight of a token in the low frequencies of one that is so many places
    away."""

    def __init__(self, block: BSARec, config: TransformerConfig) -> None:
        super().__init__(config)
        self.block = block
        width, length = config.width, config.length
        self.sqrt_beta = nn.Parameter(torch.empty(width))
        self.filter_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width) if config.output_projection else nn.Identity()
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.inner = nn.Linear(width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.norm_eps)
        kept = (torch.arange(length // 2 + 1) <= block.c // 2).to(torch.complex128)
        self.register_buffer("low_pass_L", torch.fft.irfft(kept, n=length), persistent=False)

    def forward(
        self,
        x_TD: Tensor,
        packed: Packed,
        positions: Positions,
        *,
        causal: bool,
        read_P: Tensor | None = None,
    ) -> Tensor:
        """[T, D] -> [T, D], or [P, D]: the output at the tokens with the indices `read_P`.

        `causal` must be False; attention within the block is causal all the same.
        """
        assert not causal, "a stage that needs causal states is refused before it is built"
        qkv_TE = self.maybe_compiled(BSARecBlock.before_attention, x_TD.shape[0])(self, x_TD)
        attended_PHK = self.attend(qkv_TE, packed, positions, causal=True, read_P=read_P)
        low_PD = mix_rows(self.low_frequencies, x_TD, packed, read_P)
        x_PD = x_TD if read_P is None else x_TD.index_select(0, read_P)
        return self.maybe_compiled(BSARecBlock.after_attention, x_PD.shape[0])(
            self, x_PD, low_PD, attended_PHK
        )

    def before_attention(self, x_TD: Tensor) -> Tensor:
        """Query, key and value side by side [T, 3 D]."""
        qkv_TE: Tensor = self.qkv(x_TD)
        return qkv_TE

    def low_frequencies(self, x_BLD: Tensor, rectangle: Rectangle) -> Tensor:
        """[B, Q, D]: of each query's token, the part of x with the lowest frequencies of its row.

        It is in fp32 at least, since what is left of x after it makes the high frequencies.
        """
        wide = torch.promote_types(x_BLD.dtype, torch.float32)
        weights_BQL = self.low_pass_L.to(wide)[rectangle.distances_BQL.abs()]
        with without_autocast(x_BLD):
            return weights_BQL @ x_BLD.to(wide)

    def after_attention(self, x_PD: Tensor, low_PD: Tensor, attended_PHK: Tensor) -> Tensor:
        """The block's output [P, D], from both parts of its sum on."""
        hidden, block = self.dropouts.hidden, self.block
        rescaled_PD = low_PD + self.sqrt_beta**2 * (x_PD - low_PD)
        filtered_PD = self.filter_norm(x_PD + dropout(rescaled_PD, hidden, self.training))
        added_PD = self.output(attended_PHK.flatten(1))
        added_PD = dropout(added_PD, self.dropouts.attention_output, self.training)
        attended_PD = self.attention_norm(x_PD + added_PD)
        y_PD = block.alpha * filtered_PD + (1.0 - block.alpha) * attended_PD
        out_PD: Tensor = self.feed_forward_norm(y_PD + self.two_dense(self.inner, self.outer, y_PD))
        return out_PD

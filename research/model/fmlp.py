"""FMLP-Rec's block: a learned filter of the row's frequencies in the place of attention.

    y = LN(x + irfft(rfft(x) * W)),    z = LN(y + FF(y))

Source: Zhou et al. 2022, "Filter-enhanced MLP is All You Need for Sequential Recommendation" (arXiv
2202.13556), eq. 3-8, and its code, `FilterLayer` of Woeee/FMLP-Rec. W has a complex number for each
of L/2 + 1 frequencies and each of the D numbers of a state. A filter of frequencies is a circular
convolution, so all states but the newest token's know newer items: the block encodes bidirectional
states alone, and its loss must be at tokens whose item the row does not hold (a mask, or the item
that follows the row).

The frequencies are those of a row of `encoder.length` places, right-aligned, with zeros before its
oldest token. Where those zeros are does not matter to a circular convolution, so none is laid out
before a row, and only the rectangle of rows in which the filter is applied is padded. A departure:
the published code fills the places before a row with the embedding of its padding id plus a
position's, which every layer filters like those of items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from research.model.attention import mix_rows
from research.model.backbone import Direction
from research.model.kernels.dropout import dropout
from research.model.kernels.precision import without_autocast
from research.model.positions import Positions
from research.model.transformer_block import FLOAT, Block, BlockConfig, with_zero_gradients
from research.packed import Packed
from research.rectangles import Rectangle

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig

# Up to this many slots, a CPU convolves a row by a matrix for each of the D numbers; above it the
# Fourier transforms are faster. 256 rows of 9 slots under L = 50 take 3 ms forward and backward
# instead of 18, 256 rows of 50 slots 19 instead of 27, 128 rows of 165 under L = 200 70 instead of
# 54 (one thread, width 64).
MOST_CONVOLVED = 64


@dataclass(frozen=True, kw_only=True)
class FMLP(BlockConfig):
    """A learned filter of the row's frequencies, then a feed-forward part, post-norm (FMLP-Rec).

    The block has no attention, so it does not read `heads`, `output_projection`,
    `attention_dropout` and `attention_output_dropout`, and needs positions that are added to
    embeddings. `hidden_dropout` is also on the filter's output.
    """

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Only bidirectional: a filtered row's states know its newer items."""
        return ("bidirectional",)

    @property
    def attends(self) -> bool:
        """It has no attention."""
        return False

    def build(self, config: TransformerConfig) -> FMLPBlock:
        """One block."""
        return FMLPBlock(config)

    def activation_bytes(
        self, config: TransformerConfig, tokens: int, rows: int, longest: int
    ) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that one block in fp32 keeps for its backward pass.

        Hidden states are T (5 D + 2 F) numbers. Filtered rows are S L D numbers and L^2 D weights,
        or on an accelerator, and in rows of more than 64 items, their frequencies: as many numbers
        as `encoder.length` D for each row.
        """
        width = config.width
        states = tokens * (5 * width + 2 * config.feed_forward)
        filtered = rows * longest + longest**2
        if longest > MOST_CONVOLVED:
            filtered = (rows + 1) * (config.length + 2)
        return {"hidden states": FLOAT * states, "filtered rows": FLOAT * filtered * width}


class FMLPBlock(Block):
    """A filter along the row, then a feed-forward part (see `FMLP`)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        width = config.width
        # Real and imaginary parts, as optimizers, files and other processes know real numbers.
        self.filter_weights = nn.Parameter(torch.empty(config.length // 2 + 1, width, 2))
        self.filter_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.inner = nn.Linear(width, config.feed_forward)
        self.outer = nn.Linear(config.feed_forward, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=config.norm_eps)

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

        `causal` must be False.
        """
        assert not causal, "a stage that needs causal states is refused before it is built"

        def mix(x_BLD: Tensor, rectangle: Rectangle) -> Tensor:
            few = x_BLD.device.type == "cpu" and x_BLD.shape[1] <= MOST_CONVOLVED
            # A traced program has one path for all numbers of slots.
            applied = self.convolved if packed.padded or few else self.filtered
            with without_autocast(x_BLD):
                mixed_BLD = applied(x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32)))
            if rectangle.reads_all:
                return mixed_BLD
            places_BQD = rectangle.places_BQ[..., None].expand(-1, -1, mixed_BLD.shape[2])
            return mixed_BLD.gather(1, places_BQD)

        mixed_PD = mix_rows(mix, x_TD, packed, read_P)
        mixed_PD = with_zero_gradients(mixed_PD, [self.filter_weights])
        x_PD = x_TD if read_P is None else x_TD.index_select(0, read_P)
        return self.maybe_compiled(FMLPBlock.after_filter, x_PD.shape[0])(self, x_PD, mixed_PD)

    def filtered(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D]: the rows with their frequencies multiplied by the weights."""
        length, slots = self.config.length, x_BLD.shape[1]
        frequencies = torch.fft.rfft(x_BLD, n=length, dim=1) * self._complex(x_BLD.dtype)
        filtered_BLD: Tensor = torch.fft.irfft(frequencies, n=length, dim=1)
        return filtered_BLD[:, :slots]

    def convolved(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D]: the same as `filtered`, as a convolution.

        Token i becomes the sum over its row's tokens j of w[i - j] x_j, with w = irfft(W).
        """
        length, slots = self.config.length, x_BLD.shape[1]
        filter_LD = torch.fft.irfft(self._complex(x_BLD.dtype), n=length, dim=0)
        numbers_L = torch.arange(slots, device=x_BLD.device)
        apart = (numbers_L[:, None] - numbers_L) % length
        weights_LLD = filter_LD.index_select(0, apart.flatten()).unflatten(0, apart.shape)
        mixed_DLB: Tensor = weights_LLD.permute(2, 0, 1) @ x_BLD.permute(2, 1, 0)
        return mixed_DLB.permute(2, 1, 0)

    def _complex(self, dtype: torch.dtype) -> Tensor:
        return torch.view_as_complex(self.filter_weights.to(dtype))

    def after_filter(self, x_PD: Tensor, mixed_PD: Tensor) -> Tensor:
        """The block's output [P, D], from the filter's output on."""
        y_PD = self.filter_norm(x_PD + dropout(mixed_PD, self.dropouts.hidden, self.training))
        out_PD: Tensor = self.feed_forward_norm(y_PD + self.two_dense(self.inner, self.outer, y_PD))
        return out_PD

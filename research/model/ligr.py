"""LiGR's block: a pre-norm transformer block with a learned gate on what each part adds.

    y = x + sigmoid(x G + g) * Attn(norm(x)),    z = y + sigmoid(y G' + g') * FF(norm(y))

Source: Borisyuk et al. 2025, "From Features to Transformers: Redefining Ranking for Scalable
Impact" (arXiv 2502.03417), in the form of RecTools' `LiGRLayer`, which is the block of eSASRec
(arXiv 2508.06450): a gate reads a part's input before the norm, is a dense layer with a bias, and
gives one factor for each of the D numbers. LiGR's attention among the items to be ranked has no
counterpart here, as items are scored one by one. The feed-forward part is SwiGLU (Shazeer 2020,
"GLU Variants Improve Transformer", eq. 6), (SiLU(x W) * x V) W2 without biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.config import check_types
from research.model.kernels.dropout import dropout
from research.model.norms import Norm, build_norm
from research.model.transformer_block import (
    FLOAT,
    BlockConfig,
    SoftmaxBlock,
    activate,
    softmax_bytes,
)

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class LiGR(BlockConfig):
    """Pre-norm, with a learned gate on what attention and the feed-forward part add (LiGR)."""

    swiglu: bool = True
    """Whether the feed-forward part is SwiGLU, which does not read `encoder.activation`; False: two
    dense layers with biases around that activation. `encoder.feed_forward` is the inner width F of
    both."""
    norm: Norm = "layer"
    """The norm before each part: layer, bare (LayerNorm without gain and shift), rms."""

    def __post_init__(self) -> None:
        check_types(self)

    def build(self, config: TransformerConfig) -> LiGRBlock:
        """One block."""
        return LiGRBlock(self, config)

    def activation_bytes(
        self, config: TransformerConfig, tokens: int, rows: int, longest: int
    ) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that one block in fp32 keeps for its backward pass.

        Hidden states are T (12 D + 4 F) + S L 3 D numbers with SwiGLU; without it 2 F replaces
        4 F. Dropout inside the feed-forward part adds T F. Scores are those of softmax attention.
        """
        inner = config.feed_forward * (4 if self.swiglu else 2)
        if config.dropouts.inner:
            inner += config.feed_forward
        states = tokens * (12 * config.width + inner) + rows * longest * 3 * config.width
        return {"hidden states": FLOAT * states, **softmax_bytes(config, rows, longest)}


class LiGRBlock(SoftmaxBlock):
    """A pre-norm block whose sub-layers are gated by their input (see `LiGR`)."""

    def __init__(self, block: LiGR, config: TransformerConfig) -> None:
        super().__init__(config)
        self.block = block
        width, inner = config.width, config.feed_forward
        self.attention_norm = build_norm(block.norm, width, config.norm_eps)
        self.attention_gate = nn.Linear(width, width)
        self.feed_forward_norm = build_norm(block.norm, width, config.norm_eps)
        self.feed_forward_gate = nn.Linear(width, width)
        # With SwiGLU, W and V are one layer: W's outputs come first.
        self.inner = nn.Linear(width, 2 * inner if block.swiglu else inner, bias=not block.swiglu)
        self.outer = nn.Linear(inner, width, bias=not block.swiglu)

    def before_attention(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """The residual, which the gate reads too, is x; query, key and value come from norm(x)."""
        return x_TD, self.qkv(self.attention_norm(x_TD))

    def after_attention(self, residual_PD: Tensor, attended_PHK: Tensor) -> Tensor:
        """[P, D]: the block's output z, after both gated residual sums."""
        gate_PD = torch.sigmoid(self.attention_gate(residual_PD))
        x_PD = residual_PD + gate_PD * self.project_attention(attended_PHK)
        gate_PD = torch.sigmoid(self.feed_forward_gate(x_PD))
        return x_PD + gate_PD * self.feed_forward(self.feed_forward_norm(x_PD))

    def feed_forward(self, x_PD: Tensor) -> Tensor:
        """[P, D] -> [P, D]: SwiGLU or two dense layers, on each token alone."""
        inner_PE = self.inner(x_PD)
        if self.block.swiglu:
            gate_PF, value_PF = inner_PE.chunk(2, dim=-1)
            inner_PF = F.silu(gate_PF) * value_PF
        else:
            inner_PF = activate(inner_PE, self.config.activation)
        inner_PF = dropout(inner_PF, self.dropouts.inner, self.training)
        return dropout(self.outer(inner_PF), self.dropouts.hidden, self.training)

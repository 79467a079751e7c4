"""The transformer backbone: embeddings, then a stack of blocks, then states of the tokens read.

Choices in which papers differ are fields of `TransformerConfig`. Whether attention is bidirectional
or causal is an argument of each call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from research.errors import InputError
from research.model.backbone import Backbone
from research.model.compute import ComputeConfig, begin_compiling
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.model.kernels.dropout import dropout
from research.model.positions import Positions
from research.model.transformer_block import Block
from research.packed import Packed

if TYPE_CHECKING:
    from research.model.transformer_config import TransformerConfig

# By parameter path, the name that keys its initial weights where it is not the path: a parameter
# keeps the name, and so the weights, that it was first drawn by.
INITIAL_WEIGHT_NAMES = {"positions.weight": "position_table.weight"}


class TransformerEncoder(Backbone):
    """A stack of transformer blocks over an item table."""

    config: TransformerConfig
    traceable = True

    def __init__(self, config: TransformerConfig, item_table: ItemTable, seed: int) -> None:
        super().__init__(config, item_table)
        self.positions = config.positions.build(config)
        biases = type(self.positions).bias is not Positions.bias
        if biases is not config.positions.biases_scores:
            raise InputError(
                f"{type(self.positions).__name__} has {'a' if biases else 'no'} bias, but "
                f"biases_scores of {type(config.positions).__name__} is "
                f"{config.positions.biases_scores}; they must say the same"
            )
        added = type(self.positions).added_embeddings is not Positions.added_embeddings
        if not (added or config.block.attends):
            raise InputError(
                f"encoder.positions is {type(config.positions).__name__}, which acts on attention, "
                f"but encoder.block {type(config.block).__name__} has none; choose LearnedPositions"
            )
        if config.segments:
            self.segment_table = nn.Embedding(config.segments, config.width)
        if config.embedding_norm:
            self.embedding_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.blocks = nn.ModuleList(config.block.build(config) for _ in range(config.layers))
        if config.final_norm:
            self.final_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.embedding_dropout = config.dropouts.embedding
        stds = {
            f"blocks.{number}.{name}": std
            for number, block in enumerate(self._blocks())
            for name, std in block.initial_stds.items()
        }
        initialize(
            self,
            config.init_std,
            seed,
            "encoder",
            names=INITIAL_WEIGHT_NAMES,
            stds=stds,
            skip=[item_table],
        )
        self.recompute = False

    def parts_to_shard(self) -> Sequence[nn.Module]:
        """The blocks."""
        return self._blocks()

    def use_compute(self, compute: ComputeConfig) -> None:
        """Apply `compute` to all training from now on; parameters and their names do not change."""
        self.recompute, self.compiles = compute.recompute, compute.compile
        for block in self._blocks():
            block.compiles = compute.compile
        if compute.compile:
            begin_compiling()

    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """Hidden states [T, D] of all tokens, or [P, D] of the tokens with the indices `read_P`.

        With `read_P`, the last block uses the other tokens only as keys and values of attention.
        """
        assert packed.longest <= self.config.length, "a view longer than encoder.length"
        x_TD = self._embed(packed)
        *earlier, last = self._blocks()
        for block in earlier:
            x_TD = self._apply_block(block, x_TD, packed, causal, None)
        x_PD = self._apply_block(last, x_TD, packed, causal, read_P)
        return self.final_norm(x_PD) if self.config.final_norm else x_PD

    def _embed(self, packed: Packed) -> Tensor:
        """[T, D]: the first block's input, the sum of a token's embeddings after norm and dropout.

        Which of these apply is up to the config.
        """
        config = self.config
        x_TD = self.item_table.lookup(packed.items_T)
        if config.embedding_scale:
            x_TD = x_TD * math.sqrt(config.width)
        added_TD = self.positions.added_embeddings(packed)
        if added_TD is not None:
            x_TD = x_TD + added_TD
        if config.segments:
            segments_T = packed.fields.get("segment")
            if segments_T is None:
                segments_T = torch.zeros_like(packed.items_T)
            x_TD = x_TD + self.segment_table(segments_T)
        if config.embedding_norm:
            x_TD = self.embedding_norm(x_TD)
        return dropout(x_TD, self.embedding_dropout, self.training)

    def _apply_block(
        self, block: Block, x_TD: Tensor, packed: Packed, causal: bool, read_P: Tensor | None
    ) -> Tensor:
        """[T, D] or [P, D]: the block's output.

        With `recompute`, only the block's input is kept for the backward pass.
        """
        states_PD: Tensor
        inputs = packed, self.positions
        if self.recompute and self.training and torch.is_grad_enabled():
            # Recomputed dropout repeats its draws, as torch keeps the generator's state as well.
            states_PD = checkpoint(
                block, x_TD, *inputs, causal=causal, read_P=read_P, use_reentrant=False
            )
        else:
            states_PD = block(x_TD, *inputs, causal=causal, read_P=read_P)
        return states_PD

    def _blocks(self) -> list[Block]:
        blocks: list[Block] = []
        for block in self.blocks:
            assert isinstance(block, Block)
            blocks.append(block)
        return blocks

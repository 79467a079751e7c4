"""A second backbone, as a researcher would add it: GRU4Rec (Hidasi et al. 2016), one layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from research.model.backbone import Backbone, BackboneConfig, Direction, count_parameters
from research.model.initial import initialize
from research.model.item_table import ItemTable
from research.packed import Packed


@dataclass(frozen=True, kw_only=True)
class GRUConfig(BackboneConfig):
    """A recurrent layer over item embeddings."""

    length: int = 5
    """Longest history that is read, in items."""
    width: int = 4
    """Width D of states and item embeddings."""
    init_std: float = 0.1
    """Standard deviation of initial weights."""

    @property
    def directions(self) -> tuple[Direction, ...]:
        """From the oldest item to the newest."""
        return ("causal",)

    def build(self, item_table: ItemTable, seed: int) -> GRU:
        """The module."""
        return GRU(self, item_table, seed)

    def num_parameters(self, num_items: int) -> int:
        """Item table and gates."""
        gates = count_parameters(lambda: nn.GRU(self.width, self.width))
        return self.width * (num_items + 1) + gates

    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """Three gates, their inputs and the states."""
        return {"gates": 4 * tokens * 8 * self.width}


class GRU(Backbone):
    """States of a GRU that has read a token and all before it."""

    def __init__(self, config: GRUConfig, item_table: ItemTable, seed: int) -> None:
        super().__init__(config, item_table)
        self.gru = nn.GRU(config.width, config.width)
        initialize(self, config.init_std, seed, "encoder", skip=[item_table])

    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """[T, D] or [P, D]."""
        assert causal
        x_TD = self.item_table.lookup(packed.items_T)
        rows = [row for row in x_TD.split(packed.lengths_S.tolist()) if len(row)]
        if rows:
            states, _ = self.gru(pack_sequence(rows, enforce_sorted=False))
            x_TD = torch.cat(unpack_sequence(states))
        return x_TD if read_P is None else x_TD.index_select(0, read_P)

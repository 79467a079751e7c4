"""`Padded`: a batch whose sequences all have as many slots, for export to other programs.

A file of ONNX or of `torch.export` takes a table of histories, and its operations cannot depend on
how long each of them is. A backbone that is `traceable` encodes such a table by its own forward
pass and its own parameters; only attention asks `Packed.padded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from research.packed import Packed
from research.rectangles import Rectangle, Rectangles


@dataclass(frozen=True, eq=False, kw_only=True)
class Padded(Packed):
    """B sequences of L slots each: first a sequence's tokens, oldest first, then its padding.

    Slot l of sequence b is token b L + l. No state of a token depends on padding; the states of
    padding mean nothing. All tokens are read, and there are no fields.
    """

    lengths_B: Tensor
    """int64 [B]: the number of tokens of each sequence, at least 1; the rest of its slots are
    padding."""

    padded: ClassVar[bool] = True

    @staticmethod
    def of_table(items_BL: Tensor, lengths_B: Tensor) -> Padded:
        """The batch of a table, int64 [B, L]; row b has `lengths_B[b]` tokens (int64 [B], from 1).

        Padding may be any id of the item table.
        """
        rows, slots = items_BL.shape
        numbers_L = torch.arange(slots, device=items_BL.device)
        # A slot of padding takes the newest token's position, as positions have no others.
        positions_BL = torch.minimum(numbers_L, (lengths_B - 1)[:, None])
        offsets = torch.arange(rows + 1, device=items_BL.device) * slots
        return Padded(
            items_BL.flatten(), positions_BL.flatten(), offsets, slots, lengths_B=lengths_B
        )

    @property
    def lengths_S(self) -> Tensor:
        """int64 [B]: the number of tokens of each sequence."""
        return self.lengths_B

    @cached_property
    def owner_T(self) -> Tensor:
        """int64 [B L]: the number of the sequence of each slot."""
        rows_B = torch.arange(self.num_sequences, device=self.offsets.device)
        return rows_B[:, None].expand(-1, self.longest).flatten()

    @cached_property
    def last_S(self) -> Tensor:
        """int64 [B]: index of each sequence's newest token."""
        return self.offsets[:-1] + self.lengths_S - 1

    @cached_property
    def rectangles(self) -> Rectangles:
        """The table itself, as the one rectangle of all sequences."""
        slots_BL = torch.arange(self.num_tokens, device=self.offsets.device)
        slots_BL = slots_BL.unflatten(0, (self.num_sequences, self.longest))
        rectangle = Rectangle(
            slots_BL, slots_BL, self.lengths_S, True, self.positions_T, self.fields
        )
        return Rectangles((rectangle,), (slots_BL,), self.num_tokens, self.num_tokens)

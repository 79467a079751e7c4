"""`Packed`, the only form of a batch: sequences laid end to end, without padding.

The loader makes it, corruptions change it, and the encoder reads it. Only what mixes tokens pads,
inside itself: attention (`research/rectangles.py`), and GRU4Rec's layers on an accelerator. No id
stands for padding (docs/pitfalls.md, "padding id is a real item").

Shape letters, used as suffixes everywhere:

- T tokens, S sequences, R rows of the batch, L length of the longest sequence, P tokens that a
  corruption picks or whose states are read.
- D width of the hidden states, F inner width of a layer, H heads, K width of a head, E width of a
  projection inside a block.
- V items of the catalogue, A attributes, U users, N negatives or entries of any other list.
- In attention: B rows of a rectangle, Q its queries.
- In scores over items: R rows of a table, C columns of the scores, E rows that compete beside those
  of the table, Q all candidates that the rows of a step compete with.
- In evaluation: Q questions, G groups of ties. Where objectives are combined: K objectives, E
  elements of a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from research.rectangles import Rectangles, lay_out

# A token that is added to a sequence takes the value of the token before it in these fields, and 0
# in all others.
KEPT_BY_INSERTED = frozenset({"time"})


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences laid end to end.

    Sequence s is `items_T[offsets[s]:offsets[s + 1]]`, oldest item first. A sequence may be empty.
    """

    items_T: Tensor
    """int64 [T]: item ids 0..V-1; V is the mask, which only the encoder's item table knows."""
    positions_T: Tensor
    """int64 [T]: each token's place in its sequence, 0 for the oldest."""
    offsets: Tensor
    """int64 [S + 1]: the index of each sequence's first token; the last entry is T."""
    longest: int
    """Upper bound of the sequences' lengths, on the host, so that no kernel waits for it."""
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    """Further integers of every token, int64 [T] by name: "time" in seconds, "segment"."""

    padded: ClassVar[bool] = False
    """Whether every sequence has `longest` slots, of which the last may be padding: see `Padded` in
    research/model/padded.py. False wherever a model is trained or evaluated."""

    @staticmethod
    def of(
        items_T: Tensor,
        offsets: Tensor,
        longest: int,
        fields: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Packed:
        """The sequences as a `Packed`; positions are counted from 0 in each of them."""
        starts_T = torch.repeat_interleave(
            offsets[:-1], offsets.diff(), output_size=items_T.shape[0]
        )
        positions_T = torch.arange(items_T.shape[0], device=items_T.device) - starts_T
        return Packed(items_T, positions_T, offsets, longest, fields)

    @staticmethod
    def from_lists(
        sequences: Sequence[Sequence[int]],
        fields: Mapping[str, Sequence[Sequence[int]]] = MappingProxyType({}),
    ) -> Packed:
        """Pack lists of item ids; `fields` holds lists of the same lengths for each field."""
        lengths = [len(sequence) for sequence in sequences]
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        laid = {name: _flatten(lists) for name, lists in fields.items()}
        return Packed.of(_flatten(sequences), offsets, max(lengths, default=0), laid)

    @staticmethod
    def cat(parts: Sequence[Packed]) -> Packed:
        """The sequences of several batches end to end, in order.

        Raises `ValueError` unless all batches have the same fields.
        """
        if len(parts) == 1:
            return parts[0]
        names = parts[0].fields.keys()
        for part in parts:
            if part.fields.keys() != names:
                raise ValueError(
                    f"sequences with the fields {sorted(names)} cannot be laid beside sequences "
                    f"with the fields {sorted(part.fields)}; give all of them the same"
                )
        starts = np.cumsum([0, *(part.num_tokens for part in parts)])
        offsets = [part.offsets[:-1] + int(start) for part, start in zip(parts, starts)]
        offsets.append(parts[-1].offsets[-1:] + int(starts[-2]))
        return Packed(
            torch.cat([part.items_T for part in parts]),
            torch.cat([part.positions_T for part in parts]),
            torch.cat(offsets),
            max(part.longest for part in parts),
            {name: torch.cat([part.fields[name] for part in parts]) for name in names},
        )

    @property
    def num_tokens(self) -> int:
        """T, the number of tokens."""
        return self.items_T.shape[0]

    @property
    def num_sequences(self) -> int:
        """S, the number of sequences, empty ones included."""
        return self.offsets.shape[0] - 1

    @cached_property
    def lengths_S(self) -> Tensor:
        """int64 [S]: the number of tokens of each sequence."""
        return self.offsets.diff()

    @cached_property
    def owner_T(self) -> Tensor:
        """int64 [T]: the number of the sequence that each token belongs to."""
        sequences_S = torch.arange(self.num_sequences, device=self.offsets.device)
        return torch.repeat_interleave(sequences_S, self.lengths_S, output_size=self.num_tokens)

    @cached_property
    def last_S(self) -> Tensor:
        """int64 [S]: index of each sequence's newest token; meaningless for an empty one."""
        return self.offsets[1:] - 1

    @cached_property
    def ages_T(self) -> Tensor:
        """int64 [T]: each token's place in its sequence counted from the newest, which has 0."""
        return (
            self.offsets[1:][self.owner_T]
            - 1
            - torch.arange(self.num_tokens, device=self.offsets.device)
        )

    def ranks_within(self, keys_T: Tensor) -> Tensor:
        """int64 [T]: the rank of each token's key within its sequence, 0 for the smallest key.

        Of tokens with equal keys the older one ranks first.
        """
        order_T = torch.argsort(keys_T, stable=True)
        order_T = order_T[torch.argsort(self.owner_T[order_T], stable=True)]
        starts_T = self.offsets[:-1][self.owner_T]
        places_T = torch.arange(self.num_tokens, device=keys_T.device)
        # After sorting by sequence, a sequence's tokens fill the same indices as before.
        return torch.empty_like(order_T).index_copy(0, order_T, places_T) - starts_T

    @cached_property
    def rectangles(self) -> Rectangles:
        """The padded layout for attention that reads every token; computed once for all layers."""
        return lay_out(self)

    def newest(self, length: int) -> Packed:
        """The newest `length` tokens of every sequence, with positions counted from 0.

        Returns the batch itself where `longest` is no more than that.
        """
        if self.longest <= length:
            return self
        return self.keep(self.ages_T < length, self.lengths_S.clamp(max=length), length)

    def keep(self, kept_T: Tensor, lengths_S: Tensor, longest: int) -> Packed:
        """The tokens where `kept_T` (bool [T]) is true, with positions counted from 0.

        `lengths_S` (int64 [S]) says how many are true in each sequence, and no sequence keeps more
        than `longest`.
        """
        tokens_P = kept_T.nonzero()[:, 0]
        offsets = torch.cat([self.offsets[:1], lengths_S.cumsum(0)])
        fields = {name: values_T[tokens_P] for name, values_T in self.fields.items()}
        return Packed.of(self.items_T[tokens_P], offsets, longest, fields)

    def select(self, sequences_N: Tensor) -> Packed:
        """The sequences with these numbers (int64 [N]) in this order; positions are kept."""
        lengths_N = self.lengths_S[sequences_N]
        offsets = torch.cat([self.offsets[:1], lengths_N.cumsum(0)])
        shifts_N = self.offsets[:-1][sequences_N] - offsets[:-1]
        shifts_P = torch.repeat_interleave(shifts_N, lengths_N)
        tokens_P = torch.arange(len(shifts_P), device=shifts_P.device) + shifts_P
        return Packed(
            self.items_T[tokens_P],
            self.positions_T[tokens_P],
            offsets,
            self.longest,
            {name: values_T[tokens_P] for name, values_T in self.fields.items()},
        )

    def between(self, sequences: tuple[int, int], tokens: tuple[int, int]) -> Packed:
        """Neighbouring sequences, given by the number of the first and that after the last.

        `tokens` has the index of their first token and that of the token after their last.
        """
        (first, last), (begin, end) = sequences, tokens
        return Packed(
            self.items_T[begin:end],
            self.positions_T[begin:end],
            self.offsets[first : last + 1] - begin,
            self.longest,
            {name: values_T[begin:end] for name, values_T in self.fields.items()},
        )

    def append(self, item: int) -> Packed:
        """Every sequence with `item` as its newest token, such as the mask that asks for the next.

        The new token takes the time of the token before it, 0 in an empty sequence; its other
        fields are 0. Positions are counted from 0.
        """
        sequences_S = torch.arange(self.num_sequences, device=self.offsets.device)
        offsets = self.offsets + torch.arange(len(self.offsets), device=self.offsets.device)
        places_T = torch.arange(self.num_tokens, device=self.offsets.device) + self.owner_T
        ends_S = self.offsets[1:] + sequences_S

        def longer(values_T: Tensor, last_S: Tensor) -> Tensor:
            longer_T = values_T.new_empty(self.num_tokens + self.num_sequences)
            return longer_T.index_copy(0, places_T, values_T).index_copy(0, ends_S, last_S)

        items_T = longer(self.items_T, torch.full_like(sequences_S, item))
        fields = {}
        for name, values_T in self.fields.items():
            last_S = torch.zeros_like(sequences_S)
            if name in KEPT_BY_INSERTED and self.num_tokens:
                last_S = torch.where(self.lengths_S > 0, values_T[self.last_S], last_S)
            fields[name] = longer(values_T, last_S)
        return Packed.of(items_T, offsets, self.longest + 1, fields)

    def with_fields(self, names: Iterable[str]) -> Packed:
        """The same sequences with all of these fields; those that were absent are 0."""
        absent = {name: torch.zeros_like(self.items_T) for name in names if name not in self.fields}
        return replace(self, fields={**self.fields, **absent}) if absent else self

    def with_items(self, items_T: Tensor) -> Packed:
        """The same sequences with other items; positions and fields are kept."""
        return replace(self, items_T=items_T)

    def to(self, device: torch.device) -> Packed:
        """The same batch on another device."""
        if self.items_T.device == device:
            return self
        return Packed(
            self.items_T.to(device, non_blocking=True),
            self.positions_T.to(device, non_blocking=True),
            self.offsets.to(device, non_blocking=True),
            self.longest,
            {
                name: values_T.to(device, non_blocking=True)
                for name, values_T in self.fields.items()
            },
        )


def _flatten(lists: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([value for values in lists for value in values]).long()

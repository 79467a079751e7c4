"""`Packed`, the only shape of a batch: sequences laid end to end, with no padding.

Sits between the loader and the encoder. A position that does not exist is never computed; only
attention lays sequences out in rectangles.

Legend of shape letters, used as suffixes everywhere: T tokens, S sequences, R rows of the batch, L
the longest sequence, D width, F inner width, H heads, K width of a head, V items of the catalogue,
A attributes, N negatives or other lists of one length, P tokens that are read or picked. In
attention B rows of a rectangle and Q its queries. In scores C columns, R rows of a table, E further
rows, and Q what all rows of a step compete with. Q questions and U users in evaluation, G groups of
ties. K objectives where a step sums over them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from research.rectangles import Rectangles, lay_out

# Fields of which a token that is put into a sequence takes the newest value; it has 0 of others.
KEPT_BY_INSERTED = frozenset({"time"})


@dataclass(frozen=True, eq=False)
class Packed:
    """Sequences laid end to end.

    Sequence s is `items_T[offsets[s]:offsets[s + 1]]`, oldest first. Sequences may be empty.
    """

    items_T: Tensor
    """int64 [T]: item ids 0..V-1; V, known to the encoder alone, is the mask."""
    positions_T: Tensor
    """int64 [T]: place in the history, counted from the oldest, 0-based."""
    offsets: Tensor
    """int64 [S + 1]: where each sequence begins; the last entry is T."""
    longest: int
    """Length of the longest sequence, or more, on the host, so that no kernel waits for it."""
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    """By name int64 [T], further integers of every token ("time" in seconds, "segment")."""

    @staticmethod
    def of(
        items_T: Tensor,
        offsets: Tensor,
        longest: int,
        fields: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Packed:
        """Pack sequences whose positions begin at 0."""
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
        """Pack lists of item ids, and beside them lists of other integers of the same lengths."""
        lengths = [len(sequence) for sequence in sequences]
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        laid = {name: _laid_out(lists) for name, lists in fields.items()}
        return Packed.of(_laid_out(sequences), offsets, max(lengths, default=0), laid)

    @staticmethod
    def cat(parts: Sequence[Packed]) -> Packed:
        """Lay the sequences of several batches end to end, in order; all have the same fields."""
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
        """T."""
        return self.items_T.shape[0]

    @property
    def num_sequences(self) -> int:
        """S."""
        return self.offsets.shape[0] - 1

    @cached_property
    def lengths_S(self) -> Tensor:
        """int64 [S]."""
        return self.offsets.diff()

    @cached_property
    def owner_T(self) -> Tensor:
        """int64 [T]: the sequence that each token belongs to."""
        sequences_S = torch.arange(self.num_sequences, device=self.offsets.device)
        return torch.repeat_interleave(sequences_S, self.lengths_S, output_size=self.num_tokens)

    @cached_property
    def last_S(self) -> Tensor:
        """int64 [S]: index of each sequence's newest token; every sequence must be non-empty."""
        return self.offsets[1:] - 1

    @cached_property
    def ages_T(self) -> Tensor:
        """int64 [T]: place in the sequence counted from the newest, 0-based."""
        return (
            self.offsets[1:][self.owner_T]
            - 1
            - torch.arange(self.num_tokens, device=self.offsets.device)
        )

    def ranks_within(self, keys_T: Tensor) -> Tensor:
        """int64 [T]: how many tokens of the same sequence have a smaller key, ties in order."""
        order_T = torch.argsort(keys_T, stable=True)
        order_T = order_T[torch.argsort(self.owner_T[order_T], stable=True)]
        starts_T = self.offsets[:-1][self.owner_T]
        places_T = torch.arange(self.num_tokens, device=keys_T.device)
        # Sorted by sequence, a sequence's tokens stand where they stood, in another order.
        return torch.empty_like(order_T).index_copy(0, order_T, places_T) - starts_T

    @cached_property
    def rectangles(self) -> Rectangles:
        """The padded layout in which attention reads every token; computed once for all layers."""
        return lay_out(self)

    def newest(self, length: int) -> Packed:
        """The newest `length` tokens of every sequence, positions counted anew from 0."""
        if self.longest <= length:
            return self
        return self.keep(self.ages_T < length, self.lengths_S.clamp(max=length), length)

    def keep(self, kept_T: Tensor, lengths_S: Tensor, longest: int) -> Packed:
        """The tokens that a mask names, `lengths_S` [S] of each sequence, positions anew from 0."""
        tokens_P = kept_T.nonzero()[:, 0]
        offsets = torch.cat([self.offsets[:1], lengths_S.cumsum(0)])
        fields = {name: values_T[tokens_P] for name, values_T in self.fields.items()}
        return Packed.of(self.items_T[tokens_P], offsets, longest, fields)

    def select(self, sequences_N: Tensor) -> Packed:
        """The sequences with these numbers (int64), in this order."""
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
        """Neighbouring sequences, (first, past the last), which have these tokens."""
        (first, last), (begin, end) = sequences, tokens
        return Packed(
            self.items_T[begin:end],
            self.positions_T[begin:end],
            self.offsets[first : last + 1] - begin,
            self.longest,
            {name: values_T[begin:end] for name, values_T in self.fields.items()},
        )

    def append(self, item: int) -> Packed:
        """One more token, newest, at the end of every sequence (the mask of a question).

        It has the time of the newest token before it (0: there is none), and segment 0.
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
        """The same sequences, in which every token has these fields: 0 where it had none."""
        absent = {name: torch.zeros_like(self.items_T) for name in names if name not in self.fields}
        return replace(self, fields={**self.fields, **absent}) if absent else self

    def with_items(self, items_T: Tensor) -> Packed:
        """The same sequences with other items in their places."""
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


def _laid_out(lists: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([value for values in lists for value in values]).long()

"""`Packed`, the only shape of a batch: sequences laid end to end, with no padding.

Sits between the loader and the encoder. A position that does not exist is never computed; only
`pad` and `unpad`, used inside attention, lay sequences out in rectangles.

Legend of shape letters, used as suffixes everywhere: T tokens, S sequences, L longest sequence,
D width, H heads, K head width, V items of the catalogue, A attributes, N negatives, P picked
tokens, C slots of a padded layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# A padded rectangle costs this many attention scores in overhead; fewer, larger rectangles win
# below it (measured on two cores: about 0.3 ms a rectangle, forward and backward).
RECTANGLE_OVERHEAD = 30_000
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

    @cached_property
    def rectangles(self) -> Rectangles:
        """The padded layout that attention uses; computed once for all layers."""
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


@dataclass(frozen=True, eq=False)
class Rectangles:
    """A padded layout of a `Packed`: one or more blocks of sequences of similar length."""

    slot_T: Tensor
    """int64 [T]: the slot of each token in the blocks laid end to end."""
    shapes: tuple[tuple[int, int], ...]
    """(sequences, length) of each block."""
    lengths: tuple[Tensor | None, ...]
    """int64 [S_b] of each block: its sequences' lengths; None when all fill the block."""

    @property
    def num_slots(self) -> int:
        """C: slots of all blocks."""
        return sum(sequences * length for sequences, length in self.shapes)


def lay_out(packed: Packed) -> Rectangles:
    """Choose the padded layout: one rectangle on an accelerator, length buckets on a CPU.

    On an accelerator nothing may wait for the lengths, so all sequences share one rectangle.
    """
    if packed.num_tokens == 0:
        return Rectangles(packed.items_T, (), ())
    if packed.offsets.device.type != "cpu":
        starts_T = packed.owner_T * packed.longest - packed.offsets[:-1][packed.owner_T]
        slot_T = starts_T + torch.arange(packed.num_tokens, device=packed.offsets.device)
        return Rectangles(slot_T, ((packed.num_sequences, packed.longest),), (packed.lengths_S,))
    lengths_S = packed.lengths_S.numpy()
    order_S = np.argsort(lengths_S, kind="stable")
    order_S = order_S[np.searchsorted(lengths_S[order_S], 1) :]
    sorted_S = lengths_S[order_S]
    slot_starts_S = np.zeros(len(lengths_S), dtype=np.int64)
    shapes: list[tuple[int, int]] = []
    lengths: list[Tensor | None] = []
    begin = 0
    slots = 0
    for end in bucket_ends(sorted_S):
        longest = int(sorted_S[end - 1])
        shapes.append((end - begin, longest))
        full = sorted_S[begin] == longest
        lengths.append(None if full else torch.from_numpy(sorted_S[begin:end].copy()))
        slot_starts_S[order_S[begin:end]] = slots + np.arange(end - begin) * longest
        slots += (end - begin) * longest
        begin = end
    shift_S = torch.from_numpy(slot_starts_S) - packed.offsets[:-1]
    slot_T = shift_S[packed.owner_T] + torch.arange(packed.num_tokens)
    return Rectangles(slot_T, tuple(shapes), tuple(lengths))


def bucket_ends(sorted_S: np.ndarray) -> list[int]:
    """Where to cut sequences, sorted by length, into rectangles of least total cost.

    Dynamic programming over candidate cuts at lengths in steps of about a fifth; the cost of a
    rectangle is its attention scores, its slots and a fixed overhead.
    """
    if len(sorted_S) == 0:
        return []
    caps = [1]
    while caps[-1] < sorted_S[-1]:
        caps.append(caps[-1] + max(1, caps[-1] // 5))
    cuts = sorted({int(cut) for cut in np.searchsorted(sorted_S, caps, side="right")} - {0})
    best = {0: (0.0, 0)}
    for end in cuts:
        longest = int(sorted_S[end - 1])
        best[end] = min(
            (cost + RECTANGLE_OVERHEAD + (end - begin) * longest * (longest + 64), begin)
            for begin, (cost, _) in best.items()
        )
    ends = [cuts[-1]]
    while best[ends[-1]][1] > 0:
        ends.append(best[ends[-1]][1])
    return ends[::-1]


class _Pad(torch.autograd.Function):
    """[T, ...] -> [C, ...] with zeros in the empty slots; its gradient is `unpad`."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_T: Tensor, slot_T: Tensor, num_slots: int) -> Tensor:
        ctx.slot_T = slot_T  # type: ignore[attr-defined]
        return x_T.new_zeros(num_slots, *x_T.shape[1:]).index_copy_(0, slot_T, x_T)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_C: Tensor) -> tuple[Tensor, None, None]:
        return grad_C.index_select(0, ctx.slot_T), None, None  # type: ignore[attr-defined]


class _Unpad(torch.autograd.Function):
    """[C, ...] -> [T, ...]; its gradient is `pad`."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_C: Tensor, slot_T: Tensor) -> Tensor:
        ctx.slot_T = slot_T  # type: ignore[attr-defined]
        ctx.num_slots = x_C.shape[0]  # type: ignore[attr-defined]
        return x_C.index_select(0, slot_T)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_T: Tensor) -> tuple[Tensor, None]:
        grad_C = grad_T.new_zeros(ctx.num_slots, *grad_T.shape[1:])  # type: ignore[attr-defined]
        return grad_C.index_copy_(0, ctx.slot_T, grad_T), None  # type: ignore[attr-defined]


def pad(x_T: Tensor, rectangles: Rectangles) -> Tensor:
    """[T, ...] -> [C, ...]: every token in its slot, zeros elsewhere."""
    padded: Tensor = _Pad.apply(  # type: ignore[no-untyped-call]
        x_T, rectangles.slot_T, rectangles.num_slots
    )
    return padded


def unpad(x_C: Tensor, rectangles: Rectangles) -> Tensor:
    """[C, ...] -> [T, ...]: the tokens back, what stands in empty slots is dropped."""
    packed: Tensor = _Unpad.apply(x_C, rectangles.slot_T)  # type: ignore[no-untyped-call]
    return packed

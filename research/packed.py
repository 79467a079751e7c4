"""`Packed`, the only shape of a batch: sequences laid end to end, with no padding.

Sits between the loader and the encoder. A position that does not exist is never computed; only
`pad` and `unpad`, used inside attention, lay sequences out in rectangles.

Legend of shape letters, used as suffixes everywhere: T tokens, S sequences, L longest sequence,
D width, H heads, K head width, V items of the catalogue, A attributes, N negatives, P picked
tokens, C slots of a padded layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# A padded rectangle costs this many attention scores in overhead; fewer, larger rectangles win
# below it (measured on two cores: about 0.3 ms a rectangle, forward and backward).
RECTANGLE_OVERHEAD = 30_000


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
    segments_T: Tensor | None = None
    """int64 [T]: segment types, or None when every token is of type 0."""

    @staticmethod
    def of(items_T: Tensor, offsets: Tensor, longest: int) -> Packed:
        """Pack sequences whose positions begin at 0."""
        starts_T = torch.repeat_interleave(
            offsets[:-1], offsets.diff(), output_size=items_T.shape[0]
        )
        positions_T = torch.arange(items_T.shape[0], device=items_T.device) - starts_T
        return Packed(items_T, positions_T, offsets, longest)

    @staticmethod
    def from_lists(sequences: Sequence[Sequence[int]]) -> Packed:
        """Pack lists of item ids."""
        lengths = [len(sequence) for sequence in sequences]
        items_T = torch.tensor([item for sequence in sequences for item in sequence]).long()
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        return Packed.of(items_T, offsets, max(lengths, default=0))

    @staticmethod
    def cat(parts: Sequence[Packed]) -> Packed:
        """Lay the sequences of several batches end to end, in order."""
        if len(parts) == 1:
            return parts[0]
        starts = np.cumsum([0, *(part.num_tokens for part in parts)])
        offsets = [part.offsets[:-1] + int(start) for part, start in zip(parts, starts)]
        offsets.append(parts[-1].offsets[-1:] + int(starts[-2]))
        segments_T = None
        if any(part.segments_T is not None for part in parts):
            segments_T = torch.cat(
                [
                    torch.zeros_like(part.items_T) if part.segments_T is None else part.segments_T
                    for part in parts
                ]
            )
        return Packed(
            torch.cat([part.items_T for part in parts]),
            torch.cat([part.positions_T for part in parts]),
            torch.cat(offsets),
            max(part.longest for part in parts),
            segments_T,
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
        kept_T = self.ages_T < length
        offsets = torch.cat([self.offsets[:1], self.lengths_S.clamp(max=length).cumsum(0)])
        newest = Packed.of(self.items_T[kept_T], offsets, length)
        segments_T = None if self.segments_T is None else self.segments_T[kept_T]
        return replace(newest, segments_T=segments_T)

    def select(self, kept_S: Tensor) -> Packed:
        """The sequences that a mask names, in their order; `longest` stays as an upper bound."""
        kept_T = kept_S[self.owner_T]
        offsets = torch.cat([self.offsets[:1], self.lengths_S[kept_S].cumsum(0)])
        segments_T = None if self.segments_T is None else self.segments_T[kept_T]
        items_T, positions_T = self.items_T[kept_T], self.positions_T[kept_T]
        return Packed(items_T, positions_T, offsets, self.longest, segments_T)

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
            None if self.segments_T is None else self.segments_T.to(device, non_blocking=True),
        )


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

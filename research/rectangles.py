"""Padded layouts of a `Packed`, for attention alone: which token stands where, and who is read.

`Packed.rectangles` holds the layout that serves every layer; the core of attention sees one
`Rectangle` at a time. Shape letters beside those of `packed.py`: B rows of a rectangle, Q queries
of a row, L slots of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from research.packed import Packed

# Scores of a query, at least, on a CPU: torch's softmax takes 240 ns for a row of 15, 17 for 16.
FEWEST_SCORES = 16
# What a rectangle, and each query and each slot of it, cost beside their scores, in scores.
RECTANGLE_COST = 30_000
ROW_COST = 15


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Sequences laid out side by side, one a row, and the tokens whose states attention gives.

    A row's tokens fill its first slots, oldest first; the tokens that are read fill its first
    queries. What is left of slots and queries holds T, which is no token's number.
    """

    slots_BL: Tensor
    """int64 [B, L]: the token in each slot."""
    queries_BQ: Tensor
    """int64 [B, Q]: the tokens that are read."""
    lengths_B: Tensor | None
    """int64 [B]: tokens of each row; None when every slot holds one."""
    reads_all: bool
    """Whether every token is read, so that query q stands in slot q, and Q = L."""
    positions_T: Tensor
    """Those of the `Packed`."""
    fields_T: Mapping[str, Tensor]
    """Those of the `Packed`."""

    @cached_property
    def places_BQ(self) -> Tensor:
        """int64 [B, Q]: the slot in which each query stands: its place from the oldest, 0-based.

        No more than a view where every token is read. Behind the queries stands a slot of the row.
        """
        if self.reads_all:
            return self._numbers_L.expand_as(self.queries_BQ)
        places_BQ = self.queries_BQ - self.slots_BL[:, :1]
        return torch.where(self.queries_BQ < len(self.positions_T), places_BQ, 0)

    @cached_property
    def distances_BQL(self) -> Tensor:
        """int64 [B or 1, Q, L]: how many places a key is older than the query; negative: newer."""
        places_BQ = self.places_BQ[:1] if self.reads_all else self.places_BQ
        return places_BQ[..., None] - self._numbers_L

    @cached_property
    def positions_BL(self) -> Tensor:
        """int64 [B, L]: the tokens' positions in their histories; 0 in empty slots."""
        return self._laid_out(self.positions_T)

    @cached_property
    def fields(self) -> Mapping[str, Tensor]:
        """int64 [B, L] each: the tokens' fields by name; 0 in empty slots."""
        return {name: self._laid_out(field_T) for name, field_T in self.fields_T.items()}

    def visible(self, causal: bool) -> Tensor | None:
        """bool, broadcast to [B, Q, L]: the slots that a query may see; None: all of them.

        For a query that is a token: no empty slot, and under `causal` no newer token than its own.
        """
        return self._no_newer if causal else self._filled

    @cached_property
    def _no_newer(self) -> Tensor:
        # Empty slots stand behind the tokens, so this hides them as well.
        return self.distances_BQL >= 0

    @cached_property
    def _filled(self) -> Tensor | None:
        if self.lengths_B is None:
            return None
        # An empty sequence keeps one slot, so that no softmax is over nothing.
        return self._numbers_L < self.lengths_B.clamp(min=1)[:, None, None]

    @property
    def _numbers_L(self) -> Tensor:
        return torch.arange(self.slots_BL.shape[1], device=self.slots_BL.device)

    def _laid_out(self, x_T: Tensor) -> Tensor:
        return F.pad(x_T, (0, 1))[self.slots_BL]


@dataclass(frozen=True, eq=False)
class SlotIndex:
    """Which row of a tensor stands in which slot of the rectangles, both ways."""

    row_of_slot: Tensor
    """int64 [slots]: the row that a slot holds; the number of rows where it is empty."""
    slot_of_row: Tensor
    """int64 [rows]: the slot that holds a row; the number of slots where none does."""

    @staticmethod
    def of(rows: list[Tensor], number: int) -> SlotIndex:
        """`rows` name the row in each slot, one of `number`, or `number` and above: it is empty.

        A row stands in one slot at most.
        """
        row_of_slot = torch.cat(rows).clamp_(max=number)
        slots = torch.arange(len(row_of_slot), device=row_of_slot.device)
        slot_of_row = torch.full((number + 1,), len(slots), device=slots.device)
        return SlotIndex(row_of_slot, slot_of_row.scatter_(0, row_of_slot, slots)[:-1])


@dataclass(frozen=True, eq=False)
class Rectangles:
    """How the sequences of a `Packed` are laid out; those of which nothing is read may be absent.

    The rectangles stand one after the other, each with the queries of its rows, then the keys, then
    the values, each row head by head: as products of matrices want them.
    """

    blocks: tuple[Rectangle, ...]
    """The rectangles."""
    outputs: tuple[Tensor, ...]
    """int64 [B, Q] of each: which output, 0..P-1, is the query's; P behind the queries."""
    num_tokens: int
    """T."""
    num_outputs: int
    """P."""
    order: Tensor | None = None
    """int64: the outputs that were asked for, one by one; None: all, in their order."""
    _indices: dict[int, tuple[SlotIndex, SlotIndex]] = field(default_factory=dict)

    def indices(self, heads: int) -> tuple[SlotIndex, SlotIndex]:
        """Rows [K] of [T, 3, H, K] as queries, keys and values; rows of [P, H, K] as queries alone.

        Computed once for all layers.
        """
        if heads not in self._indices:
            parts: list[Tensor] = []
            for block in self.blocks:
                if not block.reads_all:
                    parts.append(_head_rows(block.queries_BQ, 3, range(1), heads))
                kinds = range(3) if block.reads_all else range(1, 3)
                parts.append(_head_rows(block.slots_BL, 3, kinds, heads))
            outputs = [_head_rows(outputs_BQ, 1, range(1), heads) for outputs_BQ in self.outputs]
            self._indices[heads] = (
                SlotIndex.of(parts, self.num_tokens * 3 * heads),
                SlotIndex.of(outputs, self.num_outputs * heads),
            )
        return self._indices[heads]


def _head_rows(tokens_BN: Tensor, parts: int, kinds: range, heads: int) -> Tensor:
    """The rows [K] of tokens in [T, parts, H, K], for these of the parts: by part, row and head."""
    rows = torch.arange(kinds.start * heads, kinds.stop * heads, device=tokens_BN.device)
    firsts_BN = tokens_BN * (parts * heads)
    return (firsts_BN[:, None] + rows.view(len(kinds), 1, heads, 1)).flatten()


def lay_out(packed: Packed, read_P: Tensor | None = None) -> Rectangles:
    """The layout for the tokens that are read, in any order, some more than once; None: for all."""
    if packed.num_tokens == 0:
        return Rectangles((), (), 0, 0)
    if packed.offsets.device.type == "cpu":
        return by_length(packed, read_P)
    return one_rectangle(packed) if read_P is None else replace(packed.rectangles, order=read_P)


def one_rectangle(packed: Packed) -> Rectangles:
    """All sequences in one rectangle, all of their tokens read: for accelerators.

    There nothing may wait for a length or for what is read; that is selected from the outputs.
    """
    numbers_L = torch.arange(packed.longest, device=packed.offsets.device)
    slots_SL = packed.offsets[:-1, None] + numbers_L
    slots_SL = torch.where(slots_SL < packed.offsets[1:, None], slots_SL, packed.num_tokens)
    block = Rectangle(slots_SL, slots_SL, packed.lengths_S, True, packed.positions_T, packed.fields)
    return Rectangles((block,), (slots_SL,), packed.num_tokens, packed.num_tokens)


def by_length(packed: Packed, read_P: Tensor | None) -> Rectangles:
    """Sequences of similar length together, with queries at what is read alone: for CPUs."""
    tokens, offsets, order = packed.num_tokens, packed.offsets.numpy(), None
    read, read_offsets = np.arange(tokens), offsets
    if read_P is not None:
        read = read_P.numpy()
        if not (np.diff(read) > 0).all():
            read, places = np.unique(read, return_inverse=True)
            order = torch.from_numpy(places)
        read_offsets = np.searchsorted(read, offsets)
    lengths_S, reads_S = np.diff(offsets), np.diff(read_offsets)
    token_of = None if read_P is None else torch.from_numpy(np.append(read, tokens))
    blocks, outputs = [], []
    for rows in buckets(lengths_S, reads_S):
        lengths_B = lengths_S[rows]
        slots_BL = queries_BQ = outputs_BQ = _ragged(offsets[rows], lengths_B, tokens)
        if token_of is not None:
            outputs_BQ = _ragged(read_offsets[rows], reads_S[rows], len(read))
            queries_BQ = token_of[outputs_BQ]
        filled = (lengths_B == slots_BL.shape[1]).all()
        lengths_B = None if filled else torch.from_numpy(lengths_B)
        block = Rectangle(
            slots_BL, queries_BQ, lengths_B, read_P is None, packed.positions_T, packed.fields
        )
        blocks.append(block)
        outputs.append(outputs_BQ)
    return Rectangles(tuple(blocks), tuple(outputs), tokens, len(read), order)


def _ragged(starts_B: np.ndarray, counts_B: np.ndarray, none: int) -> Tensor:
    """int64 [B, most]: in each row so many numbers from its start on, then `none`."""
    numbers = np.arange(counts_B.max())
    rows = np.where(numbers < counts_B[:, None], starts_B[:, None] + numbers, none)
    return torch.from_numpy(rows)


def buckets(lengths_S: np.ndarray, reads_S: np.ndarray) -> list[np.ndarray]:
    """The sequences of each rectangle, such that all cost least; without those of no read token.

    Dynamic programming over the cuts of an order: sequences of which one token is read, then those
    of which more are, both by length in steps of about a third.
    """
    rows = np.flatnonzero(reads_S)
    if len(rows) == 0:
        return []
    caps = [3]
    while caps[-1] < lengths_S.max():
        caps.append(caps[-1] + max(3, caps[-1] // 3))
    rows = rows[np.lexsort((lengths_S[rows], reads_S[rows] > 1))]
    steps = np.searchsorted(caps, lengths_S[rows]) + len(caps) * (reads_S[rows] > 1)
    cuts = np.append(np.flatnonzero(np.diff(steps, prepend=-1)), len(rows))
    longest = np.maximum.reduceat(lengths_S[rows], cuts[:-1]).tolist()
    most = np.maximum.reduceat(reads_S[rows], cuts[:-1]).tolist()
    best = [(0, 0)]
    for end in range(1, len(cuts)):
        slots = queries = 0
        ways = []
        for begin in range(end - 1, -1, -1):
            slots, queries = max(slots, longest[begin]), max(queries, most[begin])
            number = int(cuts[end] - cuts[begin])
            ways.append((best[begin][0] + cost(number, queries, slots), begin))
        best.append(min(ways))
    ends = [len(cuts) - 1]
    while ends[-1] > 0:
        ends.append(best[ends[-1]][1])
    return [rows[cuts[begin] : cuts[end]] for end, begin in pairwise(ends)][::-1]


def cost(rows: int, queries: int, slots: int) -> int:
    """What a rectangle of so many rows costs on a CPU, in attention scores of two heads."""
    scores = queries * max(slots, FEWEST_SCORES)
    return RECTANGLE_COST + rows * (scores + ROW_COST * (queries + slots))

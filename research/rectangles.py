"""Padded layouts of a `Packed` for attention: which token fills which slot, and which are queries.

`Packed.rectangles` holds the layout that serves every layer; a core of attention gets one
`Rectangle` at a time. A sequence is one row of a rectangle: B rows, L slots of a row (keys and
values), Q queries of a row.
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

# On a CPU a query's scores are widened to at least this many, because torch's softmax takes 240 ns
# for a row of 15 scores and 17 ns for a row of 16.
MIN_SCORES = 16
# The fixed cost of a rectangle, and of each of its queries and slots, beside that of the scores.
# The unit is the cost of one attention score of two heads.
RECTANGLE_COST = 30_000
ROW_COST = 15


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Sequences laid out side by side, one a row, and the tokens whose outputs are read.

    A row's tokens fill its first slots, oldest first; the tokens that are read fill its first
    queries. The remaining slots and queries are padding and hold T, which is no token's index.
    """

    slots_BL: Tensor
    """int64 [B, L]: index of the token in each slot; T in an empty slot."""
    queries_BQ: Tensor
    """int64 [B, Q]: index of the token that is each query; T for an empty query."""
    lengths_B: Tensor | None
    """int64 [B]: number of tokens in each row; None where every slot holds a token."""
    reads_all: bool
    """Whether every token is a query, so that Q = L and query q is the token in slot q."""
    positions_T: Tensor
    """int64 [T]: `positions_T` of the `Packed`."""
    fields_T: Mapping[str, Tensor]
    """int64 [T] by name: `fields` of the `Packed`."""

    @cached_property
    def places_BQ(self) -> Tensor:
        """int64 [B, Q]: the slot of each query's token, which is 0 for a row's oldest token.

        An expanded view where every token is read. An empty query has some slot of its row.
        """
        if self.reads_all:
            return self._numbers_L.expand_as(self.queries_BQ)
        places_BQ = self.queries_BQ - self.slots_BL[:, :1]
        return torch.where(self.queries_BQ < len(self.positions_T), places_BQ, 0)

    @cached_property
    def distances_BQL(self) -> Tensor:
        """int64 [B, Q, L]: by how many places each key is older than the query; below 0, newer.

        [1, Q, L] where every token is read, as all rows are alike.
        """
        places_BQ = self.places_BQ[:1] if self.reads_all else self.places_BQ
        return places_BQ[..., None] - self._numbers_L

    @cached_property
    def positions_BL(self) -> Tensor:
        """int64 [B, L]: the position of each slot's token (`Packed.positions_T`); 0 if empty."""
        return self._to_slots(self.positions_T)

    @cached_property
    def fields(self) -> Mapping[str, Tensor]:
        """int64 [B, L] by name: the fields of each slot's token (`Packed.fields`); 0 if empty."""
        return {name: self._to_slots(field_T) for name, field_T in self.fields_T.items()}

    def visible(self, causal: bool) -> Tensor | None:
        """bool, broadcastable to [B, Q, L]: which keys a query may see; None means every key.

        A query sees no empty slot and, under `causal`, no token newer than itself. What is said of
        an empty query does not matter, as its output is dropped.
        """
        return self._no_newer if causal else self._filled

    @cached_property
    def _no_newer(self) -> Tensor:
        # Empty slots come after a row's tokens, so this hides them as well.
        return self.distances_BQL >= 0

    @cached_property
    def _filled(self) -> Tensor | None:
        if self.lengths_B is None:
            return None
        # An empty sequence sees one empty slot, as a softmax over no key is NaN.
        return self._numbers_L < self.lengths_B.clamp(min=1)[:, None, None]

    @property
    def _numbers_L(self) -> Tensor:
        return torch.arange(self.slots_BL.shape[1], device=self.slots_BL.device)

    def _to_slots(self, x_T: Tensor) -> Tensor:
        return F.pad(x_T, (0, 1))[self.slots_BL]


@dataclass(frozen=True, eq=False)
class SlotIndex:
    """Which row of a packed tensor fills which slot of the rectangles, in both directions."""

    row_of_slot: Tensor
    """int64 [slots]: the row in each slot; the number of rows where the slot is empty."""
    slot_of_row: Tensor
    """int64 [rows]: the slot that holds each row; the number of slots where no slot does."""

    @staticmethod
    def of(rows: list[Tensor], number: int) -> SlotIndex:
        """Map slots to rows and rows to slots; the slots, in order, hold the numbers in `rows`.

        `rows` are int64 [slots of a part] each, joined end to end. A number of `number` (how many
        rows there are) or above marks an empty slot. No row may be in two slots.
        """
        row_of_slot = torch.cat(rows).clamp_(max=number)
        slots = torch.arange(len(row_of_slot), device=row_of_slot.device)
        slot_of_row = torch.full((number + 1,), len(slots), device=slots.device)
        return SlotIndex(row_of_slot, slot_of_row.scatter_(0, row_of_slot, slots)[:-1])


@dataclass(frozen=True, eq=False)
class Rectangles:
    """The rectangles that the sequences of a `Packed` are laid out in.

    A sequence without a token that is read may be absent. In memory one rectangle follows another;
    each holds its queries, then its keys, then its values, and in each of them a row's heads one
    after the other, so that matrix products need no copy.
    """

    blocks: tuple[Rectangle, ...]
    """The rectangles."""
    outputs: tuple[Tensor, ...]
    """int64 [B, Q] of each rectangle: which output, 0..P-1, each query gives; P if it is empty."""
    num_tokens: int
    """T, the number of tokens."""
    num_outputs: int
    """P, the number of outputs, which is T where every token is read."""
    order: Tensor | None = None
    """int64: indices of the outputs to return, in that order and possibly more than once; None:
    all P outputs, in their order."""
    _indices: dict[tuple[int, int], tuple[SlotIndex, SlotIndex]] = field(default_factory=dict)

    def indices(self, heads: int, kinds: int = 3) -> tuple[SlotIndex, SlotIndex]:
        """Two indices: one lays tokens out in the rectangles, the other collects their outputs.

        A row is one head of width K. The first index takes rows of [T, 3, H, K] to the slots of
        queries, keys and values, or, if `kinds` is 1, rows of [T, 1, H, K] to the slots of values
        alone; the second takes rows of [P, H, K] to the slots of queries. They are computed once
        for all layers.
        """
        if (heads, kinds) not in self._indices:
            parts: list[Tensor] = []
            for block in self.blocks:
                in_slots = range(kinds)
                if kinds == 3 and not block.reads_all:
                    parts.append(_head_rows(block.queries_BQ, 3, range(1), heads))
                    in_slots = range(1, 3)
                parts.append(_head_rows(block.slots_BL, kinds, in_slots, heads))
            outputs = [_head_rows(outputs_BQ, 1, range(1), heads) for outputs_BQ in self.outputs]
            self._indices[heads, kinds] = (
                SlotIndex.of(parts, self.num_tokens * kinds * heads),
                SlotIndex.of(outputs, self.num_outputs * heads),
            )
        return self._indices[heads, kinds]


def _head_rows(tokens_BN: Tensor, parts: int, kinds: range, heads: int) -> Tensor:
    """int64: indices of the rows of [T, parts, H, K], of width K, that `tokens_BN` have in `kinds`.

    They are ordered by part, then by row B, head and token.
    """
    rows = torch.arange(kinds.start * heads, kinds.stop * heads, device=tokens_BN.device)
    firsts_BN = tokens_BN * (parts * heads)
    return (firsts_BN[:, None] + rows.view(len(kinds), 1, heads, 1)).flatten()


def lay_out(packed: Packed, read_P: Tensor | None = None) -> Rectangles:
    """The layout of a batch for attention that reads the tokens `read_P` (int64 [P]); None: all.

    They may be in any order and repeat. A CPU gets `by_length`, an accelerator `one_rectangle`.
    """
    if packed.num_tokens == 0:
        return Rectangles((), (), 0, 0)
    if packed.offsets.device.type == "cpu":
        return by_length(packed, read_P)
    return one_rectangle(packed) if read_P is None else replace(packed.rectangles, order=read_P)


def one_rectangle(packed: Packed) -> Rectangles:
    """All sequences in one rectangle, with every token as a query: the layout for accelerators.

    Its shape depends on no value on the device, so the host waits for nothing; the outputs that are
    read are selected afterwards.
    """
    numbers_L = torch.arange(packed.longest, device=packed.offsets.device)
    slots_SL = packed.offsets[:-1, None] + numbers_L
    slots_SL = torch.where(slots_SL < packed.offsets[1:, None], slots_SL, packed.num_tokens)
    block = Rectangle(slots_SL, slots_SL, packed.lengths_S, True, packed.positions_T, packed.fields)
    return Rectangles((block,), (slots_SL,), packed.num_tokens, packed.num_tokens)


def by_length(packed: Packed, read_P: Tensor | None) -> Rectangles:
    """Sequences of similar length in one rectangle, with only read tokens as queries: for CPUs."""
    tokens, offsets, order = packed.num_tokens, packed.offsets.numpy(), None
    read, read_offsets = np.arange(tokens), offsets
    if read_P is not None:
        read = read_P.numpy()
        if not (np.diff(read) > 0).all():
            read, index_of_read = np.unique(read, return_inverse=True)
            order = torch.from_numpy(index_of_read)
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
    """int64 [B, largest count]: row b counts up from its start `counts_B[b]` times, then `none`."""
    numbers = np.arange(counts_B.max())
    rows = np.where(numbers < counts_B[:, None], starts_B[:, None] + numbers, none)
    return torch.from_numpy(rows)


def buckets(lengths_S: np.ndarray, reads_S: np.ndarray) -> list[np.ndarray]:
    """The numbers of the sequences in each rectangle, grouped so that the total `cost` is least.

    Sequences without a token that is read are left out. The others are ordered: first those with
    one token that is read, then those with more, each by length in steps of about a third. Dynamic
    programming finds the best places to cut this order.
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
    max_reads = np.maximum.reduceat(reads_S[rows], cuts[:-1]).tolist()
    best = [(0, 0)]
    for end in range(1, len(cuts)):
        slots = queries = 0
        options = []
        for begin in range(end - 1, -1, -1):
            slots, queries = max(slots, longest[begin]), max(queries, max_reads[begin])
            number = int(cuts[end] - cuts[begin])
            options.append((best[begin][0] + cost(number, queries, slots), begin))
        best.append(min(options))
    ends = [len(cuts) - 1]
    while ends[-1] > 0:
        ends.append(best[ends[-1]][1])
    return [rows[cuts[begin] : cuts[end]] for end, begin in pairwise(ends)][::-1]


def cost(rows: int, queries: int, slots: int) -> int:
    """The estimated time of a rectangle on a CPU, in attention scores of two heads."""
    scores = queries * max(slots, MIN_SCORES)
    return RECTANGLE_COST + rows * (scores + ROW_COST * (queries + slots))

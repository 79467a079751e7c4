"""`RankerProgram`: a run's ranker as one function of a table of histories, for other programs.

It takes whole numbers and returns scores, or the best items, by the run's own modules on a padded
batch (`research/model/padded.py`). `model_files.py` traces it into a file and checks the file.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from research.errors import InputError
from research.model.backbone import Backbone
from research.model.padded import Padded
from research.objectives.base import RankingObjective
from research.objectives.ranker import TrainedRanker
from research.packed import Packed

PADDING = -1
"""What follows the items of a history in its row of the table, and names no best item."""


@dataclass(frozen=True)
class Answer:
    """What a program answers."""

    k: int | None = None
    """How many of the best items it returns; None: the scores of all items."""
    keep_seen: bool = False
    """Whether the items of the history are among the best items; only with `k`."""


class RankerProgram(nn.Module):
    """Histories [B, L] in; scores [B, V] out, or the scores and numbers of the k best items."""

    def __init__(self, ranker: TrainedRanker, answer: Answer) -> None:
        """The program of a ranker; `InputError` if it reads a history in a way not known here."""
        super().__init__()
        if not ranker.encoder.traceable:
            raise InputError(
                f"the run's encoder is a {type(ranker.encoder.config).__name__}, which torch "
                "traces for one length of history alone; allowed: a TransformerConfig or a "
                "CaserConfig; export this run with --format safetensors or hub"
            )
        self.longest, self.masked = _reading_of(ranker.objective, ranker.encoder)
        self.answer = answer
        self.head = ranker.objective.head
        self.causal = ranker.objective.corruption.causal
        items = ranker.encoder.item_table
        self.num_items = items.num_items
        rows = self.head.scored_rows(items)
        self.encoder = _with_plain_table(ranker.encoder)
        self.register_buffer("bias_V", None if rows.bias_R is None else rows.bias_R)
        # A table that is the encoder's own is not stored twice.
        with torch.no_grad():
            is_tied = rows.table_RD.data_ptr() == self.encoder.item_table.rows().data_ptr()
        self.register_buffer("table_VD", None if is_tied else rows.table_RD[: self.num_items])
        self.eval()

    bias_V: Tensor | None
    table_VD: Tensor | None

    def forward(self, items_BL: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """From histories, int64 [B, L]: scores [B, V], or scores [B, k] and items int64 [B, k].

        A row holds the numbers of its items, oldest first, then `PADDING`. The best items come
        first; if fewer than k are left, the last ones score minus infinity. Of a row that holds
        no item, or anything else, all scores are NaN and all best items -1.
        """
        is_item_BL = (items_BL >= 0) & (items_BL < self.num_items)
        lengths_B = is_item_BL.sum(1)
        numbers_L = torch.arange(items_BL.shape[1], device=items_BL.device)
        is_before_padding_BL = numbers_L < lengths_B[:, None]
        is_right_BL = (is_item_BL == is_before_padding_BL) & (is_item_BL | (items_BL == PADDING))
        is_history_B = (lengths_B > 0) & is_right_BL.all(1)
        # A row that is no history is encoded as some history; its scores are not given.
        table_BL = torch.where(is_item_BL, items_BL, 0)
        tokens_B = lengths_B.clamp(min=1)
        if self.masked:
            table_BL = F.pad(table_BL, (0, 1))
            numbers_L = torch.arange(table_BL.shape[1], device=table_BL.device)
            is_mask_BL = numbers_L == lengths_B[:, None]
            table_BL = torch.where(is_mask_BL, self.num_items, table_BL)
            tokens_B = lengths_B + 1
        padded = Padded.of_table(table_BL, tokens_B)
        states_TD = self.encoder(padded, causal=self.causal)
        states_BD = self.head.transform(states_TD.index_select(0, padded.last_S))
        scores_BV = F.linear(states_BD, self._scored_VD(), self.bias_V)
        if self.answer.k is not None and not self.answer.keep_seen:
            # What is no item marks one column more, which is cut off again.
            seen_BL = torch.where(is_item_BL, items_BL, self.num_items)
            minus_infinity = torch.full_like(seen_BL, -torch.inf, dtype=scores_BV.dtype)
            scores_BV = F.pad(scores_BV, (0, 1)).scatter(1, seen_BL, minus_infinity)
            scores_BV = scores_BV[:, : self.num_items]
        scores_BV = torch.where(is_history_B[:, None], scores_BV, torch.nan)
        if self.answer.k is None:
            return scores_BV
        best = torch.topk(scores_BV, self.answer.k, dim=1)
        return best.values, torch.where(is_history_B[:, None], best.indices, PADDING)

    def _scored_VD(self) -> Tensor:
        table_VD = self.table_VD
        return self.encoder.item_table.rows()[: self.num_items] if table_VD is None else table_VD


def _reading_of(objective: RankingObjective, encoder: Backbone) -> tuple[int, bool]:
    """(longest, masked): how many items an objective's ranking reads, and whether a mask follows.

    It is found by asking the objective for its view of a history.
    """
    length, mask = encoder.config.length, encoder.num_items
    history = [item % mask for item in range(length + 2)]
    view = objective.ranking_view(Packed.from_lists([history]), length, mask)
    read = view.packed.items_T.tolist()
    masked = read[-1:] == [mask]
    kept = read[:-1] if masked else read
    as_known = kept == history[len(history) - len(kept) :] and not view.packed.fields
    if not kept or not as_known or view.picked_P.tolist() != [len(read) - 1]:
        raise InputError(
            f"the run ranks by {type(objective).__name__}, which reads a history in a way that no "
            "file can hold; export a run that ranks by the newest items, or by a mask after them"
        )
    return len(kept), masked


def _with_plain_table(encoder: Backbone) -> Backbone:
    """The encoder itself, or a copy whose table has plain rows: those that it looks up.

    They include the sums of attributes and the projected vectors.
    """
    items = encoder.item_table
    if items.attributes is None and items.projection is None:
        return encoder
    with torch.no_grad():
        table_RD = items.rows()
        if items.attributes is not None:
            table_RD = items.lookup(torch.arange(len(table_RD), device=items.device))
    # The vectors are not copied, as they may be large.
    projection, items.projection = items.projection, None
    try:
        copied = copy.deepcopy(encoder)
    finally:
        items.projection = projection
    plain = copied.item_table
    plain.weight, plain.mask_row = nn.Parameter(table_RD), None
    plain.attributes = None
    return copied

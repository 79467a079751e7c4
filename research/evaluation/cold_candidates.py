"""The candidate set `cold`: the items that a split holds out are ranked among themselves.

Among all items, one that training never saw competes with items that it saw often. This set asks
whether a ranker tells unseen items apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from research.evaluation.candidates import CandidateSet
from research.evaluation.ranker import Encoded
from research.evaluation.tiles import Questions, count_among_all


@dataclass(frozen=True, eq=False)
class ColdCandidates(CandidateSet):
    """Each held-out item is ranked among all held-out items that are not in its history."""

    items_C: NDArray[np.int64]
    """[C]: the items that the split holds out."""
    name = "cold"

    @property
    def protocol(self) -> dict[str, str]:
        """The set's name and size; the split, which is in the protocol too, decides the items."""
        return {"candidates": self.name, "cold_items": f"{len(self.items_C):,}"}

    def counts(self, encoded: Encoded, questions: Questions, columns: int) -> tuple[Tensor, Tensor]:
        """As in `CandidateSet`, over the held-out items alone."""
        is_other_V = torch.ones(questions.num_items, dtype=torch.bool)
        is_other_V[torch.from_numpy(self.items_C)] = False
        others_V = is_other_V.to(encoded.largest_S.device)
        return count_among_all(_Without(encoded, others_V), questions, columns)


@dataclass(frozen=True, eq=False)
class _Without:
    """Encoded histories in which some items score minus infinity, below every held-out item."""

    encoded: Encoded
    others_V: Tensor
    """bool [V]: the items that do not compete."""

    @property
    def columns(self) -> int:
        """V: whatever further columns there are do not compete."""
        return len(self.others_V)

    @property
    def largest_S(self) -> Tensor:
        """As in `Encoded`."""
        return self.encoded.largest_S

    def scores(self, first: int, last: int) -> Tensor:
        """As in `Encoded`."""
        scores_SC = self.encoded.scores(first, last)
        return scores_SC.masked_fill_(self.others_V[first:last], -torch.inf)

    def scores_of(self, items_SN: Tensor) -> Tensor:
        """As in `Encoded`."""
        return self.encoded.scores_of(items_SN).masked_fill_(self.others_V[items_SN], -torch.inf)

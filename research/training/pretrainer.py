"""One step's forward pass: corrupt once a distinct corruption, encode once a direction, dispatch.

`MultiObjectiveModel` is the module that is wrapped for several processes, so everything
differentiable happens inside its one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.data.loader import Batch
from research.data.windows import WindowsConfig
from research.model.attributes import AttributeTable
from research.model.backbone import Backbone
from research.objectives.base import LossSum, Objective, RankingObjective, View
from research.objectives.item_losses import FullSoftmax, ItemLoss
from research.packed import Packed


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What the objectives of a stage see of a batch, by objective."""

    rows: Mapping[str, Batch]
    """Its clean rows."""
    views: Mapping[str, View]
    """Its corruption of them; equal corruptions of the same rows are one view."""
    counts: Mapping[str, Tensor]
    """Scalar float64: how many things its loss sums."""


class MultiObjectiveModel(nn.Module):
    """An encoder and the objectives of a stage."""

    def __init__(
        self,
        encoder: Backbone,
        objectives: Mapping[str, Objective],
        catalogue: Catalogue,
        own_windows: Mapping[str, WindowsConfig] = MappingProxyType({}),
    ) -> None:
        """`own_windows` are the rules of objectives that do not see the stage's rows, by key."""
        super().__init__()
        self.encoder = encoder
        # Before the objectives, so that a part that several share has one name wherever it serves.
        self.shared = nn.ModuleDict(
            {name: part for each in objectives.values() for name, part in each.shared().items()}
        )
        self.objectives = nn.ModuleDict(objectives)
        self.catalogue = catalogue
        self.own_windows = own_windows

    @property
    def uses_attributes(self) -> bool:
        """Whether the encoder or an objective reads the catalogue's attributes."""
        return any(isinstance(part, AttributeTable) for part in self.modules())

    @property
    def most_negatives(self) -> int:
        """Most negatives that an objective draws for a token; 0: none draws any."""
        drawn = [each.config for each in self.modules() if isinstance(each, ItemLoss)]
        return max(
            (0 if isinstance(each, FullSoftmax) else each.number for each in drawn), default=0
        )

    @torch.no_grad()
    def prepare(self, batch: Batch) -> StepInputs:
        """What each objective sees of a batch: no parameter is read, nothing is encoded."""
        objectives = self._objectives()
        self.catalogue = self.catalogue.to(batch.rows_S.device)
        rows = {name: batch.under(self.own_windows.get(name)) for name in objectives}
        asked = {name: (part.corruption, rows[name]) for name, part in objectives.items()}
        made = {
            (corruption, own): corruption.view(own, self.catalogue)
            for corruption, own in dict.fromkeys(asked.values())
        }
        views = {name: made[asked[name]] for name in objectives}
        counts = {name: part.count(views[name], rows[name]) for name, part in objectives.items()}
        return StepInputs(rows, views, counts)

    def forward(self, seen: StepInputs, *, measured: bool = False) -> dict[str, LossSum]:
        """Each objective's loss of what it sees; measured, its accuracy too."""
        objectives = self._objectives()
        whole = [seen.views[name] for name, part in objectives.items() if part.reads == "all"]
        hidden = self._encode(list(dict.fromkeys(seen.views.values())), whole)
        losses: dict[str, LossSum] = {}
        for name, part in objectives.items():
            view = seen.views[name]
            given = view, hidden[view], seen.rows[name], self.encoder
            losses[name] = LossSum(part(*given), seen.counts[name])
            if measured:
                with torch.no_grad():
                    losses[name] = replace(losses[name], accuracy=part.accuracy(*given))
        return losses

    def losses(self, batch: Batch, *, measured: bool = False) -> dict[str, LossSum]:
        """Each objective's loss on a batch, seen and encoded at once."""
        return self.forward(self.prepare(batch), measured=measured)

    def _objectives(self) -> dict[str, Objective]:
        parts: dict[str, Objective] = {}
        for name, part in self.objectives.items():
            assert isinstance(part, Objective)
            parts[name] = part
        return parts

    def _encode(self, views: list[View], whole: list[View]) -> dict[View, Tensor]:
        """Hidden states [T, D] of each view, from at most two calls of the encoder.

        Of a view that is not among `whole` only the picked tokens are read; the rows of the others
        are NaN, so that an objective that reads one cannot go unnoticed.
        """
        hidden: dict[View, Tensor] = {}
        for causal in (False, True):
            group = [view for view in views if view.causal is causal]
            if not group:
                continue
            packed = Packed.cat([view.packed for view in group])
            sizes = [view.packed.num_tokens for view in group]
            partly = [view not in whole and len(view.picked_P) < size
                      for view, size in zip(group, sizes)]  # fmt: skip
            if any(partly):
                tokens = torch.arange(packed.num_tokens, device=packed.offsets.device).split(sizes)
                read_P = torch.cat(
                    [tokens_T[view.picked_P] if part else tokens_T
                     for tokens_T, view, part in zip(tokens, group, partly)]
                )  # fmt: skip
                states_PD = self.encoder(packed, causal=causal, read_P=read_P)
                nothing_TD = states_PD.new_full((packed.num_tokens, states_PD.shape[1]), torch.nan)
                states_TD = nothing_TD.index_copy(0, read_P, states_PD)
            else:
                states_TD = self.encoder(packed, causal=causal)
            hidden.update(zip(group, states_TD.split(sizes)))
        return hidden


class TrainedRanker:
    """An encoder and one ranking objective, answering as any `Ranker` does."""

    def __init__(self, encoder: Backbone, objective: RankingObjective) -> None:
        self.encoder = encoder
        self.objective = objective

    @torch.no_grad()
    def scores(self, histories: Packed, users_S: Tensor) -> Tensor:
        """[S, V] scores of all items, on the encoder's device."""
        return self.objective.head.scores(self._states(histories), self.encoder)

    @torch.no_grad()
    def candidate_scores(self, histories: Packed, users_S: Tensor, items_SN: Tensor) -> Tensor:
        """[S, N] scores of the given items."""
        device = self.encoder.item_table.device
        states_SD = self._states(histories)
        return self.objective.head.candidate_scores(states_SD, items_SN.to(device), self.encoder)

    def _states(self, histories: Packed) -> Tensor:
        training = self.encoder.training
        self.encoder.eval()
        self.objective.eval()
        try:
            histories = histories.to(self.encoder.item_table.device)
            view = self.objective.ranking_view(histories, self.encoder)
            states_SD: Tensor = self.encoder(view.packed, causal=view.causal, read_P=view.picked_P)
            return states_SD
        finally:
            self.encoder.train(training)
            self.objective.train(training)

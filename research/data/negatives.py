"""Negative items for sampled losses and sampled candidate sets: uniform or by popularity.

Popularity is counted in the training part only, never over ids by rank (T32, T39). Only items
0..V-1 exist to be drawn, so the mask cannot be (T2). By default no item of the user's training
history is drawn, and nothing else is excluded: a held-out item may be, as excluding it would tell
the model of it (T22).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.randomness import below, fold

_ROUNDS = 64


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """How negatives are drawn."""

    distribution: Literal["uniform", "popularity"] = "uniform"
    """Every item alike, or in proportion to training interactions."""
    exclude: Literal["training", "nothing"] = "training"
    """Whether the user's own training items are redrawn (the target is one of them)."""


class Negatives(nn.Module):
    """Draws items as a pure function of random states; holds its tables as buffers."""

    pairs: Tensor
    cumulative_V: Tensor
    log_probability_V: Tensor

    def __init__(self, config: NegativesConfig, catalogue: Catalogue) -> None:
        super().__init__()
        self.config = config
        self.num_items = catalogue.num_items
        weights_V = torch.ones_like(catalogue.counts_V)
        if config.distribution == "popularity":
            weights_V = catalogue.counts_V
        self.register_buffer("pairs", catalogue.pairs, persistent=False)
        self.register_buffer("cumulative_V", weights_V.cumsum(0), persistent=False)
        log_probability_V = (weights_V.double() / weights_V.sum()).log().float()
        self.register_buffer("log_probability_V", log_probability_V, persistent=False)
        self.total = int(weights_V.sum())
        if config.exclude == "training":
            self._check_someone_has_negatives(catalogue, weights_V)

    def _check_someone_has_negatives(self, catalogue: Catalogue, weights_V: Tensor) -> None:
        users = catalogue.pairs // catalogue.num_items
        mass = torch.zeros(catalogue.num_users, dtype=torch.int64).index_add_(
            0, users, weights_V[catalogue.pairs % catalogue.num_items]
        )
        exhausted = int((mass >= self.total).sum())
        if exhausted:
            raise InputError(
                f"negatives.exclude is 'training', but {exhausted} users (dense id "
                f"{int((mass >= self.total).int().argmax())} the first) have interacted with every "
                "item that could be drawn; filter them out or set exclude to 'nothing'"
            )

    def draw(self, states: Tensor, users: Tensor, number: int) -> Tensor:
        """int64 [..., number] items for random states [...] of users [...] (dense ids)."""
        columns = torch.arange(number, device=states.device)
        streams = fold(states[..., None], columns)
        drawn = self._items(streams)
        if self.config.exclude == "nothing":
            return drawn
        owners = users[..., None].expand(drawn.shape)
        for round_number in range(_ROUNDS):
            taken = self.seen(owners, drawn)
            if not bool(taken.any()):
                return drawn
            drawn[taken] = self._items(fold(streams[taken], round_number))
        # A user with almost no item left: walk on from the drawn item to the next free one.
        taken = self.seen(owners, drawn)
        while bool(taken.any()):
            drawn[taken] = self._after(drawn[taken])
            taken = self.seen(owners, drawn)
        return drawn

    def seen(self, users: Tensor, items: Tensor) -> Tensor:
        """bool: whether each item stands in the user's training history."""
        wanted = users * self.num_items + items
        found = torch.searchsorted(self.pairs, wanted).clamp_(max=len(self.pairs) - 1)
        return self.pairs[found] == wanted

    def _items(self, bits: Tensor) -> Tensor:
        places = below(bits, self.total)
        if self.config.distribution == "uniform":
            return places
        return torch.searchsorted(self.cumulative_V, places, right=True)

    def _after(self, items: Tensor) -> Tensor:
        following = (items + 1) % self.num_items
        if self.config.distribution == "uniform":
            return following
        places = torch.cat([self.cumulative_V.new_zeros(1), self.cumulative_V])[following]
        return torch.searchsorted(self.cumulative_V, places % self.total, right=True)

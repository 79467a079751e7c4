"""Negative items for sampled losses and sampled candidate sets: uniform or by popularity.

Popularity is counted in the training part only, never over ids by rank (T32, T39). By default only
items 0..V-1 can be drawn, never the mask (T2), no item of the user's training history is drawn, and
nothing else is excluded: a held-out item may be, as excluding it would tell the model of it (T22).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from research.config import check_types
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.packed import Packed
from research.randomness import below, fold

_ROUNDS = 64


@dataclass(frozen=True, kw_only=True)
class NegativesConfig:
    """How negatives are drawn."""

    distribution: Literal["uniform", "popularity"] = "uniform"
    """Every item alike, or in proportion to training interactions."""
    exclude: Literal["training", "window", "history", "nothing"] = "training"
    """Which items are redrawn (the target is one of them): the user's training items; the row's own
    window alone (S3-Rec's pretraining as published); the user's whole history, held-out items
    included (its fine-tuning as published: a leak by exclusion); none."""
    include_mask: bool = False
    """Whether the mask's row can be drawn like an item (S3-Rec as published, in both stages)."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.include_mask and self.distribution == "popularity":
            raise InputError(
                "negatives.include_mask needs distribution 'uniform': the mask has no popularity"
            )


class Negatives:
    """Draws items as a pure function of random states, on their device."""

    def __init__(self, config: NegativesConfig, catalogue: Catalogue) -> None:
        self.config = config
        self.num_items = catalogue.num_items
        weights_V = torch.ones(catalogue.num_items + config.include_mask, dtype=torch.int64)
        if config.distribution == "popularity":
            weights_V = catalogue.training.counts_V
        histories = catalogue.whole if config.exclude == "history" else catalogue.training
        self.pairs = histories.pairs
        self.cumulative_V = weights_V.cumsum(0)
        self.log_probability_V = (weights_V.double() / weights_V.sum()).log().float()
        self.total = int(weights_V.sum())
        if config.exclude != "nothing":
            self._check_someone_has_negatives(catalogue, weights_V)

    def _check_someone_has_negatives(self, catalogue: Catalogue, weights_V: Tensor) -> None:
        users = self.pairs // self.num_items
        mass = torch.zeros(catalogue.num_users, dtype=torch.int64).index_add_(
            0, users, weights_V[self.pairs % self.num_items]
        )
        exhausted = int((mass >= self.total).sum())
        if exhausted:
            raise InputError(
                f"negatives.exclude is {self.config.exclude!r}, but {exhausted} users (dense id "
                f"{int((mass >= self.total).int().argmax())} the first) have interacted with every "
                "item that could be drawn; filter them out or set exclude to 'nothing'"
            )

    def to(self, device: torch.device) -> Negatives:
        """The same, its tables on another device."""
        if self.pairs.device == device:
            return self
        moved = copy.copy(self)
        moved.pairs, moved.cumulative_V = self.pairs.to(device), self.cumulative_V.to(device)
        return moved

    def draw(
        self, states: Tensor, owners: Tensor, number: int, pairs: Tensor | None = None
    ) -> Tensor:
        """int64 [..., number] items for random states [...] of users [...] (dense ids).

        With exclude 'window', `owners` are rows of a batch and `pairs` its `window_pairs`.
        """
        assert (pairs is not None) is (self.config.exclude == "window")
        columns = torch.arange(number, device=states.device)
        streams = fold(states[..., None], columns)
        drawn = self._items(streams)
        if self.config.exclude == "nothing":
            return drawn
        owners = owners[..., None].expand(drawn.shape)
        for round_number in range(_ROUNDS):
            taken = self.seen(owners, drawn, pairs)
            if not bool(taken.any()):
                return drawn
            drawn[taken] = self._items(fold(streams[taken], round_number))
        # A user with almost no item left: walk on from the drawn item to the next free one.
        taken = self.seen(owners, drawn, pairs)
        while bool(taken.any()):
            drawn[taken] = self._after(drawn[taken])
            taken = self.seen(owners, drawn, pairs)
        return drawn

    def window_pairs(self, windows: Packed) -> Tensor:
        """int64, sorted: row * V + item of every item of a batch's clean windows."""
        return (windows.owner_T * self.num_items + windows.items_T).sort().values

    def seen(self, owners: Tensor, items: Tensor, pairs: Tensor | None = None) -> Tensor:
        """bool: whether each item is excluded for its owner."""
        pairs = self.pairs if pairs is None else pairs
        wanted = owners * self.num_items + items
        if len(pairs) == 0:
            return torch.zeros_like(wanted, dtype=torch.bool)
        found = torch.searchsorted(pairs, wanted).clamp_(max=len(pairs) - 1)
        # The mask, V, would be taken for the next owner's item 0.
        return (pairs[found] == wanted) & (items < self.num_items)

    def _items(self, bits: Tensor) -> Tensor:
        places = below(bits, self.total)
        if self.config.distribution == "uniform":
            return places
        return torch.searchsorted(self.cumulative_V, places, right=True)

    def _after(self, items: Tensor) -> Tensor:
        following = (items + 1) % len(self.cumulative_V)
        if self.config.distribution == "uniform":
            return following
        places = torch.cat([self.cumulative_V.new_zeros(1), self.cumulative_V])[following]
        return torch.searchsorted(self.cumulative_V, places % self.total, right=True)

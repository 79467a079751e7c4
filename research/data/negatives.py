"""Draws negative items for sampled losses and sampled candidate sets, uniformly or by popularity.

Popularity is counted in the training part only (counts must not come from held-out items) and never
derived from ids (which are not sorted by popularity). By default only items 0..V-1 can be drawn
(the mask must not be a negative), and no item of the user's training history. Held-out items can be
drawn: excluding them would tell the model which they are (a leak by exclusion).
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
    """The probability of an item: the same for all, or proportional to its training
    interactions."""
    exclude: Literal["training", "window", "history", "nothing"] = "training"
    """Which items are not drawn: the user's training items (the target is one of them); only the
    items of the row's own window (S3-Rec's pretraining as published); the user's whole history,
    held-out items included (its fine-tuning as published: a leak by exclusion); or every item may
    be drawn."""
    include_mask: bool = False
    """Whether the mask can be drawn like an item (S3-Rec as published, in both stages)."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.include_mask and self.distribution == "popularity":
            raise InputError(
                "negatives.include_mask needs distribution 'uniform': the mask has no popularity"
            )


class Negatives:
    """Draws items as a pure function of random states, on the device of these states.

    Making one raises `InputError` where some user has interacted with every item that can be drawn,
    unless `exclude` is 'nothing'.
    """

    def __init__(self, config: NegativesConfig, catalogue: Catalogue) -> None:
        self.config = config
        self.num_items = catalogue.num_items
        # The mask's id is V (docs/pitfalls.md, "mask drawn as a negative").
        weights_V = torch.ones(catalogue.num_items + config.include_mask, dtype=torch.int64)
        if config.distribution == "popularity":
            weights_V = catalogue.training.counts_V
        # Held-out items may be drawn, unless the published form is asked for (docs/pitfalls.md,
        # "leak by exclusion").
        histories = catalogue.full_histories if config.exclude == "history" else catalogue.training
        self.pairs = histories.pairs
        self.cumulative_V = weights_V.cumsum(0)
        self.log_probability_V = (weights_V.double() / weights_V.sum()).log().float()
        self.total = int(weights_V.sum())
        if config.exclude != "nothing":
            self._check_every_user_has_negatives(catalogue, weights_V)

    def _check_every_user_has_negatives(self, catalogue: Catalogue, weights_V: Tensor) -> None:
        users = self.pairs // self.num_items
        excluded_weight_U = torch.zeros(catalogue.num_users, dtype=torch.int64).index_add_(
            0, users, weights_V[self.pairs % self.num_items]
        )
        num_exhausted = int((excluded_weight_U >= self.total).sum())
        if num_exhausted:
            raise InputError(
                f"negatives.exclude is {self.config.exclude!r}, but {num_exhausted} users (dense "
                f"id {int((excluded_weight_U >= self.total).int().argmax())} the first) have "
                "interacted with every item that could be drawn; filter them out or set exclude "
                "to 'nothing'"
            )

    def to(self, device: torch.device) -> Negatives:
        """The same sampler with its tables on another device."""
        if self.pairs.device == device:
            return self
        moved = copy.copy(self)
        moved.pairs, moved.cumulative_V = self.pairs.to(device), self.cumulative_V.to(device)
        return moved

    def draw(
        self, random_states: Tensor, owners: Tensor, number: int, pairs: Tensor | None = None
    ) -> Tensor:
        """int64 [..., number]: drawn items for random states [...] of users `owners` [...].

        Users are dense ids. With exclude 'window', `owners` has rows of a batch instead, and
        `pairs` is the `window_pairs` of that batch; otherwise `pairs` is None.
        """
        assert (pairs is not None) is (self.config.exclude == "window")
        columns = torch.arange(number, device=random_states.device)
        streams = fold(random_states[..., None], columns)
        drawn = self._items(streams)
        if self.config.exclude == "nothing":
            return drawn
        shape, drawn, streams = drawn.shape, drawn.flatten(), streams.flatten()
        owners = owners[..., None].expand(shape).flatten()

        def excluded_of(places: Tensor) -> Tensor:
            return places[self.is_excluded(owners[places], drawn[places], pairs)]

        # Only what has been drawn again needs another look.
        excluded = self.is_excluded(owners, drawn, pairs).nonzero()[:, 0]
        for round_number in range(_ROUNDS):
            if len(excluded) == 0:
                break
            drawn[excluded] = self._items(fold(streams[excluded], round_number))
            excluded = excluded_of(excluded)
        # Almost every item is excluded for these owners: take the next one that is not.
        while len(excluded):
            drawn[excluded] = self._after(drawn[excluded])
            excluded = excluded_of(excluded)
        return drawn.view(shape)

    def window_pairs(self, windows: Packed) -> Tensor:
        """int64, sorted: row * V + item for every token of a batch's clean windows."""
        return (windows.owner_T * self.num_items + windows.items_T).sort().values

    def is_excluded(self, owners: Tensor, items: Tensor, pairs: Tensor | None = None) -> Tensor:
        """bool, like `items`: whether each item is excluded for its owner.

        `pairs` is sorted and holds owner * V + item; None: those of all users and their histories.
        """
        pairs = self.pairs if pairs is None else pairs
        keys = owners * self.num_items + items
        # The mask has the id V, so its pair would equal that of the next owner and item 0.
        return is_among(pairs, keys) & (items < self.num_items)

    def _items(self, bits: Tensor) -> Tensor:
        draws = below(bits, self.total)
        if self.config.distribution == "uniform":
            return draws
        return torch.searchsorted(self.cumulative_V, draws, right=True)

    def _after(self, items: Tensor) -> Tensor:
        next_items = (items + 1) % len(self.cumulative_V)
        if self.config.distribution == "uniform":
            return next_items
        first_draws = torch.cat([self.cumulative_V.new_zeros(1), self.cumulative_V])[next_items]
        return torch.searchsorted(self.cumulative_V, first_draws % self.total, right=True)


def is_among(sorted_keys: Tensor, keys: Tensor) -> Tensor:
    """bool, like `keys`: whether each of them is one of `sorted_keys` (int64, ascending)."""
    if len(sorted_keys) == 0:
        return torch.zeros_like(keys, dtype=torch.bool)
    nearest = torch.searchsorted(sorted_keys, keys).clamp_(max=len(sorted_keys) - 1)
    return sorted_keys[nearest] == keys

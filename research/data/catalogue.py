"""`Catalogue`: the part of a corpus that models and objectives may see, as tensors.

It holds the sizes, the attributes of items (CSR), and the training histories: item counts for
popularity, pairs of user and item for negatives, pieces of histories for segments. Held-out items
are in `full_histories` alone, which only forms "as published" read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Ranges, Split, flat_indices
from research.storage.records import CoverageRecord


@dataclass(frozen=True, eq=False)
class Histories:
    """One piece of each user's history; each tensor is computed at its first use and kept."""

    corpus_items: NDArray[np.int32]
    """The item of every interaction of the corpus, memory-mapped."""
    ranges: Ranges
    """[R] rows: the pieces, at most one for each user."""
    num_users: int
    num_items: int
    device: torch.device = torch.device("cpu")

    @cached_property
    def items_N(self) -> Tensor:
        """int64 [N]: the item of every interaction in `ranges`, N in all.

        Users are in ascending order, and each user's interactions run from oldest to newest.
        """
        items = self.corpus_items[flat_indices(self.ranges)].astype(np.int64)
        return torch.from_numpy(items).to(self.device)

    @cached_property
    def offsets_U(self) -> Tensor:
        """int64 [U + 1]: index in `items_N` of each user's first item; the last entry is N."""
        lengths = np.zeros(self.num_users + 1, dtype=np.int64)
        lengths[self.ranges.users + 1] = self.ranges.stops - self.ranges.starts
        return torch.from_numpy(np.cumsum(lengths)).to(self.device)

    @cached_property
    def counts_V(self) -> Tensor:
        """int64 [V]: the number of interactions with each item."""
        return torch.bincount(self.items_N, minlength=self.num_items)

    @cached_property
    def pairs(self) -> Tensor:
        """int64, sorted and unique: user * V + item of every interaction."""
        users = np.repeat(self.ranges.users, self.ranges.stops - self.ranges.starts)
        items = self.corpus_items[flat_indices(self.ranges)].astype(np.int64)
        return torch.from_numpy(np.unique(users * self.num_items + items)).to(self.device)

    @cached_property
    def target_keys_M(self) -> Tensor:
        """int64 [M], sorted: item * N + index in `items_N`, of all but each user's first item.

        So the places where an item follows others stand together, in the order of users.
        """
        indices_N = torch.arange(len(self.items_N), device=self.device)
        is_first_N = torch.zeros_like(indices_N, dtype=torch.bool)
        is_first_N[self.offsets_U[:-1][self.lengths_U > 0]] = True
        keys_N = self.items_N * len(indices_N) + indices_N
        return keys_N[~is_first_N].sort().values

    @cached_property
    def lengths_U(self) -> Tensor:
        """int64 [U]: the number of interactions of each user."""
        return self.offsets_U.diff()

    @cached_property
    def longest_first_U(self) -> Tensor:
        """int64 [U]: user ids by decreasing length, of equal lengths the lower id first."""
        return torch.argsort(self.lengths_U, descending=True, stable=True)

    @cached_property
    def places_U(self) -> Tensor:
        """int64 [U]: the place of each user in `longest_first_U`, 0 for the longest."""
        places_U = torch.empty_like(self.longest_first_U)
        places_U[self.longest_first_U] = torch.arange(self.num_users, device=self.device)
        return places_U

    @cached_property
    def longest_of_others_U(self) -> Tensor:
        """int64 [U]: for each user the length of the longest piece of another user.

        There must be at least two users.
        """
        first, second = self.longest_first_U[:2]
        longest_U = self.lengths_U[first].repeat(self.num_users)
        longest_U[first] = self.lengths_U[second]
        return longest_U


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What models and objectives know of items, and of users' training items."""

    num_users: int
    num_items: int
    num_attributes: int
    attribute_offsets: Tensor
    """int64 [V + 1]: item v has `attribute_ids[attribute_offsets[v]:attribute_offsets[v + 1]]`."""
    attribute_ids: Tensor
    """int64 [M]: attribute ids, sorted within each item."""
    training: Histories
    """The training part of the history of each user whom the run, or a stage of it, trains on."""
    full_histories: Histories
    """Each user's whole history with held-out items, only for forms as published, which leak them
    (foreign segments drawn from held-out items, negatives that exclude the whole history)."""
    item_vectors: NDArray[np.float32] | None = None
    """[V, E]: the content vector of each item, mapped into memory; None: the corpus has none."""

    @staticmethod
    def of(corpus: Corpus, split: Split) -> Catalogue:
        """The catalogue of a corpus and the training part of its split, on the CPU."""
        users = np.arange(corpus.num_users, dtype=np.int64)
        everything = Ranges(users, np.asarray(corpus.offsets[:-1]), np.asarray(corpus.offsets[1:]))
        training = Histories(corpus.items, split.training, corpus.num_users, corpus.num_items)
        return Catalogue(
            num_users=corpus.num_users,
            num_items=corpus.num_items,
            num_attributes=corpus.num_attributes,
            attribute_offsets=torch.from_numpy(np.array(corpus.attribute_offsets)),
            attribute_ids=torch.from_numpy(corpus.attribute_ids.astype(np.int64)),
            training=training,
            full_histories=replace(training, ranges=everything),
            item_vectors=corpus.item_vectors,
        )

    def trained_on(self, training: Ranges) -> Catalogue:
        """The same items, for a stage with these rows, which are some of `self.training`'s."""
        if len(training) == len(self.training.ranges):
            return self
        return replace(self, training=replace(self.training, ranges=training))

    def attributes_of(self, items_P: Tensor) -> tuple[Tensor, Tensor]:
        """The attributes of items [P]: (int64 [P + 1] offsets, int64 [M] attribute ids).

        Those of item p are `ids[offsets[p]:offsets[p + 1]]`.
        """
        starts_P = self.attribute_offsets[items_P]
        numbers_P = self.attribute_offsets[items_P + 1] - starts_P
        offsets = F.pad(numbers_P.cumsum(0), (1, 0))
        shifts_M = torch.repeat_interleave(starts_P - offsets[:-1], numbers_P)
        places_M = torch.arange(len(shifts_M), device=items_P.device) + shifts_M
        return offsets, self.attribute_ids[places_M]

    @cached_property
    def coverage(self) -> CoverageRecord:
        """How many items have no attribute, and how many attributes no training item has."""
        numbers_V = self.attribute_offsets.diff()
        seen_V = self.training.counts_V > 0
        is_seen_M = torch.repeat_interleave(seen_V.cpu(), numbers_V.cpu())
        num_seen = len(self.attribute_ids.cpu()[is_seen_M].unique())
        return CoverageRecord(
            items=self.num_items,
            items_without=int((numbers_V == 0).sum()),
            attributes=self.num_attributes,
            never_seen=self.num_attributes - num_seen,
        )

    def to(self, device: torch.device) -> Catalogue:
        """The same catalogue with its tensors on another device."""
        if self.attribute_offsets.device == device:
            return self
        return replace(
            self,
            attribute_offsets=self.attribute_offsets.to(device),
            attribute_ids=self.attribute_ids.to(device),
            training=replace(self.training, device=device),
            full_histories=replace(self.full_histories, device=device),
        )

"""`Catalogue`: the part of a corpus that models and objectives may see, as tensors.

Sizes, the item -> attribute CSR, and what the training part says of items and users: counts for
popularity, and who has interacted with what, for negatives. Nothing held out enters it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import Split, flat_indices, training_counts


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known of items, and of users' training items."""

    num_users: int
    num_items: int
    num_attributes: int
    attribute_offsets: Tensor
    """int64 [V + 1]: item -> attributes CSR."""
    attribute_ids: Tensor
    """int64 [M]: attribute ids, sorted within an item."""
    counts_V: Tensor
    """int64 [V]: training interactions of each item."""
    pairs: Tensor
    """int64, sorted, unique: user * V + item of every training interaction."""

    @staticmethod
    def of(corpus: Corpus, split: Split) -> Catalogue:
        """From a corpus and the training part of its split."""
        training = split.training
        items = corpus.items[flat_indices(training)].astype(np.int64)
        users = np.repeat(training.users, training.stops - training.starts)
        return Catalogue(
            num_users=corpus.num_users,
            num_items=corpus.num_items,
            num_attributes=corpus.num_attributes,
            attribute_offsets=torch.from_numpy(np.array(corpus.attribute_offsets)),
            attribute_ids=torch.from_numpy(corpus.attribute_ids.astype(np.int64)),
            counts_V=training_counts(corpus, split),
            pairs=torch.from_numpy(np.unique(users * corpus.num_items + items)),
        )

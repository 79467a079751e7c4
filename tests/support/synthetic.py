"""Generates corpora, batches and catalogues for the tests; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from research.data import catalogue as data
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus, write_corpus
from research.data.names import Names
from research.data.splits import Ranges
from research.data.windows import Windows
from research.model.backbone import BackboneConfig
from research.model.item_table import ItemTable
from research.packed import Packed
from research.randomness import fold

Histories = Sequence[Sequence[int]]


def markov_histories(
    *, num_users: int, num_items: int, length: int, seed: int, noise: float = 0.1
) -> list[list[int]]:
    """Return histories in which the next item depends on the last one.

    A hidden permutation with one cycle leads from item to item; with probability `noise` a step
    goes to a random item instead. All items are about equally popular, so that a ranking by
    popularity is close to chance. Lengths vary from `length // 2` to `length`.
    """
    draws = np.random.default_rng(seed)
    cycle = draws.permutation(num_items)
    following = np.empty(num_items, dtype=np.int64)
    following[cycle] = np.roll(cycle, -1)
    histories = []
    for _ in range(num_users):
        history = [int(draws.integers(num_items))]
        while len(history) < draws.integers(length // 2, length + 1):
            strays = draws.random() < noise
            history.append(int(draws.integers(num_items) if strays else following[history[-1]]))
        histories.append(history)
    return histories


def write_histories(
    folder: Path,
    histories: Histories,
    *,
    num_items: int,
    timestamps: Histories | None = None,
    attributes: Histories | None = None,
    num_attributes: int = 3,
    item_names: Sequence[str] | None = None,
    vectors: np.ndarray | None = None,
    encoder: str | None = None,
) -> Corpus:
    """Write a corpus of histories of dense ids.

    `vectors` [V, E] are those of the items, made by `encoder`; None: they have none.

    The raw id of user u is `u<u>`, that of attribute a is `a<a>`, and that of item v is `i<v>` or
    the v-th of `item_names`. Without `timestamps` the n-th event of a user is at second n. Without
    `attributes` item v has the single attribute v % `num_attributes`.
    """
    if timestamps is None:
        timestamps = [range(len(history)) for history in histories]
    if attributes is None:
        attributes = [[item % num_attributes] for item in range(num_items)]
    return write_corpus(
        folder,
        name=folder.name,
        items=flat(histories).astype(np.int32),
        offsets=ends(histories),
        timestamps=flat(timestamps),
        attribute_offsets=ends(attributes),
        attribute_ids=flat(attributes).astype(np.int32),
        user_names=Names.from_strings([f"u{user}" for user in range(len(histories))]),
        item_names=Names.from_strings(item_names or [f"i{item}" for item in range(num_items)]),
        attribute_names=Names.from_strings([f"a{each}" for each in range(num_attributes)]),
        item_titles=None,
        options={} if encoder is None else {"vector_encoder": encoder},
        report={},
        item_vectors=None if vectors is None else vectors.astype(np.float32),
    )


def flat(lists: Histories) -> np.ndarray:
    """Return the values of all lists, one list after another, as int64."""
    return np.array([value for each in lists for value in each], dtype=np.int64)


def ends(lists: Histories) -> np.ndarray:
    """Return 0 and the offset at which each of n lists ends, int64 [n + 1]."""
    return np.cumsum([0, *(len(each) for each in lists)])


def all_rows(windows: Windows) -> Ranges:
    """Return the ranges of all rows of an epoch, in the order of their numbers."""
    return windows.ranges(np.arange(windows.num_rows))


def batch_of(
    histories: Histories,
    *,
    length: int,
    users: Sequence[int] | None = None,
    states: torch.Tensor | None = None,
) -> Batch:
    """Return a batch of these windows; sequence s is row s of user s, with the s-th random state.

    `users` and `states` replace the users and the random states.
    """
    rows_S = torch.arange(len(histories))
    users_S = rows_S if users is None else torch.tensor(users).long()
    random_states_S = fold(2718, rows_S) if states is None else states
    return Batch(Packed.from_lists(histories), rows_S, users_S, random_states_S, length)


def catalogue_of(
    histories: Histories,
    num_items: int,
    *,
    held_out: Histories | None = None,
    attributes: Histories | None = None,
    num_attributes: int = 0,
    vectors: np.ndarray | None = None,
) -> Catalogue:
    """Return the catalogue of training histories, which are followed by each user's held-out items.

    `attributes` has a list for each item, `vectors` [V, E] a row; without them items have none.
    """
    held_out = [[] for _ in histories] if held_out is None else held_out
    wholes = [[*known, *hidden] for known, hidden in zip(histories, held_out, strict=True)]
    attributes = [[] for _ in range(num_items)] if attributes is None else attributes
    bounds, known = ends(wholes), np.array([len(each) for each in histories])
    users = np.arange(len(histories))
    whole = data.Histories(
        flat(wholes).astype(np.int32),
        Ranges(users, bounds[:-1], bounds[1:]),
        len(histories),
        num_items,
    )
    return Catalogue(
        num_users=len(histories),
        num_items=num_items,
        num_attributes=num_attributes,
        attribute_offsets=torch.from_numpy(ends(attributes)),
        attribute_ids=torch.from_numpy(flat(attributes)),
        training=replace(whole, ranges=Ranges(users, bounds[:-1], bounds[:-1] + known)),
        full_histories=whole,
        item_vectors=None if vectors is None else vectors.astype(np.float32),
    )


def encoder_of(config: BackboneConfig, num_items: int, seed: int = 0) -> Any:
    """Return a backbone with a new item table and initial weights."""
    table = ItemTable(num_items, config.width, init_std=config.init_std, seed=seed)
    return config.build(table, seed)


def randomize_parameters(module: torch.nn.Module, seed: int = 0, std: float = 0.5) -> None:
    """Draw all parameters from a normal distribution, so that no norm or bias is at 1 or 0."""
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
            parameter.copy_(values * std)

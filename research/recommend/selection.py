"""Which items may be recommended: of some candidates only, without some others, by attribute."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from research.data.corpus import Corpus
from research.errors import InputError
from research.recommend.raw_ids import UnknownPolicy, numbers_of


@dataclass(frozen=True, eq=False)
class Selection:
    """The items that may be recommended."""

    allowed_V: NDArray[np.bool_] | None = None
    """[V]: whether an item may be recommended; None: every item may."""
    unknown: int = 0
    """How many of the ids and attributes given are not in the corpus and were left out."""


def select_items(
    corpus: Corpus,
    *,
    candidates: Collection[str] | None = None,
    exclude: Collection[str] = (),
    attributes: Collection[str] | None = None,
    exclude_attributes: Collection[str] = (),
    unknown: UnknownPolicy = "error",
) -> Selection:
    """The items that may be recommended, by raw ids; the conditions are combined.

    `candidates`: only these items; None: all. `exclude`: not these. `attributes`: only items that
    have at least one of these attributes; None: whatever they have. `exclude_attributes`: no item
    that has one of these. An id or attribute that the corpus does not have raises `InputError`, or
    is left out and counted where `unknown` is "skip". `InputError` also when no item is left.
    """
    named = (exclude, exclude_attributes)
    if candidates is None and attributes is None and not any(map(len, named)):
        return Selection()
    skipped = 0
    allowed_V = np.ones(corpus.num_items, dtype=bool)
    for what, raw_ids, allows in (("candidates", candidates, True), ("exclude", exclude, False)):
        if raw_ids is not None:
            numbers = numbers_of(raw_ids, corpus.item_names, what, unknown)
            skipped += int((numbers < 0).sum())
            named_V = np.zeros(corpus.num_items, dtype=bool)
            named_V[numbers[numbers >= 0]] = True
            allowed_V &= named_V if allows else ~named_V
    for what, names, allows in (
        ("attributes", attributes, True),
        ("exclude_attributes", exclude_attributes, False),
    ):
        if names is not None and (allows or len(names)):
            numbers = numbers_of(names, corpus.attribute_names, what, unknown)
            skipped += int((numbers < 0).sum())
            has_any_V = _have_any(corpus, numbers)
            allowed_V &= has_any_V if allows else ~has_any_V
    if not allowed_V.any():
        raise InputError(
            f"of the {corpus.num_items:,} items of corpus {corpus.name} none is left by the "
            "candidates, exclusions and attributes given; give weaker ones"
        )
    return Selection(allowed_V, skipped)


def _have_any(corpus: Corpus, attributes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool [V]: whether an item has at least one of these attributes."""
    has_M = np.isin(corpus.attribute_ids, attributes)
    before = np.concatenate([[0], np.cumsum(has_M)])
    has_any_V: NDArray[np.bool_] = np.diff(before[corpus.attribute_offsets]) > 0
    return has_any_V

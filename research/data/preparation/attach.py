"""`attach_vectors`: a prepared corpus with the vectors of a file, as a corpus of its own.

It equals, to the fingerprint, what `prepare` makes of the same events with `--item-vectors`, unless
an items file describes items that only the file of vectors makes items (`only_items`): here they
have no titles and attributes. The prepared corpus stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from research.config import non_default_fields
from research.data.corpus import Corpus, write_corpus
from research.data.names import Names
from research.data.preparation.download import checksum
from research.data.preparation.options import MissingVectors, PrepareConfig
from research.data.preparation.vector_files import (
    VECTOR_OPTIONS,
    check_vector_options,
    files_of_vectors,
    vectors_of_items,
)
from research.errors import InputError


def attach_vectors(
    corpus: Corpus,
    path: Path | str,
    out: Path | str,
    *,
    missing: MissingVectors = "error",
    only_items: bool = False,
    encoder: str | None = None,
) -> Corpus:
    """A copy of a prepared corpus in the folder `out`, with the vectors of the file `path`.

        >>> corpus = sf.attach_vectors(corpus, "titles.npz", "data/corpora/shop-titles")

    Args:
        corpus: a prepared corpus without vectors.
        path: the file, as for `sf.PrepareConfig.item_vectors`.
        out: the folder of the new corpus, which names it.
        missing: items that the file lacks: "error", or they have the "mean" of its vectors, or
            "zero".
        only_items: whether items of the file without events become items.
        encoder: name of the encoder that made the vectors.

    Raises:
        InputError: for a wrong file, a corpus that has vectors already, and where `out` holds
            another corpus.
    """
    if corpus.item_vectors is not None:
        raise InputError(
            f"{corpus.folder} has vectors already; attach others to the corpus without them"
        )
    config = PrepareConfig(
        source="",
        item_vectors=str(path),
        missing_vectors=missing,
        vector_only_items=only_items,
        vector_encoder=encoder,
    )
    check_vector_options(config)
    item_names = list(corpus.item_names)
    vectors = vectors_of_items(item_names, config)
    number = len(vectors.further_items)
    given = non_default_fields(PrepareConfig, asdict(config))
    before = corpus.manifest.report
    without = before.get("items_without_attributes")
    report: Mapping[str, object] = {
        **before,
        # Further items have vectors alone.
        **({"items_without_attributes": without + number} if isinstance(without, int) else {}),
        "key": "attached",
        "vector_files": [
            {"name": file.name, "bytes": file.stat().st_size, "md5": checksum(file, "md5")}
            for file in files_of_vectors(config)
        ],
        "vectors": vectors.notes,
    }
    titles = corpus.item_titles
    return write_corpus(
        out,
        name=Path(out).resolve().name,
        items=corpus.items,
        offsets=corpus.offsets,
        timestamps=corpus.timestamps,
        attribute_offsets=np.r_[
            corpus.attribute_offsets, np.repeat(corpus.attribute_offsets[-1:], number)
        ],
        attribute_ids=corpus.attribute_ids,
        user_names=corpus.user_names,
        item_names=Names.from_strings([*item_names, *vectors.further_items]),
        attribute_names=corpus.attribute_names,
        item_titles=None if titles is None else Names.from_strings([*titles, *[""] * number]),
        options={
            **corpus.manifest.options,
            **{name: given[name] for name in VECTOR_OPTIONS if name in given},
        },
        report=report,
        item_vectors=vectors.vectors_VE,
    )

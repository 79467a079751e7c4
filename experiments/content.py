"""Do content vectors of items help, and do they rank items that nobody has taken yet?

Cells: SASRec with embeddings of ids alone, with the projected vectors of titles beside them, and
with the vectors alone. `study`: leave-one-out. `cold`: a tenth of the items is held out with all
events, and ranked among all items and among themselves. Both are on MovieLens-100K, whose titles
are embedded by the static sentence encoder in the package wordllama (256 numbers a title, no
download). `planted`: a generated corpus, in which a title tells the kind of the next item and
nothing else does, with items held out; what an ideal ranker and chance would reach is known.

What the cells cannot tell apart: vectors alone and beside ids differ in the number of parameters,
and no rate or dropout is tuned for either.

Commands (the first writes the corpora, the others train):
    python -m experiments.content
    python -m research study experiments.content
    python -m research study experiments.content.cold
    python -m research study experiments.content.planted
Hardware: any CPU. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from research.data.cold_items import ColdItems
from research.data.corpus import Corpus, write_corpus
from research.data.names import Names
from research.data.preparation.attach import attach_vectors
from research.data.preparation.static_text import ENCODER, embed_titles
from research.model.item_table import ItemTableConfig
from research.randomness import below, fold, seed_of, uniform
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.corpus import open_corpus
from research.studies.study import Study

TITLES, PLANTED = "ml-100k-titles", "planted-titles"
KINDS, OTHER_WORDS, NUMBERS = 20, 50, 32
METRICS = ("hr@10", "ndcg@10", "mrr")


def planted_corpus(
    folder: Path, *, num_users: int = 2000, num_items: int = 1000, length: int = 12, seed: int = 0
) -> Corpus:
    """Write a corpus in which an item's kind tells the kind of the next item, and no more.

    Item v is of kind v % 20, and an item of kind k is followed by one of kind k + 1, each with the
    same probability. Its title is a word for the kind and one of 50 that mean nothing; its vector
    [32] is the mean of the words' random vectors. Users have `length` events.
    """
    states_V = fold(seed_of("planted items", seed), torch.arange(num_items))
    others_V = below(states_V, OTHER_WORDS).numpy()
    kinds_V = np.arange(num_items) % KINDS
    titles = [f"kind{kind} word{other}" for kind, other in zip(kinds_V, others_V, strict=True)]
    words = torch.arange((KINDS + OTHER_WORDS) * NUMBERS)
    table = uniform(fold(seed_of("planted words", seed), words)).view(-1, NUMBERS).numpy() - 0.5
    vectors_VE = (table[kinds_V] + table[KINDS + others_V]) / 2
    states_U = fold(seed_of("planted users", seed), torch.arange(num_users))
    first_U1 = below(states_U, KINDS)[:, None]
    kinds_UL = (first_U1 + torch.arange(length)) % KINDS
    of_kind = below(fold(states_U[:, None], torch.arange(1, length + 1)), num_items // KINDS)
    items_UL = (of_kind * KINDS + kinds_UL).numpy().astype(np.int32)
    return write_corpus(
        folder,
        name=folder.name,
        items=items_UL.ravel(),
        offsets=np.arange(num_users + 1) * length,
        timestamps=None,
        attribute_offsets=np.zeros(num_items + 1, dtype=np.int64),
        attribute_ids=np.zeros(0, dtype=np.int32),
        user_names=Names.from_strings([f"u{user}" for user in range(num_users)]),
        item_names=Names.from_strings([f"i{item}" for item in range(num_items)]),
        attribute_names=Names.from_strings([]),
        item_titles=Names.from_strings(titles),
        options={"source": "planted", "seed": seed, "vector_encoder": "planted words"},
        report={},
        item_vectors=vectors_VE.astype(np.float32),
    )


def cells(base: RunConfig, hidden: int | None = None) -> dict[str, RunConfig]:
    """The base by ids alone, by ids and vectors, and by vectors alone."""
    tables = {
        "ids": ItemTableConfig(),
        "ids + vectors": ItemTableConfig(vectors="beside", projection_width=hidden),
        "vectors": ItemTableConfig(vectors="alone", projection_width=hidden),
    }
    return {name: replace(base, items=items) for name, items in tables.items()}


def with_cold_items(config: RunConfig) -> RunConfig:
    """The config with a tenth of the items held out, ranked among all and among themselves."""
    evaluation = EvaluationConfig(metrics=METRICS, candidates=("full", "cold"))
    return replace(config, split=ColdItems(), evaluation=evaluation)


def study() -> Study:
    """Ids and vectors of titles on MovieLens-100K, leave-one-out."""
    return Study(
        name="content",
        question="Do vectors of titles help, beside ids or in their place?",
        cells={**cells(full_softmax()), "popularity": popularity()},
        base="ids",
        corpora=(TITLES,),
        seeds=(0, 1, 2),
        metrics=METRICS,
    )


def cold() -> Study:
    """The same, with items held out."""
    base = study()
    return replace(
        base,
        name="content-cold",
        question="Do vectors of titles rank films that training never saw?",
        cells={name: with_cold_items(config) for name, config in base.cells.items()},
    )


def planted() -> Study:
    """Held-out items of a corpus in which titles alone tell what comes next."""
    return replace(
        cold(),
        name="content-planted",
        question="Do vectors rank items without events where they tell what comes next?",
        corpora=(PLANTED,),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the two corpora below the data root."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root", default="data", help="folder of prepared corpora")
    options = parser.parse_args(arguments)
    corpora = Path(options.data_root) / "corpora"
    print(planted_corpus(corpora / PLANTED))
    films = open_corpus("ml-100k", options.data_root)
    path = Path(options.data_root) / "vectors" / "ml-100k-titles.npz"
    embed_titles(films, path)
    print(attach_vectors(films, path, corpora / TITLES, encoder=ENCODER))


if __name__ == "__main__":
    main()

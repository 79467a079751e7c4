"""Do a causal SASRec and a bidirectional BERT4Rec beat counting on MovieLens-100K?

Command: make quickstart (or python -m research study experiments.quickstart).
Hardware: two CPU cores, no GPU; time and figures stand in README.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.bert4rec import cloze
from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.data.loader import BatchConfig
from research.objectives.cloze import ClozeConfig, MaskItems
from research.run import RunConfig
from research.study import Study
from research.training.loop import ValidationConfig


def sized(config: RunConfig, epochs: int, dropout: float) -> RunConfig:
    """A baseline at ML-100K's size: length 100, batches of 64 rows, a short schedule."""
    stage = replace(
        config.stages[0],
        batches=BatchConfig(sequences_per_batch=64),
        epochs=epochs,
        validation=ValidationConfig(metric="ndcg@10", every_epochs=5, patience=6),
    )
    encoder = replace(
        config.encoder,
        length=100,
        embedding_dropout=dropout,
        hidden_dropout=dropout,
        attention_dropout=dropout,
    )
    return replace(config, encoder=encoder, stages=(stage,))


def bert4rec() -> RunConfig:
    """Cloze with the last item masked in half of the rows."""
    config = sized(cloze(), 150, 0.2)
    objectives = {"cloze": ClozeConfig(corruption=MaskItems(rate=0.3, mask_last_share=0.5))}
    return replace(config, stages=(replace(config.stages[0], objectives=objectives),))


def study() -> Study:
    """Popularity, transitions, SASRec, BERT4Rec."""
    return Study(
        name="quickstart",
        question="Do SASRec and BERT4Rec beat counting?",
        cells={
            "popularity": popularity(),
            "transitions": transitions(),
            "sasrec": sized(full_softmax(), 60, 0.3),
            "bert4rec": bert4rec(),
        },
        base="popularity",
        corpora=("ml-100k",),
    )

"""What in the encoder matters to cloze? The ablation of the BERT4Rec paper, where fields allow it.

Base `base`: two pre-norm layers, two heads, width 64, length 50, positions counted from the newest
item, dropout 0.2 on embeddings and outputs. The cells vary one factor at a time:
  layers, heads, width (with a feed-forward part four times as wide), inner (the feed-forward part's
  inner width alone), length, positions (the end they are counted from), activation;
  norm=post (BERT4Rec's: on the sum of embeddings and after each residual sum, so none at the end),
  norm=query (SASRec's), norm=embedding-on (on the sum of embeddings too), norm=final-off;
  dropout (on embeddings and outputs), attention-dropout.
The paper's table 5 also removes positions, the feed-forward part, every LayerNorm and the residual
sums; `TransformerConfig` has no fields for these, so they are not here. The paper's dropout row is
`dropout=0`, its L and h rows are `layers` and `heads`, its figure on width is `width`, and its
table on the longest sequence is `length`.

Equal budgets: 1 million tokens a run in batches of 1,600, hence equal steps whatever the length.
Equal tokens are not equal time: four layers or twice the width take about twice as long;
`--budget seconds=40` makes time equal instead. A training this short favours what learns fast, in
particular pre-norm over post-norm: with `--budget tokens=10000000` the answer may differ.

Command: python -m research study experiments.encoder
         python -m research study experiments.encoder --corpora data/corpora/Beauty
Hardware: one CPU thread, no GPU; 10 to 50 s a run on ML-100K, 25 cells with 3 seeds.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from experiments.recipes import SEEDS, cloze
from research.model.transformer_block import PostNorm, QueryNorm
from research.studies.budget import Budget
from research.studies.cells import levels, one_factor
from research.studies.changes import Levels
from research.studies.study import Study

FACTORS: dict[str, Levels] = {
    "layers": levels("encoder.layers", (1, 2, 3, 4)),
    "heads": levels("encoder.heads", (1, 2, 4, 8)),
    "width": {
        str(width): {"encoder.width": width, "encoder.feed_forward": 4 * width}
        for width in (16, 32, 64, 128)
    },
    "inner": levels("encoder.feed_forward", (64, 128, 256)),
    "length": levels("encoder.length", (10, 20, 50, 100)),
    "positions": levels("encoder.positions.count_from", ("newest", "oldest")),
    "activation": levels("encoder.activation", ("gelu", "relu")),
    "norm": {
        "post": {
            "encoder.block": PostNorm(),
            "encoder.embedding_norm": True,
            "encoder.final_norm": False,
        },
        "query": {"encoder.block": QueryNorm()},
        "embedding-on": {"encoder.embedding_norm": True},
        "final-off": {"encoder.final_norm": False},
    },
    "dropout": levels("encoder.dropout", (0, 0.1, 0.2, 0.5)),
    "attention-dropout": levels("encoder.attention_dropout", (0, 0.2)),
}


def study() -> Study:
    """Cells that vary one factor of the encoder at a time."""
    return Study(
        name="encoder",
        question="What in the encoder matters to cloze?",
        cells=one_factor(cloze(), FACTORS),
        base="base",
        seeds=SEEDS,
        budget=Budget(of="tokens", amount=1_000_000),
    )

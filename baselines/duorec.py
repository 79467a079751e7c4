"""DuoRec: next items beside a contrast of inputs with the same target (Qiu et al., WSDM 2022).

Sources: arXiv 2110.05730, and the authors' code (RuihongQiu/DuoRec: the model, `DuoRec.yaml`,
`seq.yaml`). Each prefix of a history is a row whose newest item is predicted by cross-entropy over
all items; 256 rows a step, Adam at 0.001, dropout 0.5, at most 50 epochs, chosen by MRR@10 with a
patience of 10. Both weights of contrasts are 0.1, similarities are inner products, and the
temperature is 1. Their ranking keeps the items of the history (`evaluation.seen=kept`).

Departures: prefixes are those of a user's newest 50 training items, theirs those of the whole
history, with 50 items before the target; a row of one item has no target but is counted among the
256. A positive is never of the row's own user, in the code it may be another prefix of that user's
where the item is repeated. Positions are counted from the newest item, as in BSARec's framework, in
the authors' code from the oldest.

Published: Amazon Beauty HR@10 0.0965, Sports 0.0569 in BSARec's framework, on S3-Rec's files (in
WEARec's table, read in a secondary summary); Beauty HR@5 0.0559, NDCG@5 0.0340, HR@20 0.1193,
NDCG@20 0.0518 with items of the history ranked too (a baseline in the README of MCLRec).
"""

from __future__ import annotations

from research.data.loader import BatchConfig
from research.data.windows import EveryPrefix
from research.model.transformer_config import TransformerConfig
from research.objectives.contrast import ContrastConfig
from research.objectives.dropout_views import DropoutViews
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig


def published() -> RunConfig:
    """The full model (`contrast="us_x"`): an input beside another history with its target."""
    return RunConfig(
        encoder=TransformerConfig(
            length=50, width=64, layers=2, heads=2, feed_forward=256, dropout=0.5
        ),
        stages=(
            StageConfig(
                objectives={
                    "next": NextItemConfig(predict="last"),
                    "contrast": ContrastConfig(weight=0.1, corruption=DropoutViews()),
                },
                windows=EveryPrefix(),
                batches=BatchConfig(sequences_per_batch=256),
                epochs=50,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="mrr@10", patience=10),
            ),
        ),
    )


def unsupervised() -> RunConfig:
    """The unsupervised contrast alone (`contrast="un"`): an input beside itself, by dropout."""
    views = DropoutViews(positive="row")
    return replace_fields(published(), {"stages.0.objectives.contrast.corruption": views})


def without_contrast() -> RunConfig:
    """The same without any contrast, to tell what it adds."""
    objectives = {"next": published().stages[0].objectives["next"]}
    return replace_fields(published(), {"stages.0.objectives": objectives})

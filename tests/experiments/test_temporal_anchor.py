"""The study of "Time to Split": its recipe and its cells are those of the published grid."""

from __future__ import annotations

from dataclasses import replace

from baselines.popularity import PopularityConfig
from experiments.temporal_anchor import SPLIT, sasrec, study
from research.data.splits import AtQuantile, ByLastItem, TemporalCut
from research.model.positions import LearnedPositions
from research.model.transformer_block import QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.losses import FullSoftmax
from research.objectives.next_item import NextItemConfig


def test_the_split_is_the_published_one() -> None:
    assert (
        TemporalCut(
            cut=AtQuantile(quantile=0.9), target="last", validation=ByLastItem(), gap_days=0.0
        )
        == SPLIT
    )


def test_the_recipe_is_the_published_one() -> None:
    config = sasrec(layers=3, heads=2, dropout=0.3)
    assert config.encoder == TransformerConfig(
        length=128, width=64, layers=3, heads=2, feed_forward=64, activation="relu",
        block=QueryNorm(), positions=LearnedPositions(count_from="oldest"), embedding_norm=False,
        embedding_scale=True, final_norm=True, norm_eps=1e-8, dropout=0.3, inner_dropout=0.3,
        attention_output_dropout=0.0,
    )  # fmt: skip
    (stage,) = config.stages
    assert stage.objectives == {"next": NextItemConfig(loss=FullSoftmax())}
    assert (stage.batches.sequences_per_batch, stage.epochs, stage.optimizer.lr) == (256, 300, 1e-3)
    assert stage.validation is not None
    assert (stage.validation.metric, stage.validation.patience) == ("ndcg@10", 10)


def test_cells_differ_by_what_their_names_say_under_one_split() -> None:
    cells = study().cells
    assert {config.split for config in cells.values()} == {SPLIT}
    encoder = cells["sasrec"].encoder
    assert isinstance(encoder, TransformerConfig)
    assert (encoder.layers, encoder.heads, encoder.dropout) == (2, 1, 0.5)
    assert cells["sasrec-3-layers"].encoder == replace(encoder, layers=3)
    assert cells["sasrec-2-heads"].encoder == replace(encoder, heads=2)
    assert cells["pop-7-days"].ranker == PopularityConfig(newest_days=7.0)
    assert study().seeds == (0, 1, 2)

"""Both views learn: where the next item follows from the last, they leave popularity far behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.execute import RunOptions, execute
from research.model.encoder import EncoderConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.item_losses import BinaryCrossEntropy, SampledSoftmax
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.run import EvaluationConfig, RunConfig
from research.training.optim import OptimiserConfig
from research.training.stage import StageConfig

EVALUATION = EvaluationConfig(metrics=("hr@1", "hr@10"))


def hit_rate(corpus: Corpus, path: Path, config: RunConfig) -> float:
    """HR@1 on the test items, among all items."""
    summary = execute(config, path, options=RunOptions(quiet=True))
    test = summary["test"]
    assert isinstance(test, dict)
    return float(test["full"]["hr@1"])


def trained(corpus: Corpus, objective: ObjectiveConfig, epochs: int) -> RunConfig:
    return RunConfig(
        corpus=str(corpus.folder),
        encoder=EncoderConfig(
            length=12, width=32, layers=1, heads=1, feed_forward=32,
            embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
        ),
        stages=(
            StageConfig(
                objectives={"only": objective},
                batches=BatchConfig(sequences_per_batch=32),
                epochs=epochs,
                optimiser=OptimiserConfig(lr=0.01),
                validation=None,
            ),
        ),
        evaluation=EVALUATION,
    )  # fmt: skip


def test_popularity_knows_next_to_nothing_here(markov_corpus: Corpus, tmp_path: Path) -> None:
    config = RunConfig(
        corpus=str(markov_corpus.folder), ranker=PopularityConfig(), evaluation=EVALUATION
    )
    assert hit_rate(markov_corpus, tmp_path, config) < 0.1


# Nine of ten steps follow the chain, so that a perfect ranker hits about 0.9; half of that is five
# times what popularity may reach above.
@pytest.mark.parametrize(
    ("objective", "epochs"),
    [
        (NextItemConfig(), 10),
        (NextItemConfig(loss=BinaryCrossEntropy(number=4)), 20),
        (NextItemConfig(loss=SampledSoftmax(number=16)), 10),
        (ClozeConfig(corruption=MaskItems(rate=0.3, mask_last_share=0.5)), 30),
    ],
    ids=["next", "next by BCE", "next by sampled softmax", "cloze"],
)
def test_an_objective_learns_the_chain(
    markov_corpus: Corpus, tmp_path: Path, objective: ObjectiveConfig, epochs: int
) -> None:
    assert hit_rate(markov_corpus, tmp_path, trained(markov_corpus, objective, epochs)) > 0.5

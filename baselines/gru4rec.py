"""GRU4Rec under the next-item objective, one function for each recipe.

Sources, as in their code: RecBole's GRU4Rec (`gru4rec.py`, `GRU4Rec.yaml`, `overall.yaml`);
Klenitskiy and Vasilev 2023 (antklen/sasrec-bert4rec-recsys23); the authors' PyTorch code
(hidasib/GRU4Rec_PyTorch_Official) of Hidasi et al. 2016 (ICLR) and Hidasi and Karatzoglou 2018
(CIKM). The tables of parameters in these two papers were not at hand and are not checked.

These parts of the original are not implemented: session-parallel mini-batches (see
`research/model/gru.py`), the losses TOP1 and BPR-max, negatives drawn by a power of the popularity,
and Adagrad. Hidasi and Czapp 2023 show on session data how much implementations lose that lack
parts of it, so no recipe here can stand for the original on such data.

Initial weights are ours in all recipes: normal with a standard deviation of 0.02, biases 0. RecBole
and the authors draw the weights of gates by Glorot's rule (standard deviations of 0.06 to 0.07 at
RecBole's sizes), Klenitskiy and Vasilev leave them to torch.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.sasrec import s3rec_block
from research.data.loader import BatchConfig
from research.model.gru import GRUConfig
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax
from research.objectives.next_item import NextItemConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig

RECBOLE = GRUConfig(
    length=50,
    width=64,
    hidden_width=128,
    layers=1,
    gate_biases=False,
    projection=True,
    embedding_dropout=0.3,
    hidden_dropout=0.0,
)


def recbole_network(loss: FullSoftmax | BinaryCrossEntropy) -> RunConfig:
    """RecBole's network, trained as `baselines.sasrec.full_softmax` is, to be compared with it.

    Adam's learning rate, 0.001, and the patience of 10 validations are RecBole's too. In RecBole
    each prefix of a history is a row with one item to predict, and a step has 2,048 such rows (256
    histories of Beauty have about 1,470); it trains 300 epochs and selects by MRR@10.
    """
    return replace(s3rec_block(loss), encoder=RECBOLE)


def full_softmax() -> RunConfig:
    """The strong plain recipe: RecBole's network and its loss, cross-entropy over all items."""
    return recbole_network(FullSoftmax())


def bce() -> RunConfig:
    """`full_softmax` with another loss: BCE with one negative, as in MTandHJ/RecBoard.

    RecBoard's other values for Beauty are not used, so that only the loss differs: embedding
    dropout 0.1, weight decay 1e-8, 512 prefixes a step.
    """
    return recbole_network(BinaryCrossEntropy())


def ml_1m() -> RunConfig:
    """Klenitskiy and Vasilev's GRU4Rec on ML-1M: one layer of width 64, full softmax, 128 rows.

    Their dropout of 0.1 has no effect, as torch applies it only between layers. Their figures are
    on `ml-1m.txt` (3,416 items), not on the archive that `ml-1m` stands for: give `--corpus` a
    folder prepared from it, as experiments/ml_1m.py does.
    """
    return RunConfig(
        corpus="ml-1m",
        encoder=GRUConfig(
            length=200,
            width=64,
            hidden_width=64,
            layers=1,
            gate_biases=True,
            projection=False,
            embedding_dropout=0.0,
            hidden_dropout=0.0,
        ),
        stages=(
            StageConfig(
                objectives={"next": NextItemConfig(loss=FullSoftmax())},
                batches=BatchConfig(sequences_per_batch=128),
                epochs=100,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="ndcg@10", patience=10),
            ),
        ),
    )


def in_batch() -> RunConfig:
    """The authors' network, trained by cross-entropy over the batch's items with logQ subtracted.

    From their `paramfiles/rsc15_xe_shared_100_best.py`: one layer of width 100, one table for input
    and output, a bias for each item, dropout 0.4 on hidden states, logq 1, 32 sequences a step.
    Departures beside those in the module's docstring: none of their 2,048 further negatives is
    drawn; logQ is counted over the step, not over the corpus; a step predicts all items of 32
    windows, not one of each; Adam at 0.001 with the best weights by validation takes the place of
    10 epochs of Adagrad at 0.2 with momentum 0.2.
    """
    return RunConfig(
        encoder=GRUConfig(
            length=50,
            width=100,
            hidden_width=100,
            layers=1,
            gate_biases=True,
            projection=False,
            embedding_dropout=0.0,
            hidden_dropout=0.4,
        ),
        stages=(
            StageConfig(
                objectives={
                    "next": NextItemConfig(
                        loss=InBatchSoftmax(log_q=True), head=HeadConfig(bias=True)
                    )
                },
                batches=BatchConfig(sequences_per_batch=32),
                epochs=200,
                optimizer=OptimizerConfig(lr=1e-3),
                validation=ValidationConfig(metric="ndcg@20", patience=10),
            ),
        ),
    )

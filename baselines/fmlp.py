"""FMLP-Rec (Zhou et al. 2022, arXiv 2202.13556): learned filters of frequencies, no attention.

Source: the authors' code (Woeee/FMLP-Rec). Its rows are every prefix of a user's newest 50 training
items, its loss BCE at the item after the prefix, with one negative that is not in the row. It stops
by MRR among 99 negatives, or by NDCG@20 where all items are ranked, as here.

Departures: the authors' code fills the places before a row with the embedding of a padding id
(research/model/fmlp.py), and trains the first item of a user from such a row alone; here a row of
one item has no target. The files of S3-Rec, on which it is published, are given by `--corpus`.
"""

from __future__ import annotations

from baselines.bsarec import on_every_prefix
from research.data.negatives import NegativesConfig
from research.model.fmlp import FMLP
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax
from research.runs.config import RunConfig


def original() -> RunConfig:
    """As its authors train it: BCE with one negative."""
    loss = BinaryCrossEntropy(negatives=NegativesConfig(exclude="window"))
    return on_every_prefix(FMLP(), heads=1, lr=1e-3, loss=loss)


def full_softmax() -> RunConfig:
    """The same network and rows under the full softmax, as BSARec has it."""
    return on_every_prefix(FMLP(), heads=1, lr=1e-3, loss=FullSoftmax())

"""CL4SRec: SASRec's next item beside a contrast of two augmented views (Xie et al., ICDE 2022).

A step's loss is that of the next item plus lambda = 0.1 times InfoNCE over two views of each of its
rows, each cropped to 60 % of its items, masked by 30 % or reordered in 60 % (`TwoViews`). These
shares and lambda are those of Qiu et al.'s implementation (RuihongQiu/DuoRec: `CL4SRec.yaml`, and
the data loader); the paper chooses them for each data set, in a search that was not at hand. The
encoder and all else are those of `baselines.sasrec`, so that the contrast alone differs from the
recipe of the same name there.

Departures from Qiu et al.'s code: it draws the two operators of a row without replacement, the
paper draws each by itself, as here; and it predicts the last item of each prefix alone, the paper
every item of a history, as here. The paper's inner products have no temperature.

Published, Amazon Beauty in full ranking: HR@5 0.0401, NDCG@5 0.0268, HR@20 0.0974, NDCG@20 0.0428
(a baseline in the README of MCLRec).
"""

from __future__ import annotations

from baselines import sasrec
from research.objectives.contrast import ContrastConfig
from research.overrides import replace_fields
from research.runs.config import RunConfig


def with_contrast(config: RunConfig) -> RunConfig:
    """The run with CL4SRec's contrast beside the objectives of its only stage."""
    return replace_fields(config, {"stages.0.objectives.contrast": ContrastConfig(weight=0.1)})


def bce() -> RunConfig:
    """As published: BCE with one negative for the next item."""
    return with_contrast(sasrec.bce())


def full_softmax() -> RunConfig:
    """With the full softmax for the next item, as in Qiu et al.'s implementation."""
    return with_contrast(sasrec.full_softmax())

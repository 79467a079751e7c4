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
(a baseline in the README of MCLRec and in the figure of ELCRec, whose other baselines are as in
the paper of ICLRec). `iclrec` is that code's recipe (salesforce/ICLRec, its defaults).
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


def iclrec() -> RunConfig:
    """As ICLRec's code has it (Chen et al. 2022): BCE, other shares, states of all tokens compared.

    A crop keeps 20 % of a row's items, 70 % are masked or 20 % reordered; at most 300 epochs, of
    which NDCG@20 chooses, with a patience of 40. Departures: views there are of a row without its
    newest item; masked items become the padding id, which attention does not see, here the mask;
    and the states of padded places are compared too.
    """
    changes = {
        "stages.0.objectives.contrast.states": "all",
        "stages.0.objectives.contrast.corruption.crop_share": 0.2,
        "stages.0.objectives.contrast.corruption.mask_share": 0.7,
        "stages.0.objectives.contrast.corruption.reorder_share": 0.2,
        "stages.0.epochs": 300,
        "stages.0.validation.patience": 40,
    }
    return replace_fields(bce(), changes)

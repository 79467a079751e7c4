"""Configs of objectives, which the tests of all objectives take one by one, and data for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from research.data.negatives import NegativesConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    SampledSoftmax,
)
from research.objectives.map import MAPConfig
from research.objectives.masked_vector import MaskedVectorConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import CutSegment, SPConfig

ITEMS = 12
LENGTH = 6
# Histories: longer than the encoder reads, of one item, empty, of two, and with a repeated item.
# Item 0 is first, last and between.
ROWS = [[0, 1, 2, 3, 4, 5, 6, 0], [7], [], [8, 0], [2, 2, 9]]
# Attributes by item: items 3, 7 and 10 have none, item 2 has all that occur; attribute 1 does not.
ATTRIBUTES = [[0], [2, 3], [0, 2, 3, 4], [], [4], [0, 4], [2], [], [3], [0, 3], [], [2, 4]]
NUM_ATTRIBUTES = 5
VECTORS = np.random.default_rng(11).normal(size=(ITEMS, 3))
POPULAR = NegativesConfig(distribution="popularity")
FREE = NegativesConfig(exclude="nothing")
MASKED = MaskItems(rate=0.4, random_share=0.1, keep_share=0.1, mask_last_share=0.5)
BERT_HEAD = HeadConfig(bias=True, transform="nonlinear")
COSINE = HeadConfig(similarity="cosine", temperature=0.3)
# As in S3-Rec's code, which departs from its paper.
PUBLISHED_MASKS = MaskItems(rate=0.2, mask_last_share=1.0)
OUTSIDE_WINDOW = NegativesConfig(exclude="window", include_mask=True)
CASES: dict[str, ObjectiveConfig] = {
    "next, full softmax": NextItemConfig(),
    "next, own table with bias": NextItemConfig(head=HeadConfig(table="own", bias=True)),
    "next, sampled softmax": NextItemConfig(loss=SampledSoftmax(number=5)),
    "next, sampled softmax, log q": NextItemConfig(
        loss=SampledSoftmax(number=5, log_q=True, negatives=POPULAR), head=BERT_HEAD
    ),
    "next, sampled softmax, shared": NextItemConfig(
        loss=SampledSoftmax(number=3, share="sequence")
    ),
    "next, BCE": NextItemConfig(loss=BinaryCrossEntropy()),
    "next, BCE with three negatives": NextItemConfig(
        loss=BinaryCrossEntropy(number=3, negatives=FREE), head=HeadConfig(table="own", bias=True)
    ),
    "next, BCE, shared": NextItemConfig(loss=BinaryCrossEntropy(number=2, share="sequence")),
    "next, BCE, prior shift": NextItemConfig(loss=BinaryCrossEntropy(number=3, prior_shift=True)),
    "next, gBCE": NextItemConfig(loss=GeneralizedBCE(number=4, calibration=0.75)),
    "next, gBCE, prior shift": NextItemConfig(loss=GeneralizedBCE(number=4, prior_shift=True)),
    "next, gBCE, shared": NextItemConfig(loss=GeneralizedBCE(number=4, share="sequence")),
    "next, BPR": NextItemConfig(loss=BayesianPersonalizedRanking(number=2)),
    "next, BPR, shared": NextItemConfig(
        loss=BayesianPersonalizedRanking(number=2, share="sequence")
    ),
    "cloze, full softmax": ClozeConfig(corruption=MASKED),
    "cloze, BERT4Rec's head": ClozeConfig(corruption=MASKED, head=BERT_HEAD),
    "cloze, own table with bias": ClozeConfig(
        corruption=MaskItems(count="rounded", rate=0.5), head=HeadConfig(table="own", bias=True)
    ),
    "cloze, sampled softmax": ClozeConfig(
        corruption=MASKED, loss=SampledSoftmax(number=4, log_q=True, negatives=POPULAR)
    ),
    "cloze, BCE": ClozeConfig(corruption=MASKED, loss=BinaryCrossEntropy(number=2)),
    "next, special classes": NextItemConfig(head=HeadConfig(special_classes=True)),
    "cloze, special classes": ClozeConfig(
        corruption=MASKED, head=HeadConfig(transform="nonlinear", special_classes=True)
    ),
    "next, smoothed": NextItemConfig(loss=FullSoftmax(label_smoothing=0.1)),
    "cloze, smoothed, with a bias": ClozeConfig(
        corruption=MASKED, loss=FullSoftmax(label_smoothing=0.3), head=BERT_HEAD
    ),
    "next, smoothed, special classes": NextItemConfig(
        loss=FullSoftmax(label_smoothing=0.2), head=HeadConfig(special_classes=True)
    ),
    "next, cosine": NextItemConfig(head=COSINE),
    "next, cosine, smoothed": NextItemConfig(head=COSINE, loss=FullSoftmax(label_smoothing=0.1)),
    "cloze, cosine, own table with bias": ClozeConfig(
        corruption=MASKED, head=replace(COSINE, table="own", bias=True, transform="nonlinear")
    ),
    "next, cosine, sampled softmax, log q": NextItemConfig(
        loss=SampledSoftmax(number=5, log_q=True, negatives=POPULAR), head=COSINE
    ),
    "next, cosine, BCE": NextItemConfig(loss=BinaryCrossEntropy(number=2), head=COSINE),
    "next, dot with a temperature": NextItemConfig(head=HeadConfig(temperature=2.5, bias=True)),
    "next, sampled softmax, corrected": NextItemConfig(
        loss=SampledSoftmax(
            number=5,
            log_q=True,
            corrected=True,
            negatives=NegativesConfig(distribution="popularity", exclude="nothing"),
        )
    ),
    "MIP, sampled softmax, corrected, shared": MIPConfig(
        corruption=MASKED,
        loss=SampledSoftmax(number=2, log_q=True, corrected=True, share="sequence", negatives=FREE),
    ),
    "next, last": NextItemConfig(predict="last"),
    "next, last, both ways": NextItemConfig(predict="last", direction="bidirectional"),
    "next, last, both ways, BCE, cosine": NextItemConfig(
        predict="last", direction="bidirectional", loss=BinaryCrossEntropy(number=3), head=COSINE
    ),
    "AAP": AAPConfig(corruption=MASKED),
    "AAP, bare items": AAPConfig(corruption=MASKED, count_bare_items=True),
    "AAP, attribute 0": AAPConfig(corruption=MASKED, zero_attribute=True),
    "AAP as published": AAPConfig(
        corruption=PUBLISHED_MASKS, count_bare_items=True, zero_attribute=True
    ),
    "MAP": MAPConfig(corruption=MASKED),
    "MAP, bare items": MAPConfig(corruption=MASKED, count_bare_items=True),
    "MAP, attribute 0": MAPConfig(corruption=MASKED, zero_attribute=True),
    "MAP as published": MAPConfig(
        corruption=PUBLISHED_MASKS, count_bare_items=True, zero_attribute=True
    ),
    "MIP": MIPConfig(corruption=MASKED),
    "MIP as published": MIPConfig(
        corruption=PUBLISHED_MASKS,
        loss=BayesianPersonalizedRanking(inner_sigmoid=True, negatives=OUTSIDE_WINDOW),
    ),
    "MIP, nothing of the user's": MIPConfig(
        corruption=MASKED,
        loss=BayesianPersonalizedRanking(number=4, negatives=NegativesConfig(exclude="history")),
    ),
    "MIP, anything": MIPConfig(
        corruption=MASKED, loss=BayesianPersonalizedRanking(number=4, negatives=FREE)
    ),
    "MIP, full softmax": MIPConfig(corruption=MASKED, loss=FullSoftmax()),
    "MIP, sampled softmax with the mask, log q": MIPConfig(
        corruption=MASKED, loss=SampledSoftmax(number=4, log_q=True, negatives=OUTSIDE_WINDOW)
    ),
    "masked vector": MaskedVectorConfig(corruption=MASKED),
    "SP": SPConfig(),
    "SP, squashed": SPConfig(inner_sigmoid=True),
    "SP, alone": SPConfig(corruption=CutSegment(placement="alone")),
    "SP, from everything": SPConfig(corruption=CutSegment(foreign="everything")),
    "SP, alone with short rows": SPConfig(
        corruption=CutSegment(placement="alone", short_rows=True)
    ),
    "SP as published": SPConfig(
        corruption=CutSegment(foreign="everything", short_rows=True), inner_sigmoid=True
    ),
}

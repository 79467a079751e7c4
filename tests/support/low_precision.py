"""Computes a training step in bf16 or fp16, and compares it with fp32."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
import torch
from torch import Tensor

from research.model.transformer_config import TransformerConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.contrast import ContrastConfig
from research.objectives.dropout_views import DropoutViews
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.mixed_softmax import MixedSoftmax
from research.objectives.next_item import NextItemConfig
from research.training.multi_objective import MultiObjectiveModel
from tests.support.objective_cases import ATTRIBUTES, ITEMS, LENGTH, NUM_ATTRIBUTES, ROWS, VECTORS
from tests.support.synthetic import batch_of, catalogue_of, randomize_parameters

LOW_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# They make two encoder calls: one for all tokens, causal, and one for the picked, bidirectional.
NEXT_AND_CLOZE = {"next": NextItemConfig(), "cloze": ClozeConfig()}
NO_DROPOUT: Mapping[str, object] = MappingProxyType(
    {"embedding_dropout": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0}
)


def two_layer_model(
    objectives: Mapping[str, ObjectiveConfig], **changes: object
) -> MultiObjectiveModel:
    """Return a model of two layers with these objectives, in training mode.

    All parameters are random, also those whose initial value is 0 or 1.
    """
    sizes = TransformerConfig(
        **{**dict(length=LENGTH, width=8, heads=2, layers=2, feed_forward=12), **changes}
    )
    catalogue = catalogue_of(
        [*ROWS[:4], [2, 9, 10, 11]],
        ITEMS,
        held_out=[[11, 7], [3], [], [], [5, 6]],
        attributes=ATTRIBUTES,
        num_attributes=NUM_ATTRIBUTES,
        vectors=VECTORS,
    )
    shared = ModelComponents(sizes, catalogue, 0)
    parts = {name: each.build(shared, 0) for name, each in objectives.items()}
    model = MultiObjectiveModel(shared.encoder, parts, catalogue)
    randomize_parameters(model, std=0.3)
    return model.train()


def loss_and_gradients(
    model: MultiObjectiveModel, low: torch.dtype | None = None, rows: list[list[int]] = ROWS
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute a step under autocast to `low` (None: without autocast).

    Returns the sum of the objectives' mean losses, and the gradients by parameter.
    """
    torch.manual_seed(3)
    model.zero_grad(set_to_none=True)
    device = model.encoder.item_table.weight.device
    seen = model.prepare(batch_of(rows, length=LENGTH).to(device))
    with torch.autocast(device.type, low or torch.bfloat16, enabled=low is not None):
        losses = model(seen, measured=True)
    terms = [each.total / each.count.clamp(min=1).to(each.total) for each in losses.values()]
    total = torch.stack(terms).sum()
    total.backward()
    grads = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    return total.detach(), {name: grad for name, grad in grads.items() if grad is not None}


def assert_near(
    ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]], low: str
) -> None:
    """Compare loss and gradients in low precision with those in fp32, to its rounding."""
    # Each factor is rounded by up to half an epsilon (2^-7 for bf16, 2^-10 for fp16). Some ten
    # roundings lie between an embedding and its gradient: 8 epsilons was the worst measured over
    # all cases. As fp16 stays within an eighth of the bound of bf16, the differences are rounding.
    epsilon = torch.finfo(LOW_DTYPES[low]).eps
    assert ours[0].dtype == torch.float32
    assert ours[0].item() == pytest.approx(theirs[0].item(), rel=4 * epsilon)
    assert ours[1].keys() == theirs[1].keys()
    assert all(grad.dtype == torch.float32 for grad in ours[1].values())
    one, other = (torch.cat([g.flatten() for g in each.values()]) for each in (ours[1], theirs[1]))
    assert one.isfinite().all()
    assert ((one - other).norm() / other.norm()).item() < 16 * epsilon
    assert not torch.equal(one, other), "nothing was rounded"


def assert_same(
    ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]]
) -> None:
    """Compare loss and gradients, which must be equal to the last bit."""
    assert torch.equal(ours[0], theirs[0])
    assert ours[1].keys() == theirs[1].keys()
    for name, grad in theirs[1].items():
        assert torch.equal(ours[1][name], grad), name


COUPLED: Mapping[str, ObjectiveConfig] = MappingProxyType(
    {
        "in-batch softmax": NextItemConfig(loss=InBatchSoftmax()),
        "in-batch softmax, log q": NextItemConfig(
            loss=InBatchSoftmax(log_q=True), head=HeadConfig(table="own", bias=True)
        ),
        "mixed softmax, corrected, cosine": NextItemConfig(
            loss=MixedSoftmax(number=5, corrected=True),
            head=HeadConfig(similarity="cosine", temperature=0.3),
        ),
        "contrast": ContrastConfig(),
        "contrast, all states": ContrastConfig(states="all"),
        "contrast, same target": ContrastConfig(corruption=DropoutViews()),
        "contrast, cosine": ContrastConfig(similarity="cosine", temperature=0.2),
    }
)

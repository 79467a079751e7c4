"""From an objective's config and one window to its losses by the loops of
`tests.support.reference`.

Only weights and configs are taken from the modules under test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from research.data.catalogue import Catalogue
from research.objectives.aap import AAP, AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import Cloze, ClozeConfig
from research.objectives.losses import FullSoftmax, ItemLossConfig
from research.objectives.map import MAP, MAPConfig
from research.objectives.masked_vector import MaskedVector, MaskedVectorConfig
from research.objectives.mip import MIP, MIPConfig
from research.objectives.next_item import NextItem, NextItemConfig
from research.objectives.sp import SP, SPConfig
from research.randomness import seed_of
from research.training.multi_objective import MultiObjectiveModel
from tests.model.reference_blocks import dense
from tests.support import reference

ItemsConfig = NextItemConfig | ClozeConfig | MIPConfig


def losses_of_window(
    config: ObjectiveConfig, module: MultiObjectiveModel, catalogue: Catalogue, window: list[int],
    user: int, state: int,
) -> list[Tensor]:  # fmt: skip
    """The losses of one window, one for each thing that is counted."""
    if isinstance(config, SPConfig):
        return losses_of_segment(config, module, catalogue, window, user, state)
    if isinstance(config, (AAPConfig, MAPConfig)):
        return losses_of_attributes(config, module, catalogue, window, state)
    if isinstance(config, MaskedVectorConfig):
        return losses_of_vectors(config, module, catalogue, window, state)
    assert isinstance(config, (NextItemConfig, ClozeConfig, MIPConfig))
    return losses_of_items(config, module, catalogue, window, user, state)


def losses_of_items(
    config: ItemsConfig, module: MultiObjectiveModel, catalogue: Catalogue, window: list[int],
    user: int, state: int,
) -> list[Tensor]:  # fmt: skip
    """One loss a predicted item."""
    objective, encoder = module.objectives["only"], module.encoder
    assert isinstance(objective, (NextItem, Cloze, MIP))
    length = encoder.config.length
    if isinstance(config, NextItemConfig):
        seen, targets = reference.next_item_shift(window, length)
        picked = list(range(len(seen)))
        if config.predict == "last":
            picked, targets = picked[-1:], targets[-1:]
        purpose = "next"
    else:
        seen, picked = reference.mask_items(
            config.corruption, window, state, catalogue.num_items, length
        )
        targets = [window[-length:][place] for place in picked]
        purpose = "cloze" if isinstance(config, ClozeConfig) else "mip"
    causal = isinstance(config, NextItemConfig) and config.direction == "causal"
    hidden_LD = reference.encode(encoder, seen, causal=causal)
    mask = not isinstance(config.loss, FullSoftmax) and config.loss.negatives.include_mask
    log_q = log_probabilities(config.loss, catalogue)
    losses = []
    for place, target in zip(picked, targets, strict=True):
        scores = reference.head_scores(objective.head, encoder, hidden_LD[place], mask)
        negatives = negatives_of(config.loss, catalogue, window, user, state, place, purpose)
        losses.append(
            reference.item_loss(config.loss, scores, target, negatives, log_q, catalogue.num_items)
        )
    return losses


def losses_of_attributes(
    config: AAPConfig | MAPConfig, module: MultiObjectiveModel, catalogue: Catalogue,
    window: list[int], state: int,
) -> list[Tensor]:  # fmt: skip
    """One loss a token that is asked about."""
    objective, encoder = module.objectives["only"], module.encoder
    assert isinstance(objective, (AAP, MAP))
    head, length = objective.head, encoder.config.length
    rows = list(head.attributes.attribute_table.weight)
    if config.zero_attribute:
        assert head.zero_attribute is not None
        rows.append(head.zero_attribute.row[0])
    seen, picked = reference.mask_items(
        config.corruption, window, state, catalogue.num_items, length
    )
    hidden_LD = reference.encode(encoder, seen, causal=False)
    losses = []
    for place, item in enumerate(window[-length:]):
        own = reference.attributes_of(catalogue, item)
        asked = (place in picked) is isinstance(config, MAPConfig)
        if asked and (own or config.count_bare_items):
            projected_D = dense(hidden_LD[place], head.dense)
            losses.append(reference.attribute_loss(projected_D, rows, own))
    return losses


def losses_of_vectors(
    config: MaskedVectorConfig, module: MultiObjectiveModel, catalogue: Catalogue,
    window: list[int], state: int,
) -> list[Tensor]:  # fmt: skip
    """One loss a masked item: 1 less the cosine of the predicted and the standardized vector."""
    objective, encoder = module.objectives["only"], module.encoder
    assert isinstance(objective, MaskedVector)
    assert catalogue.item_vectors is not None
    length = encoder.config.length
    seen, picked = reference.mask_items(
        config.corruption, window, state, catalogue.num_items, length
    )
    hidden_LD = reference.encode(encoder, seen, causal=False)
    losses = []
    for place in picked:
        raw_E = torch.tensor(catalogue.item_vectors[window[-length:][place]].tolist()).double()
        true_E = (raw_E - objective.vectors.mean) / objective.vectors.deviation
        predicted_E = dense(hidden_LD[place], objective.dense)
        norms = (predicted_E**2).sum().sqrt() * (true_E**2).sum().sqrt()
        losses.append(1 - (predicted_E * true_E).sum() / norms)
    return losses


def losses_of_segment(
    config: SPConfig, module: MultiObjectiveModel, catalogue: Catalogue, window: list[int],
    user: int, state: int,
) -> list[Tensor]:  # fmt: skip
    """The loss of the window's one comparison, or none."""
    objective, encoder = module.objectives["only"], module.encoder
    assert isinstance(objective, SP)
    length = encoder.config.length
    views = reference.cut_segment(config.corruption, catalogue, window, user, state, length)
    if views is None:
        return []
    context, true, foreign = (reference.encode(encoder, seen, causal=False)[-1] for seen in views)
    squashed = config.inner_sigmoid
    return [reference.segment_loss(context, true, foreign, objective.dense, squashed)]


def negatives_of(
    loss: ItemLossConfig, catalogue: Catalogue, window: list[int], user: int, state: int,
    place: int, purpose: str,
) -> list[int]:  # fmt: skip
    """What is drawn for the token at one place."""
    if isinstance(loss, FullSoftmax):
        return []
    stream = reference.random_bits(state, seed_of("negatives", purpose))
    if loss.share == "token":
        stream = reference.random_bits(stream, place)
    return reference.draw_negatives(loss.negatives, catalogue, stream, user, loss.number, window)


def log_probabilities(loss: ItemLossConfig, catalogue: Catalogue) -> list[float]:
    """log q; the module keeps it in float32, which is what the comparison is made with."""
    if isinstance(loss, FullSoftmax):
        return []
    if loss.negatives.distribution == "uniform":
        drawable = catalogue.num_items + loss.negatives.include_mask
        return [torch.tensor(1 / drawable).double().log().float().item()] * drawable
    counts_V = catalogue.training.counts_V.double()
    return (counts_V / counts_V.sum()).log().float().tolist()

"""Any two of the six objectives, and all of them, in one stage: two encoder calls at most."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from research.data.catalogue import Catalogue
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.packed import Packed
from research.training.multi_objective import MultiObjectiveModel
from tests.support.synthetic import batch_of, catalogue_of, randomize_parameters

ITEMS = 9
LENGTH = 5
ROWS = [[0, 1, 2, 3, 4, 5], [6], [], [7, 0], [2, 8, 3]]
SIZES = TransformerConfig(
    length=LENGTH, width=4, heads=2, layers=2, feed_forward=6,
    embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
OBJECTIVES: dict[str, ObjectiveConfig] = {
    "cloze": ClozeConfig(corruption=MaskItems(rate=0.5, random_share=0.2)),
    "next": NextItemConfig(),
    "aap": AAPConfig(),
    "mip": MIPConfig(),
    "map": MAPConfig(),
    "sp": SPConfig(),
}
PAIRS = list(combinations(OBJECTIVES, 2))


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    attributes = [[0], [1, 2], [], [0, 3], [1], [2, 3], [3], [0, 1, 2], [2]]
    return catalogue_of(ROWS, ITEMS, attributes=attributes, num_attributes=4)


def mixture(keys: tuple[str, ...], catalogue: Catalogue) -> MultiObjectiveModel:
    """A pretrainer in float64; an objective's weights depend on its key alone."""
    shared = ModelComponents(SIZES, catalogue, 0)
    built = {key: OBJECTIVES[key].build(shared, 0) for key in keys}
    made = MultiObjectiveModel(shared.encoder, built, catalogue).double()
    randomize_parameters(made, std=0.3)
    return made


def gradients(module: MultiObjectiveModel, total: Tensor) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    total.backward()
    return {
        name: each.grad.clone() for name, each in module.named_parameters() if each.grad is not None
    }


@pytest.mark.parametrize("keys", [*PAIRS, tuple(OBJECTIVES)], ids="+".join)
def test_in_company_an_objective_has_its_own_loss_and_gradients_add_up(
    keys: tuple[str, ...], catalogue: Catalogue
) -> None:
    together = mixture(keys, catalogue)
    state = {name: each.detach().clone() for name, each in together.named_parameters()}
    batch = batch_of(ROWS, length=LENGTH)
    losses = together.losses(batch)
    assert list(losses) == list(keys)
    grads = gradients(together, torch.stack([each.total for each in losses.values()]).sum())
    # Every parameter takes part, so that several processes can add gradients up.
    assert set(grads) == set(state)
    summed = {name: torch.zeros_like(each) for name, each in state.items()}
    for key in keys:
        alone = mixture((key,), catalogue)
        with torch.no_grad():
            for name, parameter in alone.named_parameters():
                parameter.copy_(state[name])
        loss = alone.losses(batch)[key]
        # The same numbers, added in another order: a few units of the last place of float64.
        assert losses[key].total.item() == pytest.approx(loss.total.item(), abs=1e-10)
        assert losses[key].count.item() == loss.count.item()
        for name, grad in gradients(alone, loss.total).items():
            summed[name] += grad
    for name, grad in grads.items():
        torch.testing.assert_close(grad, summed[name], rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("keys", [*PAIRS, tuple(OBJECTIVES)], ids="+".join)
def test_two_encoder_calls_are_enough(keys: tuple[str, ...], catalogue: Catalogue) -> None:
    module = mixture(keys, catalogue)
    directions: list[bool] = []

    def note(part: object, given: tuple[Packed], named: dict[str, bool]) -> None:
        directions.append(named["causal"])

    module.encoder.register_forward_pre_hook(note, with_kwargs=True)
    module.losses(batch_of(ROWS, length=LENGTH))
    expected = [False] * any(key != "next" for key in keys) + [True] * ("next" in keys)
    assert directions == expected


@pytest.mark.parametrize("keys", [*PAIRS, tuple(OBJECTIVES)], ids="+".join)
def test_a_batch_without_a_row_is_a_zero_for_every_objective(
    keys: tuple[str, ...], catalogue: Catalogue
) -> None:
    module = mixture(keys, catalogue)
    losses = module.losses(batch_of([], length=LENGTH), measured=True)
    grads = gradients(module, torch.stack([each.total for each in losses.values()]).sum())
    assert set(grads) == {name for name, _ in module.named_parameters()}
    assert not any(grad.any() for grad in grads.values())
    for loss in losses.values():
        assert (loss.total.item(), loss.count.item()) == (0.0, 0.0)
        assert loss.accuracy is not None
        assert (loss.accuracy.correct.item(), loss.accuracy.count.item()) == (0.0, 0.0)


def test_aap_and_map_share_one_table_under_one_name(catalogue: Catalogue) -> None:
    for keys in (("aap", "map"), ("map", "aap"), ("map", "next"), ("aap", "sp")):
        names = [name for name, _ in mixture(keys, catalogue).named_parameters()]
        tables = [name for name in names if name.endswith("attribute_table.weight")]
        assert tables == ["shared.attributes.attribute_table.weight"]


def reads_of(keys: tuple[str, ...], catalogue: Catalogue) -> list[Tensor | None]:
    """What the encoder is asked to read, call by call."""
    module = mixture(keys, catalogue)
    reads: list[Tensor | None] = []

    def note(part: object, given: tuple[Packed], named: dict[str, Tensor | None]) -> None:
        reads.append(named["read_P"])

    module.encoder.register_forward_pre_hook(note, with_kwargs=True)
    module.losses(batch_of(ROWS, length=LENGTH))
    return reads


def test_the_encoder_reads_what_an_objective_asks_for_and_nothing_else(
    catalogue: Catalogue,
) -> None:
    batch = batch_of(ROWS, length=LENGTH)
    view = mixture(("cloze",), catalogue).objectives["cloze"].corruption.view(batch, catalogue)
    (read_P,) = reads_of(("cloze",), catalogue)
    assert read_P is not None
    assert read_P.tolist() == view.picked_P.tolist()
    # Every token is an input whose successor is predicted.
    assert reads_of(("next",), catalogue) == [None]

"""What each objective calls right, counted by hand at states and embeddings typed in."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from research.data.catalogue import Catalogue
from research.model.kernels.cross_entropy import top_one
from research.model.transformer import TransformerEncoder
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAP, AAPConfig
from research.objectives.base import Accuracy, Objective, ObjectiveConfig, View
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.head import HeadConfig
from research.objectives.losses import BayesianPersonalizedRanking, FullSoftmax
from research.objectives.map import MAP, MAPConfig
from research.objectives.mip import MIP, MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SP, SPConfig
from research.packed import Packed
from tests.support.synthetic import batch_of, catalogue_of

ITEMS = 4
SIZES = TransformerConfig(length=4, width=2, layers=1, heads=1, feed_forward=2)
# To the right, up, left, down; the mask is up and right of all.
ITEM_TABLE = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [5.0, 5.0]]
# Right, up, down and left.
ATTRIBUTE_TABLE = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
# Item 2 has none.
ATTRIBUTES = [[0], [0, 1], [], [2]]
# States that nobody may read.
UNREAD = [torch.nan, torch.nan]


# Items 0, 1 and 2 are user 0's, so that the negative is item 3.
CATALOGUE = catalogue_of([[0, 1, 2], [3]], ITEMS, attributes=ATTRIBUTES, num_attributes=3)


@pytest.fixture
def catalogue() -> Catalogue:
    return CATALOGUE


def build_objective(
    config: ObjectiveConfig, catalogue: Catalogue
) -> tuple[Objective, TransformerEncoder]:
    """An objective and an encoder with the tables above."""
    shared = ModelComponents(SIZES, catalogue, 0)
    objective = config.build(shared, 0)
    with torch.no_grad():
        shared.encoder.item_table.weight.copy_(torch.tensor(ITEM_TABLE))
        shared.attributes.attribute_table.weight.copy_(torch.tensor(ATTRIBUTE_TABLE))
    return objective, shared.encoder


def turn_signs(layer: nn.Linear) -> None:
    """-x, so that a layer left out would show."""
    with torch.no_grad():
        layer.weight.copy_(-torch.eye(2))
        layer.bias.zero_()


@torch.no_grad()
def share(
    objective: Objective, encoder: TransformerEncoder, view: View, states: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """(correct, count) of a view of rows of user 0 whose tokens have these states."""
    rows = [[0, 1, 2]] * view.num_rows
    batch = batch_of(rows, length=4, users=[0] * view.num_rows)
    targets = objective.targets(view, batch, CATALOGUE)
    states_PD = torch.tensor(states).reshape(-1, 2)[targets.read_P]
    result = objective.accuracy(targets, states_PD, encoder.item_table)
    assert isinstance(result, Accuracy)
    assert result.correct.dtype == result.count.dtype == torch.float64
    return result.correct.item(), result.count.item()


def view_of(shown: list[int], picked: list[int], targets: list[int]) -> View:
    """One sequence with picked tokens."""
    packed = Packed.from_lists([shown])
    return View.of_rows(packed, ids(picked), ids(targets))


def ids(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_next_item_counts_targets_that_score_highest(catalogue: Catalogue) -> None:
    objective, encoder = build_objective(NextItemConfig(), catalogue)
    view = objective.corruption.view(batch_of([[0, 1, 2, 3]], length=4), catalogue)
    # Items 1, 2 and 3 follow; the states point to 1, to 0 and to 3.
    assert share(objective, encoder, view, [[0.1, 1.0], [2.0, 1.0], [1.0, -2.0]]) == (2.0, 3.0)


def test_cloze_counts_hidden_items_that_score_highest(catalogue: Catalogue) -> None:
    objective, encoder = build_objective(ClozeConfig(), catalogue)
    view = view_of([4, 1, 4], [0, 2], [2, 0])
    assert share(objective, encoder, view, [[-1.0, 0.0], UNREAD, [0.9, 1.0]]) == (1.0, 2.0)


def test_a_bias_counts_in_what_scores_highest(catalogue: Catalogue) -> None:
    objective, encoder = build_objective(ClozeConfig(head=HeadConfig(bias=True)), catalogue)
    with torch.no_grad():
        objective.get_parameter("head.item_bias").copy_(torch.tensor([0.5, 0.0, 0.0, 0.0]))
    # 0.9 + 0.5 for item 0 against 1.0 for item 1.
    assert share(objective, encoder, view_of([4], [0], [0]), [[0.9, 1.0]]) == (1.0, 1.0)


def test_special_classes_may_score_highest(catalogue: Catalogue) -> None:
    view = view_of([4, 4], [0, 1], [1, 2])
    states = [[0.0, 1.0], [-1.0, 0.0]]
    plain, encoder = build_objective(ClozeConfig(), catalogue)
    assert share(plain, encoder, view, states) == (2.0, 2.0)
    # The mask scores 5 at the first state and -5 at the second.
    special, encoder = build_objective(
        ClozeConfig(head=HeadConfig(special_classes=True)), catalogue
    )
    assert share(special, encoder, view, states) == (1.0, 2.0)


@pytest.mark.parametrize("inner_sigmoid", [False, True])
def test_mip_counts_right_comparisons_and_half_of_the_ties(
    inner_sigmoid: bool, catalogue: Catalogue
) -> None:
    loss = BayesianPersonalizedRanking(number=2, inner_sigmoid=inner_sigmoid)
    objective, encoder = build_objective(MIPConfig(loss=loss), catalogue)
    assert isinstance(objective, MIP)
    turn_signs(objective.head.dense)
    # Each against item 3, twice: 1 to 0, -1 to 1, and 0 to 0.
    states = [[-1.0, 0.0], [0.0, 1.0], UNREAD, [0.0, 0.0]]
    view = view_of([4, 4, 1, 4], [0, 1, 3], [0, 1, 2])
    assert share(objective, encoder, view, states) == (2.0 + 0.0 + 1.0, 6.0)


def test_mip_under_a_full_softmax_counts_targets_that_score_highest(catalogue: Catalogue) -> None:
    objective, encoder = build_objective(MIPConfig(loss=FullSoftmax()), catalogue)
    assert isinstance(objective, MIP)
    turn_signs(objective.head.dense)
    view = view_of([4, 4, 4], [0, 1, 2], [0, 1, 2])
    # The states become right, down and left.
    assert share(objective, encoder, view, [[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]) == (2.0, 3.0)


@pytest.mark.parametrize("inner_sigmoid", [False, True])
def test_sp_counts_rows_whose_own_segment_scores_higher(
    inner_sigmoid: bool, catalogue: Catalogue
) -> None:
    objective, encoder = build_objective(SPConfig(inner_sigmoid=inner_sigmoid), catalogue)
    assert isinstance(objective, SP)
    turn_signs(objective.dense)
    # Three rows of three sequences, context, true and foreign segment; each one's last is read.
    packed = Packed.from_lists([[0, 4], [4, 1], [4, 2]] * 3)
    view = View(packed, ids([0, 0, 0, 1, 1, 1, 2, 2, 2]), 3, packed.last_S, ids([]))
    contexts = [[-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]]
    true = [[2.0, 0.0], [0.0, -1.0], [0.5, 0.5]]
    foreign = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    lasts = [last for row in zip(contexts, true, foreign) for last in row]
    states = [state for last in lasts for state in (UNREAD, last)]
    # 2 to 1 is right, -1 to 1 wrong, 1 to 1 a tie.
    assert share(objective, encoder, view, states) == (1.5, 3.0)


@pytest.mark.parametrize("as_published", [False, True])
def test_map_counts_own_attributes_among_as_many_best(
    as_published: bool, catalogue: Catalogue
) -> None:
    config = MAPConfig(count_bare_items=as_published, zero_attribute=as_published)
    objective, encoder = build_objective(config, catalogue)
    assert isinstance(objective, MAP)
    turn_signs(objective.head.dense)
    # Of item 1's attributes 0 and 1 the best two hold both, then one; item 0's is not the best;
    # item 2 has none and does not count.
    view = view_of([4, 4, 3, 4, 4], [0, 1, 3, 4], [1, 1, 0, 2])
    states = [[-1.0, -0.5], [-1.0, 3.0], UNREAD, [0.0, -1.0], [-1.0, 0.0]]
    assert share(objective, encoder, view, states) == (1.5, 3.0)


@pytest.mark.parametrize("as_published", [False, True])
def test_aap_counts_the_items_in_sight_alone(as_published: bool, catalogue: Catalogue) -> None:
    config = AAPConfig(count_bare_items=as_published, zero_attribute=as_published)
    objective, encoder = build_objective(config, catalogue)
    assert isinstance(objective, AAP)
    turn_signs(objective.head.dense)
    # Item 3's attribute 2 is the best; of item 1's two one is among the best two.
    view = view_of([3, 4, 2, 1], [1], [0])
    states = [[1.0, 1.0], UNREAD, [-1.0, 0.0], [-1.0, 3.0]]
    assert share(objective, encoder, view, states) == (1.5, 2.0)


@pytest.mark.parametrize(
    "config",
    [NextItemConfig(), ClozeConfig(), AAPConfig(), MAPConfig(), MIPConfig(), SPConfig()],
    ids=["next", "cloze", "aap", "map", "mip", "sp"],
)
def test_nothing_asked_is_nothing_of_nothing(config: ObjectiveConfig, catalogue: Catalogue) -> None:
    objective, encoder = build_objective(config, catalogue)
    view = objective.corruption.view(batch_of([[]], length=4), catalogue)
    assert share(objective, encoder, view, []) == (0.0, 0.0)


def test_a_constant_scorer_has_no_top_one() -> None:
    zeros = torch.zeros(3, 2)
    assert top_one(zeros, torch.zeros(5, 2), None, torch.tensor([0, 1, 4])).item() == 0

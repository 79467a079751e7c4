"""Losses that couple the rows of a step: in-batch softmax by items, CL4SRec's contrast by states.

Each equals a loop written from its paper, in value and gradients. That several processes give what
one gives is held by tests/distributed/test_collectives.py.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.contrast import ContrastConfig, TwoViews
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.next_item import NextItemConfig
from research.packed import Packed
from research.training.multi_objective import MultiObjectiveModel
from tests.support import reference
from tests.support.synthetic import batch_of, catalogue_of, randomize_parameters

ITEMS = 12
MASK = ITEMS
LENGTH = 6
ROWS = [[0, 1, 2, 3, 4, 5, 6, 0], [7], [], [8, 0], [2, 2, 9]]
SIZES = TransformerConfig(
    length=LENGTH, width=8, heads=2, layers=1, feed_forward=12,
    embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return catalogue_of(ROWS, ITEMS)


def build_model(config: ObjectiveConfig, catalogue: Catalogue) -> MultiObjectiveModel:
    """An encoder under one objective, in float64, without dropout, no parameter at its start."""
    shared = ModelComponents(SIZES, catalogue, 0)
    module = MultiObjectiveModel(shared.encoder, {"only": config.build(shared, 0)}, catalogue)
    module = module.double()
    randomize_parameters(module, std=0.3)
    return module


def gradients(module: MultiObjectiveModel, total: Tensor) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    total.backward()
    return {
        name: torch.zeros_like(each) if each.grad is None else each.grad
        for name, each in module.named_parameters()
    }


def assert_twins(module: MultiObjectiveModel, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    ours_grads = gradients(module, ours)
    for name, grad in gradients(module, theirs).items():
        torch.testing.assert_close(ours_grads[name], grad, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("log_q", [False, True])
@pytest.mark.parametrize("head", [HeadConfig(), HeadConfig(table="own", bias=True)])
def test_in_batch_softmax_equals_the_loop(
    head: HeadConfig, log_q: bool, catalogue: Catalogue
) -> None:
    module = build_model(NextItemConfig(loss=InBatchSoftmax(log_q=log_q), head=head), catalogue)
    ours = module.losses(batch_of(ROWS, length=LENGTH))["only"]
    objective = module.objectives["only"]
    pairs = []
    for row in ROWS:
        shown, targets = reference.next_item_shift(row, LENGTH)
        if shown:
            hidden_LD = reference.encode(module.encoder, shown, causal=True)
            pairs += list(zip(hidden_LD, targets, strict=True))
    offered = Counter(target for _, target in pairs)
    losses = []
    for hidden_D, target in pairs:
        scores = reference.head_scores(objective.head, module.encoder, hidden_D)
        if log_q:
            scores = [
                score - math.log(offered[item] / len(pairs)) if offered[item] else score
                for item, score in enumerate(scores)
            ]
        against = [item for item in offered.elements() if item != target]
        everyone = torch.stack([scores[item] for item in [target, *against]])
        losses.append(everyone.logsumexp(0) - scores[target])
    assert ours.count.item() == len(losses)
    assert_twins(module, ours.total, torch.stack(losses).sum())


def test_an_item_that_all_rows_predict_has_nothing_to_be_told_from(catalogue: Catalogue) -> None:
    module = build_model(NextItemConfig(loss=InBatchSoftmax()), catalogue)
    loss = module.losses(batch_of([[1, 5], [2, 5]], length=LENGTH))["only"]
    assert (loss.total.item(), loss.count.item()) == (0.0, 2.0)


@pytest.mark.parametrize("number", [2, 3, 9])
@pytest.mark.parametrize("kind", [NextItemConfig, ClozeConfig])
def test_items_are_offered_to_every_piece_of_a_batch(
    kind: type, number: int, catalogue: Catalogue
) -> None:
    module = build_model(kind(loss=InBatchSoftmax()), catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    pieces = [module(piece)["only"] for piece in module.prepare_micro_batches(batch, number)]
    whole = module.losses(batch)["only"]
    assert sum(piece.count.item() for piece in pieces) == whole.count.item()
    total = torch.stack([piece.total for piece in pieces]).sum()
    assert_twins(module, total, whole.total)


@pytest.mark.parametrize(
    "config",
    [ContrastConfig(), ContrastConfig(similarity="cosine", temperature=0.2)],
    ids=["dot", "cosine"],
)
def test_contrast_equals_the_loop(config: ContrastConfig, catalogue: Catalogue) -> None:
    module = build_model(config, catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    ours = module.losses(batch)["only"]
    states = []
    for row in sequences(config.corruption.view(batch, catalogue).packed):
        state_D = reference.encode(module.encoder, row, causal=True)[-1]
        states.append(state_D / state_D.norm() if config.similarity == "cosine" else state_D)
    losses = []
    for place, state_D in enumerate(states):
        partner = place + 1 if place % 2 == 0 else place - 1
        scores = {
            other: (state_D * states[other]).sum() / config.temperature
            for other in range(len(states))
            if other != place
        }
        losses.append(torch.stack(list(scores.values())).logsumexp(0) - scores[partner])
    # Two views of each of the four rows that have an item.
    assert ours.count.item() == len(losses) == 8
    assert_twins(module, ours.total, torch.stack(losses).sum())


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
@pytest.mark.parametrize(
    "config", [ContrastConfig(), NextItemConfig(loss=InBatchSoftmax())], ids=["states", "items"]
)
def test_no_rows_are_a_zero_that_every_parameter_hangs_on(
    config: ObjectiveConfig, rows: list[list[int]], catalogue: Catalogue
) -> None:
    module = build_model(config, catalogue)
    loss = module.losses(batch_of(rows, length=LENGTH), measured=True)["only"]
    loss.total.backward()
    assert (loss.total.item(), loss.count.item()) == (0.0, 0.0)
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_one_row_alone_has_only_its_partner(catalogue: Catalogue) -> None:
    loss = build_model(ContrastConfig(), catalogue).losses(batch_of([[1, 2, 3]], length=LENGTH))[
        "only"
    ]
    assert (loss.total.item(), loss.count.item()) == (0.0, 2.0)


def test_foreign_rows_matter(catalogue: Catalogue) -> None:
    for config in (ContrastConfig(), NextItemConfig(loss=InBatchSoftmax())):
        module = build_model(config, catalogue)
        assert module.objectives["only"].couples_rows is not None
        batch = batch_of(ROWS, length=LENGTH)
        pieces = [
            batch_of(
                [row], length=LENGTH, users=[user], states=batch.random_states_S[user : user + 1]
            )
            for user, row in enumerate(ROWS)
        ]
        alone = sum(module.losses(piece)["only"].total.item() for piece in pieces)
        assert abs(module.losses(batch)["only"].total.item() - alone) > 1.0


def sequences(packed: Packed) -> list[list[int]]:
    bounds = packed.offsets.tolist()
    items = packed.items_T.tolist()
    return [items[begin:end] for begin, end in itertools.pairwise(bounds)]


def views_of(config: TwoViews, row: list[int], draws: int, catalogue: Catalogue) -> list[list[int]]:
    """Many views of one row."""
    view = config.view(batch_of([row] * draws, length=50), catalogue)
    assert view.row_S.tolist() == [number for number in range(draws) for _ in range(2)]
    return sequences(view.packed)


ROW = [*range(10)]


def test_a_crop_is_a_run_of_neighbours_from_anywhere(catalogue: Catalogue) -> None:
    views = views_of(TwoViews(operators=("crop",), crop_share=0.6), ROW, 300, catalogue)
    assert all(view == list(range(view[0], view[0] + 6)) for view in views)
    assert {view[0] for view in views} == {0, 1, 2, 3, 4}


def test_a_mask_hides_its_share_and_leaves_the_rest(catalogue: Catalogue) -> None:
    views = views_of(TwoViews(operators=("mask",), mask_share=0.35), ROW, 300, catalogue)
    for view in views:
        assert view.count(MASK) == 3
        assert all(item in (MASK, place) for place, item in enumerate(view))
    hidden = Counter(place for view in views for place, item in enumerate(view) if item == MASK)
    # 180 each of 600 views, with a standard deviation of 11.
    assert min(hidden.values()) > 130
    assert max(hidden.values()) < 230


def test_a_stretch_is_reordered_within_itself(catalogue: Catalogue) -> None:
    views = views_of(TwoViews(operators=("reorder",), reorder_share=0.4), ROW, 300, catalogue)
    moved = Counter()
    for view in views:
        assert sorted(view) == ROW
        changed = [place for place, item in enumerate(view) if place != item]
        assert not changed or changed[-1] - changed[0] < 4
        moved.update(changed)
    assert set(moved) == set(ROW)
    assert len({tuple(view) for view in views}) > 100


def test_each_view_has_an_operator_of_its_own(catalogue: Catalogue) -> None:
    views = views_of(TwoViews(), ROW, 300, catalogue)
    kinds = Counter(
        "crop" if len(view) < 10 else "mask" if MASK in view else "reorder" for view in views
    )
    # 200 each, with a standard deviation of 12.
    assert min(kinds.values()) > 150
    pairs = {(tuple(first), tuple(second)) for first, second in zip(views[::2], views[1::2])}
    assert sum(first == second for first, second in pairs) < 10


def test_a_row_of_one_item_survives_every_operator(catalogue: Catalogue) -> None:
    assert {tuple(view) for view in views_of(TwoViews(), [3], 50, catalogue)} == {(3,)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operators": ()}, r"operators is \(\); give one or more of crop, mask, reorder"),
        ({"operators": ("flip",)}, r"operators.0 is 'flip'; allowed: crop \| mask \| reorder"),
        ({"crop_share": 0.0}, "crop_share is 0.0; it must be above 0 and at most 1"),
        ({"mask_share": 1.5}, "mask_share is 1.5; it must be above 0"),
    ],
)
def test_operators_and_shares_out_of_range_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TwoViews(**fields)  # type: ignore[arg-type]


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"temperature is 0\.0; it must be above 0"):
        ContrastConfig(temperature=0.0)


def test_a_view_reads_the_newest_items(catalogue: Catalogue) -> None:
    view = TwoViews(operators=("crop",), crop_share=1.0).view(batch_of(ROWS, length=3), catalogue)
    assert sequences(view.packed) == [row[-3:] for row in ROWS if row for _ in range(2)]

"""Losses that couple the rows of a step: in-batch softmax by items, CL4SRec's contrast by states.

Each equals a loop written from its paper, in value and gradients. That several processes give what
one gives is held by tests/distributed/test_collectives.py.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

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
from research.objectives.losses import ItemLossConfig
from research.objectives.mip import MIPConfig
from research.objectives.mixed_softmax import MixedSoftmax
from research.objectives.next_item import NextItemConfig
from research.packed import Packed
from research.randomness import seed_of
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


SHARED_CANDIDATES: dict[str, ItemLossConfig] = {
    "in batch": InBatchSoftmax(),
    "in batch, log q": InBatchSoftmax(log_q=True),
    "in batch, log q of training": InBatchSoftmax(log_q=True, q_from="training"),
    "in batch, corrected": InBatchSoftmax(log_q=True, corrected=True),
    "in batch, corrected by training": InBatchSoftmax(
        log_q=True, q_from="training", corrected=True
    ),
    "mixed": MixedSoftmax(number=7),
    "mixed, one": MixedSoftmax(number=1),
    "mixed, without log q": MixedSoftmax(number=7, log_q=False),
    "mixed, corrected": MixedSoftmax(number=7, corrected=True),
}


def sample_of_step(
    config: ItemLossConfig, targets: list[int], states: list[int], catalogue: Catalogue
) -> tuple[list[int], list[float] | None]:
    """(items, q): all candidates of a step, with repetitions, and each item's probability."""
    counts = catalogue.training.counts_V.tolist()
    shares = [count / sum(counts) for count in counts]
    # The module keeps these in float32.
    shares = torch.tensor(shares, dtype=torch.float32).double().tolist()
    if isinstance(config, InBatchSoftmax):
        q = [targets.count(item) / len(targets) for item in range(ITEMS)]
        return targets, (shares if config.q_from == "training" else q) if config.log_q else None
    assert isinstance(config, MixedSoftmax)
    key = reference.random_bits(min(state % 2**62 for state in states), PURPOSE)
    drawn = [
        reference.random_below(reference.random_bits(key, number), ITEMS)
        for number in range(config.number)
    ]
    everything = len(targets) + config.number
    q = [
        (len(targets) * share + config.number / ITEMS) / everything for share in shares
    ]  # Yang et al., section 3.2
    return [*targets, *drawn], q if config.log_q else None


PURPOSE = seed_of("mixed negatives", "next")


@pytest.mark.parametrize("name", SHARED_CANDIDATES)
@pytest.mark.parametrize(
    "head",
    [
        HeadConfig(),
        HeadConfig(table="own", bias=True),
        HeadConfig(similarity="cosine", temperature=0.2),
    ],
    ids=["tied", "own", "cosine"],
)
def test_a_softmax_over_shared_candidates_equals_the_loop(
    head: HeadConfig, name: str, catalogue: Catalogue
) -> None:
    config = SHARED_CANDIDATES[name]
    module = build_model(NextItemConfig(loss=config, head=head), catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    ours = module.losses(batch)["only"]
    objective = module.objectives["only"]
    pairs = []
    for row in ROWS:
        shown, targets = reference.next_item_shift(row, LENGTH)
        if shown:
            hidden_LD = reference.encode(module.encoder, shown, causal=True)
            pairs += list(zip(hidden_LD, targets, strict=True))
    sample, q = sample_of_step(
        config, [target for _, target in pairs], batch.random_states_S.tolist(), catalogue
    )
    losses = []
    for hidden_D, target in pairs:
        scores = reference.head_scores(objective.head, module.encoder, hidden_D)
        against = [item for item in sample if item != target]
        if vars(config)["corrected"]:
            assert q is not None
            others = [(scores[item], q[item]) for item in against]
            losses.append(reference.corrected_softmax(scores[target], q[target], others))
            continue
        if q is not None:
            scores = [
                score - math.log(q[item]) if q[item] else score for item, score in enumerate(scores)
            ]
        everyone = torch.stack([scores[item] for item in [target, *against]])
        losses.append(everyone.logsumexp(0) - scores[target])
    assert ours.count.item() == len(losses)
    assert_twins(module, ours.total, torch.stack(losses).sum())


def test_drawn_negatives_are_the_steps_and_change_with_its_rows(catalogue: Catalogue) -> None:
    module = build_model(NextItemConfig(loss=MixedSoftmax(number=9)), catalogue)
    assert (module.shared_negatives, module.max_candidates) == (9, 0)
    objective = module.objectives["only"]
    drawn = set()
    for seed in range(20):
        batch = batch_of(ROWS, length=LENGTH, states=torch.arange(5) + 100 * seed)
        view = objective.corruption.view(batch, catalogue)
        offered = objective.offered_items(view, batch)
        targets = objective.targets(view, replace(batch, offered_items=offered), catalogue)
        assert targets.drawn_numbers_Q.sum() == 9
        drawn.add(tuple(targets.candidates_Q[targets.drawn_numbers_Q > 0].tolist()))
        # The rows may be dealt to processes in any way.
        shuffled = offered[torch.randperm(len(offered), generator=torch.Generator().manual_seed(0))]
        again = objective.targets(view, replace(batch, offered_items=shuffled), catalogue)
        assert torch.equal(targets.candidates_Q, again.candidates_Q)
        assert torch.equal(targets.drawn_numbers_Q, again.drawn_numbers_Q)
    assert len(drawn) > 15
    assert {item for items in drawn for item in items} == set(range(ITEMS))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: InBatchSoftmax(corrected=True), r"loss\.corrected is True and loss\.log_q is Fal"),
        (lambda: InBatchSoftmax(q_from="training"), r"loss\.q_from is 'training' and loss\.log_q"),
        (lambda: MixedSoftmax(log_q=False, corrected=True), r"loss\.corrected is True and loss"),
    ],
)
def test_corrections_without_log_q_are_refused(loss: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        loss()


def test_no_negatives_are_refused_and_more_than_items_are_drawn(catalogue: Catalogue) -> None:
    with pytest.raises(InputError, match=r"loss\.number is 0; it must be at least 1"):
        MixedSoftmax(number=0)
    module = build_model(NextItemConfig(loss=MixedSoftmax(number=5 * ITEMS)), catalogue)
    assert module.losses(batch_of([[1, 5], [2, 5]], length=LENGTH))["only"].total.isfinite()


def test_an_item_that_all_rows_predict_has_nothing_to_be_told_from(catalogue: Catalogue) -> None:
    module = build_model(NextItemConfig(loss=InBatchSoftmax()), catalogue)
    loss = module.losses(batch_of([[1, 5], [2, 5]], length=LENGTH))["only"]
    assert (loss.total.item(), loss.count.item()) == (0.0, 2.0)


@pytest.mark.parametrize("q_from", ["step", "training"])
def test_a_target_with_no_other_in_the_step_has_no_corrected_loss(
    q_from: str, catalogue: Catalogue
) -> None:
    config = InBatchSoftmax(log_q=True, corrected=True, q_from=q_from)
    module = build_model(NextItemConfig(loss=config), catalogue)
    loss = module.losses(batch_of([[1, 5], [2, 5]], length=LENGTH))["only"]
    assert (loss.total.item(), loss.count.item()) == (0.0, 2.0)
    loss.total.backward()
    assert all(not parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("number", [2, 3, 9])
@pytest.mark.parametrize(
    "loss",
    [InBatchSoftmax(), InBatchSoftmax(log_q=True, corrected=True), MixedSoftmax(number=5)],
    ids=["in batch", "corrected", "mixed"],
)
@pytest.mark.parametrize("kind", [NextItemConfig, ClozeConfig, MIPConfig])
def test_items_are_offered_to_every_piece_of_a_batch(
    kind: type, loss: ItemLossConfig, number: int, catalogue: Catalogue
) -> None:
    module = build_model(kind(loss=loss), catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    pieces = [module(piece)["only"] for piece in module.prepare_micro_batches(batch, number)]
    whole = module.losses(batch)["only"]
    assert sum(piece.count.item() for piece in pieces) == whole.count.item()
    total = torch.stack([piece.total for piece in pieces]).sum()
    assert_twins(module, total, whole.total)


@pytest.mark.parametrize(
    "config",
    [
        ContrastConfig(),
        ContrastConfig(similarity="cosine", temperature=0.2),
        ContrastConfig(states="all"),
        ContrastConfig(states="all", similarity="cosine", temperature=0.2),
    ],
    ids=["dot", "cosine", "all states", "all states, cosine"],
)
def test_contrast_equals_the_loop(config: ContrastConfig, catalogue: Catalogue) -> None:
    module = build_model(config, catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    ours = module.losses(batch)["only"]
    # The compared states of each view, from the newest token on.
    states = []
    for row in sequences(config.corruption.view(batch, catalogue).packed):
        hidden_LD = reference.encode(module.encoder, row, causal=True).flip(0)
        states.append(hidden_LD if config.states == "all" else hidden_LD[:1])
    if config.similarity == "cosine":
        states = [each / each.norm() for each in states]
    losses = []
    for place, state in enumerate(states):
        partner = place + 1 if place % 2 == 0 else place - 1
        scores = {
            other: sum(
                (mine_D * theirs_D).sum()
                for mine_D, theirs_D in zip(state, states[other], strict=False)
            )
            / config.temperature
            for other in range(len(states))
            if other != place
        }
        losses.append(torch.stack(list(scores.values())).logsumexp(0) - scores[partner])
    # Two views of each of the four rows that have an item.
    assert ours.count.item() == len(losses) == 8
    assert_twins(module, ours.total, torch.stack(losses).sum())


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
@pytest.mark.parametrize(
    "config",
    [
        ContrastConfig(),
        ContrastConfig(states="all"),
        NextItemConfig(loss=InBatchSoftmax()),
        NextItemConfig(loss=InBatchSoftmax(log_q=True, corrected=True)),
        NextItemConfig(loss=MixedSoftmax(number=3)),
        ClozeConfig(loss=MixedSoftmax(number=3, corrected=True)),
    ],
    ids=["states", "all states", "items", "corrected", "mixed", "mixed, corrected"],
)
def test_no_rows_are_a_zero_that_every_parameter_hangs_on(
    config: ObjectiveConfig, rows: list[list[int]], catalogue: Catalogue
) -> None:
    module = build_model(config, catalogue)
    loss = module.losses(batch_of(rows, length=LENGTH), measured=True)["only"]
    loss.total.backward()
    assert (loss.total.item(), loss.count.item()) == (0.0, 0.0)
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("config", [ContrastConfig(), ContrastConfig(states="all")])
def test_a_contrast_that_a_step_leaves_out_is_a_zero(
    config: ContrastConfig, catalogue: Catalogue
) -> None:
    module = build_model(config, catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    (inputs,) = module.prepare_micro_batches(batch, 1, excluded={"only"})
    loss = module(inputs)["only"]
    loss.total.backward()
    assert (loss.total.item(), loss.count.item()) == (0.0, 0.0)
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_one_row_alone_has_only_its_partner(catalogue: Catalogue) -> None:
    loss = build_model(ContrastConfig(), catalogue).losses(batch_of([[1, 2, 3]], length=LENGTH))[
        "only"
    ]
    assert (loss.total.item(), loss.count.item()) == (0.0, 2.0)


def test_foreign_rows_matter(catalogue: Catalogue) -> None:
    mixed = NextItemConfig(loss=MixedSoftmax(number=3))
    for config in (ContrastConfig(), NextItemConfig(loss=InBatchSoftmax()), mixed):
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

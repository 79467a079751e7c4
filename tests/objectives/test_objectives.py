"""One row a configuration: value and gradient equal a loop written from its paper.

A new objective adds its line to `CASES` and its loop to `tests/objectives/twins.py`. A loop gives
the loss of one window, so that the sum over windows is at once the proof that foreign sequences do
not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import LossSum, ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.head import Head, HeadConfig
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    GeneralizedBCE,
    ItemLossConfig,
    SampledSoftmax,
)
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.packed import Packed
from research.training.multi_objective import MultiObjectiveModel
from tests.evaluation.reference_ranks import scores_of_all
from tests.objectives import twins
from tests.support import reference
from tests.support.objective_cases import (
    ATTRIBUTES,
    BERT_HEAD,
    CASES,
    ITEMS,
    LENGTH,
    MASKED,
    NUM_ATTRIBUTES,
    OUTSIDE_WINDOW,
    POPULAR,
    ROWS,
    VECTORS,
)
from tests.support.synthetic import batch_of, catalogue_of, encoder_of, randomize_parameters


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """User 4 has trained on other items than stand in row 4; three users have held-out items."""
    return catalogue_of(
        [*ROWS[:4], [2, 9, 10, 11]],
        ITEMS,
        held_out=[[11, 7], [3], [], [], [5, 6]],
        attributes=ATTRIBUTES,
        num_attributes=NUM_ATTRIBUTES,
        vectors=VECTORS,
    )


def build_model(
    config: ObjectiveConfig, catalogue: Catalogue, **changes: object
) -> MultiObjectiveModel:
    """An encoder under one objective, in float64, without dropout, no parameter at its start."""
    sizes = TransformerConfig(
        length=LENGTH, width=8, heads=2, layers=1, feed_forward=12,
        embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    encoder = encoder_of(sizes, ITEMS)
    objective = config.build(ModelComponents(sizes, catalogue, 0), 0)
    model = MultiObjectiveModel(encoder, {"only": objective}, catalogue).double()
    randomize_parameters(model, std=0.3)
    return model


def both(config: ObjectiveConfig, catalogue: Catalogue, rows: Sequence[list[int]]) -> tuple[
    tuple[LossSum, dict[str, Tensor]], tuple[Tensor, int, dict[str, Tensor]]
]:  # fmt: skip
    """(loss, gradients) of the module, (total, count, gradients) of the loop."""
    module = build_model(config, catalogue)
    batch = batch_of(rows, length=LENGTH)
    ours = module.losses(batch)["only"]
    ours_grads = gradients(module, ours.total)
    losses = []
    for user, (row, state) in enumerate(zip(rows, batch.random_states_S.tolist(), strict=True)):
        losses += twins.losses_of_window(config, module, catalogue, row, user, state)
    total = torch.stack(losses).sum()
    return (ours, ours_grads), (total, len(losses), gradients(module, total))


def gradients(module: MultiObjectiveModel, total: Tensor) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    total.backward()
    return {
        name: torch.zeros_like(each) if each.grad is None else each.grad
        for name, each in module.named_parameters()
    }


# float64 agrees to about 1e-13; the buffer of log q is float32, taken over by the loop as it is.
@pytest.mark.parametrize("name", CASES)
def test_value_count_and_gradients_equal_the_loop(name: str, catalogue: Catalogue) -> None:
    (ours, ours_grads), (total, count, grads) = both(CASES[name], catalogue, ROWS)
    assert ours.count.item() == count
    assert ours.count.dtype == torch.float64
    torch.testing.assert_close(ours.total, total, rtol=1e-10, atol=1e-10)
    for parameter, grad in grads.items():
        torch.testing.assert_close(
            ours_grads[parameter], grad, rtol=1e-10, atol=1e-10, msg=parameter
        )


@pytest.mark.parametrize("name", CASES)
def test_parameters_start_by_the_seed_and_no_global_generator(
    name: str, catalogue: Catalogue
) -> None:
    sizes = TransformerConfig(length=LENGTH, width=8, heads=2, layers=1, feed_forward=12)
    starts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        objective = CASES[name].build(ModelComponents(sizes, catalogue, 0), 0)
        starts.append(objective.state_dict())
    assert all(torch.equal(one, starts[1][name]) for name, one in starts[0].items())


def test_a_row_may_share_negatives_from_outside_its_window(catalogue: Catalogue) -> None:
    loss = BayesianPersonalizedRanking(number=3, share="sequence", negatives=OUTSIDE_WINDOW)
    (ours, _), (total, count, _) = both(MIPConfig(loss=loss), catalogue, ROWS)
    assert ours.count.item() == count
    torch.testing.assert_close(ours.total, total, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rows", [[], [[]], [[], []]], ids=["no rows", "one empty", "two empty"])
@pytest.mark.parametrize("name", CASES)
def test_an_empty_pick_is_a_zero_that_every_parameter_hangs_on(
    name: str, rows: list[list[int]], catalogue: Catalogue
) -> None:
    module = build_model(CASES[name], catalogue)
    loss = module.losses(batch_of(rows, length=LENGTH))["only"]
    loss.total.backward()
    assert (loss.total.item(), loss.count.item()) == (0.0, 0.0)
    for parameter, value in module.named_parameters():
        if not value.requires_grad:
            continue
        assert value.grad is not None, parameter
        assert not value.grad.any(), parameter


def test_a_window_of_one_item_has_nothing_next(catalogue: Catalogue) -> None:
    loss = build_model(NextItemConfig(), catalogue).losses(batch_of([[3], [4]], length=LENGTH))[
        "only"
    ]
    loss.total.backward()
    assert (loss.total.item(), loss.count.item()) == (0.0, 0.0)


@pytest.mark.parametrize("name", CASES)
def test_foreign_sequences_do_not_matter(name: str, catalogue: Catalogue) -> None:
    module = build_model(CASES[name], catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    alone = 0.0
    for row, sequence in enumerate(ROWS):
        one = batch_of(
            [sequence], length=LENGTH, users=[row], states=batch.random_states_S[row : row + 1]
        )
        alone += module.losses(one)["only"].total.item()
    # Sums of about twenty terms of order one, in another order.
    assert module.losses(batch)["only"].total.item() == pytest.approx(alone, abs=1e-10)


@pytest.mark.parametrize("number", [2, 3, 7])
@pytest.mark.parametrize("name", CASES)
def test_a_batch_cut_into_pieces_has_the_same_loss_and_gradients(
    name: str, number: int, catalogue: Catalogue
) -> None:
    module = build_model(CASES[name], catalogue)
    batch = batch_of(ROWS, length=LENGTH)
    whole = module.losses(batch)["only"]
    expected = gradients(module, whole.total)
    pieces = [module(piece)["only"] for piece in module.prepare_micro_batches(batch, number)]
    assert len(pieces) == number
    assert module.objectives["only"].couples_rows is None
    assert sum(piece.count.item() for piece in pieces) == whole.count.item()
    total = torch.stack([piece.total for piece in pieces]).sum()
    assert total.item() == pytest.approx(whole.total.item(), abs=1e-10)
    for parameter, grad in gradients(module, total).items():
        torch.testing.assert_close(expected[parameter], grad, rtol=1e-10, atol=1e-10, msg=parameter)


@pytest.mark.parametrize("config", [NextItemConfig(), ClozeConfig(corruption=MaskItems(rate=0.9))])
def test_every_item_can_be_a_label_and_learns_from_it(
    config: ObjectiveConfig, catalogue: Catalogue
) -> None:
    for item in range(ITEMS):
        module = build_model(config, catalogue)
        other = (item + 1) % ITEMS
        loss = module.losses(batch_of([[other, item]], length=LENGTH))["only"]
        assert loss.count.item() >= 1
        loss.total.backward()
        assert module.encoder.item_table.weight.grad[item].abs().sum() > 0


def test_the_mask_row_learns_under_cloze_alone(catalogue: Catalogue) -> None:
    learns = []
    for config in (ClozeConfig(), NextItemConfig()):
        module = build_model(config, catalogue)
        module.losses(batch_of([[1, 2, 3]], length=LENGTH))["only"].total.backward()
        learns.append(bool(module.encoder.item_table.weight.grad[ITEMS].any()))
    assert learns == [True, False]


@pytest.mark.parametrize("kind", [AAPConfig, MAPConfig])
def test_every_attribute_learns_even_one_that_no_item_has(kind: type, catalogue: Catalogue) -> None:
    # The first attribute is one like any other; attribute 1 learns that it is false.
    module = build_model(kind(corruption=MaskItems(rate=0.5), zero_attribute=True), catalogue)
    module.losses(batch_of([[0, 1, 2, 4]], length=LENGTH))["only"].total.backward()
    table = module.get_parameter("shared.attributes.attribute_table.weight")
    assert (table.grad.abs().sum(1) > 0).tolist() == [True] * NUM_ATTRIBUTES
    assert module.get_parameter("shared.zero.row").grad.any()


def test_aap_and_map_share_attributes_and_not_their_projections(catalogue: Catalogue) -> None:
    shared = ModelComponents(build_model(AAPConfig(), catalogue).encoder.config, catalogue, 0)
    parts = [config.build(shared, 0) for config in (AAPConfig(), MAPConfig())]
    tables, layers = (
        [part.get_parameter(name) for part in parts]
        for name in ("head.attributes.attribute_table.weight", "head.dense.weight")
    )
    assert tables[0] is tables[1]
    assert not torch.equal(layers[0], layers[1])


def test_log_q_is_subtracted_from_target_and_negatives(catalogue: Catalogue) -> None:
    # With all scores equal, the corrected softmax is that of 1/q over the drawn items.
    config = SampledSoftmax(number=3, log_q=True, negatives=POPULAR)
    module = build_model(NextItemConfig(loss=config), catalogue)
    with torch.no_grad():
        module.encoder.item_table.weight.zero_()
    batch = batch_of([[1, 2]], length=LENGTH)
    loss = module.losses(batch)["only"].total.item()
    drawn = twins.negatives_of(
        config, catalogue, [1, 2], 0, batch.random_states_S[0].item(), 0, "next"
    )
    counts = catalogue.training.counts_V.double()
    inverse = [1 / counts[item].item() for item in [2, *drawn]]
    # q is kept in float32, which is good to 1e-7.
    expected = -torch.tensor(inverse[0] / sum(inverse)).log().item()
    assert loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("head", [HeadConfig(), BERT_HEAD, HeadConfig(table="own", bias=True)])
def test_candidate_scores_are_columns_of_all_scores(head: HeadConfig, catalogue: Catalogue) -> None:
    module = build_model(ClozeConfig(head=head), catalogue)
    ranker = TrainedRanker(module.encoder, module.objectives["only"])
    histories, users_S = Packed.from_lists([[1, 2], [3]]), torch.tensor([0, 1])
    items_SN = torch.tensor([[0, 11, 5], [7, 7, 2]])
    encoded = ranker.encode(histories, users_S)
    assert encoded.columns == ITEMS
    scores_SV = encoded.scores(0, ITEMS)
    assert scores_SV.shape == (2, ITEMS)
    picked_SN = encoded.scores_of(items_SN)
    torch.testing.assert_close(picked_SN, scores_SV.gather(1, items_SN), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("head", [HeadConfig(), BERT_HEAD, HeadConfig(table="own", bias=True)])
@pytest.mark.parametrize("kind", [NextItemConfig, ClozeConfig])
def test_ranking_scores_equal_the_loop(kind: type, head: HeadConfig, catalogue: Catalogue) -> None:
    module = build_model(kind(head=head), catalogue)
    objective = module.objectives["only"]
    ranker = TrainedRanker(module.encoder, objective)
    rows = [[1], [2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5]]
    scores_SV = scores_of_all(ranker, Packed.from_lists(rows))
    for row, sequence in enumerate(rows):
        cloze = kind is ClozeConfig
        seen = [*sequence[-(LENGTH - 1) :], ITEMS] if cloze else sequence[-LENGTH:]
        hidden_D = reference.encode(module.encoder, seen, causal=not cloze)[-1]
        assert isinstance(objective.head, Head)
        expected_V = torch.stack(reference.head_scores(objective.head, module.encoder, hidden_D))
        torch.testing.assert_close(scores_SV[row], expected_V, rtol=1e-10, atol=1e-10)


def test_ranking_leaves_the_training_mode_as_it_was(catalogue: Catalogue) -> None:
    module = build_model(ClozeConfig(), catalogue)
    ranker = TrainedRanker(module.encoder, module.objectives["only"])
    for training in (True, False):
        module.train(training)
        ranker.encode(Packed.from_lists([[1]]), torch.tensor([0]))
        assert all(part.training is training for part in module.modules())


def calls_of(
    objectives: dict[str, ObjectiveConfig], catalogue: Catalogue
) -> list[tuple[bool, int]]:
    """(causal, sequences) of each call of the encoder in one step."""
    module = build_model(next(iter(objectives.values())), catalogue)
    built = {
        name: config.build(ModelComponents(module.encoder.config, catalogue, 0), 0).double()
        for name, config in objectives.items()
    }
    calls = []

    def note(part: object, given: tuple[Packed], named: dict[str, bool]) -> None:
        calls.append((named["causal"], given[0].num_sequences))

    module.encoder.register_forward_pre_hook(note, with_kwargs=True)
    losses = MultiObjectiveModel(module.encoder, built, catalogue).losses(
        batch_of(ROWS, length=LENGTH)
    )
    assert list(losses) == list(objectives)
    return calls


def test_equal_corruptions_share_one_encoding(catalogue: Catalogue) -> None:
    objectives = {"a": ClozeConfig(weight=2.0), "b": ClozeConfig(head=BERT_HEAD)}
    assert calls_of(objectives, catalogue) == [(False, 5)]


def test_the_encoder_is_called_once_a_direction(catalogue: Catalogue) -> None:
    objectives = {
        "next": NextItemConfig(),
        "cloze": ClozeConfig(),
        "heavier": ClozeConfig(corruption=MaskItems(rate=0.5)),
    }
    assert calls_of(objectives, catalogue) == [(False, 10), (True, 5)]


def test_an_objective_has_the_same_loss_alone_and_in_company(catalogue: Catalogue) -> None:
    module = build_model(ClozeConfig(corruption=MASKED), catalogue)
    objective = module.objectives["only"]
    other = NextItemConfig().build(ModelComponents(module.encoder.config, catalogue, 0), 0).double()
    batch: Batch = batch_of(ROWS, length=LENGTH)
    alone = module.losses(batch)["only"].total.item()
    company = MultiObjectiveModel(
        module.encoder, {"next": other, "only": objective}, catalogue
    ).losses(batch)
    assert company["only"].total.item() == pytest.approx(alone, abs=1e-10)


@pytest.mark.parametrize(
    "loss",
    [
        SampledSoftmax(number=0),
        BinaryCrossEntropy(number=0),
        GeneralizedBCE(number=0),
        BayesianPersonalizedRanking(number=0),
    ],
)
def test_no_negatives_at_all_are_refused(loss: ItemLossConfig, catalogue: Catalogue) -> None:
    with pytest.raises(InputError, match=r"loss\.number is 0; draw at least 1 negative"):
        build_model(NextItemConfig(loss=loss), catalogue)

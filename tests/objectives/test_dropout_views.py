"""DuoRec's views: an input beside itself, or beside another user's history up to the same target.

The positives are drawn as by a loop over all training histories, and the loss equals the loop of
`tests/objectives/test_coupled.py`; that several processes give what one gives is held by
tests/distributed/test_collectives.py.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.components import ModelComponents
from research.objectives.contrast import ContrastConfig
from research.objectives.dropout_views import DropoutViews
from research.objectives.next_item import NextItemConfig
from research.packed import Packed
from research.randomness import fold, seed_of
from research.training.multi_objective import MultiObjectiveModel
from tests.support import reference
from tests.support.small_runs import FINETUNE, config_of, input_error_of
from tests.support.synthetic import batch_of, catalogue_of, encoder_of, write_histories

ITEMS, LENGTH = 12, 4
# Each user's training items; the last two are held out, and not told to anyone.
HISTORIES = [[0, 1, 2, 3, 4, 5, 6, 7], [8, 7], [], [1, 9, 7, 2], [7, 3, 7], [10], [11, 10, 11]]
HELD_OUT = [[7, 7]] * len(HISTORIES)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return catalogue_of(HISTORIES, ITEMS, held_out=HELD_OUT)


def sequences(packed: Packed) -> list[list[int]]:
    bounds = packed.offsets.tolist()
    items = packed.items_T.tolist()
    return [items[begin:end] for begin, end in itertools.pairwise(bounds)]


def pairs_by_loop(rows: Sequence[list[int]], users: Sequence[int], states: Sequence[int]) -> list[
    list[int]
]:  # fmt: skip
    """The views of rows, one after the other, by a loop over all histories."""
    views = []
    for row, user, state in zip(rows, users, states, strict=True):
        if len(row) < 2:
            continue
        own = row[-LENGTH - 1 : -1]
        others = [
            history[max(0, place - LENGTH) : place]
            for other, history in enumerate(HISTORIES)
            for place, item in enumerate(history)
            if other != user and item == row[-1] and place > 0
        ]
        bits = reference.random_bits(state, seed_of("same target"))
        views += [own, others[reference.random_below(bits, len(others))] if others else own]
    return views


def test_positives_are_drawn_as_by_a_loop_over_all_histories(catalogue: Catalogue) -> None:
    # Every prefix of every history, some of one item, with many random states.
    rows, users = [], []
    for user, history in enumerate(HISTORIES):
        for stop in range(len(history) + 1):
            rows += [history[:stop]] * 9
            users += [user] * 9
    states = fold(99, torch.arange(len(rows)))
    batch = batch_of(rows, length=LENGTH, users=users, states=states)
    view = DropoutViews().view(batch, catalogue)
    assert sequences(view.packed) == pairs_by_loop(rows, users, states.tolist())
    assert view.row_S.tolist() == [
        number for number, row in enumerate(rows) if len(row) > 1 for _ in range(2)
    ]
    assert view.picked_P.tolist() == (view.packed.offsets[1:] - 1).tolist()
    assert view.packed.longest <= LENGTH


def test_all_places_of_other_users_are_drawn_and_no_held_out_one(catalogue: Catalogue) -> None:
    batch = batch_of([[7, 3, 7]] * 600, length=LENGTH, users=[4] * 600)
    views = sequences(DropoutViews().view(batch, catalogue).packed)
    drawn = Counter(tuple(each) for each in views[1::2])
    # The newest four items before the 7 of user 0; user 4's own, and the held-out ones, are absent.
    assert drawn.keys() == {(3, 4, 5, 6), (8,), (1, 9)}
    # 200 each, with a standard deviation of 11.5.
    assert min(drawn.values()) > 140
    assert views[::2] == [[7, 3]] * 600


def test_a_row_whose_target_no_other_user_follows_up_to_stands_beside_itself(
    catalogue: Catalogue,
) -> None:
    # User 5 has item 10 first, where nothing comes before it; item 11 is user 6's alone.
    rows = [[11, 10], [11, 10, 11]]
    batch = batch_of(rows, length=LENGTH, users=[6, 6])
    views = sequences(DropoutViews().view(batch, catalogue).packed)
    assert views == [[11], [11], [11, 10], [11, 10]]


def test_an_input_beside_itself_needs_no_other_user() -> None:
    alone = catalogue_of([[3, 1, 2]], ITEMS)
    batch = batch_of([[3, 1, 2], [5]], length=2)
    views = sequences(DropoutViews(positive="row").view(batch, alone).packed)
    assert views == [[3, 1], [3, 1]]
    assert sequences(DropoutViews().view(batch, alone).packed) == views


def test_a_rows_views_are_the_same_alone_and_in_any_batch(catalogue: Catalogue) -> None:
    rows = [*HISTORIES, *HISTORIES]
    users = [*range(7), *range(7)]
    states = fold(5, torch.arange(len(rows)))
    views = sequences(
        DropoutViews()
        .view(batch_of(rows, length=LENGTH, users=users, states=states), catalogue)
        .packed
    )
    apart = []
    for number, (row, user) in enumerate(zip(rows, users)):
        batch = batch_of([row], length=LENGTH, users=[user], states=states[number : number + 1])
        apart += sequences(DropoutViews().view(batch, catalogue).packed)
    assert views == apart


@pytest.mark.parametrize("rows", [[], [[]], [[4]]])
@pytest.mark.parametrize("histories", [[[]], [[4]], HISTORIES])
def test_rows_without_a_target_give_an_empty_view(
    rows: list[list[int]], histories: list[list[int]]
) -> None:
    view = DropoutViews().view(batch_of(rows, length=LENGTH), catalogue_of(histories, ITEMS))
    assert (view.packed.num_sequences, view.packed.num_tokens, len(view.picked_P)) == (0, 0, 0)


def test_drawn_tokens_have_the_time_of_the_inputs_newest_token(catalogue: Catalogue) -> None:
    packed = Packed.from_lists([[8, 0, 7]], {"time": [[30, 40, 50]]})
    batch = replace(batch_of([[8, 0, 7]], length=LENGTH, users=[1]), packed=packed)
    view = DropoutViews().view(batch, catalogue)
    own, drawn = sequences(view.packed)
    assert own == [8, 0]
    assert view.packed.fields["time"].tolist() == [30, 40] + [40] * len(drawn)


@pytest.mark.parametrize("positive", ["target", "row"])
def test_the_loss_is_the_loop_from_the_equations(positive: str, catalogue: Catalogue) -> None:
    sizes = TransformerConfig(
        length=LENGTH, width=8, heads=2, layers=1, feed_forward=12, dropout=0.0
    )
    config = ContrastConfig(corruption=DropoutViews(positive=positive))  # type: ignore[arg-type]
    objective = config.build(ModelComponents(sizes, catalogue, 0), 0)
    model = MultiObjectiveModel(encoder_of(sizes, ITEMS), {"only": objective}, catalogue).double()
    batch = batch_of(HISTORIES, length=LENGTH)
    ours = model.losses(batch)["only"]
    views = pairs_by_loop(HISTORIES, range(7), batch.random_states_S.tolist())
    if positive == "row":
        views = [views[place - place % 2] for place in range(len(views))]
    states = [reference.encode(model.encoder, view, causal=True)[-1] for view in views]
    losses = []
    for place, state_D in enumerate(states):
        scores = [(state_D * other_D).sum() for other_D in states]
        positive_score = scores[place ^ 1]
        others = [score for other, score in enumerate(scores) if other // 2 != place // 2]
        losses.append(torch.stack([positive_score, *others]).logsumexp(0) - positive_score)
    # Five of the seven rows have two items.
    assert ours.count.item() == len(losses) == 10
    total = torch.stack(losses).sum()
    torch.testing.assert_close(ours.total, total, rtol=1e-10, atol=1e-10)
    parameters = list(model.parameters())
    grads = torch.autograd.grad(ours.total, parameters)
    for grad, twin in zip(grads, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(grad, twin, rtol=1e-9, atol=1e-10)


def test_under_dropout_the_two_copies_of_an_input_differ(catalogue: Catalogue) -> None:
    for part in ("embedding_dropout", "hidden_dropout", "attention_dropout"):
        rates = {"embedding_dropout": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0}
        sizes = TransformerConfig(
            length=LENGTH, width=8, heads=2, layers=1, feed_forward=12, **{**rates, part: 0.5}
        )
        encoder = encoder_of(sizes, ITEMS)
        batch = batch_of(HISTORIES, length=LENGTH)
        packed = DropoutViews(positive="row").view(batch, catalogue).packed
        torch.manual_seed(0)
        first_RD, second_RD = (
            encoder(packed, causal=True, read_P=packed.last_S).view(-1, 2, 8).unbind(1)
        )
        # The first row's inputs are long enough that some token or weight is dropped.
        assert not torch.allclose(first_RD[0], second_RD[0]), part


def test_a_stage_in_which_no_row_has_a_target_is_refused(tmp_path: Path) -> None:
    histories = [[user % 5, (user + 1) % 5, (user + 2) % 5] for user in range(20)]
    corpus = write_histories(tmp_path / "corpus", histories, num_items=5)
    contrast = ContrastConfig(corruption=DropoutViews())
    objectives = {"contrast": contrast, "next": NextItemConfig(weight=0.0)}
    error = input_error_of(config_of(corpus, replace(FINETUNE, objectives=objectives)), tmp_path)
    assert error.startswith(
        "stage finetune: objective contrast can have no target: no row has the 2 items that its "
        "views take"
    )


def test_another_positive_is_refused() -> None:
    with pytest.raises(InputError, match=r"positive is 'user'; allowed: target \| row"):
        DropoutViews(positive="user")  # type: ignore[arg-type]

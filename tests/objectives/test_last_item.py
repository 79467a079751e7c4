"""The newest item of a row as the only target, from a state that may see the whole row."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from research.data.catalogue import Catalogue
from research.data.windows import EveryPrefix
from research.errors import InputError
from research.model.backbone import Direction
from research.model.positions import LearnedPositions
from research.model.transformer_config import TransformerConfig
from research.objectives.base import Corruption
from research.objectives.components import ModelComponents
from research.objectives.next_item import (
    LastItem,
    LastItemBothWays,
    NextItemConfig,
    NextItemShift,
)
from research.objectives.ranker import TrainedRanker
from research.packed import Packed
from research.runs.execute import execute
from research.training.multi_objective import MultiObjectiveModel
from tests.evaluation.reference_ranks import scores_of_all
from tests.support import reference
from tests.support.small_runs import (
    ENCODER,
    FINETUNE,
    QUIET,
    config_of,
    corpus_in,
    input_error_of,
)
from tests.support.synthetic import batch_of, catalogue_of, randomize_parameters

ITEMS = 12
ROWS = [[0, 1, 2, 3, 4, 5, 6, 0], [7], [], [8, 0], [2, 2, 9]]
LAST = NextItemConfig(predict="last")
BOTH_WAYS = NextItemConfig(predict="last", direction="bidirectional")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return catalogue_of(ROWS, ITEMS)


@pytest.mark.parametrize("corruption", [LastItem(), LastItemBothWays()])
def test_the_newest_item_is_the_target_of_all_before_it(
    corruption: Corruption, catalogue: Catalogue
) -> None:
    view = corruption.view(batch_of(ROWS, length=6), catalogue)
    bounds = view.packed.offsets.tolist()
    items = view.packed.items_T.tolist()
    rows = [items[begin:end] for begin, end in itertools.pairwise(bounds)]
    assert rows == [[1, 2, 3, 4, 5, 6], [], [], [8], [2, 2]]
    assert view.packed.positions_T.tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 1]
    assert view.picked_P.tolist() == [5, 6, 8]
    assert view.items_P.tolist() == [0, 0, 9]
    assert view.packed.longest == 6


@pytest.mark.parametrize("rows", [[], [[]], [[3], []]])
def test_rows_without_a_second_item_have_no_target(
    rows: list[list[int]], catalogue: Catalogue
) -> None:
    view = LastItemBothWays().view(batch_of(rows, length=6), catalogue)
    assert view.picked_P.shape == view.items_P.shape == (0,)
    assert view.packed.num_tokens == 0


def test_the_direction_is_that_of_the_corruption() -> None:
    configs = (NextItemConfig(), LAST, BOTH_WAYS)
    kinds = [type(config.corruption) for config in configs]
    assert kinds == [NextItemShift, LastItem, LastItemBothWays]
    assert [config.corruption.causal for config in configs] == [True, True, False]


def test_on_all_prefixes_the_last_items_are_what_all_items_of_the_history_are(
    catalogue: Catalogue,
) -> None:
    positions = LearnedPositions(count_from="oldest")
    sizes = TransformerConfig(length=8, width=8, heads=2, feed_forward=12, positions=positions)
    row = ROWS[0]
    prefixes = [row[:length] for length in range(1, len(row) + 1)]
    totals = []
    for config, rows in ((NextItemConfig(), [row]), (LAST, prefixes)):
        shared = ModelComponents(sizes, catalogue, 0)
        module = MultiObjectiveModel(
            shared.encoder, {"only": config.build(shared, 0)}, catalogue
        ).double()
        module.eval()
        loss = module.losses(batch_of(rows, length=8))["only"]
        totals.append((loss.total.item(), loss.count.item()))
    assert totals[0] == (pytest.approx(totals[1][0], abs=1e-10), totals[1][1])


@pytest.mark.parametrize("config", [LAST, BOTH_WAYS], ids=["causal", "bidirectional"])
def test_ranking_reads_in_the_direction_of_training(
    config: NextItemConfig, catalogue: Catalogue
) -> None:
    # Two blocks: the newest state of one alone is the same in both directions.
    sizes = TransformerConfig(length=6, width=8, heads=2, layers=2, feed_forward=12)
    shared = ModelComponents(sizes, catalogue, 0)
    objective = config.build(shared, 0).double()
    encoder = shared.encoder.double()
    randomize_parameters(encoder, std=0.3)
    rows = [[1], [2, 3, 4, 5, 6, 7, 8, 9], [0, 1, 2, 3, 4, 5]]
    scores_SV = scores_of_all(TrainedRanker(encoder, objective), Packed.from_lists(rows))
    encoder.eval()
    for row, scores_V in zip(rows, scores_SV, strict=True):
        hidden_D = reference.encode(encoder, row[-6:], causal=config is LAST)[-1]
        expected_V = torch.stack(reference.head_scores(objective.head, encoder, hidden_D))
        torch.testing.assert_close(scores_V, expected_V, rtol=1e-10, atol=1e-10)


def test_all_items_cannot_be_predicted_from_both_sides() -> None:
    with pytest.raises(InputError, match="each state would see the item that it has to predict"):
        NextItemConfig(direction="bidirectional")


@dataclass(frozen=True, kw_only=True)
class BothWaysOnly(TransformerConfig):
    """A transformer's config whose states are bidirectional alone, as a filter's are."""

    @property
    def directions(self) -> Collection[Direction]:
        """One."""
        return ("bidirectional",)


def test_an_encoder_without_a_causal_form_is_trained_and_ranked_on_next_items(
    tmp_path: Path,
) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    stage = replace(FINETUNE, objectives={"next": BOTH_WAYS}, windows=EveryPrefix(), epochs=1)
    config = replace(config_of(corpus, stage), encoder=BothWaysOnly(**vars(ENCODER)))
    assert execute(config, tmp_path / "run", options=QUIET).status == "finished"
    refused = replace(config, stages=(replace(stage, objectives={"next": LAST}),))
    message = input_error_of(refused, tmp_path)
    assert "objective next needs causal states, but encoder is a BothWaysOnly" in message


def test_an_encoder_of_one_item_can_be_trained_both_ways(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    stage = replace(FINETUNE, objectives={"next": BOTH_WAYS}, epochs=1)
    config = replace(config_of(corpus, stage), encoder=replace(ENCODER, length=1))
    assert execute(config, tmp_path / "run", options=QUIET).status == "finished"

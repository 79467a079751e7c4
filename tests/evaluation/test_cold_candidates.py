"""The candidate set of held-out items ranks as a loop over them does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.popularity import PopularityConfig
from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.candidates import AllItems
from research.evaluation.cold_candidates import ColdCandidates
from research.evaluation.rank_table import RankTable
from research.evaluation.ranking import rank_tables
from research.packed import Packed
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.parts import RunParts
from tests.support.synthetic import write_histories

ITEMS = 30


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores that are written down, with one column more than there are items."""

    scores_SC: Tensor

    @property
    def columns(self) -> int:
        return self.scores_SC.shape[1]

    @property
    def largest_S(self) -> Tensor:
        return self.scores_SC.abs().amax(1)

    def scores(self, first: int, last: int) -> Tensor:
        return self.scores_SC[:, first:last].clone()

    def scores_of(self, items_SN: Tensor) -> Tensor:
        return self.scores_SC.gather(1, items_SN)


class ByUser:
    """A ranker with few different scores, so that there are ties."""

    table_UC = torch.from_numpy(
        np.random.default_rng(3).integers(-2, 3, (50, ITEMS + 1)).astype(np.float32)
    )

    def encode(self, histories: Packed, users_S: Tensor) -> Scored:
        return Scored(self.table_UC[users_S])


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    draws = np.random.default_rng(0)
    histories = [draws.integers(ITEMS, size=draws.integers(3, 9)).tolist() for _ in range(50)]
    return write_histories(tmp_path / "corpus", histories, num_items=ITEMS)


@pytest.mark.parametrize("seen", ["excluded", "kept"])
def test_ranks_among_held_out_items_equal_the_loop(
    corpus: Corpus, seen: str, tmp_path: Path
) -> None:
    config = ColdItems(share=0.3)
    arranged, split = config.arranged_split(corpus)
    cold = config.items(corpus)
    tables = rank_tables(
        ByUser(), arranged, split.test, [AllItems(), ColdCandidates(cold)],
        seen=seen, protocol={}, counts_V=torch.zeros(ITEMS),
    )  # fmt: skip
    table = tables["cold"]
    for question in range(len(split.test)):
        scores = ByUser.table_UC[split.test.histories.users[question]]
        target = int(arranged.items[split.test.targets[question]])
        others = [item for item in cold.tolist() if item != target]
        higher = sum(float(scores[item]) > float(scores[target]) for item in others)
        ties = sum(float(scores[item]) == float(scores[target]) for item in others)
        assert table.rank[question] == 1 + higher + 0.5 * ties
        assert table.ties[question] == ties
    assert table.protocol["candidates"] == "cold"
    assert table.protocol["cold_items"] == "9"
    assert (tables["full"].rank >= table.rank).all()
    for name, each in tables.items():
        each.save(tmp_path / f"{name}.npz")
        assert (RankTable.load(tmp_path / f"{name}.npz").rank == each.rank).all()


def test_the_set_needs_the_split_that_holds_out_items(corpus: Corpus) -> None:
    cold = EvaluationConfig(candidates=("full", "cold"))
    with pytest.raises(InputError, match="split is LeaveOneOut, which holds out no items"):
        RunConfig(ranker=PopularityConfig(), evaluation=cold)
    with pytest.raises(InputError, match="set it to excluded or kept"):
        EvaluationConfig(candidates=("cold",), seen="zero")
    config = RunConfig(
        corpus=str(corpus.folder), ranker=PopularityConfig(), evaluation=cold, split=ColdItems()
    )
    parts = RunParts.of(config, "data")
    assert [each.name for each in parts.candidate_sets(parts.split.test, "test")] == [
        "full", "cold",
    ]  # fmt: skip
    with pytest.raises(InputError, match="--candidates full"):
        parts.candidate_sets(parts.split.validation, "validation")

"""Ranking multiplies in true fp32, whatever precision training or torch at large is set to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from research.model.kernels.precision import true_fp32
from research.model.transformer_config import TransformerConfig
from research.objectives.base import RankingObjective
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.packed import Packed
from tests.support.synthetic import catalogue_of

PARTS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, torch.backends.cudnn.rnn)


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")


def test_true_fp32_leaves_what_was_chosen_as_it_was(precision: str) -> None:
    left, right = torch.rand(64, 64), torch.rand(64, 64)
    before = [part.fp32_precision for part in PARTS]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with true_fp32(torch.device("cpu")):
            assert [part.fp32_precision for part in PARTS] == ["ieee"] * 3
            # torch.compile reads these, and torch refuses to tell of names that contradict.
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
            assert (left @ right).dtype == torch.float32
        assert (left @ right).dtype == torch.bfloat16
    assert [part.fp32_precision for part in PARTS] == before
    assert torch.get_float32_matmul_precision() == precision


def test_true_fp32_undoes_the_new_names_too() -> None:
    part = torch.backends.cuda.matmul
    part.fp32_precision = "tf32"
    try:
        with true_fp32(torch.device("cpu")):
            assert part.fp32_precision == "ieee"
        assert part.fp32_precision == "tf32"
    finally:
        part.fp32_precision = "none"
    assert torch.get_float32_matmul_precision() == "highest"


def test_an_error_leaves_what_was_chosen_as_it_was(precision: str) -> None:
    with pytest.raises(KeyError), true_fp32(torch.device("cpu")):
        raise KeyError
    assert torch.get_float32_matmul_precision() == precision


@pytest.mark.parametrize("config", [NextItemConfig(), ClozeConfig(head=HeadConfig(bias=True))])
def test_a_model_in_low_precision_ranks_as_one_in_fp32(
    config: NextItemConfig | ClozeConfig, precision: str
) -> None:
    sizes = TransformerConfig(length=4, width=8, layers=1, heads=2, feed_forward=8)
    shared = ModelComponents(sizes, catalogue_of([[0, 1, 2], [3, 4]], 5), 0)
    objective = config.build(shared, 0)
    assert isinstance(objective, RankingObjective)
    ranker = TrainedRanker(shared.encoder, objective)

    def scores() -> list[Tensor]:
        encoded = ranker.encode(Packed.from_lists([[1, 2], [3]]), torch.arange(2))
        items_SN = torch.tensor([[0, 4], [2, 1]])
        return [encoded.largest_S, encoded.scores(0, 5), encoded.scores_of(items_SN)]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = scores()
    torch.set_float32_matmul_precision("highest")
    for got, expected in zip(low, scores()):
        assert got.dtype == torch.float32
        assert torch.equal(got, expected)

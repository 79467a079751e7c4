"""Several processes rank a share each: every question once, the same table for all; and memory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.data.splits import HeldOut, LeaveOneOut
from research.evaluation.candidates import AllItems, CandidateSet, Listed
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.ranking import RankingShard, rank_tables
from research.evaluation.sampled_candidates import sample_candidates
from research.packed import Packed
from tests.evaluation.reference_ranks import EncodedRows, FixedScores, corpus_of

COUNTS_V = torch.arange(12)
COLUMNS = ("user", "item", "rank", "ties", "history_length", "item_count")


def world_of(users: int = 11) -> tuple[Corpus, HeldOut, Tensor]:
    """Users with histories of many lengths, some of whose answers they have seen; many ties."""
    draws = np.random.default_rng(5)
    histories = [draws.integers(0, 12, size).tolist() for size in draws.integers(3, 10, users)]
    corpus = corpus_of(histories, 12)
    # Two columns after the items, as special candidates have.
    scores = torch.from_numpy(draws.integers(0, 4, (users, 14)))
    return corpus, LeaveOneOut().split(corpus).test, scores


def sets_of(corpus: Corpus, held_out: HeldOut) -> list[CandidateSet]:
    listed = Listed("file-2", torch.arange(2 * len(held_out)).view(-1, 2) % 12)
    return [AllItems(), listed, sample_candidates(corpus, held_out, "uniform", 3, COUNTS_V, 0)]


def ranked(
    ranker: Ranker, corpus: Corpus, held_out: HeldOut, shard: RankingShard = RankingShard()
) -> dict[str, RankTable]:
    return rank_tables(
        ranker,
        corpus,
        held_out,
        sets_of(corpus, held_out),
        seen="excluded",
        protocol={"part": "test"},
        counts_V=COUNTS_V,
        shard=shard,
    )


def values_of(tables: Mapping[str, RankTable]) -> dict[str, object]:
    return {
        name: ([getattr(table, each).tolist() for each in COLUMNS], dict(table.protocol))
        for name, table in tables.items()
    }


def test_a_score_that_is_not_finite_is_told_by_every_process_alike() -> None:
    corpus, held_out, scores = world_of()
    scores = scores.double()
    scores[4] = torch.nan
    given: list[Tensor] = []

    def note(found: Tensor) -> Tensor:
        given.append(found)
        return torch.stack(given).sum(0)

    # Whoever has the user meets it; who comes last knows it from the sum.
    messages = []
    for rank in range(3):
        try:
            ranked(FixedScores(scores), corpus, held_out, RankingShard(rank, 3, note))
        except FloatingPointError as error:
            messages.append(str(error))
    assert len(given) == 3
    assert "first for user 4 (dense id)" in messages[-1]
    assert len(set(messages)) == 1


@pytest.mark.parametrize("processes", [2, 3, 11, 14])
def test_every_process_has_the_table_of_one_and_no_question_is_asked_twice(processes: int) -> None:
    corpus, held_out, scores = world_of()
    alone = ranked(FixedScores(scores), corpus, held_out)
    assert np.isinf(alone["full"].rank).any()
    given: list[Tensor] = []
    rankers = [FixedScores(scores) for _ in range(processes)]

    def note(found: Tensor) -> Tensor:
        given.append(found)
        return found

    for rank, ranker in enumerate(rankers):
        ranked(ranker, corpus, held_out, RankingShard(rank, processes, note))
    # One reduction a process, whatever the number of candidate sets.
    assert len(given) == processes
    shares = [list(chain(*ranker.asked)) for ranker in rankers]
    whole = FixedScores(scores)
    ranked(whole, corpus, held_out)
    assert sorted(chain(*shares)) == sorted(chain(*whole.asked))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    total = torch.stack(given).sum(0)
    for rank in range(processes):
        tables = ranked(
            FixedScores(scores),
            corpus,
            held_out,
            RankingShard(rank, processes, lambda found: total),
        )
        assert values_of(tables) == values_of(alone)
        assert tables["full"].protocol["special_candidates"] == 2
        assert [tables["full"].rank.dtype, tables["full"].ties.dtype] == [np.float64, np.int32]


def test_one_process_asks_nobody() -> None:
    corpus, held_out, scores = world_of()

    def add(found: Tensor) -> Tensor:
        raise AssertionError("one process has nobody to ask")

    ranked(FixedScores(scores), corpus, held_out, RankingShard(0, 1, add))


class Cramped(FixedScores):
    """A ranker that has memory for so many histories at a time."""

    def __init__(self, table_UV: Tensor, most: int, error: Exception) -> None:
        super().__init__(table_UV)
        self.most = most
        self.error = error
        self.sizes: list[int] = []

    def encode(self, histories: Packed, users_S: Tensor) -> EncodedRows:
        self.sizes.append(len(users_S))
        if len(users_S) > self.most:
            raise self.error
        return super().encode(histories, users_S)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_fewer_questions_are_ranked_at_a_time(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, held_out, scores = world_of()
    ranker = Cramped(scores, 3, error)
    tables = ranked(ranker, corpus, held_out)
    assert values_of(tables) == values_of(ranked(FixedScores(scores), corpus, held_out))
    assert ranker.sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert capsys.readouterr().err == (
        "ranking 11 histories at a time did not fit into memory; from here on at most 2 are, with "
        "the same results\n"
    )


def test_memory_for_not_even_one_question_is_an_error_that_says_what_to_do() -> None:
    corpus, held_out, scores = world_of()
    ranker = Cramped(scores, 0, ERRORS[0])
    with pytest.raises(MemoryError) as caught:
        ranked(ranker, corpus, held_out)
    assert ranker.sizes == [11, 5, 2, 1]
    assert str(caught.value) == (
        "one history alone does not fit into memory: user 2 (dense id), 2 items, 12 "
        "items to score (CUDA out of memory. Tried to allocate 2.00 GiB.); stop what else uses the "
        "memory, take a larger machine, or train an encoder of a smaller encoder.length or "
        "encoder.width"
    )


def test_another_error_of_a_ranker_is_not_taken_for_a_lack_of_memory() -> None:
    corpus, held_out, scores = world_of()
    ranker = Cramped(scores, 3, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ranked(ranker, corpus, held_out)
    assert ranker.sizes == [11]

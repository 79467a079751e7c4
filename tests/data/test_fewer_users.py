"""Training on a share of the users: who is trained on, and that everyone is asked all the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.data.split_config import with_fewer_users
from research.data.splits import LeaveOneOut, training_counts
from research.errors import InputError
from research.evaluation.popularity import Popularity
from research.objectives.sp import CutSegment, SPConfig
from research.public.study import study
from research.runs.audit import audit_run
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import execute
from research.runs.parts import RunParts
from research.training.config import StageConfig
from tests.support.small_runs import QUIET
from tests.support.synthetic import write_histories

# Ten users; user u trains on item u alone, and is asked for items 10 and 11.
HISTORIES = [[user, 10, 11] for user in range(10)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_histories(tmp_path_factory.mktemp("users") / "c", HISTORIES, num_items=12)


def users_of(corpus: Corpus, share: float, seed: int = 0) -> list[int]:
    whole = LeaveOneOut().split(corpus)
    split = with_fewer_users(whole, share, seed)
    assert np.array_equal(split.test.targets, whole.test.targets)
    assert np.array_equal(split.validation.targets, whole.validation.targets)
    users = split.training.users.tolist()
    assert users == sorted(users)
    assert training_counts(corpus, split).nonzero().flatten().tolist() == users
    return users


def test_users_of_a_smaller_share_are_among_those_of_a_larger(corpus: Corpus) -> None:
    chosen = [set(users_of(corpus, share)) for share in (0.01, 0.1, 0.25, 0.5, 1.0)]
    assert [len(users) for users in chosen] == [1, 1, 2, 5, 10]
    for smaller, larger in pairwise(chosen):
        assert smaller <= larger


def test_the_seed_draws_the_users(corpus: Corpus) -> None:
    drawn = {tuple(users_of(corpus, 0.3, seed)) for seed in range(20)}
    assert len(drawn) > 10
    assert {user for users in drawn for user in users} == set(range(10))


def test_a_run_counts_only_what_it_is_trained_on_and_asks_everyone(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = replace(popularity(), corpus=str(corpus.folder), training_share=0.3, seed=5)
    parts = RunParts.of(config, "data")
    users = users_of(corpus, 0.3, seed=5)
    assert parts.catalogue.training.counts_V.nonzero().flatten().tolist() == users
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert summary.users.evaluated == 10
    findings = {each.check: each for each in audit_run(tmp_path / "run", "data")}
    assert findings["rows without a target"].numbers["users"] == len(users)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="training_share is"):
        RunConfig(training_share=share, ranker=popularity().ranker)


def test_candidates_and_tables_go_by_the_counts_of_all_users(corpus: Corpus) -> None:
    evaluation = EvaluationConfig(candidates=("full", "popularity-3"))
    config = replace(popularity(), corpus=str(corpus.folder), evaluation=evaluation)
    tables = []
    for share, seed in ((1.0, 0), (0.3, 0), (0.3, 1)):
        parts = RunParts.of(replace(config, training_share=share, seed=seed), "data")
        assert parts.protocol_counts_V.tolist() == [1] * 10 + [0, 0]
        tables.append(parts.tables(Popularity(parts.catalogue.training.counts_V), "test"))
    for name in ("full", "popularity-3"):
        first, *others = (each[name] for each in tables)
        for table in others:
            assert table.protocol == first.protocol
            assert np.array_equal(table.item_count, first.item_count)


def test_a_study_of_shares_runs_every_seed_of_a_counting_ranker_and_is_reported(
    corpus: Corpus, tmp_path: Path
) -> None:
    base = popularity()
    cells = {"all": base, "few": replace(base, training_share=0.3)}
    result = study(cells, str(corpus.folder), seeds=(0, 1), name="shares", out=tmp_path)
    runs = sorted(path.parent for path in (tmp_path / "shares").rglob("summary.json"))
    names = ["/".join(run.parts[-2:]) for run in runs]
    assert names == ["all/0", "few/0", "few/1"]
    assert result.report().is_file()


def test_published_segments_of_everyone_do_not_go_with_a_share() -> None:
    objective = SPConfig(corruption=CutSegment(foreign="everything"))
    stage = StageConfig(name="pretrain", objectives={"sp": objective}, validation=None)
    with pytest.raises(InputError, match=r"users whom training_share 0\.5 leaves out"):
        RunConfig(training_share=0.5, stages=(stage,))

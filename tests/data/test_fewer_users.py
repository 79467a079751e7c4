"""Training on a share of the users: who is trained on, and that everyone is asked all the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate import Accelerator

from baselines.popularity import popularity
from research.config import to_json
from research.data.corpus import Corpus
from research.data.splits import LeaveOneOut, training_counts
from research.data.user_range import TrainedUsers, UserRange
from research.errors import InputError
from research.evaluation.popularity import Popularity
from research.objectives.cloze import ClozeConfig
from research.objectives.in_batch_softmax import InBatchSoftmax, InBatchSoftmaxLoss
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import CutSegment, SPConfig
from research.public.study import study
from research.runs.audit import audit_run
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import execute
from research.runs.parts import RunParts, stage_parts
from research.training.config import StageConfig, ValidationConfig
from tests.support.small_runs import QUIET, config_of
from tests.support.synthetic import write_histories

# Ten users; user u trains on item u alone, and is asked for items 10 and 11.
HISTORIES = [[user, 10, 11] for user in range(10)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_histories(tmp_path_factory.mktemp("users") / "c", HISTORIES, num_items=12)


def users_of(corpus: Corpus, share: float, seed: int = 0) -> list[int]:
    whole = LeaveOneOut().split(corpus)
    split = TrainedUsers(share, seed=seed).split(whole)
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


PUBLISHED_SEGMENTS = StageConfig(
    name="pretrain",
    objectives={"sp": SPConfig(corruption=CutSegment(foreign="everything"))},
    validation=None,
)


@pytest.mark.parametrize(
    ("share", "users"), [(0.5, UserRange()), (1.0, UserRange(start=0.2, stop=0.7))]
)
def test_published_segments_of_everyone_do_not_go_with_some_users(
    share: float, users: UserRange
) -> None:
    stage = replace(PUBLISHED_SEGMENTS, users=users)
    with pytest.raises(InputError, match=r"users whom it is not trained on \(training_share"):
        RunConfig(training_share=share, stages=(stage,))


def rows_of(corpus: Corpus, users: UserRange, seed: int = 0, share: float = 1.0) -> list[int]:
    training = LeaveOneOut().split(corpus).training
    return TrainedUsers(share, (users,), seed).of_stage(training, users).users.tolist()


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_ranges_that_meet_share_no_user_and_leave_none_out(corpus: Corpus, share: float) -> None:
    for seed in range(5):
        bounds = (0.0, 0.25, 0.5, 0.75, 1.0)
        parts = [
            rows_of(corpus, UserRange(start=start, stop=stop), seed, share)
            for start, stop in pairwise(bounds)
        ]
        together = sorted(user for part in parts for user in part)
        assert together == users_of(corpus, share, seed)
        assert parts[0] == users_of(corpus, 0.25 * share, seed)


def test_the_users_of_a_share_are_as_likely_in_one_half_as_in_the_other(corpus: Corpus) -> None:
    """The share and the range go by one order, and not by two that are drawn alike."""
    second = [rows_of(corpus, UserRange(start=0.5), seed, 0.8) for seed in range(1_000)]
    counts = np.bincount([user for users in second for user in users], minlength=10)
    # Each of ten users is in the 4 places of 10 with probability 0.4: sd 15.5.
    assert np.all(np.abs(counts - 400) < 70)


def test_a_range_too_narrow_for_a_user_is_refused(corpus: Corpus) -> None:
    with pytest.raises(InputError, match=r"users from 0\.31 to 0\.32 of the 10 .* are none"):
        rows_of(corpus, UserRange(start=0.31, stop=0.32))
    with pytest.raises(InputError, match="are none"):
        RunParts.of(halves(corpus, training_share=0.1), "data")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((0.5, 0.5), "start must be below stop"),
        ((0.7, 0.2), "start must be below stop"),
        ((-0.1, 0.5), "both are shares, from 0 to 1"),
        ((0.0, 1.5), "both are shares, from 0 to 1"),
    ],
)
def test_a_range_of_no_users_is_refused(bounds: tuple[float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UserRange(start=bounds[0], stop=bounds[1])


def halves(corpus: Corpus, **changes: Any) -> RunConfig:
    """A pretraining on one half of the users, and a fine-tuning on the other."""
    pretrain = StageConfig(
        name="pretrain",
        objectives={"cloze": ClozeConfig()},
        users=UserRange(start=0.5),
        epochs=1,
        validation=None,
    )
    finetune = StageConfig(
        name="finetune",
        objectives={"next": NextItemConfig()},
        users=UserRange(stop=0.5),
        epochs=1,
        validation=None,
    )
    return replace(config_of(corpus, pretrain, finetune, seed=3), **changes)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """User u trains on items u and u + 10."""
    histories = [[user, user + 10, 20, 21] for user in range(10)]
    return write_histories(tmp_path_factory.mktemp("pairs") / "c", histories, num_items=22)


def test_stages_see_their_own_users_and_share_the_modules(pairs: Corpus) -> None:
    parts = RunParts.of(halves(pairs), "data")
    pretrain, finetune = stage_parts(parts, Accelerator(cpu=True))
    seen = []
    for stage in (pretrain, finetune):
        users = parts.training_rows(stage.config).users.tolist()
        batches = list(stage.loader.batches(0))
        assert sorted(user for batch in batches for user in batch.users_S.tolist()) == users
        items = stage.model.catalogue.training.counts_V.nonzero().flatten().tolist()
        assert items == users + [user + 10 for user in users]
        seen += users
    assert sorted(seen) == list(range(10))
    assert pretrain.model.encoder is finetune.model.encoder
    assert parts.catalogue.training.counts_V.nonzero().flatten().tolist() == list(range(20))


def test_what_is_told_of_the_training_is_of_the_users_of_any_stage(
    pairs: Corpus, tmp_path: Path
) -> None:
    """One stage on half of the users is the run that is trained on that half."""
    stage = replace(halves(pairs).stages[1], validation=ValidationConfig(metric="mrr"))
    by_stage = config_of(pairs, stage)
    by_share = config_of(pairs, replace(stage, users=UserRange()), training_share=0.5)
    told = []
    for name, config in (("stage", by_stage), ("share", by_share)):
        summary = execute(config, tmp_path / name, options=QUIET)
        findings = [each.sentence for each in audit_run(tmp_path / name, "data")]
        told.append((summary.test, summary.questions, summary.popularity, findings))
    assert told[0] == told[1]
    parts = RunParts.of(replace(by_stage, stages=halves(pairs).stages), "data")
    assert len(parts.split.training) == 10


def test_a_stage_with_a_single_user_has_no_foreign_segments(corpus: Corpus) -> None:
    objectives = {"sp": SPConfig(), "next": NextItemConfig()}
    stage = replace(halves(corpus).stages[1], objectives=objectives, users=UserRange(stop=0.1))
    with pytest.raises(InputError, match="the stage is trained on only one user"):
        stage_parts(RunParts.of(config_of(corpus, stage), "data"), Accelerator(cpu=True))


def test_objectives_of_a_stage_count_its_users_alone(pairs: Corpus) -> None:
    """LogQ of items in the batch is that of the stage's training part."""
    loss = InBatchSoftmax(log_q=True, q_from="training")
    _, stage = halves(pairs).stages
    stage = replace(stage, objectives={"next": NextItemConfig(loss=loss)})
    parts = RunParts.of(config_of(pairs, stage), "data")
    (built,) = stage_parts(parts, Accelerator(cpu=True))
    users = parts.training_rows(stage).users.tolist()
    assert len(users) == 5
    item_loss = built.model.objectives["next"].item_loss
    assert isinstance(item_loss, InBatchSoftmaxLoss)
    shares_V = item_loss.training_share_V
    assert shares_V.nonzero().flatten().tolist() == users + [user + 10 for user in users]


def test_all_users_are_the_default_and_change_no_hash(corpus: Corpus) -> None:
    base = halves(corpus)
    plain = replace(base, stages=tuple(replace(each, users=UserRange()) for each in base.stages))
    for config, has_users in ((plain, False), (base, True)):
        stages = to_json(config, short=True)["stages"]
        assert isinstance(stages, list)
        assert all(("users" in stage) == has_users for stage in stages)

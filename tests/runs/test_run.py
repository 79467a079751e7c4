"""A run from corpus to summary: recognised, continued, refused, loaded."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines.popularity import PopularityConfig
from baselines.transitions import TransitionsConfig
from research.checkpoint.files import checkpoints_by_step
from research.cli.show import show
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.splits import AtQuantile, GlobalTemporal, TemporalCut, UserHoldout
from research.data.windows import Sliding
from research.errors import InputError
from research.evaluation.candidates import CandidateSet
from research.evaluation.metrics import metrics
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.statistics import compare
from research.evaluation.ties import TiePolicy
from research.model.transformer_block import PreNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.load import load_run
from research.runs.parts import RunParts, StageParts, validation_of
from research.storage.records import RunSummary, StageResult, UsersRecord, read_record
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from research.training.stage_run import CheckpointPlan
from tests.evaluation.reference_ranks import FixedScores, corpus_of, write_to_disk
from tests.support.checkpoints import newest_checkpoint
from tests.support.command_line import files_of, snapshot_of
from tests.support.marks import long_case
from tests.support.records import without_time_and_memory

QUIET = RunOptions(quiet=True)
ENCODER = TransformerConfig(length=4, width=4, layers=1, heads=2, feed_forward=8)
ADAM = OptimizerConfig(lr=1e-2)
COLUMNS = ("user", "item", "rank", "ties", "history_length", "item_count")


def histories_of(shift: int) -> list[list[int]]:
    """12 users with 8 of 12 items each, in a circle."""
    return [
        [(user + step * (1 + user % 2) + shift) % 12 for step in range(8)] for user in range(12)
    ]


def times_of(users: int) -> list[list[int]]:
    return [[10 * step + user for step in range(8)] for user in range(users)]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_to_disk(corpus_of(histories_of(0), 12, times_of(12)), tmp_path / "corpus")


def stage_of(name: str = "train", **changes: Any) -> StageConfig:
    fields: dict[str, Any] = {
        "objectives": {"next": NextItemConfig()},
        "batches": BatchConfig(sequences_per_batch=5),
        "epochs": 4,
        "optimizer": ADAM,
        "validation": ValidationConfig(metric="mrr", patience=None),
        "log_every": 2,
    }
    return StageConfig(name=name, **{**fields, **changes})


def config_of(corpus: Corpus, *stages: StageConfig, **changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "corpus": str(corpus.folder),
        "encoder": ENCODER,
        "stages": stages,
        "evaluation": EvaluationConfig(
            metrics=("hr@2", "mrr"), candidates=("full", "uniform-2", "popularity-2")
        ),
    }
    return RunConfig(**{**fields, **changes})


def two_stages(corpus: Corpus) -> RunConfig:
    """Next item first, then cloze, on the same encoder."""
    cloze = stage_of("tune", objectives={"cloze": ClozeConfig()}, epochs=3)
    return config_of(corpus, stage_of("pretrain"), cloze)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.endswith("items_per_second")}
        for line in lines
    ]


def assert_same_table(first: RankTable, second: RankTable) -> None:
    for name in COLUMNS:
        assert getattr(first, name).tolist() == getattr(second, name).tolist()
    assert first.protocol == second.protocol


class Interrupted(Exception):
    pass


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int) -> list[str]:
    """Make the `call`-th evaluation raise; the parts evaluated so far."""
    parts: list[str] = []
    tables = RunParts.tables

    def counted(
        self: RunParts, ranker: Ranker, part: str, *sets: Sequence[CandidateSet]
    ) -> dict[str, RankTable]:
        parts.append(part)
        if len(parts) == call:
            raise Interrupted
        return tables(self, ranker, part, *sets)

    monkeypatch.setattr(RunParts, "tables", counted)
    return parts


def test_a_summary_says_what_was_done(corpus: Corpus, tmp_path: Path) -> None:
    summary = execute(config_of(corpus, stage_of()), tmp_path / "run", options=QUIET)
    assert (summary.status, summary.ties) == ("finished", "expected")
    assert summary.fingerprint == corpus.fingerprint
    assert summary.users == UsersRecord(evaluated=12, not_evaluated=0)
    # 13 x 4 items, 4 x 4 positions, 8 of a norm, and a block of 60 + 20 + 40 + 36 + 2 x 8.
    assert summary.cost.parameters == 248
    # 4 epochs of 12 windows of 5 of the 6 training items.
    assert summary.cost.items == 240
    assert summary.cost.seconds > 0
    assert set(summary.test) == {"full", "uniform-2", "popularity-2"}
    assert set(summary.val) == {"hr@2", "mrr"}
    assert summary.best["train"].epochs == 4
    assert summary.best["train"].steps == 12
    assert summary.protocol == {
        "corpus": "tiny",
        "fingerprint": corpus.fingerprint,
        "filters": {},
        "history": "whole",
        "split": {"class": "LeaveOneOut"},
        "part": "test",
        "candidates_seed": 0,
        "candidates": "full",
        "seen": "excluded",
        "ties": "mean",
    }
    assert summary.versions["torch"] == torch.__version__
    assert summary.versions.keys() == {"python", "torch", "numpy", "accelerate", "sixfold"}
    assert read_record(tmp_path / "run", RunSummary) == summary
    assert set(json.loads((tmp_path / "run" / "summary.json").read_text())) == {
        "status", "hash", "fingerprint", "protocol", "users", "best", "ties", "val", "test",
        "lists", "missed_share", "questions", "popularity", "cost", "carried", "shared", "notes",
        "versions",
    }  # fmt: skip


def test_a_summary_holds_the_metrics_of_the_saved_tables(corpus: Corpus, tmp_path: Path) -> None:
    summary = execute(config_of(corpus, stage_of()), tmp_path / "run", options=QUIET)
    ranks = tmp_path / "run" / "ranks"
    for name in ("full", "uniform-2", "popularity-2"):
        table = RankTable.load(ranks / f"test-{name}.npz")
        assert table.protocol["candidates"] == name
        assert metrics(table, ["hr@2", "mrr"]) == summary.test[name]
    table = RankTable.load(ranks / "validation-full.npz")
    assert table.protocol["part"] == "validation"
    assert metrics(table, ["hr@2", "mrr"]) == summary.val


def test_a_runs_tables_count_the_training_interactions_of_their_items(
    tiny_corpus: Corpus, tmp_path: Path
) -> None:
    # Trained on: 0 1 2, 1 2, 3 and, too short to hold anything out, 0 1.
    counting = RunConfig(corpus=str(tiny_corpus.folder), ranker=PopularityConfig())
    execute(counting, tmp_path / "run", options=QUIET)
    tables = {
        part: RankTable.load(tmp_path / "run" / "ranks" / f"{part}-full.npz")
        for part in ("validation", "test")
    }
    assert tables["validation"].item.tolist() == [3, 0, 4]
    assert tables["validation"].item_count.tolist() == [1, 2, 0]
    assert tables["test"].item.tolist() == [4, 5, 5]
    assert tables["test"].item_count.tolist() == [0, 0, 0]


def test_the_test_split_is_evaluated_once_and_after_training(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = interrupt_at(monkeypatch, -1)
    execute(two_stages(corpus), tmp_path / "run", options=QUIET)
    # Four and three epochs, the best state's validation figures; popularity's on the test are last.
    assert parts == ["validation"] * 8 + ["test", "test"]


def repeating(folder: Path) -> Corpus:
    """Eight users who take three items of their own in turn, so that no answer is new."""
    histories = [[user + step % 3 for step in range(12)] for user in range(8)]
    return write_to_disk(corpus_of(histories, 10), folder)


@pytest.mark.long
def test_answers_that_were_all_seen_before_are_told_at_the_first_validation_and_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(
        repeating(tmp_path / "c"), stage_of(), evaluation=EvaluationConfig(metrics=("mrr",))
    )
    summary = execute(config, tmp_path / "run", options=RunOptions())
    told = (
        "every held-out validation item is already in its history, whose items evaluation.seen "
        "excludes: all metrics are 0 whatever is learned; set evaluation.seen to kept to rank "
        "these items too"
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if told in line]
    assert lines == [f"train: {told}"]
    shares = [line["val/missed_share"] for line in lines_of(tmp_path / "run") if "val/mrr" in line]
    assert shares == [1.0] * 4
    note = (
        "stage train: val/mrr was 0 at each of its 4 validations, so nothing was selected, and the "
        f"weights of the first, after epoch 1, were kept: {told}"
    )
    assert summary.notes == (note,)
    show(tmp_path / "run")
    assert f"note: {note}" in capsys.readouterr().out
    kept = replace(config, evaluation=replace(config.evaluation, seen="kept"))
    summary = execute(kept, tmp_path / "kept", options=RunOptions())
    assert told not in capsys.readouterr().out
    assert summary.notes == ()
    assert not any("val/missed_share" in line for line in lines_of(tmp_path / "kept"))


@pytest.mark.long
def test_a_selection_metric_that_never_moved_is_told_in_the_summary(
    corpus: Corpus, tmp_path: Path
) -> None:
    # A step too small to change any score.
    still = stage_of(optimizer=OptimizerConfig(lr=1e-30), epochs=3)
    summary = execute(config_of(corpus, still), tmp_path / "still", options=QUIET)
    value = summary.best["train"].value
    assert summary.notes == (
        f"stage train: val/mrr was {value:.4g} at each of its 3 validations, so nothing was "
        "selected, and the weights of the first, after epoch 1, were kept",
    )
    # One validation moves nothing by itself; without one there is nothing to move.
    for place, stage in enumerate((replace(still, epochs=1), replace(still, validation=None))):
        summary = execute(config_of(corpus, stage), tmp_path / f"{place}", options=QUIET)
        assert summary.notes == ()


def test_selection_and_summary_follow_the_policy_for_ties(corpus: Corpus, tmp_path: Path) -> None:
    counting = config_of(corpus, ranker=PopularityConfig())
    for ties in get_args(TiePolicy):
        config = replace(counting, evaluation=replace(counting.evaluation, ties=ties))
        summary = execute(config, tmp_path / ties, options=QUIET)
        table = RankTable.load(tmp_path / ties / "ranks" / "test-full.npz")
        assert (summary.ties, table.protocol["ties"]) == (ties, "mean")
        assert summary.test["full"] == metrics(table, ["hr@2", "mrr"], ties)
    assert metrics(table, ["mrr"], "mean") != metrics(table, ["mrr"], "expected")
    # All items score alike.
    values = []
    for ties in get_args(TiePolicy):
        evaluation = EvaluationConfig(metrics=("hr@1",), ties=ties)
        run_parts = RunParts.of(config_of(corpus, stage_of(), evaluation=evaluation), "data")
        scorer: Any = FixedScores(torch.zeros(12, 12))
        made: Any = None
        validate = validation_of(run_parts, StageParts(stage_of(), made, made, scorer))
        assert validate is not None
        values.append(validate()["val/mrr"])
    assert values[0] > values[1] > 0


def test_the_best_epoch_has_the_highest_validation_value(corpus: Corpus, tmp_path: Path) -> None:
    summary = execute(config_of(corpus, stage_of(epochs=6)), tmp_path / "run", options=QUIET)
    values = [line["val/mrr"] for line in lines_of(tmp_path / "run") if "val/mrr" in line]
    assert len(values) == 6
    best = summary.best["train"]
    assert best.epoch is not None
    assert best.value == max(values) == summary.val["mrr"]
    assert values[best.epoch - 1] == max(values)


def test_a_finished_run_is_recognised_and_not_repeated(corpus: Corpus, tmp_path: Path) -> None:
    config = config_of(corpus, stage_of())
    first = execute(config, tmp_path / "run", options=QUIET)
    before = snapshot_of(tmp_path / "run")
    again = execute(config, tmp_path / "run", options=QUIET)
    assert again == first
    assert snapshot_of(tmp_path / "run") == before


def test_a_run_is_recognised_by_the_corpus_and_not_by_its_path(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = config_of(corpus, stage_of())
    first = execute(config, tmp_path / "run", options=QUIET)
    before = snapshot_of(tmp_path / "run")
    shutil.move(corpus.folder, tmp_path / "moved")
    moved = replace(config, corpus=str(tmp_path / "moved"))
    assert execute(moved, tmp_path / "run", options=QUIET) == first
    assert snapshot_of(tmp_path / "run") == before


@pytest.mark.parametrize("call", [3, *map(long_case, [1, 4, 5, 7, 8, 9])])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    # Validations 1-4 are of the first stage, 5-7 of the second, 8 and 9 the final figures.
    config = two_stages(corpus)
    undisturbed = execute(config, tmp_path / "whole", options=QUIET)
    with monkeypatch.context() as patch:
        interrupt_at(patch, call)
        with pytest.raises(Interrupted):
            execute(config, tmp_path / "parts", options=QUIET)
    assert not (tmp_path / "parts" / "summary.json").exists()
    continued = execute(config, tmp_path / "parts", options=QUIET)
    assert without_time_and_memory(continued) == without_time_and_memory(undisturbed)
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")
    whole, parts = files_of(tmp_path / "whole"), files_of(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name in whole:
        if name.endswith(".safetensors"):
            assert whole[name] == parts[name], name
        if name.endswith(".npz"):
            assert_same_table(
                RankTable.load(tmp_path / "whole" / name), RankTable.load(tmp_path / "parts" / name)
            )


def test_patience_is_remembered_over_an_interruption(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing improves by 1, so two validations after the first the stage stops, of ten epochs.
    never = ValidationConfig(metric="mrr", patience=2, min_delta=1.0)
    config = config_of(corpus, stage_of(epochs=10, validation=never))
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(Interrupted):
            execute(config, tmp_path / "run", options=QUIET)
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert summary.best["train"].epoch == 1
    assert summary.best["train"].epochs == 3


def test_a_second_stage_begins_with_the_encoder_of_the_first_stages_best_state(
    corpus: Corpus, tmp_path: Path
) -> None:
    still = OptimizerConfig(lr=1e-30)  # too small to move any weight
    second = stage_of("tune", objectives={"cloze": ClozeConfig()}, epochs=1, optimizer=still)
    best_is_early = ValidationConfig(metric="mrr", patience=None, min_delta=1.0)
    first = stage_of("pretrain", validation=best_is_early)
    execute(config_of(corpus, first, second), tmp_path / "run", options=QUIET)
    stages = tmp_path / "run" / "stages"
    best = load_file(newest_checkpoint(stages / "pretrain", "best") / "model.safetensors")
    last = load_file(newest_checkpoint(stages / "pretrain") / "model.safetensors")
    tuned = load_file(newest_checkpoint(stages / "tune") / "model.safetensors")
    name = "encoder.item_table.weight"
    assert tuned[name].tolist() == best[name].tolist()
    assert tuned[name].tolist() != last[name].tolist()


def test_a_stage_without_validation_keeps_its_last_state(corpus: Corpus, tmp_path: Path) -> None:
    config = config_of(corpus, stage_of(validation=None))
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert summary.best["train"] == StageResult(
        epoch=None, value=None, epochs=4, steps=12, skipped=0
    )
    assert not checkpoints_by_step(tmp_path / "run" / "stages" / "train", "best")
    run_parts, ranker = load_run(tmp_path / "run", "data")
    saved = RankTable.load(tmp_path / "run" / "ranks" / "test-full.npz")
    assert_same_table(run_parts.tables(ranker, "test")["full"], saved)


CHANGES: dict[str, Callable[[RunConfig], RunConfig]] = {
    "seed": lambda config: replace(config, seed=1),
    "encoder": lambda config: replace(config, encoder=replace(config.encoder, block=PreNorm())),
    "candidates": lambda config: replace(
        config, evaluation=replace(config.evaluation, candidates=("full",))
    ),
    "epochs": lambda config: replace(config, stages=(replace(config.stages[0], epochs=3),)),
}


DIFFERENCES = {
    "seed": "seed is 0 in the folder and 1 in this run",
    "encoder": "encoder.block is PostNorm in the folder and PreNorm in this run",
    "candidates": r"evaluation.candidates is \[.*\] in the folder and \[full\] in this run",
    "epochs": "stages.0.epochs is 4 in the folder and 3 in this run",
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_config_in_the_same_folder_is_refused(
    corpus: Corpus, tmp_path: Path, name: str
) -> None:
    config = config_of(corpus, stage_of())
    execute(config, tmp_path / "run", options=QUIET)
    before = files_of(tmp_path / "run")
    message = f"run holds another run \\({DIFFERENCES[name]}; run hash .*choose another folder"
    with pytest.raises(InputError, match=message):
        execute(CHANGES[name](config), tmp_path / "run", options=QUIET)
    assert files_of(tmp_path / "run") == before


def test_another_corpus_in_the_same_folder_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    config = config_of(corpus, stage_of())
    execute(config, tmp_path / "run", options=QUIET)
    shutil.rmtree(corpus.folder)
    write_to_disk(corpus_of(histories_of(1), 12, times_of(12)), corpus.folder)
    message = (
        "holds another run .the corpus's fingerprint is [0-9a-f]{16} in the folder and "
        "[0-9a-f]{16} in this run"
    )
    with pytest.raises(InputError, match=message):
        execute(config, tmp_path / "run", options=QUIET)


def test_a_run_is_not_loaded_on_another_corpus(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus, stage_of()), tmp_path / "run", options=QUIET)
    shutil.rmtree(corpus.folder)
    other = write_to_disk(corpus_of(histories_of(1), 12, times_of(12)), corpus.folder)
    assert other.fingerprint != corpus.fingerprint
    with pytest.raises(InputError, match=f"{corpus.fingerprint}.*{other.fingerprint}"):
        load_run(tmp_path / "run", "data")


def tables_of_loaded(folder: Path) -> None:
    """A loaded run gives the very tables that were saved."""
    run_parts, ranker = load_run(folder, "data")
    for part in ("validation", "test"):
        for name, table in run_parts.tables(ranker, part).items():
            if part == "test" or name == "full":
                assert_same_table(table, RankTable.load(folder / "ranks" / f"{part}-{name}.npz"))


def test_a_loaded_run_gives_the_very_rank_tables_that_were_saved(
    corpus: Corpus, tmp_path: Path
) -> None:
    execute(two_stages(corpus), tmp_path / "run", options=QUIET)
    tables_of_loaded(tmp_path / "run")


@pytest.mark.parametrize(
    "ranker", [PopularityConfig(), PopularityConfig(newest_share=0.3), TransitionsConfig()]
)
def test_a_loaded_counting_run_gives_the_very_rank_tables_that_were_saved(
    corpus: Corpus, tmp_path: Path, ranker: PopularityConfig | TransitionsConfig
) -> None:
    summary = execute(config_of(corpus, ranker=ranker), tmp_path / "run", options=QUIET)
    assert summary.status == "finished"
    assert summary.best == {}
    assert summary.cost.parameters == 0
    tables_of_loaded(tmp_path / "run")


def test_two_runs_of_one_corpus_can_be_compared(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus, ranker=PopularityConfig()), tmp_path / "a", options=QUIET)
    execute(config_of(corpus, stage_of()), tmp_path / "b", options=QUIET)
    first, second = (
        RankTable.load(tmp_path / name / "ranks" / "test-uniform-2.npz") for name in "ab"
    )
    comparison = compare([first], [second], "mrr")
    assert isfinite(comparison.difference)
    assert comparison.low <= comparison.difference <= comparison.high


def test_a_folder_that_is_no_run_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder: neither a run nor a corpus"):
        load_run(tmp_path, "data")


def test_a_damaged_run_is_not_loaded(corpus: Corpus, tmp_path: Path) -> None:
    # No other checkpoint can serve for the last one.
    alone = replace(QUIET, checkpoints=CheckpointPlan(keep=1))
    execute(config_of(corpus, stage_of()), tmp_path / "run", options=alone)
    best = newest_checkpoint(tmp_path / "run" / "stages" / "train", "best")
    weights = best / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model.safetensors is damaged"):
        load_run(tmp_path / "run", "data")
    shutil.rmtree(best)
    with pytest.raises(
        InputError, match=r"no checkpoint is undamaged \(.*/best_[0-9]{8} is missing\)"
    ):
        load_run(tmp_path / "run", "data")
    (tmp_path / "run" / "config.json").write_text('{"hash": "0", "config": {')
    with pytest.raises(InputError, match=r"config.json is not valid JSON"):
        load_run(tmp_path / "run", "data")


@pytest.mark.long
def test_no_earlier_state_of_a_damaged_run_stands_for_its_result(
    corpus: Corpus, tmp_path: Path
) -> None:
    often = replace(QUIET, checkpoints=CheckpointPlan(steps=1))
    summary = execute(config_of(corpus, stage_of()), tmp_path / "run", options=often)
    weights = newest_checkpoint(tmp_path / "run" / "stages" / "train") / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1])
    with pytest.raises(
        InputError, match=r"the final checkpoint of stage train is damaged; remove .*json"
    ):
        load_run(tmp_path / "run", "data")
    # What the message says helps: the rest is done again, to the same bytes.
    (tmp_path / "run" / "summary.json").unlink()
    again = execute(config_of(corpus, stage_of()), tmp_path / "run", options=often)
    assert again.test == summary.test
    assert weights.read_bytes() == before


def test_an_unfinished_run_is_not_loaded_as_if_it_were_finished(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        execute(config_of(corpus, stage_of()), tmp_path / "run", options=QUIET)
    with pytest.raises(InputError):
        load_run(tmp_path / "run", "data")


BOTH = {"next": NextItemConfig(), "cloze": ClozeConfig()}
CANNOT_WORK: dict[str, tuple[Callable[[Corpus], RunConfig], str]] = {
    "an unknown rank_by": (
        lambda corpus: config_of(corpus, stage_of(rank_by="cloze")),
        "stage train: rank_by is 'cloze'; objectives that can rank here: next",
    ),
    "a rank_by that cannot rank": (
        lambda corpus: config_of(
            corpus, stage_of(objectives={"sp": SPConfig()}, rank_by="sp", validation=None)
        ),
        "rank_by is 'sp'; objectives that can rank here: none",
    ),
    "two that rank and no rank_by": (
        lambda corpus: config_of(corpus, stage_of(objectives=BOTH)),
        "stage train: next and cloze can both rank; choose one with rank_by",
    ),
    "a last stage that cannot rank": (
        lambda corpus: config_of(
            corpus,
            stage_of("first"),
            stage_of("second", objectives={"sp": SPConfig()}, validation=None),
        ),
        "the last stage, second, cannot rank; add next or cloze to it",
    ),
    "validation of what cannot rank": (
        lambda corpus: config_of(
            corpus, stage_of("first", objectives={"sp": SPConfig()}), stage_of("second")
        ),
        "stage first has validation but no objective that ranks",
    ),
    "too many candidates": (
        lambda corpus: config_of(
            corpus, stage_of(), evaluation=EvaluationConfig(candidates=("uniform-100",))
        ),
        "uniform-100 asks for 100 distinct negatives",
    ),
    "no negatives file": (
        lambda corpus: config_of(
            corpus, stage_of(), evaluation=EvaluationConfig(negatives_file="absent.txt")
        ),
        "negatives file absent.txt does not exist",
    ),
    "a stride longer than the encoder": (
        lambda corpus: config_of(corpus, stage_of("first"), stage_of(windows=Sliding(stride=5))),
        "windows.stride is 5",
    ),
    "a share that makes no sense": (
        lambda corpus: config_of(corpus, ranker=PopularityConfig(newest_share=2.0)),
        "newest_share is 2.0",
    ),
    "a validation without users": (
        lambda corpus: config_of(
            corpus, stage_of(), split=UserHoldout(validation_share=0.0, test_share=0.3)
        ),
        "holds nothing out",
    ),
}


@pytest.mark.parametrize("name", CANNOT_WORK)
def test_what_cannot_work_is_refused_before_anything_is_trained_or_written(
    corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make, message = CANNOT_WORK[name]
    with pytest.raises(InputError, match=message):
        execute(make(corpus), tmp_path / "run", options=RunOptions())
    # A stage that trains prints a line after each epoch.
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "run").exists()


def test_rank_by_chooses_among_two_that_rank(corpus: Corpus, tmp_path: Path) -> None:
    for name in ("next", "cloze"):
        config = config_of(corpus, stage_of(objectives=BOTH, rank_by=name, epochs=1))
        execute(config, tmp_path / name, options=QUIET)
        _, ranker = load_run(tmp_path / name, "data")
        assert type(ranker.objective).__name__.lower().startswith(name)  # type: ignore[attr-defined]


def test_a_validation_metric_that_does_not_exist_is_refused(corpus: Corpus) -> None:
    wrong = ValidationConfig(metric="ncdg@10")
    with pytest.raises(InputError, match=r"'ncdg@10' does not exist.*did you mean ndcg@K"):
        config_of(corpus, stage_of(validation=wrong))
    with pytest.raises(InputError, match="metric 'hr@0' does not exist"):
        EvaluationConfig(metrics=("hr@10", "hr@0"))


def test_a_validation_metric_need_not_be_reported(corpus: Corpus, tmp_path: Path) -> None:
    other = ValidationConfig(metric="ndcg@3")
    summary = execute(
        config_of(corpus, stage_of(validation=other, epochs=1)), tmp_path / "run", options=QUIET
    )
    assert set(summary.val) == {"hr@2", "mrr"}
    assert set(lines_of(tmp_path / "run")[-1]) >= {"val/ndcg@3", "val/hr@2", "val/mrr"}


def test_stages_and_a_ranker_exclude_each_other(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="either stages or a counting ranker"):
        config_of(corpus)
    with pytest.raises(InputError, match="either stages or a counting ranker"):
        config_of(corpus, stage_of(), ranker=PopularityConfig())


def test_two_stages_of_one_name_are_refused(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="stages are named a, a; names must differ"):
        config_of(corpus, stage_of("a"), stage_of("a"))


def test_a_corpus_that_is_not_prepared_is_refused(tmp_path: Path) -> None:
    config = RunConfig(corpus=str(tmp_path), ranker=PopularityConfig())
    with pytest.raises(InputError, match="is not a prepared corpus folder"):
        execute(config, tmp_path / "run", options=QUIET)
    assert not (tmp_path / "run").exists()


def test_a_split_without_validation_users_can_be_tested(corpus: Corpus, tmp_path: Path) -> None:
    split = UserHoldout(validation_share=0.0, test_share=0.3)
    config = config_of(corpus, stage_of(validation=None), split=split)
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert summary.val == {}
    assert summary.users.evaluated == 4
    assert not (tmp_path / "run" / "ranks" / "validation-full.npz").exists()


def test_a_temporal_run_counts_users_and_not_held_out_items(corpus: Corpus, tmp_path: Path) -> None:
    split = GlobalTemporal(validation_share=0.25, test_share=0.25)
    config = config_of(
        corpus,
        ranker=PopularityConfig(),
        split=split,
        evaluation=EvaluationConfig(metrics=("recall@5",)),
    )
    summary = execute(config, tmp_path / "run", options=QUIET)
    table = RankTable.load(tmp_path / "run" / "ranks" / "test-full.npz")
    assert len(table) == 24
    assert summary.users.evaluated == 12


def test_a_user_asked_after_several_histories_counts_once(corpus: Corpus, tmp_path: Path) -> None:
    split = TemporalCut(cut=AtQuantile(quantile=0.5), target="successive")
    evaluation = EvaluationConfig(metrics=("hr@5", "mrr"))
    config = config_of(corpus, stage_of(), split=split, evaluation=evaluation)
    summary = execute(config, tmp_path / "run", options=QUIET)
    table = RankTable.load(tmp_path / "run" / "ranks" / "test-full.npz")
    assert summary.users.evaluated == len(set(table.user.tolist())) == 12
    assert len(table) > 12
    hits = [np.mean(table.rank[table.user == user] <= 5) for user in range(12)]
    assert summary.test["full"]["hr@5"] == pytest.approx(np.mean(hits))
    assert summary.protocol["split"] == {
        "class": "TemporalCut", "cut": {"class": "AtQuantile", "quantile": 0.5},
        "target": "successive",
    }  # fmt: skip


def test_seeds_share_sampled_candidates(corpus: Corpus, tmp_path: Path) -> None:
    for seed in (0, 1):
        config = config_of(corpus, ranker=PopularityConfig(), seed=seed)
        execute(config, tmp_path / str(seed), options=QUIET)
    first, second = (
        RankTable.load(tmp_path / str(seed) / "ranks" / "test-uniform-2.npz") for seed in (0, 1)
    )
    assert_same_table(first, second)


def negatives_file(path: Path, rows: list[list[int]]) -> str:
    lines = [f"u{user} {' '.join(f'i{item}' for item in row)}" for user, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def unseen(corpus: Corpus, first: int) -> list[list[int]]:
    """For each user three items that are not in the history, from the `first` such item on."""
    histories = [set(corpus.items[a:b].tolist()) for a, b in pairwise(corpus.offsets)]
    return [sorted(set(range(12)) - history)[first : first + 3] for history in histories]


def test_a_negatives_file_gives_a_table_beside_the_others(corpus: Corpus, tmp_path: Path) -> None:
    path = negatives_file(tmp_path / "negatives.txt", unseen(corpus, 0))
    evaluation = EvaluationConfig(metrics=("mrr",), negatives_file=path)
    config = config_of(corpus, ranker=PopularityConfig(), evaluation=evaluation)
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert set(summary.test) == {"full", "file-3"}
    table = RankTable.load(tmp_path / "run" / "ranks" / "test-file-3.npz")
    assert table.rank[np.isfinite(table.rank)].max() <= 4.0


def test_a_summary_tells_how_many_negatives_were_seen(corpus: Corpus, tmp_path: Path) -> None:
    # One of a user's three negatives is the oldest item of the history.
    oldest = corpus.items[corpus.offsets[:-1]].tolist()
    rows = [[old, *others[1:]] for old, others in zip(oldest, unseen(corpus, 0))]
    path = negatives_file(tmp_path / "negatives.txt", rows)
    evaluation = EvaluationConfig(metrics=("mrr",), negatives_file=path, seen="kept")
    config = config_of(corpus, ranker=PopularityConfig(), evaluation=evaluation)
    summary = execute(config, tmp_path / "run", options=QUIET)
    assert set(summary.test) == {"full", "file-3-seen"}
    share = "12 of 36 (33.3%) negatives are in their users' histories"
    assert f"file-3-seen: {share}" in summary.notes
    refused = replace(config, evaluation=replace(evaluation, seen="excluded"))
    with pytest.raises(InputError, match=r"line 1: .*12 of 36 \(33\.3%\)"):
        execute(refused, tmp_path / "refused", options=QUIET)
    assert not (tmp_path / "refused").exists()


def test_tables_of_two_negatives_files_have_two_protocols(corpus: Corpus, tmp_path: Path) -> None:
    protocols = []
    for name, first in (("a", 0), ("b", 1)):
        path = negatives_file(tmp_path / f"{name}.txt", unseen(corpus, first))
        evaluation = EvaluationConfig(metrics=("mrr",), negatives_file=path)
        config = config_of(corpus, ranker=PopularityConfig(), evaluation=evaluation)
        execute(config, tmp_path / name, options=QUIET)
        table = RankTable.load(tmp_path / name / "ranks" / "test-file-3.npz")
        protocols.append(dict(table.protocol))
    assert protocols[0] != protocols[1]

"""A run that goes on beyond the limit that it was given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import research.runs.execute as execute_module
from baselines.popularity import popularity
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.errors import InputError
from research.evaluation.ranker import Ranker
from research.model.transformer_config import TransformerConfig
from research.objectives.next_item import NextItemConfig
from research.overrides import replace_fields
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.extension import archive_results, with_more_epochs
from research.runs.parts import RunParts
from research.storage.records import RunRecord, RunSummary, read_record
from research.storage.run_folder import RunFolder
from research.training.config import StageConfig, ValidationConfig
from research.training.early_stopping import resume_extended
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from research.training.stage_run import CheckpointPlan
from research.training.state import StageState
from tests.evaluation.reference_ranks import corpus_of, write_to_disk
from tests.support.checkpoints import newest_checkpoint
from tests.support.marks import long_case
from tests.support.records import without_time_and_memory

QUIET = RunOptions(quiet=True)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """12 users with 8 of 12 items each: 3 steps of 5 rows are an epoch."""
    histories = [[(user + step * (1 + user % 2)) % 12 for step in range(8)] for user in range(12)]
    return write_to_disk(corpus_of(histories, 12), tmp_path / "corpus")


def stage_of(name: str = "train", **changes: Any) -> StageConfig:
    fields: dict[str, Any] = {
        "objectives": {"next": NextItemConfig()},
        "batches": BatchConfig(sequences_per_batch=5),
        "epochs": 2,
        "optimizer": OptimizerConfig(lr=1e-2),
        "validation": ValidationConfig(metric="mrr", patience=None),
        "log_every": 2,
    }
    return StageConfig(name=name, **{**fields, **changes})


def config_of(corpus: Corpus, *stages: StageConfig) -> RunConfig:
    return RunConfig(
        corpus=str(corpus.folder),
        encoder=TransformerConfig(length=4, width=4, layers=1, heads=2, feed_forward=8),
        stages=stages or (stage_of(),),
        evaluation=EvaluationConfig(metrics=("mrr", "hr@2")),
    )


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The run's lines, without times."""
    texts = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {
            name: value
            for name, value in json.loads(text).items()
            if not name.endswith(("seconds", "per_second"))
        }
        for text in texts
    ]


def record_in(folder: Path) -> RunRecord:
    record = read_record(folder, RunRecord)
    assert record is not None
    return record


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = (
        load_file(newest_checkpoint(each / "stages" / "train") / "model.safetensors")
        for each in (first, second)
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].equal(theirs[name]), name


LATER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "epochs": ({"epochs": 2}, {"epochs": 4}),
    "steps": ({"epochs": None, "steps": 6}, {"epochs": None, "steps": 12}),
    "steps within an epoch": ({"epochs": None, "steps": 5}, {"epochs": None, "steps": 12}),
    "tokens": ({"epochs": None, "tokens": 30}, {"epochs": None, "tokens": 120}),
    "no limit of its own": ({"epochs": 2, "steps": 12}, {"epochs": None, "steps": 12}),
}


@pytest.mark.parametrize(
    "name", ["epochs", *(long_case(name) for name in LATER if name != "epochs")]
)
def test_a_run_that_goes_on_learns_what_one_with_the_later_limit_does(
    corpus: Corpus, tmp_path: Path, name: str
) -> None:
    short, long = (config_of(corpus, stage_of(**limits)) for limits in LATER[name])
    execute(long, tmp_path / "straight", options=QUIET)
    first = execute(short, tmp_path / "run", options=QUIET)
    again = execute(long, tmp_path / "run", options=QUIET)
    assert_same_weights(tmp_path / "straight", tmp_path / "run")
    assert again.hash != first.hash
    assert again.best["train"].steps > first.best["train"].steps
    straight = read_record(tmp_path / "straight", RunSummary)
    assert straight is not None
    assert again.best["train"].epochs == straight.best["train"].epochs
    assert again.hash != straight.hash
    if name == "epochs":
        assert again.test == straight.test
        assert lines_of(tmp_path / "run") == lines_of(tmp_path / "straight")


def test_it_is_recorded_with_both_limits_and_the_earlier_end_is_kept(
    corpus: Corpus, tmp_path: Path
) -> None:
    first = execute(config_of(corpus), tmp_path / "run", options=QUIET)
    ranks = (tmp_path / "run" / "ranks" / "test-full.npz").read_bytes()
    again = execute(config_of(corpus, stage_of(epochs=3)), tmp_path / "run", options=QUIET)
    (extension,) = record_in(tmp_path / "run").extensions
    assert extension.hash == first.hash
    assert (extension.stage, extension.epoch, extension.step) == ("train", 2, 6)
    assert extension.ended
    assert extension.tested
    assert dict(extension.limits) == {"stages.0.epochs": (2, 3)}
    assert again.notes == (
        "stage train had ended after 2 epochs (6 steps) and went on: stages.0.epochs was 2 and "
        "became 3; the test had been ranked before",
    )
    kept = tmp_path / "run" / "earlier" / first.hash
    assert read_record(kept, RunSummary) == first
    assert (kept / "ranks" / "test-full.npz").read_bytes() == ranks


def test_under_a_falling_rate_the_note_says_that_it_had_fallen(
    corpus: Corpus, tmp_path: Path
) -> None:
    falling = OptimizerConfig(lr=1e-2, schedule=ScheduleConfig(shape="linear"))
    for epochs in (2, 3):
        config = config_of(corpus, stage_of(epochs=epochs, optimizer=falling))
        summary = execute(config, tmp_path / "run", options=QUIET)
    assert "until then the learning rate fell towards the earlier limit" in summary.notes[-1]


def test_the_command_that_extended_a_run_finds_it_finished(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus), tmp_path / "run", options=QUIET)
    longer = config_of(corpus, stage_of(epochs=3))
    again = execute(longer, tmp_path / "run", options=QUIET)
    assert execute(longer, tmp_path / "run", options=QUIET) == again
    assert len(record_in(tmp_path / "run").extensions) == 1
    third = execute(config_of(corpus, stage_of(epochs=4)), tmp_path / "run", options=QUIET)
    assert [each.step for each in record_in(tmp_path / "run").extensions] == [6, 9]
    assert len(third.notes) == 2


def test_patience_that_has_run_out_begins_anew(corpus: Corpus, tmp_path: Path) -> None:
    # Nothing improves by 1, so the stage stops two validations after the first.
    never = ValidationConfig(metric="mrr", patience=2, min_delta=1.0)
    config = config_of(corpus, stage_of(epochs=10, validation=never))
    assert execute(config, tmp_path / "run", options=QUIET).best["train"].epochs == 3
    later = config_of(corpus, stage_of(epochs=20, validation=never))
    assert execute(later, tmp_path / "run", options=QUIET).best["train"].epochs == 5


def test_more_patience_counts_on_from_what_there_was(corpus: Corpus, tmp_path: Path) -> None:
    never = ValidationConfig(metric="mrr", patience=2, min_delta=1.0)
    config = config_of(corpus, stage_of(epochs=10, validation=never))
    execute(config, tmp_path / "run", options=QUIET)
    patient = config_of(corpus, stage_of(epochs=10, validation=replace(never, patience=4)))
    assert execute(patient, tmp_path / "run", options=QUIET).best["train"].epochs == 5


def test_an_interrupted_run_may_have_a_later_limit_too(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, config_of(corpus), tmp_path / "run", validations=1)
    summary = execute(config_of(corpus, stage_of(epochs=4)), tmp_path / "run", options=QUIET)
    assert summary.notes == (
        "stage train stood at 1 epochs (5 steps) when stages.0.epochs was 2 and became 4",
    )
    execute(config_of(corpus, stage_of(epochs=4)), tmp_path / "straight", options=QUIET)
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "straight")


@pytest.mark.long
@pytest.mark.parametrize("validations", [1, *map(long_case, [0, 2, 3])])
def test_an_extension_that_is_interrupted_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validations: int
) -> None:
    longer = config_of(corpus, stage_of(epochs=4))
    for name in ("whole", "parts"):
        execute(config_of(corpus), tmp_path / name, options=QUIET)
    whole = execute(longer, tmp_path / "whole", options=QUIET)
    stop_after(monkeypatch, longer, tmp_path / "parts", validations=validations)
    assert not (tmp_path / "parts" / "summary.json").exists()
    parts = execute(longer, tmp_path / "parts", options=QUIET)
    assert parts.test == whole.test
    assert parts.hash == whole.hash
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_only_a_higher_limit_extends(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus), tmp_path / "run", options=QUIET)
    others: dict[str, StageConfig] = {
        "lower": stage_of(epochs=1),
        "another rate": stage_of(epochs=3, optimizer=OptimizerConfig(lr=1e-3)),
        "one higher, one lower": stage_of(epochs=3, steps=4),
        "another rule": stage_of(epochs=3, validation=None),
    }
    for name, stage in others.items():
        with pytest.raises(InputError, match=r"holds another run .*stages\.0"):
            execute(config_of(corpus, stage), tmp_path / "run", options=QUIET)
        assert record_in(tmp_path / "run").extensions == (), name


def test_a_limit_that_still_holds_is_named(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus, stage_of(epochs=5, steps=4)), tmp_path / "run", options=QUIET)
    message = (
        "stage train cannot be extended: it has reached stages.0.steps = 4; raise that limit as "
        "well"
    )
    with pytest.raises(InputError, match=message):
        execute(config_of(corpus, stage_of(epochs=9, steps=4)), tmp_path / "run", options=QUIET)


@pytest.mark.parametrize("name", ["seed", "encoder", "corpus"])
def test_a_higher_limit_of_another_run_does_not_extend(
    corpus: Corpus, tmp_path: Path, name: str
) -> None:
    execute(config_of(corpus), tmp_path / "run", options=QUIET)
    longer = config_of(corpus, stage_of(epochs=3))
    histories = [[(user + 2 * step) % 12 for step in range(8)] for user in range(12)]
    other = write_to_disk(corpus_of(histories, 12), tmp_path / "other")
    others = {
        "seed": replace(longer, seed=1),
        "encoder": replace(longer, encoder=replace(longer.encoder, dropout=0.1)),
        "corpus": replace(longer, corpus=str(other.folder)),
    }
    with pytest.raises(InputError, match="holds another run"):
        execute(others[name], tmp_path / "run", options=QUIET)


def test_a_run_with_other_stages_is_refused_in_an_extended_folder(
    corpus: Corpus, tmp_path: Path
) -> None:
    for epochs in (2, 3):
        execute(config_of(corpus, stage_of(epochs=epochs)), tmp_path / "run", options=QUIET)
    for other in (config_of(corpus, stage_of("other")), popularity()):
        with pytest.raises(InputError, match="holds another run"):
            execute(replace(other, corpus=str(corpus.folder)), tmp_path / "run", options=QUIET)


@pytest.mark.long
def test_what_is_left_of_an_epoch_may_be_asked_for(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus, stage_of(steps=5)), tmp_path / "run", options=QUIET)
    summary = execute(config_of(corpus, stage_of()), tmp_path / "run", options=QUIET)
    assert summary.best["train"].steps == 6
    execute(config_of(corpus), tmp_path / "straight", options=QUIET)
    assert_same_weights(tmp_path / "straight", tmp_path / "run")


@pytest.mark.long
def test_a_stage_that_was_taken_over_does_not_go_on(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus), tmp_path / "earlier", options=QUIET)
    other = replace(config_of(corpus), evaluation=EvaluationConfig(metrics=("mrr",)))
    options = replace(QUIET, reuse_from=(tmp_path / "earlier",))
    assert execute(other, tmp_path / "run", options=options).shared
    longer = replace(other, stages=(stage_of(epochs=3),))
    with pytest.raises(InputError, match=r"cannot be extended: it was copied from \.\./earlier"):
        execute(longer, tmp_path / "run", options=QUIET)


@pytest.mark.long
def test_a_run_that_goes_on_needs_what_it_started_from(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus), tmp_path / "start", options=QUIET)
    short = replace(config_of(corpus, stage_of("next")), start_from=str(tmp_path / "start"))
    first = execute(short, tmp_path / "run", options=QUIET)
    shutil.move(tmp_path / "start", tmp_path / "moved")
    assert execute(short, tmp_path / "run", options=QUIET) == first
    longer = replace(short, stages=(stage_of("next", epochs=3),))
    with pytest.raises(InputError, match=r"start_from .* is neither an earlier run's folder"):
        execute(longer, tmp_path / "run", options=QUIET)
    assert record_in(tmp_path / "run").extensions == ()
    shutil.move(tmp_path / "moved", tmp_path / "start")
    assert execute(longer, tmp_path / "run", options=QUIET).carried


@pytest.mark.long
def test_a_folder_that_another_process_finished_meanwhile_is_looked_at_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it held before it could be held is no longer true then."""
    config, longer = config_of(corpus), config_of(corpus, stage_of(epochs=4))
    stop_after(monkeypatch, config, tmp_path / "run", validations=1)
    lock_folder = execute_module.lock_folder

    def holding(*given: Any) -> None:
        monkeypatch.setattr(execute_module, "lock_folder", lock_folder)
        execute(config, tmp_path / "run", options=QUIET)
        lock_folder(*given)

    monkeypatch.setattr(execute_module, "lock_folder", holding)
    summary = execute(longer, tmp_path / "run", options=QUIET)
    (extension,) = record_in(tmp_path / "run").extensions
    assert (extension.step, extension.ended) == (6, True)
    assert summary.best["train"].epochs == 4


@pytest.mark.long
def test_a_crash_before_config_json_is_written_loses_nothing(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, longer = config_of(corpus), config_of(corpus, stage_of(epochs=3))
    first = execute(config, tmp_path / "run", options=QUIET)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "write", fail)
            with pytest.raises(Interrupted):
                execute(longer, tmp_path / "run", options=QUIET)
        # The run is as it was, and its own command ranks anew.
        assert without_versions(execute(config, tmp_path / "run", options=QUIET)) == (
            without_versions(first)
        )
    execute(longer, tmp_path / "run", options=QUIET)
    (extension,) = record_in(tmp_path / "run").extensions
    assert extension.tested
    kept = read_record(tmp_path / "run" / "earlier" / first.hash, RunSummary)
    assert kept is not None
    assert kept.test == first.test


def without_versions(summary: RunSummary) -> RunSummary:
    return replace(without_time_and_memory(summary), versions={})


def test_a_hash_that_leads_out_of_the_folder_moves_nothing(corpus: Corpus, tmp_path: Path) -> None:
    execute(config_of(corpus), tmp_path / "run", options=QUIET)
    record = replace(record_in(tmp_path / "run"), hash="../../escaped")
    with pytest.raises(InputError, match=r"hash is '\.\./\.\./escaped'"):
        archive_results(RunFolder(tmp_path / "run"), record, "other")
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.long
def test_of_several_stages_only_the_newest_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    def two(first: int, second: int) -> RunConfig:
        return config_of(corpus, stage_of("first", epochs=first), stage_of("second", epochs=second))

    execute(two(2, 2), tmp_path / "run", options=QUIET)
    with pytest.raises(
        InputError, match="stage first cannot be extended: stage second has already started"
    ):
        execute(two(3, 2), tmp_path / "run", options=QUIET)
    with pytest.raises(InputError, match="holds another run"):
        execute(two(3, 3), tmp_path / "run", options=QUIET)
    first = record_in(tmp_path / "run")
    assert execute(two(2, 3), tmp_path / "run", options=QUIET).best["second"].epochs == 3
    now = record_in(tmp_path / "run")
    assert now.stages["first"] == first.stages["first"]
    assert now.stages["second"] != first.stages["second"]


@pytest.mark.long
def test_more_epochs_are_counted_from_where_the_run_ended(corpus: Corpus, tmp_path: Path) -> None:
    config, folder = config_of(corpus), RunFolder(tmp_path / "run", writes=False)
    execute(config, folder.path, options=QUIET)
    for epochs in (5, 8):
        longer = replace_fields(config, with_more_epochs(config, folder, 3))
        assert longer.stages[0].epochs == epochs
        assert execute(longer, folder.path, options=QUIET).best["train"].epochs == epochs


@pytest.mark.long
def test_more_epochs_of_an_interrupted_extension_are_not_added_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = config_of(corpus), RunFolder(tmp_path / "run", writes=False)
    execute(config, folder.path, options=QUIET)
    longer = replace_fields(config, with_more_epochs(config, folder, 3))
    stop_after(monkeypatch, longer, folder.path, validations=1)
    assert replace_fields(config, with_more_epochs(config, folder, 3)) == longer


@pytest.mark.long
def test_more_epochs_follow_the_end_by_patience_too(corpus: Corpus, tmp_path: Path) -> None:
    never = ValidationConfig(metric="mrr", patience=1, min_delta=1.0)
    config = config_of(corpus, stage_of(epochs=50, validation=never))
    folder = RunFolder(tmp_path / "run", writes=False)
    assert execute(config, folder.path, options=QUIET).best["train"].epochs == 2
    longer = replace_fields(config, with_more_epochs(config, folder, 1))
    assert longer.stages[0].epochs == 3
    assert execute(longer, folder.path, options=QUIET).best["train"].epochs == 3


@pytest.mark.long
def test_more_epochs_that_failed_in_the_last_ranking_are_not_added_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = config_of(corpus), RunFolder(tmp_path / "run", writes=False)
    execute(config, folder.path, options=QUIET)
    longer = replace_fields(config, with_more_epochs(config, folder, 3))
    stop_after(monkeypatch, longer, folder.path, validations=9)
    assert replace_fields(config, with_more_epochs(config, folder, 3)) == longer


@pytest.mark.long
def test_more_epochs_leave_what_else_is_raised(corpus: Corpus, tmp_path: Path) -> None:
    rule = ValidationConfig(metric="mrr", patience=2)
    config = config_of(corpus, stage_of(steps=4, validation=rule))
    folder = RunFolder(tmp_path / "run", writes=False)
    execute(config, folder.path, options=QUIET)
    stage = stage_of(validation=replace(rule, patience=7))
    overrides = with_more_epochs(config_of(corpus, stage), folder, 2)
    longer = replace_fields(config_of(corpus, stage), overrides)
    assert (longer.stages[0].steps, longer.stages[0].epochs) == (None, 4)
    assert longer.stages[0].validation == replace(rule, patience=7)
    assert execute(longer, folder.path, options=QUIET).best["train"].epochs == 4


def test_more_epochs_are_refused_where_there_is_nothing_to_extend(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = config_of(corpus), RunFolder(tmp_path / "run", writes=False)
    with pytest.raises(InputError, match="run holds no run that could be extended"):
        with_more_epochs(config, folder, 1)
    stop_after(monkeypatch, config, folder.path, validations=1)
    with pytest.raises(InputError, match="holds a run that has not finished"):
        with_more_epochs(config, folder, 1)
    with pytest.raises(InputError, match="--more-epochs is 0; it must be at least 1"):
        with_more_epochs(config, folder, 0)
    with pytest.raises(InputError, match="a counting ranker has no epochs"):
        with_more_epochs(popularity(), folder, 1)
    other = config_of(corpus, stage_of("other"))
    with pytest.raises(InputError, match="its stages are train, this run's other"):
        with_more_epochs(other, folder, 1)


def test_only_the_state_that_had_ended_is_reopened() -> None:
    rule = ValidationConfig(metric="mrr", patience=2, min_epochs=9)
    config = stage_of(epochs=9, validation=rule)
    ended = StageState(epoch=3, step=8, rows=32, finished=True, stale=1)
    assert resume_extended(ended, config, 12, 9) == ended
    assert resume_extended(replace(ended, finished=False), config, 12, 8).epoch == 3
    # 32 rows are two epochs and a part of the third; patience would not have begun.
    again = resume_extended(ended, config, 12, 8)
    assert (again.finished, again.epoch, again.stale) == (False, 2, 0)
    # Where a limit still holds, nothing goes on.
    assert resume_extended(ended, replace(config, steps=8), 12, 8) == ended


class Interrupted(Exception):
    pass


def stop_after(
    monkeypatch: pytest.MonkeyPatch, config: RunConfig, folder: Path, *, validations: int
) -> None:
    """Do a run that fails after so many validations, with a checkpoint at each step.

    A run with fewer validations fails when it ranks the test part.
    """
    tables, calls = RunParts.tables, iter(range(validations))

    def counting(self: RunParts, ranker: Ranker, part: str, *sets: Any) -> Any:
        if part == "test" or next(calls, None) is None:
            raise Interrupted
        return tables(self, ranker, part, *sets)

    with monkeypatch.context() as patch:
        patch.setattr(RunParts, "tables", counting)
        options = replace(QUIET, checkpoints=CheckpointPlan(steps=1))
        with pytest.raises(Interrupted):
            execute(config, folder, options=options)


def fail(*given: object, **named: object) -> None:
    raise Interrupted

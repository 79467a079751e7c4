"""Loading a finished run, to rank with it, as the commands `evaluate` and `recommend` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from research.checkpoint import files as checkpoint
from research.config import from_json
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.evaluation.ranker import Ranker
from research.model.backbone import BackboneConfig
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig
from research.runs.corpus import check_fingerprint
from research.runs.parts import RunParts, ranking_objective
from research.runs.warm_start import final_checkpoint
from research.storage.folders import kind_of, what_is_at
from research.storage.records import RunRecord, RunSummary
from research.storage.run_folder import CONTINUED_BY, RunFolder
from research.storage.tuning_records import pruned_record


def load_run(
    path: Path, data_root: str, allow: Sequence[str] = (), device: str | None = None
) -> tuple[RunParts, Ranker]:
    """The parts of the finished run in folder `path`, and its ranker, on `device`.

    `device` is as in `RunOptions`; `allow` names packages, beside ours, whose config classes the
    run may hold. `InputError` when there is no run, it has not finished or is damaged, or when the
    corpus is not the one that it was trained on.
    """
    record, _ = records_of(path)
    config = from_json(record.config, RunConfig, allow=allow)
    run_parts = RunParts.of(config, data_root)
    same_ids = "the same ids would mean other items"
    check_fingerprint(run_parts.corpus, record.fingerprint, path, same_ids)
    if config.ranker is not None:
        return run_parts, config.ranker.build(run_parts.events, run_parts.split)
    accelerator = make_accelerator(device=device)
    stage = config.stages[-1]
    checkpoint_folder = final_checkpoint(
        RunFolder(path, writes=False), stage.name, run_parts.corpus.fingerprint, str(path)
    )
    num_embeddings = config.items.num_embeddings(run_parts.corpus.num_items)
    check_size(config.encoder, num_embeddings, checkpoint_folder / "model.safetensors")
    model = run_parts.model(stage, run_parts.components()).to(accelerator.device)
    checkpoint.load_weights(checkpoint_folder, model)
    objective = ranking_objective(stage, model)
    assert objective is not None, "a run's last stage ranks"
    return run_parts, TrainedRanker(model.encoder, objective)


def records_of(path: Path) -> tuple[RunRecord, RunSummary]:
    """What config.json and summary.json of the finished run in folder `path` say.

    `InputError` when there is no run, it has not finished or is damaged.
    """
    reader = RunFolder(path, writes=False)
    record, summary = reader.read(RunRecord), reader.read(RunSummary)
    if record is None or kind_of(path) == "hub":
        raise InputError(f"{path} is not a run folder: {what_is_at(path)}")
    pruned = pruned_record(path, record) if summary is None else None
    if pruned is not None:
        raise InputError(
            f"{path} holds a trial of a tuning that was ended early, after epoch {pruned.epoch} of "
            f"its last stage, at {pruned.value:.4f} on the validation part; it has no final "
            "weights, and its test part is never ranked. Name another trial, or a run of the "
            "tuning's winner"
        )
    if summary is None:
        raise InputError(f"{path} holds a run that has not finished; {CONTINUED_BY}")
    return record, summary


def check_tested(path: Path, config: RunConfig, summary: RunSummary) -> None:
    """Raise `InputError`, with validation figures, for a run whose test part is never ranked."""
    if config.evaluation.test:
        return
    figures = ", ".join(f"{name} {value:.4f}" for name, value in list(summary.val.items())[:4])
    raise InputError(
        f"{path}: evaluation.test of this run is off, as of a tuning's trials, so that its test "
        f"part is never ranked. On the validation part it has {figures}: `evaluate {path} --part "
        'validation`, in Python part="validation". Test figures are those of the runs of a '
        "tuning's winner"
    )


def check_size(encoder: BackboneConfig, num_embeddings: int, weights: Path) -> None:
    """Raise `InputError` when the file `weights` is too small for the encoder of the config.

    `num_embeddings` is the number of items that have an embedding of their own.

    It is checked before the model is built: an untrusted config could ask for any amount of memory.
    """
    num_parameters = encoder.num_parameters(num_embeddings)
    # A number takes at least two bytes.
    if 2 * num_parameters > weights.stat().st_size:
        raise InputError(
            f"{weights} is too small for a model of {num_parameters:,} numbers, as the run's "
            "config has it; the config or the checkpoint is of another run"
        )

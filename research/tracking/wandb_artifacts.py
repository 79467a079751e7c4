"""The artifacts of a finished run on W&B: its best checkpoint, and its rank tables.

They are uploaded on request alone, as checkpoints are large. The files are read from the run's
folder where they lie; W&B stores a file once, however often it is sent.
"""

from __future__ import annotations

import os
from pathlib import Path

import wandb

from research.checkpoint.files import result_folder
from research.storage.records import RunRecord
from research.storage.untrusted import file_inside
from research.tracking.wandb_fields import RunLocation


def artifacts_of(path: Path, record: RunRecord, run_id: str) -> list[wandb.Artifact]:
    """The artifacts of the run in a folder: `ranks-ID`, and `checkpoint-ID` if it trains.

    A checkpoint holds the weights of the last stage's best validation (of its end, without
    validation) with the run's config.json, and no optimizer state. Raises `InputError` when no
    checkpoint is undamaged.
    """
    location = RunLocation.of(path, record)
    metadata = {**vars(location), "hash": record.hash, "fingerprint": record.fingerprint}
    ranks = wandb.Artifact(f"ranks-{run_id}", type="ranks", metadata=metadata)
    tables = sorted(path.glob("ranks/*.npz"))
    artifacts = [with_files(ranks, path, [f"ranks/{table.name}" for table in tables])]
    if record.outline.stages:
        stage = record.outline.stages[-1].name
        folder = result_folder(file_inside(path, f"stages/{stage}"), record.fingerprint)
        checkpoint = wandb.Artifact(
            f"checkpoint-{run_id}", type="model", metadata={**metadata, "stage": stage}
        )
        within = folder.relative_to(path)
        names = [f"{within}/{name}" for name in ("model.safetensors", "state.json")]
        artifacts.append(with_files(checkpoint, path, [RunRecord.FILE, *names]))
    return artifacts


def with_files(artifact: wandb.Artifact, path: Path, names: list[str]) -> wandb.Artifact:
    """The artifact with files of the run folder `path`, under the names that they have there."""
    for name in names:
        # The manifest that is uploaded names the file as it is named here: by a relative path, as
        # that tells least of this machine. A file that is not immutable would be copied first.
        local = os.path.relpath(file_inside(path, name))
        artifact.add_file(local, name=name, policy="immutable")
    return artifact

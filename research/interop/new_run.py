"""What imports share: they make a whole run folder, whose stage has ended, and overwrite none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from research.checkpoint import files as checkpoint
from research.errors import InputError
from research.storage.atomic import whole_folder
from research.storage.records import RunRecord
from research.storage.run_folder import RunFolder
from research.training.multi_objective import MultiObjectiveModel
from research.training.state import StageState

MEANWHILE = "was made by another process meanwhile; choose another folder"


def check_free(*paths: Path) -> None:
    """Raise `InputError` where one of the paths exists: exports and imports overwrite nothing."""
    for path in paths:
        if path.exists():
            raise InputError(
                f"{path} exists and is not overwritten; remove it or choose another name"
            )


@contextmanager
def new_run(out: Path, run_hash: str) -> Iterator[RunFolder]:
    """A run folder to fill, which becomes `out` when the block ends; if it raises, none is made.

    `run_hash` is the one in the config.json that the block writes. `InputError` where `out` is made
    by another process meanwhile.
    """
    with whole_folder(out) as partial:
        yield RunFolder(partial)
    written = RunFolder(out, writes=False).read(RunRecord)
    if written is None or written.hash != run_hash:
        raise InputError(f"{out} {MEANWHILE}")


def save_ended_stage(
    folder: RunFolder, stage: str, model: MultiObjectiveModel, fingerprint: str, state: StageState
) -> None:
    """Write the model as the checkpoint of a stage that has ended in `state`."""
    target = checkpoint.folder_of(folder.stage(stage), checkpoint.STEP, state.step)
    checkpoint.save(target, model, None, {"fingerprint": fingerprint, **asdict(state)})

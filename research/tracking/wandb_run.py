"""One W&B run through the client's API: opened, sent the lines that it lacks, and finished.

Everything here may raise what the client raises and wait as long as the client waits;
`research/tracking/wandb_mirror.py` and `research/tracking/sync.py` limit the waiting.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import wandb

from research.storage.records import RunRecord, RunSummary, WandbRecord, read_record, write_record
from research.storage.run_folder import RunFolder, Scalar
from research.storage.tuning_records import PrunedRecord, pruned_record
from research.tracking.config import Tracking
from research.tracking.wandb_fields import (
    DisplayNames,
    Rows,
    axes_of,
    config_of,
    origins_of,
    run_id,
    summary_of,
    tags_of,
)

PROJECT = "sixfold"
# Run folders by the id that WANDB_RUN_ID gave them: one run gets the id, not every run of a study.
_claimed: dict[str, Path] = {}


def start_client() -> None:
    """Set the client up to print nothing."""
    # Error reports would make a process wait 20 s at its exit for a server that does not answer.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    wandb.setup(settings=wandb.Settings(silent=True))


def has_key() -> bool:
    """Whether there is a key in the environment, a netrc file or W&B's settings; never prompts."""
    start_client()
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return bool(wandb.api.api_key)
    except wandb.Error:
        # The client raises this for a key of a wrong form, so there is a key.
        return True


class WandbRun:
    """An open W&B run, which knows how many lines of metrics.jsonl it has been sent."""

    def __init__(
        self,
        path: Path,
        record: RunRecord,
        tracking: Tracking,
        mode: Literal["online", "offline"],
        *,
        live: bool = True,
    ) -> None:
        """Begin the W&B run of a folder with this config.json, or continue it if it exists.

        `live`: this process does the run, so that its load and its packages are the run's. The
        client keeps its files in the folder that WANDB_DIR names, else in ./wandb, where `wandb
        sync` looks for them.

        Raises `wandb.Error` when the server cannot be reached or refuses the key.
        """
        start_client()
        self.path, self.record, self.tracking = path, record, tracking
        earlier = read_record(path, WandbRecord)
        project = tracking.project or (None if earlier is None else earlier.project)
        entity = tracking.entity or (None if earlier is None else earlier.entity)
        names = DisplayNames.of(path, record)
        self.run = wandb.init(
            id=_id_from_environment(path) or run_id(path),
            project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=entity,
            mode=mode,
            # Also the first time: without it the server would overwrite a run of the same id.
            resume="allow",
            config=config_of(path, record, None, silent=tracking.silent),
            tags=tags_of(path, record),
            group=names.group,
            job_type=names.job_type,
            name=names.name,
            settings=settings_of(tracking, record, live=live),
        )
        for pattern, axis in axes_of(record).items():
            self.run.define_metric(pattern, step_metric=axis)
        # Offline the client asks no server and starts at 0, so an offline run gets every line.
        self.next = self.run.starting_step
        self._rows = Rows()
        write_record(
            path,
            WandbRecord(
                id=self.run.id,
                project=self.run.project,
                entity=self.run.entity or None,
                mode=mode,
                url=self.run.url,
            ),
        )

    def line(self, number: int, line: Mapping[str, Scalar]) -> int:
        """Send the line of metrics.jsonl that has just been written; returns how many were sent.

        If an earlier line is missing or the file was rewound, all lines are read again
        (`catch_up`).
        """
        if number != self._rows.number:
            return self.catch_up()
        return self._send(number, self._rows.row(line), origins={})

    def catch_up(self) -> int:
        """Send all lines of metrics.jsonl that the W&B run lacks; returns how many.

        Lines of a stage that was taken over are not sent: the run that trained it has them.
        """
        self._rows = Rows()
        origins = origins_of(self.path, self.record)
        lines = RunFolder(self.path, writes=False).metrics()
        return sum(
            self._send(number, self._rows.row(line), origins) for number, line in enumerate(lines)
        )

    def _send(self, number: int, row: dict[str, Scalar], origins: Mapping[str, Path]) -> int:
        if number < self.next or row["stage"] in origins:
            return 0
        self.run.log(row, step=number, commit=True)
        self.next = number + 1
        return 1

    def send_summary(self, summary: RunSummary) -> int:
        """Send the lines that W&B lacks, the summary, and artifacts if they are asked for.

        Returns how many lines were sent.
        """
        sent = self.catch_up()
        config = config_of(self.path, self.record, summary, silent=self.tracking.silent)
        self.run.config.update(config, allow_val_change=True)  # type: ignore[no-untyped-call]
        self.run.summary.update(summary_of(summary))
        if self.tracking.artifacts:
            # It needs the code of checkpoints, and with it torch.
            from research.tracking.wandb_artifacts import artifacts_of

            for artifact in artifacts_of(self.path, self.record, self.run.id):
                self.run.log_artifact(artifact)
        return sent

    def send_without_summary(self) -> int:
        """Send the lines that W&B lacks of a run without a summary; returns how many.

        Its status is "pruned" if it is a trial that was ended early, else "unfinished".
        """
        sent = self.catch_up()
        status = "unfinished" if self.pruned is None else "pruned"
        self.run.summary.update({"status": status})
        return sent

    @property
    def pruned(self) -> PrunedRecord | None:
        """Where the run was ended early, which is its end; None: it was not."""
        return pruned_record(self.path, self.record)

    def finish(self, exit_code: int) -> None:
        """End the W&B run, and wait until the server has confirmed everything.

        Raises `TimeoutError` after `Tracking.end_seconds`.
        """
        self.run.finish(exit_code)


def settings_of(tracking: Tracking, record: RunRecord, *, live: bool) -> wandb.Settings:
    """The client's settings: timeouts, and what it records by itself.

    Unless the tracking is silent, these are the commit of this code and, of a live run, the load of
    the machine and the versions of all packages. Never the terminal, files of code, or what the
    client calls metadata: the names of host, user and folders.
    """
    commit = record.provenance[-1].commit if record.provenance else None
    observed = live and not tracking.silent
    return wandb.Settings(
        init_timeout=tracking.init_seconds,
        finish_timeout=tracking.end_seconds,
        finish_timeout_raises=True,
        # A caller's own W&B run is left alone.
        reinit="create_new",
        # Otherwise the client would send the path of the script.
        program="sixfold",
        program_relpath="sixfold",
        console="off",
        silent=True,
        disable_code=True,
        # The client would take the commit of the working folder, which may be another project's.
        disable_git=True,
        git_commit=None if tracking.silent else commit,
        # The load of the machine is part of what the client calls machine info.
        x_disable_machine_info=not observed,
        # The machine's name is private, and the client sends it with the rest.
        host="",
        x_disable_meta=True,
        x_disable_stats=not observed,
        x_save_requirements=observed,
    )


def _id_from_environment(path: Path) -> str | None:
    """The id in WANDB_RUN_ID, which a sweep's agent sets; None: not set, or another folder's.

    The first folder that asks gets it.
    """
    requested_id = os.environ.get("WANDB_RUN_ID")
    if requested_id is None or _claimed.setdefault(requested_id, path) != path:
        return None
    return requested_id

"""One W&B run by the client's own API: opened, told what it lacks of a run folder, finished.

Everything here may raise whatever the client raises and wait as long as the client waits;
`research/tracking/wandb_mirror.py` and `research/tracking/sync.py` set the bounds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import wandb

from research.storage.records import RunRecord, RunSummary, WandbRecord, read_record, write_record
from research.storage.run_folder import RunFolder, Scalar
from research.tracking.config import Tracking
from research.tracking.wandb_fields import (
    Named,
    Rows,
    axes_of,
    config_of,
    donors_of,
    run_id,
    summary_of,
    tags_of,
)

PROJECT = "sixfold"
# Folders by the id that WANDB_RUN_ID gave them: it names one run, not all of a study.
_claimed: dict[str, Path] = {}


def start_client() -> None:
    """Set the client up to say nothing."""
    # Its error reports would make a process wait 20 s at its exit for a server that hangs.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    wandb.setup(settings=wandb.Settings(silent=True))


def has_key() -> bool:
    """Whether there is a key in the environment, a netrc file or W&B's settings; never asks."""
    start_client()
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        return bool(wandb.api.api_key)
    except wandb.Error:
        # There is one, of a wrong form.
        return True


class WandbRun:
    """An open W&B run, and how much of the run folder it has."""

    def __init__(
        self, path: Path, record: RunRecord, tracking: Tracking, mode: Literal["online", "offline"]
    ) -> None:
        """Begin the run of a folder with this config.json, or continue it where the server has it.

        Raises `wandb.Error` when the server cannot be reached or refuses the key.
        """
        start_client()
        self.path, self.record = path, record
        known = read_record(path, WandbRecord)
        project = tracking.project or (None if known is None else known.project)
        entity = tracking.entity or (None if known is None else known.entity)
        named = Named.of(path, record)
        self.run = wandb.init(
            id=_given_id(path) or run_id(path),
            project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=entity,
            dir=path,
            mode=mode,
            # Also at the first time: otherwise a server begins the run anew and overwrites it.
            resume="allow",
            config=config_of(path, record, None),
            tags=tags_of(record),
            group=named.group,
            job_type=named.job_type,
            name=named.name,
            settings=settings_of(tracking),
        )
        for pattern, axis in axes_of(record).items():
            self.run.define_metric(pattern, step_metric=axis)
        # Offline the client asks no one, so that an offline run has every line from the first on.
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
        """Send the line of metrics.jsonl that has just been written; see `catch_up`."""
        if number != self._rows.number:
            return self.catch_up()
        return self._send(number, self._rows.row(line), donors={})

    def catch_up(self) -> int:
        """Send all lines that the run lacks; returns how many.

        Lines of a stage that another run has trained are that run's.
        """
        self._rows = Rows()
        donors = donors_of(self.path, self.record)
        lines = RunFolder(self.path, writes=False).metrics()
        return sum(
            self._send(number, self._rows.row(line), donors) for number, line in enumerate(lines)
        )

    def _send(self, number: int, row: dict[str, Scalar], donors: Mapping[str, Path]) -> int:
        if number < self.next or row["stage"] in donors:
            return 0
        self.run.log(row, step=number, commit=True)
        self.next = number + 1
        return 1

    def conclude(self, summary: RunSummary) -> int:
        """Send what is lacking, and the summary; returns how many lines were lacking."""
        sent = self.catch_up()
        config = config_of(self.path, self.record, summary)
        self.run.config.update(config, allow_val_change=True)  # type: ignore[no-untyped-call]
        self.run.summary.update(summary_of(summary))
        return sent

    def leave(self) -> int:
        """Send what is lacking of a run that has not ended; returns how many lines it was."""
        sent = self.catch_up()
        self.run.summary.update({"status": "unfinished"})
        return sent

    def finish(self, exit_code: int) -> None:
        """Wait until the server has confirmed everything; `TimeoutError` after `finish_seconds`."""
        self.run.finish(exit_code)


def settings_of(tracking: Tracking) -> wandb.Settings:
    """Bounds, and nothing that looks at the machine, the code or the terminal."""
    return wandb.Settings(
        init_timeout=tracking.init_seconds,
        finish_timeout=tracking.finish_seconds,
        finish_timeout_raises=True,
        # A caller's own W&B run is left alone.
        reinit="create_new",
        # The client would tell the path of the script.
        program="sixfold",
        program_relpath="sixfold",
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _given_id(path: Path) -> str | None:
    """The id of WANDB_RUN_ID, which a sweep's agent sets, for the first folder that asks."""
    given = os.environ.get("WANDB_RUN_ID")
    if given is None or _claimed.setdefault(given, path) != path:
        return None
    return given

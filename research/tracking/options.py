"""The command line options `--wandb...`, which ask for a mirror on W&B."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args, get_type_hints

from research.errors import InputError, needing
from research.storage.records import RunRecord, RunSummary, WandbRecord, read_record
from research.tracking.config import Tracking

MODES: tuple[str, ...] = get_args(get_type_hints(Tracking)["mode"])


def add_wandb_options(parser: argparse.ArgumentParser) -> None:
    """Add `--wandb [auto|online|offline]`, `--wandb-project` and `--wandb-entity` to a parser."""
    parser.add_argument(
        "--wandb",
        choices=MODES,
        nargs="?",
        const="auto",
        help="mirror to W&B; auto, which may be left out: online if a key is configured",
    )
    parser.add_argument("--wandb-project", metavar="NAME", help="instead of sixfold")
    parser.add_argument("--wandb-entity", metavar="NAME", help="a user or team, not the key's own")


def spelled(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--wandb` replaced by `--wandb=auto` where no mode follows it.

    Otherwise argparse would take the next word, such as an override, for the mode.
    """
    following = [*arguments[1:], ""]
    return [
        "--wandb=auto" if word == "--wandb" and after not in MODES else word
        for word, after in zip(arguments, following)
    ]


def needing_wandb() -> AbstractContextManager[None]:
    """A context in which importing W&B's client raises `InputError` when it is not installed."""
    remedy = "pip install wandb (a run goes without it, and `sync` uploads it later)"
    return needing(("wandb",), "W&B", remedy)


def tracking_of(known: argparse.Namespace, *, main: bool) -> Tracking | None:
    """The mirror that the command line asks for, with the mode `auto` decided.

    None: no mirror is wanted, or this is not the `main` process, which alone has one. Raises
    `InputError` for online without a key, for a missing W&B client, and for a project or entity
    without --wandb.
    """
    if known.wandb is None and (known.wandb_project or known.wandb_entity):
        raise InputError("--wandb-project and --wandb-entity say where to; add --wandb")
    if known.wandb is None or not main:
        return None
    # The W&B client takes half a second to import.
    with needing_wandb():
        from research.tracking.wandb_mirror import with_mode_decided

    asked = Tracking(mode=known.wandb, project=known.wandb_project, entity=known.wandb_entity)
    return with_mode_decided(asked, known.quiet)


def mirror_finished(path: Path, tracking: Tracking, *, quiet: bool = False) -> None:
    """Mirror a run that had already ended, if WANDB_RUN_ID asks for it under a new id.

    A W&B sweep's agent sets WANDB_RUN_ID, and expects figures under that id also when the run was
    done before.
    """
    given = os.environ.get("WANDB_RUN_ID")
    known = read_record(path, WandbRecord)
    if given is None or (known is not None and known.id == given):
        return
    from research.tracking.wandb_mirror import WandbMirror

    mirror = WandbMirror(path, tracking, quiet=quiet)
    record, summary = read_record(path, RunRecord), read_record(path, RunSummary)
    assert record is not None, "the run has ended"
    assert summary is not None, "the run has ended"
    mirror.begin(record)
    mirror.end(summary)

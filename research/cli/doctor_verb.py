"""The verb `doctor`: what this installation and this machine have, and what would go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from research.cli.verb import DataRoot, Flag, Verb


@dataclass(frozen=True, kw_only=True)
class DoctorCommand(Verb):
    """Check this installation and this machine, and print what was found.

    That is versions, devices, threads, launchers, W&B, disk space, and packages of the working
    folder that hide ours. The exit code is 1 if a finding is a problem, and 0 if none is.
    """

    LINE = "[--json]: check versions, devices, threads, launchers, W&B and disks"
    json: Flag = False
    """print one JSON object"""
    runs: Annotated[str, arg(metavar="FOLDER")] = "runs"
    """folder of all runs"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Check, and print the findings."""
        from research.cli.doctor import doctor

        return doctor(self)

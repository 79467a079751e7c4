"""The version of this code: the git commit of its checkout, and whether files have changed since.

It stands apart from the rest of a run's provenance, so that `--version` need not wait for torch.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import research

# A limit, since git may wait for a disk in the network.
_SECONDS_OF_GIT = 5.0


@functools.cache
def code_version() -> tuple[str | None, bool | None]:
    """(commit, clean): the git commit of this code, and whether it is unchanged; None: unknown.

    git is called once a process, which keeps running the code that it started with. Changes of
    tracked files count, and new Python files too, as they may be what runs.
    """
    file = str(research.__file__)
    # Code that is installed inside another project's checkout does not belong to that checkout.
    if _git("ls-files", "--error-unmatch", file) is None:
        return None, None
    commit = _git("rev-parse", "--verify", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=all")
    if commit is None or status is None:
        return commit, None
    changes = [
        line for line in status.splitlines() if not line.startswith("??") or line.endswith(".py")
    ]
    return commit.strip(), not changes


def _git(*words: str) -> str | None:
    """What a git command prints in the folder of this code; None: it fails, or there is no git."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        process = subprocess.run(
            ["git", "-C", str(Path(str(research.__file__)).parent), *words],
            # Without this, git could take a lock for which another git command would wait.
            env={**inherited, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS_OF_GIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout if process.returncode == 0 else None

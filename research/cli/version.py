"""The line of `--version`: the version, and the commit where the code is a checkout."""

from __future__ import annotations

import importlib.metadata

from research.runs.code_version import code_version
from research.storage.provenance_lines import commit_with_state


def version_line() -> str:
    """`sixfold VERSION`, and in a checkout its commit and whether files have changed since."""
    try:
        version = importlib.metadata.version("sixfold")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    commit, clean = code_version()
    if commit is None:
        return f"sixfold {version}"
    return f"sixfold {version}, commit {commit_with_state(commit, clean)}"

"""The verb `audit`: prints what a reviewer would ask of a corpus or of a finished run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from research.cli import verbs
from research.console import plain_console
from research.data.audit import audit_corpus
from research.data.corpus import Corpus
from research.data.findings import Finding, Level
from research.data.splits import GlobalTemporal, LeaveOneOut, SplitConfig, UserHoldout
from research.errors import InputError
from research.runs.audit import audit_run
from research.storage.folders import run_or_corpus_at

# In the order in which findings are printed.
LEVELS: tuple[Level, ...] = ("problem", "warning", "fine")


def audit(arguments: verbs.AuditCommand) -> int:
    """Print the findings; returns 1 if one of them is a problem, else 0.

    Raises `InputError` for a folder that is neither a run nor a corpus, for a damaged one, and for
    a run with --split.
    """
    folder = run_or_corpus_at(arguments.target, arguments.data_root)
    if (folder / "config.json").is_file():
        if arguments.split is not None:
            raise InputError(
                f"--split {arguments.split}: {folder} is a run, which is checked under its own "
                "split; leave --split out, or name the folder of its corpus"
            )
        kind, findings = "run", audit_run(folder, arguments.data_root, arguments.allow)
    else:
        kind, findings = "corpus", audit_corpus(Corpus.open(folder), split_named(arguments.split))
    counts = Counter(found.level for found in findings)
    if arguments.json:
        answer = {
            "folder": str(folder),
            "kind": kind,
            "problems": counts["problem"],
            "warnings": counts["warning"],
            "findings": [
                {
                    "check": found.check,
                    "level": found.level,
                    "numbers": dict(found.numbers),
                    "sentence": found.sentence,
                }
                for found in findings
            ],
        }
        print(json.dumps(answer, indent=1, allow_nan=False))
    else:
        print_findings(folder, findings)
    return 1 if counts["problem"] else 0


def split_named(name: verbs.SplitName | None) -> SplitConfig:
    """The split of that name, with its defaults; None is leave-one-out."""
    if name == "UserHoldout":
        return UserHoldout()
    return GlobalTemporal() if name == "GlobalTemporal" else LeaveOneOut()


def print_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """Print a line for each finding, problems first, and at the end how many there are."""
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for level in LEVELS:
        for found in findings:
            if found.level == level:
                table.add_row(level, found.check, found.sentence)
    console = plain_console()
    console.print(str(folder))
    console.print(table)
    counts = Counter(found.level for found in findings)
    console.print(", ".join(f"{level}: {counts[level]}" for level in LEVELS))

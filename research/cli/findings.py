"""Prints findings, for people and for scripts; the verbs `audit` and `doctor` share it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.table import Table

from research.console import plain_console
from research.data.findings import Finding, Level

# In the order in which findings are printed.
LEVELS: tuple[Level, ...] = ("problem", "warning", "fine")


def tell(
    findings: Sequence[Finding], *, heading: str, facts: Mapping[str, str] | None = None
) -> int:
    """Print findings; returns 1 if one of them is a problem, else 0.

    With `facts` this is one JSON object, which has them too; else it is the heading, a line for
    each finding, problems first, and how many there are.
    """
    counts = Counter(finding.level for finding in findings)
    if facts is None:
        _print_lines(findings, heading)
    else:
        answer = {
            **facts,
            "problems": counts["problem"],
            "warnings": counts["warning"],
            "findings": [
                {
                    "check": finding.check,
                    "level": finding.level,
                    "numbers": dict(finding.numbers),
                    "sentence": finding.sentence,
                }
                for finding in findings
            ],
        }
        print(json.dumps(answer, indent=1, allow_nan=False))
    return 1 if counts["problem"] else 0


def _print_lines(findings: Sequence[Finding], heading: str) -> None:
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for level in LEVELS:
        for finding in findings:
            if finding.level == level:
                table.add_row(level, finding.check, finding.sentence)
    console = plain_console()
    console.print(heading)
    console.print(table)
    counts = Counter(finding.level for finding in findings)
    console.print(", ".join(f"{level}: {counts[level]}" for level in LEVELS))

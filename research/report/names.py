"""The names of a report's figures and tables, as files and on the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping

from research.annotations import did_you_mean
from research.errors import InputError
from research.report.schema import Part, Report

# Names of the files of a report, by its part; the one on validation stands beside the one on test.
STEMS: Mapping[Part, str] = {"test": "report", "validation": "report-validation"}


def slug(name: str) -> str:
    """A name as part of a label or a file's name: lower-case ASCII letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


def numbered(name: str, number: int) -> str:
    """The name of what belongs to table `number` of a corpus, which shows from the second on."""
    return name if number == 1 else f"{name}-{number}"


def whole_name(report: Report, name: str, names: Mapping[str, object], kind: str) -> str:
    """`CORPUS/NAME` for a name that may lack its corpus where the study has only one.

    Raises `InputError` unless it is in `names`, with those that there are.
    """
    only = f"{report.corpora[0].name}/{name}" if len(report.corpora) == 1 else name
    for candidate in (name, only):
        if candidate in names:
            return candidate
    raise InputError(
        f"the report has no {kind} {name!r}{did_you_mean(only, names)}; "
        f"{kind}s: {', '.join(names) or 'none'}"
    )

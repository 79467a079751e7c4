"""leaderboard.html: all result lines on a page of its own, to be filtered, sorted and copied from.

The page loads nothing from elsewhere. Its template, leaderboard_template.html, escapes all text and
has every row; leaderboard_script.js chooses among them and draws, from the same rows as JSON. The
content security policy allows that one script, by its hash, and no request. Without scripts the
page is the table of the first data set and study.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from experiments.results.comparisons import Comparisons
from experiments.results.lines import ResultLine
from experiments.results.rerun import command_of
from experiments.results.tables import (
    SIGNS,
    Row,
    Table,
    difference_texts,
    figure_text,
    protocol_of,
    seeds_text,
)
from research.report.caveats import title_of
from research.report.formatting import short_decimal
from research.report.html import template
from research.storage.untrusted import printable, short_text

FOLDER = Path(__file__).parent
# The metric that is shown first; a table without it begins with its first one.
FIRST_METRIC = "ndcg@10"
# What the test part asks for, by the split's class.
ASKED = {
    "LeaveOneOut": "each user's last item is asked for",
    "TemporalCut": "items after a point in time are asked for",
    "TimepointLeaveOneOut": "each user's first item after a point in time is asked for",
    "GlobalTemporal": "all items after a point in time are asked for",
    "UserHoldout": "the last items of users whom training has not seen are asked for",
    "ColdItems": "items that training has not seen are asked for",
}
# Fields of a protocol that `words_of` tells in words of its own, or that a full ranking leaves
# without effect.
TOLD = {
    "candidates", "candidates_seed", "corpus", "filters", "fingerprint", "history", "part", "seen",
    "split", "ties",
}  # fmt: skip


def leaderboard_page(tables: Sequence[Table]) -> str:
    """The whole page as HTML text; `tables` are at least one."""
    script = (FOLDER / "leaderboard_script.js").read_text(encoding="utf-8")
    return template("leaderboard_template.html", FOLDER).render(
        tables=[view_of(table) for table in tables],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        num_lines=sum(len(row.lines) for table in tables for row in table.rows),
    )


def view_of(table: Table) -> dict[str, object]:
    """What the page has of a table, as JSON; rows with the highest first metric come first."""
    metrics = list(dict.fromkeys(metric for row in table.rows for metric in row.means))
    first = FIRST_METRIC if FIRST_METRIC in metrics else metrics[0]
    measured = [row for row in table.rows if first in row.means]
    others = [row for row in table.rows if first not in row.means]
    rows = [*sorted(measured, key=lambda row: -row.means[first].mean), *others]
    return {
        "dataset": printable(table.dataset),
        "study": printable(table.study),
        "words": [
            *(printable(sentence) for sentence in words_of(rows[0].lines[0])),
            *([SIGNS] if table.comparisons is not None and table.comparisons.against else []),
        ],
        "metrics": metrics,
        "first": first,
        "rows": [row_view(row, table.comparisons) for row in rows],
    }


def row_view(row: Row, comparisons: Comparisons | None) -> dict[str, object]:
    """What the page has of a row, as JSON: texts to show, and `keys`, values to sort by."""
    differences = {} if comparisons is None else comparisons.of_cell(row.cell)
    shown = []
    first = None
    if comparisons is not None:
        first = differences.get(next(iter(comparisons.against), ""))
        for base, compared in differences.items():
            size, p = difference_texts(compared)
            shown.append((size, printable(f"{comparisons.metric.upper()} vs {base}, p {p}")))
    lines = row.lines
    tokens = [line.tokens for line in lines if line.tokens is not None]
    mean_tokens = sum(tokens) / len(tokens) if tokens else None
    parameters = lines[0].parameters
    texts = {
        "cell": printable(row.cell),
        "seeds": seeds_text(row.seeds),
        "seconds": f"{row.seconds:,.0f}",
        "parameters": f"{parameters:,}",
        "tokens": "" if mean_tokens is None else f"{mean_tokens:,.0f}",
        "date": joined(sorted({line.date for line in lines})),
        "commit": joined(commit_of(line, 7) for line in lines),
        "machine": joined(processor_of(line) for line in lines),
    }
    numbers = {
        "seeds": len(lines),
        "seconds": rounded(row.seconds),
        "parameters": parameters,
        "tokens": None if mean_tokens is None else rounded(mean_tokens),
        "difference": None if first is None else rounded(first.difference),
    }
    return {
        **texts,
        "keys": {**texts, **numbers},
        "figures": {
            name: [rounded(mean.mean), rounded(mean.half), figure_text(mean)]
            for name, mean in row.means.items()
        },
        "validation": {
            name: [rounded(value), short_decimal(value)] for name, value in row.validation.items()
        },
        "differences": shown,
        "published": [
            {
                "figures": {name: [x, short_decimal(x)] for name, x in figure.figures.items()},
                "source": printable(figure.source),
                "difference": printable(figure.difference),
            }
            for figure in row.published
        ],
        "runs": runs_of(lines),
        "again": printable(command_of(lines[0]) or ""),
    }


def rounded(number: float) -> float:
    """A number as far as it is the same on all processors."""
    return round(number, 6)


def runs_of(lines: Iterable[ResultLine]) -> list[dict[str, str]]:
    """The commands of a cell's lines, each with the seeds that it gave, when, where and of which
    code."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        machine = f"{processor_of(line)}, {line.machine.platform}"
        told = f"begun {line.date}, commit {commit_of(line, 40) or 'not known'}, on {machine}"
        seeds.setdefault((line.command, told), []).append(line.seed)
    return [
        {
            "command": printable(command),
            "told": printable(f"{seeds_text(of_run).capitalize()}: {told}"),
        }
        for (command, told), of_run in seeds.items()
    ]


def joined(texts: Iterable[str]) -> str:
    """Different texts in their order, those that are empty left out."""
    return ", ".join(dict.fromkeys(printable(text) for text in texts if text))


def commit_of(line: ResultLine, letters: int) -> str:
    """The first letters of a line's commit, and whether the code had changes; empty: not known."""
    if line.commit is None:
        return ""
    return f"{line.commit[:letters]}{' with changes' if line.clean is False else ''}"


def processor_of(line: ResultLine) -> str:
    """What a line's run was computed with."""
    return f"{line.machine.accelerator or line.machine.cpu}, {line.machine.cores} cores"


def words_of(line: ResultLine) -> list[str]:
    """Sentences on what the figures of a line's table mean: its protocol and its corpus."""
    protocol = protocol_of(line)
    split = protocol.get("split")
    kind = str(split.get("class")) if isinstance(split, dict) else ""
    history = protocol.get("history")
    given = "whole histories" if history == "whole" else f"of each history {short_text(history)}"
    filters = protocol.get("filters")
    options = filters.items() if isinstance(filters, dict) else ()
    prepared = ", ".join(f"{name}={short_text(value)}" for name, value in options)
    others = {name: value for name, value in protocol.items() if name not in TOLD}
    rule = short_text(split).replace("()", " at its defaults")
    title = title_of(protocol, line.ties)
    return [
        f"{title[:1].upper()}{title[1:]}; {ASKED.get(kind, 'the split says what is asked for')} "
        f"(split {rule}). {line.users:,} users; rankers read {given}.",
        f"Corpus {short_text(protocol.get('corpus'))}, fingerprint {line.fingerprint[:12]}, "
        + (f"filtered by {prepared}." if prepared else "not filtered when prepared."),
        *(f"{name}: {short_text(value)}." for name, value in sorted(others.items())),
    ]

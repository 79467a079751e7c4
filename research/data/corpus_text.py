"""What a corpus, a run or a study looks like in a terminal and in a notebook: a few lines.

Names come from folders that others may have written, so they are shown without control characters.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from research.storage.untrusted import printable, short_text

if TYPE_CHECKING:
    from research.data.corpus import Corpus


def text_of(corpus: Corpus) -> str:
    """The corpus in two lines, and one more where preparation warned; it reads no array."""
    facts = facts_of(corpus)
    counts = ", ".join(f"{count} {name}" for name, count in list(facts.items())[:4])
    return (
        f"Corpus {printable(corpus.name)}: {counts}\n"
        f"  {facts['times']}, {facts['titles']}, fingerprint {facts['fingerprint']}, "
        f"in {facts['folder']}" + (f"\n  vectors: {facts['vectors']}" if "vectors" in facts else "")
    ) + (f"\n  warnings: {facts['warnings']}" if "warnings" in facts else "")


def html_of(corpus: Corpus) -> str:
    """The corpus as an HTML table of two columns; it reads no array."""
    return html_table(f"Corpus {corpus.name}", facts_of(corpus))


def facts_of(corpus: Corpus) -> dict[str, str]:
    """What one asks of a corpus first: its four counts, times, titles, fingerprint and folder."""
    facts = {
        "users": f"{corpus.num_users:,}",
        "items": f"{corpus.num_items:,}",
        "interactions": f"{corpus.num_interactions:,}",
        "attributes": f"{corpus.num_attributes:,}",
        "times": "no times" if corpus.timestamps is None else "with times",
        "titles": "no titles" if corpus.item_titles is None else "with titles",
        "fingerprint": printable(corpus.fingerprint[:12]),
        "folder": folder_text(corpus.folder),
    }
    if corpus.item_vectors is not None:
        facts["vectors"] = vectors_text(corpus.item_vectors.shape[1], corpus.manifest.report)
    warnings = corpus.manifest.report.get("warnings")
    if isinstance(warnings, Sequence) and warnings:
        facts["warnings"] = (
            f"{len(warnings)}, in manifest.report, first: {short_text(warnings[0], 100)}"
        )
    return facts


def vectors_text(size: int, report: Mapping[str, object]) -> str:
    """The `size` of vectors of items and, where not 0, what a preparation's `report` counted."""
    words = {
        "items_without": "items without a vector in the file",
        "of_no_item": "vectors of no item",
        "items_without_events": "items without events",
    }
    counted = report.get("vectors")
    counts = counted if isinstance(counted, Mapping) else {}
    phrases = [
        f"{text}: {count:,}"
        for name, text in words.items()
        if isinstance(count := counts.get(name), int) and count
    ]
    return "; ".join([f"{size:,} numbers an item", *phrases])


def folder_text(folder: Path) -> str:
    """The path of a folder, safe to show."""
    return printable(str(folder))


def html_table(title: str, rows: Mapping[str, str]) -> str:
    """A title and a table of two columns as HTML, with all text escaped."""
    lines = [
        f'<tr><th style="text-align:left">{html.escape(printable(name))}</th>'
        f'<td style="text-align:left">{html.escape(printable(value))}</td></tr>'
        for name, value in rows.items()
    ]
    return f"<b>{html.escape(printable(title))}</b><table>{''.join(lines)}</table>"

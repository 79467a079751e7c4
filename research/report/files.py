"""Writes a report as report.html, report.csv and report.tex."""

from __future__ import annotations

from pathlib import Path

from research.errors import InputError
from research.report.csv_table import frame_of
from research.report.latex import latex_of
from research.report.schema import Report
from research.storage.atomic import replacing


def write(report: Report, out: Path) -> list[Path]:
    """Write report.html, report.csv and report.tex into a folder, over older ones; returns paths.

    Raises `InputError` when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out is {out}, which is a file; name a folder")
    # jinja2 and matplotlib take half a second to import, and runs without a report need neither.
    from research.report.html import page_of

    texts = {
        "report.html": page_of(report),
        "report.csv": frame_of(report).to_csv(index=False, lineterminator="\n"),
        "report.tex": latex_of(report),
    }
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text.encode())
    return [out / name for name in texts]

"""Writes a report as report.html, report.csv, report.tex and further CSV files."""

from __future__ import annotations

from pathlib import Path

from research.errors import InputError, optional_import
from research.report.csv_table import effects_frame_of, frame_of, slices_of
from research.report.latex import latex_of
from research.report.schema import Report
from research.storage.atomic import replacing


def write(report: Report, out: Path) -> list[Path]:
    """Write report.html, report.csv and report.tex into a folder, over older ones; returns paths.

    Slices of the held-out items are in report-slices.csv; a study that crosses factors has
    report-effects.csv as well. Raises `InputError` when `out` is a file, or the extra `report` is
    not installed.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out is {out}, which is a file; name a folder")
    extra = "install the extra: pip install 'sixfold[report]'"
    with optional_import(("jinja2", "markupsafe", "matplotlib"), "a report", extra):
        from research.report.html import page_of
    texts = {
        "report.html": page_of(report),
        "report.csv": frame_of(report).to_csv(index=False, lineterminator="\n"),
        "report.tex": latex_of(report),
    }
    slices = slices_of(report)
    if len(slices):
        texts["report-slices.csv"] = slices.to_csv(index=False, lineterminator="\n")
    if report.factors:
        effects = effects_frame_of(report)
        texts["report-effects.csv"] = effects.to_csv(index=False, lineterminator="\n")
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text.encode())
    return [out / name for name in texts]

"""Writes a report: its page, its tables as CSV and LaTeX, and its figures as SVG, PDF and PNG."""

from __future__ import annotations

from pathlib import Path

from research.errors import InputError
from research.report.csv_table import effects_frame_of, frame_of, slices_of
from research.report.latex import latex_of, table_of
from research.report.markdown import figures_table
from research.report.names import STEMS, numbered, whole_name
from research.report.schema import Report
from research.storage.atomic import replacing

# Formats of a figure and of a table that is written alone.
FIGURE_KINDS = ("svg", "pdf", "png")
TABLE_KINDS = ("tex", "md")


def write(report: Report, out: Path) -> list[Path]:
    """Write a report into a folder, over an older one; returns the paths of page, CSV and LaTeX.

    Slices of the held-out items are in report-slices.csv; a study that crosses factors has
    report-effects.csv as well. Figures go into the folder `report-figures` beside them, those of
    each corpus into one of its own. Raises `InputError` when `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out is {out}, which is a file; name a folder")
    stem = STEMS[report.part]
    # jinja2 and matplotlib take half a second to import, and runs without a report need neither.
    from research.report.html import page_of

    texts = {
        f"{stem}.html": page_of(report),
        f"{stem}.csv": frame_of(report).to_csv(index=False, lineterminator="\n"),
        f"{stem}.tex": latex_of(report),
    }
    slices = slices_of(report)
    if len(slices):
        texts[f"{stem}-slices.csv"] = slices.to_csv(index=False, lineterminator="\n")
    if report.factors:
        effects = effects_frame_of(report)
        texts[f"{stem}-effects.csv"] = effects.to_csv(index=False, lineterminator="\n")
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text.encode())
    write_figures(report, out / f"{stem}-figures")
    return [out / name for name in texts]


def write_figures(report: Report, folder: Path) -> None:
    """Write every figure as SVG, PDF and PNG: `folder/CORPUS/FIGURE.KIND`.

    Learning curves are written over steps alone; `write_figure` writes one over another axis.
    """
    from research.report.drawings import drawings_of
    from research.report.plots import KINDS, file_of

    for corpus in report.corpora:
        for drawing in drawings_of(report, corpus):
            if not drawing.saved:
                continue
            figure = drawing.draw(True)
            for kind in KINDS:
                with replacing(folder / corpus.name / f"{drawing.name}.{kind}") as file:
                    file.write(file_of(figure, kind))


def write_figure(report: Report, name: str, path: Path) -> None:
    """Write one figure, such as `metric` or `CORPUS/metric`, in the format of the file's name.

    Raises `InputError` for a figure that the report has not, and for another format than svg, pdf
    and png.
    """
    from research.report.drawings import find_drawing
    from research.report.plots import file_of

    kind = kind_of(path, FIGURE_KINDS)
    content = file_of(find_drawing(report, name).draw(True), kind)
    with replacing(path) as file:
        file.write(content)


def write_table(report: Report, name: str, path: Path) -> None:
    """Write one table, such as `main` or `CORPUS/main-2`, as LaTeX or Markdown.

    Raises `InputError` for a table that the report has not, and for another format.
    """
    kind = kind_of(path, TABLE_KINDS)
    tables = {
        f"{corpus.name}/{numbered('main', number)}": (corpus, table, number)
        for corpus in report.corpora
        for number, table in enumerate(corpus.tables, 1)
    }
    corpus, table, number = tables[whole_name(report, name, tables, "table")]
    text = figures_table(report, table)
    if kind == "tex":
        text = table_of(report, corpus, table, number)
    with replacing(path) as file:
        file.write(f"{text}\n".encode())


def kind_of(path: Path, kinds: tuple[str, ...]) -> str:
    """The format that a file's name ends with; raises `InputError` unless it is in `kinds`."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in kinds:
        raise InputError(f"--out is {path}; name a file that ends with .{', .'.join(kinds)}")
    return kind

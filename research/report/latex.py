r"""report.tex: a booktabs table for each corpus and protocol, to be included with `\input`.

It needs \usepackage{booktabs} and nothing else, also under pdflatex: a character that plain LaTeX
does not know is written as its code point.
"""

from __future__ import annotations

import pandas as pd

from research.evaluation.statistics import Comparison
from research.report.formatting import (
    decimals_of_any,
    effect_signs_of,
    interval_words,
    is_even,
    margin_claims,
    margin_sign,
    number_of_any,
    p_of,
    short_decimal,
    shortened_name,
)
from research.report.names import slug
from research.report.schema import (
    CorpusPart,
    Effect,
    Figure,
    ListsTable,
    ProtocolTable,
    Report,
    Row,
)
from research.report.validation import best_by_validation

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": "$<$", ">": "$>$", "|": r"\textbar{}", '"': "''",
    # `[` and `*` right after `\\` would be read as its arguments; two quotes would be joined.
    "[": "{[}", "*": "{*}", "'": "{'}", "`": "{`}",
    "–": "--", "—": "---", "…": r"\ldots{}", "†": r"$^{\dagger}$", "×": r"$\times$",
    "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "−": "$-$",
}  # fmt: skip
# Three metrics with intervals fit into the text of an article, and the caption stands clear.
FITTING = r"""\centering
\footnotesize
\setlength{\tabcolsep}{4pt}
\setlength{\belowcaptionskip}{6pt}"""
# Accented letters that every LaTeX since 2018 can set.
PLAIN = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"


def latex_of(report: Report) -> str:
    """The whole file: the tables of all corpora, one after another."""
    tables = [
        text
        for corpus in report.corpora
        for number, table in enumerate(corpus.tables, 1)
        for text in (
            table_of(report, corpus, table, number),
            *effects_table_of(report, corpus, table, number),
        )
    ]
    tables += [
        lists_table_of(report, corpus, lists, number)
        for corpus in report.corpora
        for number, lists in enumerate(corpus.lists, 1)
    ]
    head = r"% Needs \usepackage{booktabs}."
    if report.command:
        head += f" Made from the runs of: {report.command}"
    return "\n\n".join([head, *tables]) + "\n"


def table_of(report: Report, corpus: CorpusPart, table: ProtocolTable, number: int) -> str:
    """One table: means with their intervals, and the compared metric's difference to the base.

    `number` counts the corpus's tables from 1, for the label.
    """
    compares = table.has_base and len(table.rows) > 1
    head = ["", *map(escaped, report.factors), *(escaped(name.upper()) for name in report.metrics)]
    if compares:
        head += [rf"$\Delta$ {escaped(report.compared.upper())}", "$p$"]
    rows = [row_of(report, row, compares) for row in table.rows]
    return booktabs(
        head,
        rows,
        caption=caption_of(report, corpus, table, compares),
        label=f"{label_of(report, corpus)}-{number}",
        text_columns=1 + len(report.factors),
    )


def effects_table_of(
    report: Report, corpus: CorpusPart, table: ProtocolTable, number: int
) -> tuple[str, ...]:
    """A table of the effects of the factors that a table crosses; none where it crosses none."""
    if table.factorial is None:
        return ()
    metric = report.compared
    rows = [
        [escaped(effect.name), escaped(effect.contrast), *effect_entries(effect)]
        for effect in table.factorial.effects[metric]
    ]
    caption = f"{report.question} {corpus.name}: {table.title}; effects of the factors. "
    return (
        booktabs(
            ["", "levels", rf"$\Delta$ {escaped(metric.upper())}", "$p$"],
            rows,
            caption=escaped(caption + " ".join(effect_signs_of(report))),
            label=f"{label_of(report, corpus)}-{number}-effects",
            text_columns=2,
        ),
    )


def label_of(report: Report, corpus: CorpusPart) -> str:
    """How labels of a corpus's tables begin; those on validation have others than the test's."""
    part = "" if report.part == "test" else f"-{report.part}"
    return f"tab:{slug(report.name)}-{slug(corpus.name)}{part}"


def booktabs(
    head: list[str], rows: list[list[str]], *, caption: str, label: str, text_columns: int
) -> str:
    """A table in a float; all text is LaTeX already, and the first columns are aligned left."""
    # Nothing is left for pandas to escape.
    style = pd.DataFrame(rows, columns=pd.Index(head)).style.hide(axis="index")
    written = str(
        style.to_latex(
            caption=caption,
            label=label,
            column_format="@{}" + "l" * text_columns + "r" * (len(head) - text_columns) + "@{}",
            position_float="centering",
            hrules=True,
        )
    ).rstrip("\n")
    return written.replace("\\centering", FITTING, 1)


def lists_table_of(report: Report, corpus: CorpusPart, table: ListsTable, number: int) -> str:
    """A table of recommended lists: means with their intervals.

    `number` counts the corpus's tables of lists from 1, for the label.
    """
    head = ["", *(escaped(name.upper()) for name in table.metrics)]
    rows = [
        [
            escaped(shortened_name(row.cell, 40)),
            *(lists_entry_of(row.figures[name]) for name in table.metrics),
        ]
        for row in table.rows
    ]
    compares = table.has_base and len(table.rows) > 1
    label = f"{label_of(report, corpus)}-lists-{number}"
    caption = caption_of(report, corpus, table, compares)
    return booktabs(head, rows, caption=caption, label=label, text_columns=1)


def lists_entry_of(figure: Figure) -> str:
    """A mean and its interval, as LaTeX; a dagger marks a significant difference to the base.

    No value is the best, so none is bold.
    """
    mark = r"$^{\dagger}$" if figure.significant else ""
    estimate = figure.estimate
    mean, decimals = number_of_any(estimate.mean), decimals_of_any(estimate.mean)
    return rf"${mean}${mark} {sides(estimate.mean, estimate.low, estimate.high, decimals)}"


def row_of(report: Report, row: Row, compares: bool) -> list[str]:
    """The entries of a cell's row, as LaTeX."""
    entries = [
        escaped(shortened_name(row.cell, 40)),
        *(escaped(row.levels.get(name, "")) for name in report.factors),
        *(entry_of(row.figures[name]) for name in report.metrics),
    ]
    if not compares:
        return entries
    figure = row.figures[report.compared]
    if figure.comparison is None:
        return [*entries, "--", "--"]
    return [*entries, difference_entry(figure.comparison), f"${p_of(figure.corrected)}$"]


def effect_entries(effect: Effect) -> tuple[str, str]:
    """The size of an effect with its interval, and its corrected p, as LaTeX."""
    if effect.comparison is None:
        return "not estimable", "--"
    mark = r"$^{\dagger}$" if effect.significant else ""
    return difference_entry(effect.comparison) + mark, f"${p_of(effect.corrected)}$"


def difference_entry(comparison: Comparison) -> str:
    """A difference and its interval, as LaTeX."""
    difference = comparison.difference
    return f"${difference:+.4f}$ {sides(difference, comparison.low, comparison.high)}"


def sides(center: float, low: float, high: float, decimals: int = 4) -> str:
    """An interval as LaTeX: half its width after ±, or how far each end is from the center.

    Of an uneven one the two stand above each other, so that three metrics still fit into a text.
    """
    if is_even(center, low, high, decimals):
        return rf"{{\scriptsize$\pm${short_decimal((high - low) / 2, decimals)}}}"
    above, below = short_decimal(high - center, decimals), short_decimal(center - low, decimals)
    return f"$^{{+{above}}}_{{-{below}}}$"


def entry_of(figure: Figure) -> str:
    """A mean and its interval, as LaTeX.

    The best of a column by validation is bold, the second underlined, and a dagger marks a
    significant difference to the base.
    """
    estimate = figure.estimate
    text = f"{estimate.mean:.4f}"
    if figure.place == 1:
        text = rf"\textbf{{{text}}}"
    elif figure.place == 2:
        text = rf"\underline{{{text}}}"
    mark = r"$^{\dagger}$" if figure.significant else ""
    return f"{text}{mark} {sides(estimate.mean, estimate.low, estimate.high)}"


def caption_of(
    report: Report, corpus: CorpusPart, table: ProtocolTable | ListsTable, compares: bool
) -> str:
    """The caption: what the table shows, and what its signs mean."""
    seeds = f"{len(report.seeds)} seed{'s' if len(report.seeds) > 1 else ''}"
    parts = [
        f"{report.question} {corpus.name}: {table.title}; {table.users} users, {seeds}.",
        f"±: half of the {interval_words(report)}; + above −: the distances to its ends, where one "
        "is more than a tenth longer than that.",
    ]
    if compares:
        parts.append(
            f"†: differs from {report.base}, p below 0.05 (paired by user, two-sided, "
            f"corrected after Holm over the cells). {report.compared.upper()} decides."
        )
    if isinstance(table, ProtocolTable) and best_by_validation(table, report.compared) is not None:
        parts.append("Bold: best by the same metric on validation; underlined: second.")
    if isinstance(table, ProtocolTable) and (claims := margin_claims(report, table)):
        parts += [*claims, margin_sign(report)]
    return escaped(" ".join(parts))


def escaped(text: str) -> str:
    """Text escaped so that LaTeX prints it unchanged."""
    characters = [SPECIAL.get(character) or letter(character) for character in text]
    # Two hyphens in a row would be set as a dash.
    return "".join(
        "{-}" if character == "-" and following == "-" else character
        for character, following in zip(characters, [*characters[1:], ""])
    )


def letter(character: str) -> str:
    """A character without a special meaning; `[U+4E2D]` for one that plain LaTeX does not know."""
    can_be_set = (character.isascii() and character.isprintable()) or character in PLAIN
    return character if can_be_set else f"{{[}}U+{ord(character):04X}{{]}}"

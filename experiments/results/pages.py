"""`make results`: set the tables of all result lines into README.md and docs/results.md, and draw.

A table stands between `<!-- results DATASET -->` and `<!-- end -->`, and what is between them is
written anew. Pictures are `experiments/results/DATASET.svg`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib

from experiments.results.lines import FOLDER, all_lines
from experiments.results.tables import Row, markdown, picture, published, rows_of
from research.errors import InputError
from research.storage.atomic import replacing

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/results.md")
TABLE = re.compile(r"(<!-- results (\S+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def rows_by_dataset(folder: Path = FOLDER) -> dict[str, list[Row]]:
    """The rows of every data set that has lines."""
    figures = published(folder)
    lines = sorted(all_lines(folder), key=lambda line: line.dataset)
    groups = groupby(lines, key=lambda line: line.dataset)
    return {dataset: rows_of(of_dataset, figures) for dataset, of_dataset in groups}


def filled(text: str, tables: dict[str, list[Row]]) -> str:
    """A page with its tables written anew; `InputError` for a table of an unknown data set."""

    def table(found: re.Match[str]) -> str:
        if found[2] not in tables:
            raise InputError(f"no result line is of {found[2]}; known: {', '.join(tables)}")
        return f"{found[1]}\n{markdown(tables[found[2]])}\n{found[3]}"

    return TABLE.sub(table, text)


def draw(tables: dict[str, list[Row]], folder: Path = FOLDER) -> None:
    """Write a picture a data set, the same bytes for the same rows."""
    with matplotlib.rc_context({"svg.hashsalt": "sixfold", "svg.fonttype": "none"}):
        for dataset, rows in tables.items():
            with replacing(folder / f"{dataset}.svg") as file:
                picture(dataset, rows).savefig(file, format="svg", metadata={"Date": None})


def main(pages: Sequence[str] = PAGES) -> None:
    """Write the tables and the pictures."""
    tables = rows_by_dataset()
    for name in pages:
        path = ROOT / name
        text = filled(path.read_text(encoding="utf-8"), tables)
        with replacing(path) as file:
            file.write(text.encode())
    draw(tables)


if __name__ == "__main__":
    main()

"""`make results`: make all tables, pictures and the leaderboard's page of the result lines.

A table of README.md or docs/results.md stands between `<!-- results DATASET STUDY -->` and
`<!-- end -->`, and what is between them is written anew. `<!-- results DATASET STUDY against CELL
-->` has the differences to a cell as well, a list of cells after a colon chooses rows, and
`<!-- effects DATASET STUDY -->` is a table of the effects of factors. A cell whose name has a space
or a colon cannot be chosen. Pictures are `DATASET-STUDY.svg` in this folder, and the page with
filters is `leaderboard.html`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from experiments.results.comparisons import kept_comparisons
from experiments.results.leaderboard_page import leaderboard_page
from experiments.results.lines import FOLDER, all_lines
from experiments.results.pictures import pictures
from experiments.results.tables import (
    Table,
    chosen,
    effects_markdown,
    markdown,
    published,
    tables_of,
)
from research.errors import InputError
from research.storage.atomic import replacing

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/results.md")
TABLE = re.compile(r"(<!-- (results|effects) (.+?) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def kept_tables(folder: Path = FOLDER) -> list[Table]:
    """The tables of the lines and published figures that a folder keeps."""
    return tables_of(all_lines(folder), published(folder), kept_comparisons(folder))


def filled(text: str, tables: Sequence[Table]) -> str:
    """A page with its tables written anew; `InputError` for a table or cell that no line is of."""
    known = {f"{table.dataset} {table.study}": table for table in tables}

    def table_in(mark: re.Match[str]) -> str:
        before, kind, words, after = mark.groups()
        names, _, cells = words.partition(": ")
        name, _, against = names.partition(" against ")
        if name not in known:
            raise InputError(
                f"<!-- {kind} {words} -->: no result line is of such a data set and study; "
                f"known: {', '.join(known)}"
            )
        table = chosen(known[name], cells.split()) if cells else known[name]
        if kind == "results":
            return f"{before}\n{markdown(table, against or None)}\n{after}"
        if against or cells:
            raise InputError(f"<!-- {kind} {words} -->: effects are of a whole study; name no cell")
        return f"{before}\n{effects_markdown(table)}\n{after}"

    return TABLE.sub(table_in, text)


def written(tables: Sequence[Table]) -> dict[Path, bytes]:
    """All files that `make results` writes, with what it writes into them."""
    texts = {ROOT / name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
    return {
        **{path: filled(text, tables).encode() for path, text in texts.items()},
        **{FOLDER / name: drawn for name, drawn in pictures(tables).items()},
        FOLDER / "leaderboard.html": leaderboard_page(tables).encode(),
    }


def main() -> None:
    """Write the tables, the pictures and the page."""
    for path, content in written(kept_tables()).items():
        with replacing(path) as file:
            file.write(content)


if __name__ == "__main__":
    main()

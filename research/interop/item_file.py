"""The CSV file that says which item each number is, beside every file of a published model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from research.data.corpus import Corpus
from research.storage.atomic import replacing

HEADER = ("number", "item", "title")


def write_items(path: Path, corpus: Corpus) -> None:
    """Write a line for each item, in order: its number from 0, its raw id, and its title or "".

    Text stands in double quotes, so that raw ids may have commas, quotes and line ends.
    """
    text = io.StringIO(newline="")
    lines = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    lines.writerow(HEADER)
    titles = corpus.item_titles or [""] * corpus.num_items
    lines.writerows((number, *both) for number, both in enumerate(zip(corpus.item_names, titles)))
    with replacing(path) as file:
        file.write(text.getvalue().encode())

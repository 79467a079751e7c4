"""The options of preparation: which raw files are read, how, and which events are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from research.data.preparation.times import TimeUnit

Duplicates = Literal["keep", "exact", "first", "last"]
Missing = Literal["error", "drop"]
MissingVectors = Literal["error", "mean", "zero"]
MISSING_WORDS = (
    *("", "nan", "NaN", "NAN", "null", "Null", "NULL", "None", "none", "NONE", "\\N"),
    *("NA", "N/A", "n/a", "<NA>", "#N/A", "NaT"),
)
# Formats of one data set: no option says how their columns and cells are read.
FIXED_FORMATS = ("movielens", "diginetica")


@final
@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which data to prepare, and how."""

    source: str
    """A data set (ml-100k, steam, ...: see `datasets.DATASETS`) or a format (see `FORMATS`); for
    `prepare_source`, any name of a format."""
    raw: str | None = None
    """File, archive or folder of raw files; None: download them (MovieLens), or take those in
    `raw/NAME` under the data root (other data sets)."""
    attributes: str | None = None
    """Attribute file: a .item file for atomic, else S3-Rec's JSON, one object from each raw item id
    to a list of attributes: {"12": [3, 7], "40": ["red"]}; not for MovieLens, which has its own.
    None: the file beside `raw` (s3rec: X_item2attributes.json, atomic: X.item) if there is one."""
    min_rating: float | None = None
    """Interactions rated lower are removed; None: none are."""
    user_core: int = 0
    """Least interactions of a user; users and items below their minimum are removed until there is
    none (k-core). 0: no minimum."""
    item_core: int = 0
    """Least interactions of an item; users and items below their minimum are removed until there is
    none (k-core). 0: no minimum."""
    duplicates: Duplicates = "keep"
    """Which interactions of one user with one item are kept: all; all but exact doubles, which have
    the same time too; the oldest; or the newest."""
    tie_seed: int | None = None
    """Interactions of one user at the same time are put into an order that is drawn with this seed,
    for the rows as the source has them. None: they stay in the order of the file, which may be one
    of the items, and which models that read order then learn."""
    user_column: str = "user"
    """Column of raw user ids (csv, parquet, jsonl, atomic; for atomic "user" means user_id)."""
    item_column: str = "item"
    """Column of raw item ids (csv, parquet, jsonl, atomic; for atomic "item" means item_id); in
    Parquet, also of lists: one row a user, whose times may be lists too."""
    timestamp_column: str | None = "timestamp"
    """Column of times (csv, parquet, jsonl, atomic); None: interactions are in the order of the
    file."""
    rating_column: str = "rating"
    """Column of ratings (csv, parquet, jsonl, atomic); read only if `min_rating` is set."""
    delimiter: str | None = None
    """What separates columns (csv); None: the tab in a .tsv file, else the one of comma, tab,
    semicolon and bar that fits the header."""
    header: bool = True
    """Whether the first line names the columns (csv); if not, columns are numbered from 1."""
    quotes: bool | None = None
    """Whether cells may be enclosed in double quotes (csv); None: unless tabs separate columns."""
    quoted_newlines: bool = False
    """Whether a cell in quotes may run over several lines (csv)."""
    time_unit: TimeUnit = "auto"
    """Unit of times that are numbers; auto: told by their size."""
    time_format: str | None = None
    """Form of times that are text, as for strptime, such as `%d.%m.%Y %H:%M`; None: ISO 8601."""
    missing: Missing = "error"
    """Rows in which a value is missing: an error, or dropped and counted."""
    missing_words: tuple[str, ...] = MISSING_WORDS
    """Words that mean that a value is missing; the empty one is an empty cell."""
    attribute_columns: tuple[str, ...] | None = None
    """Columns whose values become attributes `column:value`: of the items file if there is one, of
    the .item file (atomic), else of the events; None: none (atomic: the token_seq columns that are
    no titles)."""
    title_column: str | None = None
    """Column of titles, of the same file as the attributes; None: none (atomic: the first whose
    name contains "title", else is "name" or one such as item_name)."""
    items_file: str | None = None
    """Table with one row an item: CSV, TSV, Parquet or JSON lines; options of CSV are for it too.
    None: attributes and titles are in the events or in `attributes`."""
    items_column: str | None = None
    """Column of raw item ids in the items file; None: of the same name as `item_column`."""
    list_separator: str | None = None
    """What separates the values in a cell of an attribute column; None: a cell is one value
    (atomic: found for each token_seq column). Lists in Parquet and JSON need none."""
    numeric_bins: int = 0
    """Number of quantile bins of attribute columns that hold numbers alone; 0: each number is a
    value, as it is written."""
    item_vectors: str | None = None
    """File with a vector of each item, such as an embedding of its text or image: `.npz` (arrays
    ids and vectors), Parquet (a column of ids and one of lists), or `X.npy` with the ids in
    `X.ids.txt`, one a line. None: items have no vectors."""
    missing_vectors: MissingVectors = "error"
    """Items that the file of vectors lacks: an error, or they have the mean of its vectors, or
    zeros."""
    vector_only_items: bool = False
    """Whether items of the file of vectors without events become items of the corpus, so that they
    can be recommended."""
    vector_encoder: str | None = None
    """Name of the encoder that made the vectors; a run starts from another corpus's by its vectors
    only where both name the same one, or one of them names none."""

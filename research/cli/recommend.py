"""The verbs `recommend`, `similar` and `embeddings`: their options checked, their results printed.

Every verb returns an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from research.cli.commands import load
from research.cli.recommend_verbs import (
    AskerOptions,
    EmbeddingsCommand,
    RecommendCommand,
    SimilarCommand,
)
from research.console import plain_console
from research.data.corpus import Corpus
from research.data.names import Names
from research.data.preparation.compression import plain_suffix
from research.errors import InputError
from research.recommend.embeddings import (
    Embeddings,
    attribute_embeddings,
    check_embeddings_path,
    item_embeddings,
    user_embeddings,
    write_embeddings,
)
from research.recommend.neighbors import NO_NEIGHBORS, neighbors, neighbors_table
from research.recommend.notes import left_out_notes, notes_of
from research.recommend.recommendations import Recommendations
from research.recommend.recommendations import recommend as recommend_in_batches
from research.recommend.request_files import (
    HistoryFile,
    own_column,
    read_histories,
    read_id_file,
)
from research.recommend.requests import Requests, known_users, new_histories
from research.recommend.selection import Selection, select_items
from research.recommend.table_files import check_suffix, writing
from research.recommend.tables import write_recommendations
from research.runs.parts import RunParts

if TYPE_CHECKING:
    import pyarrow as pa

# More lists than this are written to a file, not printed.
MOST_PRINTED = 100
# How many items of a history its heading names.
NEWEST_NAMED = 5
EVERYBODY = ["all"]


def recommend(arguments: RecommendCommand) -> int:
    """Print the best items of a few requests, or write those of any number to a file."""
    if arguments.k < 1:
        raise InputError(f"--k is {arguments.k}; it must be at least 1")
    item_files = (arguments.candidates, arguments.exclude)
    check_askers(arguments.askers, needed=True, item_files=item_files)
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None:
        check_suffix(out)
    parts, ranker = load(arguments.run, arguments.reading)
    requests = requests_of(arguments.askers, parts)
    selection = selection_of(arguments, parts.corpus)
    batches = recommend_in_batches(
        parts,
        ranker,
        requests,
        k=arguments.k,
        seen="kept" if arguments.keep_seen else "excluded",
        selection=selection,
    )
    numbers_R = np.zeros(len(requests), dtype=np.int64)

    def counted() -> Iterator[Recommendations]:
        for batch in batches:
            np.add.at(numbers_R, batch.request_N, 1)
            yield batch

    console = plain_console()
    if out is not None:
        rows = write_recommendations(out, parts.corpus, requests, counted())
        console.print(f"{out}: {rows:,} rows for {len(requests):,} requests")
    else:
        check_printable(len(requests))
        for batch in counted():
            print_lists(parts.corpus, requests, batch)
    num_short = int((numbers_R < arguments.k).sum())
    if num_short:
        console.print(f"{num_short:,} of them have fewer than {arguments.k:,} items left")
    for note in notes_of(requests, selection):
        console.print(note)
    return 0


def check_askers(
    options: AskerOptions, *, needed: bool, item_files: Sequence[str | None] = ()
) -> None:
    """`InputError` when requests are given in several ways, or in none where one is needed.

    Also for an option that does not apply to what is given; `item_files` are the other files whose
    items are read.
    """
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("users", "users_file", "items", "histories")
        if getattr(options, name) not in ((), None)
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given; give one of them")
    if needed and not given:
        raise InputError(
            "for whom? Give --users all, --users ID ..., --users-file FILE, --items ID ... or "
            "--histories FILE"
        )
    histories = options.histories is not None
    users, items = _is_table(options.users_file), any(map(_is_table, item_files))
    uses = {
        "user_column": (histories or users, "histories and files of users that have columns"),
        "item_column": (histories or items, "histories and files of items that have columns"),
        "timestamp_column": (histories, "--histories"),
        "time_format": (histories, "--histories"),
        "history": (given not in (["--items"], ["--histories"]), "users of the corpus"),
    }
    for name, (is_used, purpose) in uses.items():
        if not is_used and getattr(options, name) != getattr(AskerOptions(), name):
            raise InputError(f"--{name.replace('_', '-')} is for {purpose}; leave it out")


def _is_table(file: str | None) -> bool:
    """Whether a file of ids is given that has columns."""
    return file is not None and plain_suffix(Path(file)) != ".txt"


def requests_of(options: AskerOptions, parts: RunParts) -> Requests:
    """The requests that the options name; by default all users of the corpus."""
    unknown = options.unknown
    if options.histories is not None:
        file = history_file(options, Path(options.histories), parts.corpus)
        fields = {} if file.times is None else {"time": file.times}
        order = "as they stand, oldest first"
        if file.timestamp_column is not None:
            order = f"in the order of their times (column {file.timestamp_column})"
        plain_console().print(f"{options.histories}: events are read {order}")
        return new_histories(
            parts, file.histories, names=file.names, fields=fields, unknown=unknown
        )
    if options.items:
        history = ids_of("--items", options.items, parts.corpus.item_names)
        return new_histories(parts, [history], unknown=unknown)
    users: Sequence[str] | None = None
    if options.users_file is not None:
        path = Path(options.users_file)
        column = column_of(path, parts.corpus, "user_column", options.user_column)
        users = read_id_file(path, column or "user")
    elif values_of(options.users) not in ([], EVERYBODY):
        users = ids_of("--users", options.users, parts.corpus.user_names)
    return known_users(parts, users, history=options.history, unknown=unknown)


def history_file(options: AskerOptions, path: Path, corpus: Corpus) -> HistoryFile:
    """The file of histories, read by the columns that are named, or else as the raw file was."""
    user, item, timestamp = (
        column_of(path, corpus, name, getattr(options, name))
        for name in ("user_column", "item_column", "timestamp_column")
    )
    raw, time_format = corpus.manifest.options, options.time_format
    if time_format is None and timestamp is not None and timestamp == raw.get("timestamp_column"):
        raw_format = raw.get("time_format")
        time_format = raw_format if isinstance(raw_format, str) else None
    return read_histories(
        path,
        user_column=user or "user",
        item_column=item or "item",
        timestamp_column=timestamp,
        time_format=time_format,
    )


def column_of(path: Path, corpus: Corpus, option: str, named: str | None) -> str | None:
    """The column that is named, or else the corpus's raw one for the purpose if the file has it."""
    is_named = named is not None or plain_suffix(path) == ".txt"
    return named if is_named else own_column(path, corpus.manifest.options.get(option))


def values_of(repeated: Sequence[Sequence[str]]) -> list[str]:
    """The values of an option that may be repeated, in their order."""
    return list(chain.from_iterable(repeated))


def ids_of(option: str, repeated: Sequence[Sequence[str]], names: Names) -> list[str]:
    """The raw ids of an option that may be repeated; a value may hold several, commas between.

    A value that is itself one of the `names` is not cut. Raises `InputError` when there is none.
    """
    raw_ids: list[str] = []
    for value in values_of(repeated):
        if value in names or "," not in value:
            raw_ids.append(value)
        else:
            raw_ids += filter(None, map(str.strip, value.split(",")))
    if raw_ids in ([], [""]):
        raise InputError(f"{option} is empty; give one raw id or more")
    return raw_ids


def selection_of(arguments: RecommendCommand, corpus: Corpus) -> Selection:
    """The items that --candidates, --exclude and --attributes leave."""

    def items(file: str | None) -> list[str] | None:
        if file is None:
            return None
        path = Path(file)
        column = column_of(path, corpus, "item_column", arguments.askers.item_column)
        return read_id_file(path, column or "item")

    return select_items(
        corpus,
        candidates=items(arguments.candidates),
        exclude=items(arguments.exclude) or (),
        attributes=values_of(arguments.attributes) or None,
        exclude_attributes=values_of(arguments.exclude_attributes),
        unknown=arguments.askers.unknown,
    )


def check_printable(number: int) -> None:
    """`InputError` if there are too many lists to print."""
    if number > MOST_PRINTED:
        raise InputError(
            f"{number:,} lists are too many to print; write them with --out FILE, which ends in "
            ".csv, .parquet or .jsonl"
        )


def print_lists(corpus: Corpus, requests: Requests, batch: Recommendations) -> None:
    """Print a table for each request of a batch that has items left, below what it is for."""
    console = plain_console()
    for request in np.unique(batch.request_N):
        table = Table()
        for name in ("rank", "item", "title", "score"):
            table.add_column(name, overflow="fold")
        for row in np.flatnonzero(batch.request_N == request):
            item = int(batch.item_N[row])
            title = "" if corpus.item_titles is None else corpus.item_titles[item]
            score = f"{batch.score_N[row]:.3f}"
            table.add_row(str(batch.rank_N[row]), corpus.item_names[item], title, score)
        console.print(heading_of(corpus, requests, int(request)))
        console.print(table)


def heading_of(corpus: Corpus, requests: Requests, request: int) -> str:
    """Who asks, where requests have names, and the newest items of the history."""
    who = "" if requests.names is None else f"{requests.label(request)}, "
    titles = [
        title_of(corpus, item)
        for item in requests.pack(np.array([request])).newest(NEWEST_NAMED).items_T.tolist()
    ]
    number = int(requests.lengths_R[request])
    older = f", the newest of {number:,}" if number > len(titles) else ""
    return f"{who}after {', '.join(titles) or 'no event, by popularity'}{older}"


def title_of(corpus: Corpus, item: int) -> str:
    """An item's title, or its raw id where it has none."""
    title = "" if corpus.item_titles is None else corpus.item_titles[item]
    return title or corpus.item_names[item]


def similar(arguments: SimilarCommand) -> int:
    """Print the neighbors of a few items or attributes, or write those of any number."""
    if bool(arguments.items) == bool(arguments.attributes):
        raise InputError("give either --items or --attributes, with raw ids or all")
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None:
        check_suffix(out)
    parts, ranker = load(arguments.run, arguments.reading)
    if arguments.items:
        embedded, titles = item_embeddings(parts.corpus, ranker), parts.corpus.item_titles
    else:
        embedded, titles = attribute_embeddings(parts, Path(arguments.run)), None
    option, given = "--attributes", arguments.attributes
    if arguments.items:
        option, given = "--items", arguments.items
    raw_ids = None
    if values_of(given) != EVERYBODY:
        assert embedded.names is not None, "items and attributes have names"
        raw_ids = ids_of(option, given, embedded.names)
    batches = neighbors(embedded, raw_ids, k=arguments.k, by=arguments.by)
    tables = (neighbors_table(embedded, batch, titles) for batch in batches)
    if out is None:
        check_printable(len(embedded) if raw_ids is None else len(raw_ids))
        print_tables(tables)
        return 0
    rows = 0
    with writing(out, neighbors_table(embedded, NO_NEIGHBORS, titles).schema) as write:
        for table in tables:
            write(table)
            rows += table.num_rows
    plain_console().print(f"{out}: {rows:,} rows")
    return 0


def print_tables(tables: Iterable[pa.Table]) -> None:
    """Print the rows of tables with the same columns as one table."""
    shown: Table | None = None
    for table in tables:
        if shown is None:
            shown = Table()
            for name in table.column_names:
                shown.add_column(name, overflow="fold")
        for row in table.to_pylist():
            cells = [
                f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row.values()
            ]
            shown.add_row(*cells)
    if shown is not None:
        plain_console().print(shown)


def embeddings(arguments: EmbeddingsCommand) -> int:
    """Write the embeddings of items, attributes or users, and say how many there are."""
    out = Path(arguments.out)
    check_embeddings_path(out)
    check_askers(arguments.askers, needed=False)
    if arguments.of != "users" and arguments.askers != AskerOptions():
        raise InputError(f"options that name users are for --of users, not for {arguments.of}")
    parts, ranker = load(arguments.run, arguments.reading)
    notes: list[str] = []
    if arguments.of == "items":
        batches: Iterable[Embeddings] = [item_embeddings(parts.corpus, ranker)]
    elif arguments.of == "attributes":
        batches = [attribute_embeddings(parts, Path(arguments.run))]
    else:
        requests = requests_of(arguments.askers, parts)
        batches = user_embeddings(parts, ranker, requests)
        notes = left_out_notes(requests)
        num_empty = int((requests.lengths_R == 0).sum())
        if num_empty:
            notes.append(f"{num_empty:,} histories have no event, and so no embedding")
    number = write_embeddings(out, batches)
    console = plain_console()
    console.print(f"{out}: {number:,} embeddings")
    for note in notes:
        console.print(note)
    return 0

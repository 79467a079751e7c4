"""Recommendations with raw ids and titles: as tables of Arrow, a frame of pandas, or a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from research.data.corpus import Corpus
from research.recommend.arrow_names import arrow_names
from research.recommend.recommendations import NOTHING, Recommendations
from research.recommend.requests import Requests
from research.recommend.table_files import writing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def table_of(corpus: Corpus, requests: Requests, batch: Recommendations) -> pa.Table:
    """A batch with a row for each recommended item.

    Columns: `user`, the raw id of who asks (or `history`, the number of the request, where requests
    have no names), `item`, its raw id, `title`, empty where an item has none, `score`, `rank` from
    1, and `ranked_by`: "run", or "popularity" for a history without events.
    """
    import pyarrow as pa

    asker = pa.array(requests.labels_R[batch.request_N])
    if requests.names is not None:
        asker = arrow_names(requests.names).take(asker)
    items = pa.array(batch.item_N)
    titles = pa.array([""] * len(batch), pa.large_string())
    if corpus.item_titles is not None:
        titles = arrow_names(corpus.item_titles).take(items)
    return pa.table(
        {
            requests.kind: asker,
            "item": arrow_names(corpus.item_names).take(items),
            "title": titles,
            "score": pa.array(batch.score_N),
            "rank": pa.array(batch.rank_N),
            "ranked_by": pa.array(np.where(batch.by_popularity_N, "popularity", "run")),
        }
    )


def frame_of(
    corpus: Corpus, requests: Requests, batches: Iterable[Recommendations]
) -> pd.DataFrame:
    """All batches as one frame of pandas, with the columns of `table_of`."""
    import pyarrow as pa

    tables = [table_of(corpus, requests, batch) for batch in (NOTHING, *batches)]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def write_recommendations(
    path: Path | str, corpus: Corpus, requests: Requests, batches: Iterable[Recommendations]
) -> int:
    """Write the rows of `table_of`, batch by batch, and return how many there are.

    The suffix says how: `.csv`, `.parquet` or `.jsonl`, else `InputError`. An older file is
    replaced once all is written.
    """
    rows = 0
    schema = table_of(corpus, requests, NOTHING).schema
    with writing(Path(path), schema) as write:
        for batch in batches:
            write(table_of(corpus, requests, batch))
            rows += len(batch)
    return rows

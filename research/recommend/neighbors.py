"""Neighbors: the items, or the attributes, whose embeddings are nearest to those of given ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from research.data.names import Names
from research.evaluation.best import best_items
from research.evaluation.chunks import CPU_TILE, tile_shape
from research.model.kernels.scored_rows import ScoredRows
from research.objectives.ranker import EncodedStates
from research.recommend.arrow_names import arrow_names
from research.recommend.embeddings import Embeddings
from research.recommend.raw_ids import check_choice, check_number, numbers_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Similarity = Literal["cosine", "dot"]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """N neighbors of some items (or attributes), one after the other, the nearest first."""

    of_N: NDArray[np.int64]
    """[N]: whose neighbor it is, as a row of the embeddings."""
    neighbor_N: NDArray[np.int64]
    """[N]: the neighbor, as a row of the embeddings."""
    similarity_N: NDArray[np.float64]
    """[N]: the cosine, or the inner product."""
    rank_N: NDArray[np.int64]
    """[N]: 1 for the nearest."""

    def __len__(self) -> int:
        return len(self.of_N)


NO_NEIGHBORS = Neighbors(
    of_N=np.zeros(0, dtype=np.int64),
    neighbor_N=np.zeros(0, dtype=np.int64),
    similarity_N=np.zeros(0),
    rank_N=np.zeros(0, dtype=np.int64),
)


def neighbors(
    embeddings: Embeddings,
    raw_ids: Collection[str] | None = None,
    *,
    k: int = 10,
    by: Similarity = "cosine",
) -> Iterator[Neighbors]:
    """The k nearest of each of the given items or attributes, in batches in the order given.

    `embeddings` are of all items or all attributes, in the order of the corpus. None of `raw_ids`
    means all of them. Nothing is a neighbor of itself; of equal similarities the lower number is
    nearer; an embedding of zeros has cosine 0 to all. `InputError` for a raw id that is not there,
    and for a `k` below 1.
    """
    check_choice("by", by, get_args(Similarity))
    check_number("k", k)
    rows_Q = np.arange(len(embeddings), dtype=np.int64)
    if raw_ids is not None:
        assert embeddings.names is not None, "items and attributes have names"
        rows_Q = numbers_of(raw_ids, embeddings.names, f"{embeddings.kind}s", "error")
    table_ND = torch.from_numpy(embeddings.vectors_ND)
    if by == "cosine":
        lengths_N1 = table_ND.norm(dim=1, keepdim=True)
        # The smallest normal number keeps rows of zeros as they are.
        table_ND = table_ND / lengths_N1.clamp(min=torch.finfo(table_ND.dtype).tiny)
    return _batches(table_ND, rows_Q, k)


def _batches(table_ND: torch.Tensor, rows_Q: NDArray[np.int64], k: int) -> Iterator[Neighbors]:
    number, columns = tile_shape(len(table_ND), CPU_TILE)
    number = max(1, min(number, CPU_TILE // min(k, len(table_ND))))
    for first in range(0, len(rows_Q), number):
        rows = rows_Q[first : first + number]
        encoded = EncodedStates(table_ND[torch.from_numpy(rows)], ScoredRows(table_ND))
        scores_SK, items_SK = best_items(
            encoded,
            k,
            len(table_ND),
            columns,
            owner_T=np.arange(len(rows)),
            excluded_T=rows,
            allowed_V=None,
        )
        queries_N, places_N = (scores_SK > -torch.inf).nonzero().numpy().T
        yield Neighbors(
            of_N=rows[queries_N],
            neighbor_N=items_SK.numpy()[queries_N, places_N],
            similarity_N=scores_SK.double().numpy()[queries_N, places_N],
            rank_N=places_N + 1,
        )


def neighbors_table(
    embeddings: Embeddings, batch: Neighbors, titles: Names | None = None
) -> pa.Table:
    """A batch with a row for each neighbor.

    Columns: `item` (or `attribute`) and `neighbor`, both raw ids, `title`, that of the neighbor if
    there are `titles`, `similarity`, and `rank` from 1.
    """
    import pyarrow as pa

    assert embeddings.names is not None, "items and attributes have names"
    names = arrow_names(embeddings.names)
    columns = {
        embeddings.kind: names.take(pa.array(batch.of_N)),
        "neighbor": names.take(pa.array(batch.neighbor_N)),
    }
    if titles is not None:
        columns["title"] = arrow_names(titles).take(pa.array(batch.neighbor_N))
    columns |= {"similarity": pa.array(batch.similarity_N), "rank": pa.array(batch.rank_N)}
    return pa.table(columns)


def neighbors_frame(
    embeddings: Embeddings, batches: Iterable[Neighbors], titles: Names | None = None
) -> pd.DataFrame:
    """All batches as one frame of pandas, with the columns of `neighbors_table`."""
    import pyarrow as pa

    every = (NO_NEIGHBORS, *batches)
    tables = [neighbors_table(embeddings, batch, titles) for batch in every]
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame

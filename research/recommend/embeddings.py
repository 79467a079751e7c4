"""Embeddings out of a trained run: of items, of users, and of attributes, with raw ids.

An item's embedding is the row that scores are computed with, a user's is the state after the
history, as the run's head transforms it. So the product of the two, with the item's bias where the
head has one, is the score that `recommend` ranks by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.data.names import Names
from research.errors import InputError
from research.evaluation.chunks import CPU_TOKENS, QUESTIONS, chunk_size
from research.evaluation.ranker import Ranker
from research.objectives.ranker import TrainedRanker
from research.recommend.arrow_names import arrow_names
from research.recommend.requests import Requests
from research.recommend.table_files import writing
from research.runs.parts import RunParts
from research.runs.warm_start import final_checkpoint
from research.storage.atomic import replacing
from research.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

# In bytes; ids of .npz that take less may take more than the vectors.
MOST_OF_SHORT_IDS = 1 << 26
ATTRIBUTE_TABLE = "attributes.attribute_table.weight"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """N embeddings of width D with the raw ids of what they are of."""

    kind: str
    """What they are of: item, attribute, user, or history (requests without names)."""
    names: Names | None
    """The raw ids; None: they are numbers from 0."""
    labels_N: NDArray[np.int64]
    """[N]: the place of each in `names`, or its number."""
    vectors_ND: NDArray[np.float32]
    """[N, D]: the embeddings."""
    bias_N: NDArray[np.float32] | None = None
    """[N]: what is added to the scores of items; None: nothing."""

    def __len__(self) -> int:
        return len(self.labels_N)

    def arrow_ids(self) -> pa.Array:
        """The raw ids [N] as text, or the numbers where there are none."""
        import pyarrow as pa

        labels = pa.array(self.labels_N)
        return labels if self.names is None else arrow_names(self.names).take(labels)

    def ids(self) -> list[str]:
        """The raw ids [N], or the numbers as text where there are none."""
        return [str(name) for name in self.arrow_ids().to_pylist()]


def item_embeddings(corpus: Corpus, ranker: Ranker) -> Embeddings:
    """The embeddings of all items of the corpus; `InputError` for a ranker that counts."""
    trained = _trained(ranker)
    rows = trained.objective.head.scored_rows(trained.encoder.item_table)
    # Copies, so that a caller who writes into them does not change the model.
    bias = None if rows.bias_R is None else rows.bias_R[: corpus.num_items].cpu().numpy().copy()
    return Embeddings(
        kind="item",
        names=corpus.item_names,
        labels_N=np.arange(corpus.num_items),
        vectors_ND=rows.table_RD[: corpus.num_items].cpu().numpy().copy(),
        bias_N=bias,
    )


def attribute_embeddings(parts: RunParts, run: Path) -> Embeddings:
    """The embeddings of all attributes, by the newest stage of the run that has learned some.

    `run` is the run's folder. A run imported from the Hub holds its last stage alone; the others
    are passed over. `InputError` when no stage has: they are learned where `items.attributes` is
    on, and by the objectives aap and map.
    """
    reader, fingerprint = RunFolder(run, writes=False), parts.corpus.fingerprint
    absent = [stage.name for stage in parts.config.stages if not reader.stage(stage.name).is_dir()]
    for stage in reversed(parts.config.stages):
        if stage.name in absent:
            continue
        folder = final_checkpoint(reader, stage.name, fingerprint, str(run))
        for name, tensor in checkpoint.read_weights(folder).items():
            if name.endswith(ATTRIBUTE_TABLE):
                return Embeddings(
                    kind="attribute",
                    names=parts.corpus.attribute_names,
                    labels_N=np.arange(len(tensor)),
                    vectors_ND=tensor.float().numpy(),
                )
    lacks = f"; it holds no weights of stage {', '.join(absent)}, as a run imported from the Hub "
    raise InputError(
        f"{run} has no embeddings of attributes; a run learns them with items.attributes=true or "
        "in a stage with aap or map"
        + (f"{lacks}holds its last stage alone: take the run that was exported" if absent else "")
    )


def user_embeddings(parts: RunParts, ranker: Ranker, requests: Requests) -> Iterator[Embeddings]:
    """The embeddings of requests, in batches in their order.

    An empty history has none, and is left out. `InputError` for a ranker that counts.
    """
    return _user_batches(_trained(ranker), requests)


def _user_batches(ranker: TrainedRanker, requests: Requests) -> Iterator[Embeddings]:
    rows_R = np.flatnonzero(requests.lengths_R > 0)
    while len(rows_R):
        number = chunk_size(requests.lengths_R[rows_R[:QUESTIONS]], CPU_TOKENS)
        rows, rows_R = rows_R[:number], rows_R[number:]
        users = torch.from_numpy(requests.histories.users[rows])
        encoded = ranker.encode(requests.pack(rows), users)
        yield Embeddings(
            kind=requests.kind,
            names=requests.names,
            labels_N=requests.labels_R[rows],
            vectors_ND=encoded.states_SD.cpu().numpy(),
        )


def joined(batches: Iterable[Embeddings]) -> Embeddings:
    """All batches as one; `InputError` if there is none."""
    parts = list(batches)
    if not parts:
        raise InputError("there is nothing to embed: no history has an event")
    if len(parts) == 1:
        return parts[0]
    return Embeddings(
        kind=parts[0].kind,
        names=parts[0].names,
        labels_N=np.concatenate([part.labels_N for part in parts]),
        vectors_ND=np.concatenate([part.vectors_ND for part in parts]),
    )


def check_embeddings_path(path: Path) -> None:
    """`InputError` unless embeddings can be written to a file of this name."""
    if path.suffix not in (".parquet", ".npz"):
        raise InputError(
            f"{path}: embeddings are written as .parquet or .npz; give the file one of these "
            "endings"
        )


def write_embeddings(path: Path | str, batches: Iterable[Embeddings]) -> int:
    """Write embeddings to a `.parquet` or `.npz` file, and return how many there are.

    Parquet is written batch by batch. Its columns are the raw id, called as `Embeddings.kind` says,
    `embedding` (a list of D numbers) and, for items of a head with biases, `bias`. The arrays of
    `.npz` are `ids` (text, [N]), `vectors` (float32 [N, D]) and `bias` (float32 [N]). An older file
    is replaced once all is written. `InputError` for another suffix, where there is nothing to
    write, and for `.npz` where one long id would make the ids, which have one width there, larger
    than the vectors.
    """
    path = Path(path)
    check_embeddings_path(path)
    if path.suffix == ".npz":
        whole = joined(batches)
        ids, bias = _of_one_width(path, whole), whole.bias_N
        with replacing(path) as file:
            if bias is None:
                np.savez(file, ids=ids, vectors=whole.vectors_ND)
            else:
                np.savez(file, ids=ids, vectors=whole.vectors_ND, bias=bias)
        return len(whole)
    remaining = iter(batches)
    first = joined(islice(remaining, 1))
    number = 0
    with writing(path, embeddings_table(first).schema) as write:
        for batch in chain((first,), remaining):
            write(embeddings_table(batch))
            number += len(batch)
    return number


def _of_one_width(path: Path, embeddings: Embeddings) -> NDArray[np.str_]:
    """The raw ids [N] as NumPy has text: each takes as much room as the longest."""
    ids = embeddings.ids()
    longest = max(ids, key=len, default="")
    size = len(ids) * len(longest) * np.dtype("U1").itemsize
    if size > max(MOST_OF_SHORT_IDS, embeddings.vectors_ND.nbytes):
        raise InputError(
            f"{path}: in .npz all ids take as much room as the longest, {longest!r:.60}, of "
            f"{len(longest):,} characters: {size / 2**20:,.0f} MiB; write a .parquet file instead"
        )
    return np.array(ids)


def embeddings_table(embeddings: Embeddings) -> pa.Table:
    """The embeddings with the columns of `write_embeddings` in Parquet."""
    import pyarrow as pa

    vectors_ND = embeddings.vectors_ND
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel()), vectors_ND.shape[1])
    columns = {embeddings.kind: embeddings.arrow_ids(), "embedding": lists}
    if embeddings.bias_N is not None:
        columns["bias"] = pa.array(embeddings.bias_N)
    return pa.table(columns)


def _trained(ranker: Ranker) -> TrainedRanker:
    if not isinstance(ranker, TrainedRanker):
        raise InputError(
            f"the run ranks by counts ({type(ranker).__name__}) and has no embeddings; give a run "
            "that has trained a model, or recommend items after a history of one item"
        )
    return ranker

"""`sf.load` and `Run`: a finished run, its figures, its recommendations and its embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, final

import numpy as np
import pandas as pd

from research.config import from_json
from research.data.corpus import Corpus
from research.data.corpus_text import folder_text, html_table
from research.errors import InputError
from research.evaluation.list_table import ListTable, Table, lists_file
from research.evaluation.metrics import of_lists, of_ranks
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.statistics import estimate
from research.evaluation.ties import TiePolicy
from research.evaluation.tiles import SeenPolicy
from research.overrides import replace_fields
from research.public.messages import check_argument
from research.recommend.embeddings import (
    Embeddings,
    attribute_embeddings,
    item_embeddings,
    joined,
    user_embeddings,
)
from research.recommend.neighbors import Similarity, neighbors, neighbors_frame
from research.recommend.raw_ids import UnknownPolicy
from research.recommend.recommendations import recommend
from research.recommend.requests import HistoryPart, Requests, known_users, new_histories
from research.recommend.selection import select_items
from research.recommend.tables import frame_of
from research.report.records import read_tables
from research.runs.config import RunConfig
from research.runs.load import check_tested, load_run, records_of
from research.runs.parts import RunParts
from research.storage.records import RunSummary
from research.storage.untrusted import file_inside

# An id as a frame may hold it; a corpus has it as text.
RawId = str | int


def load(
    folder: Path | str,
    *,
    device: str | None = None,
    allow: Sequence[str] = (),
    data_root: Path | str = "data",
) -> Run:
    """The finished run in a folder; weights and corpus are opened when they are first needed.

    `device` ranks: "cpu", "cuda" or "cuda:N"; None: a GPU if there is one. `allow` names packages
    whose config classes are trusted in the run's config, `data_root` is the folder of prepared
    corpora. Raises `InputError` if the folder holds no run, or one that has not finished.

        >>> run = sf.load("runs/quickstart/ml-100k/sasrec/0")
    """
    check_argument("folder", folder, str | Path)
    path = Path(folder)
    record, summary = records_of(path)
    return Run(
        folder=path,
        config=from_json(record.config, RunConfig, allow=allow),
        summary=summary,
        device=device,
        allow=tuple(allow),
        data_root=str(data_root),
    )


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Run:
    """A finished run: its config, its figures, and the model that ranks."""

    folder: Path
    """The run's folder."""
    config: RunConfig
    """The run's config."""
    summary: RunSummary
    """What summary.json says: protocol, figures, cost, notes."""
    device: str | None = None
    """The device that ranks; None: a GPU if there is one."""
    allow: tuple[str, ...] = ()
    """Packages whose config classes are trusted."""
    data_root: str = "data"
    """The folder of prepared corpora."""

    @cached_property
    def loaded(self) -> tuple[RunParts, Ranker]:
        """The run's parts and its ranker, opened at first use; `InputError` if they have changed.

        The corpus must be the one that the run was trained on.
        """
        return load_run(self.folder, self.data_root, self.allow, self.device)

    @property
    def corpus(self) -> Corpus:
        """The corpus that the run was trained on."""
        return self.loaded[0].corpus

    def metrics(self, part: Literal["test", "validation"] = "test") -> pd.DataFrame:
        """The run's figures as it stored them, one row for each candidate set and metric.

        Columns: candidates, which is "lists" for metrics of recommended lists; metric; mean over
        users; low and high, the ends of the 95 % bootstrap interval over users (it does not cover
        what another seed would change); users, their number. The validation part is always ranked
        in full, and has no lists. Raises `InputError` if a table is missing or damaged, with fewer
        than two users, and for the test part of a tuning's trial, which is never ranked.

            >>> run.metrics().set_index("metric").loc["ndcg@10", ["mean", "low", "high"]]
        """
        if part == "test":
            check_tested(self.folder, self.config, self.summary)
            tables = read_tables(self.folder)
        else:
            _check_part(part)
            name = "ranks/validation-full.npz"
            if not (self.folder / name).is_file():
                raise InputError(f"{self.folder} has no {name}: its split holds nothing out for it")
            tables = {"full": RankTable.load(file_inside(self.folder, name))}
        evaluation = self.config.evaluation
        figures: dict[str, Table] = dict(tables)
        if part == "test" and of_lists(evaluation.metrics):
            path = file_inside(self.folder, lists_file(part, evaluation.seen))
            figures["lists"] = ListTable.load(path)
        return figures_of(figures, evaluation.metrics, evaluation.ties)

    def evaluate(
        self,
        part: Literal["test", "validation"] = "test",
        *,
        metrics: Sequence[str] = (),
        candidates: Sequence[str] = (),
        negatives_file: Path | str | None = None,
        seen: SeenPolicy | None = None,
        ties: TiePolicy | None = None,
    ) -> pd.DataFrame:
        """Rank the held-out items again under other rules; the run's folder stays as it is.

            >>> run.evaluate(metrics=["hr@10"], candidates=["full", "uniform-100"])
            >>> run.evaluate(metrics=["coverage@10", "novelty@10"])

        Args:
            part: which held-out items are ranked: "test" or "validation".
            metrics: hr@K, ndcg@K, recall@K, precision@K, map@K, map-r@K (see
                `EvaluationConfig`), mrr@K or mrr. Of the lists that the run recommends: coverage@K,
                gini@K, novelty@K, arp@K, lift@K, diversity@K, and, where seen items are kept,
                repeat@K and explore@K. Empty: the run's.
            candidates: "full", "uniform-N", "popularity-N", "cold". Empty: the run's.
            negatives_file: a file with the raw ids of a user and of items to rank in every line.
                None: the run's.
            seen: items of the history are "excluded", "kept", or "zero" (kept, with score 0). None:
                the run's.
            ties: where scores tie, a metric is the mean over all orders ("expected") or its value
                at the mean rank ("mean"). None: the run's.

        Returns:
            A frame as `metrics` returns it.

        Raises:
            InputError: for an unknown metric or candidate set, for a corpus that has changed, and
                for the test part of a tuning's trial, which is never ranked.
        """
        _check_part(part)
        if part == "test":
            check_tested(self.folder, self.config, self.summary)
        given = {
            "metrics": tuple(metrics) or None,
            "candidates": tuple(candidates) or None,
            "negatives_file": None if negatives_file is None else str(negatives_file),
            "seen": seen,
            "ties": ties,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        parts, ranker = self.loaded
        evaluation = replace_fields(parts.config.evaluation, changes)
        parts = replace(parts, config=replace(parts.config, evaluation=evaluation))
        tables: dict[str, Table] = {}
        if of_ranks(evaluation.metrics):
            tables |= parts.tables(ranker, part)
        lists = parts.list_table(ranker, part)
        if lists is not None:
            tables["lists"] = lists
        return figures_of(tables, evaluation.metrics, evaluation.ties)

    def recommend(
        self,
        users: Collection[RawId] | None = None,
        *,
        histories: Sequence[Sequence[RawId]] | None = None,
        k: int = 10,
        seen: Literal["excluded", "kept"] = "excluded",
        candidates: Collection[RawId] | None = None,
        exclude: Collection[RawId] = (),
        attributes: Collection[str] | None = None,
        exclude_attributes: Collection[str] = (),
        history: HistoryPart = "all",
        fields: Mapping[str, Sequence[Sequence[int]]] | None = None,
        unknown: UnknownPolicy = "error",
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """The k best items for users of the corpus, or after histories of others.

            >>> run.recommend(k=20)
            >>> run.recommend(["u7", "u12"], exclude=["SKU 3"])
            >>> run.recommend(histories=[["SKU 1", "SKU 2"], []])

        Args:
            users: raw ids of users of the corpus. None: all of them, or those of `histories`.
            histories: for other users, a list of raw item ids each, oldest first; one longer than
                the encoder reads is read from its newest end, an empty one gets the most popular
                items.
            k: how many items.
            seen: whether items of the whole history are "excluded" or "kept".
            candidates: raw ids of items; only these are recommended. None: all may be.
            exclude: raw ids of items that are not recommended.
            attributes: only items with one of these attributes, such as "genre:Drama", are
                recommended. None: all may be.
            exclude_attributes: items with one of these attributes are not recommended.
            history: which events of `users` are their histories: "all", also those held out;
                "train"; or "test", those after which the test ranked.
            fields: further integers of each event of `histories` by name, which the encoder may
                need: "time" (seconds since 1970, which do not decrease).
            unknown: an id that the corpus does not have is an "error", or "skip": left out, and
                counted in the frame's `attrs`.
            batch_size: most requests at a time. None: as many as are fast.

        Returns:
            A frame with a row for each recommended item, the best first: user (or history, its
            number from 0), item, title (empty if it has none), score, rank (from 1) and ranked_by
            ("run", or "popularity" after an empty history). Ids are text. Of the scores only the
            order within a user counts: they are logits or counts, not probabilities. Where fewer
            than k items are left there are fewer rows.

        Raises:
            InputError: for an unknown id, for users beside histories, for an argument that does not
                apply, and where no item is left.
            FloatingPointError: for a score that is not finite.
        """
        parts, ranker = self.loaded
        requests = self._requests(users, histories, history, fields, unknown)
        selection = select_items(
            parts.corpus,
            candidates=None if candidates is None else texts("candidates", candidates),
            exclude=texts("exclude", exclude),
            attributes=attributes,
            exclude_attributes=exclude_attributes,
            unknown=unknown,
        )
        batches = recommend(
            parts,
            ranker,
            requests,
            k=k,
            seen=seen,
            selection=selection,
            batch_size=batch_size,
        )
        frame = frame_of(parts.corpus, requests, batches)
        if unknown == "skip":
            frame.attrs |= _unknown(requests) | {"unknown_items": selection.unknown}
        return frame

    def item_embeddings(self) -> pd.DataFrame:
        """The embeddings of all V items, by which they are scored: float32 [V, D], by raw id.

        The columns are 0 to D - 1. The product with a row of `encode`, plus the item's bias (see
        `item_bias`), is its score. Raises `InputError` for a run that only counts.
        """
        return embedding_frame(item_embeddings(self.corpus, self.loaded[1]))

    def item_bias(self) -> pd.Series:
        """What is added to the scores of all V items: float32 [V], by raw id.

        It is zero where the run's head has no bias. Raises `InputError` for a run that only counts.
        """
        embeddings = item_embeddings(self.corpus, self.loaded[1])
        bias = embeddings.bias_N
        zeros = np.zeros(len(embeddings), dtype=np.float32)
        return pd.Series(zeros if bias is None else bias, index=_index_of(embeddings), name="bias")

    def attribute_embeddings(self) -> pd.DataFrame:
        """The embeddings of all A attributes: float32 [A, D], by name, with columns 0 to D - 1.

        Raises `InputError` for a run that has learned none: they come of `items.attributes` and of
        the objectives aap and map.
        """
        return embedding_frame(attribute_embeddings(self.loaded[0], self.folder))

    def encode(
        self,
        histories: Sequence[Sequence[RawId]] | None = None,
        *,
        users: Collection[RawId] | None = None,
        history: HistoryPart = "all",
        fields: Mapping[str, Sequence[Sequence[int]]] | None = None,
        unknown: UnknownPolicy = "error",
    ) -> pd.DataFrame:
        """The embeddings of histories, or of users of the corpus: float32 [S, D].

        The index is the history's number from 0, or the user's raw id; the columns are 0 to D - 1.
        An empty history has none and no row. Arguments and errors are as in `recommend`; a run that
        only counts raises `InputError` too.

            >>> states = run.encode([["SKU 1", "SKU 2"]])
            >>> scores = states @ run.item_embeddings().T + run.item_bias()
        """
        parts, ranker = self.loaded
        requests = self._requests(users, histories, history, fields, unknown)
        frame = embedding_frame(joined(user_embeddings(parts, ranker, requests)))
        if unknown == "skip":
            frame.attrs |= _unknown(requests)
        return frame

    def similar_items(
        self,
        items: Collection[RawId] | None = None,
        *,
        k: int = 10,
        by: Similarity = "cosine",
    ) -> pd.DataFrame:
        """The k items with the nearest embeddings, for each of some items, the nearest first.

        `items` are raw ids; None: every item. `by` is "cosine" or "dot", the inner product. The
        columns are item, neighbor, title (the neighbor's, where the corpus has titles), similarity
        and rank (from 1). Raises `InputError` for an unknown id and for a run that only counts.

            >>> run.similar_items(["SKU 1"], k=5)
        """
        embeddings = item_embeddings(self.corpus, self.loaded[1])
        raw_ids = None if items is None else texts("items", items)
        batches = neighbors(embeddings, raw_ids, k=k, by=by)
        return neighbors_frame(embeddings, batches, self.corpus.item_titles)

    def similar_attributes(
        self,
        attributes: Collection[str] | None = None,
        *,
        k: int = 10,
        by: Similarity = "cosine",
    ) -> pd.DataFrame:
        """The k attributes with the nearest embeddings, for each of some attributes.

        `attributes` are names; None: every attribute. The columns are attribute, neighbor,
        similarity and rank, as in `similar_items`. Raises `InputError` for an unknown name and for
        a run that has learned no embeddings of attributes.

            >>> run.similar_attributes(["brand:Sonny"], k=5)
        """
        embeddings = attribute_embeddings(self.loaded[0], self.folder)
        return neighbors_frame(embeddings, neighbors(embeddings, attributes, k=k, by=by))

    def _requests(
        self,
        users: Collection[RawId] | None,
        histories: Sequence[Sequence[RawId]] | None,
        history: HistoryPart,
        fields: Mapping[str, Sequence[Sequence[int]]] | None,
        unknown: UnknownPolicy,
    ) -> Requests:
        """For whom to answer: `histories` if they are given, else `users`."""
        parts = self.loaded[0]
        check_argument("fields", fields, Mapping[str, object] | None)
        if histories is None and fields is not None:
            raise InputError("fields are of histories; users of the corpus have theirs in it")
        if histories is not None and history != "all":
            raise InputError(
                f"history={history!r} is for users of the corpus; histories are read whole"
            )
        if histories is None:
            raw_ids = None if users is None else texts("users", users)
            return known_users(parts, raw_ids, history=history, unknown=unknown)
        if users is not None:
            raise InputError("users and histories are both given; answer for one of them at a time")
        if isinstance(histories, str) or not isinstance(histories, Iterable):
            raise InputError("histories: give a list of lists of raw item ids, one list a user")
        lists = [texts("each of histories", history) for history in histories]
        return new_histories(parts, lists, fields=fields, unknown=unknown)

    def __reduce__(self) -> tuple[object, ...]:
        # Another process reads the folder again, and is sent no weights.
        again = partial(load, device=self.device, allow=self.allow, data_root=self.data_root)
        return (again, (self.folder,))

    def __repr__(self) -> str:
        facts = self._facts()
        return (
            f"Run of {facts['model']} on {facts['corpus']}, seed {facts['seed']}, "
            f"in {facts['folder']}\n  {facts['candidates']}: {facts['figures']}"
        )

    def _repr_html_(self) -> str:
        return html_table("Run", self._facts())

    def _facts(self) -> dict[str, str]:
        """What one asks of a run first: what was trained on what, and its first four figures."""
        part, candidates, figures = self.summary.first_figures
        stages = [f"{stage.name} ({', '.join(stage.objectives)})" for stage in self.config.stages]
        kind = type(self.config.encoder if stages else self.config.ranker).__name__
        model = kind.removesuffix("Config") + (f": {', '.join(stages)}" if stages else "")
        return {
            "model": model,
            "corpus": Path(self.config.corpus).name,
            "seed": str(self.config.seed),
            "folder": folder_text(self.folder),
            "candidates": f"{part}, {candidates} ranking of {self.summary.users.evaluated:,} users",
            "figures": ", ".join(
                f"{name} {value:.4f}" for name, value in list(figures.items())[:4]
            ),
        }


def figures_of(tables: Mapping[str, Table], names: Sequence[str], ties: TiePolicy) -> pd.DataFrame:
    """Means and 95 % intervals of metrics, one row for each table and metric that it can give."""
    rows = []
    for candidates, table in tables.items():
        can_give = of_lists if isinstance(table, ListTable) else of_ranks
        for name in dict.fromkeys(can_give(names)):
            result = estimate([table], name, ties=ties)
            rows.append((candidates, name, result.mean, result.low, result.high, result.users))
    return pd.DataFrame(rows, columns=["candidates", "metric", "mean", "low", "high", "users"])


def texts(what: str, raw_ids: Collection[RawId]) -> Sequence[str]:
    """Raw ids as text, as a corpus has them: whole numbers, which frames often hold, become text.

    What is neither text nor a whole number stays, for the lookup to refuse. `InputError`, which
    says `what` they are, for one id in place of a list.
    """
    if isinstance(raw_ids, str):
        return raw_ids
    if not isinstance(raw_ids, Iterable):
        raise InputError(f"{what} is {raw_ids!r:.60}; give a list of raw ids")
    return [str(each) if isinstance(each, int | np.integer) else each for each in raw_ids]


def embedding_frame(embeddings: Embeddings) -> pd.DataFrame:
    """Embeddings [N, D] as a frame by raw id or number, with columns 0 to D - 1."""
    return pd.DataFrame(embeddings.vectors_ND, index=_index_of(embeddings))


def _index_of(embeddings: Embeddings) -> pd.Index:
    """The raw ids or numbers of embeddings, with the name of what they are of."""
    index: pd.Index = pd.Index(embeddings.arrow_ids().to_pylist(), name=embeddings.kind)
    return index


def _unknown(requests: Requests) -> dict[str, int]:
    """How many users and events were left out, by the names that a frame's `attrs` have."""
    return {"unknown_users": requests.unknown_users, "unknown_events": requests.unknown_events}


def _check_part(part: str) -> None:
    if part not in ("test", "validation"):
        raise InputError(f"part is {part!r}; allowed: test, validation")

"""Lists, embeddings and neighbors of a trained run come out whole, whatever the raw ids are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from baselines.popularity import popularity
from research.data.names import Names
from research.errors import InputError
from research.evaluation.ranker import Ranker
from research.model.hstu import HSTU
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import TrainedRanker
from research.recommend.embeddings import (
    Embeddings,
    attribute_embeddings,
    item_embeddings,
    joined,
    user_embeddings,
    write_embeddings,
)
from research.recommend.neighbors import neighbors, neighbors_frame
from research.recommend.recommendations import recommend
from research.recommend.requests import known_users, new_histories
from research.recommend.selection import select_items
from research.recommend.tables import frame_of, write_recommendations
from research.runs.execute import execute
from research.runs.load import load_run
from research.runs.parts import RunParts
from tests.support.checkpoints import newest_checkpoint
from tests.support.odd_names import ODD_NAMES
from tests.support.pretend_accelerator import device, pretended, unsupported_reason
from tests.support.small_runs import (
    ENCODER,
    FINETUNE,
    PRETRAIN,
    QUIET,
    config_of,
    corpus_in,
    weights_of,
)

NEXT = NextItemConfig(head=HeadConfig(bias=True, transform="linear"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two stages, whose items have odd raw ids."""
    folder = tmp_path_factory.mktemp("odd")
    corpus = corpus_in(folder / "corpus", names=ODD_NAMES)
    finetune = replace(FINETUNE, objectives={"next": NEXT})
    execute(config_of(corpus, PRETRAIN, finetune), folder / "run", options=QUIET)
    return folder / "run"


@pytest.fixture(scope="module")
def loaded(run: Path) -> tuple[RunParts, Ranker]:
    return load_run(run, "data")


def test_a_frame_has_raw_ids_scores_and_ranks(loaded: tuple[RunParts, Ranker]) -> None:
    parts, ranker = loaded
    users = known_users(parts, ["u3", "u0"])
    frame = frame_of(parts.corpus, users, recommend(parts, ranker, users, k=3, seen="kept"))
    assert list(frame.columns) == ["user", "item", "title", "score", "rank", "ranked_by"]
    assert frame["user"].tolist() == ["u3"] * 3 + ["u0"] * 3
    assert frame["rank"].tolist() == [1, 2, 3] * 2
    assert set(frame["item"]) <= set(ODD_NAMES)
    assert set(frame["title"]) == {""}
    assert set(frame["ranked_by"]) == {"run"}
    new = new_histories(parts, [["-1", "two\nlines"], []])
    frame = frame_of(parts.corpus, new, recommend(parts, ranker, new, k=1))
    assert list(frame.columns) == ["history", "item", "title", "score", "rank", "ranked_by"]
    assert frame["history"].tolist() == [0, 1]
    assert frame["ranked_by"].tolist() == ["run", "popularity"]
    named = new_histories(parts, [["-1"]], names=["a, b"])
    frame = frame_of(parts.corpus, named, recommend(parts, ranker, named, k=1))
    assert frame["user"].tolist() == ["a, b"]
    nobody = new_histories(parts, [])
    assert len(frame_of(parts.corpus, nobody, recommend(parts, ranker, nobody))) == 0


def test_titles_stand_beside_the_items(loaded: tuple[RunParts, Ranker]) -> None:
    parts, ranker = loaded
    titles = Names.from_strings([f"title {number}" for number in range(10)])
    corpus = replace(parts.corpus, item_titles=titles)
    users = known_users(parts, ["u0"])
    frame = frame_of(corpus, users, recommend(parts, ranker, users, k=4))
    assert frame["title"].tolist() == [f"title {ODD_NAMES.index(item)}" for item in frame["item"]]


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"title": str}, keep_default_na=False)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.DataFrame(map(json.loads, path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_file_holds_the_frame_with_odd_ids(
    loaded: tuple[RunParts, Ranker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    parts, ranker = loaded
    users = known_users(parts)
    frame = frame_of(parts.corpus, users, recommend(parts, ranker, users, k=8, seen="kept"))
    assert set(frame["item"]) == set(ODD_NAMES)
    path = tmp_path / f"lists{suffix}"
    path.write_text("older")
    monkeypatch.setattr("research.recommend.table_files.ROWS_OF_GROUP", 50)
    batches = recommend(parts, ranker, users, k=8, seen="kept", batch_size=4)
    assert write_recommendations(path, parts.corpus, users, batches) == 15 * 8 == len(frame)
    # Scores of other batches are equal but for their rounding.
    pd.testing.assert_frame_equal(read(path), frame, check_dtype=False, rtol=1e-5, atol=1e-6)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_file_that_fails_leaves_the_older_one(
    loaded: tuple[RunParts, Ranker], tmp_path: Path
) -> None:
    parts, ranker = loaded
    users = known_users(parts)

    def breaks() -> object:
        yield from recommend(parts, ranker, users, batch_size=7)
        raise RuntimeError("no more")

    path = tmp_path / "lists.csv"
    path.write_text("older")
    with pytest.raises(RuntimeError, match="no more"):
        write_recommendations(path, parts.corpus, users, breaks())  # type: ignore[arg-type]
    assert path.read_text() == "older"
    assert [each.name for each in tmp_path.iterdir()] == ["lists.csv"]
    with pytest.raises(InputError, match=r"lists\.xlsx: a table is written as \.csv, \.parquet"):
        write_recommendations(tmp_path / "lists.xlsx", parts.corpus, users, [])


def test_scores_are_products_of_embeddings_and_a_bias(loaded: tuple[RunParts, Ranker]) -> None:
    parts, ranker = loaded
    requests = known_users(parts, ["u5", "u1", "u2"])
    items = item_embeddings(parts.corpus, ranker)
    users = joined(user_embeddings(parts, ranker, requests))
    assert items.bias_N is not None
    assert (users.kind, users.ids()) == ("user", ["u5", "u1", "u2"])
    assert (items.kind, items.ids()) == ("item", ODD_NAMES)
    batches = recommend(parts, ranker, requests, k=10, seen="kept")
    for batch in batches:
        for request, item, score in zip(batch.request_N, batch.item_N, batch.score_N, strict=True):
            product = np.dot(users.vectors_ND[request], items.vectors_ND[item])
            assert math.isclose(product + items.bias_N[item], score, rel_tol=1e-4, abs_tol=1e-6)


def test_one_long_id_does_not_make_a_large_file(tmp_path: Path) -> None:
    names = ["long" * 256, *(f"i{number}" for number in range(20_000))]
    vectors = np.zeros((len(names), 2), dtype=np.float32)
    labels = np.arange(len(names))
    embeddings = Embeddings("item", Names.from_strings(names), labels, vectors)
    path = tmp_path / "items.npz"
    # 20,001 ids of 1,024 characters of 4 bytes.
    with pytest.raises(InputError, match=r"'longlong.*1,024 characters: 78 MiB; write a \.parquet"):
        write_embeddings(path, [embeddings])
    assert list(tmp_path.iterdir()) == []
    assert write_embeddings(tmp_path / "items.parquet", [embeddings]) == len(names)
    short = Embeddings("item", Names.from_strings(names[1:]), labels[1:] - 1, vectors[1:])
    assert write_embeddings(path, [short]) == 20_000


def test_embeddings_are_copies(loaded: tuple[RunParts, Ranker]) -> None:
    parts, ranker = loaded
    first = item_embeddings(parts.corpus, ranker)
    assert first.bias_N is not None
    first.vectors_ND[:] = 7.0
    first.bias_N[:] = 7.0
    again = item_embeddings(parts.corpus, ranker)
    assert again.bias_N is not None
    assert not (again.vectors_ND == 7.0).any()
    assert not (again.bias_N == 7.0).any()


def test_only_histories_with_events_have_an_embedding(loaded: tuple[RunParts, Ranker]) -> None:
    parts, ranker = loaded
    requests = new_histories(parts, [[], ["-1"], [], ["NA", "-1"]])
    users = joined(user_embeddings(parts, ranker, requests))
    assert (users.kind, users.ids(), len(users)) == ("history", ["1", "3"], 2)
    with pytest.raises(InputError, match="there is nothing to embed: no history has an event"):
        joined(user_embeddings(parts, ranker, new_histories(parts, [[]])))


def test_attributes_are_those_of_the_newest_stage_that_learned_them(
    run: Path, loaded: tuple[RunParts, Ranker]
) -> None:
    parts, _ = loaded
    attributes = attribute_embeddings(parts, run)
    stored = weights_of(newest_checkpoint(run / "stages" / "pretrain"))
    (table,) = [stored[name] for name in stored if name.endswith("attribute_table.weight")]
    assert attributes.ids() == ["a0", "a1", "a2"]
    assert torch.equal(torch.from_numpy(attributes.vectors_ND), table)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_embeddings_are_read_back(
    loaded: tuple[RunParts, Ranker], tmp_path: Path, suffix: str
) -> None:
    parts, ranker = loaded
    items = item_embeddings(parts.corpus, ranker)
    path = tmp_path / f"items{suffix}"
    assert write_embeddings(path, [items]) == 10
    if suffix == ".npz":
        with np.load(path) as stored:
            ids, vectors, bias = stored["ids"].tolist(), stored["vectors"], stored["bias"]
    else:
        frame = pd.read_parquet(path)
        assert list(frame.columns) == ["item", "embedding", "bias"]
        ids, vectors, bias = (
            frame["item"].tolist(), np.stack(frame["embedding"]), frame["bias"].to_numpy(),
        )  # fmt: skip
    assert ids == ODD_NAMES
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, items.vectors_ND)
    np.testing.assert_array_equal(bias, items.bias_N)
    with pytest.raises(InputError, match=r"items\.csv: embeddings are written as \.parquet or"):
        write_embeddings(tmp_path / "items.csv", [items])


def test_embeddings_of_users_are_written_batch_by_batch(
    loaded: tuple[RunParts, Ranker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, ranker = loaded
    requests = known_users(parts)
    whole = joined(user_embeddings(parts, ranker, requests))
    monkeypatch.setattr("research.recommend.embeddings.QUESTIONS", 4)
    number = write_embeddings(tmp_path / "u.parquet", user_embeddings(parts, ranker, requests))
    frame = pd.read_parquet(tmp_path / "u.parquet")
    assert number == len(frame) == 15
    assert frame["user"].tolist() == [f"u{user}" for user in range(15)]
    # Fewer rows in a product are rounded otherwise.
    np.testing.assert_allclose(np.stack(frame["embedding"]), whole.vectors_ND, rtol=1e-4, atol=1e-6)


def embeddings_of(vectors: list[list[float]]) -> Embeddings:
    names = Names.from_strings([f"i{number}" for number in range(len(vectors))])
    return Embeddings("item", names, np.arange(len(vectors)), np.array(vectors, dtype=np.float32))


def test_neighbors_by_hand() -> None:
    embeddings = embeddings_of([[3, 0], [1, 0], [0, 2], [0, 0], [1, 0], [-1, 0]])
    by_cosine = neighbors_frame(embeddings, neighbors(embeddings, ["i0"], k=4))
    assert list(by_cosine.columns) == ["item", "neighbor", "similarity", "rank"]
    # Of those that tie the lower number is first; zeros are at right angles to all.
    assert by_cosine["neighbor"].tolist() == ["i1", "i4", "i2", "i3"]
    assert by_cosine["similarity"].tolist() == [1.0, 1.0, 0.0, 0.0]
    by_product = neighbors_frame(embeddings, neighbors(embeddings, ["i1", "i5"], k=2, by="dot"))
    assert by_product["item"].tolist() == ["i1", "i1", "i5", "i5"]
    assert by_product["neighbor"].tolist() == ["i0", "i4", "i2", "i3"]
    assert by_product["similarity"].tolist() == [3.0, 1.0, 0.0, 0.0]
    assert by_product["rank"].tolist() == [1, 2, 1, 2]
    titles = Names.from_strings([f"title {number}" for number in range(6)])
    told = neighbors_frame(embeddings, neighbors(embeddings, ["i0"], k=1), titles)
    assert told["title"].tolist() == ["title 1"]
    assert len(neighbors_frame(embeddings, neighbors(embeddings, []))) == 0
    with pytest.raises(InputError, match="k is 0; it must be at least 1"):
        neighbors(embeddings, k=0)
    with pytest.raises(InputError, match="by is 'l2'; allowed: cosine, dot"):
        neighbors(embeddings, by="l2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="items: 'i9' is not among the 6 names"):
        neighbors(embeddings, ["i9"])


def test_all_neighbors_equal_those_of_the_loop() -> None:
    draws = np.random.default_rng(1)
    # Whole numbers, so that every order of addition gives the same products.
    vectors = draws.integers(-2, 3, size=(37, 3)).astype(float).tolist()
    embeddings = embeddings_of(vectors)
    found = neighbors_frame(embeddings, neighbors(embeddings, k=5, by="dot"))
    expected = []
    for item, vector in enumerate(vectors):
        products = {
            other: sum(a * b for a, b in zip(vector, row))
            for other, row in enumerate(vectors)
            if other != item
        }
        order = sorted(products, key=lambda other: (-products[other], other))[:5]
        expected += [(f"i{item}", f"i{other}", products[other]) for other in order]
    columns = ("item", "neighbor", "similarity")
    assert list(zip(*(found[name].tolist() for name in columns))) == expected


def test_an_encoder_that_reads_times_needs_them_of_new_histories(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    config = config_of(corpus, FINETUNE)
    timed = replace(ENCODER, block=HSTU(times=True))
    execute(replace(config, encoder=timed), tmp_path / "run", options=QUIET)
    parts, ranker = load_run(tmp_path / "run", "data")
    users = known_users(parts, ["u0", "u4"])
    lists = frame_of(corpus, users, recommend(parts, ranker, users, k=4))
    start, stop = corpus.offsets[:2].tolist()
    history = [corpus.item_names[item] for item in corpus.items[start:stop].tolist()]
    with pytest.raises(InputError, match="the run's encoder also reads the time of every event"):
        new_histories(parts, [history])
    with pytest.raises(InputError, match="fields: time needs lists as long as those of the"):
        new_histories(parts, [history], fields={"time": [[1]]})
    assert corpus.timestamps is not None
    new = new_histories(parts, [history], fields={"time": [corpus.timestamps[start:stop].tolist()]})
    again = frame_of(corpus, new, recommend(parts, ranker, new, k=4))
    assert again["item"].tolist() == lists["item"][:4].tolist()
    # What is left out takes its time along.
    skipping = new_histories(
        parts, [["i0", "none", "i1"]], fields={"time": [[5, 6, 7]]}, unknown="skip"
    )
    assert skipping.pack(np.array([0])).fields["time"].tolist() == [5, 7]


@pytest.mark.skipif(unsupported_reason() is not None, reason=str(unsupported_reason()))
def test_lists_and_embeddings_of_a_model_on_an_accelerator_are_the_same(
    run: Path, loaded: tuple[RunParts, Ranker]
) -> None:
    parts, ranker = loaded
    users = new_histories(parts, [["-1", "NA"], [], ["Björk"]])
    options = {"k": 4, "batch_size": 2, "selection": select_items(parts.corpus, exclude=["--k"])}
    lists = frame_of(parts.corpus, users, recommend(parts, ranker, users, **options))  # type: ignore[arg-type]
    states = joined(user_embeddings(parts, ranker, users)).vectors_ND
    _, moved = load_run(run, "data")
    assert isinstance(moved, TrainedRanker)
    with pretended():
        moved.encoder.to(device())
        moved.objective.to(device())
        batches = recommend(parts, moved, users, **options)  # type: ignore[arg-type]
        again = frame_of(parts.corpus, users, batches)
        states_there = joined(user_embeddings(parts, moved, users)).vectors_ND
        items_there = item_embeddings(parts.corpus, moved).vectors_ND
    pd.testing.assert_frame_equal(again, lists)
    np.testing.assert_array_equal(states_there, states)
    np.testing.assert_array_equal(items_there, item_embeddings(parts.corpus, ranker).vectors_ND)


def test_a_run_that_counts_has_no_embeddings(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    execute(replace(popularity(), corpus=str(corpus.folder)), tmp_path / "run", options=QUIET)
    parts, ranker = load_run(tmp_path / "run", "data")
    with pytest.raises(InputError, match=r"ranks by counts \(Popularity\) and has no embeddings"):
        item_embeddings(corpus, ranker)
    with pytest.raises(InputError, match="ranks by counts"):
        user_embeddings(parts, ranker, known_users(parts))
    with pytest.raises(InputError, match="has no embeddings of attributes; a run learns them"):
        attribute_embeddings(parts, tmp_path / "run")

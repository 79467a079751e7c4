"""Vectors of items: which files are read, whose vector an item has, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from research.cli.show import show
from research.data.corpus import Corpus
from research.data.corpus_text import vectors_text
from research.data.preparation.attach import attach_vectors
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.data.preparation.vector_files import read_vectors
from research.errors import InputError
from research.public.preparing import prepare as prepare_in_python

EVENTS = "user,item,timestamp\na,10,1\na,x y,2\nb,10,3\nb,7,4\n"
IDS = ["7", "x y", "new", "10", "newer"]
VECTORS = np.array([[7, 70], [-1, 0.5], [8, 80], [10, 100], [9, 90]], dtype=np.float32)


def npz(folder: Path, ids: object = IDS, vectors: object = VECTORS) -> Path:
    path = folder / "v.npz"
    np.savez(path, ids=np.asarray(ids), vectors=np.asarray(vectors))
    return path


def npy(folder: Path, ids: list[str] = IDS, vectors: object = VECTORS) -> Path:
    path = folder / "v.npy"
    np.save(path, np.asarray(vectors))
    (folder / "v.ids.txt").write_text("".join(f"{name}\n" for name in ids))
    return path


def columns(folder: Path, **named: object) -> Path:
    path = folder / "v.parquet"
    parquet.write_table(pa.table(named), path)
    return path


def prepared(folder: Path, vectors: Path | None, **options: object) -> Corpus:
    (folder / "events.csv").write_text(EVENTS)
    config = PrepareConfig(
        source="csv", raw=str(folder / "events.csv"),
        item_vectors=None if vectors is None else str(vectors), **options,
    )  # fmt: skip
    corpus = prepare(config, data_root=folder / "data")
    corpus.verify()
    return corpus


def vectors_by_name(corpus: Corpus) -> dict[str, list[float]]:
    assert corpus.item_vectors is not None
    return dict(zip(corpus.item_names, corpus.item_vectors.tolist(), strict=True))


@pytest.mark.parametrize(
    "write",
    [
        npz,
        npy,
        lambda folder: npz(folder, IDS, VECTORS.astype(np.float64)),
        lambda folder: columns(folder, item=IDS, embedding=VECTORS.tolist(), bias=[0.5] * 5),
        lambda folder: columns(folder, sku=pa.array(IDS).dictionary_encode(), v=VECTORS.tolist()),
        lambda folder: columns(folder, v=pa.FixedSizeListArray.from_arrays(
            pa.array(VECTORS.ravel(), pa.float16()), 2), item_id=IDS),
    ],
    ids=["npz", "npy", "float64", "parquet, as exported", "parquet, categories", "fixed size"],
)  # fmt: skip
def test_an_item_has_the_vector_of_its_raw_id(write: Callable[..., Path], tmp_path: Path) -> None:
    corpus = prepared(tmp_path, write(tmp_path))
    assert vectors_by_name(corpus) == {"10": [10, 100], "x y": [-1, 0.5], "7": [7, 70]}
    assert corpus.manifest.report["vectors"] == {
        "numbers_each": 2, "items_without": 0, "of_no_item": 2, "items_without_events": 0,
    }  # fmt: skip
    again = Corpus.open(corpus.folder).item_vectors
    assert isinstance(again, np.memmap)
    assert again.dtype == np.float32
    assert "vectors: 2 numbers an item" in repr(corpus)


def test_a_number_as_id_is_its_digits(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user,item,timestamp\na,1,1\na,2,2\n")
    for path in (
        npz(tmp_path, np.array([2, 1]), [[2.0], [1.0]]),
        columns(tmp_path, item=[2, 1], v=[[2.0], [1.0]]),
    ):
        corpus = prepare_in_python(
            tmp_path / "events.csv", vectors=path, data_root=tmp_path / path.suffix
        )
        assert vectors_by_name(corpus) == {"1": [1.0], "2": [2.0]}


def test_vectors_change_the_fingerprint_and_their_absence_does_not(tmp_path: Path) -> None:
    plain, rich = prepared(tmp_path, None), prepared(tmp_path, npz(tmp_path))
    assert plain.item_vectors is None
    assert plain.fingerprint != rich.fingerprint
    # Written by the version before vectors.
    assert plain.fingerprint.startswith("35984b4d120a")
    turned = prepared(tmp_path, npz(tmp_path, IDS, -VECTORS))
    assert turned.fingerprint not in (plain.fingerprint, rich.fingerprint)
    # The same vectors from another kind of file are the same corpus.
    assert prepared(tmp_path, npy(tmp_path)).fingerprint == rich.fingerprint
    named = prepared(tmp_path, npz(tmp_path), vector_encoder="m")
    assert named.fingerprint != rich.fingerprint
    assert named.manifest.options["vector_encoder"] == "m"


def test_items_that_the_file_lacks_are_an_error_or_have_the_mean_or_zeros(tmp_path: Path) -> None:
    path = npz(tmp_path, ["7", "else"], [[1.0, 2.0], [3.0, 6.0]])
    with pytest.raises(InputError, match=r"2 of 3 items have no vector there \('10', 'x y'\)"):
        prepared(tmp_path, path)
    mean = prepared(tmp_path, path, missing_vectors="mean")
    assert vectors_by_name(mean) == {"10": [2, 4], "x y": [2, 4], "7": [1, 2]}
    zero = prepared(tmp_path, path, missing_vectors="zero")
    assert vectors_by_name(zero) == {"10": [0, 0], "x y": [0, 0], "7": [1, 2]}
    assert zero.manifest.report["vectors"]["items_without"] == 2


def test_items_without_events_may_be_items_of_the_corpus(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, npz(tmp_path), vector_only_items=True)
    assert list(corpus.item_names) == ["10", "x y", "7", "new", "newer"]
    assert vectors_by_name(corpus)["newer"] == [9, 90]
    assert corpus.num_items == 5
    assert int(corpus.items.max()) == 2
    assert corpus.manifest.report["vectors"]["items_without_events"] == 2


def test_items_that_vectors_bring_may_have_attributes(tmp_path: Path) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item,genre\nnew,a\nunknown,b\n")
    corpus = prepared(
        *(tmp_path, npz(tmp_path)),
        vector_only_items=True,
        items_file=str(items),
        attribute_columns=("genre",),
    )
    assert list(corpus.attribute_names) == ["genre:a"]
    assert corpus.manifest.report["attribute_file_unknown_items"] == 1


@pytest.mark.parametrize("only_items", [False, True])
def test_attached_vectors_make_the_corpus_that_prepare_makes(
    only_items: bool, tmp_path: Path
) -> None:
    path = npz(tmp_path)
    attached = attach_vectors(
        prepared(tmp_path, None), path, tmp_path / "rich", only_items=only_items, encoder="m"
    )
    attached.verify()
    whole = prepared(tmp_path, path, vector_only_items=only_items, vector_encoder="m")
    assert attached.fingerprint == whole.fingerprint
    counts = [each.manifest.report["items_without_attributes"] for each in (attached, whole)]
    assert counts[0] == counts[1]
    assert attached.name == "rich"
    with pytest.raises(InputError, match="has vectors already"):
        attach_vectors(attached, path, tmp_path / "again")


def test_what_was_counted_of_vectors_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = npz(tmp_path, ["7", "else"], [[1.0, 2.0], [3.0, 6.0]])
    words = "2 numbers an item; items without a vector in the file: 2; vectors of no item: 1"
    corpus = prepared(tmp_path, path, missing_vectors="zero")
    assert f"vectors: {words}\n" in f"{corpus!r}\n"
    show(corpus.folder)
    assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())
    plain = prepared(tmp_path, None)
    attached = attach_vectors(plain, path, tmp_path / "rich", missing="zero", only_items=True)
    assert repr(attached).endswith("a vector in the file: 2; items without events: 1")
    # A manifest is of strangers too.
    assert vectors_text(2, {"vectors": {"of_no_item": "many"}}) == "2 numbers an item"


def test_items_of_vectors_alone_are_described_by_prepare_and_not_where_attached(
    tmp_path: Path,
) -> None:
    path, items = npz(tmp_path), tmp_path / "items.csv"
    items.write_text("item,title\n10,ten\nx y,x\n7,seven\nnew,New\nnewer,Newer\n")
    described = {"items_file": str(items), "title_column": "title"}
    plain = prepared(tmp_path, None, **described)
    attached = attach_vectors(plain, path, tmp_path / "rich", only_items=True)
    whole = prepared(tmp_path, path, vector_only_items=True, **described)
    assert list(attached.item_titles or ()) == ["ten", "x", "seven", "", ""]
    assert list(whole.item_titles or ()) == ["ten", "x", "seven", "New", "Newer"]


NOT_FINITE = VECTORS.copy()
NOT_FINITE[3, 1] = np.nan


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: npz(f, IDS, NOT_FINITE), r"id '10' \(row 4\) has a number that is not finite"),
        (lambda f: npz(f, IDS, VECTORS * np.float64(1e38)), "not finite in float32"),
        (lambda f: npz(f, [*IDS[:4], "7"]), "id '7' is in rows 1 and 5"),
        (lambda f: npz(f, IDS[:4]), "5 vectors, but 4 ids"),
        (lambda f: npy(f, IDS[:4]), r"5 vectors, but 4 ids in .*v\.ids\.txt"),
        (lambda f: npz(f, ["a", "b"], VECTORS[:2]), r"none of its 2 ids \('a', 'b'\) is an item"),
        (lambda f: npz(f, [], np.zeros((0, 4))), "not complete|expected text"),
        (lambda f: npz(f, np.zeros(0, "U1"), np.zeros((0, 4))), "holds no vector"),
        (lambda f: npz(f, ["7", "10"], np.zeros((2, 0))), "holds no vector"),
        (lambda f: npz(f, IDS, VECTORS[:, 0]), r"shape \(5,\)"),
        (lambda f: npz(f, np.array([0.5, 1, 2, 3, 4])), "expected text or whole numbers"),
        (lambda f: npz(f, np.array([{}] * 5, dtype=object)), "allow_pickle"),
        (lambda f: npz(f, IDS, VECTORS.astype(str)), "expected numbers in two dimensions"),
        (lambda f: columns(f, item=["7", "10"], v=[[1.0, 2.0], [1.0]]),
         "row 2 has 1 numbers, that of row 1 has 2"),
        (lambda f: columns(f, item=["7", "10"], v=[[1.0], None]), "no id or no vector"),
        (lambda f: columns(f, item=["7", "10"], v=[[1.0], [None]]), "not finite"),
        (lambda f: columns(f, a=["7"], b=["8"], v=[[1.0]]), "its columns: a"),
        (lambda f: columns(f, item=["7"]), "one column of lists of numbers"),
        (lambda f: columns(f, item=pa.array([], pa.string()), v=pa.array([], pa.list_(pa.float32())
         )), "holds no vector"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_what_is_wrong_in_it(
    write: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prepared(tmp_path, write(tmp_path))
    assert str(tmp_path / "v.") in str(caught.value)


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    for name in ("v.npz", "v.npy", "v.parquet"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
    (tmp_path / "v.ids.txt").write_text("7\n")
    for name in ("v.npz", "v.npy", "v.parquet"):
        with pytest.raises(InputError, match=r"not a complete|not readable"):
            read_vectors(tmp_path / name)
    np.savez(tmp_path / "other.npz", names=np.array(IDS))
    with pytest.raises(InputError, match="has no array ids and no vectors"):
        read_vectors(tmp_path / "other.npz")
    (tmp_path / "v.ids.txt").unlink()
    with pytest.raises(InputError, match=r"v\.ids\.txt: there is no such file"):
        prepared(tmp_path, tmp_path / "v.npy")
    with pytest.raises(InputError, match="one of these endings"):
        prepared(tmp_path, tmp_path / "events.csv")


def test_options_of_vectors_need_vectors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--vector-only-items is for --item-vectors"):
        prepared(tmp_path, None, vector_only_items=True)
    with pytest.raises(InputError, match="allowed: error, mean, zero"):
        prepared(tmp_path, npz(tmp_path), missing_vectors="median")


def test_a_corpus_whose_vectors_were_changed_is_refused(tmp_path: Path) -> None:
    folder = prepared(tmp_path, npz(tmp_path)).folder
    path = folder / "item_vectors.npy"
    for vectors, message in (
        (np.zeros((3, 2), np.float32), "the corpus was changed"),
        (np.full((3, 2), np.inf, np.float32), "row 0 has a number that is not finite"),
        (np.zeros((2, 2), np.float32), "2 items, but manifest.json says 3"),
        (np.zeros((3, 2)), "expected two dimensions, row by row, <f4"),
        (np.zeros(3, np.float32), "expected two dimensions"),
        (np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2)), "row by row"),
    ):
        np.save(path, vectors)
        with pytest.raises(InputError, match=message):
            Corpus.open(folder).verify()

"""MovieLens in every layout, and RecBole's atomic files, from small faithful copies."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.preparation.filters import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.support.movielens_files import ATTRIBUTES, DAT, archive_files

HISTORIES = {"196": ["2", "1"], "22": ["3", "1"]}


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def lay(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    for file, content in archive_files(name).items():
        (folder / file).write_bytes(content)
    return folder


def prepared(tmp_path: Path, source: str, raw: Path, **options: object) -> Corpus:
    config = PrepareConfig(source=source, raw=str(raw), **options)
    corpus = prepare(config, data_root=tmp_path / "data")
    corpus.verify()
    return corpus


def refused(tmp_path: Path, source: str, raw: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, source, raw)
    assert not (tmp_path / "data").exists()


def histories(corpus: Corpus) -> dict[str, list[str]]:
    bounds = corpus.offsets.tolist()
    return {
        user: [corpus.item_names[i] for i in corpus.items[bounds[u] : bounds[u + 1]].tolist()]
        for u, user in enumerate(corpus.user_names)
    }


def attributes(corpus: Corpus) -> dict[str, list[str]]:
    bounds = corpus.attribute_offsets.tolist()
    return {
        item: [corpus.attribute_names[a] for a in corpus.attribute_ids[bounds[i] : bounds[i + 1]]]
        for i, item in enumerate(corpus.item_names)
    }


@pytest.mark.parametrize(
    ("layout", "source"),
    [
        ("ml-100k", "ml-100k"),
        ("recbole", "ml-100k"),
        ("ml-1m", "ml-1m"),
        ("ml-10m", "ml-10m"),
        ("ml-20m", "ml-20m"),
        ("ml-20m", "ml-25m"),
        ("ml-20m", "ml-32m"),
        ("ml-20m", "ml-latest"),
        ("ml-20m", "ml-latest-small"),
        ("ml-1m", "movielens"),
        ("recbole", "movielens"),
    ],
)
def test_every_layout_gives_the_same_corpus(tmp_path: Path, layout: str, source: str) -> None:
    corpus = prepared(tmp_path, source, lay(tmp_path / "raw", layout))
    assert histories(corpus) == HISTORIES
    assert attributes(corpus) == ATTRIBUTES
    assert corpus.item_titles is not None
    assert list(corpus.item_titles) == ["unknown", "Toy Story (1995)", "Amélie (2001) (V)"]
    assert corpus.timestamps is not None
    assert corpus.timestamps.tolist() == [881250949, 881250949, 878887115, 878887116]
    assert corpus.name == ("raw" if source == "movielens" else source)


def test_half_stars_are_kept(tmp_path: Path) -> None:
    corpus = prepared(tmp_path, "ml-20m", lay(tmp_path / "raw", "ml-20m"), min_rating=4.5)
    assert histories(corpus) == {"196": ["1"]}


def test_the_folder_of_an_unpacked_archive_is_found(tmp_path: Path) -> None:
    lay(tmp_path / "raw" / "ml-10M100K", "ml-10m")
    assert histories(prepared(tmp_path, "ml-10m", tmp_path / "raw")) == HISTORIES


def test_an_archive_is_read_without_unpacking_it_first(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in archive_files("ml-1m").items():
            archive.writestr(f"ml-1m/{file}", content)
    assert histories(prepared(tmp_path, "movielens", tmp_path / "a.zip")) == HISTORIES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "data"]


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", DAT)
    message = r"a\.zip: the md5 is .*, but c4d9eecfca2ab87c1945afe126590906 is pinned for ml-1m"
    refused(tmp_path, "ml-1m", tmp_path / "a.zip", message)


def test_genres_are_read_from_u_genre_where_it_lies_there(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", "ml-100k")
    (raw / "u.genre").write_text("".join(f"g{number}|{number}\n" for number in range(19)) + "\n")
    assert attributes(prepared(tmp_path, "ml-100k", raw))["3"] == [
        "decade:2000s",
        "genre:g14",
        "genre:g5",
    ]


def test_without_its_movies_file_a_corpus_has_no_attributes(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", "ml-1m")
    (raw / "movies.dat").unlink()
    corpus = prepared(tmp_path, "ml-1m", raw)
    assert (corpus.num_attributes, corpus.item_titles) == (0, None)


def test_a_layout_of_another_data_set_is_refused(tmp_path: Path) -> None:
    raw = lay(tmp_path / "raw", "ml-20m")
    refused(tmp_path, "ml-1m", raw, r"raw: holds none of ratings\.dat\.")
    refused(tmp_path, "ml-100k", raw, r"raw: holds none of u\.data, ml-100k\.inter\.")
    refused(tmp_path, "movielens", tmp_path / "gone", "gone: there is no such file or folder")


@pytest.mark.parametrize(
    ("layout", "file", "content", "message"),
    [
        ("ml-100k", "u.data", "1\t2\t3\n", r"u\.data, line 1: 3 fields; expected 4"),
        ("ml-100k", "u.data", "", r"u\.data: the file is empty"),
        ("ml-100k", "u.item", "1|T\n", r"u\.item, line 1: 2 fields; expected 24"),
        (
            "ml-1m",
            "ratings.dat",
            "1::2::3::4\n1::x::3::4\n",
            r"line 2, column 'item': 'x' is",
        ),
        ("ml-1m", "ratings.dat", "1::2::3:4\n", r"ratings\.dat, line 1: 3 fields; expected 4"),
        (
            "ml-1m",
            "ratings.dat",
            "1::2::nan::4\n",
            r"line 1, column 'rating': 'nan' stands for no value",
        ),
        ("ml-1m", "movies.dat", "1::T\n", r"movies\.dat, line 1: 2 fields; expected 3"),
        ("ml-1m", "movies.dat", "9::T::War\n", r"movies\.dat: none of its 1 items is among"),
        ("ml-20m", "ratings.csv", "1,2,3,4\n", r"ratings\.csv, line 1: .* expected \['userId'"),
        ("ml-20m", "movies.csv", "a,b,c\n1,\xe9,\n", r"movies\.csv: not utf-8 text \(utf-8 was tr"),
    ],
)
def test_a_bad_file_is_refused(
    tmp_path: Path, layout: str, file: str, content: str, message: str
) -> None:
    raw = lay(tmp_path / "raw", layout)
    (raw / file).write_bytes(content.encode("latin-1"))
    refused(tmp_path, "movielens", raw, message)


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
INTER += "u1\ti2\t3\t20\nu1\ti1\t4\t10\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tprice:float\n"
    'i1\tThe "Best\t1995\tSci-Fi War\t1\ni2\tB C\tV\t\t2\n'
)


def test_atomic_files_bring_attributes_and_titles(tmp_path: Path) -> None:
    (tmp_path / "d.inter").write_text(INTER)
    (tmp_path / "d.item").write_text(ITEM)
    corpus = prepared(tmp_path, "atomic", tmp_path / "d.inter")
    assert histories(corpus) == {"u1": ["i1", "i2"]}
    assert list(corpus.item_names) == ["i2", "i1"]
    assert attributes(corpus) == {"i2": [], "i1": ["class:Sci-Fi", "class:War", "decade:1990s"]}
    assert corpus.item_titles is not None
    assert list(corpus.item_titles) == ["B C", 'The "Best']
    report = corpus.manifest.report
    assert isinstance(report, dict)
    assert report["item_columns_not_used"] == ["price"]


def test_an_atomic_file_is_found_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.inter").write_text("item_id:token\tuser_id:token\nx\ta\n")
    corpus = prepared(tmp_path, "atomic", tmp_path / "d")
    assert histories(corpus) == {"a": ["x"]}
    assert corpus.timestamps is None
    (tmp_path / "d" / "e.inter").write_text(INTER)
    with pytest.raises(InputError, match=r"d: 2 \.inter files; exactly one is needed"):
        prepared(tmp_path, "atomic", tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\titem_id:token\n", r"d\.inter, line 1, field 1: 'user_id'; expected NAME:TYPE"),
        ("user_id:token\titem_id:float\n", r"line 1: no field item_id:token; found user_id"),
        (INTER + "u1\ti2\t3\n", r"d\.inter, line 4: 3 fields; expected 4"),
        (INTER + "u1\ti2\tx\t3\n", r"d\.inter, line 4, column 'rating': 'x' is not a number"),
        (
            INTER + "u1\ti2\t3\tnan\n",
            r"d\.inter, line 4, column 'timestamp': 'nan' stands for no value",
        ),
    ],
)
def test_a_bad_atomic_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.inter").write_text(text)
    refused(tmp_path, "atomic", tmp_path / "d.inter", message)


def test_a_bad_atomic_item_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.inter").write_text(INTER)
    for text, message in (
        ("item_id:token\tclass:token_seq\ni1\n", r"d\.item, line 2: 1 fields; expected 2"),
        ("class:token_seq\nx\n", r"d\.item, line 1: no field item_id; found class"),
    ):
        (tmp_path / "d.item").write_text(text)
        refused(tmp_path, "atomic", tmp_path / "d.inter", message)

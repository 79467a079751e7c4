"""MovieLens in every layout, from small faithful copies."""

import zipfile
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.support.histories import attributes, histories
from tests.support.movielens_files import ATTRIBUTES, DAT, archive_files

HISTORIES = {"196": ["2", "1"], "22": ["3", "1"]}


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

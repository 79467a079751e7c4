"""Folders, patterns and compressed forms of raw files: which are read, and in what order."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError
from tests.support.histories import histories


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """The folder, with files in it; text is compressed where the name ends in .gz or .bz2."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = text.encode() if isinstance(text, str) else text
        compress = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix.lower(), bytes)
        path.write_bytes(compress(content))
    return folder


def prepared(raw: Path, source: str = "csv", **options: object) -> Corpus:
    config = PrepareConfig(source=source, raw=str(raw), **options)
    return prepare(config, data_root=raw.parent / "data")


def warnings(corpus: Corpus) -> list[str]:
    notes = corpus.manifest.report.get("warnings", [])
    assert isinstance(notes, list)
    return [str(warning) for warning in notes]


HEADER = "user,item,timestamp\n"
NO_TIMES = {"timestamp_column": None}


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    files = {f"p/part-{number}.csv": f"user,item\nu,{number}\n" for number in (10, 2, 1)}
    raw = write(tmp_path / "in", files)
    for path in (raw, raw / "p" / "*.csv"):
        corpus = prepared(path, **NO_TIMES)
        assert histories(corpus) == {"u": ["1", "2", "10"]}
        assert warnings(corpus) == [
            "no times are read, so the order of 3 files decides the order of events: first "
            "part-1.csv, last part-10.csv."
        ]


def test_times_decide_the_order_of_events_in_several_files(tmp_path: Path) -> None:
    files = {"a.csv": f"{HEADER}u,x,9\n", "b.csv": f"{HEADER}u,y,1\n"}
    corpus = prepared(write(tmp_path / "in", files))
    assert histories(corpus) == {"u": ["y", "x"]}
    assert warnings(corpus) == []


def test_endings_in_capitals_are_endings(tmp_path: Path) -> None:
    files = {
        "A.CSV": f"{HEADER}u,x,1\n",
        "b.csv.GZ": f"{HEADER}u,y,2\n",
        "c.Tsv": "user\titem\ttimestamp\nu\tz\t3\n",
    }
    assert histories(prepared(write(tmp_path / "in", files))) == {"u": ["x", "y", "z"]}


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    others = [f"n{number}.dat" for number in range(6)]
    silent = ("_SUCCESS", ".hidden", "a.csv.crc", "_temporary/b.csv", ".a.csv.crc")
    files = {"a.csv": f"{HEADER}u,x,1\n", "notes/read.md": "x"}
    raw = write(tmp_path / "in", {**files, **dict.fromkeys((*others, *silent), "x")})
    corpus = prepared(raw)
    assert histories(corpus) == {"u": ["x"]}
    assert warnings(corpus) == [
        "7 files of the folder are not read, as their names do not end in .csv or .tsv or .txt: "
        "n0.dat, n1.dat, n2.dat, n3.dat, n4.dat and 2 more."
    ]


def test_a_compression_that_is_not_unpacked_is_refused(tmp_path: Path) -> None:
    files = {"a.csv": f"{HEADER}u,x,1\n", "b.csv.xz": "x"}
    with pytest.raises(InputError, match=r"b\.csv\.xz: \.xz is not unpacked here"):
        prepared(write(tmp_path / "in", files))


def test_a_file_and_its_compressed_self_are_refused(tmp_path: Path) -> None:
    text = f"{HEADER}u,x,1\n"
    raw = write(tmp_path / "in", {"a.csv": text, "a.csv.bz2": text})
    for path in (raw, raw / "a.csv*"):
        with pytest.raises(InputError, match=r"a\.csv and a\.csv\.bz2 would be one file"):
            prepared(path)


def attributes(corpus: Corpus) -> list[str]:
    return list(corpus.attribute_names)


EVENTS = "user_id:token\titem_id:token\ttimestamp:float\n"
TRAIN, VALID, TEST = (f"{EVENTS}{rows}" for rows in ("u\ta\t1\n", "u\tb\t2\n", "u\tc\t3\n"))
ITEMS = "item_id:token\tclass:token_seq\na\tred\n"


@pytest.mark.parametrize("name", ["", "x.train.inter.gz", "x.valid.inter", "x.test.inter.bz2"])
def test_compressed_parts_of_a_split_are_read_together(tmp_path: Path, name: str) -> None:
    files = {"x.train.inter.gz": TRAIN, "x.valid.inter": VALID, "x.test.inter.bz2": TEST}
    raw = write(tmp_path / "in", {**files, "x.item.gz": ITEMS})
    corpus = prepared(raw / name, "atomic")
    assert histories(corpus) == {"u": ["a", "b", "c"]}
    assert (corpus.name, warnings(corpus)) == ("x", [])
    assert attributes(corpus) == ["class:red"]


@pytest.mark.parametrize("name", ["", "x.train.inter", "x.validation.inter.gz"])
def test_a_part_of_an_unknown_name_is_refused(tmp_path: Path, name: str) -> None:
    files = {"x.train.inter": TRAIN, "x.validation.inter.gz": VALID, "x.test.inter": TEST}
    raw = write(tmp_path / "in", files)
    message = r"x\.validation\.inter\.gz: there is x\.t.*validation is not one of the parts train"
    with pytest.raises(InputError, match=message):
        prepared(raw / name, "atomic")


def test_a_part_and_its_compressed_self_are_refused(tmp_path: Path) -> None:
    raw = write(tmp_path / "in", {"x.train.inter": TRAIN, "x.train.inter.gz": TRAIN})
    for name in ("", "x.train.inter"):
        with pytest.raises(InputError, match=r"x\.train\.inter and x\.train\.inter\.gz would be"):
            prepared(raw / name, "atomic")


@pytest.mark.parametrize(
    ("source", "name", "beside"),
    [
        ("atomic", "x.inter.gz", "x.item"),
        ("atomic", "x.inter", "x.item.gz"),
        ("atomic", "x.INTER", "x.item"),
        ("s3rec", "x.txt.gz", "x_item2attributes.json"),
        ("s3rec", "x.txt", "x_item2attributes.json.gz"),
    ],
)
def test_attributes_are_found_beside_a_compressed_file(
    tmp_path: Path, source: str, name: str, beside: str
) -> None:
    texts = (TRAIN, ITEMS) if source == "atomic" else ("1 2 3\n", '{"2": [7]}')
    raw = write(tmp_path / "in", {name: texts[0], beside: texts[1]})
    corpus = prepared(raw / name, source)
    assert attributes(corpus) == (["class:red"] if source == "atomic" else ["7"])
    assert corpus.name == "x"


def test_the_name_of_compressed_pairs_is_without_endings(tmp_path: Path) -> None:
    raw = write(tmp_path / "in", {"x.txt.gz": "1 2\n1 3\n"})
    assert prepared(raw / "x.txt.gz", "pairs").name == "x"

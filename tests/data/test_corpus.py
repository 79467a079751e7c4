"""The corpus folder: what is written is what is read, and a foreign or damaged one is refused."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from research.data.corpus import Corpus, write_corpus
from research.data.names import Names
from research.errors import InputError
from tests import ROOT
from tests.support.synthetic import write_histories

INT32 = ("items", "attribute_ids")
INT64 = ("offsets", "timestamps", "attribute_offsets")
NAMES = ("user_names", "item_names", "attribute_names", "item_titles")
TINY: dict[str, object] = {
    "items": (0, 1, 2, 1),
    "offsets": (0, 3, 4),
    "timestamps": (10, 20, 20, 5),
    "attribute_offsets": (0, 2, 2, 3),
    "attribute_ids": (0, 1, 1),
    "user_names": ("anna", "björn"),
    "item_names": ("x", "yy", "ß"),
    "attribute_names": ("genre:War", "genre:Drama"),
    "item_titles": ("A", "", "A"),
    "options": {"user_core": 0},
}


def write(folder: Path, **changes: object) -> Corpus:
    parts = {**TINY, **changes}
    for names, kind in ((INT32, np.int32), (INT64, np.int64)):
        for name in names:
            parts[name] = None if parts[name] is None else np.array(parts[name], dtype=kind)
    for name in NAMES:
        parts[name] = None if parts[name] is None else Names.from_strings(parts[name])
    return write_corpus(folder, name="tiny", report={"interactions_read": 4}, **parts)


def edit_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_what_is_written_is_what_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "corpus")
    corpus = Corpus.open(str(tmp_path / "corpus"))
    for name in (*INT32, *INT64, *NAMES):
        assert tuple(getattr(corpus, name)) == TINY[name]
    assert (corpus.num_users, corpus.num_items) == (2, 3)
    assert (corpus.num_attributes, corpus.num_interactions, corpus.name) == (2, 4, "tiny")
    corpus.verify()


def test_a_corpus_without_times_titles_and_attributes_round_trips(tmp_path: Path) -> None:
    none = {"attribute_offsets": (0, 0, 0, 0), "attribute_ids": (), "attribute_names": ()}
    write(tmp_path / "corpus", timestamps=None, item_titles=None, **none)
    corpus = Corpus.open(tmp_path / "corpus")
    assert (corpus.timestamps, corpus.item_titles, corpus.num_attributes) == (None, None, 0)
    corpus.verify()


def test_the_arrays_are_mapped_and_a_pickled_corpus_maps_them_again(tmp_path: Path) -> None:
    blob = pickle.dumps(write(tmp_path / "corpus"))
    corpus = pickle.loads(blob)
    assert isinstance(corpus.items, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        corpus.items[0] = 1


CHANGES: list[dict[str, object]] = [
    {"items": (0, 1, 2, 2)},
    {"offsets": (0, 2, 4), "timestamps": (10, 20, 20, 25)},
    {"timestamps": (10, 20, 21, 5)},
    {"timestamps": None},
    {"attribute_offsets": (0, 1, 2, 3)},
    {"attribute_ids": (0, 1, 0)},
    {"user_names": ("anna", "bjorn")},
    {"item_names": ("xy", "y", "ß")},
    {"attribute_names": ("genre:War", "genre:Comedy")},
    {"item_titles": ("A", "B", "A")},
    {"item_titles": None},
    {"options": {"user_core": 1}},
    {"options": {"item_core": 0}},
]


def test_any_change_changes_the_fingerprint(tmp_path: Path) -> None:
    changes = [{}, *CHANGES]
    found = {write(tmp_path / str(n), **change).fingerprint for n, change in enumerate(changes)}
    assert len(found) == len(changes)


def test_writing_the_same_corpus_again_keeps_the_first(tmp_path: Path) -> None:
    before = write(tmp_path / "corpus").folder.stat()
    assert write(tmp_path / "corpus").folder.stat() == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_another_corpus_is_never_overwritten(tmp_path: Path) -> None:
    write(tmp_path / "corpus")
    with pytest.raises(InputError, match=r"corpus: holds another corpus \(tiny, fingerprint"):
        write(tmp_path / "corpus", items=(0, 0, 0, 0))
    assert Corpus.open(tmp_path / "corpus").items.tolist() == [0, 1, 2, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_that_is_no_corpus_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "letter").mkdir(parents=True)
    with pytest.raises(InputError, match="is not a corpus"):
        write(tmp_path / "corpus")
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "letter"]


def test_a_crash_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def full_disk(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "corpus")
    return tmp_path / "corpus"


def refuse(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Corpus.open(folder).verify()


@pytest.mark.parametrize("name", ["items", "timestamps", "item_names_blob", "attribute_ids"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / f"{name}.npy").unlink()
    refuse(folder, rf"{name}\.npy: missing")
    refuse(folder / "nowhere", "nowhere is not a corpus: there is no")


def test_a_file_that_is_too_short_or_too_long_is_named(folder: Path) -> None:
    whole = (folder / "items.npy").read_bytes()
    (folder / "items.npy").write_bytes(whole[:-4])
    refuse(folder, r"items\.npy: not a complete \.npy file")
    (folder / "items.npy").write_bytes(whole + b"more")
    refuse(folder, r"items\.npy: 148 bytes, more than its header says")


def test_an_array_of_another_type_or_shape_is_refused(folder: Path) -> None:
    np.save(folder / "items.npy", np.zeros(4, dtype=np.int64))
    refuse(folder, r"items\.npy: 1-dimensional <i8; expected one dimension, <i4")
    np.save(folder / "items.npy", np.zeros((2, 2), dtype=np.int32))
    refuse(folder, r"items\.npy: 2-dimensional <i4; expected one dimension, <i4")
    np.save(folder / "items.npy", np.zeros(3, dtype=np.int32))
    refuse(folder, r"offsets\.npy: must run from 0 to 3")


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def test_a_pickle_in_the_place_of_an_array_is_not_loaded(folder: Path, tmp_path: Path) -> None:
    np.save(folder / "items.npy", np.array([Bomb(tmp_path / "trace")]), allow_pickle=True)
    refuse(folder, r"items\.npy: not a complete \.npy file")
    (folder / "items.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "trace")))
    refuse(folder, r"items\.npy: not a complete \.npy file")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 100_000, "not valid JSON"), ("[1]", "holds list"), ("{}", "format is missing")],
)
def test_a_manifest_that_is_no_object_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_text(text)
    refuse(folder, message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format version 2; this program reads 1"),
        ("name", 7, "json: name is 7; allowed: str; prepare the corpus"),
        ("fingerprint", None, "fingerprint is None; allowed: str"),
        ("has_timestamps", "yes", "has_timestamps is 'yes'; allowed: bool"),
        ("counts", {"users": "3"}, "counts.users is '3'; allowed: int"),
        ("counts", {"users": 3}, r"offsets\.npy: 2 users, but manifest\.json says 3"),
        ("options", [], r"options is \[\]; allowed: an object; prepare"),
        ("options", {"user_core": 5}, "the corpus was changed"),
    ],
)
def test_a_foreign_manifest_is_refused(folder: Path, key: str, value: object, message: str) -> None:
    edit_manifest(folder, **{key: value})
    refuse(folder, message)


def overwrite(folder: Path, name: str, values: list[int]) -> None:
    path = folder / f"{name}.npy"
    np.save(path, np.array(values, dtype=np.load(path).dtype))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("items", [0, 1, 3, 1], r"items\.npy: ids from 0 to 3; allowed 0 to 2"),
        ("items", [0, -1, 2, 1], r"items\.npy: ids from -1 to 2; allowed 0 to 2"),
        ("items", [0, 1, 1, 1], "the corpus was changed"),
        ("offsets", [0, 5, 4], r"offsets\.npy: entry 2 is smaller than the one before it"),
        ("timestamps", [10, 20, 19, 5], r"timestamps\.npy: entry 2 is out of order in its row"),
        ("attribute_ids", [1, 1, 1], r"attribute_ids\.npy: entry 1 is out of order in its row"),
        ("attribute_ids", [0, 2, 1], r"attribute_ids\.npy: ids from 0 to 2; allowed 0 to 1"),
        ("item_names_offsets", [0, 3, 1, 5], r"item_names_offsets\.npy: entry 2 is smaller"),
        ("item_names_offsets", [0, 1, 4, 5], r"item_names_blob\.npy: a name is not UTF-8"),
        ("item_names_blob", list(b"xyzab"), "the corpus was changed"),
        ("user_names_blob", list(b"annabjornn"), "the corpus was changed"),
        ("item_names_blob", list(b"xyyyy"), r"item_names_blob\.npy: a name occurs twice"),
    ],
)
def test_verify_finds_what_opening_does_not_look_at(
    folder: Path, name: str, values: list[int], message: str
) -> None:
    overwrite(folder, name, values)
    Corpus.open(folder)
    refuse(folder, message)


def test_equal_events_have_an_equal_digest_also_in_a_corpus_of_an_earlier_version(
    tmp_path: Path,
) -> None:
    corpus = write(tmp_path / "corpus")
    other = write(tmp_path / "other", item_titles=None, timestamps=None)
    assert corpus.fingerprint != other.fingerprint
    assert corpus.manifest.events == corpus.events_digest == other.events_digest
    swapped = write(tmp_path / "swapped", items=(1, 0, 2, 1), timestamps=None)
    renamed = write(tmp_path / "renamed", user_names=("ann", "abjörn"))
    longer = write(tmp_path / "longer", offsets=(0, 2, 4), timestamps=None)
    digests = {one.events_digest for one in (corpus, swapped, renamed, longer)}
    assert len(digests) == 4
    edit_manifest(tmp_path / "other", events=None)
    earlier = Corpus.open(tmp_path / "other")
    earlier.verify()
    assert earlier.manifest.events is None
    assert earlier.events_digest == corpus.events_digest


def test_a_corpus_moves_with_its_folder_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    shutil.move(write(tmp_path / "corpus").folder, tmp_path / "moved")
    Corpus.open(tmp_path / "moved").verify()


def test_a_hundred_million_interactions_open_in_fifty_milliseconds(tmp_path: Path) -> None:
    count = 100_000_000
    write(tmp_path / "corpus", items=(0,), offsets=(0, 1), user_names=("a",), timestamps=None)
    # A sparse file: only its header lies on the disk.
    path = tmp_path / "corpus" / "items.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=(count,))
    overwrite(tmp_path / "corpus", "offsets", [0, count])
    counts = {"users": 1, "items": 3, "attributes": 2}
    edit_manifest(tmp_path / "corpus", counts={**counts, "interactions": count})
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        Corpus.open(tmp_path / "corpus")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


def test_preparation_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys, research.data.preparation.prepare; print({'torch', 'pandas'} & {*sys.modules})"
    )
    folder = ROOT
    answer = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=folder)
    assert answer == "set()\n"


def test_names_are_found_by_position_and_by_name() -> None:
    names = Names.from_strings(["b", "", "a€", "b"])
    assert [names[0], names[1], names[2], names[-1]] == ["b", "", "a€", "b"]
    assert (names.index("b"), names.index("a€")) == (0, 2)
    assert ("a€" in names, "c" in names) == (True, False)
    with pytest.raises(IndexError, match="index 4 is outside 4 names"):
        names[4]


def test_no_names_are_no_names() -> None:
    assert list(Names.from_strings([])) == []
    with pytest.raises(InputError, match=r"'a' is not among the 0 names\.$"):
        Names.from_strings([]).index("a")


def test_an_unknown_name_brings_near_ones() -> None:
    names = Names.from_strings(["genre:Drama", "genre:War", "decade:1990s"])
    with pytest.raises(InputError, match=r"not among the 3 names\. Similar names: 'genre:War'"):
        names.index("genre:Wars")
    with pytest.raises(InputError, match="names, for example: 'genre:Drama', 'genre:War'"):
        names.index("zz")


def test_a_corpus_is_shown_in_two_lines(tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "tiny", [[0, 1], [1]], num_items=2, num_attributes=1)
    lines = repr(corpus).splitlines()
    assert lines[0] == "Corpus tiny: 2 users, 2 items, 3 interactions, 1 attributes"
    assert lines[1] == (
        f"  with times, no titles, fingerprint {corpus.fingerprint[:12]}, in {corpus.folder}"
    )
    assert len(lines) == 2


def test_the_html_of_a_corpus_escapes_its_name(tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "<b>\x1b[1m", [[0]], num_items=1)
    page = corpus._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b><b>" not in page
    assert "\x1b" not in page + repr(corpus)


def test_warnings_of_preparation_are_shown_with_the_corpus(tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "tiny", [[0]], num_items=1)
    warned = replace(corpus.manifest, report={"warnings": ["ids are floats", "times tie"]})
    assert repr(replace(corpus, manifest=warned)).splitlines()[2] == (
        "  warnings: 2, in manifest.report, first: ids are floats"
    )

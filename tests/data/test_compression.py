"""Compressed raw files: all of them is read, or what is damaged is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from research.data.preparation import delimited, quotes
from research.data.preparation.events import Events
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import source_of
from research.errors import InputError

LINES = b"user,item,timestamp\n" + b"".join(b"u%d,i%d,%d\n" % (n % 7, n, n) for n in range(300))


def zstd(data: bytes) -> bytes:
    target = pa.BufferOutputStream()
    with pa.CompressedOutputStream(target, "zstd") as stream:
        stream.write(data)
    return target.getvalue().to_pybytes()


def zipped(**members: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def events_of(path: Path, data: bytes) -> Events:
    path.write_bytes(data)
    return source_of(PrepareConfig(source="csv", raw=str(path)), path.parent).read()


COMPRESSED = {
    ".gz": gzip.compress(LINES),
    ".bz2": bz2.compress(LINES),
    ".zip": zipped(**{"events.csv": LINES}),
}


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst", ".zip"])
def test_all_of_a_compressed_file_is_read(tmp_path: Path, suffix: str) -> None:
    data = COMPRESSED.get(suffix) or zstd(LINES)
    events = events_of(tmp_path / f"c.csv{suffix}", data)
    assert events.timestamps is not None
    assert events.timestamps.tolist() == list(range(300))
    assert len(events.item_names) == 300


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_all_parts_of_a_compressed_file_are_read(tmp_path: Path, suffix: str) -> None:
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}[suffix]
    # A row is cut at the border of the parts.
    data = compress(LINES[:1001]) + compress(LINES[1001:1002]) + compress(LINES[1002:])
    events = events_of(tmp_path / f"c.csv{suffix}", data)
    assert events.timestamps is not None
    assert events.timestamps.tolist() == list(range(300))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst", ".zip"])
def test_a_truncated_archive_is_refused(tmp_path: Path, suffix: str) -> None:
    data = COMPRESSED.get(suffix) or zstd(LINES)
    path = tmp_path / f"c.csv{suffix}"
    for length in (
        *range(1, 30),
        *range(30, len(data) - 12, 37),
        *range(len(data) - 12, len(data)),
    ):
        with pytest.raises(InputError, match=r"c\.csv\.(gz|bz2|zst|zip): "):
            events_of(path, data[:length])


# Zstandard keeps no checksum unless it is told to.
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zip"])
def test_an_archive_with_other_bytes_is_refused_or_the_same(tmp_path: Path, suffix: str) -> None:
    data = COMPRESSED[suffix]
    path = tmp_path / f"c.csv{suffix}"
    for place in range(0, len(data), 17):
        altered = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            events = events_of(path, altered)
        except InputError:
            continue
        # A flag, a name or a time of day in a header is no content.
        assert events.timestamps is not None
        assert events.timestamps.tolist() == list(range(300))


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c\.zip: holds 2 files \(a\.csv, b/c\.csv\)"):
        events_of(tmp_path / "c.zip", zipped(**{"a.csv": LINES, "b/c.csv": LINES}))
    with pytest.raises(InputError, match=r"c\.zip: holds 0 files"):
        events_of(tmp_path / "c.zip", zipped(**{"folder/": b""}))
    # What a Mac adds is no file of the user.
    members = {"a/events.csv": LINES, "__MACOSX/a/._events.csv": b"\0", "a/.DS_Store": b"\0"}
    assert len(events_of(tmp_path / "c.zip", zipped(**members)).users) == 300


def test_a_compressed_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotes, "LONGEST_LINE", 1 << 12)
    monkeypatch.setattr(delimited, "LONGEST_LINE", 1 << 12)
    for data, line in ((b"a" * 10_000, 1), (LINES + b"b" * 10_000, 302)):
        with pytest.raises(InputError, match=rf"c\.csv\.gz, line {line}: more than .* bytes"):
            events_of(tmp_path / "c.csv.gz", gzip.compress(data))


def test_a_row_longer_than_a_block_is_read(tmp_path: Path) -> None:
    long = b"x" * 3_000_000
    events = events_of(tmp_path / "c.csv.gz", gzip.compress(LINES + b"u1," + long + b",300\n"))
    assert len(events.users) == 301
    assert events.item_names[-1] == long.decode()

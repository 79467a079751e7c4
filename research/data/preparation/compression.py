"""Opens raw files, compressed or not, as streams of bytes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, final

from research.data.preparation.download import zip_errors_as_input_errors
from research.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def plain_suffix(path: Path) -> str:
    """The ending of the file's name without that of its compression: `.csv` for `x.CSV.gz`."""
    return without_compression(path).suffix.lower()


def plain_stem(path: Path) -> str:
    """The file's name without its ending and that of its compression: `x` for `x.csv.gz`."""
    return without_compression(path).stem


def with_compressions(path: Path) -> list[Path]:
    """Those of the path and of its compressed forms that are files: `x.csv`, `x.csv.gz`, ..."""
    names = [f"{path.name}{ending}" for ending in ("", *COMPRESSIONS, ".zip")]
    return [path.with_name(name) for name in names if path.with_name(name).is_file()]


def without_compression(path: Path) -> Path:
    """The path that the file would have if it were unpacked: `x.csv` for `x.csv.gz`."""
    return path.with_suffix("") if path.suffix.lower() in (*COMPRESSIONS, ".zip") else path


def corpus_name(raw: Path, suffixes: Collection[str]) -> str:
    """The name of the file or folder without the endings of its compression and of its format.

    `x.2024.csv.gz` is `x.2024` where `.csv` is one of `suffixes`.
    """
    # Unlike `resolve`, this leaves the name of a link as it is.
    unpacked = without_compression(Path(os.path.abspath(raw)))
    return unpacked.stem if unpacked.suffix.lower() in suffixes else unpacked.name


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file as bytes, unpacked if its name ends in .gz, .zst, .bz2 or .zip.

    An archive must hold one file. Raises `InputError`, which names the file, where it cannot be
    unpacked, also while it is read.
    """
    import pyarrow as pa

    if path.suffix.lower() == ".zip":
        with zip_errors_as_input_errors(path):
            archive = zipfile.ZipFile(path)
        with archive:
            with zip_errors_as_input_errors(path):
                member = archive.open(_only_member(path, archive))
            with member:
                yield io.BufferedReader(_Unpacked(member.read, path))
        return
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        with path.open("rb") as file:
            yield file
        return
    with pa.input_stream(str(path), compression=compression) as stream:
        yield io.BufferedReader(_Unpacked(stream.read, path))


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [
        name
        for name in archive.namelist()
        if name[-1:] != "/"
        and not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
    ]
    if len(names) != 1:
        raise InputError(
            f"{path}: holds {len(names)} files ({', '.join(names[:3])}); an archive of one file is "
            "read. Unpack it, and name the file or the folder."
        )
    return names[0]


@final
class _Unpacked(io.RawIOBase):
    """A stream whose errors of unpacking are `InputError`s."""

    def __init__(self, read: Callable[[int], bytes], path: Path) -> None:
        super().__init__()
        self._read = read
        self._path = path

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer as far as there are bytes, and return their number; 0 at the end."""
        import pyarrow as pa

        view = memoryview(buffer)
        try:
            if self._path.suffix.lower() == ".zip":
                with zip_errors_as_input_errors(self._path):
                    block = self._read(len(view))
            else:
                block = self._read(len(view))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{self._path}: cannot be unpacked ({error}).") from error
        view[: len(block)] = block
        return len(block)

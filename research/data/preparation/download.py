"""Downloads raw files: MovieLens from its official address, ml-100k from a wheel on PyPI.

Checksums are compared before an archive is opened, and all members are checked before the few that
are needed are extracted, by name, into a folder that appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import http.client
import stat
import struct
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from research.errors import InputError
from research.storage.atomic import whole_folder

_SITE = "https://files.grouplens.org/datasets/movielens/"
_WHEEL = "recbole==1.2.1"
_WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_MAX_MEMBERS = 2_000
_MAX_BYTES = 8 << 30
_MAX_COMPRESSION = 200
# Other compression methods may need gigabytes of memory to unpack a few bytes.
_COMPRESSION_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK = 1 << 20
_SECONDS_OF_SILENCE = 60
_SECONDS_OF_PIP = 300


@final
@dataclass(frozen=True, kw_only=True)
class Archive:
    """The archive of a data set on the web, and the files that are needed from it."""

    url: str
    """Official address of the archive."""
    md5: str | None
    """MD5 (hex) that the archive must have; None: none is pinned."""
    members: tuple[str, ...]
    """Names of the files to extract; the first must be there, the others may be absent."""


_CSV = ("ratings.csv", "movies.csv")
_DAT = ("ratings.dat", "movies.dat")
_100K = ("u.data", "u.item", "u.genre")
_TABLE: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
    ("ml-100k", "0e33842e24a9c977be4e0107933c0723", _100K),
    ("ml-1m", "c4d9eecfca2ab87c1945afe126590906", _DAT),
    ("ml-10m", "ce571fd55effeba0271552578f2648bd", _DAT),
    ("ml-20m", "cd245b17a1ae2cc31bb14903e1204af3", _CSV),
    ("ml-25m", "6b51fb2759a8657d3bfcbfc42b592ada", _CSV),
    ("ml-32m", "d472be332d4daa821edc399621853b57", _CSV),
    ("ml-latest", None, _CSV),
    ("ml-latest-small", None, _CSV),
)
ARCHIVES: Mapping[str, Archive] = {
    name: Archive(url=f"{_SITE}{name}.zip", md5=md5, members=members)
    for name, md5, members in _TABLE
}


def fetch(
    name: str,
    data_root: Path,
    *,
    archives: Mapping[str, Archive] = ARCHIVES,
    pip_download: Callable[[Path], None] | None = None,
    wheel_sha256: str = _WHEEL_SHA256,
) -> Path:
    """The folder with the raw files of `name`, downloaded unless it is already there.

    `pip_download` puts the wheel with ml-100k into a folder; None: pip downloads it. Raises
    `InputError` if the download fails or a checksum differs.
    """
    folder = data_root / "raw" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as scratch:
        if name == "ml-100k" and _from_wheel(
            folder, Path(scratch), pip_download or _pip_download, wheel_sha256
        ):
            return folder
        archive = archives[name]
        path = Path(scratch) / f"{name}.zip"
        _say(f"{name}: fetching {archive.url}")
        _download(archive.url, path)
        check_pinned(name, path, archive.md5)
        with whole_folder(folder) as partial:
            extract(path, partial, names=archive.members, required=archive.members[:1])
    return folder


def check_pinned(name: str, path: Path, md5: str | None) -> None:
    """Raise `InputError` unless the file has the MD5 `md5`; None: print the one that it has."""
    actual = checksum(path, "md5")
    if md5 is None:
        _say(f"{name}: no checksum is pinned for this archive; its md5 is {actual}")
    elif actual != md5:
        raise InputError(
            f"{path.name}: the md5 is {actual}, but {md5} is pinned for {name}; the archive is "
            "damaged or has changed. Try again, or name a folder of raw files with --raw."
        )


def checksum(path: Path, algorithm: str) -> str:
    """The checksum (hex) of a file by an algorithm of `hashlib`."""
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def extract(
    path: Path, folder: Path, *, names: Iterable[str], required: Iterable[str] = ()
) -> None:
    """Extract the members of a zip archive whose file names are `names` directly into `folder`.

    Raises `InputError` if the archive is missing, corrupt or a zip bomb, if a member points outside
    of it or is a link, or if a `required` member is absent.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.")
    with path.open("rb") as file:
        with zip_errors_as_input_errors(path):
            archive = zipfile.ZipFile(file)
        members = _check_members(path, archive.infolist(), set(names))
        for name in required:
            if name not in members:
                raise InputError(f"{path}: the archive holds no {name}.")
        for name, member in members.items():
            with zip_errors_as_input_errors(path):
                source = archive.open(member)
            with source, (folder / name).open("wb") as target:
                while True:
                    with zip_errors_as_input_errors(path):
                        block = source.read(_BLOCK)
                    if not block:
                        break
                    target.write(block)


@contextmanager
def zip_errors_as_input_errors(path: Path) -> Iterator[None]:
    """Turn every error that `zipfile` raises for damaged bytes into an `InputError`."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError),
        *(RuntimeError, NotImplementedError, OverflowError, LookupError),
    ) as error:
        raise InputError(f"{path}: not a complete zip archive ({error}).") from error


def _check_members(
    path: Path, members: list[zipfile.ZipInfo], names: set[str]
) -> dict[str, zipfile.ZipInfo]:
    if len(members) > _MAX_MEMBERS:
        raise InputError(f"{path}: {len(members)} members; at most {_MAX_MEMBERS} are allowed.")
    size = sum(member.file_size for member in members)
    if size > _MAX_BYTES:
        raise InputError(f"{path}: {size:,} bytes unpacked; at most {_MAX_BYTES:,} are allowed.")
    selected: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in str(name) or ":" in str(name):
            raise InputError(f"{path}: member {member.filename!r} points outside of the archive.")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{path}: member {member.filename!r} is a link or a device.")
        if member.compress_type not in _COMPRESSION_METHODS:
            raise InputError(
                f"{path}: member {member.filename!r} is packed by method {member.compress_type}; "
                "only stored and deflated members are read."
            )
        if member.file_size > _MAX_COMPRESSION * max(member.compress_size, 1):
            raise InputError(
                f"{path}: member {member.filename!r} unpacks to {member.file_size:,} bytes, more "
                f"than {_MAX_COMPRESSION} times its packed size."
            )
        if name.name in names and not member.is_dir():
            if name.name in selected:
                raise InputError(f"{path}: two members are called {name.name}.")
            selected[name.name] = member
    return selected


def _from_wheel(
    folder: Path, scratch: Path, pip_download: Callable[[Path], None], sha256: str
) -> bool:
    """Whether ml-100k was extracted into `folder` from the wheel that pip downloaded.

    False where pip fails, as the official address can be tried then. Raises `InputError` if the
    wheel has another SHA-256.
    """
    _say(f"ml-100k: fetching {_WHEEL} with pip")
    try:
        pip_download(scratch)
    except (OSError, subprocess.SubprocessError) as error:
        _say(f"ml-100k: pip could not fetch {_WHEEL} ({error}); trying the official address")
        return False
    wheels = sorted(scratch.glob("*.whl"))
    if len(wheels) != 1:
        _say(f"ml-100k: pip left {len(wheels)} wheels; trying the official address")
        return False
    actual = checksum(wheels[0], "sha256")
    if actual != sha256:
        raise InputError(
            f"{wheels[0].name}: the sha256 is {actual}, but {sha256} is pinned. Name a folder of "
            "raw files with --raw."
        )
    members = ("ml-100k.inter", "ml-100k.item")
    with whole_folder(folder) as partial:
        extract(wheels[0], partial, names=members, required=members)
    return True


def _pip_download(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary=:none:", "--dest", str(folder), _WHEEL]
    process = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=_SECONDS_OF_PIP
    )
    if process.returncode:
        raise OSError((process.stderr.strip().splitlines() or ["pip printed nothing"])[-1])


def _download(url: str, path: Path) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=_SECONDS_OF_SILENCE) as response,
            path.open("wb") as file,
        ):
            total = 0
            while block := response.read(_BLOCK):
                total += len(block)
                if total > _MAX_BYTES:
                    raise InputError(f"{url}: more than {_MAX_BYTES:,} bytes.")
                file.write(block)
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"{url}: could not be downloaded ({error}). Download it another way and give its path "
            "with --raw."
        ) from error


def _say(text: str) -> None:
    print(text, file=sys.stderr)

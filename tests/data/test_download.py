"""Fetching: what is pinned is checked, archives are distrusted, and failures leave nothing."""

import functools
import http.server
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from research.data.preparation import download
from research.data.preparation.download import ARCHIVES, Archive, checksum, extract, fetch
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.errors import InputError

INTER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t3\t4\n"
ITEM = (
    b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n2\tA\t1999\tWar\n"
)
WHEEL = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": INTER,
    "recbole/dataset_example/ml-100k/ml-100k.item": ITEM,
    "recbole/__init__.py": b"raise SystemExit",
}
OFFICIAL = {"ml-100k/u.data": b"1\t2\t3\t4\n", "ml-100k/README": b"read me"}


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def archive_at(path: Path, md5: str | None) -> dict[str, Archive]:
    members = ("u.data", "u.item", "u.genre")
    return {"ml-100k": Archive(url=path.as_uri(), md5=md5, members=members)}


def pip_brings(wheel: Path) -> Callable[[Path], None]:
    return lambda folder: (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(
        wheel.read_bytes()
    )


def pip_fails(folder: Path) -> None:
    raise subprocess.CalledProcessError(1, "pip")


def raw_names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data" / "raw").rglob("*"))


def test_the_md5_sums_of_the_official_archives_are_pinned() -> None:
    assert {name: archive.md5 for name, archive in ARCHIVES.items()} == {
        "ml-100k": "0e33842e24a9c977be4e0107933c0723",
        "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
        "ml-10m": "ce571fd55effeba0271552578f2648bd",
        "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
        "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
        "ml-32m": "d472be332d4daa821edc399621853b57",
        "ml-latest": None,
        "ml-latest-small": None,
    }
    url = "https://files.grouplens.org/datasets/movielens/ml-25m.zip"
    assert ARCHIVES["ml-25m"].url == url


def test_ml_100k_comes_out_of_the_wheel_that_pip_brings(tmp_path: Path) -> None:
    wheel = pack(tmp_path / "wheel.zip", WHEEL)
    folder = fetch(
        "ml-100k",
        tmp_path / "data",
        pip_download=pip_brings(wheel),
        wheel_sha256=checksum(wheel, "sha256"),
    )
    assert folder == tmp_path / "data" / "raw" / "ml-100k"
    assert raw_names(tmp_path) == ["ml-100k", "ml-100k.inter", "ml-100k.item"]
    assert (folder / "ml-100k.inter").read_bytes() == INTER
    corpus = prepare(PrepareConfig(source="ml-100k"), data_root=tmp_path / "data")
    assert list(corpus.attribute_names) == ["decade:1990s", "genre:War"]


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "data" / "raw" / "ml-100k").mkdir(parents=True)
    fetch("ml-100k", tmp_path / "data", pip_download=pip_fails, archives={})


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    wheel = pack(tmp_path / "wheel.zip", WHEEL)
    with pytest.raises(InputError, match=r"recbole-1\.2\.1.*the sha256 is .*, but 9c994820.* is p"):
        fetch("ml-100k", tmp_path / "data", pip_download=pip_brings(wheel))
    assert raw_names(tmp_path) == []


@pytest.mark.parametrize("pip", [pip_fails, lambda folder: None])
def test_without_pip_the_official_address_is_tried(
    tmp_path: Path, pip: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack(tmp_path / "official.zip", OFFICIAL)
    archives = archive_at(path, checksum(path, "md5"))
    fetch("ml-100k", tmp_path / "data", pip_download=pip, archives=archives)
    assert raw_names(tmp_path) == ["ml-100k", "u.data"]
    assert "trying the official address" in capsys.readouterr().err


def test_an_archive_with_another_md5_is_refused(tmp_path: Path) -> None:
    archives = archive_at(pack(tmp_path / "official.zip", OFFICIAL), "0" * 32)
    with pytest.raises(InputError, match=r"ml-100k\.zip: the md5 is .*, but 0{32} is pinned"):
        fetch("ml-100k", tmp_path / "data", pip_download=pip_fails, archives=archives)
    assert raw_names(tmp_path) == []


def test_an_unpinned_archive_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archives = archive_at(pack(tmp_path / "official.zip", OFFICIAL), None)
    fetch("ml-100k", tmp_path / "data", pip_download=pip_fails, archives=archives)
    assert "ml-100k: no checksum is pinned for this archive" in capsys.readouterr().err


def test_an_address_without_an_answer_is_named(tmp_path: Path) -> None:
    archives = archive_at(tmp_path / "gone.zip", None)
    with pytest.raises(
        InputError, match=r"file:.*gone\.zip: could not be downloaded .*give its path with"
    ):
        fetch("ml-100k", tmp_path / "data", pip_download=pip_fails, archives=archives)
    assert raw_names(tmp_path) == []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_an_archive_is_fetched_over_http(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = pack(
        tmp_path / "ml.zip", {"ml-1m/ratings.dat": b"1::2::3::4\n", "ml-1m/movies.dat": b""}
    )
    members = ("ratings.dat", "movies.dat")
    md5 = checksum(path, "md5")
    archives = {"ml-1m": Archive(url=f"{server}/ml.zip", md5=md5, members=members)}
    fetch("ml-1m", tmp_path / "data", archives=archives)
    assert raw_names(tmp_path) == ["ml-1m", "movies.dat", "ratings.dat"]
    gone = {"ml-10m": Archive(url=f"{server}/gone.zip", md5=None, members=members)}
    with pytest.raises(InputError, match=r"gone\.zip: could not be downloaded \(HTTP Error 404"):
        fetch("ml-10m", tmp_path / "data", archives=gone)


def refuse(tmp_path: Path, path: Path, message: str) -> None:
    archives = archive_at(path, None)
    with pytest.raises(InputError, match=message):
        fetch("ml-100k", tmp_path / "data", pip_download=pip_fails, archives=archives)
    assert raw_names(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:/evil", "../u.data"]
)
def test_a_member_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "a.zip", {"ml-100k/u.data": b"1", name: b"1"})
    refuse(tmp_path, path, "member '.*' points outside of the archive")


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("ml-100k/u.data")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refuse(tmp_path, tmp_path / "a.zip", r"member 'ml-100k/u\.data' is a link or a device")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"ml-100k/u.data": b"0" * 10_000_000})
    refuse(tmp_path, path, r"u\.data' unpacks to 10,000,000 bytes, more than 200 times its packed")


def test_too_many_members_and_too_many_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.zip", {f"{number}": b"" for number in range(2001)})
    refuse(tmp_path, path, "2001 members; at most 2000 are allowed")
    monkeypatch.setattr(download, "_MAX_BYTES", 1000)
    path = pack(tmp_path / "b.zip", {"u.data": b"0" * 1001})
    refuse(tmp_path, path, "1,001 bytes unpacked; at most 1,000 are allowed")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_another_packing_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("ml-100k/u.data", b"1")
    refuse(
        tmp_path,
        tmp_path / "a.zip",
        rf"u\.data' is packed by method {method}; only stored and deflated",
    )


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a/u.data": b"1", "b/u.data": b"2"})
    refuse(tmp_path, path, r"two members are called u\.data")


def test_an_archive_without_the_needed_file_is_refused(tmp_path: Path) -> None:
    refuse(tmp_path, pack(tmp_path / "a.zip", {"a/b": b"1"}), r"the archive holds no u\.data")


def test_a_corrupt_archive_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"u.data": bytes(range(256)) * 8})
    content = path.read_bytes()
    path.write_bytes(content[:200])
    refuse(tmp_path, path, r"ml-100k\.zip: not a complete zip archive \(File is not a zip file\)")
    path.write_bytes(content[:60] + b"\0" * 20 + content[80:])
    refuse(tmp_path, path, r"ml-100k\.zip: not a complete zip archive")
    with pytest.raises(InputError, match="not a complete zip archive"):
        prepare(PrepareConfig(source="movielens", raw=str(path)), data_root=tmp_path / "data")


def test_only_the_wanted_members_are_taken_out_flat(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", WHEEL)
    (tmp_path / "out").mkdir()
    extract(path, tmp_path / "out", names=("ml-100k.inter",))
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["ml-100k.inter"]

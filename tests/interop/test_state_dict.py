"""A stranger's file of tensors: nothing in it is run, and what is no state dict is named."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from research.data.corpus import Corpus
from tests.support.s3rec_files import Capture, import_error, numbered_corpus, published_state


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "corpus")


class Command:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("run by pickle",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_holds_more_than_tensors_is_refused_and_not_run(
    capsys: Capture, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "f.pt"
    torch.save({"a": Command()}, file, _use_new_zipfile_serialization=zipped)
    assert import_error(capsys, file, corpus) == (
        f"{file} holds more than tensors (it asks for posix.mkdir), which could run code and is "
        "not read; write a plain state dict: torch.save(model.state_dict(), FILE)"
    )
    torch.save(torch.nn.Linear(2, 2), file, _use_new_zipfile_serialization=zipped)
    said = import_error(capsys, file, corpus)
    assert "holds more than tensors (it asks for torch.nn.modules.linear.Linear)" in said


class Greedy:
    """A pickle of a few bytes that asks for a terabyte."""

    def __reduce__(self) -> tuple[object, ...]:
        return (bytearray, (1 << 40,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_few_bytes_cannot_ask_for_a_terabyte(
    capsys: Capture, corpus: Corpus, tmp_path: Path, zipped: bool
) -> None:
    file = tmp_path / "f.pt"
    torch.save({"a": Greedy()}, file, _use_new_zipfile_serialization=zipped)
    assert "(it asks for builtins.bytearray)" in import_error(capsys, file, corpus).replace(
        "__builtin__", "builtins"
    )


def test_a_compressed_member_is_refused(capsys: Capture, corpus: Corpus, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "f.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "f.pt").stat().st_size < 10_000
    said = import_error(capsys, tmp_path / "f.pt", corpus)
    assert "is compressed, which torch.save never does" in said


def saved(value: object, *, zipped: bool = True) -> Callable[[Path], object]:
    return lambda path: torch.save(value, path, _use_new_zipfile_serialization=zipped)


def halved(zipped: bool) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return write


NO_STATE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello there\n"), "is no checkpoint that torch reads"),
    "nothing": (lambda path: path.write_bytes(b""), "is no checkpoint that torch reads"),
    "half a zip file": (halved(True), "is no checkpoint that torch reads as tensors alone"),
    "half an older file": (halved(False), "is no checkpoint that torch reads as tensors alone"),
    "a plain pickle": (
        lambda path: path.write_bytes(pickle.dumps({"a": Command()})), "as tensors alone"
    ),
    "a list": (saved([torch.ones(1)]), "holds list, not a dict of name -> tensor"),
    "a tensor": (saved(torch.ones(1)), "holds Tensor, not a dict of name -> tensor"),
    "an empty dict": (saved({}), "holds an empty dict, not a dict of name -> tensor"),
    "a nested dict": (
        saved({"state_dict": published_state()}),
        "'state_dict' is of type dict; each key of a state dict is a name and its value a tensor",
    ),
    "numbers for names": (saved({1: torch.ones(1)}), "1 is of type Tensor; each key"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "message"), NO_STATE.values(), ids=NO_STATE)
def test_what_is_no_state_dict_is_refused(
    capsys: Capture,
    corpus: Corpus,
    tmp_path: Path,
    write: Callable[[Path], object],
    message: str,
) -> None:
    write(tmp_path / "f.pt")
    said = import_error(capsys, tmp_path / "f.pt", corpus)
    assert said.startswith(f"{tmp_path / 'f.pt'}")
    assert message in said


def test_a_missing_file_and_a_folder_are_refused(
    capsys: Capture, corpus: Corpus, tmp_path: Path
) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        assert import_error(capsys, path, corpus) == f"{path}: there is no such file"

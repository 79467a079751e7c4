"""A full disk, a read-only folder: one line says which file, and the command goes on afterwards."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.harness import differences, outcome, unfinished, words
from tests.support.command_line import files_of, run_command, write_shop
from tests.support.study_folders import write_run, write_study

Capture = pytest.CaptureFixture[str]
PAGE, ENOUGH = 4096, 4096


class Disk:
    """A small file system of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._mount("size=16m", remount=False)
        # A limit of no pages would mean none.
        (folder / "first").write_bytes(b"-")

    def _mount(self, option: str, *, remount: bool = True) -> None:
        asked = ["-o", f"remount,{option}" if remount else option]
        where = [str(self.folder)] if remount else ["-t", "tmpfs", "tmpfs", str(self.folder)]
        subprocess.run(["mount", *asked, *where], check=True, capture_output=True)

    def room(self, kind: str, number: int) -> None:
        """So many more pages (`size`) or files and folders (`nr_inodes`) find room."""
        found = os.statvfs(self.folder)
        if kind == "size":
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            self._mount(f"size={used + number * PAGE}")
        else:
            self._mount(f"nr_inodes={found.f_files - found.f_ffree + number}")

    def read_only(self, wanted: bool) -> None:
        """Whether nothing can be written, root included."""
        self._mount("ro" if wanted else "rw")

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Skips where none can be mounted: not root, or no rights to mount."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    try:
        found = Disk(tmp_path / "disk")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here ({error})")
    yield found
    found.close()


def failure(capsys: Capture, *arguments: object) -> str:
    """The one line with which a command fails, with exit code 1."""
    answer = run_command(capsys, *arguments)
    assert answer.code == 1, answer
    assert answer.err.startswith(f"sixfold {arguments[0]}: "), answer.err
    assert answer.err.count("\n") == 1, answer.err
    return answer.err


def full(capsys: Capture, run: Path, command: list[str]) -> str:
    """The file that a run on a full disk names as the one that it could not write."""
    line = failure(capsys, *command)
    assert "No space left on device" in line
    assert "make room, and run the same command again" in line
    assert unfinished(run) == []
    found = re.search(rf"'{run}/([^']+)'", line)
    assert found, line
    # A file is written under a hidden name first.
    return re.sub(r"^\.(.+)\.[0-9]+$", r"\1", found[1].split("/")[-1])


@pytest.mark.long
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(
    disk: Disk, data: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    run = disk.folder / "run"
    command = words(run, data)
    config = -(-(undisturbed(1).run / "config.json").stat().st_size // PAGE)
    disk.room("size", config - 1)
    assert full(capsys, run, command) == "config.json"
    # One page of lines, of which the first stage has more.
    disk.room("size", config + 1)
    assert full(capsys, run, [*command, "--checkpoint-steps", "1000"]) == "metrics.jsonl"
    disk.room("size", config + 3)
    assert full(capsys, run, command).endswith(".safetensors")
    disk.room("size", ENOUGH)
    assert run_command(capsys, *command).code == 0
    assert differences(outcome(run), undisturbed(1).outcome) == []


def test_results_on_a_full_disk_are_written_when_there_is_room(
    disk: Disk, data: Path, finished: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    run = disk.folder / "run"
    shutil.copytree(finished, run)
    (run / "summary.json").unlink()
    shutil.rmtree(run / "ranks")
    met = []
    for _ in range(5):
        disk.room("nr_inodes", min(len(met), 1))
        met.append(full(capsys, run, words(run, data)))
    assert met == [
        "config.json", "validation-full.npz", "test-full.npz", "test-uniform-10.npz", "summary.json"
    ]  # fmt: skip
    disk.room("nr_inodes", ENOUGH)
    assert run_command(capsys, *words(run, data)).code == 0
    assert differences(outcome(run), undisturbed(1).outcome) == []


def test_a_corpus_does_not_appear_on_a_full_disk(
    disk: Disk, tmp_path: Path, capsys: Capture
) -> None:
    raw = write_shop(tmp_path / "raw")
    command = ["prepare", "atomic", "--raw", raw, "--out", disk.folder / "shop"]
    disk.room("size", 8)
    line = failure(capsys, *command)
    assert "No space left on device" in line
    assert str(disk.folder) in line
    assert [path.name for path in disk.folder.iterdir()] == ["first"]
    disk.room("size", ENOUGH)
    assert run_command(capsys, *command).code == 0


@pytest.mark.long
def test_an_old_report_stands_until_there_is_room_for_a_new_one(
    disk: Disk, tmp_path: Path, capsys: Capture
) -> None:
    study = write_study(tmp_path / "study", ["a"], seeds=[0])
    write_run(study, "a", 0, [1, 2, 3])
    command = ["report", study, "--out", disk.folder / "report"]
    assert run_command(capsys, *command).code == 0
    before = files_of(disk.folder)
    disk.room("size", 1)
    line = run_command(capsys, *command)
    assert line.code == 1
    assert f"{disk.folder}/report/report.html" in line.err.replace("/.report", "/report")
    assert files_of(disk.folder) == before
    disk.room("size", ENOUGH)
    assert run_command(capsys, *command).code == 0


def test_a_run_in_a_read_only_folder_is_shown_or_refused_at_once(
    disk: Disk, data: Path, finished: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    run = disk.folder / "run"
    shutil.copytree(finished, run)
    command = words(run, data)
    disk.read_only(True)
    before = files_of(run)
    assert run_command(capsys, *command).code == 0
    for verb in ("show", "evaluate", "recommend"):
        more = ["--items", "i1"] if verb == "recommend" else []
        where = ["--data-root", data] if verb != "show" else []
        assert run_command(capsys, verb, run, *where, *more).code == 0
    disk.read_only(False)
    (run / "summary.json").unlink()
    before = files_of(run)
    disk.read_only(True)
    line = failure(capsys, *command)
    assert "Read-only file system" in line
    assert str(run) in line
    assert files_of(run) == before
    disk.read_only(False)
    assert run_command(capsys, *command).code == 0
    assert differences(outcome(run), undisturbed(1).outcome) == []


def test_a_read_only_data_root_serves_and_takes_no_new_corpus(
    disk: Disk, data: Path, halfway: Path, undisturbed: Undisturbed, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(data, disk.folder / "data")
    raw = write_shop(tmp_path / "raw")
    disk.read_only(True)
    line = failure(capsys, "prepare", "atomic", "--raw", raw, "--data-root", disk.folder / "data")
    assert "Read-only file system" in line
    assert str(disk.folder / "data" / "corpora") in line
    assert run_command(capsys, *words(halfway, disk.folder / "data")).code == 0
    assert differences(outcome(halfway), undisturbed(1).outcome) == []

"""Files that are damaged between two starts: what is whole serves, what is not is named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.harness import checkpoints, differences, outcome, words
from tests.support.command_line import CommandResult, command_error, run_command

Capture = pytest.CaptureFixture[str]
Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flipped(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def nudged(path: Path) -> None:
    """The last item is its neighbour."""
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def misread(path: Path) -> None:
    """Another number of items in valid JSON."""
    text = re.sub(r'("items": )(\d)', lambda found: f"{found[1]}9{found[2]}", path.read_text())
    assert text != path.read_text()
    path.write_text(text)


def foreign(path: Path) -> None:
    """A bit of the corpus's fingerprint."""
    text = re.sub(r'("fingerprint": ")(.)', lambda found: f"{found[1]}g", path.read_text())
    assert text != path.read_text()
    path.write_text(text)


def continued(capsys: Capture, run: Path, data: Path) -> CommandResult:
    """The run's one command again."""
    answer = run_command(capsys, *words(run, data))
    assert answer.code == 0, answer.err
    return answer


def same(run: Path, undisturbed: Undisturbed) -> None:
    assert differences(outcome(run), undisturbed(1).outcome) == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", truncated),
        ("model.safetensors", Path.unlink),
        ("optimizer.safetensors", flipped),
        ("state.json", emptied),
        ("state.json", misread),
        ("state.json", foreign),
        (".", shutil.rmtree),
    ],
)
def test_a_damaged_checkpoint_is_passed_for_the_one_before(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture, name: str, damage: Damage
) -> None:
    before, newest = checkpoints(halfway, "finetune")
    damage(newest / name)
    answer = continued(capsys, halfway, data)
    if name != ".":
        (line,) = answer.err.splitlines()
        assert str(newest) in line
        assert before.name in line
    same(halfway, undisturbed)


def test_a_damaged_best_checkpoint_is_passed_with_those_that_name_it(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    before, _ = checkpoints(halfway, "finetune")
    best = checkpoints(halfway, "finetune", "best")[-1]
    flipped(best / "model.safetensors")
    (line,) = continued(capsys, halfway, data).err.splitlines()
    assert str(best) in line
    assert before.name in line
    same(halfway, undisturbed)


def test_without_a_whole_checkpoint_the_run_says_which_folder_to_remove(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    for each in checkpoints(halfway, "finetune"):
        flipped(each / "optimizer.safetensors")
    stage = halfway / "stages" / "finetune"
    assert f"remove the folder {stage}, and the run's summary.json if it has one" in command_error(
        capsys, *words(halfway, data)
    )
    shutil.rmtree(stage)
    continued(capsys, halfway, data)
    same(halfway, undisturbed)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("items.npy", truncated, "items.npy: not a complete .npy file"),
        ("items.npy", flipped, "items.npy: ids from 0 to"),
        ("items.npy", nudged, "the arrays and options give the fingerprint"),
        ("attribute_ids.npy", Path.unlink, "attribute_ids.npy: missing"),
        ("manifest.json", truncated, "manifest.json is not valid JSON"),
    ],
)
def test_a_damaged_corpus_is_refused_by_name(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture, tmp_path: Path,
    name: str, damage: Damage, said: str,
) -> None:  # fmt: skip
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    folder = copy / "corpora" / "markov"
    damage(folder / name)
    line = command_error(capsys, *words(halfway, copy))
    assert str(folder) in line
    assert said in line
    # Nothing was touched: with the corpus as it was the run goes on.
    continued(capsys, halfway, data)
    same(halfway, undisturbed)


def test_a_line_of_figures_that_was_cut_off_comes_again(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    with (halfway / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "finetune", "step": 4')
    continued(capsys, halfway, data)
    same(halfway, undisturbed)


def test_a_damaged_line_of_figures_is_named(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture
) -> None:
    path = halfway / "metrics.jsonl"
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    for damaged in (lines[2][:20], lines[2].replace(b'"', b"\xff", 1), b"[1]", b'{"stage": "a"}'):
        path.write_bytes(b"\n".join([*lines[:2], damaged, *lines[3:]]))
        line = command_error(capsys, *words(halfway, data))
        assert f"{path}: line 3 " in line
    path.write_bytes(whole)
    continued(capsys, halfway, data)
    same(halfway, undisturbed)


@pytest.mark.parametrize("damage", [truncated, emptied])
def test_a_damaged_config_is_named_and_written_anew_without_it(
    halfway: Path, data: Path, undisturbed: Undisturbed, capsys: Capture, damage: Damage
) -> None:
    path = halfway / "config.json"
    damage(path)
    assert f"{path} is not valid JSON" in command_error(capsys, *words(halfway, data))
    path.unlink()
    continued(capsys, halfway, data)
    same(halfway, undisturbed)


@pytest.mark.parametrize("name", ["summary.json", "ranks/test-full.npz"])
def test_a_damaged_result_is_named_and_made_anew_from_the_weights(
    finished: Path, data: Path, undisturbed: Undisturbed, capsys: Capture, name: str
) -> None:
    truncated(finished / name)
    if name == "summary.json":
        line = command_error(capsys, *words(finished, data))
        assert f"{finished / name} is not valid JSON" in line
    (finished / "summary.json").unlink()
    continued(capsys, finished, data)
    same(finished, undisturbed)

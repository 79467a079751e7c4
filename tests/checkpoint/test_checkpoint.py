"""Checkpoints: written whole or not at all, no pickle, and nothing foreign is loaded."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from research.checkpoint import files as checkpoint
from research.checkpoint.tensors import fill_optimizer
from research.errors import InputError
from research.training.optimizer import OptimizerConfig, build_optimizer
from tests.support.synthetic import randomize_parameters

# The corpus that the checkpoints belong to.
MARK = {"fingerprint": "abc"}


def module_of(seed: int = 0, width: int = 3) -> nn.Module:
    module = nn.Sequential(nn.Linear(2, width), nn.LayerNorm(width))
    randomize_parameters(module, seed)
    return module


def stepped(module: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    optimizer = build_optimizer(config, module)
    module(torch.ones(1, 2)).square().sum().backward()
    optimizer.step()
    return optimizer


def weights_of(module: nn.Module) -> list[list[float]]:
    return [each.flatten().tolist() for each in module.parameters()]


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    source = str(folder / "optimizer.safetensors")
    fill_optimizer(checkpoint.read_optimizer(folder), optimizer, source)


def test_weights_and_state_come_back_to_the_last_bit(tmp_path: Path) -> None:
    written, read = module_of(1), module_of(2)
    checkpoint.save(tmp_path / "last", written, None, {**MARK, "step": 7, "best": 0.1 + 0.2})
    checkpoint.load_weights(tmp_path / "last", read)
    assert weights_of(read) == weights_of(written)
    state = checkpoint.read_state(tmp_path / "last", "abc")
    sums = state.pop("sha256")
    assert len(str(state.pop("checksum"))) == 64
    assert state == {
        "format": 2, "fingerprint": "abc", "step": 7, "best": 0.30000000000000004,
    }  # fmt: skip
    content = (tmp_path / "last" / "model.safetensors").read_bytes()
    assert sums == {"model.safetensors": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("method", ["adam", "adamw", "sgd"])
def test_an_optimizer_continues_as_if_nothing_had_happened(tmp_path: Path, method: str) -> None:
    config = OptimizerConfig(method=method)
    written = module_of(1)
    optimizer = stepped(written, config)
    checkpoint.save(tmp_path / "last", written, optimizer, {})
    read = module_of(2)
    again = build_optimizer(config, read)
    checkpoint.load_weights(tmp_path / "last", read)
    load_optimizer(tmp_path / "last", again)
    for module, each in ((written, optimizer), (read, again)):
        module.zero_grad()
        module(torch.ones(1, 2)).square().sum().backward()
        each.step()
    assert weights_of(read) == weights_of(written)


def test_the_folder_holds_tensors_and_json_alone(tmp_path: Path) -> None:
    module = module_of()
    checkpoint.save(
        tmp_path / "last", module, stepped(module, OptimizerConfig()), {**MARK, "step": 1}
    )
    names = {path.name for path in (tmp_path / "last").iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"last"}


def test_a_second_checkpoint_replaces_the_first(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", module_of(1), None, {**MARK, "step": 1})
    checkpoint.save(tmp_path / "last", module_of(2), None, {**MARK, "step": 2})
    assert checkpoint.read_state(tmp_path / "last", "abc")["step"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {"last"}


@pytest.mark.parametrize(
    "broken", ["research.checkpoint.files._write_tensors", "research.storage.atomic._swap"]
)
def test_a_failure_while_writing_leaves_the_previous_one(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "last", module_of(1), None, {**MARK, "step": 1})

    def fail(*given: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(OSError, match="disk full"):
            checkpoint.save(tmp_path / "last", module_of(2), None, {**MARK, "step": 2})
    read = module_of(3)
    checkpoint.load_weights(tmp_path / "last", read)
    assert weights_of(read) == weights_of(module_of(1))
    assert {path.name for path in tmp_path.iterdir()} == {"last"}


def test_a_kill_between_the_two_renames_still_leaves_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint.folder_of(tmp_path, "step", 1)
    checkpoint.save(folder, module_of(1), None, {**MARK, "step": 1})
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if target == folder:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(folder, module_of(2), None, {**MARK, "step": 2})
    found = checkpoint.newest_state(tmp_path, "abc")[0]
    assert checkpoint.read_state(found, "abc")["step"] == 1
    # The next one is written over it, and only the new one remains.
    checkpoint.save(folder, module_of(2), None, {**MARK, "step": 2})
    checkpoint.prune(tmp_path, 1, keep=1)
    assert checkpoint.read_state(checkpoint.newest_state(tmp_path, "abc")[0], "abc")["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_a_stage_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert checkpoint.checkpoints_by_step(tmp_path / "train") == {}
    with pytest.raises(InputError, match=r"train holds no checkpoint; was the run interrupted"):
        checkpoint.newest_state(tmp_path / "train", "abc")[0]


def saved(stage: Path, step: int, best: int | None = None) -> Path:
    """A checkpoint after `step` steps whose weights are those of seed `step`."""
    folder = checkpoint.folder_of(stage, "step", step)
    module = module_of(step)
    state = {**MARK, "step": step, "best_step": best}
    checkpoint.save(folder, module, stepped(module, OptimizerConfig()), state)
    return folder


def names_in(stage: Path) -> list[str]:
    return sorted(path.name for path in stage.iterdir())


def test_the_newest_are_kept_and_the_best_that_they_name(tmp_path: Path) -> None:
    for best in (10, 20):
        checkpoint.save(checkpoint.folder_of(tmp_path, "best", best), module_of(), None, MARK)
    for step, best in ((10, 10), (20, 20), (30, 20), (40, 20)):
        saved(tmp_path, step, best)
    (tmp_path / ".step_00000050-1a2b3c4d").mkdir()
    (tmp_path / "notes").mkdir()
    checkpoint.prune(tmp_path, 40, keep=2)
    kept = ["best_00000020", "notes", "step_00000030", "step_00000040"]
    assert names_in(tmp_path) == kept


def test_what_came_after_the_step_a_stage_went_on_from_is_gone(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        saved(tmp_path, step)
    checkpoint.prune(tmp_path, 20, keep=2)
    assert names_in(tmp_path) == ["step_00000010", "step_00000020"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_passed_for_the_one_before(
    tmp_path: Path, file: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = saved(tmp_path, 10), saved(tmp_path, 20) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    assert checkpoint.newest_state(tmp_path, "abc")[0] == whole
    message = capsys.readouterr().err
    assert f"step_00000020/{file} is " in message
    assert "using the earlier checkpoint step_00000010, which is undamaged" in message


def test_a_damaged_best_makes_the_checkpoints_that_name_it_useless(tmp_path: Path) -> None:
    for best in (10, 20):
        checkpoint.save(checkpoint.folder_of(tmp_path, "best", best), module_of(), None, MARK)
    first, _ = saved(tmp_path, 10, best=10), saved(tmp_path, 20, best=20)
    (tmp_path / "best_00000020" / "model.safetensors").write_bytes(b"")
    assert checkpoint.newest_state(tmp_path, "abc")[0] == first
    assert checkpoint.result_folder(tmp_path, "abc") == tmp_path / "best_00000010"


def test_where_all_are_damaged_the_stage_must_be_begun_anew(tmp_path: Path) -> None:
    for step in (10, 20):
        (saved(tmp_path, step) / "state.json").write_text("{")
    with pytest.raises(
        InputError, match=r"no checkpoint is undamaged .*; remove the folder .* from scratch"
    ):
        checkpoint.newest_state(tmp_path, "abc")[0]


def test_a_digit_of_the_state_cannot_change_unseen(tmp_path: Path) -> None:
    path = saved(tmp_path, 10) / "state.json"
    path.write_text(path.read_text().replace('"step": 10', '"step": 11'))
    with pytest.raises(InputError, match=r"state\.json is damaged .its checksum differs."):
        checkpoint.read_state(path.parent, "abc")


def test_a_file_that_cannot_be_read_is_passed_as_a_damaged_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = saved(tmp_path, 10), saved(tmp_path, 20) / "model.safetensors"
    opened = Path.open

    def failing(path: Path, *given: object) -> object:
        if path == broken:
            raise OSError(5, "Input/output error")
        return opened(path, *given)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", failing)
    assert checkpoint.newest_state(tmp_path, "abc")[0] == whole
    assert "step_00000020/model.safetensors cannot be read" in capsys.readouterr().err


def test_a_stage_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    with pytest.raises(InputError, match="written by an earlier version; remove the run's folder"):
        checkpoint.newest_state(tmp_path, "abc")[0]


def test_weights_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", module_of(), None, {})
    other = nn.Sequential(nn.Linear(2, 4), nn.Identity(), nn.Linear(1, 1))
    with pytest.raises(InputError) as caught:
        checkpoint.load_weights(tmp_path / "last", other)
    for part in (
        "model.safetensors does not fit this configuration",
        "missing 2.bias", "missing 2.weight", "unknown 1.bias", "unknown 1.weight",
        "0.weight has shape (3, 2), expected (4, 2)",
    ):  # fmt: skip
        assert part in str(caught.value)


def test_a_module_is_not_half_filled_when_weights_do_not_fit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", module_of(1, width=3), None, {})
    other = module_of(2, width=4)
    before = weights_of(other)
    with pytest.raises(InputError):
        checkpoint.load_weights(tmp_path / "last", other)
    assert weights_of(other) == before


@pytest.mark.parametrize("text", ['{"format": 1}', '{"step": 3}'])
def test_a_state_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(InputError, match="is not a checkpoint of format 2; it was written by"):
        checkpoint.read_state(tmp_path, "abc")


@pytest.mark.parametrize(
    "text", ['{"format": 1', "[1]", "[" * 100_000, '{"step": 1' + "0" * 5000 + "}"]
)
def test_a_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(InputError, match=r"state\.json .*is not a complete checkpoint"):
        checkpoint.read_state(tmp_path, "abc")


def test_a_state_of_another_corpus_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", module_of(), None, MARK)
    with pytest.raises(InputError, match="a corpus with fingerprint abc, not def; its item ids"):
        checkpoint.read_state(tmp_path / "last", "def")
    checkpoint.save(tmp_path / "last", module_of(), None, {})
    with pytest.raises(InputError, match="a corpus with fingerprint None, not abc"):
        checkpoint.read_state(tmp_path / "last", "abc")


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path, name: str) -> None:
    module = module_of()
    checkpoint.save(tmp_path / "last", module, stepped(module, OptimizerConfig()), MARK)
    path = tmp_path / "last" / f"{name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.safetensors is damaged .its checksum differs"):
        checkpoint.read_state(tmp_path / "last", "abc")


@pytest.mark.parametrize("sums", ["[]", "{}"])
def test_a_state_without_checksums_is_refused(tmp_path: Path, sums: str) -> None:
    checkpoint.save(tmp_path / "last", module_of(), None, MARK)
    text = checkpoint.state_text({"format": 2, "fingerprint": "abc", "sha256": json.loads(sums)})
    (tmp_path / "last" / "state.json").write_text(text)
    with pytest.raises(InputError, match=r"is damaged \(sha256 is (\[\]|{})\)"):
        checkpoint.read_state(tmp_path / "last", "abc")


def test_an_optimizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    module, other = module_of(width=3), module_of(width=4)
    checkpoint.save(tmp_path / "last", module, stepped(module, OptimizerConfig()), MARK)
    with pytest.raises(InputError, match=r"optimizer\.safetensors does not fit this configuration"):
        load_optimizer(tmp_path / "last", build_optimizer(OptimizerConfig(), other))
    momentum = build_optimizer(OptimizerConfig(method="sgd"), module)
    with pytest.raises(InputError, match=r"does not fit this configuration: \d\.(step|exp_avg)"):
        load_optimizer(tmp_path / "last", momentum)


def test_a_folder_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"state\.json is missing: .* is not a complete checkpoint"
    ):
        checkpoint.read_state(tmp_path, "abc")


@pytest.mark.parametrize("name", ["model", "optimizer"])
def test_damaged_or_missing_tensors_are_refused(tmp_path: Path, name: str) -> None:
    module = module_of()
    optimizer = stepped(module, OptimizerConfig())
    checkpoint.save(tmp_path / "last", module, optimizer, {})

    def load() -> None:
        checkpoint.load_weights(tmp_path / "last", module)
        load_optimizer(tmp_path / "last", optimizer)

    path = tmp_path / "last" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=f"{name}.safetensors is damaged"):
        load()
    path.unlink()
    with pytest.raises(InputError, match=f"{name}.safetensors is missing"):
        load()


def test_tensors_of_a_stranger_must_fit_too(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", module_of(), None, {})
    path = tmp_path / "last" / "model.safetensors"
    save_file({**load_file(path), "extra": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="unknown extra"):
        checkpoint.load_weights(tmp_path / "last", module_of())


def test_a_value_that_json_cannot_hold_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "last", module_of(), None, {"best": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_can_be_moved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last", module_of(1), None, {**MARK, "step": 1})
    shutil.copytree(tmp_path / "last", tmp_path / "copy")
    read = module_of(2)
    checkpoint.load_weights(tmp_path / "copy", read)
    assert weights_of(read) == weights_of(module_of(1))
    assert json.loads((tmp_path / "copy" / "state.json").read_text())["step"] == 1

"""Which device a process works on, and how torch's own switches stand while a run trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from research.distributed import accelerator as accelerator_module
from research.distributed.accelerator import accelerator_for, make_accelerator, uses_gpu
from research.errors import InputError
from research.model.compute import ComputeConfig
from research.model.kernels.precision import allow_tf32, true_fp32
from research.runs.execute import RunOptions, execute
from tests.support.command_line import TINY, command_error, run_command, shop_corpus
from tests.support.small_runs import FINETUNE, QUIET, config_of, corpus_in, weights_of

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
LAST = Path("stages") / "finetune"


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Switches are the process's, and other tests know none."""
    yield
    make_accelerator()


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def test_cudnn_attention_is_off_for_it_plans_every_new_shape() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    make_accelerator()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_tf32_is_on_for_the_runs_that_ask_for_it_and_off_for_the_next() -> None:
    given = make_accelerator()
    assert allowed() == (False, False)
    assert accelerator_for(given, ComputeConfig(precision="tf32")) is given
    assert allowed() == (True, True)
    assert accelerator_for(given, ComputeConfig()) is given
    assert allowed() == (False, False)


def test_what_reads_the_older_and_the_newer_names_of_tf32_agrees() -> None:
    allow_tf32(True)
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.get_float32_matmul_precision() == "high"
    with true_fp32(torch.device("cpu")):
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "highest"
    assert allowed() == (True, True)


@needs_no_gpu
def test_on_a_cpu_tf32_is_fp32_to_the_last_bit_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = config_of(corpus_in(tmp_path / "corpus"), FINETUNE)
    execute(plain, tmp_path / "fp32", options=QUIET)
    asked = replace(plain, compute=ComputeConfig(precision="tf32"))
    capsys.readouterr()
    execute(asked, tmp_path / "tf32", options=RunOptions(prefix="\x1b[2Ja: "))
    said = capsys.readouterr().out
    assert (
        "\ufffd[2Ja: compute.precision is tf32, which a CPU does not have: products are in fp32\n"
        in said
    )
    one, other = (best(tmp_path / name) for name in ("fp32", "tf32"))
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())
    marks = [
        json.loads((tmp_path / name / "config.json").read_text())["hash"]
        for name in ("fp32", "tf32")
    ]
    assert marks[0] != marks[1]


def best(run: Path) -> dict[str, torch.Tensor]:
    """The weights that a run's last stage kept as its best."""
    return weights_of(max((run / LAST).glob("best_*")))


def test_a_deterministic_run_sets_torch_so_and_the_next_one_sets_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    plain = config_of(corpus_in(tmp_path / "corpus"), FINETUNE)
    execute(replace(plain, compute=ComputeConfig(deterministic=True)), tmp_path / "one")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    execute(plain, tmp_path / "two", options=QUIET)
    assert not torch.are_deterministic_algorithms_enabled()
    one, other = best(tmp_path / "one"), best(tmp_path / "two")
    # A CPU repeats its bits anyway.
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


@needs_no_gpu
def test_the_cpu_can_be_asked_for_by_every_verb_that_computes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, run = shop_corpus(tmp_path), tmp_path / "run"
    device = ("--device", "cpu")
    target = "baselines.sasrec.full_softmax"
    made = run_command(
        capsys, "run", target, f"corpus={corpus.folder}", *TINY, "--out", run, *device
    )
    assert made.code == 0, made.err
    assert "--device" not in (run / "config.json").read_text()
    assert run_command(capsys, "evaluate", run, *device).code == 0
    assert run_command(capsys, "recommend", run, "--items", "B100,B101", *device).code == 0
    none = "torch sees no GPU here; leave it out"
    for verb in (["run", target], ["study", "experiments.quickstart"], ["evaluate", run]):
        assert f"--device is cuda, but {none}" in command_error(capsys, *verb, "--device", "cuda")
    said = command_error(capsys, "recommend", run, "--items", "B100", "--device", "cuda:1")
    assert f"--device is cuda:1, but {none}" in said


@pytest.mark.parametrize("device", ["gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "CUDA", ""])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=r"^--device is '.*'; allowed: cpu, cuda, cuda:N$"):
        uses_gpu(device)


@needs_no_gpu
class TestWithTwoPretendedGPUs:
    """What torch would say of them is pretended; nothing is computed there."""

    @pytest.fixture(autouse=True)
    def gpus(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        chosen: list[int] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        monkeypatch.setattr(accelerator_module, "is_initialized", lambda: False)
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        return chosen

    def test_one_of_them_is_taken_unless_the_cpu_is_asked_for(self, gpus: list[int]) -> None:
        assert uses_gpu(None)
        assert uses_gpu("cuda")
        assert not uses_gpu("cpu")
        assert gpus == []
        assert uses_gpu("cuda:1")
        assert gpus == [1]

    def test_a_third_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"cuda:2, but torch sees cuda:0 to cuda:1 here"):
            uses_gpu("cuda:2")

    def test_a_launcher_gives_each_process_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert uses_gpu("cuda")
        with pytest.raises(InputError, match="a launcher gives each process a GPU of its own"):
            uses_gpu("cuda:1")

    def test_a_process_stays_on_the_device_that_it_began_with(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(accelerator_module, "is_initialized", lambda: True)
        make_accelerator()
        assert not uses_gpu(None)
        with pytest.raises(InputError, match="--device is cuda, but this process uses cpu"):
            uses_gpu("cuda")

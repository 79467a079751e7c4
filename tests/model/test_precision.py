"""A run's precision is its own, whatever runs and stages before it in the same process had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from research.distributed.accelerator import accelerator_for, make_accelerator
from research.model.compute import ComputeConfig
from research.runs.execute import RunOptions, execute
from research.training.step import TrainStep
from tests.support.small_runs import FINETUNE, PRETRAIN, config_of, corpus_in, frozen


def autocasts(accelerator: Accelerator) -> bool:
    with accelerator.autocast():
        return torch.is_autocast_enabled("cpu")


def test_runs_of_a_process_alternate_between_precisions() -> None:
    given = make_accelerator()
    names = ("bf16", "fp32", "bf16", "bf16", "tf32")
    found = [autocasts(accelerator_for(given, ComputeConfig(precision=name))) for name in names]
    assert found == [True, False, True, True, False]


def test_each_stage_takes_the_loss_scale_out_of_its_gradients_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second stage's optimizer holds the encoder that the first one's holds still."""
    norms: list[float] = []
    update = TrainStep._update

    def noting(self: TrainStep, sums: dict[str, torch.Tensor]) -> torch.Tensor:
        good = update(self, sums)
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in self.encoder]).item())  # type: ignore[misc]
        return good

    monkeypatch.setattr(TrainStep, "_update", noting)
    config = config_of(corpus_in(tmp_path / "corpus"), frozen(PRETRAIN), frozen(FINETUNE))
    # Under dropout some states of so narrow a model are constant, and LayerNorm's slope endless.
    steady = dict.fromkeys(
        (f"{kind}_dropout" for kind in ("embedding", "hidden", "attention")), 0.0
    )
    config = replace(config, encoder=replace(config.encoder, **steady))
    execute(config, tmp_path / "plain", options=RunOptions(quiet=True))
    plain, accelerator = norms[:], make_accelerator()
    norms.clear()
    # Accelerate scales losses on a GPU alone; torch's scaler works here as well.
    monkeypatch.setitem(AcceleratorState._shared_state, "_mixed_precision", "fp16")
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu")
    config = replace(config, compute=ComputeConfig(precision="fp16"))
    execute(config, tmp_path / "scaled", options=RunOptions(quiet=True), accelerator=accelerator)
    assert len(plain) > 2
    # Autocast is in bf16 on a CPU.
    assert norms == pytest.approx(plain, rel=0.05)

"""A run's precision is its own, whatever the runs before it in the same process had."""

from __future__ import annotations

from accelerate import Accelerator

from research.execute import fitted, make_accelerator


def autocasts(accelerator: Accelerator) -> bool:
    import torch

    with accelerator.autocast():
        return torch.is_autocast_enabled("cpu")


def test_runs_of_a_process_alternate_between_precisions() -> None:
    given = make_accelerator()
    found = [autocasts(fitted(given, name)) for name in ("bf16", "fp32", "bf16", "bf16", "fp32")]
    assert found == [True, False, True, True, False]

"""Divides the sums of a step by global counts, and averages losses between log lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from research.objectives.base import Accuracy
from research.training.pretrainer import StepInputs
from research.training.stage import StageConfig


class Meter:
    """What is summed of a step, over objectives, processes and the steps since the last line.

    Counts are known on the host before anything is encoded; sums of losses stay on the device, so
    that nothing waits for them before a line is due.
    """

    def __init__(self, accelerator: Accelerator, config: StageConfig) -> None:
        self.accelerator = accelerator
        self.config = config
        self.weights = {key: each.weight for key, each in config.objectives.items()}
        self._weights_K = self._on_device(list(self.weights.values()))
        # K objectives; of each the sum of losses, the count and the rows of the steps kept so far.
        self._names = [
            f"{figure}/{key}" for figure in ("total", "count", "rows") for key in self.weights
        ]
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.zeros(
            len(self._names), dtype=torch.float64, device=self.accelerator.device
        )
        # By "correct/KEY" and "asked/KEY", of steps that were measured.
        self._answers: dict[str, Tensor] = {}
        self._items = 0.0
        self._steps = 0
        self._started = time.monotonic()

    def _on_device(self, numbers: Sequence[float]) -> Tensor:
        """float64 numbers of the host on the device, by a copy that nobody waits for."""
        device = self.accelerator.device
        tensor = torch.tensor(numbers, dtype=torch.float64, pin_memory=device.type != "cpu")
        return tensor.to(device, non_blocking=True)

    def factors(self, pieces: Sequence[StepInputs]) -> Tensor:
        """float64 [K]: what each objective's sum is multiplied by, to be summed over processes.

        That is weight * world / divisor, where the divisor is the count, or the rows, of all pieces
        and processes: gradients are averaged over processes afterwards, hence the factor `world`.
        """
        counts = [sum(piece.counts(key)[0] for piece in pieces) for key in self.weights]
        rows = [float(sum(piece.rows[key] for piece in pieces)) for key in self.weights]
        self._counts = self._on_device([*counts, *rows])
        whole = self._counts
        if self.accelerator.num_processes > 1:
            whole = self.accelerator.reduce(whole.clone(), "sum")
        counts_K, rows_K = whole.tensor_split(2)
        divisors_K = counts_K if self.config.normalize == "terms" else rows_K
        scaled_K: Tensor = self._weights_K * self.accelerator.num_processes
        return scaled_K / divisors_K.clamp(min=1.0)

    def add(
        self,
        totals_K: Tensor,
        answers: Sequence[Mapping[str, Accuracy | None]],
        items: int,
        kept: Tensor,
    ) -> None:
        """Count a step in the next line: its sums (float64 [K]), its pieces' accuracies, its items.

        Sums and accuracies of a step that is not `kept` (bool scalar) are left out.
        """
        step = torch.cat([totals_K, self._counts])
        # Not a product: what is left out may be no number.
        self._sums += torch.where(kept, step, torch.zeros_like(step))
        for piece in answers:
            for key, answer in piece.items():
                if answer is not None:
                    self._answer(f"correct/{key}", answer.correct, kept)
                    self._answer(f"asked/{key}", answer.count, kept)
        self._items += items
        self._steps += 1

    def _answer(self, name: str, value: Tensor, kept: Tensor) -> None:
        value = torch.where(kept, value, torch.zeros_like(value))
        self._answers[name] = self._answers[name] + value if name in self._answers else value

    def pending(self) -> dict[str, float]:
        """The sums since the last line, over all processes, which must all ask; {}: there are none.

        By "total/KEY", "count/KEY", "rows/KEY", "correct/KEY", "asked/KEY" and "items".
        """
        if self._steps == 0:
            return {}
        items = self._on_device([self._items])
        local = torch.cat([self._sums, items, *(each[None] for each in self._answers.values())])
        summed: Tensor = self.accelerator.reduce(local, "sum")
        return dict(zip([*self._names, "items", *self._answers], summed.tolist()))

    def resume(self, pending: Mapping[str, float]) -> None:
        """Go on from the sums of a checkpoint; the main process takes them all."""
        if not pending:
            return
        share = 1.0 if self.accelerator.is_main_process else 0.0
        self._sums = self._on_device([pending[name] * share for name in self._names])
        self._items = pending["items"] * share
        answers = [name for name in pending if name.startswith(("correct/", "asked/"))]
        self._answers = {name: self._on_device([pending[name] * share])[0] for name in answers}
        self._steps = 1

    def line(self, factor: float) -> dict[str, float]:
        """The means since the last line, by name, over all processes.

        A loss of which no step was kept is left out.
        """
        sums = self.pending()
        name = self.config.name
        values: dict[str, float] = {}
        combined = 0.0
        # Every objective takes part in each step: all have kept rows, or none.
        kept = any(sums[f"rows/{key}"] > 0.0 for key in self.weights)
        for key, weight in self.weights.items() if kept else ():
            total, count = sums[f"total/{key}"], sums[f"count/{key}"]
            mean = total / max(count, 1.0)
            values[f"{name}/loss/{key}"] = mean
            if self.config.normalize == "sequences":
                mean = total / max(sums[f"rows/{key}"], 1.0)
            combined += weight * mean
        for key in self.weights:
            if sums.get(f"asked/{key}", 0.0) > 0:
                values[f"{name}/accuracy/{key}"] = sums[f"correct/{key}"] / sums[f"asked/{key}"]
        items = sums["items"]
        if kept:
            values[f"{name}/loss"] = combined
        values[f"{name}/lr"] = self.config.optimizer.lr * factor
        values[f"{name}/items_per_second"] = items / max(time.monotonic() - self._started, 1e-9)
        self._clear()
        return values

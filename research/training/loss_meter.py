"""Means of losses and accuracies between two lines of a stage's log."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from research.training.config import StageConfig
from research.training.step import StepResult, on_device


class LossMeter:
    """Sums of steps since the last line, over objectives and processes.

    Sums of losses stay on the device, so that nothing waits for them before a line is due.
    """

    def __init__(
        self, config: StageConfig, accelerator: Accelerator, pending: Mapping[str, float]
    ) -> None:
        """`pending` are the sums of a checkpoint, {} without: the main process takes them all."""
        self.config = config
        self.accelerator = accelerator
        self.weights = {key: each.weight for key, each in config.objectives.items()}
        # K objectives; of each the sum of losses, the count and the rows of the steps kept so far.
        self._names = [
            f"{figure}/{key}" for figure in ("total", "count", "rows") for key in self.weights
        ]
        self._clear()
        if pending:
            share = 1.0 if accelerator.is_main_process else 0.0
            given = {name: value * share for name, value in pending.items()}
            self._sums = on_device([given[name] for name in self._names], accelerator)
            self._items = given["items"]
            answers = [name for name in given if name.startswith(("correct/", "asked/"))]
            self._answers |= {name: on_device([given[name]], accelerator)[0] for name in answers}
            self._steps = 1

    def _clear(self) -> None:
        device = self.accelerator.device
        self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        # By "correct/KEY" and "asked/KEY", of steps that were measured.
        self._answers: dict[str, Tensor] = {}
        self._items = 0.0
        self._steps = 0
        self._started = time.monotonic()

    def add(self, result: StepResult) -> None:
        """Count a step; the sums and accuracies of an update that was not taken are left out."""
        step = torch.cat([result.totals_K, result.counts_2K])
        # Not a product: what is left out may be no number.
        self._sums += torch.where(result.taken, step, torch.zeros_like(step))
        for piece in result.accuracies:
            for key, answer in piece.items():
                if answer is not None:
                    self._answer(f"correct/{key}", answer.correct, result.taken)
                    self._answer(f"asked/{key}", answer.count, result.taken)
        self._items += result.items
        self._steps += 1

    def _answer(self, name: str, value: Tensor, taken: Tensor) -> None:
        value = torch.where(taken, value, torch.zeros_like(value))
        self._answers[name] = self._answers[name] + value if name in self._answers else value

    def pending(self) -> dict[str, float]:
        """The sums since the last line, over all processes, which must all ask; {}: there are none.

        By "total/KEY", "count/KEY", "rows/KEY", "correct/KEY", "asked/KEY" and "items".
        """
        if self._steps == 0:
            return {}
        items = on_device([self._items], self.accelerator)
        local = torch.cat([self._sums, items, *(each[None] for each in self._answers.values())])
        summed: Tensor = self.accelerator.reduce(local, "sum")
        return dict(zip([*self._names, "items", *self._answers], summed.tolist()))

    def flush(self, lr_factor: float) -> dict[str, float]:
        """The means since the last line, by name, over all processes, which must all ask.

        A loss of which no update was taken is left out.
        """
        sums = self.pending()
        name = self.config.name
        values: dict[str, float] = {}
        combined = 0.0
        # Every objective takes part in each step: all have kept rows, or none.
        kept = any(sums[f"rows/{key}"] > 0.0 for key in self.weights)
        for key, weight in self.weights.items() if kept else ():
            if sums[f"rows/{key}"] == 0.0:
                # It had no turn.
                continue
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
        values[f"{name}/lr"] = self.config.optimizer.lr * lr_factor
        values[f"{name}/items_per_second"] = items / max(time.monotonic() - self._started, 1e-9)
        self._clear()
        return values

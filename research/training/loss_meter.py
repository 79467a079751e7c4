"""Means of losses and accuracies between two lines of a stage's log, for `StageLog`."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from research.training.config import StageConfig
from research.training.step import StepResult, on_device


class LossMeter:
    """Sums of losses, counts and correct predictions since the last line, over all processes.

    The sums stay on the device, so that no step waits for them before a line is due.
    """

    def __init__(
        self, config: StageConfig, accelerator: Accelerator, pending: Mapping[str, float]
    ) -> None:
        """`pending` are a checkpoint's sums, {} without one; the main process takes them all."""
        self.config = config
        self.accelerator = accelerator
        self.weights = {key: objective.weight for key, objective in config.objectives.items()}
        # For each of K objectives: the sum of losses, the count and the rows of the steps whose
        # update was taken.
        self._names = [
            f"{figure}/{key}" for figure in ("total", "count", "rows") for key in self.weights
        ]
        self._clear()
        if pending:
            share = 1.0 if accelerator.is_main_process else 0.0
            local_sums = {name: value * share for name, value in pending.items()}
            self._sums = on_device([local_sums[name] for name in self._names], accelerator)
            self._items = local_sums["items"]
            names = [name for name in local_sums if name.startswith(("correct/", "asked/"))]
            self._accuracies |= {
                name: on_device([local_sums[name]], accelerator)[0] for name in names
            }
            self._steps = 1

    def _clear(self) -> None:
        device = self.accelerator.device
        self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        # By "correct/KEY" and "asked/KEY"; only measured steps have them.
        self._accuracies: dict[str, Tensor] = {}
        self._items = 0.0
        self._steps = 0
        self._started = time.monotonic()

    def add(self, result: StepResult) -> None:
        """Add a step; losses and accuracies of an update that was not taken are left out."""
        step = torch.cat([result.totals_K, result.counts_2K])
        # Not a product, since the losses of a step that is left out may be NaN.
        self._sums += torch.where(result.taken, step, torch.zeros_like(step))
        for micro_batch in result.accuracies:
            for key, accuracy in micro_batch.items():
                if accuracy is not None:
                    self._add_accuracy(f"correct/{key}", accuracy.correct, result.taken)
                    self._add_accuracy(f"asked/{key}", accuracy.count, result.taken)
        self._items += result.items
        self._steps += 1

    def _add_accuracy(self, name: str, value: Tensor, taken: Tensor) -> None:
        value = torch.where(taken, value, torch.zeros_like(value))
        self._accuracies[name] = (
            self._accuracies[name] + value if name in self._accuracies else value
        )

    def pending(self) -> dict[str, float]:
        """Return the sums since the last line over all processes, by name; {} if no step was added.

        The names are "total/KEY", "count/KEY", "rows/KEY", "correct/KEY", "asked/KEY" and "items".
        All processes call it together.
        """
        if self._steps == 0:
            return {}
        items = on_device([self._items], self.accelerator)
        local = torch.cat([self._sums, items, *(each[None] for each in self._accuracies.values())])
        summed: Tensor = self.accelerator.reduce(local, "sum")
        return dict(zip([*self._names, "items", *self._accuracies], summed.tolist()))

    def flush(self, lr_factor: float) -> dict[str, float]:
        """Return the means since the last line over all processes, by name, and begin a new line.

        `lr_factor` is the factor of the learning rate in the last step. An objective has no loss
        where no update of it was taken, and then there is none of the stage either, which is the
        sum of all by the config's weights. All processes call it together.
        """
        sums = self.pending()
        name = self.config.name
        values: dict[str, float] = {}
        combined = 0.0
        taken = {key for key in self.weights if sums[f"rows/{key}"] > 0.0}
        for key, weight in self.weights.items():
            if key not in taken:
                # It took part in no update since the last line (`OneObjective` draws one a step).
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
        if taken and all(key in taken for key, weight in self.weights.items() if weight > 0.0):
            values[f"{name}/loss"] = combined
        values[f"{name}/lr"] = self.config.optimizer.lr * lr_factor
        values[f"{name}/items_per_second"] = items / max(time.monotonic() - self._started, 1e-9)
        self._clear()
        return values

"""Divides the sums of a step by global counts, and averages losses between log lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

from research.data.loader import Batch
from research.objectives.base import LossSum
from research.progress import Reporter
from research.tracking import RunFolder
from research.training.stage import StageConfig


class Meter:
    """Divides the step's sums by global counts, and averages losses between log lines."""

    def __init__(self, accelerator: Accelerator, config: StageConfig) -> None:
        self.accelerator = accelerator
        self.config = config
        self._clear()

    def _clear(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.rows = 0
        self.items = 0
        self.started = time.monotonic()

    def objective(
        self, losses: Mapping[str, LossSum], weights: Mapping[str, float], batch: Batch
    ) -> Tensor:
        """The scalar to differentiate: sum of weight * total * world / global count.

        Gradients are averaged over processes afterwards, hence the factor `world`.
        """
        world = self.accelerator.num_processes
        rows = len(batch.rows_S)
        local = torch.stack(
            [losses[key].count for key in weights]
            + [losses[next(iter(weights))].count.new_tensor(float(rows))]
        )
        counts: Tensor = local if world == 1 else self.accelerator.reduce(local, "sum")
        divisors = counts.clamp(min=1.0)
        parts = []
        for place, key in enumerate(weights):
            divisor = divisors[-1] if self.config.normalise == "sequences" else divisors[place]
            parts.append(losses[key].total * (weights[key] * world / divisor).to(losses[key].total))
            total = losses[key].total.detach().double()
            self.totals[key] = self.totals.get(key, torch.zeros_like(total)) + total
            self.counts[key] = self.counts.get(key, torch.zeros_like(total)) + losses[key].count
        self.rows += rows
        self.items += batch.packed.num_tokens
        return torch.stack(parts).sum()

    def log(
        self, folder: RunFolder, reporter: Reporter, step: int, epoch: int, factor: float
    ) -> int:
        """Write the means since the last line; returns the items seen since, over all processes.

        Raises `FloatingPointError` naming the objective whose loss is not finite.
        """
        if not self.totals:
            return 0
        local = torch.stack([*self.totals.values(), *self.counts.values()])
        local = torch.cat([local, local.new_tensor([self.rows, self.items])])
        summed: Tensor = self.accelerator.reduce(local, "sum")
        *sums, rows, items = summed.tolist()
        name = self.config.name
        values = {}
        combined = 0.0
        for place, key in enumerate(self.totals):
            total, count = sums[place], sums[place + len(self.totals)]
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"stage {name}, step {step}, epoch {epoch}: the loss of {key} is {total}; "
                    "lower the learning rate or clip the gradient"
                )
            mean = total / max(count, 1.0)
            values[f"{name}/loss/{key}"] = mean
            divided = total / max(rows, 1.0) if self.config.normalise == "sequences" else mean
            combined += self.config.objectives[key].weight * divided
        rate = items / max(time.monotonic() - self.started, 1e-9)
        values[f"{name}/loss"] = combined
        values[f"{name}/lr"] = self.config.optimiser.lr * factor
        values[f"{name}/items_per_second"] = rate
        folder.log(name, step, epoch, values)
        reporter.step(step, combined, rate)
        self._clear()
        return int(items)

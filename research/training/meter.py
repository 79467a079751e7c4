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
        self.correct: dict[str, Tensor] = {}
        self.asked: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.items = 0
        self.started = time.monotonic()

    def terms(
        self, losses: Mapping[str, LossSum], weights: Mapping[str, float], batch: Batch
    ) -> dict[str, Tensor]:
        """By objective weight * total * world / global count: what is summed and differentiated.

        Gradients are averaged over processes afterwards, hence the factor `world`.
        """
        world = self.accelerator.num_processes
        rows = {
            key: losses[key].count.new_tensor(
                float(len(batch.under(self.config.own_windows.get(key)).rows_S))
            )
            for key in weights
        }
        divided_by = rows
        if self.config.normalise == "terms":
            divided_by = {key: losses[key].count for key in weights}
        local = torch.stack(list(divided_by.values()))
        counts: Tensor = local if world == 1 else self.accelerator.reduce(local, "sum")
        divisors = counts.clamp(min=1.0)
        terms: dict[str, Tensor] = {}
        for key, divisor in zip(weights, divisors):
            loss = losses[key]
            terms[key] = loss.total * (weights[key] * world / divisor).to(loss.total)
            _add(self.totals, key, loss.total.detach().double())
            _add(self.counts, key, loss.count)
            if loss.accuracy is not None:
                _add(self.correct, key, loss.accuracy.correct)
                _add(self.asked, key, loss.accuracy.count)
            _add(self.rows, key, rows[key])
        self.items += batch.num_tokens
        return terms

    def log(
        self, folder: RunFolder, reporter: Reporter, step: int, epoch: int, factor: float
    ) -> int:
        """Write the means since the last line; returns the items seen since, over all processes.

        Raises `FloatingPointError` naming the objective whose loss is not finite.
        """
        columns = (self.totals, self.counts, self.rows, self.correct, self.asked)
        local = torch.stack([value for column in columns for value in column.values()])
        local = torch.cat([local, local.new_tensor([self.items])])
        summed: Tensor = self.accelerator.reduce(local, "sum")
        figures = iter(summed.tolist())
        totals, counts, rows, correct, asked = (
            {key: next(figures) for key in column} for column in columns
        )
        (items,) = figures
        name = self.config.name
        values = {}
        combined = 0.0
        for key, total in totals.items():
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"stage {name}, step {step}, epoch {epoch}: the loss of {key} is {total}; "
                    "lower the learning rate or clip the gradient (an objective of your own that "
                    'reads tokens which its corruption did not pick needs `reads = "all"`)'
                )
            mean = total / max(counts[key], 1.0)
            values[f"{name}/loss/{key}"] = mean
            divided = total / max(rows[key], 1.0) if self.config.normalise == "sequences" else mean
            combined += self.config.objectives[key].weight * divided
        for key in correct:
            if asked[key] > 0:
                values[f"{name}/accuracy/{key}"] = correct[key] / asked[key]
        rate = items / max(time.monotonic() - self.started, 1e-9)
        values[f"{name}/loss"] = combined
        values[f"{name}/lr"] = self.config.optimiser.lr * factor
        values[f"{name}/items_per_second"] = rate
        folder.log(name, step, epoch, values)
        reporter.step(step, combined, rate)
        self._clear()
        return int(items)


def _add(sums: dict[str, Tensor], key: str, value: Tensor) -> None:
    sums[key] = sums[key] + value if key in sums else value

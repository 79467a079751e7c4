"""Divides the sums of a step by global counts, and averages losses between log lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from research.objectives.base import LossSum
from research.training.pretrainer import StepInputs
from research.training.stage import StageConfig


class Meter:
    """What is summed of a step, over objectives, processes and the steps since the last line."""

    def __init__(self, accelerator: Accelerator, config: StageConfig) -> None:
        self.accelerator = accelerator
        self.config = config
        self.weights = {key: each.weight for key, each in config.objectives.items()}
        self._clear()

    def _clear(self) -> None:
        # By "total/KEY", "count/KEY", "rows/KEY", "correct/KEY", "asked/KEY" and "items".
        self.sums: dict[str, Tensor] = {}
        self.started = time.monotonic()

    def divisors(self, seen: Sequence[StepInputs]) -> dict[str, Tensor]:
        """By objective, what a step's sum is divided by: a count over all pieces and processes."""
        local = torch.stack(
            [torch.stack([self._divisor(key, each) for each in seen]).sum() for key in self.weights]
        )
        if self.accelerator.num_processes > 1:
            local = self.accelerator.reduce(local, "sum")
        return dict(zip(self.weights, local.clamp(min=1.0)))

    def _divisor(self, key: str, seen: StepInputs) -> Tensor:
        count = seen.counts[key]
        if self.config.normalize == "terms":
            return count
        return count.new_tensor(float(len(seen.rows[key].rows_S)))

    def terms(
        self, losses: Mapping[str, LossSum], divisors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """By objective weight * total * world / divisor: what is summed and differentiated.

        Gradients are averaged over processes afterwards, hence the factor `world`.
        """
        world = self.accelerator.num_processes
        return {
            key: losses[key].total * (weight * world / divisors[key]).to(losses[key].total)
            for key, weight in self.weights.items()
        }

    def add(self, losses: Mapping[str, LossSum], seen: StepInputs, kept: Tensor) -> None:
        """Count a piece of a step in the next line, if the step was `kept` (bool scalar)."""
        for key in self.weights:
            loss = losses[key]
            self._add(f"total/{key}", loss.total.detach().double(), kept)
            self._add(f"count/{key}", loss.count, kept)
            rows = float(len(seen.rows[key].rows_S))
            self._add(f"rows/{key}", loss.count.new_tensor(rows), kept)
            if loss.accuracy is not None:
                self._add(f"correct/{key}", loss.accuracy.correct, kept)
                self._add(f"asked/{key}", loss.accuracy.count, kept)

    def count_tokens(self, items: int) -> None:
        """Count the tokens of a step's clean windows."""
        device = self.accelerator.device
        self._add("items", torch.tensor(float(items), dtype=torch.float64, device=device))

    def _add(self, name: str, value: Tensor, kept: Tensor | None = None) -> None:
        if kept is not None:
            # Not a product: what is left out may be no number.
            value = torch.where(kept, value, torch.zeros_like(value))
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def pending(self) -> dict[str, float]:
        """The sums since the last line, over all processes, which must all ask."""
        if not self.sums:
            return {}
        summed: Tensor = self.accelerator.reduce(torch.stack(list(self.sums.values())), "sum")
        return dict(zip(self.sums, summed.tolist()))

    def resume(self, pending: Mapping[str, float]) -> None:
        """Go on from the sums of a checkpoint; the main process takes them all."""
        share = 1.0 if self.accelerator.is_main_process else 0.0
        for name, value in pending.items():
            own = torch.tensor(value * share, dtype=torch.float64, device=self.accelerator.device)
            self.sums[name] = own

    def line(self, factor: float) -> tuple[dict[str, float], int]:
        """The means since the last line, by name, and the items seen since, over all processes.

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
        values[f"{name}/items_per_second"] = items / max(time.monotonic() - self.started, 1e-9)
        self._clear()
        return values, int(items)

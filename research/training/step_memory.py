"""Turns the out-of-memory error of a training step into advice: its size, and what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from research.data.batch import Batch
from research.distributed.failures import is_out_of_memory
from research.training.config import StageConfig
from research.training.memory_advice import Peak, StepSize, advice
from research.training.multi_objective import MultiObjectiveModel


class StepMemory:
    """What is known of the memory that a stage's steps need on one process's device."""

    def __init__(
        self, model: MultiObjectiveModel, device: torch.device, config: StageConfig
    ) -> None:
        self.model = model
        self.device = device
        self.micro_batches = config.batches.micro_batches
        self.averages = 0 if config.averaging is None else config.averaging.copies
        # Tokens of the largest micro-batch that fitted.
        self._fitted = 0

    @contextmanager
    def advise_on_out_of_memory(self, batch: Batch, step_name: str) -> Iterator[None]:
        """Raise `MemoryError` with advice if the step on `batch` runs out of memory in the block.

        `step_name` names the step in the message.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = self._size(batch)
            raise MemoryError(f"{step_name}: {advice(size, error, self._peak())}") from error
        self._fitted = max(self._fitted, -(-batch.num_tokens // self.micro_batches))

    def _size(self, batch: Batch) -> StepSize:
        """Return the size of one micro-batch of `batch`."""
        number, encoder = self.micro_batches, self.model.encoder
        rows, tokens = -(-len(batch.rows_S) // number), -(-batch.num_tokens // number)
        longest = min(batch.packed.longest, encoder.config.length)
        return StepSize(
            rows=rows,
            tokens=tokens,
            longest=longest,
            width=encoder.config.width,
            items=encoder.num_items,
            parameters=encoder.config.num_parameters(encoder.item_table.num_embeddings),
            activations=encoder.config.activation_bytes(tokens, rows, longest),
            negatives=self.model.max_candidates,
            compared=batch.step_tokens + self.model.shared_negatives
            if self.model.couples_rows
            else 0,
            micro_batches=number,
            can_be_cut=not self.model.compares_states,
            averages=self.averages,
            item_dropout=encoder.item_table.dropout > 0.0,
        )

    def _peak(self) -> Peak | None:
        """Return what is known of a CUDA device's memory; None on another device."""
        if self.device.type != "cuda":
            return None
        available = torch.cuda.get_device_properties(self.device).total_memory
        if not self._fitted:
            return Peak(available=available)
        used = torch.cuda.max_memory_allocated(self.device)
        return Peak(available=available, used=used, tokens=self._fitted)

"""One optimizer step: prepare, count, encode and differentiate each piece, clip, update.

Every sum is divided by its count over all pieces and processes, so the gradient is that of the
whole batch however it is cut. An update that is not finite is not taken.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from research.data.loader import Batch
from research.memory import Peak, StepSize, advice, is_out_of_memory
from research.processes import Processes
from research.randomness import seed_of
from research.training.emptiness import CountCheck
from research.training.gather import Gather
from research.training.gradients import Pulls
from research.training.health import Taken
from research.training.meter import Meter
from research.training.optim import set_rate
from research.training.pretrainer import MultiObjectiveModel
from research.training.stage import StageConfig, StageState

if TYPE_CHECKING:
    from research.training.sharded import Shards

# A loss scale of fp16 below this means that gradients overflow whatever it is.
LEAST_SCALE = 2.0**-14
# Where torch begins.
FIRST_SCALE = 2.0**16


class Stepper:
    """A stage's model and optimizer, as they are stepped."""

    def __init__(
        self,
        pretrainer: MultiObjectiveModel,
        optimizer: torch.optim.Optimizer,
        config: StageConfig,
        seed: int,
        *,
        accelerator: Accelerator,
        shards: Shards | None = None,
    ) -> None:
        """`shards` are given where `pretrainer` is split, and the optimizer with it."""
        self.pretrainer = pretrainer
        self.optimizer = optimizer
        self.config = config
        self.seed = seed
        self.accelerator = accelerator
        self.processes = Processes(accelerator)
        self.meter = Meter(accelerator, config)
        self.counted = CountCheck(config, self.processes, from_start=True)
        self.shards = shards
        self.model: nn.Module
        if shards is not None:
            self.model, self.wrapped = shards.model, optimizer
        else:
            with warnings.catch_warnings():
                # torch 2.13 has another name for it, which Accelerate does not know.
                known = "`broadcast_buffers` is deprecated"
                warnings.filterwarnings("ignore", known, FutureWarning)
                self.model, self.wrapped = accelerator.prepare(pretrainer, optimizer)
        self.encoder = [each for each in pretrainer.encoder.parameters() if each.requires_grad]
        self.compiles = pretrainer.encoder.compiles
        # Tokens of the largest piece that fitted into memory.
        self.worked = 0
        self.learning = [each for each in pretrainer.parameters() if each.requires_grad]
        pretrainer.gather = Gather(self.processes.rank, self.processes.world)

    def take(
        self, batch: Batch, step: int, epoch: int, factor: float, *, measured: bool
    ) -> tuple[Taken, Pulls]:
        """The step with number `step` (0-based) on this process's share of a batch.

        `factor` is that of the learning rate.
        """
        rates = self.config.optimizer
        set_rate(self.optimizer, rates, rates.lr * factor, step)
        self.model.train()
        try:
            return self._take(batch, step, epoch, measured)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            place = f"stage {self.config.name}, step {step + 1}, epoch {epoch}"
            size = self._size(batch)
            raise MemoryError(f"{place}: {advice(size, error, self._peak(size))}") from error

    def _take(self, batch: Batch, step: int, epoch: int, measured: bool) -> tuple[Taken, Pulls]:
        pieces = self.pretrainer.prepare_pieces(batch, self.config.batches.micro_batches)
        factors_K = self.meter.factors(pieces)
        self.counted.add(pieces)
        every = self.config.gradients_every
        pulls = Pulls(self.encoder)
        sums, answers = [], []
        for number, piece in enumerate(pieces):
            torch.manual_seed(self._dropout_seed(step, number))
            # Gradients are summed over processes once, with the last piece.
            last = number == len(pieces) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                losses = self.model(piece.to(self.accelerator.device), measured=measured)
                totals_K = torch.stack([losses[key].total for key in self.config.objectives])
                terms_K = totals_K * factors_K.to(totals_K.dtype)
                if every and (step + 1) % every == 0:
                    pulls.add(dict(zip(self.config.objectives, terms_K.unbind())))
                self.accelerator.backward(terms_K.sum())
            sums.append(totals_K.detach().double())
            answers.append({key: loss.accuracy for key, loss in losses.items()})
        summed_K = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        good = self._update(summed_K)
        self.meter.add(summed_K, answers, batch.num_tokens, good)
        self.worked = max(self.worked, -(-batch.num_tokens // len(pieces)))
        losses_of = dict(zip(self.config.objectives, summed_K.unbind()))
        taken = Taken(step + 1, epoch, batch, good, losses_of, self._bad_parameters(step))
        return taken, pulls

    def clear(self) -> None:
        """Let go of a step's gradients."""
        self.wrapped.zero_grad(set_to_none=True)

    def _dropout_seed(self, step: int, number: int) -> int:
        pieces = [number] if number else []
        return seed_of(self.seed, self.config.name, "dropout", step, self.processes.rank, *pieces)

    def _update(self, sums_K: Tensor) -> Tensor:
        """Take the update if all is finite in every process; whether it was (bool scalar)."""
        # Of this stage's optimizer alone: those of stages before it hold the same encoder.
        self.accelerator.unscale_gradients(self.wrapped)
        given = [each.grad for each in self.learning if each.grad is not None]
        norm = torch.nn.utils.get_total_norm(given)
        clip_norm = self.config.optimizer.clip_norm
        if clip_norm is not None:
            # By a norm that is no number all gradients would be none, and whose it was be lost.
            known = torch.where(norm.isfinite(), norm, torch.zeros_like(norm))
            torch.nn.utils.clip_grads_with_norm_(self.learning, clip_norm, known)
        norm = self._whole(norm)
        good = sums_K.isfinite().all()
        # Under fp16 gradients overflow now and then, and the scaler leaves those steps out.
        if self.accelerator.scaler is None:
            good = good & norm.isfinite()
        if self.processes.world > 1:
            good = self.accelerator.reduce((~good).float(), "sum") == 0.0
        if self.accelerator.scaler is None:
            # Fused optimizers ask this before they change anything, without a wait for it.
            self.optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        self.wrapped.step()
        return good

    def _whole(self, tensor: Tensor) -> Tensor:
        return tensor if self.shards is None else self.shards.whole(tensor)

    def _bad_parameters(self, step: int) -> Callable[[], list[str]]:
        self._tried = step

        def names() -> list[str]:
            if self._tried != step:
                return []
            return [
                name
                for name, each in self.pretrainer.named_parameters()
                if each.grad is not None and not self._whole(each.grad.isfinite().all())
            ]

        return names

    def _size(self, batch: Batch) -> StepSize:
        """What one piece of a batch amounts to."""
        number = self.config.batches.micro_batches
        encoder = self.pretrainer.encoder
        rows, tokens = -(-len(batch.rows_S) // number), -(-batch.num_tokens // number)
        longest = min(batch.packed.longest, encoder.config.length)
        return StepSize(
            rows=rows,
            tokens=tokens,
            longest=longest,
            width=encoder.config.width,
            items=encoder.num_items,
            parameters=encoder.config.num_parameters(encoder.num_items),
            activations=encoder.config.activation_bytes(tokens, rows, longest),
            negatives=self.pretrainer.most_candidates,
            micro_batches=number,
        )

    def _peak(self, size: StepSize) -> Peak | None:
        """What is known of an accelerator's memory; of the host's nothing is."""
        device = self.accelerator.device
        if device.type != "cuda":
            return None
        available = torch.cuda.get_device_properties(device).total_memory
        if not self.worked:
            return Peak(available=available)
        used = torch.cuda.max_memory_allocated(device)
        return Peak(available=available, used=used, tokens=self.worked)

    def with_scale(self, state: StageState) -> StageState:
        """The state with where fp16's loss scaling stands."""
        scaler = self.accelerator.scaler
        if scaler is None:
            return state
        stored = scaler.state_dict()
        if stored["scale"] < LEAST_SCALE:
            raise FloatingPointError(
                f"stage {self.config.name}, step {state.step}: gradients overflow fp16 at any loss "
                f"scale (now {stored['scale']}); lower the learning rate, clip the gradient, or "
                "set compute.precision to bf16"
            )
        return replace(state, scale=stored["scale"], scale_steps=stored["_growth_tracker"])

    def resume(self, state: StageState) -> None:
        """Go on with sums and loss scale of a checkpoint."""
        self.meter.resume(state.pending)
        self.counted = CountCheck(self.config, self.processes, from_start=state.rows == 0)
        scaler = self.accelerator.scaler
        if scaler is not None:
            # Another stage of this process may have left its own there.
            given = {"scale": state.scale or FIRST_SCALE, "_growth_tracker": state.scale_steps}
            scaler.load_state_dict({**scaler.state_dict(), **given})

"""One optimizer step: prepare, count, encode and differentiate each micro-batch, clip, update.

Every sum of losses is divided by its count over all micro-batches and processes, so the gradient is
that of the whole batch however it is cut. An update that is not finite is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from research.data.batch import Batch
from research.distributed.collectives import Processes
from research.model.kernels.dropout import seed_dropout
from research.objectives.base import Accuracy
from research.randomness import seed_of
from research.training.anomalies import Attempt, FiniteCheck, RecompileDetector
from research.training.config import StageConfig
from research.training.gather import Gather
from research.training.gradient_conflict import GradientCosines
from research.training.loss_scale import restore_scale, with_scale
from research.training.multi_objective import StepInputs
from research.training.optimizer import set_rate
from research.training.stage_run import StageRun
from research.training.state import StageState
from research.training.step_memory import StepMemory
from research.training.touched_rows import clip, coalesced_gradients, numbers_of
from research.training.weights import Weights


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step leaves for the log, of this process's share; K objectives in config order."""

    items: int
    """Tokens of clean windows, over all window rules."""
    counts_K3: Tensor
    """float64 [K, 3] on the host: things that the loss sums, rows shown, and rows that have such a
    thing."""
    totals_K: Tensor
    """float64 [K] on the device: sums of losses."""
    counts_2K: Tensor
    """float64 [2K] on the device: the counts, then the rows."""
    accuracies: Sequence[Mapping[str, Accuracy | None]]
    """By micro-batch and objective; None unless the step was measured."""
    taken: Tensor
    """bool scalar on the device, equal in all processes: whether everything was finite, so that the
    update was taken (under fp16 the loss scaler may still leave it out)."""
    cosines: GradientCosines
    """The objectives' gradients on the encoder; none unless the step was due by
    `gradients_every`."""
    log_values: Mapping[str, float]
    """What the combination of objectives reports, by name; empty unless the step was measured."""


class TrainStep:
    """A stage's model and optimizer, and how a batch becomes one update."""

    def __init__(
        self,
        config: StageConfig,
        state: StageState,
        weights: Weights,
        optimizer: torch.optim.Optimizer,
        run: StageRun,
        say: Callable[[str], None],
    ) -> None:
        """`say` prints a line for a person."""
        accelerator = run.accelerator
        self.weights = weights
        self.model, self.wrapped_optimizer = weights.wrap(optimizer)
        self.optimizer = optimizer
        self.config = config
        self.seed = run.seed
        self.accelerator = accelerator
        self.say = say
        trained, self.processes = weights.trained, Processes(accelerator)
        trained.gather = Gather(self.processes.rank, self.processes.world)
        self.learning = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        self.encoder = [
            parameter for parameter in trained.encoder.parameters() if parameter.requires_grad
        ]
        self.objective_weights = {key: part.weight for key, part in config.objectives.items()}
        self.combination = trained.combination
        self.memory = StepMemory(trained, accelerator.device, config)
        self.finite = FiniteCheck(config, state, self.processes, run.folder, say)
        self.recompiles = RecompileDetector() if trained.encoder.compiles else None
        restore_scale(accelerator, state)

    def __call__(
        self, batch: Batch, state: StageState, lr_factor: float, *, measured: bool
    ) -> StepResult:
        """Take the step that follows `state` on this process's share of a batch.

        With `measured` the result has accuracies and the combination's figures. Raises
        `FloatingPointError` when one step too many is not finite, `MemoryError` with advice when
        the step does not fit into memory.
        """
        rates = self.config.optimizer
        set_rate(self.optimizer, rates, rates.lr * lr_factor, state.step)
        self.model.train()
        step_name = f"stage {self.config.name}, step {state.step + 1}, epoch {state.epoch}"
        with self.memory.advise_on_out_of_memory(batch, step_name):
            result = self._step(batch, state, measured)
        losses = dict(zip(self.config.objectives, result.totals_K.unbind()))
        names = self._bad_parameters(state.step)
        self.finite.check(Attempt(state.step + 1, state.epoch, batch, result.taken, losses, names))
        self.wrapped_optimizer.zero_grad(set_to_none=True)
        if self.recompiles is not None and self.recompiles.check():
            self.say(
                f"{self.config.name}: step {state.step + 1}: torch.compile keeps recompiling, "
                "which costs seconds each time; TORCH_LOGS=recompiles shows why"
            )
        return result

    def _step(self, batch: Batch, state: StageState, measured: bool) -> StepResult:
        keys, combination = list(self.config.objectives), self.combination
        weights, random_state = (
            list(self.objective_weights.values()),
            self._combination_random_state(state.step),
        )
        participants = combination.participants(weights, state.step, random_state)
        excluded = [key for key, takes_part in zip(keys, participants) if not takes_part]
        num_micro_batches = self.config.batches.micro_batches
        micro_batches = self.weights.trained.prepare_micro_batches(
            batch, num_micro_batches, excluded
        )
        counts_K3 = count_targets(micro_batches, keys)
        values = [*counts_K3[:, :2].T.flatten().tolist()]
        values += combination.weights_at(weights, state.step, random_state)
        counts_2K, weights_K = on_device(values, self.accelerator).split([2 * len(keys), len(keys)])
        factors_K = loss_factors(counts_2K, weights_K, self.config.normalize, self.accelerator)
        interval = self.config.gradients_every
        measures = interval is not None and (state.step + 1) % interval == 0
        merges = self.config.combination.merges_gradients
        gradients = GradientCosines(self.encoder)
        totals, accuracies = [], []
        for index, micro_batch in enumerate(micro_batches):
            seed_dropout(self.seed, self.config.name, state.step, self.processes.rank, index)
            # Gradients are reduced over processes once, with the last micro-batch.
            is_last = index == len(micro_batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                losses = self.model(micro_batch.to(self.accelerator.device), measured=measured)
                totals_K = torch.stack([losses[key].total for key in keys])
                terms_K = totals_K * factors_K.to(totals_K.dtype)
                if merges or measures:
                    gradients.add(dict(zip(keys, terms_K.unbind())))
                self.accelerator.backward(combination.loss(terms_K, len(micro_batches)))
            totals.append(totals_K.detach().double())
            accuracies.append({key: loss.accuracy for key, loss in losses.items()})
        totals_K = totals[0] if len(totals) == 1 else torch.stack(totals).sum(0)
        if merges:
            gradients.replace(
                combination.merge_gradients(
                    gradients.stacked_gradients(self.accelerator), random_state
                )
            )
        taken = self._update(totals_K)
        logged_gradients = gradients if measures else GradientCosines([])
        figures = (
            combination.log_values(self.objective_weights, state.step, random_state)
            if measured
            else {}
        )
        return StepResult(
            batch.num_tokens,
            counts_K3,
            totals_K,
            counts_2K,
            accuracies,
            taken,
            logged_gradients,
            figures,
        )

    def _combination_random_state(self, step: int) -> int:
        return seed_of(self.seed, self.config.name, "combination", step)

    def _update(self, totals_K: Tensor) -> Tensor:
        """Take the update if everything is finite in every process; return that flag (bool)."""
        # Before clipping (docs/pitfalls.md, "clipping scaled gradients"), and with this stage's
        # optimizer alone: those of earlier stages hold the same encoder.
        self.accelerator.unscale_gradients(self.wrapped_optimizer)
        gradients = coalesced_gradients(self.learning)
        norm = torch.nn.utils.get_total_norm(gradients)
        clip_norm = self.config.optimizer.clip_norm
        if clip_norm is not None:
            # Clipping by a norm that is not finite would spoil every gradient, and hide which one
            # was not finite before.
            clipping_norm = torch.where(norm.isfinite(), norm, torch.zeros_like(norm))
            clip(gradients, clip_norm, clipping_norm)
        norm = self.weights.full_tensor(norm)
        finite = totals_K.isfinite().all()
        # Under fp16 gradients overflow now and then, and the loss scaler leaves those steps out.
        if self.accelerator.scaler is None:
            finite = finite & norm.isfinite()
        if self.processes.world > 1:
            finite = self.accelerator.reduce((~finite).float(), "sum") == 0.0
        if self.accelerator.scaler is None:
            # Fused optimizers read this flag on the device and change nothing where it is set, so
            # the host need not wait for it.
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.wrapped_optimizer.step()
        return finite

    def _bad_parameters(self, step: int) -> Callable[[], list[str]]:
        """Return a function that names the parameters whose gradients are not finite.

        It names none once a later step has begun, whose gradients have replaced them.
        """
        self._checked_step = step

        def names() -> list[str]:
            if self._checked_step != step:
                return []
            return [
                name
                for name, parameter in self.weights.trained.named_parameters()
                if parameter.grad is not None
                and not self.weights.full_tensor(numbers_of(parameter.grad).isfinite().all())
            ]

        return names

    def complete(self, state: StageState) -> StageState:
        """Return the state with the number of steps left out and, under fp16, the loss scale.

        A step that is still unchecked is checked first. Raises `FloatingPointError` as a step does,
        and when fp16's loss scale has sunk to nothing.
        """
        self.finite.check_pending()
        state = replace(state, skipped=self.finite.skipped)
        return with_scale(state, self.accelerator, self.config.name)


def count_targets(micro_batches: Sequence[StepInputs], keys: Sequence[str]) -> Tensor:
    """Return float64 [K, 3]: each objective's `StepInputs.counts`, summed over micro-batches."""
    counts = [[micro_batch.counts(key) for key in keys] for micro_batch in micro_batches]
    return torch.tensor(counts, dtype=torch.float64).sum(0)


def loss_factors(
    counts_2K: Tensor,
    weights_K: Tensor,
    normalize: Literal["terms", "sequences"],
    accelerator: Accelerator,
) -> Tensor:
    """Return float64 [K]: the factor by which each objective's sum of losses is multiplied.

    It is weight * world / divisor. The divisor is the count ("terms") or the rows ("sequences")
    over all micro-batches and processes (docs/pitfalls.md, "weights of sums"). Gradients are
    averaged over processes afterwards, hence the factor `world`.
    """
    world = accelerator.num_processes
    total_counts_2K = accelerator.reduce(counts_2K.clone(), "sum") if world > 1 else counts_2K
    counts_K, rows_K = total_counts_2K.tensor_split(2)
    divisors_K = counts_K if normalize == "terms" else rows_K
    scaled_K: Tensor = weights_K * world
    return scaled_K / divisors_K.clamp(min=1.0)


def on_device(numbers: Sequence[float], accelerator: Accelerator) -> Tensor:
    """Return numbers of the host as a float64 tensor on the device, by an asynchronous copy."""
    device = accelerator.device
    tensor = torch.tensor(numbers, dtype=torch.float64, pin_memory=device.type != "cpu")
    return tensor.to(device, non_blocking=True)

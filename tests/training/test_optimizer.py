"""The learning rate at hand-computed steps, and optimizers against plain loops."""

from __future__ import annotations

import math
from math import inf

import pytest
import torch
from torch import Tensor, nn

from research.errors import InputError
from research.training.limits import Limits
from research.training.optimizer import OptimizerConfig, build_optimizer, set_rate
from research.training.schedule import ScheduleConfig, factor_at
from research.training.state import StageState
from tests.support import reference


def factors(schedule: ScheduleConfig, steps: list[int], total: int = 110) -> list[float]:
    limits, warmup = Limits(total, inf, inf), schedule.warmup_steps
    shares = [limits.share_after(StageState(step=step), warmup) for step in steps]
    return [factor_at(schedule, step, 0, share) for step, share in zip(steps, shares, strict=True)]


def test_a_constant_rate_is_constant() -> None:
    assert factors(ScheduleConfig(), [0, 1, 109]) == [1.0, 1.0, 1.0]


def test_the_warm_up_rises_linearly_and_ends_at_one() -> None:
    warm = ScheduleConfig(warmup_steps=10)
    assert factors(warm, [0, 1, 4, 9, 10]) == [0.1, 0.2, 0.5, 1.0, 1.0]


def test_linear_decay_starts_after_the_warm_up_and_aims_at_the_final_factor() -> None:
    linear = ScheduleConfig(shape="linear", warmup_steps=10)
    assert factors(linear, [9, 10, 35, 60, 109]) == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.01])
    above = ScheduleConfig(shape="linear", final_factor=0.2)
    assert factors(above, [0, 55, 110]) == pytest.approx([1.0, 0.6, 0.2])


def test_cosine_passes_the_middle_at_half() -> None:
    cosine = ScheduleConfig(shape="cosine", warmup_steps=10, final_factor=0.1)
    expected = [1.0, 0.1 + 0.9 * 0.8535534, 0.55, 0.1]
    assert factors(cosine, [10, 35, 60, 110]) == pytest.approx(expected)


@pytest.mark.parametrize("total", [1, 7, 110, 12_345])
@pytest.mark.parametrize("warmup", [0, 5, 200])
def test_of_a_known_number_of_steps_the_rates_are_these_to_the_last_bit(
    warmup: int, total: int
) -> None:
    linear = ScheduleConfig(shape="linear", warmup_steps=warmup, final_factor=0.1)
    cosine = ScheduleConfig(shape="cosine", warmup_steps=warmup, final_factor=0.1)
    steps = list(range(min(warmup, total), total))
    shares = [min(1.0, (step - warmup) / max(1, total - warmup)) for step in steps]
    assert factors(linear, steps, total) == [0.1 + (1.0 - 0.1) * (1.0 - each) for each in shares]
    assert factors(cosine, steps, total) == [
        0.1 + (1.0 - 0.1) * (0.5 * (1.0 + math.cos(math.pi * each))) for each in shares
    ]


def test_steps_decay_by_epochs() -> None:
    stepwise = ScheduleConfig(shape="steps", decay_every_epochs=25, decay_factor=0.1)
    found = [factor_at(stepwise, 1000, epoch, 0.5) for epoch in (0, 24, 25, 49, 50)]
    assert found == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01])


def test_a_warm_up_longer_than_the_stage_stays_finite() -> None:
    assert factors(ScheduleConfig(shape="linear", warmup_steps=20), [0, 9], total=10) == [0.05, 0.5]


class Small(nn.Module):
    """A dense layer, a norm and an embedding, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)
        self.norm = nn.LayerNorm(2)
        self.table = nn.Embedding(4, 2)
        self.double()
        draws = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draws, dtype=torch.float64))


def step_through(
    config: OptimizerConfig, steps: int = 10
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, list[Tensor]]]:
    """(parameters before, after, gradients of each step) under changing rates."""
    module = Small()
    before = {name: each.detach().clone() for name, each in module.named_parameters()}
    optimizer = build_optimizer(config, module)
    draws = torch.Generator().manual_seed(2)
    gradients: dict[str, list[Tensor]] = {name: [] for name in before}
    for step in range(steps):
        set_rate(optimizer, config, config.lr, step)
        for name, parameter in module.named_parameters():
            # Gradients of very different size, so that epsilon and the moments matter.
            scale = 10.0 ** (-step / 2)
            shape = parameter.shape
            parameter.grad = torch.randn(shape, generator=draws, dtype=torch.float64) * scale
            gradients[name].append(parameter.grad.clone())
        optimizer.step()
    return before, dict(module.named_parameters()), gradients


SPARED = {"dense.bias", "norm.weight", "norm.bias"}


# Ten steps of a dozen float64 operations agree to about 1e-14.
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_adamw_without_bias_correction_equals_the_plain_loop(eps: float) -> None:
    config = OptimizerConfig(
        method="adamw", lr=0.1, eps=eps, weight_decay=0.01, bias_correction=False
    )
    before, after, gradients = step_through(config)
    for name, start in before.items():
        expected = reference.adamw_uncorrected(
            start, gradients[name], lr=0.1, beta1=0.9, beta2=0.999, eps=eps,
            decay=0.0 if name in SPARED else 0.01,
        )  # fmt: skip
        torch.testing.assert_close(after[name].detach(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["adam", "adamw"])
def test_with_bias_correction_the_method_is_torchs(method: str) -> None:
    config = OptimizerConfig(method=method, lr=0.1, beta1=0.8, beta2=0.98, weight_decay=0.1)
    before, after, gradients = step_through(config)
    kind = torch.optim.Adam if method == "adam" else torch.optim.AdamW
    for name, start in before.items():
        twin = nn.Parameter(start.clone())
        decay = 0.0 if name in SPARED else 0.1
        optimizer = kind([twin], lr=0.1, betas=(0.8, 0.98), eps=1e-8, weight_decay=decay)
        for gradient in gradients[name]:
            twin.grad = gradient
            optimizer.step()
        torch.testing.assert_close(after[name], twin, rtol=1e-10, atol=1e-10)


def test_sgd_with_momentum_equals_the_plain_loop() -> None:
    config = OptimizerConfig(method="sgd", lr=0.1, beta1=0.9, weight_decay=0.1)
    before, after, gradients = step_through(config)
    for name, value in before.items():
        speed = torch.zeros_like(value)
        for gradient in gradients[name]:
            decay = 0.0 if name in SPARED else 0.1
            speed = 0.9 * speed + gradient + decay * value
            value = value - 0.1 * speed
        torch.testing.assert_close(after[name].detach(), value, rtol=1e-10, atol=1e-10)


def test_norms_and_biases_are_spared_weight_decay() -> None:
    module = Small()
    groups = build_optimizer(OptimizerConfig(weight_decay=0.5), module).param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    spared = {names[id(each)] for each in groups[1]["params"]}
    assert spared == SPARED
    assert {names[id(each)] for each in groups[0]["params"]} == {"dense.weight", "table.weight"}
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.5, 0.0)


def test_a_warm_up_without_bias_correction_keeps_the_decay_as_meant() -> None:
    config = OptimizerConfig(
        method="adamw", lr=0.1, weight_decay=0.01, bias_correction=False, clip_norm=5.0
    )
    module = Small()
    optimizer = build_optimizer(config, module)
    for step, rate in enumerate((0.001, 0.002, 0.1)):
        set_rate(optimizer, config, rate, step)
        group = optimizer.param_groups[0]
        assert math.isclose(group["lr"] * group["weight_decay"], rate * 0.01, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (ScheduleConfig, {"warmup_steps": -1}, "schedule: warmup_steps -1 must be 0 or more"),
        (ScheduleConfig, {"decay_every_epochs": 0}, "decay_every_epochs 0 at least 1"),
        (ScheduleConfig, {"final_factor": -0.1}, "schedule.final_factor is -0.1; it must be 0 or"),
        (
            ScheduleConfig,
            {"final_factor": float("inf")},
            "final_factor is inf; allowed: a finite",
        ),
        (
            ScheduleConfig,
            {"decay_factor": float("nan")},
            "decay_factor is nan; allowed: a finite",
        ),
        (
            OptimizerConfig,
            {"lr": float("inf")},
            "lr is inf; allowed: a finite float",
        ),
        (OptimizerConfig, {"lr": 0.0}, "optimizer.lr is 0.0; it must be above 0"),
        (
            OptimizerConfig,
            {"lr": float("nan")},
            "lr is nan; allowed: a finite float",
        ),
        (OptimizerConfig, {"beta1": 1.0}, "optimizer.beta1 is 1.0; it must be in [0, 1)"),
        (OptimizerConfig, {"beta2": -0.1}, "optimizer.beta2 is -0.1; it must be in [0, 1)"),
        (OptimizerConfig, {"eps": -1e-8}, "optimizer.eps is -1e-08; it must be 0 or more"),
        (OptimizerConfig, {"weight_decay": -0.1}, "optimizer.weight_decay is -0.1; it must be 0"),
        (OptimizerConfig, {"clip_norm": 0.0}, "optimizer.clip_norm is 0.0; it must be above 0, or"),
    ],
)
def test_rates_out_of_range_are_refused(
    kind: type, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        kind(**fields)
    assert message in str(caught.value)


def test_without_bias_correction_a_step_that_was_left_out_changes_no_rate() -> None:
    config = OptimizerConfig(method="adamw", lr=0.1, weight_decay=0.0, bias_correction=False)
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = build_optimizer(config, module)
    for step, gradient in enumerate([math.nan, 2.0]):
        set_rate(optimizer, config, config.lr, step)
        module.weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.found_inf = torch.tensor(float(math.isnan(gradient)))  # type: ignore[attr-defined]
        optimizer.step()
    # Moments 0.1 * 2 and 0.001 * 4: 1 - 0.1 * 0.2 / (0.004 ** 0.5 + 1e-8).
    assert module.weight.item() == pytest.approx(0.6837722839831, abs=1e-9)


def test_momentum_begins_with_the_first_step_that_is_taken() -> None:
    config = OptimizerConfig(method="sgd", lr=0.1, weight_decay=0.0, beta1=0.9)
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = build_optimizer(config, module)
    for step, gradient in enumerate([math.nan, 2.0, 1.0]):
        set_rate(optimizer, config, config.lr, step)
        module.weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.found_inf = torch.tensor(float(math.isnan(gradient)))  # type: ignore[attr-defined]
        optimizer.step()
    # Buffers 2 and 0.9 * 2 + 1.
    assert module.weight.item() == pytest.approx(1.0 - 0.1 * 2.0 - 0.1 * 2.8, abs=1e-12)

"""Checks that a GPU gives the CPU's numbers: draws, steps, matrix products, ranks and metrics.

`gpu_checks` runs them. Only this file of the checks takes a training step apart, in `step_of`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from baselines.sasrec import full_softmax
from experiments.gpu_parts import Outcome
from experiments.gpu_setting import NO_DROPOUT, Setting
from research.data.batch import Batch
from research.data.negatives import Negatives, NegativesConfig
from research.evaluation.candidates import AllItems
from research.evaluation.metrics import metrics
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import compare
from research.model.kernels.precision import allow_tf32, product
from research.objectives.cloze import ClozeConfig
from research.objectives.masking import MaskItems
from research.objectives.ranker import TrainedRanker
from research.objectives.sp import CutSegment, SPConfig
from research.randomness import fold
from research.runs.parts import RunParts, ranking_objective
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import build_optimizer

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Relative rounding of a factor in each precision; TF32 has the mantissa of fp16.
EPSILON = {"tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10}
CPU = torch.device("cpu")
FORMS = {
    "masks": ClozeConfig(
        corruption=MaskItems(rate=0.3, random_share=0.2, keep_share=0.2, mask_last_share=0.5)
    ),
    "rounded": ClozeConfig(
        corruption=MaskItems(count="rounded", rate=0.15, max_picked=5, last_only_share=0.1)
    ),
    "alone": SPConfig(corruption=CutSegment(placement="alone", short_rows=True)),
    "published": SPConfig(corruption=CutSegment(foreign="everything", short_rows=True)),
}
NEGATIVES = (
    NegativesConfig(),
    NegativesConfig(distribution="popularity"),
    NegativesConfig(exclude="nothing", distribution="popularity"),
    NegativesConfig(exclude="history", include_mask=True),
)


def first_batch(run_parts: RunParts) -> Batch:
    """The first batch of a run's first stage."""
    return next(run_parts.loader(run_parts.config.stages[0], 0, 1).batches(0))


def tensors_of(value: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dataclasses, mappings, tuples and lists, with its dotted path."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from tensors_of(part, f"{path}.{name}")
    elif isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from tensors_of(part, f"{path}.{index}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_of(vars(value)[field.name], f"{path}.{field.name}")


def draws(setting: Setting) -> Outcome:
    """Check that masks, segments, targets and negatives are the same on both devices."""
    run_parts, model_of_all = setting.all_objectives()
    shared = run_parts.components()
    forms = {name: config.build(shared, 0) for name, config in FORMS.items()}
    model_of_forms = MultiObjectiveModel(shared.encoder, forms, run_parts.catalogue)
    models = {"six": model_of_all, "forms": model_of_forms}
    batch = first_batch(run_parts)
    wrong: list[str] = []
    compared = 0
    for name, model in models.items():
        on_cpu = dict(tensors_of(model.prepare(batch), name))
        model.to(setting.device)
        on_device = dict(tensors_of(model.prepare(batch.to(setting.device)), name))
        compared += len(on_cpu)
        wrong += sorted(on_cpu.keys() ^ on_device.keys())
        wrong += [
            path
            for path, tensor in on_device.items()
            if path in on_cpu and not torch.equal(tensor.cpu(), on_cpu[path].cpu())
        ]
    states = fold(7, torch.arange(len(batch.users_S)))
    for config in NEGATIVES:
        negatives = Negatives(config, run_parts.catalogue)
        negatives_on_cpu = negatives.draw(states, batch.users_S, 5)
        inputs = states.to(setting.device), batch.users_S.to(setting.device)
        if not torch.equal(negatives_on_cpu, negatives.to(setting.device).draw(*inputs, 5).cpu()):
            wrong.append(f"negatives {config}")
    line = f"{compared} tensors, {len(NEGATIVES)} kinds of negatives; differ: {len(wrong)}"
    figures = {"compared": compared, "wrong": len(wrong)}
    return Outcome(passed=not wrong, line=line, figures=figures, details={"wrong": wrong})


def step_of(model: MultiObjectiveModel, batch: Batch, low: torch.dtype | None = None) -> Tensor:
    """The sum of the objectives' mean losses on a batch; it leaves gradients on the parameters.

    `low` is the type that autocast uses; None: fp32 (or the model's own type) throughout.
    """
    model.zero_grad(set_to_none=True)
    inputs = model.prepare(batch)
    with torch.autocast(batch.rows_S.device.type, low or torch.bfloat16, enabled=low is not None):
        losses = model(inputs)
    means = [loss.total / loss.count.clamp(min=1).to(loss.total) for loss in losses.values()]
    total = torch.stack(means).sum()
    total.backward()
    return total.detach()


def gradient(
    model: MultiObjectiveModel, batch: Batch, device: torch.device, low: torch.dtype | None = None
) -> Tensor:
    """The loss of a batch, followed by all gradients in one vector: float64 on the CPU.

    It is computed on `device`, under autocast to `low` if that is given.
    """
    total = step_of(model.to(device), batch.to(device), low)
    grads = [
        parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None
    ]
    return torch.cat([total[None], *grads]).double().cpu()


def distance(result: Tensor, expected: Tensor) -> float:
    """The relative difference of two results of `gradient`, without their first entry, the loss.

    It is infinite when `result` has an entry that is not finite.
    """
    relative = ((result - expected)[1:].norm() / expected[1:].norm()).item()
    return relative if result.isfinite().all() else float("inf")


def one_step(setting: Setting) -> Outcome:
    """Check that a step of all six objectives has the CPU's gradient, in fp32 and float64."""
    run_parts, model = setting.all_objectives()
    batch = first_batch(run_parts)
    figures = {}
    for name in ("fp32", "float64"):
        model = model.to(torch.float32 if name == "fp32" else torch.float64)
        on_cpu = gradient(model, batch, CPU)
        figures[name] = distance(gradient(model, batch, setting.device), on_cpu)
    # The bounds allow rounding in sums of some thousand terms; a wrong mask or position makes a
    # difference of 1e-2 or more.
    passed = figures["fp32"] < 1e-4 and figures["float64"] < 1e-10
    line = f"gradients differ by {figures['fp32']:.1e} in fp32, {figures['float64']:.1e} in float64"
    return Outcome(passed=passed, line=line, figures=figures)


def low_step(setting: Setting) -> Outcome:
    """Check that a step of all six objectives in low precision is near the fp32 one.

    Products of low-precision matrices must be fp32 tensors.
    """
    figures = {}
    run_parts, model = setting.all_objectives()
    batch = first_batch(run_parts)
    in_fp32 = gradient(model, batch, setting.device)
    for name, low in LOW.items():
        first, second = (torch.randn(300, 200, device=setting.device).to(low) for _ in range(2))
        exact = first.double() @ second.double().T
        result = product(first, second.T)
        assert result.dtype == torch.float32, "a product in low precision ends in fp32"
        figures[f"product {name}"] = ((result.double() - exact).norm() / exact.norm()).item()
        figures[name] = distance(gradient(model, batch, setting.device, low), in_fp32)
    allow_tf32(True)
    try:
        figures["tf32"] = distance(gradient(model, batch, setting.device), in_fp32)
    finally:
        allow_tf32(False)
    passed = all(figures[name] < 16 * epsilon for name, epsilon in EPSILON.items())
    if setting.gpu:
        # A CPU rounds the products to bf16 and has no TF32. A GPU must do neither: its products
        # are exact to fp32, and its TF32 step differs from the fp32 one.
        passed = passed and all(figures[f"product {name}"] < 1e-5 for name in LOW)
        passed = passed and figures["tf32"] > 1e-6
    line = ", ".join(f"{name} {value:.1e}" for name, value in figures.items())
    return Outcome(passed=passed, line=f"relative differences: {line}", figures=figures)


def twenty_steps(setting: Setting) -> Outcome:
    """Check that twenty steps of SASRec without dropout have the CPU's losses on the device."""
    config = setting.config(full_softmax(), NO_DROPOUT)
    losses = {}
    for name, device in (("CPU", CPU), ("device", setting.device)):
        run_parts = RunParts.of(config, setting.data_root)
        stage = run_parts.config.stages[0]
        model = run_parts.model(stage, run_parts.components()).train().to(device)
        optimizer = build_optimizer(stage.optimizer, model)
        stream = run_parts.loader(stage, 0, 1).stream(0)
        step_losses = []
        for batch in (next(stream) for _ in range(20)):
            step_losses.append(step_of(model, batch.to(device)))
            optimizer.step()
        losses[name] = torch.stack(step_losses).double().cpu()
    max_difference = ((losses["device"] - losses["CPU"]) / losses["CPU"]).abs().max().item()
    first, last = (losses["device"][index].item() for index in (0, -1))
    line = f"losses {first:.4f} to {last:.4f}, {max_difference:.1e} apart at most"
    # Adam divides by small numbers at first, so rounding errors grow from step to step.
    return Outcome(
        passed=max_difference < 1e-3 and last < first, line=line, figures={"apart": max_difference}
    )


def ranks(setting: Setting) -> Outcome:
    """Check that a model ranks test items among all items on the device as on the CPU.

    Nine of ten ranks must be equal, and NDCG@10 within 1e-3.
    """
    run_parts = RunParts.of(setting.config(full_softmax(), NO_DROPOUT), setting.data_root)
    shared = run_parts.components()
    model = run_parts.model(run_parts.config.stages[0], shared)
    objective = ranking_objective(run_parts.config.stages[0], model)
    assert objective is not None, "the next item ranks"
    ranker = TrainedRanker(shared.encoder, objective)
    on_cpu = run_parts.tables(ranker, "test", [AllItems()])["full"]
    model.to(setting.device)
    on_device = run_parts.tables(ranker, "test", [AllItems()])["full"]
    is_ranked = on_cpu.rank < float("inf")
    moved = abs(on_device.rank[is_ranked] - on_cpu.rank[is_ranked])
    device_value, cpu_value = (
        metrics(table, ("ndcg@10",))["ndcg@10"] for table in (on_device, on_cpu)
    )
    figures = {
        "same": float((moved == 0.0).mean()),
        "farthest": float(moved.max()),
        "ndcg@10 apart": abs(device_value - cpu_value),
    }
    line = f"{figures['same']:.2%} of {len(is_ranked)} ranks are the same, the farthest "
    line += f"{figures['farthest']:.0f} away; NDCG@10 {figures['ndcg@10 apart']:.1e} apart"
    # Rounding can swap items of nearly equal scores, which are neighbours in the ranking.
    passed = figures["same"] > 0.9 and figures["ndcg@10 apart"] < 1e-3
    passed = passed and bool(((on_device.rank < float("inf")) == is_ranked).all())
    return Outcome(passed=passed, line=line, figures=figures)


def low_figures(setting: Setting) -> Outcome:
    """Check that NDCG@10 of runs in bf16 and TF32 does not differ significantly from fp32.

    The comparison is paired by user and seed.
    """
    epochs, seeds = (2, 2) if setting.tiny else (20, 3)
    tables: dict[str, list[RankTable]] = {"fp32": [], "tf32": [], "bf16": []}
    figures: dict[str, float] = {}
    for precision, tables_of_precision in tables.items():
        seconds = 0.0
        for seed in range(seeds):
            changes = {"compute.precision": precision, "seed": seed, "stages.0.epochs": epochs}
            run = setting.run(f"{precision}-{seed}", changes)
            tables_of_precision.append(run.table)
            seconds += run.seconds
        figures[f"{precision} seconds"] = seconds
    lines, passed = [], True
    for name in ("tf32", "bf16"):
        comparison = compare(tables[name], tables["fp32"], "ndcg@10")
        figures |= {f"{name} difference": comparison.difference, f"{name} p": comparison.p}
        figures |= {f"{name} low": comparison.low, f"{name} high": comparison.high}
        interval = f"[{comparison.low:+.4f}, {comparison.high:+.4f}]"
        lines.append(
            f"{name} - fp32: {comparison.difference:+.4f} {interval}, p {comparison.p:.2f}"
        )
        passed = passed and not comparison.significant(comparison.p)
    line = f"NDCG@10 after {epochs} epochs, {seeds} seeds: {'; '.join(lines)}"
    return Outcome(passed=passed, line=line, figures=figures)

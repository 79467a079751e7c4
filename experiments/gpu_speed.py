"""What a training step costs on a GPU: time, operations, synchronizations, kernels and memory.

The workloads are those of experiments/benchmark/works.py, and a BERT4Rec of MovieLens-20M's size.
The real training loop runs them; a hook after each optimizer step switches between the phases of a
measurement.
"""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from baselines.s3rec import published_objectives
from baselines.sasrec import bce
from experiments.benchmark.works import bert4rec, long_sasrec, s3rec_pretraining, sasrec
from experiments.gpu_parts import Outcome, Part
from experiments.gpu_setting import BEAUTY, ML_1M, ML_20M, Setting
from research.data.loader import BatchConfig
from research.distributed.accelerator import accelerator_for
from research.evaluation.candidates import AllItems
from research.model.compute import graphs_compiled
from research.model.transformer_config import TransformerConfig
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig
from research.runs.parts import RunParts, ranking_objective, stage_parts
from research.storage.run_folder import RunFolder
from research.training.limits import Limits
from research.training.loop import train
from research.training.stage_run import StageRun

PRECISIONS = ("fp32", "tf32", "bf16")
SYNC_WARNING = "called a synchronizing CUDA operation"
# Operations of torch that start no work on the GPU: views, and allocations without content.
NO_WORK = {
    "view", "_unsafe_view", "_reshape_alias", "t", "transpose", "slice", "select", "expand",
    "unsqueeze", "squeeze", "split", "split_with_sizes", "detach", "alias", "permute", "as_strided",
    "unbind", "unfold", "diagonal", "lift_fresh", "empty", "empty_like", "empty_strided",
    "new_empty", "new_empty_strided",
}  # fmt: skip


def large_bert4rec() -> RunConfig:
    """W3's model at width 256 and length 200, 256 rows a batch."""
    config = bert4rec()
    wide = TransformerConfig(length=200, width=256, heads=4, feed_forward=1024)
    stage = replace(config.stages[0], batches=BatchConfig(sequences_per_batch=256))
    return replace(config, encoder=wide, stages=(stage,))


WORKLOADS: Mapping[str, tuple[str, Callable[[], RunConfig]]] = {
    "W1": (BEAUTY, sasrec),
    "W2": (BEAUTY, lambda: s3rec_pretraining(published_objectives())),
    "W3": (BEAUTY, bert4rec),
    "W4": (ML_1M, long_sasrec),
    "W5": (BEAUTY, bce),
    "ML-20M": (ML_20M, large_bert4rec),
}


@dataclass(frozen=True)
class Phase:
    """A number of optimizer steps that are done within a context."""

    steps: int
    context: Callable[[], AbstractContextManager[object]]


class Phases:
    """A hook to call after each step: when a phase's steps are done, it enters the next phase."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        """Enter the first phase."""
        self.total = sum(phase.steps for phase in phases)
        self._remaining = list(phases)
        self._steps_left = 0
        self._context = ExitStack()
        self._begin()

    def __call__(self, *_: object) -> None:
        self._steps_left -= 1
        if self._steps_left == 0:
            self._context.close()
            self._begin()

    def _begin(self) -> None:
        if self._remaining:
            phase = self._remaining.pop(0)
            self._steps_left = phase.steps
            self._context.enter_context(phase.context())

    def close(self) -> None:
        """Leave the current phase, if a failure has left one open."""
        self._context.close()


@contextmanager
def timing(setting: Setting, figures: dict[str, float], name: str) -> Iterator[None]:
    """A context whose wall time in seconds becomes `figures[name]`; it waits for the GPU's work."""
    setting.synchronize()
    started = time.perf_counter()
    yield
    setting.synchronize()
    figures[name] = time.perf_counter() - started


class Operations(TorchDispatchMode):
    """Counts torch's operations on a type of device, except those of `NO_WORK`."""

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.count = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result: object = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in NO_WORK:
            leaves = tree_leaves((args, kwargs, result))
            tensors = (tensor for tensor in leaves if isinstance(tensor, torch.Tensor))
            self.count += any(tensor.device.type == self.device for tensor in tensors)
        return result


@contextmanager
def counting(setting: Setting, steps: int, measured: Measured, *, compiled: bool) -> Iterator[None]:
    """A context that counts operations per step, and on a GPU how often the host waits for it.

    It puts both into `measured`, with the lines of code that wait. Operations of compiled code are
    not counted, as counting would prevent the compilation.
    """
    operations = Operations(setting.device.type)
    with ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        if setting.gpu:
            torch.cuda.set_sync_debug_mode("warn")
            stack.callback(torch.cuda.set_sync_debug_mode, "default")
        if not compiled:
            stack.enter_context(operations)
        yield
    if not compiled:
        measured.figures["operations"] = operations.count / steps
    if setting.gpu:
        lines = count_waits(caught)
        measured.figures["waits"] = lines.total() / steps
        measured.details["waits"] = {line: count / steps for line, count in lines.most_common()}


def count_waits(caught: Sequence[warnings.WarningMessage]) -> Counter[str]:
    """How often each line of code waited for the GPU, counted from torch's warnings.

    A line's path begins at its package.
    """
    prefix = re.compile(r".*/(?=(?:research|baselines|experiments|torch|accelerate)/)")
    return Counter(
        f"{prefix.sub('', warning.filename)}:{warning.lineno}"
        for warning in caught
        if SYNC_WARNING in str(warning.message)
    )


@contextmanager
def profiling(setting: Setting, steps: int, measured: Measured) -> Iterator[None]:
    """A context that puts kernels per step, their GPU time and the 20 longest into `measured`."""
    kinds = torch.profiler.ProfilerActivity
    activities = [kinds.CUDA if setting.gpu else kinds.CPU]
    # Without acc_events torch 2.11 warns that it forgets the events of earlier cycles.
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        yield
        setting.synchronize()
    rows = [
        (event.self_device_time_total if setting.gpu else event.self_cpu_time_total, event)
        for event in profile.key_averages()
    ]
    rows = [(micros, event) for micros, event in rows if micros > 0.0]
    rows.sort(key=lambda row: -row[0])
    measured.figures["kernels"] = sum(event.count for _, event in rows) / steps
    measured.figures["busy ms"] = sum(micros for micros, _ in rows) / steps / 1e3
    measured.details["longest"] = [
        {"kernel": event.key[:160], "ms": micros / steps / 1e3, "count": event.count / steps}
        for micros, event in rows[:20]
    ]


@dataclass(frozen=True)
class Measured:
    """What was measured of a workload."""

    figures: dict[str, float]
    details: dict[str, object]


def train_phases(
    setting: Setting, workload: str, changes: Mapping[str, object], phases: Sequence[Phase]
) -> int:
    """Train a workload's first stage through the phases; returns the steps of one epoch of it."""
    corpus, recipe = WORKLOADS[workload]
    config = setting.config(recipe(), changes, corpus)
    run_parts = RunParts.of(config, setting.data_root)
    accelerator = accelerator_for(None, config.compute, str(setting.device))
    stage = stage_parts(run_parts, accelerator)[0]
    with tempfile.TemporaryDirectory() as scratch, setting.compiling():
        observed = Phases(phases)
        short = replace(
            stage.config,
            epochs=None,
            steps=observed.total,
            tokens=None,
            seconds=None,
            validation=None,
        )
        hook = register_optimizer_step_post_hook(observed)
        try:
            folder = RunFolder(Path(scratch))
            run = StageRun(
                accelerator=accelerator,
                folder=folder,
                seed=config.seed,
                quiet=True,
                checks_targets=False,
            )
            train(stage.model, stage.loader, short, run)
        finally:
            hook.remove()
            observed.close()
            accelerator.free_memory()
    epoch = replace(stage.config, epochs=1, steps=None, tokens=None)
    return int(Limits.of(epoch, stage.loader.num_rows).steps)


def step_cost(setting: Setting, workload: str, precision: str, compiled: bool) -> Outcome:
    """Measure milliseconds a step and seconds an epoch over many steps, and counts over a few.

    The counts are of operations and of waits for the GPU. "first seconds" is the time of the first
    steps, which includes compilation and allocation.
    """
    warm, timed, counted = (2, 3, 2) if setting.tiny else (10, 100, 10)
    measured = Measured({}, {})
    setting.reset_memory()
    graphs = graphs_compiled()
    phases = (
        Phase(warm, partial(timing, setting, measured.figures, "first seconds")),
        Phase(timed, partial(timing, setting, measured.figures, "seconds")),
        Phase(counted, partial(counting, setting, counted, measured, compiled=compiled)),
    )
    changes = {"compute.precision": precision, "compute.compile": compiled}
    steps = train_phases(setting, workload, changes, phases)
    figures = measured.figures
    figures["ms"] = 1e3 * figures.pop("seconds") / timed
    figures |= {"steps": timed, "steps an epoch": steps, "MB": setting.peak_megabytes()}
    figures["epoch seconds"] = figures["ms"] * steps / 1e3
    figures["graphs"] = graphs_compiled() - graphs
    names = ("ms", "epoch seconds", "first seconds", "operations", "waits", "MB", "graphs")
    line = ", ".join(f"{name} {figures[name]:,.4g}" for name in names if name in figures)
    return Outcome(passed=None, line=line, figures=figures, details=measured.details)


def kernels(setting: Setting, workload: str, precision: str) -> Outcome:
    """Measure a step's kernels on the GPU: how many, for how long, and which take the longest."""
    warm, counted = (2, 1) if setting.tiny else (10, 5)
    measured = Measured({}, {})
    phases = (
        Phase(warm, partial(timing, setting, measured.figures, "first seconds")),
        Phase(counted, partial(profiling, setting, counted, measured)),
    )
    changes = {"compute.precision": precision}
    train_phases(setting, workload, changes, phases)
    line = (
        f"{measured.figures['kernels']:,.0f} kernels, busy for {measured.figures['busy ms']:.3f} ms"
    )
    return Outcome(passed=None, line=line, figures=measured.figures, details=measured.details)


def ranking(setting: Setting, workload: str, times: int) -> Outcome:
    """Measure the seconds to rank every test item among all items: the first time, and the best."""
    corpus, recipe = WORKLOADS[workload]
    run_parts = RunParts.of(setting.config(recipe(), {}, corpus), setting.data_root)
    accelerator_for(None, run_parts.config.compute, str(setting.device))
    shared = run_parts.components()
    model = run_parts.model(run_parts.config.stages[0], shared).to(setting.device)
    objective = ranking_objective(run_parts.config.stages[0], model)
    assert objective is not None, "a work that is ranked ends with one"
    setting.reset_memory()
    seconds: dict[str, float] = {}
    for number in range(times):
        with timing(setting, seconds, str(number)):
            run_parts.tables(TrainedRanker(shared.encoder, objective), "test", [AllItems()])
    figures = {
        "seconds": min(seconds.values()),
        "first": seconds["0"],
        "MB": setting.peak_megabytes(),
    }
    figures["questions"] = len(run_parts.split.test)
    line = f"{figures['seconds']:.3f} s for {figures['questions']:,} questions"
    return Outcome(passed=None, line=line, figures=figures)


def generate_corpus(setting: Setting) -> Outcome:
    """Generate the corpus of MovieLens-20M's size, once for all parts that follow."""
    seconds: dict[str, float] = {}
    with timing(setting, seconds, "seconds"):
        setting.corpus(ML_20M)
    return Outcome(passed=None, line=f"made in {seconds['seconds']:.1f} s", figures=seconds)


def parts() -> dict[str, Part]:
    """The parts of `speed` by name, the most important first, as time may run out at the end."""
    beauty = [workload for workload in WORKLOADS if workload != "ML-20M"]
    by_name: dict[str, Part] = {}

    def add(workloads: Sequence[str], precision: str, compiled: bool, seconds: float) -> None:
        for workload in workloads:
            name = f"{workload} {precision}" + " compiled" * compiled
            run = partial(step_cost, workload=workload, precision=precision, compiled=compiled)
            by_name[name] = Part(run, seconds)

    for precision in PRECISIONS:
        add(beauty, precision, False, 20.0)
    by_name["W6"] = Part(partial(ranking, workload="W1", times=3), 20.0)
    by_name["corpus of ML-20M's size"] = Part(generate_corpus, 60.0)
    for precision in PRECISIONS[::-1]:
        add(["ML-20M"], precision, False, 30.0)
    for workload in WORKLOADS:
        run = partial(kernels, workload=workload, precision="bf16")
        by_name[f"{workload} kernels"] = Part(run, 20.0)
    by_name["ML-20M ranking"] = Part(partial(ranking, workload="ML-20M", times=2), 40.0)
    for precision in PRECISIONS[::-1]:
        add(list(WORKLOADS), precision, True, 40.0)
    return by_name

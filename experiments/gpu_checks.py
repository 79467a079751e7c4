"""Does a GPU compute what the CPU computes, and how fast? These checks need a machine with a GPU.

Commands, each planned for less than 6 minutes on an H100 and ended by --minutes (5.5):
    python -m experiments.gpu_checks correctness --out correctness.json
    python -m experiments.gpu_checks speed --out speed.json
On a machine without a network, bring data/corpora/Beauty and data/corpora/ml-1m-sas, made as
    experiments/beauty.py and experiments/ml_1m.py say (parts that need an absent one are left out).
    W&B's client, matplotlib and jinja2 are not needed. torch 2.11 to 2.15.
Hardware: one large GPU (written for H100 and H200).
Expected: every line says PASS, or gives figures (FIGURE); exit code 0. A part that fails, raises or
    takes too long does not stop the others; the exit code is then 1. The file has the machine, the
    versions, the corpora's fingerprints, the command and every figure, and is complete after each
    part. `--only NAME ...` takes the parts whose names begin with one of these. `--device cpu
    --tiny` tries the script without a GPU on a generated corpus: it compares the CPU with itself,
    and leaves out what only a GPU can do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from experiments import gpu_speed
from experiments.gpu_numerics import draws, low_figures, low_step, one_step, ranks, twenty_steps
from experiments.gpu_parts import Outcome, Part, run_all
from experiments.gpu_setting import BEAUTY, PartSkipped, RunResult, Setting
from research.distributed.accelerator import make_accelerator
from research.errors import InputError


def fp16_run(setting: Setting) -> Outcome:
    """Check that a short fp16 run under loss scaling ends at the loss of an fp32 run."""
    if not setting.gpu:
        raise PartSkipped("needs a GPU")
    plain = setting.short_run("fp16-plain", {})
    scaled = setting.short_run("fp16", {"compute.precision": "fp16"})
    # Loss scaling may skip the first steps until its scale fits; so only last losses are compared.
    last, plain_last = scaled.losses[-1], plain.losses[-1]
    difference = abs(last - plain_last) / plain_last
    line = f"last losses {last:.4f} and {plain_last:.4f}, {difference:.1%} apart"
    return Outcome(passed=difference < 0.05, line=line, figures={"apart": difference})


def compilation(setting: Setting) -> Outcome:
    """Check that compiled runs have the losses of plain ones, and compile two graphs, each once.

    Batches have different sizes, which must not compile a graph again.
    """
    batches = {"sequences_per_batch": None, "tokens_per_batch": 100 if setting.tiny else 4096}
    tokens = {f"stages.0.batches.{name}": size for name, size in batches.items()}
    figures: dict[str, float] = {}
    passed = True
    with setting.compiling():
        for precision, tolerance in (("fp32", 1e-2), ("bf16", 3e-2)):
            changes = {**tokens, "compute.precision": precision}
            plain = setting.short_run(f"plain-{precision}", changes)
            built = setting.short_run(f"built-{precision}", {**changes, "compute.compile": True})
            figures[f"{precision} apart"] = built.max_difference(plain)
            figures[f"{precision} graphs"] = built.graphs
            figures[f"{precision} plain rate"] = plain.rate
            figures[f"{precision} compiled rate"] = built.rate
            # Compiled code sums in another order, and three epochs of steps enlarge the difference.
            passed &= built.graphs == 2 and built.max_difference(plain) < tolerance
    return Outcome(passed=passed, line=figures_text(figures), figures=figures)


def recomputation(setting: Setting) -> Outcome:
    """Check that recomputing blocks keeps the losses; measure what it saves in memory and costs."""
    deep = {"encoder.layers": 4, "stages.0.steps": 30, "stages.0.epochs": None}
    if not setting.tiny:
        deep |= {"encoder.width": 256, "encoder.feed_forward": 1024, "encoder.heads": 4}
        deep["stages.0.batches.sequences_per_batch"] = 4096
    plain = setting.short_run("kept", deep)
    saved = setting.short_run("recomputed", {**deep, "compute.recompute": True})
    figures = {
        "apart": saved.max_difference(plain),
        "plain MB": plain.megabytes,
        "recomputed MB": saved.megabytes,
        "plain rate": plain.rate,
        "recomputed rate": saved.rate,
    }
    # A GPU sums the gradients of an embedding table's rows in no fixed order, so losses may differ.
    return Outcome(passed=figures["apart"] < 1e-3, line=figures_text(figures), figures=figures)


def determinism(setting: Setting) -> Outcome:
    """Check that two deterministic runs end with equal bits; measure what the switch costs.

    It also counts the parameters in which two runs without the switch differ.
    """
    changes: dict[str, object] = {"stages.0.steps": 60, "stages.0.epochs": None}
    changes |= {"encoder.hidden_dropout": 0.2, "encoder.attention_dropout": 0.2}
    fixed = {**changes, "compute.deterministic": True}
    first, second = (setting.short_run(f"fixed-{number}", fixed) for number in (1, 2))
    free = [setting.short_run(f"free-{number}", changes) for number in (1, 2)]
    figures = {
        "deterministic differs in": count_differing(first, second),
        "plain differs in": count_differing(*free),
        "deterministic rate": first.rate,
        "plain rate": free[0].rate,
    }
    passed = figures["deterministic differs in"] == 0
    return Outcome(passed=passed, line=figures_text(figures), figures=figures)


def count_differing(first: RunResult, second: RunResult) -> int:
    """The number of parameters that are not equal to the last bit in two runs."""
    tensors, other_tensors = (
        load_file(next(run.folder.glob("stages/train/*/model.safetensors")))
        for run in (first, second)
    )
    return sum(not torch.equal(tensor, other_tensors[name]) for name, tensor in tensors.items())


def launcher_run(setting: Setting) -> Outcome:
    """Check that a run of one process under Accelerate's launcher and NCCL works."""
    if not setting.gpu:
        raise PartSkipped("needs a GPU")
    flags = ["--multi_gpu", "--num_machines", "1", "--num_processes", "1"]
    launch = ["-m", "accelerate.commands.launch", *flags, "-m", "research", "run"]
    folder = setting.scratch / "launched"
    options = ["--out", str(folder), "--expect-world", "1", "--data-root", setting.data_root]
    fields = [f"corpus={setting.corpus(BEAUTY)}", "stages.0.epochs=1"]
    command = [sys.executable, *launch, "baselines.sasrec:full_softmax", *options, *fields]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    line = f"exit code {done.returncode}" + (done.stderr[-300:] if done.returncode else "")
    passed = done.returncode == 0 and (folder / "summary.json").is_file()
    return Outcome(passed=passed, line=line, figures={"code": done.returncode})


def figures_text(figures: Mapping[str, float]) -> str:
    """Figures as text for the terminal."""
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def correctness() -> dict[str, Part]:
    """The parts of `correctness` by name, with their limits in seconds; the quick ones first."""
    return {
        "draws": Part(draws, 40.0),
        "one step": Part(one_step, 40.0),
        "one step in low precision": Part(low_step, 40.0),
        "twenty steps": Part(twenty_steps, 60.0),
        "ranks": Part(ranks, 40.0),
        "determinism": Part(determinism, 60.0),
        "recomputation": Part(recomputation, 40.0),
        "fp16": Part(fp16_run, 40.0),
        "launcher": Part(launcher_run, 130.0),
        "compilation": Part(compilation, 120.0),
        "low precision against fp32": Part(low_figures, 150.0),
    }


COMMANDS: Mapping[str, Callable[[], dict[str, Part]]] = {
    "correctness": correctness,
    "speed": gpu_speed.parts,
}


def main(arguments: list[str]) -> int:
    """Do the parts of a command and print a line for each.

    Returns exit code 0 when none failed and all were done in time, 1 when not, and 2 for wrong
    arguments.
    """
    parser = argparse.ArgumentParser(prog="experiments.gpu_checks", allow_abbrev=False)
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all figures")
    parser.add_argument("--data-root", default="data", help="where corpora lie")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="on a generated corpus")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts whose names begin so")
    parser.add_argument("--minutes", type=float, default=5.5, help="most time for all parts")
    options = parser.parse_args(arguments)
    parts = COMMANDS[options.command]()
    if options.only:
        parts = {name: part for name, part in parts.items() if name.startswith(tuple(options.only))}
    if not parts:
        print(f"no part begins with {' or '.join(options.only)}", file=sys.stderr)
        return 2
    try:
        device = make_accelerator(device=options.device).device
    except InputError as error:
        print(f"{error}; --device cpu --tiny tries the script itself", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(
            device=device, tiny=options.tiny, data_root=options.data_root, scratch=Path(scratch)
        )
        command = ["python", "-m", "experiments.gpu_checks", *arguments]
        return int(not run_all(parts, setting, options.out, options.minutes, command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The verb `doctor`: versions, packages, devices, threads, launchers, W&B and disks, checked.

Each check gives findings as those of `audit`; none changes anything or asks a server.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from packaging.requirements import Requirement

from research.cli.doctor_verb import DoctorCommand
from research.cli.findings import tell
from research.cli.version import version_line
from research.data.findings import Finding, Level
from research.distributed.cores import usable_cores
from research.distributed.launcher_environment import launcher_name, several_were_asked_for
from research.errors import InputError
from research.runs.provenance import cpu_model, versions
from research.studies.shadowing import hidden_message, hidden_packages
from research.tracking.config import Tracking
from research.tracking.options import needing_wandb

GIGABYTE = 1e9
# A checkpoint of a million items at width 128 takes 1.5 GB, and two are kept beside the best.
WARNED_GIGABYTES = 5.0
PROBLEM_GIGABYTES = 0.2
# What a launcher gives each of its processes; several of them mean nothing without one.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Accelerate's own ways of splitting models, which runs refuse.
SPLITTING_VARIABLES = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def doctor(arguments: DoctorCommand) -> int:
    """Print what was found; returns 1 if there is a problem, else 0."""
    findings = [
        *of_versions(),
        *of_packages(),
        *of_devices(),
        *of_threads(),
        *of_launchers(),
        *of_wandb(),
        *of_disk("runs", Path(arguments.runs)),
        *of_disk("data", Path(arguments.data_root)),
    ]
    facts = {"version": version_line(), "folder": os.getcwd()} if arguments.json else None
    return tell(findings, heading=f"{version_line()}, in {os.getcwd()}", facts=facts)


def finding(check: str, level: Level, sentence: str, **numbers: float) -> Finding:
    """A finding in one line."""
    return Finding(check=check, level=level, sentence=sentence, numbers=numbers)


def of_versions() -> Iterator[Finding]:
    """Python, and each package that Sixfold needs, beside the versions that it allows."""
    yield finding("python", "fine", f"{platform.python_version()} on {platform.platform()}")
    try:
        metadata = importlib.metadata.metadata("sixfold")
    except importlib.metadata.PackageNotFoundError:
        told = ", ".join(f"{name} {version}" for name, version in versions().items())
        remedy = "`pip install -e .` in its checkout installs it"
        yield finding(
            "packages", "warning", f"Sixfold runs without being installed; {remedy} ({told})"
        )
        return
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    extras: dict[str, list[Requirement]] = {
        name: [] for name in metadata.get_all("Provides-Extra", [])
    }
    for requirement in requirements:
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            yield of_requirement(requirement)
            continue
        for name, needed in extras.items():
            if marker.evaluate({"extra": name}):
                needed.append(requirement)
    complete = [
        name
        for name, needed in extras.items()
        if needed and all(of_requirement(each).level == "fine" for each in needed)
    ]
    missing = [name for name, needed in extras.items() if needed and name not in complete]
    lists = [
        f"{word}: {', '.join(names)}"
        for word, names in (("installed", complete), ("not installed", missing))
        if names
    ]
    yield finding("extras", "fine", "; ".join(lists) or "there are none")


def of_requirement(requirement: Requirement) -> Finding:
    """Whether a package is installed in a version that is allowed."""
    remedy = f'pip install "{requirement.name}{requirement.specifier}"'
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return finding(requirement.name, "problem", f"is not installed; {remedy}")
    allowed = str(requirement.specifier) or "any"
    if not requirement.specifier.contains(version, prereleases=True):
        return finding(requirement.name, "problem", f"{version}; allowed: {allowed}; {remedy}")
    built = torch.__version__ if requirement.name == "torch" else version
    return finding(requirement.name, "fine", f"{built} (allowed: {allowed})")


def of_packages() -> Iterator[Finding]:
    """Packages and modules that hide ours of the same name."""
    hidden = hidden_packages()
    for name in hidden:
        # Runs need `research` and `baselines`; of `experiments` one may well have one's own.
        level: Level = "warning" if name == "experiments" else "problem"
        yield finding("hidden package", level, str(hidden_message(name)))
    if not hidden:
        yield finding("hidden package", "fine", "research, baselines and experiments are Sixfold's")


def of_devices() -> Iterator[Finding]:
    """The processor, and the GPUs that torch sees or misses."""
    yield finding("processor", "fine", f"{cpu_model()}, {os.cpu_count()} cores")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    limited = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r}"
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            memory = facts.total_memory / GIGABYTE
            sentence = f"cuda:{number}, {facts.name}, {memory:.0f} GB{limited}"
            yield finding("GPU", "fine", sentence, gigabytes=memory)
    elif has_nvidia_driver() and torch.version.cuda is None:
        sentence = (
            f"this machine has an NVIDIA driver, but torch {torch.__version__} was built for the "
            "CPU alone; install a build of torch for CUDA"
        )
        yield finding("GPU", "warning", sentence)
    elif has_nvidia_driver():
        sentence = (
            "this machine has an NVIDIA driver, but torch sees no GPU; the driver may be older "
            f"than CUDA {torch.version.cuda} needs{limited}"
        )
        yield finding("GPU", "warning", sentence)
    else:
        yield finding("GPU", "fine", f"torch sees none; runs use the CPU{limited}")


def has_nvidia_driver() -> bool:
    """Whether the driver of NVIDIA's GPUs is loaded (on Linux)."""
    return Path("/proc/driver/nvidia/version").is_file() or Path("/dev/nvidiactl").exists()


def of_threads() -> Iterator[Finding]:
    """The threads that torch takes, beside the cores that this process may use."""
    cores, threads = usable_cores(), torch.get_num_threads()
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    told = ", ".join(given) or "OMP_NUM_THREADS is not set"
    sentence = f"torch takes {threads} of {cores:g} cores that this process may use ({told})"
    numbers = {"cores": cores, "threads": float(threads)}
    if threads > cores:
        remedy = f"set OMP_NUM_THREADS={max(1, int(cores))}, or give --threads"
        yield finding("threads", "warning", f"{sentence}; more are slower; {remedy}", **numbers)
    elif threads == 1 and cores >= 2 and given:
        remedy = "unset it, or give --threads, unless several processes share this machine"
        yield finding("threads", "warning", f"{sentence}; {remedy}", **numbers)
    else:
        yield finding("threads", "fine", sentence, **numbers)


def of_launchers() -> Iterator[Finding]:
    """What `accelerate launch` reads beside its command line, and what a launcher left behind."""
    findings = [*_of_accelerate(), *_of_rank_variables()]
    yield from findings or [
        finding("launchers", "fine", "no stored configuration and no variables of a launcher")
    ]


def _of_accelerate() -> Iterator[Finding]:
    from accelerate.commands.config.config_args import default_config_file

    if Path(default_config_file).is_file():
        sentence = (
            f"{default_config_file}: `accelerate launch` takes processes, GPUs and "
            "machines from it where its command line does not say; give --multi_gpu, "
            "--num_machines and --num_processes (its precision and compilation have no say)"
        )
        yield finding("accelerate config", "warning", sentence)
    for name in SPLITTING_VARIABLES:
        if os.environ.get(name, "").lower() in ("1", "true", "yes"):
            sentence = f"{name} is set, and runs refuse it; unset it (see compute.shard_weights)"
            yield finding("launcher variables", "problem", sentence)


def _of_rank_variables() -> Iterator[Finding]:
    given = [f"{name}={os.environ[name]}" for name in RANK_VARIABLES if name in os.environ]
    if several_were_asked_for():
        sentence = (
            "`accelerate launch` was asked for several processes and has begun one: it begins no "
            "more with --cpu, nor without --multi_gpu"
        )
        yield finding("launcher variables", "problem", sentence)
    elif given and launcher_name() is None:
        sentence = (
            f"{', '.join(given)}, without a launcher: a run would take itself for one of several "
            "processes and wait for the others; unset them, unless each process is given its own"
        )
        alone = os.environ.get("WORLD_SIZE", "1") in ("", "1")
        yield finding("launcher variables", "warning" if alone else "problem", sentence)
    elif given:
        yield finding("launcher variables", "fine", f"{', '.join(given)}, of {launcher_name()}")


def of_wandb() -> Iterator[Finding]:
    """Whether W&B's client is there, whether it has a key, and what `--wandb` would do."""
    try:
        with needing_wandb():
            from research.tracking.wandb_mirror import resolve_mode
            from research.tracking.wandb_run import has_key
    except InputError as error:
        yield finding("W&B", "problem", str(error))
        return
    configured = has_key()
    tracking = resolve_mode(Tracking(mode="auto" if configured else "offline"))
    mode = "WANDB_MODE is disabled, so it mirrors nothing" if tracking is None else tracking.mode
    key = "a key is configured" if configured else "no key is configured (`wandb login`)"
    server = os.environ.get("WANDB_BASE_URL")
    where = "" if server is None else f"; WANDB_BASE_URL is {server.rpartition('@')[2]}"
    yield finding("W&B", "fine", f"{key}; --wandb: {mode}{where}")


def of_disk(name: str, folder: Path) -> Iterator[Finding]:
    """Whether a folder, or the nearest one above it that exists, can be written and has room."""
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    try:
        free = shutil.disk_usage(place).free / GIGABYTE
    except OSError as error:
        yield finding(f"disk of {name}", "problem", f"{place}: {error}")
        return
    sentence = f"{place}: {free:,.1f} GB free"
    level: Level = "fine"
    if not os.access(place, os.W_OK):
        level, sentence = "problem", f"{place} cannot be written; ask for the right to write there"
    elif free < PROBLEM_GIGABYTES:
        level, sentence = "problem", f"{sentence}; make room"
    elif free < WARNED_GIGABYTES:
        level, sentence = "warning", f"{sentence}; large corpora and checkpoints may not fit"
    yield finding(f"disk of {name}", level, sentence, gigabytes=free)

"""The command line of the benchmark; `experiments/benchmark/__init__.py` describes it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from experiments.benchmark.against import compare_with
from experiments.benchmark.figure import seconds_svg
from experiments.benchmark.measure import copy_rate, product_rate
from experiments.benchmark.ours import run
from experiments.benchmark.peers.environment import PEERS
from experiments.benchmark.results import Spread
from experiments.benchmark.rounds import Rounds, Setting, absent_corpus, measure
from experiments.benchmark.table import markdown
from experiments.benchmark.works import WORKS
from research.runs.provenance import cpu_model

REFERENCE_GFLOPS = 325.0


def count_of(text: str) -> int:
    """A number of 1 or more; argparse's error otherwise."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} given; allowed: 1, 2, ...")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The options; those that processes of the benchmark give one another are not shown."""
    options = argparse.ArgumentParser(prog="python -m experiments.benchmark")
    add = options.add_argument
    add("--work", nargs="+", metavar="W1", choices=[*WORKS, "W7"], help="works; none: all")
    add("--peers", nargs="+", default=[], choices=PEERS, help="peers to run beside ours")
    add("--runs", type=count_of, default=3, help="runs of each side, in turn")
    add("--steps", type=count_of, help="steps of training to time, scaled to an epoch")
    add("--peer-steps", type=count_of, help="the same for peers alone; left out: as --steps")
    add("--threads", type=count_of, default=2, help="threads of torch")
    add("--device", default="cpu", choices=["cpu", "cuda"], help="where all sides compute")
    add("--out", type=Path, metavar="FOLDER", help="write table.md, figure.svg, results.json")
    add("--corpora", type=Path, default=Path("data/corpora"), help="folder of the corpora")
    cache = Path.home() / ".cache" / "sixfold" / "peers"
    add("--peer-folder", type=Path, default=cache, help="folder of the peers' environments")
    add("--against", type=Path, metavar="CHECKOUT", help="compare CPU times with")
    add("--pairs", type=count_of, default=5, help="pairs of runs, one in each checkout")
    add("--here", metavar="W1", choices=[*WORKS, "ceilings"], help=argparse.SUPPRESS)
    add("--json", action="store_true", help=argparse.SUPPRESS)
    return options


def run_here(options: argparse.Namespace) -> None:
    """Do one work, or measure the machine's rates, in this process, and print a line."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.here == "ceilings":
        print(product_rate(options.device), copy_rate(options.device))
        return
    rate = 0.0 if options.json else product_rate(options.device)
    one = run(options.here, options.corpora, options.steps, options.device, options.json)
    if options.json:
        print(one.to_json())
        return
    seconds, cpu = one.seconds * one.timed_share, one.cpu * one.timed_share
    scaled = seconds * rate / REFERENCE_GFLOPS
    # Other checkouts read the CPU seconds of the steps that were timed from this line.
    print(
        f"{one.work}: {seconds:7.2f} s   scaled {scaled:6.2f} s   ({rate:.0f} GFLOP/s)   "
        f"peak {one.peak_megabytes:,.0f} MB   CPU {cpu:.3f} s",
        flush=True,
    )


def write_results(rounds: Rounds, works: Sequence[str], text: str, folder: Path) -> None:
    """Write the table, the figure and all measurements into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(text, encoding="utf-8")
    stored = json.dumps(asdict(rounds), indent=1)
    (folder / "results.json").write_text(stored + "\n", encoding="utf-8")
    seconds = {
        f"{name} {WORKS[name].title}": {
            side: Spread.of([one.seconds for one in rounds.of(name, side)]).middle
            for side in dict.fromkeys(one.side for one in rounds.measured if one.work == name)
        }
        for name in works
    }
    seconds = {title: by_side for title, by_side in seconds.items() if by_side}
    if seconds:
        (folder / "figure.svg").write_text(seconds_svg(seconds), encoding="utf-8")


def machine(options: argparse.Namespace) -> str:
    """A sentence about the machine."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else cpu_model()
    return (
        f"Machine: {name}, {os.cpu_count()} cores, {options.threads} threads, torch "
        f"{torch.__version__}, rounds: {options.runs}."
    )


def main(arguments: Sequence[str]) -> int:
    """Compare sides or checkouts as asked; returns 1 when one of the runs failed, else 0."""
    options = parser().parse_args(arguments)
    options.corpora, options.peer_folder = options.corpora.resolve(), options.peer_folder.resolve()
    if options.here is not None:
        run_here(options)
        return 0
    asked = ["W1" if name == "W7" else name for name in options.work or WORKS]
    works = []
    for name in dict.fromkeys(asked):
        absent = absent_corpus(name, options.corpora)
        if absent is None:
            works.append(name)
        else:
            print(f"{name}: left out, {absent} is absent (see the package's docstring)")
    if options.against is not None:
        for name in works:
            compare_with(options.against.resolve(), name, options.pairs, options.steps)
        return 0
    setting = Setting(
        corpora=options.corpora,
        peer_folder=options.peer_folder,
        steps=options.steps,
        peer_steps=options.peer_steps or options.steps,
        threads=options.threads,
        device=options.device,
    )
    command = shlex.join(["python", "-m", "experiments.benchmark", *arguments])

    def save(rounds: Rounds) -> str:
        text = markdown(rounds, works, command, machine(options))
        if options.out is not None:
            write_results(rounds, works, text, options.out)
        return text

    rounds = measure(works, options.peers, options.runs, setting, save)
    print(save(rounds))
    return int(bool(rounds.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How long do recommendations for all users of Beauty take, and does memory stay bounded?

Beauty: the 20 best unseen items for each of 22,363 users after their whole histories, by SASRec of
the benchmark's W6 (width 64, two layers, length 50; the weights do not matter), written to a file:
ours as Parquet and as CSV, and RecTools (--peers) as CSV, as its environment has no writer of
Parquet. Each side runs in a process of its own, in turn, ROUNDS times.
Made: as many users as asked, among 10^5 and 10^6 items that a corpus is made of, by a model of
width 64. The lists of more users and of more items must not take more memory.

The first table has medians over the rounds of wall and CPU seconds, file and all, and the peak of
resident memory, with what was held before the first list in brackets. The second has that growth
alone.

Command: python -m experiments.recommend_all --corpora FOLDER [--peers rectools] [--rounds 3]
             [--items 100000 1000000] [--users 1000 4000] [--threads 2]
Hardware: any CPU and 4 GB (RecTools: 8 GB); some minutes. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from experiments.benchmark.measure import Clock
from experiments.benchmark.peers.environment import python_of
from experiments.benchmark.rounds import in_process
from experiments.benchmark.works import WORKS, sasrec, task_of, write_arrays
from research.data.corpus import Corpus
from research.data.preparation.frames import prepare_frame
from research.data.preparation.options import PrepareConfig
from research.objectives.ranker import TrainedRanker
from research.recommend.recommendations import recommend
from research.recommend.requests import known_users
from research.recommend.tables import write_recommendations
from research.runs.parts import RunParts, ranking_objective
from research.training.peak_memory import peak_bytes, restart_peak

K = 20
LENGTH = 10
WORK = "W6"
CPU = torch.device("cpu")
Measured = dict[str, float]


def lists_of(corpus: Path, out: Path, users: int | None) -> Measured:
    """Recommend to the first `users` users (None: all) by an untrained model, and write a file."""
    config = replace(sasrec(), corpus=str(corpus))
    parts = RunParts.of(config, "data")
    stage, shared = config.stages[0], parts.components()
    objective = ranking_objective(stage, parts.model(stage, shared))
    assert objective is not None, "SASRec ranks"
    names = parts.corpus.user_names
    raw_ids = None if users is None else [names[user] for user in range(users)]
    requests = known_users(parts, raw_ids)
    restart_peak(CPU)
    before, clock = peak_bytes(CPU) or 0, Clock()
    batches = recommend(parts, TrainedRanker(shared.encoder, objective), requests, k=K)
    rows = write_recommendations(out, parts.corpus, requests, batches)
    spent = clock.spent()
    return {
        "rows": rows,
        "seconds": spent.seconds,
        "cpu": spent.cpu,
        "before": before,
        "peak": peak_bytes(CPU) or 0,
    }


def make_corpus(folder: Path, items: int, users: int) -> Corpus:
    """A corpus of random histories of `LENGTH` events, in which every item occurs."""
    users = max(users, -(-items // LENGTH))
    frame = {
        "user": np.repeat(np.arange(users), LENGTH),
        "item": np.random.default_rng(0).permutation(users * LENGTH) % items,
        "timestamp": np.tile(np.arange(LENGTH), users),
    }
    return prepare_frame(frame, PrepareConfig(source="parquet"), folder, name="made")


def ours(corpus: Path, out: Path, threads: int, users: int | None = None) -> Measured:
    """`lists_of` in a process of its own."""
    command = [sys.executable, "-m", "experiments.recommend_all", "--threads", str(threads)]
    command += ["--corpora", str(corpus), "--here", str(out)]
    command += [] if users is None else ["--first", str(users)]
    return measured(command)


def measured(command: Sequence[str]) -> Measured:
    """What a process that measures prints in its last line."""
    result: Measured = json.loads(in_process(command))
    return result


def beauty(options: argparse.Namespace, scratch: Path) -> str:
    """The table of all sides on Beauty."""
    name = str(WORKS[WORK].corpus)
    corpus, arrays, task = options.corpora / name, scratch / "arrays.npz", scratch / "task.json"
    sides: dict[str, list[Measured]] = {}
    for _ in range(options.rounds):
        for suffix in (".parquet", ".csv"):
            one = ours(corpus, scratch / f"ours{suffix}", options.threads)
            sides.setdefault(f"ours, {suffix}", []).append(one)
        for peer in options.peers:
            if not task.is_file():
                write_arrays(Corpus.open(corpus), arrays)
                asked = task_of(
                    WORK, peer, arrays, steps=None, threads=options.threads, device="cpu"
                )
                asked.write(task)
            python = str(python_of(peer, options.peer_folder))
            module = "experiments.benchmark.peers.rectools_lists"
            command = [python, "-m", module, str(task), str(K), str(scratch / "peer.csv")]
            sides.setdefault("RecTools, .csv", []).append(measured(command))
    lines = ["| side | lists | seconds | CPU seconds | peak MB (before) |", "|---|---|---|---|---|"]
    for side, rounds in sides.items():
        rows, seconds, cpu = (
            median(one[key] for one in rounds) for key in ("rows", "seconds", "cpu")
        )
        peak, before = (max(one[key] for one in rounds) / 1e6 for key in ("peak", "before"))
        lines.append(
            f"| {side} | {rows:,.0f} | {seconds:.2f} | {cpu:.2f} | {peak:,.0f} ({before:,.0f}) |"
        )
    return "\n".join(lines)


def made(options: argparse.Namespace, scratch: Path) -> str:
    """The table of how memory grows with users and items."""
    lines = ["| items | users | seconds | MB more than before |", "|---|---|---|---|"]
    for items in options.items:
        corpus = make_corpus(scratch / str(items), items, max(options.users))
        for users in options.users:
            one = ours(corpus.folder, scratch / "made.parquet", options.threads, users)
            growth = (one["peak"] - one["before"]) / 1e6
            lines.append(f"| {items:,} | {users:,} | {one['seconds']:.1f} | {growth:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure both, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--corpora", type=Path, default=Path("data/corpora"), help="folder of the corpora")
    add("--rounds", type=int, default=3, help="runs of each side, in turn")
    add("--peers", nargs="*", choices=["rectools"], default=[], help="peers to run beside ours")
    cache = Path.home() / ".cache" / "sixfold" / "peers"
    add("--peer-folder", type=Path, default=cache, help="folder of the peers' environments")
    add("--items", nargs="*", type=int, default=[100_000, 1_000_000], help="sizes to make")
    add("--users", nargs="*", type=int, default=[1_000, 4_000], help="users to recommend to")
    add("--threads", type=int, default=2, help="threads of torch")
    add("--here", type=Path, help=argparse.SUPPRESS)
    add("--first", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        torch.set_num_threads(options.threads)
        print(json.dumps(lists_of(options.corpora, options.here, options.first)), flush=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        print(beauty(options, Path(scratch)), flush=True)
        print(made(options, Path(scratch)), flush=True)


if __name__ == "__main__":
    main()

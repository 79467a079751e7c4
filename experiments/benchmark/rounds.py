"""Runs ours and the peers in turn, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.benchmark.measure import WARM_STEPS
from experiments.benchmark.peers.environment import PEERS, python_of
from experiments.benchmark.results import OURS, Ceilings, Failure, Measured
from experiments.benchmark.works import WORKS, task_of, write_arrays
from research.data.corpus import Corpus

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How all sides run."""

    corpora: Path
    """The folder of the prepared corpora."""
    peer_folder: Path
    """The folder of the peers' environments."""
    steps: int | None
    """Steps of ours to time; None: an epoch."""
    peer_steps: int | None
    """Steps of a peer to time; None: those of an epoch that follow the warm ones."""
    threads: int
    """Threads of torch, on every side."""
    device: str
    """cpu or cuda."""


@dataclass
class Rounds:
    """All that was measured so far."""

    measured: list[Measured] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    ceilings: list[Ceilings] = field(default_factory=list)

    def of(self, work: str, side: str) -> list[Measured]:
        """The measurements of a work by a side, in the order of the rounds."""
        return [one for one in self.measured if (one.work, one.side) == (work, side)]


def absent_corpus(work: str, corpora: Path) -> Path | None:
    """The folder of a work's corpus if it is not there; None: it is there, or none is needed."""
    corpus = WORKS[work].corpus
    if corpus is None or (corpora / corpus / "manifest.json").is_file():
        return None
    return corpora / corpus


def last_line(text: str) -> str:
    """The last line of a text that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


def in_process(command: Sequence[str]) -> str:
    """The last line of a process's output; `RuntimeError` with that of its errors if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:
        reason = last_line(done.stderr)
        # Killed processes leave no message of their own.
        raise RuntimeError(f"exit code {done.returncode}: {reason}")
    return last_line(done.stdout)


def own_command(name: str, setting: Setting) -> list[str]:
    """The command that runs our side of a work, or measures the ceilings, and prints JSON."""
    command = [sys.executable, "-m", "experiments.benchmark", "--here", name, "--json"]
    command += ["--threads", str(setting.threads), "--device", setting.device]
    command += ["--corpora", str(setting.corpora)]
    return command + ([] if setting.steps is None else ["--steps", str(setting.steps)])


def peer_command(name: str, peer: str, setting: Setting, scratch: Path) -> list[str]:
    """The command by which a peer runs a work; the task is written into `scratch`."""
    corpus = WORKS[name].corpus
    assert corpus is not None, "works of peers have a corpus"
    arrays, file = scratch / f"{corpus}.npz", scratch / f"{name}-{peer}.json"
    if not arrays.is_file():
        write_arrays(Corpus.open(setting.corpora / corpus), arrays)
    steps, threads, device = setting.peer_steps, setting.threads, setting.device
    task_of(name, peer, arrays, steps=steps, threads=threads, device=device).write(file)
    python = python_of(peer, setting.peer_folder)
    return [str(python), "-m", PEERS[peer][1], str(file)]


def measure(
    works: Sequence[str],
    peers: Sequence[str],
    runs: int,
    setting: Setting,
    save: Callable[[Rounds], object],
) -> Rounds:
    """Measure all works by ours and those peers that can do them, `runs` times in turn.

    A side that fails in a work is not asked again for it. `save` is called after each round with
    all that was measured until then.
    """
    rounds = Rounds()
    for peer in peers:
        python_of(peer, setting.peer_folder)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(runs):
            rates = in_process(own_command("ceilings", setting)).split()
            rounds.ceilings.append(Ceilings(float(rates[0]), float(rates[1])))
            for name, side in turns(works, peers):
                if any((bad.work, bad.side) == (name, side) for bad in rounds.failures):
                    continue
                if side == OURS:
                    command = own_command(name, setting)
                else:
                    command = peer_command(name, side, setting, Path(scratch))
                try:
                    one = Measured.from_json(in_process(command))
                except RuntimeError as error:
                    rounds.failures.append(Failure(name, side, str(error)))
                    print(f"{name} {side}: failed, {error}", flush=True)
                    continue
                rounds.measured.append(one)
                line = f"{one.seconds:.2f} s, {one.peak_megabytes:,.0f} MB"
                print(f"round {number + 1}: {name} {side}: {line}", flush=True)
            save(rounds)
    return rounds


def turns(works: Sequence[str], peers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(work, side) of a round: ours first, then the peers that can do the work."""
    for name in works:
        yield name, OURS
        yield from ((name, peer) for peer in peers if peer in WORKS[name].peers)


def is_partial(one: Measured) -> bool:
    """Whether the time was scaled from fewer steps than an epoch has, beyond the warm ones."""
    return one.steps < one.steps_in_epoch - WARM_STEPS

"""Two machines, each a network namespace with names and processes of its own, and a cable.

Skipped where namespaces cannot be made (they need root and the `ip` command).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from tests.support.command_line import TINY, files_of, shop_corpus
from tests.support.launching import Ranks, joined_ranks, launched

NEEDED = ("ip", "unshare", "hostname")
ABLE = sys.platform.startswith("linux") and os.geteuid() == 0 and all(map(shutil.which, NEEDED))
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not ABLE, reason=f"needs root and the commands {', '.join(NEEDED)}"),
]
PORT = "29400"
# A name of its own, which it and the other know, and processes that the other does not see.
APART = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]


@dataclass(frozen=True)
class Machine:
    """A machine: its place in the job, its namespace and network card, which have one name."""

    place: int
    name: str
    card: str
    address: str

    def run(self, *command: str) -> None:
        """Do something on it."""
        subprocess.run(["ip", "netns", "exec", self.card, *command], check=True)

    def launch(self, arguments: Sequence[str], address: str, hosts: Path) -> list[str]:
        """The command by which this machine takes part in a job of two."""
        program = [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
            "--num_machines", "2", "--machine_rank", str(self.place), "--num_processes", "2",
            "--main_process_ip", address, "--main_process_port", PORT,
            "--mixed_precision", "no", "--dynamo_backend", "no", *arguments,
        ]  # fmt: skip
        named = [*APART, f'hostname {self.name}; mount --bind {hosts} /etc/hosts; exec "$@"', "sh"]
        return ["ip", "netns", "exec", self.card, *named, *program]


@dataclass(frozen=True)
class Pair:
    """Two machines that see each other; the first has rank 0."""

    machines: tuple[Machine, Machine]
    hosts: Path
    """Names and addresses of both."""

    def launched(
        self, arguments: Sequence[Sequence[str]], output: Path
    ) -> AbstractContextManager[Ranks]:
        """The launchers of both machines, each with its own arguments."""
        address = self.machines[0].address
        return launched(
            [
                one.launch(given, address, self.hosts)
                for one, given in zip(self.machines, arguments)
            ],
            [{}] * 2,
            output,
        )

    def cut(self) -> None:
        """Pull the cable out: nobody is told."""
        first = self.machines[0]
        first.run("ip", "link", "set", first.card, "down")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Joined by a cable of their own; the kernel removes it with them."""
    left = Machine(0, "left", f"l{os.getpid()}", "10.77.0.1")
    right = Machine(1, "right", f"r{os.getpid()}", "10.77.0.2")
    hosts = tmp_path / "hosts"
    names = [f"{each.address} {each.name}\n" for each in (left, right)]
    hosts.write_text("127.0.0.1 localhost\n" + "".join(names))
    made = []
    try:
        for each in (left, right):
            done = subprocess.run(["ip", "netns", "add", each.card], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
            made.append(each.card)
        cable = f"ip link add {left.card} netns {left.card} type veth"
        cable += f" peer name {right.card} netns {right.card}"
        subprocess.run(cable.split(), check=True)
        for each in (left, right):
            each.run("ip", "address", "add", f"{each.address}/24", "dev", each.card)
            each.run("ip", "link", "set", each.card, "up")
            each.run("ip", "link", "set", "lo", "up")
        yield Pair((left, right), hosts)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture
def shop(tmp_path: Path) -> Corpus:
    return shop_corpus(tmp_path / "shop")


def command(shop: Corpus, out: Path, *more: str) -> list[str]:
    """A small run in the folder `out`, as it stands after `python`."""
    target = ["-m", "research", "run", "baselines.sasrec.full_softmax", f"corpus={shop.folder}"]
    return [*target, "--out", str(out), "--expect-world", "2", "--quiet", *TINY, *more]


def results_of(run: Path) -> dict[str, bytes]:
    """Weights and rankings of a run, by file."""
    files = files_of(run)
    return {name: files[name] for name in files if name.endswith(("model.safetensors", ".npz"))}


def test_two_machines_train_what_two_processes_of_one_do(
    pair: Pair, shop: Corpus, tmp_path: Path
) -> None:
    runs = [tmp_path / name for name in ("left", "right", "one")]
    with pair.launched([command(shop, run) for run in runs[:2]], tmp_path / "two.txt") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [0, 0], ranks.text
    with joined_ranks(command(shop, runs[2]), tmp_path / "one.txt") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [0, 0], ranks.text
    # Only the main process writes, so that the other machine needs no common disk.
    assert not runs[1].exists()
    expected = results_of(runs[2])
    assert len(expected) >= 3
    assert results_of(runs[0]) == expected


def test_a_cut_cable_ends_both_machines_within_the_bound(
    pair: Pair, shop: Corpus, tmp_path: Path
) -> None:
    endless = ("stages.0.epochs=1000000", "stages.0.log_every=1", "--stall-seconds", "6")
    runs = [tmp_path / "left", tmp_path / "right"]
    arguments = [command(shop, run, *endless) for run in runs]
    with pair.launched(arguments, tmp_path / "out.txt") as ranks:
        ranks.wait_until(lambda: (runs[0] / "metrics.jsonl").is_file(), "no step")
        pair.cut()
        codes, seconds = ranks.wait_for_exit()
    assert codes == [1, 1]
    assert 4 < seconds < 20
    said = [line for line in ranks.text.splitlines() if line.startswith("sixfold run: ")]
    left, right = sorted(said)
    assert re.match(r"sixfold run: rank 1 of 2 on right \(pid \d+\) has fallen silent: ", left)
    assert re.match(
        rf"sixfold run: the launcher of rank 0's machine at 10.77.0.1:{PORT} has not answered for "
        r"6 s: .* rank 1 of 2 on right .* end\. The same command continues from the last",
        right,
    )
    assert ranks.text.index("sixfold run: ") < ranks.text.index("ChildFailedError")

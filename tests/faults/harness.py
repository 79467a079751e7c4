"""Real runs in processes of their own, for what may happen to processes.

A `Job` is `python -m research run ...`, one process or several ranks, that leaves none behind
however its block ends. So that a start does not take seconds, its processes are forked from one
that has the imports behind it, unless fresh ones are asked for. `outcome` is all that must be the
same, to the last bit, of a run that was disturbed and one that was not.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from research.evaluation.rank_table import RankTable

ROOT = Path(__file__).parent.parent.parent
EXPERIMENT = "tests.faults.small:two_stages"
# Saves are frequent, so that a fault meets them.
SAVING = ("--checkpoint-steps", "6")
# By this variable a job's processes are found, whoever their parents are.
MARK = "SIXFOLD_FAULTS_JOB"
# A start alone takes seconds where others use the machine too.
PATIENCE = 120.0
# The longer mode begins every process anew, imports included.
FRESH = "SIXFOLD_KILLS" in os.environ


def words(run: Path, data: Path, *more: str) -> list[str]:
    """The arguments of the one command that begins the run, and continues it after any fault."""
    folders = ["--data-root", str(data), "--out", str(run)]
    return ["run", EXPERIMENT, *folders, "--quiet", *SAVING, *more]


class Forked:
    """A process that `tests.faults.forking` has forked, as `subprocess.Popen` would tell of it."""

    parent: subprocess.Popen[bytes] | None = None

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], said: Path
    ) -> None:
        if Forked.parent is None:
            Forked.parent = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.forking"],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        asked = {"arguments": list(arguments), "environment": dict(environment), "said": str(said)}
        process = self._ask(asked)
        assert process is not None
        self.pid = process

    def _ask(self, asked: Mapping[str, object]) -> int | None:
        parent = Forked.parent
        assert parent is not None
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(json.dumps(asked).encode() + b"\n")
        parent.stdin.flush()
        answer: int | None = json.loads(parent.stdout.readline())
        return answer

    @classmethod
    def close(cls) -> None:
        """End the process that forks; none of its children is left by now."""
        if cls.parent is not None:
            cls.parent.communicate(timeout=PATIENCE)
            cls.parent = None

    def poll(self) -> int | None:
        """Its exit code; None: it goes on."""
        return self._ask({"process": self.pid})

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it goes on."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Job:
    """A run's processes: one, so many ranks, or so many under torchrun (`launcher`)."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        ranks: int = 1,
        launcher: bool = False,
        fresh: bool = FRESH,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` takes what the processes say; `fresh` ones are not forked."""
        folder.mkdir(parents=True, exist_ok=True)
        self.mark = secrets.token_hex(8)
        self.said_in: list[Path] = []
        self.processes: list[subprocess.Popen[bytes] | Forked] = []
        module = ["-m", "research"]
        settings: list[dict[str, str]] = [{}]
        if launcher:
            shape = ["--nproc_per_node", str(ranks), "--master_port", str(free_port())]
            module = ["-m", "torch.distributed.run", *shape, *module]
        elif ranks > 1:
            # As `srun` begins ranks: without a launcher that would end the others.
            port, world = str(free_port()), str(ranks)
            settings = [
                {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": world,
                 "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                for rank in range(ranks)
            ]  # fmt: skip
        for place, setting in enumerate(settings):
            self.said_in.append(folder / f"said-{self.mark}-{place}.txt")
            self.said_in[-1].touch()
            given = {**(environment or {}), **setting, MARK: self.mark}
            if not fresh and not launcher and environment is None:
                self.processes.append(Forked(arguments, given, self.said_in[-1]))
                continue
            with self.said_in[-1].open("wb") as said:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *module, *arguments],
                        cwd=ROOT,
                        env={**os.environ, "OMP_NUM_THREADS": "1", **given},
                        stdin=subprocess.DEVNULL,
                        stdout=said,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def said(self) -> str:
        """All that its processes have printed."""
        return "".join(self.said_by(place) for place in range(len(self.said_in)))

    def said_by(self, place: int) -> str:
        """What the process at this place has printed."""
        return self.said_in[place].read_text(errors="replace")

    @property
    def codes(self) -> list[int | None]:
        """The exit code of each process; None: it has not ended."""
        return [each.poll() for each in self.processes]

    @property
    def ended(self) -> bool:
        """Whether all of its processes have ended."""
        return None not in self.codes

    def send(self, number: signal.Signals, *places: int) -> None:
        """A signal to the processes at these places; to all without any."""
        for place in places or range(len(self.processes)):
            if self.processes[place].poll() is None:
                self.processes[place].send_signal(number)

    def kill(self) -> None:
        """SIGKILL to all of it, at any depth, until nothing is left."""
        self.send(signal.SIGKILL)
        while left := marked(self.mark):
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.005)
        for each in self.processes:
            each.wait(PATIENCE)

    def until(
        self, sign: Callable[[], bool], seconds: float = PATIENCE, *, every: float = 0.005
    ) -> bool:
        """Wait for a sign; False: the job has ended without it. Fails when neither comes."""
        deadline = time.monotonic() + seconds
        while not sign():
            if self.ended:
                return sign()
            assert time.monotonic() < deadline, f"nothing came in {seconds:.0f} s:\n{self.said}"
            time.sleep(every)
        return True

    def result(self, seconds: float = PATIENCE) -> list[int]:
        """The exit codes, once all of its processes have ended."""
        assert self.until(lambda: self.ended, seconds, every=0.01)
        return [each.wait(PATIENCE) for each in self.processes]


def marked(mark: str) -> list[int]:
    """The living processes that were begun with this mark in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            environment = (folder / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"{MARK}={mark}".encode() in environment.split(b"\0"):
            found.append(int(folder.name))
    return found


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


# What a run folder shows


def checkpoints(run: Path, stage: str, kind: str = "step") -> list[Path]:
    """A stage's checkpoints (`step` or `best`), oldest first."""
    return sorted((run / "stages" / stage).glob(f"{kind}_*"))


def unfinished(run: Path) -> list[Path]:
    """What is being written at this moment, or was when its process was killed."""
    return [
        *run.glob(".*"),
        *(run / "ranks").glob(".*"),
        *(run / "stages").glob(".*"),
        *(run / "stages").glob("*/.*"),
    ]


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, without what tells time."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [
        {name: value for name, value in line.items() if not name.endswith("per_second")}
        for line in lines
    ]


def outcome(run: Path) -> dict[str, object]:
    """All that a run has found, by name; fails where a line of metrics.jsonl stands twice."""
    summary = json.loads((run / "summary.json").read_text())
    # Seconds and peak memory differ from run to run.
    summary["cost"] = {name: summary["cost"].get(name) for name in ("parameters", "items")}
    config = json.loads((run / "config.json").read_text())
    # When, where and how often the run was begun.
    del config["provenance"]
    found: dict[str, object] = {"summary": summary, "config": config}
    for stage in sorted(path.name for path in (run / "stages").iterdir()):
        for kind in ("step", "best"):
            for folder in checkpoints(run, stage, kind)[-1:]:
                for path in sorted(folder.glob("*.safetensors")):
                    found[str(path.relative_to(run))] = path.read_bytes()
    for path in sorted((run / "ranks").glob("*.npz")):
        table = RankTable.load(path)
        columns = (table.user, table.item, table.rank, table.ties, table.history_length)
        found[path.name] = [column.tobytes() for column in columns], dict(table.protocol)
    found["lines"] = lines_of(run)
    moments = [(line["stage"], line["step"], sorted(line)) for line in lines_of(run)]
    assert all(moments.count(each) == 1 for each in moments), "a line stands twice"
    return found


def differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """The names under which two outcomes differ."""
    return [
        name for name in sorted({*ours, *theirs}) if ours.get(name, ...) != theirs.get(name, ...)
    ]

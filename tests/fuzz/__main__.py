"""`python -m tests.fuzz --cases 1000000 --seed 0`: many cases of every target, and a table.

Each target is done in a process of its own, which is begun anew after the case that ended it, so
that a crash in a library is a failure like others. Progress goes to stderr. `--case` does one case
again and shows its traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.campaign import (
    Tally,
    do_cases,
    generator_of,
    limits,
    spread,
    working_folder,
)
from tests.fuzz.targets import Target, all_targets

# Seconds without a new case after which a process is ended: some hangs hear no signal.
PATIENCE = 120


def main(arguments: Sequence[str]) -> int:
    """0: no case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000, help="over all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="instead of all")
    parser.add_argument("--processes", type=int, default=1, help="targets done at a time")
    parser.add_argument("--case", type=int, help="one case of one target, with its traceback")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    known = parser.parse_args(arguments)
    targets = all_targets()
    unknown = [name for name in known.targets or () if name not in targets]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are: {', '.join(targets)}")
    chosen = {name: targets[name] for name in known.targets or targets}
    if known.worker is not None:
        first, last, place = known.worker
        return work(next(iter(chosen.values())), known.seed, int(first), int(last), Path(place))
    if known.case is not None:
        return again(chosen, known.seed, known.case)
    return campaign(chosen, known.seed, known.cases, known.processes)


def again(targets: dict[str, Target], seed: int, number: int) -> int:
    """One case, its traceback shown."""
    for target in targets.values():
        with working_folder() as folder:
            case = target.begin(folder)
            try:
                result = case(generator_of(target.name, seed, number))
                print(f"{target.name}: accepted, {result!r:.500}")
            except target.allowed as error:
                print(f"{target.name}: refused, {error!r:.2000}")
    return 0


def work(target: Target, seed: int, first: int, last: int, place: Path) -> int:
    """Do cases in this process, writing before each where it stands, and at the end what came."""
    os.nice(10)
    report = place.open("r+b", buffering=0)
    told = time.monotonic()

    def begun(number: int, tally: Tally) -> None:
        nonlocal told
        os.pwrite(report.fileno(), b"%-20d" % number, 0)
        if number % 500 == 0 or time.monotonic() - told > 5:
            told = time.monotonic()
            written = json.dumps(asdict(tally)).encode()
            os.pwrite(report.fileno(), b"%-20d" % number + b"%-20d" % number + written + b"\n", 0)

    with working_folder() as folder:
        case = target.begin(folder)
        # What is imported or made once is no matter of a case.
        do_cases(target, case, -1, 0, 20)
        with limits():
            tally = do_cases(target, case, seed, first, last, begun)
    written = json.dumps(asdict(tally)).encode()
    place.write_bytes(b"%-20d" % last + b"%-20d" % last + written + b"\n")
    return 0


def watch(target: Target, seed: int, last: int) -> Tally:
    """Do a target's cases in processes, one after another, each begun after a crash of the last."""
    total = Tally()
    first = 0
    while first < last:
        with tempfile.NamedTemporaryFile() as report:
            report.write(b"%-20d" % first * 2 + json.dumps(asdict(Tally())).encode() + b"\n")
            report.flush()
            worker = ["--worker", str(first), str(last), report.name]
            command = [sys.executable, "-m", "tests.fuzz", "--targets", target.name]
            command += ["--seed", str(seed), *worker]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            ended = waited(process, Path(report.name))
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            current, counted, tally = read_report(Path(report.name))
        total.add(tally)
        if ended == 0:
            return total
        # Cases between the last account and the crash had come to an end, but are not told apart.
        total.cases += current + 1 - max(counted, first)
        total.fail(current, f"the process ended with {ended}", said.strip()[-300:])
        first = current + 1
    return total


def waited(process: subprocess.Popen[bytes], report: Path) -> int | str:
    """The exit code, or what ended a process that stood still."""
    seen, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        current = read_report(report)[0]
        if current != seen:
            seen, since = current, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            process.kill()
            process.wait()
            return f"no progress for {PATIENCE} s"
    return process.returncode


def read_report(path: Path) -> tuple[int, int, Tally]:
    """The running case, the case before which it was counted, and what was counted until then."""
    text = path.read_bytes()
    try:
        values = json.loads(text[40:].partition(b"\n")[0])
    except ValueError:
        values = {}
    values["failures"] = {kind: tuple(each) for kind, each in values.get("failures", {}).items()}
    # A report that is just being written anew is empty for a moment.
    return int(text[:20] or 0), int(text[20:40] or 0), Tally(**values)


def campaign(targets: dict[str, Target], seed: int, cases: int, processes: int) -> int:
    """All targets, and the table of what came of them."""
    counts = spread(cases, targets)
    print(f"{cases:,} cases over {len(targets)} targets, seed {seed}", flush=True)
    heading = ("target", "cases", "accepted", "refused", "failures", "seconds")
    print("{:<20}{:>10}{:>10}{:>10}{:>10}{:>9}".format(*heading), flush=True)
    total = Tally()
    with ThreadPoolExecutor(processes) as pool:
        for target, tally in zip(
            targets.values(),
            pool.map(lambda each: watch(each, seed, counts[each.name]), targets.values()),
            strict=True,
        ):
            total.add(Tally(**{**asdict(tally), "failures": {}}))
            line(target.name, tally)
            for kind, (number, said) in tally.failures.items():
                command = (
                    f"python -m tests.fuzz --targets {target.name} --seed {seed} --case {number}"
                )
                print(f"  {kind}: {shlex.quote(said)}\n    {command}", flush=True)
    line("total", total)
    return 1 if total.failed else 0


def line(name: str, tally: Tally) -> None:
    """A row of the table."""
    print(
        f"{name:<20}{tally.cases:>10,}{tally.accepted:>10,}{tally.refused:>10,}"
        f"{tally.failed:>10,}{tally.seconds:>9.1f}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How long does `prepare` take over a large CSV, and how much memory, beside pandas and Polars?

A CSV is made with the columns user, item, timestamp, price and category (random; about 50 bytes a
row), then read in processes of their own, one after the other, ROUNDS times:
  prepare  everything that `sixfold prepare csv` does: checksum, reading, filters, writing a corpus;
  pandas   pandas.read_csv of the columns user, item and timestamp, and nothing more;
  polars   polars.read_csv of the same, if Polars is installed (in the environment of PYTHON);
  before   the same as `prepare` by another checkout of the project (--against).
The table has the median over the rounds of wall and CPU seconds (of CPU for the parts of prepare),
and the largest peak of resident memory. The CSV and the corpora are deleted at the end.

Command: python -m experiments.reading [--rows 20000000] [--rounds 3] [--folder /tmp]
             [--against CHECKOUT] [--polars PYTHON]
Hardware: any CPU and a disk; 20 million rows take 1 GB of disk and about 3 GB of memory. pandas and
         Polars use the number of threads that they choose.
Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

COLUMNS = ["user", "item", "timestamp"]
Seconds = dict[str, float]


def make_csv(path: Path, rows: int) -> None:
    """Write a CSV of `rows` random events, a million at a time."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv

    generator = np.random.default_rng(0)
    num_users, num_items = max(rows // 40, 1), max(rows // 200, 1)
    users = pa.array([f"u{number:07d}" for number in range(num_users)])
    items = pa.array([f"B{number * 7919 % 10**9:09d}" for number in range(num_items)])
    categories = pa.array([f"Category {number}" for number in range(500)])
    with path.open("wb") as file:
        for start in range(0, rows, 10**6):
            size = min(10**6, rows - start)
            # Squares make some users and items more frequent than others, as in real data.
            user, item = generator.random((2, size)) ** 2
            block = pa.table(
                {
                    "user": users.take(pa.array((user * num_users).astype(np.int64))),
                    "item": items.take(pa.array((item * num_items).astype(np.int64))),
                    "timestamp": generator.integers(1_500_000_000, 1_700_000_000, size),
                    "price": np.round(generator.random(size) * 100, 2),
                    "category": categories.take(pa.array(generator.integers(0, 500, size))),
                }
            )
            csv.write_csv(
                block, file, csv.WriteOptions(include_header=start == 0, quoting_style="none")
            )


def read_by_prepare(path: Path) -> Seconds:
    """Prepare a corpus of the CSV, and return the CPU seconds that each part took."""
    from dataclasses import replace

    from research.data.preparation import prepare as module

    seconds: Seconds = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            started = time.process_time()
            result = function(*values)
            seconds[name] = time.process_time() - started
            return result

        return call

    # Taken from `prepare`, which has it in every checkout that --against may name.
    config = vars(module)["PrepareConfig"](source="csv", raw=str(path))
    started = time.process_time()
    source = module.source_of(config, path.parent)
    source = replace(source, read=timed("reading", source.read))
    for name in ("checksum", "filter_rows"):
        setattr(module, name, timed(name, vars(module)[name]))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        module.prepare_source(source, config, Path(folder) / "corpus")
    seconds["writing"] = time.process_time() - started - sum(seconds.values())
    return seconds


def read_by_pandas(path: Path) -> Seconds:
    """Read the wanted columns of the CSV by pandas."""
    import pandas as pd

    pd.read_csv(path, usecols=COLUMNS)
    return {}


def read_by_polars(path: Path) -> Seconds:
    """Read the wanted columns of the CSV by Polars."""
    from importlib import import_module

    import_module("polars").read_csv(path, columns=COLUMNS)
    return {}


READERS = {"prepare": read_by_prepare, "pandas": read_by_pandas, "polars": read_by_polars}


def measure(reader: str, path: Path) -> Seconds:
    """The seconds of one reader in this process, and its peak memory in MB."""
    started, cpu = time.perf_counter(), time.process_time()
    parts = READERS[reader](path)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    # Unlike the peak that getrusage gives, this one begins with the process.
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in status if line.startswith("VmHWM")]
    return {"seconds": seconds, "CPU seconds": cpu, "peak MB": int(peak) / 1024, **parts}


def in_process(python: str, checkout: Path, reader: str, path: Path) -> Seconds | None:
    """What `measure` returns in a process of its own; None if the reader is not installed."""
    command = [python, "-W", "ignore", __file__, "--measure", reader, "--csv", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, env=environment, cwd=checkout, text=True, capture_output=True, check=False
    )
    if "No module named 'polars'" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{reader}: {done.stderr}")
    answer: Seconds = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Make the CSV, measure each reader in turn, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    parser.add_argument("--polars", default=sys.executable, help="a Python that has Polars")
    parser.add_argument("--measure", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--csv", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.csv)))
        return
    here = Path(__file__).resolve().parent.parent
    runs = {
        "prepare": (sys.executable, here, "prepare"),
        "pandas": (sys.executable, here, "pandas"),
        "polars": (options.polars, here, "polars"),
    }
    if options.against:
        runs["before"] = (sys.executable, options.against.resolve(), "prepare")
    results: dict[str, list[Seconds]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "events.csv"
        make_csv(path, options.rows)
        print(f"{options.rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB, load {os.getloadavg()}")
        for _ in range(options.rounds):
            for name, (python, checkout, reader) in list(runs.items()):
                answer = in_process(python, checkout, reader, path)
                if answer is None:
                    print("polars is not installed here, so it is left out (--polars PYTHON).")
                    del runs[name]
                    continue
                results[name].append(answer)
    for name, answers in results.items():
        if answers:
            print(f"{name:8s} " + ", ".join(_shown(part, answers) for part in answers[0]))


def _shown(part: str, answers: list[Seconds]) -> str:
    values = [answer[part] for answer in answers]
    return f"{part} {max(values) if part == 'peak MB' else median(values):,.1f}"


if __name__ == "__main__":
    main()

"""Do a kept run again: `python -m experiments.results.rerun LastFM tuned-small sasrec --seed 0`

The settings are those of the result line, those that a tuning has found included, so that nothing
is tuned again. Every metric of the test is printed beside the mean of all kept seeds with its
interval, and beside the kept run of this seed, which the same code on a processor of the same kind
meets to the last digit. The interval is that of the mean, and the run of one seed may lie outside.
The exit code is 1 where a metric does, and is not that of the kept run either.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from experiments.results.lines import FOLDER, ResultLine, file_of, read_lines
from experiments.results.tables import Mean, mean_of
from research.annotations import suggest
from research.config import from_json
from research.console import wide_console
from research.errors import InputError
from research.evaluation.metrics import of_ranks
from research.public.preparing import load_corpus
from research.public.training import train
from research.runs.config import RunConfig
from research.runs.load import records_of

# Means over the same users' values differ by rounding alone up to this.
SAME = 1e-12


@dataclass(frozen=True)
class Repeated:
    """A metric of a run that was done again."""

    kept: Mean
    """Of all kept seeds."""
    before: float
    """Of the kept run of the same seed."""
    now: float
    """Of the run that was done again."""

    @property
    def is_same(self) -> bool:
        """Whether it is that of the kept run, but for the last bits of a mean over users."""
        return abs(self.now - self.before) <= SAME

    @property
    def is_within(self) -> bool:
        """Whether the run lies within the interval of what is kept."""
        return abs(self.now - self.kept.mean) <= self.kept.half

    @property
    def verdict(self) -> str:
        """In a word what the run shows."""
        if self.is_same:
            return "the same"
        return "within" if self.is_within else "OUTSIDE"


def lines_of(dataset: str, study: str, cell: str, folder: Path = FOLDER) -> list[ResultLine]:
    """The kept lines of a cell, one a seed; `InputError` says what there is if there is none."""
    known = {path.stem for path in folder.glob("*.jsonl")}
    if dataset not in known:
        raise InputError(f"no results are kept of a data set {dataset!r}{suggest(dataset, known)}")
    lines = read_lines(file_of(dataset, folder))
    studies = {line.study for line in lines}
    if study not in studies:
        raise InputError(f"{dataset} has no study {study!r}{suggest(study, studies)}")
    cells = {line.cell for line in lines if line.study == study}
    if cell not in cells:
        raise InputError(f"{dataset} {study} has no cell {cell!r}{suggest(cell, cells)}")
    return [line for line in lines if (line.study, line.cell) == (study, cell)]


def command_of(line: ResultLine) -> str | None:
    """The command that does a line's cell again; None: its settings were not kept."""
    if line.config is None:
        return None
    return shlex.join(
        ["python", "-m", "experiments.results.rerun", line.dataset, line.study, line.cell]
    )


def config_of(line: ResultLine) -> RunConfig:
    """The config of a line; `InputError` where it was not kept."""
    if line.config is None:
        raise InputError(
            f"the settings of {line.dataset} {line.study} {line.cell} were not kept; its command "
            f"was: {line.command}"
        )
    return from_json(line.config, RunConfig)


def repeated(
    lines: Sequence[ResultLine], seed: int, out: Path, corpus: Path | str | None = None
) -> tuple[Mapping[str, Repeated], str]:
    """(by metric, the run hash): do the run of a seed in the folder `out`, or continue it.

    `lines` are the kept ones of its cell; `corpus` is a prepared corpus, by default the folder that
    the line names. Raises `InputError` if there is no line of this seed, and for another corpus.
    """
    by_seed = {line.seed: line for line in lines}
    if seed not in by_seed:
        raise InputError(f"no line has seed {seed}; there are {sorted(by_seed)}")
    line = by_seed[seed]
    config = config_of(line)
    opened = load_corpus(config.corpus if corpus is None else corpus)
    if opened.fingerprint != line.fingerprint:
        raise InputError(
            f"{opened.folder} has fingerprint {opened.fingerprint[:12]}, and the kept run had "
            f"{line.fingerprint[:12]}; prepare the corpus as the study's module says"
        )
    train(replace(config, seed=seed), opened, out=out)
    record, summary = records_of(out)
    test = summary.test["full"]
    return {
        name: Repeated(mean_of(lines, name), line.metrics[name].mean, test[name])
        for name in of_ranks(tuple(test))
        if name in line.metrics
    }, record.hash


def table_of(metrics: Mapping[str, Repeated], seed: int) -> Table:
    """The table that is printed."""
    table = Table("metric", "kept seeds", f"seed {seed}, kept", f"seed {seed}, again", "")
    for name, each in metrics.items():
        kept = f"{each.kept.mean:.4f} ±{each.kept.half:.4f}"
        table.add_row(name, kept, f"{each.before:.4f}", f"{each.now:.4f}", each.verdict)
    return table


def main(arguments: Sequence[str]) -> int:
    """Do the run that the command line names, and print it beside what is kept."""
    parser = argparse.ArgumentParser(prog="python -m experiments.results.rerun")
    parser.add_argument("dataset", help="such as LastFM")
    parser.add_argument("study", help="such as tuned-small")
    parser.add_argument("cell", help="such as sasrec")
    parser.add_argument("--seed", type=int, default=0, help="one of those kept (default: 0)")
    parser.add_argument("--corpus", help="a prepared corpus (default: the folder that it had)")
    parser.add_argument("--out", help="default: runs/rerun/DATASET/CELL/SEED")
    chosen = parser.parse_args(arguments)
    out = chosen.out or Path("runs", "rerun", chosen.dataset, chosen.cell, str(chosen.seed))
    try:
        lines = lines_of(chosen.dataset, chosen.study, chosen.cell)
        metrics, run_hash = repeated(lines, chosen.seed, Path(out), chosen.corpus)
    except InputError as error:
        raise SystemExit(str(error)) from error
    wide_console().print(table_of(metrics, chosen.seed))
    line = next(line for line in lines if line.seed == chosen.seed)
    if run_hash != line.hash:
        print(
            f"the run hash is {run_hash}, and was {line.hash} at commit {line.commit}: fields or "
            "defaults have changed since"
        )
    return 0 if all(each.is_same or each.is_within for each in metrics.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

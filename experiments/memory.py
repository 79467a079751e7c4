"""How does the memory of training grow with items, length and batch, beside what it should?

SASRec of width 64 (2 layers, 2 heads, feed-forward 256, dropout 0.5) trains a few steps on a corpus
that is made for it, each setting in a process of its own, and the peak of resident memory is noted.
One of three sizes changes at a time:
  items   10,000 to 1,000,000, under the full softmax and, as `sampled`, under a loss that moves
          touched rows alone (`item_rows="touched"`); expected: weights and two moments, 12 bytes
          a number of the table, and under the full softmax three gradients beside them while the
          backward pass runs: of the scores, the same times the loss's factor, of the lookups;
  length  50 to 400 at 64 rows of full length; expected: what the encoder says that it keeps for the
          backward pass (`BackboneConfig.activation_bytes`), without the gradients in it;
  batch   64 to 1,024 rows of 50 tokens; expected: the same.
The table has the peaks, the slope between the smallest and the largest setting, and the expected
one; memory.svg in --out draws them.

Command: python -m experiments.memory [--out FOLDER] [--only items sampled length batch]
Hardware: any CPU with 4 GB; minutes. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure as Canvas
from matplotlib.style import context

from baselines.sasrec import bce, full_softmax
from experiments.benchmark.ours import take_step
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.preparation.frames import prepare_frame
from research.data.preparation.options import PrepareConfig
from research.model.transformer_config import TransformerConfig, as_transformer
from research.report.plots import COLOURS, SETTINGS, file_of
from research.runs.parts import RunParts
from research.storage.atomic import replacing
from research.training.optimizer import build_optimizer
from research.training.peak_memory import peak_bytes

WIDTH, LAYERS, HEADS, FEED_FORWARD, DROPOUT = 64, 2, 2, 256, 0.5
STEPS = 4
CPU = torch.device("cpu")
WIDTH_OF_PANEL = 2.4
FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a process trains on."""

    items: int = 10_000
    """V, the number of items."""
    length: int = 50
    """Tokens of every row."""
    rows: int = 64
    """Rows of a batch."""
    sampled: bool = False
    """Whether the loss has one negative and moves touched rows, or is the full softmax."""


SCANS: Mapping[str, Sequence[Setting]] = {
    "items": [Setting(items=number) for number in (10_000, 100_000, 300_000, 1_000_000)],
    "sampled": [
        Setting(items=number, sampled=True) for number in (10_000, 100_000, 300_000, 1_000_000)
    ],
    "length": [Setting(length=length) for length in (50, 100, 200, 400)],
    "batch": [Setting(rows=rows) for rows in (64, 256, 512, 1024)],
}


def expected_bytes(setting: Setting) -> float:
    """Bytes that the setting should take, apart from what all settings take."""
    table = setting.items * WIDTH * FLOAT * (3 if setting.sampled else 6)
    tokens = setting.rows * setting.length
    kept = encoder_of(setting).activation_bytes(tokens, setting.rows, setting.length)
    return table + sum(kept.values())


def encoder_of(setting: Setting) -> TransformerConfig:
    """SASRec's encoder at the setting's length."""
    encoder = as_transformer(full_softmax().encoder, "experiments.memory")
    return replace(
        encoder, length=setting.length, width=WIDTH, layers=LAYERS, heads=HEADS,
        feed_forward=FEED_FORWARD, dropout=DROPOUT,
    )  # fmt: skip


def peak_of(setting: Setting) -> int:
    """Train a few steps in this process, and return its peak of resident memory, in bytes."""
    # Two events more than a row, as leave-one-out holds the last two out.
    length, users = setting.length + 3, 4 * setting.rows
    users = max(users, -(-setting.items // length))
    with tempfile.TemporaryDirectory() as folder:
        corpus = made_corpus(setting.items, users, length, Path(folder) / "corpus")
        config = bce() if setting.sampled else full_softmax()
        stage = config.stages[0]
        optimizer = replace(stage.optimizer, item_rows="touched" if setting.sampled else "all")
        batches = BatchConfig(sequences_per_batch=setting.rows)
        stage = replace(stage, optimizer=optimizer, batches=batches)
        config = replace(
            config, corpus=str(corpus.folder), encoder=encoder_of(setting), stages=(stage,)
        )
        parts = RunParts.of(config, folder)
        model = parts.model(stage, parts.components()).train()
        adam = build_optimizer(stage.optimizer, model)
        for batch in islice(parts.loader(stage, 0, 1).batches(0), STEPS):
            take_step(model, adam, batch, CPU)
    peak = peak_bytes(CPU)
    assert peak is not None, "the system tells how much memory a process has held"
    return peak


def made_corpus(items: int, users: int, length: int, folder: Path) -> Corpus:
    """A corpus of `users` histories of `length` items each, all items equally often, drawn by 0.

    It has all `items` where users times length is as many.
    """
    frame = {
        "user": np.repeat(np.arange(users), length),
        "item": np.random.default_rng(0).permutation(users * length) % items,
        "timestamp": np.tile(np.arange(length), users),
    }
    return prepare_frame(frame, PrepareConfig(source="parquet"), folder, name="made")


def measured(setting: Setting) -> int:
    """`peak_of` in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "experiments.memory"]
    command += ["--here", json.dumps(asdict(setting))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.splitlines()[-1])


def table_of(peaks: Mapping[str, Sequence[int]]) -> str:
    """A Markdown table: peaks of each setting in MB, and the slopes found and expected."""
    lines = [
        "| scan | peaks in MB | growth in MB | expected | found / expected |",
        "|---|---|---|---|---|",
    ]
    for name, measured_peaks in peaks.items():
        settings = SCANS[name]
        cells = ", ".join(
            f"{size_of(name, setting):,}: {peak / 1e6:,.0f}"
            for setting, peak in zip(settings, measured_peaks)
        )
        growth = measured_peaks[-1] - measured_peaks[0]
        expected = expected_bytes(settings[-1]) - expected_bytes(settings[0])
        lines.append(
            f"| {name} | {cells} | {growth / 1e6:,.0f} | {expected / 1e6:,.0f} | "
            f"{growth / expected:.2f} |"
        )
    return "\n".join(lines)


def size_of(scan: str, setting: Setting) -> int:
    """The size that changes in a scan."""
    by_scan = {"length": setting.length, "batch": setting.rows}
    return by_scan.get(scan, setting.items)


def figure_of(peaks: Mapping[str, Sequence[int]]) -> str:
    """An SVG with a panel for each scan: points for the peaks, a dashed line for what is expected.

    The line begins at the first point.
    """
    with context(SETTINGS):
        figure = Canvas(figsize=(WIDTH_OF_PANEL * len(peaks), WIDTH_OF_PANEL), layout="constrained")
        for number, (name, measured_peaks) in enumerate(peaks.items()):
            axes = figure.add_subplot(1, len(peaks), number + 1)
            sizes = [size_of(name, setting) for setting in SCANS[name]]
            base = measured_peaks[0] - expected_bytes(SCANS[name][0])
            expected = [(base + expected_bytes(setting)) / 1e6 for setting in SCANS[name]]
            axes.plot(sizes, expected, color="#888888", linewidth=1.0, dashes=(3, 2))
            axes.plot(sizes, [peak / 1e6 for peak in measured_peaks], "o", color=COLOURS[1])
            axes.set_xlabel("items (sampled loss)" if name == "sampled" else name)
            axes.set_ylabel("MB")
            axes.set_ylim(bottom=0.0)
            axes.locator_params(nbins=4)
            axes.grid(visible=True)
        return file_of(figure, "svg").decode()


def main() -> None:
    """Measure every setting, print the table, and draw the figure if a folder is given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for memory.svg")
    parser.add_argument("--only", nargs="+", choices=SCANS, default=list(SCANS))
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here is not None:
        print(peak_of(Setting(**json.loads(options.here))))
        return
    peaks = {}
    for name in options.only:
        peaks[name] = [measured(setting) for setting in SCANS[name]]
        print(name, [f"{peak / 1e6:,.0f} MB" for peak in peaks[name]], flush=True)
    print(table_of(peaks))
    if options.out is not None:
        with replacing(options.out / "memory.svg") as file:
            file.write(figure_of(peaks).encode())


if __name__ == "__main__":
    main()

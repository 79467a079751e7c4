"""How alike are the states of users, and the items of the table, in the runs of a study?

A pretraining can leave an encoder whose states are much the same for all users, and an item table
whose rows share a direction (anisotropy). For each cell of a folder STUDY/DATASET the table has the
means over its seeds of: the cosine of the states of two users, over all pairs, with the least and
greatest seed; the length of the mean item vector over the mean length of item vectors; and the
number of different items among the ten with the highest scores of all users. States are those of
whole histories, the test item included; items of the history are not excluded.

Command: python -m experiments.anisotropy runs/objectives-lastfm/LastFM
Hardware: one CPU thread, no GPU; a second a run of LastFM. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from research.console import plain_console
from research.errors import InputError
from research.public.run import load
from research.storage.records import RunSummary

K = 10
USERS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Anisotropy:
    """How alike the states and the items of a run are."""

    cosine: float
    """Mean cosine of the states of two different users, from -1 to 1."""
    mean_item: float
    """Length of the mean item vector over the mean length of item vectors, from 0 to 1."""
    recommended: int
    """Number of different items among the K with the highest scores of all users."""


def anisotropy_of(
    states_SD: NDArray[np.float32], items_VD: NDArray[np.float32], bias_V: NDArray[np.float32]
) -> Anisotropy:
    """The anisotropy of the states of S users, at least two, and of V items with these biases."""
    count = len(states_SD)
    units_SD = states_SD / np.linalg.norm(states_SD, axis=1, keepdims=True)
    # The squared length of the sum is the sum over all pairs, each user with itself included.
    pairs = float(np.linalg.norm(units_SD.sum(axis=0, dtype=np.float64))) ** 2 - count
    k = min(K, len(items_VD))
    recommended: set[int] = set()
    for first in range(0, count, USERS_AT_ONCE):
        scores_SV = states_SD[first : first + USERS_AT_ONCE] @ items_VD.T + bias_V
        recommended.update(np.argpartition(scores_SV, -k, axis=1)[:, -k:].ravel().tolist())
    lengths_V = np.linalg.norm(items_VD, axis=1)
    return Anisotropy(
        cosine=pairs / (count * (count - 1)),
        mean_item=float(np.linalg.norm(items_VD.mean(axis=0)) / lengths_V.mean()),
        recommended=len(recommended),
    )


def anisotropy_of_run(folder: Path) -> Anisotropy:
    """The anisotropy of a finished run, with the weights that it ranks with.

    Raises `InputError` for a run that only counts, and for what `sf.load` refuses.
    """
    run = load(folder)
    states = run.encode().to_numpy()
    return anisotropy_of(states, run.item_embeddings().to_numpy(), run.item_bias().to_numpy())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a row a cell, the most alike first."""
    parser = argparse.ArgumentParser(prog="python -m experiments.anisotropy")
    parser.add_argument("folder", type=Path, help="STUDY/DATASET, with CELL/SEED below it")
    folder = parser.parse_args(arguments).folder
    cells: dict[str, list[Anisotropy]] = {}
    for summary in sorted(folder.glob(f"*/*/{RunSummary.FILE}")):
        try:
            measured = anisotropy_of_run(summary.parent)
        except InputError as refused:
            print(f"left out: {summary.parent}: {refused}")
            continue
        cells.setdefault(summary.parts[-3], []).append(measured)
    if not cells:
        raise SystemExit(f"{folder} has no trained run as CELL/SEED; name a study's STUDY/DATASET")
    table = Table("cell", "seeds", "cosine of users", "mean item", "different items")
    means = {cell: float(np.mean([run.cosine for run in runs])) for cell, runs in cells.items()}
    for cell in sorted(cells, key=lambda cell: -means[cell]):
        runs = cells[cell]
        cosines = [run.cosine for run in runs]
        table.add_row(
            cell,
            str(len(runs)),
            f"{means[cell]:.2f} ({min(cosines):.2f} to {max(cosines):.2f})",
            f"{np.mean([run.mean_item for run in runs]):.2f}",
            f"{np.mean([run.recommended for run in runs]):,.0f}",
        )
    plain_console().print(table)


if __name__ == "__main__":
    main()

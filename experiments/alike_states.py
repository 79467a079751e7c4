"""How alike are the states of users, and the items of the table, in the runs of a study?

A pretraining can leave an encoder that says much the same of all users, and an item table whose
rows share one direction: popularity. For each cell of a folder STUDY/DATASET the table has, as
means over its seeds: the cosine of the states of two users (whole histories, all pairs), its least
and greatest seed; the length of the items' mean vector over the mean length of items; and how many
different items the ten best of all users have, those of the history included.

Command: python -m experiments.alike_states runs/objectives-lastfm/LastFM
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
from research.public.run import load

LENGTH = 10
USERS_AT_ONCE = 1_000


@dataclass(frozen=True)
class Likeness:
    """How alike the states and the items of a run are."""

    cosine: float
    """Mean cosine of the states of two different users, from -1 to 1."""
    common: float
    """Length of the mean item vector over the mean length of item vectors, from 0 to 1."""
    items: int
    """Number of different items among the ten best of all users."""


def likeness_of(states_SD: NDArray[np.float32], items_VD: NDArray[np.float32]) -> Likeness:
    """The likeness of a run, from the states of its users, at least two, and its item vectors."""
    count = len(states_SD)
    units_SD = states_SD / np.linalg.norm(states_SD, axis=1, keepdims=True)
    # The squared length of the sum is the sum over all pairs, each user with itself included.
    pairs = float(np.linalg.norm(units_SD.sum(axis=0, dtype=np.float64))) ** 2 - count
    found: set[int] = set()
    for first in range(0, count, USERS_AT_ONCE):
        scores_SV = states_SD[first : first + USERS_AT_ONCE] @ items_VD.T
        found.update(np.argpartition(-scores_SV, LENGTH, axis=1)[:, :LENGTH].ravel().tolist())
    return Likeness(
        cosine=pairs / (count * (count - 1)),
        common=float(
            np.linalg.norm(items_VD.mean(axis=0)) / np.linalg.norm(items_VD, axis=1).mean()
        ),
        items=len(found),
    )


def likeness_of_run(folder: Path) -> Likeness:
    """The likeness of a finished run, with the weights that it ranks with."""
    run = load(folder)
    return likeness_of(run.encode().to_numpy(), run.item_embeddings().to_numpy())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a row a cell, the most alike first."""
    parser = argparse.ArgumentParser(prog="python -m experiments.alike_states")
    parser.add_argument("folder", type=Path, help="STUDY/DATASET, with CELL/SEED below it")
    folder = parser.parse_args(arguments).folder
    runs: dict[str, list[Likeness]] = {}
    for summary in sorted(folder.glob("*/*/summary.json")):
        runs.setdefault(summary.parts[-3], []).append(likeness_of_run(summary.parent))
    if not runs:
        raise SystemExit(f"{folder} has no finished run as CELL/SEED; name a study's STUDY/DATASET")
    table = Table("cell", "seeds", "cosine of users", "items' common part", "different items")
    for cell, found in sorted(
        runs.items(), key=lambda each: -float(np.mean([like.cosine for like in each[1]]))
    ):
        cosines = [like.cosine for like in found]
        table.add_row(
            cell,
            str(len(found)),
            f"{np.mean(cosines):.2f} ({min(cosines):.2f} to {max(cosines):.2f})",
            f"{np.mean([like.common for like in found]):.2f}",
            f"{np.mean([like.items for like in found]):,.0f}",
        )
    plain_console().print(table)


if __name__ == "__main__":
    main()

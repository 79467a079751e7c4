"""Has a study become better or worse? NDCG@10 of its runs by two versions of the code, by user.

Both folders are the runs of a study on one corpus, as `study` writes them:
FOLDER/CELL/SEED/ranks/test-full.npz. The tables are read as plain arrays, so that those of an
earlier version of the code can be read too. A user's value is the mean over the seeds of the
expectation over all orders of tied candidates; the values after are compared with those before,
paired by user, and the interval is the bootstrap's over users.

Command: python -m experiments.before_and_after BEFORE AFTER [--cells CELL ...] [--k 10]
         where BEFORE is, for example, ../earlier/runs/quickstart/ml-100k, made by the same study in
         a checkout of an earlier commit, and AFTER runs/quickstart/ml-100k.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.evaluation.metrics import per_user
from research.evaluation.rank_table import RankTable
from research.evaluation.resampling import resampled_means
from research.storage.untrusted import printable

TABLE = Path("ranks") / "test-full.npz"
RESAMPLES = 10_000
Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """NDCG@k of every user in the runs of a cell."""

    user: NDArray[np.int64]
    """[U] dense user ids, ascending."""
    item: NDArray[np.int64]
    """[U] each user's held-out item."""
    seeds: tuple[int, ...]
    """The seeds of the runs, ascending."""
    values_by_seed: Values
    """[seeds, U] NDCG@k."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a cell's NDCG@k has changed, as a mean over users of means over seeds."""

    cell: str
    """The cell's name."""
    seeds: tuple[int, int]
    """Number of seeds before and after."""
    before: float
    """NDCG@k before."""
    after: float
    """NDCG@k after."""
    interval: tuple[float, float]
    """The 95 % bootstrap interval over users of `after - before`."""


def expected_ndcg(rank: Values, ties: NDArray[np.integer], k: int) -> Values:
    """NDCG@k of users with one held-out item each, float64 [U], over all orders of its ties.

    `rank` [U] is the item's mean rank among the `ties` [U] other candidates of its score and
    itself, so that these take the places from rank - ties / 2 to rank + ties / 2, each with equal
    chance. An infinite rank is a miss.
    """
    users, zeros = np.arange(len(rank), dtype=np.int32), np.zeros(len(rank), np.int32)
    table = RankTable(users, zeros, rank, ties.astype(np.int32), zeros, zeros, {})
    return per_user(table, f"ndcg@{k}")[1]


def seed_of(run: Path) -> int:
    """The seed after which a run's folder is named; `InputError` for another name."""
    if not (run.name.isascii() and run.name.isdigit()):
        raise InputError(
            f"{run} holds a table, but {run.name!r} is no seed (0, 1, 2, ...); name the folder by "
            "its seed, or move it out of its cell"
        )
    return int(run.name)


def scores_of(cell: Path, k: int) -> Scores:
    """The scores in a cell's folder; `InputError` if its tables do not fit together."""
    paths = {seed_of(path.parent.parent): path for path in cell.glob(f"*/{TABLE}")}
    if not paths:
        raise InputError(f"{cell} has no table SEED/{TABLE}; name the folder of a study's corpus")
    users, items, values = list[NDArray[np.int64]](), list[NDArray[np.int64]](), list[Values]()
    for seed in sorted(paths):
        with np.load(paths[seed], allow_pickle=False) as table:
            order = np.argsort(table["user"], kind="stable")
            users.append(table["user"][order].astype(np.int64))
            items.append(table["item"][order].astype(np.int64))
            values.append(expected_ndcg(table["rank"][order], table["ties"][order], k))
        if len(np.unique(users[-1])) < len(users[-1]):
            raise InputError(
                f"{paths[seed]} has several rows of a user; allowed: one held-out item"
            )
        check_same_questions(paths[seed], (users[-1], items[-1]), (users[0], items[0]))
    return Scores(
        user=users[0], item=items[0], seeds=tuple(sorted(paths)), values_by_seed=np.stack(values)
    )


def check_same_questions(
    source: Path, questions: Sequence[NDArray[np.int64]], expected: Sequence[NDArray[np.int64]]
) -> None:
    """Raise `InputError` unless users and items, [U] each, are the expected ones."""
    if not all(np.array_equal(column, other) for column, other in zip(questions, expected)):
        raise InputError(
            f"{source} has other users or other held-out items than the tables before it; "
            "compare runs on one corpus with one split"
        )


def change_of(before: Path, after: Path, cell: str, k: int = 10) -> Change:
    """How a cell has changed between two folders of a study's runs."""
    old, new = scores_of(before / cell, k), scores_of(after / cell, k)
    check_same_questions(after / cell, (new.user, new.item), (old.user, old.item))
    old_U, new_U = old.values_by_seed.mean(0), new.values_by_seed.mean(0)
    means = resampled_means(new_U - old_U, RESAMPLES, np.random.default_rng(0))
    low, high = np.quantile(means, (0.025, 0.975))
    return Change(
        cell=cell,
        seeds=(len(old.seeds), len(new.seeds)),
        before=float(old_U.mean()),
        after=float(new_U.mean()),
        interval=(float(low), float(high)),
    )


def cells_of(folder: Path) -> set[str]:
    """The cells that a folder has runs of, by name."""
    return {path.parents[2].name for path in folder.glob(f"*/*/{TABLE}")}


def common_cells(before: Path, after: Path) -> list[str]:
    """The cells that both folders have runs of, by name; `InputError` if there are none."""
    common = cells_of(before) & cells_of(after)
    if not common:
        raise InputError(f"{before} and {after} have no cell in common with CELL/SEED/{TABLE}")
    return sorted(common)


def other_cells(before: Path, after: Path) -> list[str]:
    """Lines that name the cells that one folder lacks; none where both have the same."""
    old, new = cells_of(before), cells_of(after)
    return [
        f"only {side}: {', '.join(map(printable, sorted(cells)))}"
        for side, cells in (("before", old - new), ("after", new - old))
        if cells
    ]


def table_of(changes: Sequence[Change], k: int) -> str:
    """The changes as a table in Markdown."""
    lines = [
        f"| cell | seeds before, after | NDCG@{k} before | after | difference (95 % over users) |",
        "|---|---|---|---|---|",
    ]
    for change in changes:
        difference = change.after - change.before
        low, high = change.interval
        lines.append(
            f"| {change.cell} | {change.seeds[0]}, {change.seeds[1]} | {change.before:.4f} | "
            f"{change.after:.4f} | {difference:+.4f} ({low:+.4f} to {high:+.4f}) |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; returns 2 for a mistake in what was given."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("before", type=Path, help="runs before, FOLDER/CELL/SEED")
    parser.add_argument("after", type=Path, help="runs after, FOLDER/CELL/SEED")
    parser.add_argument("--cells", nargs="+", help="cells to compare instead of all that both have")
    parser.add_argument("--k", type=int, default=10, help="places that count (10)")
    options = parser.parse_args(words)
    before, after = options.before, options.after
    try:
        cells = options.cells or common_cells(before, after)
        changes = [change_of(before, after, cell, options.k) for cell in cells]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table_of(changes, options.k))
    for line in [] if options.cells else other_cells(before, after):
        print(f"\n{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

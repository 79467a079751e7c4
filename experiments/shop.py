"""Generates the events of a small shop, as an example of a first BERT4Rec on few data.

Items belong to categories, and users buy by simple rules: with probability 0.65 the next item is
one of three that follow the last one, else it is most often of a category that the user likes, and
popular items are bought more often (Zipf). Users have 5 to 30 events, a day apart.

Command: python -m experiments.shop --users 300 --out data/shop.csv
         python -m research prepare csv --raw data/shop.csv --out data/corpora/shop
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from research.errors import InputError
from research.storage.atomic import replacing

FOLLOWED = 0.65
DAY = 86_400
FIRST = 1_600_000_000


def histories(users: int, items: int, seed: int) -> list[list[int]]:
    """For each user the item ids from the oldest to the newest; equal arguments give equal ones."""
    draws = np.random.default_rng(seed)
    categories = draws.integers(max(1, items // 15), size=items)
    popularity = 1.0 / np.arange(2, items + 2)
    followers = draws.choice(items, size=(items, 3), p=popularity / popularity.sum())
    rows = []
    for _ in range(users):
        liked = draws.choice(categories, size=2)
        weights = popularity * np.where(np.isin(categories, liked), 10.0, 1.0)
        weights /= weights.sum()
        row = [int(draws.choice(items, p=weights))]
        while len(row) < draws.integers(5, 31):
            follows = draws.random() < FOLLOWED
            chosen = draws.choice(followers[row[-1]]) if follows else draws.choice(items, p=weights)
            row.append(int(chosen))
        rows.append(row)
    return rows


def write_csv(path: Path, rows: list[list[int]]) -> None:
    """Write a CSV file with a line for each event: user,item,timestamp (in seconds)."""
    lines = [
        f"u{user},i{item},{FIRST + day * DAY}"
        for user, row in enumerate(rows)
        for day, item in enumerate(row)
    ]
    with replacing(path) as file:
        file.write("\n".join(["user,item,timestamp", *lines, ""]).encode())


def main(arguments: list[str]) -> int:
    """Write the shop's events; returns exit code 0, or 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shop", description=__doc__)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    options = parser.parse_args(arguments)
    if options.users < 1 or options.items < 4:
        print("experiments.shop: give at least 1 user and 4 items", file=sys.stderr)
        return 2
    try:
        write_csv(options.out, histories(options.users, options.items, options.seed))
    except InputError as error:
        print(f"experiments.shop: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

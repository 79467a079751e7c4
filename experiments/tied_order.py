"""How much of what models learn from Amazon's reviews is the order of a day's items in the file?

Times of Amazon's reviews of 2014 are days, and 43 % of the users of Beauty have their last two
items on one day, so that the file decides which of them is last. S3-Rec's file, on which most
figures are published, has the items of every day in one order of the whole catalogue: two users who
have the same two neighbors within a day always have them in the same order. TiCoSeRec's copy of the
same events has days in an order drawn at random, so that two users agree half of the time. The
cells are the same on both: counting, the next item under the full softmax from scratch, and after a
pretraining on S3-Rec's heads (`none` and `s3` of `experiments.objectives:beauty`).

A day in a fixed order is easier for a model that reads order, in training and in the test. And the
last item is then another one: the last of the catalogue's order.

That the order makes the difference, and with it which item is last, the counting cells show on one
file: S3-Rec's with the times of the other, prepared as it is and with its ties drawn.

Corpora: data/corpora/Beauty, as for `experiments.objectives:beauty`, and
         data/corpora/Beauty-times-attributes, as for `experiments.temporal`;
         python -m experiments.tied_order Beauty.txt Beauty.csv --out Beauty-sorted.csv
         python -m research prepare csv --raw Beauty-sorted.csv --out data/corpora/Beauty-sorted
         and, with --tie-seed 0, --out data/corpora/Beauty-drawn; the same for Sports
Command: python -m research study experiments.tied_order --threads 1 --no-probe
         python -m research study experiments.tied_order:counted --threads 1 --no-probe
Hardware: two CPU cores, no GPU. Times and results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from baselines.ease import ease
from baselines.item_knn import item_knn
from baselines.popularity import popularity
from baselines.transitions import transitions
from experiments.objectives import beauty
from research.errors import InputError
from research.storage.atomic import replacing
from research.studies.study import Study

COUNTED = {
    "popularity": popularity(),
    "transitions": transitions(),
    "item-knn": item_knn(),
    "ease": ease(),
}


def study() -> Study:
    """The same cells on a file whose days are sorted, and on one whose days are drawn."""
    pretraining = beauty()
    assert pretraining.budget is not None, "all its cells see as many tokens"
    trained = {
        name: pretraining.budget.apply_to(pretraining.cells[name]) for name in ("none", "s3")
    }
    return replace(
        pretraining,
        name="tied-order",
        question="How much of what models learn is the order of a day's items in the file?",
        cells={**trained, **COUNTED},
        corpora=("data/corpora/Beauty", "data/corpora/Beauty-times-attributes"),
        budget=None,
    )


def counted() -> Study:
    """What counts, on a file as it is and with its ties drawn; EASE takes 3.2 GB for Sports."""
    return replace(
        study(),
        name="tied-order-counted",
        cells=COUNTED,
        base="transitions",
        corpora=tuple(
            f"data/corpora/{name}-{order}"
            for name in ("Beauty", "Sports")
            for order in ("sorted", "drawn")
        ),
    )


def with_times(histories: Path, events: Path) -> pd.DataFrame:
    """The events of a file of `user item item ...` lines, in its order, with the times of a copy.

    `events` is a CSV file of user, item and timestamp, one row an event. `InputError` where the two
    have not the same events, each once.
    """
    rows = [line.split() for line in histories.read_text(encoding="utf-8").splitlines()]
    pairs = [(user, item) for user, *items in rows for item in items]
    ordered = pd.DataFrame(pairs, columns=["user", "item"])
    timed = pd.read_csv(events, usecols=["user", "item", "timestamp"], dtype=str)
    for path, frame in ((histories, ordered), (events, timed)):
        repeated = frame[frame.duplicated(["user", "item"])]
        if len(repeated):
            user, item = repeated[["user", "item"]].iloc[0]
            raise InputError(f"{path} has user {user} with item {item} more than once")
    joined = ordered.merge(timed, on=["user", "item"], how="outer", indicator="found")
    lone = joined[joined["found"] != "both"]
    if len(lone):
        user, item, _, found = lone.iloc[0]
        path = events if found == "left_only" else histories
        raise InputError(
            f"{path} has no event of user {user} with item {item}, which the other file has; name "
            "two copies of the same events"
        )
    return ordered.merge(timed, on=["user", "item"], how="left")


def main(arguments: Sequence[str]) -> None:
    """Write what `with_times` gives as CSV."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tied_order")
    parser.add_argument("histories", type=Path, help="S3-Rec's file, such as Beauty.txt")
    parser.add_argument("events", type=Path, help="CSV of the same events: user,item,timestamp")
    parser.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    chosen = parser.parse_args(arguments)
    try:
        with replacing(chosen.out) as file:
            file.write(with_times(chosen.histories, chosen.events).to_csv(index=False).encode())
    except InputError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main(sys.argv[1:])

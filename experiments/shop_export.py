"""Writes the export of a small shop, with the odd things that real exports have.

The events are those of `experiments/shop.py`. `events.csv` has the columns customer, sku,
bought_at, price, category and brand: times are ISO 8601 with two zones and without one, one event
in a hundred stands there twice, and some cells are empty or say NULL. `items.csv` has sku, title,
category and brand; titles hold commas and quotes.

Command: python -m experiments.shop_export --out data/export
         python -m research prepare csv --raw data/export/events.csv --user-column customer
             --item-column sku --timestamp-column bought_at --missing drop --duplicates exact
             --items-file data/export/items.csv --attribute-columns category,brand
             --title-column title --out data/corpora/export
         python -m research run baselines.s3rec.corrected --corpus data/corpora/export
             --out runs/export stages.0.epochs=20 stages.1.epochs=150
         python -m research recommend runs/export --items SKU-0003,SKU-0010
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from experiments.shop import FIRST, histories
from research.errors import InputError
from research.storage.atomic import replacing

CATEGORIES = ("Beer Gardens", "Books, Maps", 'Screens 24"', "Tea")
BRANDS = ("Acme", "Hill & Sons", "Nord", "Sato")
ZONES = (timezone.utc, timezone(timedelta(hours=2)), None)
DOUBLES, EMPTY = 0.01, 0.01
HOUR = 3600


def items_table(items: int, draws: np.random.Generator) -> list[list[str]]:
    """A row for each item: sku, title, category, brand."""
    rows = []
    for item in range(items):
        category = CATEGORIES[item * len(CATEGORIES) // items]
        brand = str(draws.choice(BRANDS))
        rows.append([f"SKU-{item:04}", f'{brand} "No. {item}", {category}', category, brand])
    return rows


def events_table(
    rows: list[list[int]], items: list[list[str]], draws: np.random.Generator
) -> list[list[str]]:
    """A row for each event, and now and then a second one: customer, sku, bought_at, price, ..."""
    table = []
    for customer, row in enumerate(rows):
        for hour, item in enumerate(row):
            moment = datetime.fromtimestamp(FIRST + hour * HOUR, timezone.utc)
            zone = ZONES[int(draws.integers(len(ZONES)))]
            told = moment.astimezone(zone) if zone else moment.replace(tzinfo=None)
            sku, _, category, brand = items[item]
            event = [f"c{customer}", sku, told.isoformat(), f"{5 + item}.50", category, brand]
            if draws.random() < EMPTY:
                event[int(draws.choice([0, 1, 5]))] = str(draws.choice(["", "NULL"]))
            table += [event, event] if draws.random() < DOUBLES else [event]
    return table


def write_table(path: Path, header: list[str], rows: list[list[str]]) -> None:
    """Write a CSV file whose fields are quoted where they must be."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def main(arguments: list[str]) -> int:
    """Write both files into a folder; returns exit code 0, or 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m experiments.shop_export", description=__doc__)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--items", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.users < 1 or options.items < 4:
        print("experiments.shop_export: give at least 1 user and 4 items", file=sys.stderr)
        return 2
    draws = np.random.default_rng(options.seed)
    items = items_table(options.items, draws)
    events = events_table(histories(options.users, options.items, options.seed), items, draws)
    try:
        header = ["customer", "sku", "bought_at", "price", "category", "brand"]
        write_table(options.out / "events.csv", header, events)
        write_table(options.out / "items.csv", ["sku", "title", "category", "brand"], items)
    except InputError as error:
        print(f"experiments.shop_export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

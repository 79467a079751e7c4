"""Pages of documentation: their blocks, and runs that are small enough to execute them."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import experiments.shop as shop
from research.data.loader import BatchConfig
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.data.windows import LastItems
from research.runs.config import RunConfig
from tests.support.synthetic import markov_histories

# Language and title (or nothing) of a block, and what stands in it.
BLOCK = re.compile(r'^```(\w*)(?: title="([\w.]+)")?\n(.*?)^```$', flags=re.MULTILINE | re.DOTALL)
# What a line of Python prints, as the page says: behind it, or in a comment of its own.
PRINTED = re.compile(r"^(?:print\(.*\)  )?# (.*)$", flags=re.MULTILINE)


def blocks_of(text: str) -> list[tuple[str, str, str]]:
    """(language, title, content) of every block of a page, in order."""
    return [(found[1], found[2] or "", found[3]) for found in BLOCK.finditer(text)]


def printed_by(block: str) -> list[str]:
    """The lines that a block of Python prints, as its comments say; none: they do not say."""
    return PRINTED.findall(block)


def shrunk(config: RunConfig) -> RunConfig:
    """The config with a tiny encoder and one epoch over each user's newest items."""
    if not config.stages:
        return config
    small = BatchConfig(sequences_per_batch=32)
    stages = tuple(
        replace(stage, epochs=1, batches=small, windows=LastItems()) for stage in config.stages
    )
    encoder = replace(config.encoder, length=6, width=8, heads=1, layers=1, feed_forward=8)
    return replace(config, encoder=encoder, stages=stages)


def lay_shop(folder: Path) -> None:
    """Write events.csv, the tutorial's shop, and the corpus that the tutorial makes of it."""
    shop.write_csv(folder / "events.csv", shop.histories(300, 150, seed=0))
    config = PrepareConfig(source="csv", raw=str(folder / "events.csv"), user_core=5, item_core=5)
    prepare(config, folder / "data" / "corpora" / "shop")


def lay_films(folder: Path) -> None:
    """Write a corpus with attributes in the folder ml-100k, and an archive ml-1m.zip."""
    histories = markov_histories(num_users=40, num_items=30, length=12, seed=3)
    lines = [
        f"{user} {' '.join(str(item + 1) for item in row)}" for user, row in enumerate(histories)
    ]
    (folder / "ml-100k.txt").write_text("\n".join(lines) + "\n")
    genres = {str(item): [1 + item % 5] for item in range(1, 31)}
    (folder / "ml-100k_item2attributes.json").write_text(json.dumps(genres))
    prepare(PrepareConfig(source="s3rec", raw=str(folder / "ml-100k.txt")), folder / "ml-100k")
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", ratings_of(histories))
        movies = "".join(f"{item}::Film {item} (1990)::Drama\n" for item in range(1, 31))
        archive.writestr("ml-1m/movies.dat", movies)


def ratings_of(histories: Sequence[Sequence[int]]) -> str:
    """Histories as lines of MovieLens-1M's ratings."""
    return "".join(
        f"{user + 1}::{item + 1}::5::{place}\n"
        for user, history in enumerate(histories)
        for place, item in enumerate(history)
    )

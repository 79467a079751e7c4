"""The verbs that ask a finished run: `recommend`, `similar` and `embeddings`.

`research/cli/recommend.py` does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from research.cli.verb import Flag, Reading, ReadingOptions, Repeated, Verb, option

Ids = Annotated[Repeated, option("ID ...")]
File = Annotated[str | None, option("FILE")]


@dataclass(frozen=True, kw_only=True)
class AskerOptions:
    """For whom: one of --users, --users-file, --items and --histories."""

    users: Annotated[Repeated, option("all|ID ...")] = ()
    """users of the corpus, by raw id; all: every one"""
    users_file: File = None
    """users of the corpus: a column `user` (.csv, .parquet, .jsonl), or an id a line (.txt)"""
    items: Ids = ()
    """a new user's history: raw ids of items, oldest first"""
    histories: File = None
    """new users' histories (.csv, .parquet, .jsonl): a row an event, or a row a user with a list"""
    user_column: Annotated[str | None, option("NAME", "the corpus's raw one, or user")] = None
    """column of users in files"""
    item_column: Annotated[str | None, option("NAME", "the corpus's raw one, or item")] = None
    """column of items in files"""
    timestamp_column: Annotated[str | None, option("NAME", "the raw one, or timestamp")] = None
    """column of times in --histories; where there is none, events are oldest first as they stand"""
    time_format: Annotated[str | None, option("FORM", "the corpus's for its raw column")] = None
    """form of times that are dates of your own in --histories, such as '%%d.%%m.%%Y %%H:%%M'"""
    history: Literal["all", "train", "test"] = "all"
    """a user's events that are read: all; those trained on; those before the test's item"""
    unknown: Literal["error", "skip"] = "error"
    """ids that the corpus does not have: an error, or left out and counted"""


Askers = Annotated[AskerOptions, arg(name="")]


@dataclass(frozen=True, kw_only=True)
class RecommendCommand(Verb):
    """Print or write the items that a run ranks highest for users or histories.

    An option that takes several values may be repeated, and ids may be written with commas between:
    ID,ID,... A value that begins with a dash is given with an equals sign: --items=-5. Of scores
    only the order within a user counts: they are logits or counts, not probabilities.
    """

    LINE = "RUN --users all|ID ... [--k 10] [--out FILE]: the items that a run ranks highest"
    run: Positional[str]
    """a run folder"""
    askers: Askers = AskerOptions()
    """for whom"""
    k: Annotated[int, arg(metavar="K")] = 10
    """how many items"""
    keep_seen: Flag = False
    """recommend items of the history too, which are left out otherwise"""
    candidates: File = None
    """recommend only these: a column of items (.csv, .parquet, .jsonl), or an id a line (.txt)"""
    exclude: File = None
    """recommend none of these: a file as for --candidates"""
    attributes: Annotated[Repeated, option("NAME ...")] = ()
    """recommend only items with one of these attributes or more, such as genre:Drama"""
    exclude_attributes: Annotated[Repeated, option("NAME ...")] = ()
    """recommend no item with one of these attributes"""
    out: File = None
    """write to a .csv, .parquet or .jsonl file; none: print"""
    reading: Reading = ReadingOptions()
    """--data-root, --allow, --threads and --device"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Rank, and print or write the items."""
        from research.cli.recommend import recommend

        return recommend(self)


@dataclass(frozen=True, kw_only=True)
class SimilarCommand(Verb):
    """Print or write the items, or the attributes, whose embeddings are nearest to given ones.

    A value that begins with a dash is given with an equals sign: --items=-5.
    """

    LINE = "RUN --items ID ... [--k 10] [--out FILE]: the items that are nearest to given ones"
    run: Positional[str]
    """a run folder"""
    items: Annotated[Repeated, option("all|ID ...")] = ()
    """raw ids of items; all: every one"""
    attributes: Annotated[Repeated, option("all|NAME ...")] = ()
    """names of attributes, in place of items; all: every one"""
    k: Annotated[int, arg(metavar="K")] = 10
    """how many neighbors"""
    by: Literal["cosine", "dot"] = "cosine"
    """what is near: by cosine, or by the inner product"""
    out: File = None
    """write to a .csv, .parquet or .jsonl file; none: print"""
    reading: Reading = ReadingOptions()
    """--data-root, --allow, --threads and --device"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Find the neighbors, and print or write them."""
        from research.cli.recommend import similar

        return similar(self)


@dataclass(frozen=True, kw_only=True)
class EmbeddingsCommand(Verb):
    """Write a run's embeddings with their raw ids.

    Those of items are the rows that scores are computed with, those of users are the states after
    their histories: the product of the two (with an item's bias, where there is one) is the score.
    Users are all of the corpus unless some are named.
    """

    LINE = "RUN --of items|users|attributes --out FILE: write a run's embeddings"
    run: Positional[str]
    """a run folder"""
    of: Literal["items", "users", "attributes"]
    """what is embedded"""
    out: Annotated[str, arg(metavar="FILE")]
    """a .parquet or .npz file to write"""
    askers: Askers = AskerOptions()
    """which users"""
    reading: Reading = ReadingOptions()
    """--data-root, --allow, --threads and --device"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Write the file."""
        from research.cli.recommend import embeddings

        return embeddings(self)

"""The reader of MovieLens in each of its layouts.

The layout of a MovieLens folder or archive is recognised by the name of its ratings file. Genres
and the decade of the year in a title, as in "(1995)", become attributes; titles are kept. One of
the layouts is ml-100k as atomic files, as RecBole ships it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from research.data.preparation.atomic import read_atomic
from research.data.preparation.atomic_items import read_item_file
from research.data.preparation.delimited import (
    Kind,
    Layout,
    decade,
    first_line,
    read_delimited,
    rows_of_width,
)
from research.data.preparation.download import extract
from research.data.preparation.events import Events, Source
from research.data.preparation.options import PrepareConfig
from research.data.preparation.raw_files import require_file
from research.data.preparation.raw_tables import ColumnNames
from research.data.preparation.tables import events_of
from research.errors import InputError

# The ratings file of each layout, and the files that may be beside it.
LAYOUTS = {
    "u.data": ("u.item", "u.genre"),
    "ml-100k.inter": ("ml-100k.item",),
    "ratings.dat": ("movies.dat",),
    "ratings.csv": ("movies.csv",),
}
_RATING_FILES_BY_NAME = {
    "ml-100k": ("u.data", "ml-100k.inter"),
    "ml-1m": ("ratings.dat",),
    "ml-10m": ("ratings.dat",),
    "movielens": tuple(LAYOUTS),
}
_RATING_COLUMNS = ("user", "item", "rating", "timestamp")
_COLUMN_NAMES = ColumnNames(user="user", item="item", timestamp="timestamp", rating="rating")
_KINDS: dict[str, Kind] = {
    "user": "id",
    "item": "id",
    "rating": "number",
    "timestamp": "time",
}
# The genres in u.genre of MovieLens-100K, in the order of the flags in u.item.
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
_NO_GENRE = ("unknown", "(no genres listed)", "")
_YEAR = re.compile(r"\(((?:18|19|20)[0-9]{2})(?:[-\u2013][0-9]{0,4})?\)")
_WHOLE_NUMBER = re.compile("0|[1-9][0-9]*")


def movielens_source(raw: Path, name: str) -> Source:
    """The source of a folder, a file in it, or a `.zip` archive of MovieLens.

    `name` is one of its data sets, which decides the layouts that are allowed, or "movielens" for
    any of them. Raises `InputError` if there is nothing at `raw`, or no ratings file in the folder;
    an archive is opened only when it is read.
    """
    allowed = _RATING_FILES_BY_NAME.get(name, ("ratings.csv",))
    title = raw.stem if name == "movielens" else name
    if os.path.isfile(raw) and raw.suffix == ".zip":
        return Source(name=title, files=(raw,), read=partial(_read_archive, raw, allowed))
    if not os.path.exists(raw):
        raise InputError(f"{raw}: there is no such file or folder.")
    files = _find(raw, allowed)
    return Source(name=title, files=files, read=partial(_read, files))


def _read_archive(archive: Path, allowed: Iterable[str]) -> Events:
    side_files = tuple(member for ratings in allowed for member in LAYOUTS[ratings])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        extract(archive, folder, names=(*allowed, *side_files))
        return _read(_find(folder, allowed, label=archive))


def _find(raw: Path, allowed: Iterable[str], *, label: Path | None = None) -> tuple[Path, ...]:
    """The ratings file and then the files beside it, in `raw` or in a folder directly below.

    Where `raw` is a file, its folder is searched. Errors name `label` in place of `raw`.
    """
    folders = [raw] if raw.is_dir() else [raw.parent]
    folders += sorted(folder for folder in folders[0].iterdir() if folder.is_dir())
    for folder in folders:
        for ratings in allowed:
            if (folder / ratings).is_file():
                side_files = [folder / member for member in LAYOUTS[ratings]]
                existing = [require_file(path) for path in side_files if path.exists()]
                return (require_file(folder / ratings), *existing)
    raise InputError(f"{label or raw}: holds none of {', '.join(allowed)}.")


def _read(files: tuple[Path, ...]) -> Events:
    ratings, side_files = files[0], {path.name: path for path in files[1:]}
    if ratings.name == "ml-100k.inter":
        events = read_atomic(ratings, PrepareConfig(source="movielens"))
        return _with_movies(events, side_files.get("ml-100k.item"), _movies_recbole)
    header, header_line = ratings.name == "ratings.csv", 0
    if header:
        expected = ["userId", "movieId", "rating", "timestamp"]
        header_line, header_fields = first_line(ratings, ",", quoted=True)
        if header_fields != expected:
            raise InputError(
                f"{ratings}, line {header_line}: {header_fields}; expected {expected}."
            )
    delimiter = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}[ratings.name]
    layout = Layout(
        columns=_RATING_COLUMNS, kinds=_KINDS, delimiter=delimiter, header_line=header_line
    )
    raw = read_delimited(ratings, layout)
    events = events_of(raw, _COLUMN_NAMES, PrepareConfig(source="movielens"))
    for column, names, codes in (
        ("user", events.user_names, events.users),
        ("item", events.item_names, events.items),
    ):
        for code, name in enumerate(names):
            if not _WHOLE_NUMBER.fullmatch(name):
                line = raw.where(int((codes == code).argmax()))
                raise InputError(f"{line}, column {column!r}: {name!r:.60} is not an integer.")
    if ratings.name == "u.data":
        return _with_movies(events, side_files.get("u.item"), partial(_movies_100k, side_files))
    if header:
        return _with_movies(events, side_files.get("movies.csv"), _movies_csv)
    return _with_movies(events, side_files.get("movies.dat"), _movies_dat)


Movies = list[tuple[str, str, list[str]]]


def _with_movies(events: Events, path: Path | None, read: Callable[[Path], Movies]) -> Events:
    if path is None:
        return events
    movies = read(path)
    attributes = {}
    for item, title, genres in movies:
        years = _YEAR.findall(title)
        names = [f"genre:{genre}" for genre in genres if genre not in _NO_GENRE]
        attributes[item] = names + (decade(years[-1]) if years else [])
    titles = {item: title for item, title, _ in movies}
    return replace(events, attributes=attributes, attribute_file=path, titles=titles)


def _movies_100k(side_files: Mapping[str, Path], path: Path) -> Movies:
    genres = _GENRES_100K.split("|")
    if "u.genre" in side_files:
        genres = [
            fields[0] for fields in rows_of_width(side_files["u.genre"], "|", 2, encoding="latin-1")
        ]
    movies = []
    for item, title, *rest in rows_of_width(path, "|", 5 + len(genres), encoding="latin-1"):
        flags = zip(genres, rest[3:], strict=True)
        movies.append((item, title, [genre for genre, flag in flags if flag == "1"]))
    return movies


def _movies_dat(path: Path) -> Movies:
    try:
        path.read_bytes().decode()
        encoding = "utf-8"
    except UnicodeDecodeError:
        # MovieLens-1M is latin-1, MovieLens-10M is utf-8.
        encoding = "latin-1"
    rows = rows_of_width(path, "::", 3, encoding=encoding)
    return [(item, title, genres.split("|")) for item, title, genres in rows]


def _movies_csv(path: Path) -> Movies:
    rows = rows_of_width(path, ",", 3, header=True, quoted=True)
    return [(item, title, genres.split("|")) for item, title, genres in rows]


def _movies_recbole(path: Path) -> Movies:
    """The movies of RecBole's file, with the year that it removed from each title added again."""
    movies = []
    types, rows = read_item_file(path)
    for name in ("movie_title", "release_year", "class"):
        if name not in types:
            raise InputError(f"{path}, line 1: no field {name}; found {', '.join(types)}.")
    for row in rows:
        title, year = row["movie_title"], row["release_year"]
        # Item 267, which RecBole misspells; in u.item it has the title "unknown" and no year.
        full_title = "unknown" if title == "unkonwn" else f"{title} ({year})"
        movies.append((row["item_id"], full_title, row["class"].split(" ")))
    return movies

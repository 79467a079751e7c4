"""Targets: raw files of every format, archives, prepared corpora, files of negatives."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from research.cli.show import show_corpus
from research.data.audit import audit_corpus
from research.data.corpus import Corpus
from research.data.preparation import download
from research.data.preparation.json_columns import FieldKind
from research.data.preparation.json_lines import read_json_lines
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare, source_of
from research.data.preparation.raw_files import require_file
from research.data.splits import LeaveOneOut
from research.evaluation.candidates import read_candidates
from tests.fuzz.mutations import PACKINGS, number_of, string_of
from tests.fuzz.targets import Case, Target, altering, some, written
from tests.support.movielens_files import archive_files
from tests.support.synthetic import write_histories

# Of cases that a reader accepts, the share that goes on to a corpus on the disk.
WHOLE = 0.1


def reading(config: PrepareConfig, folder: Path) -> Case:
    """Read a raw file; now and then prepare, open and verify the corpus of it as well."""

    def read(random: Random) -> None:
        if random.random() >= WHOLE:
            events = source_of(config, folder).read()
            if events.describe is not None:
                events.describe(events.item_names)
            return
        core = random.choice((0, 0, 0, 2))
        duplicates = random.choice(("keep", "exact", "first", "last"))
        own = replace(config, user_core=core, duplicates=duplicates)
        out = folder / "corpus"
        try:
            prepare(own, out, data_root=folder).verify()
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return read


def movielens(layout: str, source: str, folder: Path) -> Case:
    files = archive_files(layout)
    if layout == "ml-100k":
        files["u.genre"] = b"".join(b"g%d|%d\n" % (each, each) for each in range(19))
    written(folder / "raw", files)
    return altering(
        folder / "raw", reading(PrepareConfig(source=source, raw=f"{folder}/raw"), folder)
    )


def archive(folder: Path) -> Case:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in archive_files("ml-20m").items():
            made.writestr(f"ml-20m/{name}", content)
    written(folder, {"ml.zip": target.getvalue()})
    config = PrepareConfig(source="movielens", raw=f"{folder}/ml.zip")

    def extract(random: Random) -> None:
        taken = folder / "taken"
        taken.mkdir()
        try:
            wanted = ("ratings.csv", "movies.csv")
            download.extract(folder / "ml.zip", taken, names=wanted, required=wanted[:1])
        finally:
            strays = {path.name for path in taken.rglob("*")} - {"ratings.csv", "movies.csv"}
            shutil.rmtree(taken)
            assert not strays, strays

    read = some(reading(config, folder), extract)
    return altering(folder, read, ["ml.zip"])


def s3rec(folder: Path) -> Case:
    described = json.dumps({"1": [1, 2], "2": ["3"], "3": [], "17": [2]})
    files = {"X.txt": "1 1 2 3\n2 3 1\n7 2\n", "X_item2attributes.json": described}
    raw = written(folder / "raw", files) / "X.txt"
    return altering(raw.parent, reading(PrepareConfig(source="s3rec", raw=str(raw)), folder))


def pairs(folder: Path) -> Case:
    raw = written(folder / "raw", {"pairs.txt": "1 5\n2 5\n1 6\n10 7\n"}) / "pairs.txt"
    return altering(raw.parent, reading(PrepareConfig(source="pairs", raw=str(raw)), folder))


INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ta\t4\t10\nu2\tb\t3.5\t11\n"
)
INTER += "u1\tb\t1\t12.5\n"
ITEM = "item_id:token\ttitle:token_seq\trelease_year:token\tgenres:token_seq\tprice:float\n"
ITEM += "a\tFilm A\t1995\tx y\t1.5\nb\tFilm B\t2001\ty\t2\n"


def atomic(folder: Path) -> Case:
    raw = written(folder / "raw", {"shop.inter": INTER, "shop.item": ITEM}) / "shop.inter"
    return altering(raw.parent, reading(PrepareConfig(source="atomic", raw=str(raw)), folder))


LISTS = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
PARTS = {
    "shop.train.inter": "u1\ta\tb\nu2\t\tb\n",
    "shop.valid.inter": "u1\ta b\tc\n",
    "shop.test.inter": "u1\ta b c\td\n",
}
EVENTS_IN_PARTS = {
    "shop.train.inter": "u1\ta\t1\nu1\tb\t2\nu2\tb\t1\n",
    "shop.valid.inter": "u1\tc\t3\n",
    "shop.test.inter": "u1\td\t4\n",
}


def atomic_parts(folder: Path) -> Case:
    """Files that bring a split, of histories and of events."""
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    files = {f"lists/{name}": LISTS + rows for name, rows in PARTS.items()}
    files |= {f"events/{name}": header + rows for name, rows in EVENTS_IN_PARTS.items()}
    files |= {f"{kind}/shop.item": ITEM for kind in ("lists", "events")}
    written(folder / "raw", files)
    configs = [
        PrepareConfig(source="atomic", raw=f"{folder}/raw/{kind}", missing=missing)
        for kind in ("lists", "events")
        for missing in ("error", "drop")
    ]
    return altering(folder / "raw", some(*(reading(config, folder) for config in configs)))


def items(folder: Path) -> Case:
    """Attributes and titles from columns of events and from an items file."""
    rows = 'item,c,n,t\na,x|y,1.5,"An ""A"""\nb,y,2e3,B\n'
    events = "user,item,timestamp,c,n\nu1,a,1,x|y,1\nu2,b,2,y,\nu1,b,3,y,-2.5\n"
    files = {"events.csv": events, "items.csv": rows, "items.tsv": "item\tc\tn\tt\na\tx\t1\tT\n"}
    written(folder / "raw", files)
    config = PrepareConfig(
        source="csv", raw=f"{folder}/raw/events.csv", attribute_columns=("c", "n"), numeric_bins=2
    )
    described = replace(config, title_column="t", list_separator="|")
    configs = [
        config,
        replace(config, numeric_bins=0, missing="drop", title_column="c"),
        replace(described, items_file=f"{folder}/raw/items.csv"),
        replace(described, items_file=f"{folder}/raw/items.tsv", numeric_bins=0),
    ]
    return altering(folder / "raw", some(*(reading(config, folder) for config in configs)))


CSV = 'user,item,rating,timestamp\nu1,a,4,10\nu2,b,3.5,11\nu1,"b",1,12\n'


def csv(folder: Path) -> Case:
    described = json.dumps({"a": ["x", "y"], "b": ["y"], "z": []})
    files = {"shop.csv": CSV, "shop.tsv": CSV.replace(",", "\t"), "attributes.json": described}
    written(folder / "raw", files)
    configs = [
        PrepareConfig(source="csv", raw=f"{folder}/raw/shop.csv", min_rating=1.0),
        PrepareConfig(source="csv", raw=f"{folder}/raw/shop.tsv", timestamp_column=None),
        PrepareConfig(
            source="csv", raw=f"{folder}/raw/shop.csv", attributes=f"{folder}/raw/attributes.json"
        ),
    ]
    read = some(*(reading(config, folder) for config in configs))
    return altering(folder / "raw", read)


# Times and notes of every kind; a note may have several lines, quotes and delimiters in it.
SHOP = (
    "user,item,rating,timestamp,note\n"
    'u1,a,4,1600000000.25,"so ""so"""\n'
    "u2,b,3.5,1600000001,\n"
    'u1,"b",1,1600000000.5,"two,\nlines"\n'
    "u3,,2,1600000002,x\n"
)
DATES = (
    "user,item,rating,timestamp\nu1,a,4,2024-08-06T04:06:10+02:00\nu2,b,nan,2024-08-06 03:00\n"
    "u1,b,1,1969/12/31 23:59:59.123456 UTC\n"
)
OF_A_FORM = (
    "user\titem\trating\ttimestamp\nu1\ta\t4\t06.08.2024 04:06\nu1\tb\t1\t01.02.1969 03:04\n"
)


def csv_options(folder: Path) -> Case:
    """Delimited text in every form that options name, compressed or not; at times other options."""
    lasting: dict[str, object] = {"quoted_newlines": True, "missing": "drop"}
    numbered: dict[str, object] = {
        "header": False,
        "user_column": "1",
        "item_column": "2",
        "timestamp_column": "4",
        "rating_column": "3",
    }
    plain = CSV.replace('"', "")
    files: dict[str, tuple[str | bytes, dict[str, object]]] = {
        "lines.csv": (SHOP, lasting),
        "semicolons.csv": (SHOP.replace(",", ";"), {**lasting, "delimiter": ";"}),
        "bars.txt": (SHOP.replace(",", "|"), lasting),
        "tabs.tsv": (SHOP.replace(",", "\t"), {**lasting, "quotes": True, "time_unit": "s"}),
        "colons.dat": (
            plain.partition("\n")[2].replace(",", "::"),
            {**numbered, "delimiter": "::"},
        ),
        "headerless.csv": (CSV.partition("\n")[2], numbered),
        "numbers.csv": (CSV, {"time_unit": "ms", "missing_words": ("", "-1", "0")}),
        "dates.csv": (DATES, {}),
        "form.tsv": (OF_A_FORM, {"time_format": "%d.%m.%Y %H:%M"}),
        **{f"shop.csv{suffix}": (pack(CSV.encode()), {}) for suffix, (pack, _) in PACKINGS.items()},
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("shop.csv", CSV)
    files["shop.csv.zip"] = (target.getvalue(), {})
    written(folder / "raw", {name: content for name, (content, _) in files.items()})
    others: dict[str, tuple[object, ...]] = {
        "delimiter": (None, ",", "\t", ";", "|", "::", " ", '"', ":", "0", "\0", "é", "", ",,"),
        "header": (True, False),
        "quotes": (None, True, False),
        "quoted_newlines": (True, False),
        "time_unit": ("auto", "s", "ms", "us", "ns"),
        "time_format": (None, "%Y-%m-%d", "%d.%m.%Y %H:%M", "%s", "%f", "%", "mixed", "%Y%m%d%z"),
        "missing": ("error", "drop"),
        "missing_words": ((), ("",), ("", "-1"), ("nan", "4", "a"), ("10",)),
        "timestamp_column": (None, "timestamp", "note", "4"),
        "min_rating": (None, 1.0),
    }

    def case_of(name: str, options: dict[str, object]) -> Case:
        def read(random: Random) -> None:
            chosen: dict[str, object] = dict(options)
            for _ in range(random.choice((0, 0, 1, 2))):
                option = random.choice(sorted(others))
                chosen[option] = random.choice(others[option])
            raw = f"{folder}/raw/{name}"
            reading(PrepareConfig(source="csv", raw=raw, **chosen), folder)(random)

        return altering(folder / "raw", read, [name])

    first, *rest = (case_of(name, options) for name, (_, options) in files.items())
    return some(first, *rest)


def parquet(folder: Path) -> Case:
    import pyarrow as pa
    from pyarrow import parquet as files

    (folder / "raw").mkdir()
    columns = {
        "user": pa.array(["u1", "u2", "u1"]),
        "item": pa.array([1, 2, 3], pa.int64()),
        "timestamp": pa.array([1.0, 2.0, 3.5]),
        "rating": pa.array([1.0, 2.0, 3.0], pa.float32()),
    }
    path = folder / "raw" / "shop.parquet"
    files.write_table(pa.table(columns), path, compression="none")
    config = PrepareConfig(source="parquet", raw=str(path), min_rating=1.0)
    return altering(path.parent, reading(config, folder))


def parquet_types(folder: Path) -> Case:
    """Parquet files that are whole, of columns of any type."""
    import pyarrow as pa
    from pyarrow import parquet as files

    types = [
        *(pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_()),
        *(pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.string_view()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("ns")),
        *(pa.timestamp("s", "UTC"), pa.duration("us"), pa.decimal128(5, 2), pa.null()),
        *(pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.binary(3), pa.uint8()),
        *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.int64())),
        pa.dictionary(pa.int16(), pa.large_string()),
    ]
    path = folder / "raw.parquet"
    config = PrepareConfig(source="parquet", raw=str(path), min_rating=0.0)

    def column(random: Random, length: int) -> pa.Array:
        kind = random.choice(types)
        holes = random.random() < 0.2
        values = [
            None if holes and random.random() < 0.3 else number_of(random) for _ in "x" * length
        ]
        texts = [None if each is None else string_of(random) for each in values]
        if pa.types.is_dictionary(kind):
            inner = texts if kind.value_type in (pa.string(), pa.large_string()) else values
            dictionary = pa.array([*inner, inner[0]] if inner else [], kind.value_type)
            codes = pa.array([random.randrange(len(dictionary)) for _ in inner], kind.index_type)
            return pa.DictionaryArray.from_arrays(codes, dictionary)
        given = texts if "string" in str(kind) or "binary" in str(kind) else values
        return pa.array([None if each is None else each for each in given], kind)

    def case(random: Random) -> None:
        length = random.choice((0, 1, 3, 3, 3))
        columns = {}
        for name in ("user", "item", "timestamp", "rating"):
            try:
                columns[name] = column(random, length)
            except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
                # The values do not fit the type.
                columns[name] = pa.array(
                    list(range(length)), random.choice((pa.int8(), pa.float64()))
                )
        table = pa.table(columns)
        try:
            files.write_table(table, path, row_group_size=random.choice((1, 100)))
        except pa.ArrowException:
            # Not every type can be written.
            return
        reading(config, folder)(random)

    return case


def prepare_options(folder: Path) -> Case:
    """`prepare` of good files under any options."""
    written(folder, {"shop.csv": CSV, "shop.inter": INTER, "pairs.txt": "1 5\n2 5\n1 6\n"})

    def case(random: Random) -> None:
        word = lambda: random.choice((string_of(random), "user", "item", "rating", "timestamp"))  # noqa: E731
        any_name = random.choice(
            ("shop.csv", "shop.inter", "pairs.txt", "", ".", string_of(random))
        )
        options: dict[str, object] = {
            "source": random.choice(
                ("csv", "csv", "atomic", "pairs", "movielens", string_of(random))
            ),
            "raw": f"{folder}/{any_name}",
            "min_rating": random.choice((None, 1.0, float("nan"), -1e300, 5.0)),
            "user_core": random.choice((0, 1, 2, number_of(random))),
            "item_core": random.choice((0, 1, 2, number_of(random))),
            "duplicates": random.choice(("keep", "first", "last", string_of(random))),
            "user_column": word(),
            "item_column": word(),
            "timestamp_column": random.choice((None, word())),
            "rating_column": word(),
        }
        usual = PrepareConfig(source="csv", raw=f"{folder}/shop.csv")
        names = random.sample(sorted(options), random.choice((1, 1, 2, 3)))
        # A known data set would be fetched.
        config = replace(usual, **{name: options[name] for name in names if name != "raw"})
        config = replace(config, raw=str(options["raw"]) if "raw" in names else config.raw)
        try:
            prepare(config, folder / "corpus", data_root=folder).verify()
        finally:
            shutil.rmtree(folder / "corpus", ignore_errors=True)

    return case


def small_corpus(folder: Path) -> Corpus:
    histories = [[0, 1, 2, 3, 4], [1, 2, 0, 5], [3, 4, 5], [0, 1]]
    return write_histories(folder, histories, num_items=6)


def corpus(folder: Path) -> Case:
    small_corpus(folder / "plain")
    raw = written(folder / "raw", {"shop.inter": INTER, "shop.item": ITEM}) / "shop.inter"
    prepare(PrepareConfig(source="atomic", raw=str(raw)), folder / "titled")

    def opening(kind: str, random: Random) -> None:
        opened = Corpus.open(folder / kind)
        if random.random() < 0.1:
            show_corpus(opened)
            audit_corpus(opened)
        opened.verify()
        # What has been verified can be used.
        assert list(opened.item_names) == [opened.item_names[v] for v in range(opened.num_items)]
        assert not opened.num_interactions or int(np.max(opened.items)) < opened.num_items

    cases = [altering(folder / kind, partial(opening, kind)) for kind in ("plain", "titled")]
    return some(*cases)


def negatives(folder: Path) -> Case:
    opened = small_corpus(folder / "corpus")
    held_out = LeaveOneOut().split(opened).test
    written(folder / "raw", {"negatives.txt": "u0 i5 i1\nu1 i3 i4\nu2 i0 i1\n"})
    path = folder / "raw" / "negatives.txt"

    def reading(random: Random) -> None:
        read_candidates(path, opened, held_out, random.choice(["excluded", "kept", "zero"]))

    return altering(path.parent, reading)


REVIEWS = """{"user": "u1", "item": {"id": "a"}, "stars": 4.5, "when": 10, "tags": ["x", ["y"]]}
{"user": "u2", "item": {"id": "b"}, "stars": 3, "when": 11, "more": null}
{"user": "u1", "item": {"id": "b"}, "stars": 1, "when": 12, "text": "a \\"b\\""}
"""


def json_lines(folder: Path) -> Case:
    """JSON lines, and lines that Python wrote; those of a fault are read again line by line."""
    flat = REVIEWS.replace('{"id": "a"}', '"a"').replace('{"id": "b"}', '"b"')
    literals = "".join(f"{json.loads(line)!r}\n" for line in flat.splitlines())
    files = {"nested.jsonl": REVIEWS, "flat.ndjson": flat, "flat.jsonl": flat, "literals": literals}
    written(folder / "raw", files)
    options = {"timestamp_column": "when", "rating_column": "stars", "min_rating": 0.0}
    usual = PrepareConfig(source="jsonl", **options)  # type: ignore[arg-type]
    columns = {"nested.jsonl": "item.id"}
    configs = [
        replace(usual, raw=f"{folder}/raw/{name}", item_column=columns.get(name, "item"))
        for name in files
    ]
    fields: dict[str, FieldKind] = {"user": "id", "tags": "any", "more": "any", "stars": "any"}

    def read_lists(random: Random) -> None:
        read_json_lines(require_file(folder / "raw" / random.choice([*files])), fields)

    cases = [*(reading(config, folder) for config in configs), read_lists]
    return altering(folder / "raw", some(*cases))


def diginetica(folder: Path) -> Case:
    views = "sessionId;userId;itemId;timeframe;eventdate\n1;NA;7;5;2016-05-09\n2;3;8;9;2016-05-10\n"
    raw = written(folder / "raw", {"train-item-views.csv": views}) / "train-item-views.csv"
    return altering(raw.parent, reading(PrepareConfig(source="diginetica", raw=str(raw)), folder))


TARGETS = (
    Target(name="movielens-100k", milliseconds=1.0, begin=partial(movielens, "ml-100k", "ml-100k")),
    Target(
        name="movielens-recbole", milliseconds=1.0, begin=partial(movielens, "recbole", "ml-100k")
    ),
    Target(name="movielens-1m", milliseconds=1.0, begin=partial(movielens, "ml-1m", "movielens")),
    Target(name="movielens-csv", milliseconds=1.2, begin=partial(movielens, "ml-20m", "ml-20m")),
    Target(name="archive", milliseconds=3.0, begin=archive),
    Target(name="s3rec", milliseconds=0.7, begin=s3rec),
    Target(name="pairs", milliseconds=0.5, begin=pairs),
    Target(name="atomic", milliseconds=1.0, begin=atomic),
    Target(name="atomic-parts", milliseconds=2.0, begin=atomic_parts),
    Target(name="items", milliseconds=2.0, begin=items),
    Target(name="csv", milliseconds=1.0, begin=csv),
    Target(name="csv-options", milliseconds=3.0, begin=csv_options),
    Target(name="parquet", milliseconds=0.6, begin=parquet),
    Target(name="parquet-types", milliseconds=1.2, begin=parquet_types),
    Target(name="json-lines", milliseconds=0.8, begin=json_lines),
    Target(name="diginetica", milliseconds=0.8, begin=diginetica),
    Target(name="prepare-options", milliseconds=3.0, begin=prepare_options),
    Target(name="corpus", milliseconds=2.0, begin=corpus),
    Target(name="negatives", milliseconds=0.4, begin=negatives),
)

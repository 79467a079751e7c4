"""Times and missing cells, generated: their order, seconds and counts are those of slow twins."""

from __future__ import annotations

import datetime
import math
import re
import tempfile
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.preparation.csv_files import read_csv
from research.data.preparation.options import MISSING_WORDS, PrepareConfig
from research.data.preparation.prepare import prepare, source_of
from research.data.preparation.raw_tables import ColumnNames
from research.data.preparation.times import Times, TimeUnit, read_times
from research.errors import InputError
from tests.data.reference_text import PER_SECOND, seconds_of_digits, unit_of

FAST = settings(max_examples=100, deadline=None, derandomize=True)
LEAST, MOST = -(2**63), 2**63 - 1


def times_of(texts: list[str], unit: TimeUnit = "auto", form: str | None = None) -> Times:
    half = len(texts) // 2
    cells = pa.chunked_array([texts[:half], texts[half:]], pa.string())
    return read_times(cells, unit, form, lambda row: f"row {row}")


def assert_in_order(times: Times, exact: list[Fraction]) -> None:
    ranks = {value: rank for rank, value in enumerate(sorted(set(exact)))}
    distinct, found = np.unique(times.exact, return_inverse=True)
    assert found.tolist() == [ranks[value] for value in exact]
    assert len(distinct) == len(ranks)


whole_numbers = st.one_of(
    st.integers(-5, 5),
    st.integers(-(10**10), 10**10),
    st.integers(10**9 * 10**6, 2 * 10**9 * 10**6),
    st.integers(1_600_000_000 * 10**9, 1_600_000_003 * 10**9),
    st.sampled_from([20240806, 19700230, 20240806235959, 10**11 - 1, 10**11, 10**14, 10**17]),
    st.sampled_from([LEAST - 1, LEAST, LEAST + 1, MOST - 1, MOST, MOST + 1, 2**53, 2**53 + 1]),
)
fractions = st.one_of(
    st.sampled_from(["", ".", ".0", ".5", ".25", ".999999999999999999", ".000000000000000001"]),
    st.sampled_from([".0000000000000000001", ".00000000000000000010", ".9999999999999999999"]),
    st.integers(0, 10**6).map(lambda digits: f".{digits:06d}"),
)


@st.composite
def numbers(draw: st.DrawFn, fine: bool) -> str:
    value = draw(whole_numbers)
    sign = "-" if value < 0 else draw(st.sampled_from(["", "", "+"])) if fine else ""
    zeros = draw(st.sampled_from(["", "", "", "00"])) if fine else ""
    fraction = draw(fractions) if fine else ""
    exponent = draw(st.sampled_from(["", "", "", "", "e0", "E+01", "e-3"])) if fine else ""
    blank = draw(st.sampled_from(["", "", "", " ", "\t"]))
    return f"{blank}{sign}{zeros}{abs(value)}{fraction}{exponent}{blank}"


columns = st.one_of(
    st.lists(numbers(fine=False), min_size=1, max_size=6),
    st.lists(numbers(fine=True), min_size=1, max_size=6),
    st.lists(whole_numbers.map(str), min_size=1, max_size=1).flatmap(
        lambda texts: st.lists(fractions, min_size=2, max_size=6).map(
            lambda ends: [texts[0] + end for end in ends]
        )
    ),
)


@FAST
@given(texts=columns, unit=st.sampled_from(["auto", "auto", "s", "ms", "us", "ns"]))
def test_numbers_are_sorted_by_their_exact_values(texts: list[str], unit: TimeUnit) -> None:
    values = [Fraction(Decimal(text.strip())) for text in texts]
    sizes = [abs(value) // 1 for value in values]
    # The least int64 may or may not be read where others of its column have a point.
    if any(size == 2**63 for size in sizes) and any(
        not text.strip("-0123456789") for text in texts
    ):
        return
    named = unit_of(values) if unit == "auto" else unit
    if named is None or any(not LEAST <= math.floor(value) <= MOST for value in values):
        with pytest.raises(InputError, match=r"by its size|is no date|does not fit into int64"):
            times_of(texts, unit)
        return
    times = times_of(texts, unit)
    assert times.unit == named
    assert_in_order(times, values)
    if named == "date":
        assert times.seconds.tolist() == [seconds_of_digits(str(value)) for value in values]
        return
    seconds = [value / PER_SECOND[named] for value in values]
    assert times.seconds.tolist() == [math.floor(value) for value in seconds]
    assert times.rounded_down == sum(value.denominator != 1 for value in seconds)


@FAST
@given(
    values=st.lists(
        st.one_of(
            st.floats(-1e10, 1e10),
            st.integers(0, 10**9).map(lambda n: float(np.nextafter(n * 1e9, 0))),
            st.sampled_from([0.0, -0.0, 1e18, 2.0**62, -(2.0**63), 20240806.0, 1.5]),
        ),
        min_size=1,
        max_size=6,
    ),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
)
def test_floats_are_sorted_and_rounded_down_exactly(values: list[float], unit: TimeUnit) -> None:
    times = read_times(pa.chunked_array([values], pa.float64()), unit, None, str)
    exact = [Fraction(value) for value in values]
    assert_in_order(times, exact)
    seconds = [value / PER_SECOND[unit] for value in exact]
    assert times.seconds.tolist() == [math.floor(value) for value in seconds]
    assert times.rounded_down == sum(value.denominator != 1 for value in seconds)


ZONES = {"": 0, "Z": 0, "z": 0, " UTC": 0, " GMT": 0, "+00:00": 0, "+02:00": 7200, "-0530": -19800}
ZONES |= {"+14": 50400, " +0100": 3600, " -08:00": -28800}
EPOCH = datetime.datetime(1970, 1, 1)


@st.composite
def dates(draw: st.DrawFn, years: tuple[int, int], digits: int) -> tuple[str, Fraction]:
    """A date in a form of ISO 8601, and its exact seconds since 1970."""
    moment = draw(
        st.datetimes(datetime.datetime(years[0], 1, 2), datetime.datetime(years[1], 12, 30))
    ).replace(microsecond=0)
    text = moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%d")
    if draw(st.integers(0, 3)) == 0:
        text = text.replace("-", "/")
    if draw(st.integers(0, 5)) == 0:
        midnight = moment.replace(hour=0, minute=0, second=0)
        return text, Fraction((midnight - EPOCH) // datetime.timedelta(seconds=1))
    text += draw(st.sampled_from("T ")) + moment.strftime("%H:%M:%S")
    part = draw(st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=digits)))
    zone = draw(st.sampled_from(list(ZONES)))
    seconds = Fraction((moment - EPOCH) // datetime.timedelta(seconds=1) - ZONES[zone])
    if part:
        text, seconds = f"{text}.{part}", seconds + Fraction(f"0.{part}")
    return text + zone, seconds


@FAST
@given(
    st.one_of(
        st.lists(dates((1700, 2250), 9), min_size=1, max_size=6),
        st.lists(dates((1, 9999), 6), min_size=1, max_size=6),
    )
)
def test_dates_of_any_zone_are_sorted_by_the_moment(cells: list[tuple[str, Fraction]]) -> None:
    times = times_of([text for text, _ in cells])
    exact = [seconds for _, seconds in cells]
    assert times.unit == "date"
    assert_in_order(times, exact)
    assert times.seconds.tolist() == [math.floor(value) for value in exact]
    assert times.rounded_down == sum(value.denominator != 1 for value in exact)


@FAST
@given(
    moments=st.lists(
        st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2250, 1, 1)),
        min_size=1,
        max_size=6,
    ),
    more=st.sampled_from(["", "000", "123"]),
)
def test_dates_of_a_form_are_read_by_it(moments: list[datetime.datetime], more: str) -> None:
    texts = [f"{m:%d%m}{m.year:04d} {m:%H%M%S}.{m.microsecond:06d}{more}" for m in moments]
    exact = [
        Fraction((moment - EPOCH) // datetime.timedelta(microseconds=1), 10**6)
        + Fraction(int(more or 0), 10**9)
        for moment in moments
    ]
    times = times_of(texts, form="%d%m%Y %H%M%S.%f")
    assert_in_order(times, exact)
    assert times.seconds.tolist() == [math.floor(value) for value in exact]


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["20240206", "20240230", "20240207"], "row 1: 20240230 is no date of the years 1900 to"),
        (["20240206", "20240207", "0"], "row 2: 0 is no date"),
        (["99991231", "20240206"], "row 0: 99991231 is no date"),
        (["20240206", "20240207.0", "20240208.5"], "row 2: 20240208 and a fraction is no date"),
        (["20240206", "20240207.0", "20240200.0"], "row 2: 20240200 is no date"),
        (["20240206235959", "20240206240000"], "row 1: 20240206240000 is no date"),
        (["20240206235959", "0"], "row 1: 0 is no date"),
        (["2024020623", "2024020624"], "row 1: 2024020624 is no date"),
        (["202402062359", "202402062360"], "row 1: 202402062360 is no date"),
    ],
)
def test_a_number_among_dates_that_is_no_date_is_refused(texts: list[str], wrong: str) -> None:
    with pytest.raises(InputError, match=wrong):
        times_of(texts)
    floats = pa.chunked_array([[float(text) for text in texts]], pa.float64())
    with pytest.raises(InputError, match=wrong):
        read_times(floats, "auto", None, lambda row: f"row {row}")
    unit: TimeUnit = "s" if len(texts[0]) <= 10 else "ms"
    with pytest.raises(InputError, match=f"give --time-unit {unit} if the times are"):
        times_of(texts)
    assert times_of(texts, unit).unit == unit


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["20240299", "20240300", "20240301"], "s"),
        (["2024020624", "2024020625"], "s"),
        (["202402062360", "202402062361"], "ms"),
        (["20240206240000", "20240206240001"], "ms"),
    ],
)
def test_numbers_of_the_size_of_dates_are_told(texts: list[str], unit: str) -> None:
    times = times_of(texts)
    assert times.unit == unit
    warning = times.warnings[-1]
    assert warning.startswith(f"times such as {texts[0]} look like dates (YYYYMMDD")
    assert warning.endswith(f"give --time-unit {unit}.")
    # Times of today are far from such numbers.
    assert times_of(["1722902400", "1722902401"]).warnings == ()


@pytest.mark.parametrize(
    ("texts", "seconds"),
    [
        # Two neighbouring hours, and two neighbouring minutes over midnight.
        (["2020013123", "2020020100"], [1580511600, 1580515200]),
        (["202001312359", "202002010000"], [1580515140, 1580515200]),
    ],
)
def test_dates_may_have_hours_and_minutes(texts: list[str], seconds: list[int]) -> None:
    times = times_of(texts)
    assert (times.unit, times.seconds.tolist()) == ("date", seconds)


def test_dates_of_digits_keep_their_zeros_for_their_form(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("user,item,timestamp\na,x,01012024\na,y,10012024\n")
    config = PrepareConfig(source="csv", raw=str(path), time_format="%d%m%Y")
    events = source_of(config, tmp_path).read()
    assert events.timestamps is not None
    # 1 and 10 January 2024.
    assert events.timestamps.tolist() == [1704067200, 1704844800]


CELLS = ["a", "b", " a", "7", "007", "7.0", "", " ", "nan", "NaN", " NULL ", "None", "\\N", "na"]
TIMES = ["1", "2", "2", "-1", "", "nan", " ", "3", "NULL"]


@FAST
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(CELLS), st.sampled_from(CELLS), st.sampled_from(TIMES), st.booleans()
        ),
        min_size=1,
        max_size=8,
    ),
    words=st.sampled_from([MISSING_WORDS, ("",), ("", "a", "-1"), ("007", "2")]),
)
def test_rows_without_a_value_are_dropped_and_counted(
    rows: list[tuple[str, str, str, bool]], words: tuple[str, ...]
) -> None:
    lacks = [any(cell.strip() in words for cell in row[:3]) for row in rows]
    kept = [row for row, lacking in zip(rows, lacks, strict=True) if not lacking]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.csv"
        lines = [
            ",".join(f'"{cell}"' if quoted else cell for cell in (u, i, t))
            for u, i, t, quoted in rows
        ]
        path.write_text("\n".join(["user,item,timestamp", *lines]))
        config = PrepareConfig(
            source="csv", raw=str(path), missing="drop", missing_words=words, time_unit="s"
        )
        if any(lacks):
            strict = replace(config, missing="error")
            with pytest.raises(InputError, match=rf"c\.csv, line {lacks.index(True) + 2}, column"):
                source_of(strict, Path(folder)).read()
        if not kept or not all(re.fullmatch(" *-?[0-9]+ *", row[2]) for row in kept):
            with pytest.raises(InputError):
                source_of(config, Path(folder)).read()
            return
        events = source_of(config, Path(folder)).read()
    found = [
        (events.user_names[user], events.item_names[item], seconds)
        for user, item, seconds in zip(events.users, events.items, events.timestamps, strict=True)
    ]
    assert found == [(user, item, int(time)) for user, item, time, _ in kept]
    assert events.notes.get("rows_dropped_as_missing", 0) == len(rows) - len(kept)
    # Ids are numbered by their first appearance among the rows that are kept.
    assert events.user_names == list(dict.fromkeys(row[0] for row in kept))
    if len(kept) < len(rows):
        assert events.notes["missing_cells"] == {
            name: sum(row[place].strip() in words for row in rows)
            for place, name in enumerate(("user", "item", "timestamp"))
        }


@pytest.mark.parametrize("later", ["0x1F", "-0x1F", "1_0", "٣", "5.5", "+7", "1e2", "soon", " 9 "])
def test_a_column_is_read_alike_whatever_its_first_cell_is(tmp_path: Path, later: str) -> None:
    """Arrow reads numbers by itself where the first cell is one."""

    def result(first: str) -> object:
        path = tmp_path / "c.csv"
        path.write_text(f"user,item,timestamp\na,x,{first}\na,y,{later}\n")
        config = PrepareConfig(source="csv", raw=str(path))
        try:
            events = source_of(config, tmp_path).read()
        except InputError as error:
            return str(error).replace(repr(first), "first")
        assert events.timestamps is not None
        return events.timestamps.tolist(), events.notes

    assert result("5") == result("+5")


@pytest.mark.parametrize("word", ["nan", "-nan", "NAN", "inf", "1e2", "4_0", "0x5", ""])
def test_a_rating_is_read_alike_whatever_the_first_one_is(tmp_path: Path, word: str) -> None:
    columns = ColumnNames(user="user", item="item", timestamp=None, rating="rating")

    def result(ratings: list[str]) -> object:
        path = tmp_path / "c.csv"
        lines = [f"a,x{place},{rating}\n" for place, rating in enumerate(ratings)]
        path.write_text("user,item,rating\n" + "".join(lines))
        config = PrepareConfig(
            source="csv",
            raw=str(path),
            timestamp_column=None,
            min_rating=0.0,
            missing="drop",
            missing_words=("",),
        )
        assert read_csv(path, columns, config).table.num_rows == len(ratings)
        try:
            events = source_of(config, tmp_path).read()
        except InputError:
            return InputError
        assert events.ratings is not None
        return sorted(events.ratings.tolist()), events.notes

    assert result(["3", word]) == result([word, "3"])


Row = tuple[int, int, str]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 3),
            st.sampled_from(["5", "5.0", "5.50", "5.5", "-0.25", "4.999999999999999999", "6"]),
        ),
        min_size=1,
        max_size=20,
    ),
    policy=st.sampled_from(["keep", "exact", "first", "last"]),
)
def test_duplicates_are_those_of_a_slow_twin(rows: list[Row], policy: str) -> None:
    numbered = [(u, i, Decimal(time), place) for place, (u, i, time) in enumerate(rows)]
    kept: list[tuple[int, int, Decimal, int]] = []
    for row in sorted(numbered, key=lambda row: (row[2], row[3])):
        same = [other for other in kept if other[:2] == row[:2]]
        if policy == "first" and same:
            continue
        if policy == "exact" and any(other[2] == row[2] for other in same):
            continue
        if policy == "last":
            kept = [other for other in kept if other not in same]
        kept.append(row)
    expected = {
        str(user): [(str(row[1]), math.floor(row[2])) for row in kept if row[0] == user]
        for user in dict.fromkeys(row[0] for row in rows)
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.csv"
        lines = [",".join(map(str, row)) for row in rows]
        path.write_text("\n".join(["user,item,timestamp", *lines]))
        config = PrepareConfig(source="csv", raw=str(path), duplicates=policy)
        corpus = prepare(config, data_root=folder)
        bounds, times = corpus.offsets.tolist(), corpus.timestamps
        assert times is not None
        found = {
            user: [
                (corpus.item_names[int(corpus.items[n])], int(times[n]))
                for n in range(bounds[u], bounds[u + 1])
            ]
            for u, user in enumerate(corpus.user_names)
        }
    assert found == expected


@pytest.mark.parametrize("digits", [19, 20, 5000, 70_000])
def test_a_time_of_very_many_digits_is_refused(digits: int) -> None:
    with pytest.raises(InputError, match=r"row 1: '9+'? does not fit into int64"):
        times_of(["1", "9" * digits])
    with pytest.raises(InputError, match=r"row 1: .* does not fit into int64"):
        times_of(["1", "9" * digits + "." + "9" * digits])
    assert times_of(["1", "2." + "0" * digits + "1", "2." + "0" * digits]).exact.tolist() == [
        0,
        2,
        1,
    ]

"""Preparation: against a slow twin, by hand, by two processes at once, and on real data."""

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.audit import audit_corpus
from research.data.corpus import Corpus
from research.data.preparation.options import Duplicates, PrepareConfig
from research.data.preparation.prepare import options_of, prepare
from research.data.profile import timeline
from research.data.tied_times import FinerTimes
from research.errors import InputError
from research.runs.run_hash import filters_of
from tests import ROOT

REPOSITORY = ROOT
SHARED = REPOSITORY.parent / "shared" / "data"
ML_100K = REPOSITORY / "data" / "raw" / "ml-100k"
Row = tuple[int, int, int, int]


def slow_prepare(rows: list[Row], config: PrepareConfig) -> dict[str, list[tuple[str, int | None]]]:
    """User -> (item, time), users and items in order of first appearance; rows: u, i, r, t."""
    kept = [(n, *row) for n, row in enumerate(rows) if row[2] >= (config.min_rating or 0)]
    if config.timestamp_column is None:
        kept = [(n, u, i, r, 0) for n, u, i, r, _ in kept]
    kept.sort(key=lambda row: (row[4], row[0]))
    if config.duplicates != "keep":
        chosen = {}
        for row in kept:
            if config.duplicates == "last" or row[1:3] not in chosen:
                chosen[row[1:3]] = row
        kept = [row for row in kept if chosen[row[1:3]] == row]
    while True:
        users, items = Counter(row[1] for row in kept), Counter(row[2] for row in kept)
        staying = [
            row
            for row in kept
            if users[row[1]] >= config.user_core and items[row[2]] >= config.item_core
        ]
        if len(staying) == len(kept):
            break
        kept = staying
    timed = config.timestamp_column is not None
    histories: dict[str, list[tuple[str, int | None]]] = {}
    for user in dict.fromkeys(row[0] for row in rows):
        history = [(str(row[2]), row[4] if timed else None) for row in kept if row[1] == user]
        if history:
            histories[str(user)] = history
    return histories


def histories(corpus: Corpus) -> dict[str, list[tuple[str, int | None]]]:
    times = corpus.timestamps
    bounds = corpus.offsets.tolist()
    return {
        user: [
            (corpus.item_names[int(corpus.items[n])], None if times is None else int(times[n]))
            for n in range(bounds[u], bounds[u + 1])
        ]
        for u, user in enumerate(corpus.user_names)
    }


def write_csv(path: Path, rows: list[Row]) -> str:
    lines = ["user,item,rating,timestamp", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(1, 3), st.integers(-2, 3)),
        min_size=1,
        max_size=30,
    ),
    min_rating=st.sampled_from([None, 1.0, 2.0]),
    user_core=st.integers(0, 3),
    item_core=st.integers(0, 3),
    duplicates=st.sampled_from(["keep", "first", "last"]),
    order=st.sampled_from([("timestamp", None), ("timestamp", 0), ("timestamp", 7), (None, None)]),
)
def test_the_fast_preparation_equals_the_slow_twin(
    rows: list[Row], order: tuple[str | None, int | None], **options: object
) -> None:
    options |= {"timestamp_column": order[0], "tie_seed": order[1]}
    with tempfile.TemporaryDirectory() as folder:
        raw = write_csv(Path(folder) / "c.csv", rows)
        config = PrepareConfig(source="csv", raw=raw, **options)
        expected = slow_prepare(rows, config)
        if not expected:
            with pytest.raises(InputError, match=r"removes? everything"):
                prepare(config, data_root=folder)
            return
        corpus = prepare(config, data_root=folder)
        corpus.verify()
        found = histories(corpus)
        if order[1] is not None:
            # The order of ties is the draw's; the rest is not.
            times = [[time for _, time in history] for history in found.values()]
            assert times == [[time for _, time in history] for history in expected.values()]
            found, expected = (
                {user: sorted(history) for user, history in each.items()}
                for each in (found, expected)
            )
        assert found == expected
        assert list(corpus.user_names) == list(expected)
        present = {item for history in expected.values() for item, _ in history}
        appearance = dict.fromkeys(str(row[1]) for row in rows)
        assert list(corpus.item_names) == [item for item in appearance if item in present]


ROWS = [(1, 9, 5, 20), (1, 8, 1, 10), (2, 9, 4, 7), (1, 9, 3, 10), (2, 7, 2, 7), (3, 7, 5, 7)]


def from_rows(tmp_path: Path, rows: list[Row], **options: object) -> Corpus:
    tmp_path.mkdir(exist_ok=True)
    raw = write_csv(tmp_path / "c.csv", rows)
    return prepare(PrepareConfig(source="csv", raw=raw, **options), data_root=tmp_path / "data")


def test_nothing_is_filtered_unless_asked_and_ties_keep_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    corpus = from_rows(tmp_path, ROWS)
    assert histories(corpus) == {
        "1": [("8", 10), ("9", 10), ("9", 20)],
        "2": [("9", 7), ("7", 7)],
        "3": [("7", 7)],
    }
    assert corpus.items.tolist() == [1, 0, 0, 0, 2, 2]
    assert list(corpus.item_names) == ["9", "8", "7"]


def test_ties_are_drawn_by_a_seed_and_the_times_hold(tmp_path: Path) -> None:
    rows = [(user, item, 5, 100 * (item // 5)) for user in range(6) for item in range(10)]
    drawn = [histories(from_rows(tmp_path / str(seed), rows, tie_seed=seed)) for seed in (0, 1)]
    again = histories(from_rows(tmp_path / "again", rows, tie_seed=0))
    in_file = histories(from_rows(tmp_path / "file", rows))
    assert again == drawn[0] != drawn[1]
    for user, history in in_file.items():
        for orders in drawn:
            assert sorted(orders[user], key=lambda event: int(event[0])) == history
            assert [time for _, time in orders[user]] == [time for _, time in history]
    # Users' orders are drawn apart.
    assert len({tuple(history) for history in drawn[0].values()}) == 6


@pytest.mark.parametrize("duplicates", ["keep", "exact", "first", "last"])
def test_each_order_of_ties_is_as_likely(tmp_path: Path, duplicates: Duplicates) -> None:
    # One item twice and another once, all at one time: of 2,000 users.
    rows = [(user, item, 5, 7) for user in range(2000) for item in (0, 0, 1)]
    corpus = from_rows(tmp_path, rows, tie_seed=0, duplicates=duplicates)
    first = np.mean([history[0][0] == "0" for history in histories(corpus).values()])
    # Within four standard errors, .011 each.
    assert abs(first - (2 / 3 if duplicates == "keep" else 1 / 2)) < 0.045


def test_a_seed_of_ties_needs_times_and_is_of_32_bits(tmp_path: Path) -> None:
    for seed in (-1, 2**32):
        with pytest.raises(InputError, match=rf"tie_seed {seed}: 0 or more, and below 2\^32"):
            from_rows(tmp_path, ROWS, tie_seed=seed)
    with pytest.raises(InputError, match=r"tie_seed 0 is for .* no times; leave out the seed"):
        from_rows(tmp_path, ROWS, timestamp_column=None, tie_seed=0)


def test_a_seed_of_ties_makes_another_corpus_and_none_the_same_as_ever(tmp_path: Path) -> None:
    corpora = [from_rows(tmp_path, ROWS, tie_seed=seed) for seed in (None, 0, 1)]
    assert len({corpus.fingerprint for corpus in corpora}) == 3
    assert len({corpus.folder for corpus in corpora}) == 3
    assert "tie_seed" not in corpora[0].manifest.options
    assert filters_of(corpora[1])["tie_seed"] == 0


def test_only_ties_of_the_very_time_are_drawn(tmp_path: Path) -> None:
    items = [[(user + place) % 12 for place in range(5)] for user in range(12)]
    corpora = [
        from_milliseconds(tmp_path / str(seed), MILLISECONDS, items, "keep", tie_seed=seed)
        for seed in (None, 0)
    ]
    assert histories(corpora[0]) == histories(corpora[1])


def test_a_fixed_order_of_ties_is_told_and_one_that_is_drawn_is_not(tmp_path: Path) -> None:
    # Two items a day of a hundred days, alike for four users.
    fixed = [(user, item, 5, item // 2) for user in range(4) for item in range(200)]
    corpus = from_rows(tmp_path / "fixed", fixed)
    # Any two of a pair's four steps: a variance of .5 / 12 for each of a hundred pairs.
    assert report_of(corpus)["order_of_ties"] == {
        "pairs": 100, "share": 1.0, "standard_error": pytest.approx((0.5 / 12 / 100) ** 0.5),
    }  # fmt: skip
    assert report_of(corpus)["warnings"] == [
        "within one time, of two steps between the same two items, 100.0 % go the same way (100 "
        "pairs of items), where half would if the order were drawn: the source is sorted by item, "
        "and models that read order learn that (--tie-seed 0 draws another order), or its times "
        "are too coarse for a true order."
    ]
    (found,) = [each for each in audit_corpus(corpus) if each.check == "order of ties"]
    assert found.level == "warning"
    assert "100.0 % of interactions share their time" in found.sentence
    drawn = from_rows(tmp_path / "drawn", fixed, tie_seed=0)
    assert "warnings" not in report_of(drawn)
    (found,) = [each for each in audit_corpus(drawn) if each.check == "order of ties"]
    assert found.level == "fine"
    assert 0.4 < found.numbers["same_way_share"] < 0.6


def test_a_few_ties_in_a_fixed_order_are_not_warned_of(tmp_path: Path) -> None:
    # Of 40,400 interactions 400 are ties.
    fixed = [(user, item, 5, item // 2) for user in (0, 1) for item in range(200)]
    others = [(user, item, 5, item) for user in range(2, 202) for item in range(200)]
    corpus = from_rows(tmp_path, fixed + others)
    assert "warnings" not in report_of(corpus)
    (found,) = [each for each in audit_corpus(corpus) if each.check == "order of ties"]
    assert (found.level, found.numbers["same_way_share"]) == ("fine", 1.0)


def report_of(corpus: Corpus) -> dict[str, object]:
    report = corpus.manifest.report
    assert isinstance(report, dict)
    return report


def test_the_report_counts_ties(tmp_path: Path) -> None:
    report = report_of(from_rows(tmp_path, ROWS))
    # Tied are user 1's two at 10 and user 2's two at 7, not user 3's at 7; user 2 ends so.
    assert report["tied_interactions"] == 4 / 6
    assert report["users_with_tied_last_two"] == 1 / 3


# Five events of each of twelve users, 300 milliseconds apart; users begin a day apart.
MILLISECONDS = [
    [1_600_000_000_000 + 86_400_000 * user + 300 * place for place in range(5)]
    for user in range(12)
]


def from_milliseconds(
    folder: Path,
    times: list[list[int]],
    items: list[list[int]],
    duplicates: Duplicates,
    tie_seed: int | None = None,
) -> Corpus:
    folder.mkdir()
    lines = [
        f"u{user},i{item},{time}\n"
        for user, row in enumerate(times)
        for item, time in zip(items[user], row, strict=True)
    ]
    (folder / "c.csv").write_text("user,item,timestamp\n" + "".join(lines))
    config = PrepareConfig(
        source="csv", raw=str(folder / "c.csv"), duplicates=duplicates, tie_seed=tie_seed
    )
    return prepare(config, folder / "corpus")


def test_times_finer_than_seconds_are_no_ties_and_no_doubles(tmp_path: Path) -> None:
    items = [[(user + place) % 12 for place in range(5)] for user in range(12)]
    items[3][1] = items[3][0]
    corpus = from_milliseconds(tmp_path / "a", MILLISECONDS, items, "exact")
    report = report_of(corpus)
    assert report["ordered_by_finer_times"] is True
    assert (report["tied_interactions"], report["users_with_tied_last_two"]) == (0.0, 0.0)
    found = {finding.check: finding for finding in audit_corpus(corpus)}
    for part in ("validation", "test"):
        assert found[f"ties in {part}"].level == "fine"
        assert "within the second" in found[f"ties in {part}"].sentence
        assert "finer times decided" in found[f"ties in {part}"].sentence
    assert (found["doubles"].level, found["doubles"].numbers["interactions"]) == ("fine", 0)
    assert "1 differ from an earlier one by less than a second" in found["doubles"].sentence
    line = timeline(corpus)
    assert line is not None
    assert line.tied_share == 0.0


def test_ties_of_finer_times_are_told(tmp_path: Path) -> None:
    items = [[(user + place) % 12 for place in range(5)] for user in range(12)]
    items[3][4] = items[3][3]
    times = [[*row[:4], row[3]] for row in MILLISECONDS]
    corpus = from_milliseconds(tmp_path / "a", times, items, "keep")
    assert report_of(corpus)["tied_interactions"] == 24 / 60
    found = {finding.check: finding for finding in audit_corpus(corpus)}
    assert found["ties in test"].level == "problem"
    assert "40.0 % of all interactions have the very time" in found["ties in test"].sentence
    assert found["doubles"].sentence.startswith("Up to 1 interactions (1.7 %) have the user")
    line = timeline(corpus)
    assert line is not None
    assert line.tied_share == 0.4


def test_a_report_that_does_not_say_what_decided_is_read_as_seconds(tmp_path: Path) -> None:
    items = [[(user + place) % 12 for place in range(5)] for user in range(12)]
    corpus = from_milliseconds(tmp_path / "a", MILLISECONDS, items, "keep")
    assert FinerTimes.of(corpus) == FinerTimes(0.0, 0)
    for entry in ("ordered_by_finer_times", "tied_interactions", "duplicates"):
        report = {**report_of(corpus), entry: None}
        older = replace(corpus, manifest=replace(corpus.manifest, report=report))
        assert FinerTimes.of(older) is None
    whole = from_rows(tmp_path, ROWS)
    assert report_of(whole)["ordered_by_finer_times"] is False
    assert FinerTimes.of(whole) is None


def test_the_report_counts_what_each_filter_removes(tmp_path: Path) -> None:
    corpus = from_rows(tmp_path, ROWS, min_rating=2.0, duplicates="last", user_core=2)
    assert histories(corpus) == {"2": [("9", 7), ("7", 7)]}
    report = report_of(corpus)
    assert report["interactions_read"] == 6
    assert report["removed_by_min_rating"] == 1
    assert report["duplicates"] == {
        "policy": "last",
        "repeats_found": 1,
        "exact_doubles_among_them": 0,
        "removed": 1,
    }
    assert report["removed_by_core"] == {"interactions": 2, "rounds": 2}
    kept = report_of(from_rows(tmp_path, ROWS))
    assert kept["duplicates"] == {
        "policy": "keep",
        "repeats_found": 1,
        "exact_doubles_among_them": 0,
        "removed": 0,
    }


def test_the_core_is_a_fixed_point(tmp_path: Path) -> None:
    # Item 3 falls, then user 3, then item 2, then user 2: one pass would keep too much.
    rows = [(user, item, 5, 0) for user, item in ((1, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3))]
    corpus = from_rows(tmp_path, rows, user_core=2, item_core=2)
    assert histories(corpus) == {"1": [("1", 0), ("1", 0)]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"user_core": 4, "item_core": 2},
            "there were 6 interactions of 3 users with 3 items",
        ),
        ({"min_rating": 6.0}, "there were 6 interactions, rated 1.0 to 5.0"),
        ({"min_rating": float("nan")}, "min_rating nan: must be finite"),
        ({"user_core": -1}, "user_core -1, item_core 0: 0 or more"),
        ({"duplicates": "newest"}, "duplicates 'newest'; allowed: keep, exact, first, last"),
        ({"rating_column": "stars", "min_rating": 1.0}, "there is no column 'stars'"),
        ({"attributes": "no.json"}, "no.json: there is no such file"),
    ],
)
def test_a_bad_option_is_refused_and_leaves_nothing(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        from_rows(tmp_path, ROWS, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["c.csv"]


def test_a_bad_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown source 'ml-2m'.*; did you mean ml-"):
        prepare(PrepareConfig(source="ml-2m"), data_root=tmp_path)
    with pytest.raises(InputError, match="csv is a format: name the file with --raw"):
        prepare(PrepareConfig(source="csv"), data_root=tmp_path)
    (tmp_path / "p.txt").write_text("1 2\n")
    config = PrepareConfig(source="pairs", raw=str(tmp_path / "p.txt"), min_rating=3.0)
    with pytest.raises(InputError, match=r"min_rating 3\.0: the pairs has no ratings"):
        prepare(config, data_root=tmp_path)
    config = PrepareConfig(source="ml-1m", raw=str(tmp_path), attributes="a.json")
    with pytest.raises(InputError, match="ml-1m: has its own attributes"):
        prepare(config, data_root=tmp_path)


OPTIONS: list[dict[str, object]] = [
    {},
    {"min_rating": 1.0},
    {"user_core": 1},
    {"item_core": 1},
    {"duplicates": "first"},
    {"duplicates": "last"},
    {"timestamp_column": None},
    {"timestamp_column": None, "rating_column": "timestamp", "min_rating": -5.0},
    {"user_column": "rating"},
    {"item_column": "rating"},
]


def test_every_option_changes_the_folder_and_the_fingerprint(tmp_path: Path) -> None:
    corpora = [from_rows(tmp_path, ROWS, **options) for options in OPTIONS]
    assert len({corpus.folder for corpus in corpora}) == len(OPTIONS)
    assert len({corpus.fingerprint for corpus in corpora}) == len(OPTIONS)


def test_a_corpus_is_prepared_once_and_again_when_the_raw_file_changes(tmp_path: Path) -> None:
    first = from_rows(tmp_path, ROWS)
    before = first.folder.stat()
    assert from_rows(tmp_path, ROWS).folder.stat() == before
    assert from_rows(tmp_path, ROWS[:-1]).folder != first.folder


def test_the_fingerprint_does_not_depend_on_where_the_raw_file_lies(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fingerprints = [from_rows(tmp_path / name, ROWS).fingerprint for name in ("a", "b")]
    assert fingerprints[0] == fingerprints[1]


def test_a_damaged_corpus_is_named_instead_of_used(tmp_path: Path) -> None:
    corpus = from_rows(tmp_path, ROWS)
    (corpus.folder / "items.npy").unlink()
    with pytest.raises(InputError, match=r"items\.npy: missing"):
        from_rows(tmp_path, ROWS)


def test_out_names_the_folder_and_another_corpus_there_is_kept(tmp_path: Path) -> None:
    config = PrepareConfig(source="csv", raw=write_csv(tmp_path / "c.csv", ROWS))
    corpus = prepare(config, tmp_path / "here" / "mine")
    assert corpus.folder == tmp_path / "here" / "mine"
    assert prepare(config, str(corpus.folder)).fingerprint == corpus.fingerprint
    with pytest.raises(InputError, match="mine: holds another corpus"):
        prepare(replace(config, user_core=2), corpus.folder)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["mine"]


def test_two_processes_prepare_the_same_corpus_at_once(tmp_path: Path) -> None:
    raw = write_csv(tmp_path / "c.csv", [(n % 97, n % 89, 3, n % 13) for n in range(20_000)])
    code = (
        "import sys\n"
        "from research.data.preparation.prepare import PrepareConfig, prepare\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        f"config = PrepareConfig(source='csv', raw={raw!r})\n"
        f"print(prepare(config, data_root={str(tmp_path / 'data')!r}).fingerprint)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    (folder,) = (tmp_path / "data" / "corpora").iterdir()
    Corpus.open(folder).verify()
    assert answers == [Corpus.open(folder).fingerprint] * 2


# As the preparation gave them at commit 323d726: corpora that were prepared then stay valid.
@pytest.mark.parametrize(
    ("options", "fingerprint", "key"),
    [
        (
            {},
            "a74d51a191e99eed9e8c6f8e80d416137b65a130763a4b463b7e6c845c792e51",
            "2e07cf85fe17",
        ),
        (
            {"min_rating": 2.0, "user_core": 1, "duplicates": "last"},
            "3b2d08306c09976731f43bdc06246ae50efe60025e9607e664d2dd936be9c3ba",
            "380ec0b22c4e",
        ),
        (
            {"timestamp_column": None},
            "d9da0decda3d3357164e1a03f0514cc1a783cc8819847dcbd7bf4e56bce8c418",
            "98bcb04ee77f",
        ),
    ],
)
def test_the_fingerprint_of_a_corpus_does_not_change_with_the_program(
    tmp_path: Path, options: dict[str, object], fingerprint: str, key: str
) -> None:
    corpus = from_rows(tmp_path, ROWS, **options)
    assert (corpus.fingerprint, corpus.folder.name) == (fingerprint, f"c-{key}")


def test_an_option_that_is_added_enters_the_fingerprint_where_it_is_not_at_its_default() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(PrepareConfig):
        sessions: bool = False

    before = options_of(PrepareConfig(source="csv", raw="x"))
    assert list(before) == [
        "source", "min_rating", "user_core", "item_core", "duplicates",
        "user_column", "item_column", "timestamp_column", "rating_column",
    ]  # fmt: skip
    assert options_of(Later(source="csv", raw="y", attributes="z")) == before
    assert options_of(Later(source="csv", raw="x", sessions=True)) == {**before, "sessions": True}


@pytest.mark.real_data
@pytest.mark.skipif(not ML_100K.is_dir(), reason="needs ML-100K, which make quickstart fetches")
def test_ml_100k_has_the_fingerprint_that_the_readme_names(tmp_path: Path) -> None:
    corpus = prepare(PrepareConfig(source="ml-100k", raw=str(ML_100K)), tmp_path / "corpus")
    assert corpus.fingerprint[:12] == "787760b6f7bd"


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data beside the repository")
@pytest.mark.parametrize(
    ("source", "file", "counts"),
    [
        ("s3rec", "s3rec/Beauty.txt", (22_363, 12_101, 198_502, 637)),
        ("s3rec", "s3rec/Sports_and_Outdoors.txt", (35_598, 18_357, 296_337, 2_277)),
        ("s3rec", "s3rec/LastFM.txt", (1_090, 3_646, 52_551, 388)),
        ("pairs", "ml-1m/ml-1m.txt", (6_040, 3_416, 999_611, 0)),
    ],
)
def test_the_published_counts_are_met(
    tmp_path: Path, source: str, file: str, counts: tuple[int, int, int, int]
) -> None:
    corpus = prepare(PrepareConfig(source=source, raw=str(SHARED / file)), tmp_path / "corpus")
    found = (corpus.num_users, corpus.num_items, corpus.num_interactions, corpus.num_attributes)
    assert found == counts
    assert corpus.item_names[41] == "42"
    if source == "s3rec":
        # Item k of the file is k - 1 here; all three files begin 1 1 2 3.
        assert corpus.items[:3].tolist() == [0, 1, 2]


def test_times_at_most_a_second_apart_are_told(tmp_path: Path) -> None:
    for number, (first, last, told) in enumerate([("0.9", "1.1", 1), ("5", "6", 1), ("5", "7", 0)]):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"user,item,timestamp\na,x,{first}\na,y,{last}\n")
        corpus = prepare(PrepareConfig(source="csv", raw=str(path)), tmp_path / f"c{number}")
        warnings = str(report_of(corpus).get("warnings", []))
        assert warnings.count("all times are at most one second apart") == told
        spread = {finding.check: finding.level for finding in audit_corpus(corpus)}
        assert (spread["spread of times"] == "problem") == bool(told)


def test_ids_that_look_alike_are_counted_and_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("user,item,timestamp\na,7,1\na,7.0,2\nA,x,1\n a,007,2\nb,8,3\n")
    corpus = prepare(PrepareConfig(source="csv", raw=str(tmp_path / "p.csv")), tmp_path / "out")
    assert list(corpus.user_names) == ["a", "A", " a", "b"]
    assert list(corpus.item_names) == ["7", "7.0", "x", "007", "8"]
    assert report_of(corpus)["warnings"] == [
        "3 of 4 ids of users differ from another one only by case, blanks, leading zeros or a "
        "trailing .0 ('a' and 'A'); each counts by itself.",
        "3 of 5 ids of items differ from another one only by case, blanks, leading zeros or a "
        "trailing .0 ('7' and '7.0'); each counts by itself.",
    ]
    assert "warnings" not in report_of(from_rows(tmp_path, ROWS))

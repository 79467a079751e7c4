"""The protocol guard: what a protocol holds, what differs, and which tables are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from baselines.popularity import PopularityConfig
from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.data.splits import (
    AtQuantile,
    AtTime,
    ByTime,
    ByUsers,
    GlobalTemporal,
    LeaveOneOut,
    TemporalCut,
    TimepointLeaveOneOut,
    UserHoldout,
)
from research.data.temporal_cut import Target
from research.errors import InputError
from research.evaluation.protocol import check_comparable, differing_fields
from research.evaluation.rank_table import RankTable
from research.runs.config import RunConfig
from research.runs.run_hash import protocol_of
from tests.evaluation.reference_statistics import table_of

COUNTING = RunConfig(ranker=PopularityConfig())


def test_what_differs_is_told_with_the_names_of_either_side() -> None:
    protocols = {
        "sasrec": {"candidates": "full", "seen": "excluded", "part": "test"},
        "cloze": {"candidates": "uniform-100", "seen": "excluded", "part": "test"},
        "s3rec": {"candidates": "full", "seen": "kept", "part": "test"},
    }
    assert differing_fields(protocols) == {
        "candidates": {"'full'": ["sasrec", "s3rec"], "'uniform-100'": ["cloze"]},
        "seen": {"'excluded'": ["sasrec", "cloze"], "'kept'": ["s3rec"]},
    }


@pytest.mark.parametrize(
    "protocols", [{}, {"a": {"part": "test"}}, {"a": {"part": "test"}, "b": {"part": "test"}}]
)
def test_nothing_differs_in_one_protocol(protocols: dict[str, dict[str, object]]) -> None:
    assert differing_fields(protocols) == {}


def test_a_field_that_only_one_has_differs() -> None:
    found = differing_fields({"old": {}, "new": {"history": "whole"}})
    assert found == {"history": {"None": ["old"], "'whole'": ["new"]}}


def test_a_value_and_its_text_differ() -> None:
    assert differing_fields({"a": {"k": 1}, "b": {"k": "1"}}) == {"k": {"1": ["a"], "'1'": ["b"]}}


def test_a_protocol_from_a_file_is_the_one_from_memory() -> None:
    memory = {"split": {"shares": (0.1, 0.2), "class": "Y"}, "filters": {"b": 1, "a": None}}
    stored = json.loads(json.dumps(memory, sort_keys=True))
    assert list(stored["filters"]) == ["a", "b"]
    assert differing_fields({"memory": memory, "file": stored}) == {}


def test_the_order_of_rows_does_not_matter() -> None:
    table = table_of([1.0, 0.5, 0.25])
    turned = replace(table, user=table.user[::-1], item=table.item[::-1])
    check_comparable(table, turned)


def test_every_field_that_differs_is_in_the_message() -> None:
    other = table_of([1.0], candidates="uniform-100", seen="kept")
    with pytest.raises(InputError) as caught:
        check_comparable(table_of([1.0]), other)
    assert str(caught.value) == (
        "the rank tables differ in protocol: candidates is 'full' and 'uniform-100'; seen is None "
        "and 'kept'; compare runs with the same evaluation settings"
    )


def test_tables_of_two_sets_of_users_are_refused() -> None:
    first = table_of([1.0, 0.5, 0.25])
    other = replace(first, user=np.array([0, 1, 7], np.int32))
    with pytest.raises(InputError, match=r"differ in users: 1 are only in the first and 1 only"):
        check_comparable(first, other)


def table_asking(questions: list[tuple[int, int]]) -> RankTable:
    """A table that asks these (user, item) pairs."""
    users, items = np.array(questions, np.int32).reshape(-1, 2).T
    return replace(table_of([1.0] * len(questions)), user=users, item=items)


def test_tables_of_other_held_out_items_are_refused() -> None:
    with pytest.raises(InputError, match="differ in the held-out items of some users"):
        check_comparable(table_asking([(0, 5), (1, 6)]), table_asking([(0, 6), (1, 5)]))
    # The same users, one of them asked more than once.
    with pytest.raises(InputError, match="differ in the held-out items of some users"):
        check_comparable(table_asking([(0, 5), (1, 6)]), table_asking([(0, 5), (1, 6), (1, 7)]))


def test_a_question_asked_twice_is_refused() -> None:
    twice = table_asking([(0, 5), (3, 2**31 - 1), (3, 2**31 - 1)])
    message = r"has 1 questions more than once \(dense ids: item 2147483647 of user 3"
    with pytest.raises(InputError, match=message):
        check_comparable(twice, twice)


def test_a_question_may_be_asked_again_after_a_longer_history() -> None:
    again = table_asking([(0, 5), (3, 7), (3, 7)])
    longer = replace(again, history_length=np.array([1, 1, 2], np.int32))
    check_comparable(longer, replace(longer))
    with pytest.raises(InputError, match="differ in the held-out items of some users"):
        check_comparable(longer, table_asking([(0, 5), (3, 7)]))


SPLITS = (
    LeaveOneOut(),
    UserHoldout(),
    GlobalTemporal(),
    TimepointLeaveOneOut(),
    TimepointLeaveOneOut(cut=AtQuantile(quantile=0.8)),
    *(TemporalCut(target=target) for target in get_args(Target)),
    TemporalCut(cut=AtTime(time="2014-05-01")),
    TemporalCut(validation=ByUsers()),
    TemporalCut(validation=ByTime()),
    TemporalCut(gap_days=7.0),
)


def test_protocols_of_all_splits_differ(tiny_corpus: Corpus) -> None:
    protocols = {
        str(split): protocol_of(replace(COUNTING, split=split), tiny_corpus, "test")
        for split in SPLITS
    }
    (values,) = differing_fields(protocols).values()
    assert len(values) == len(SPLITS)
    tables = [replace(table_of([1.0]), protocol=protocol) for protocol in protocols.values()]
    for other in tables[1:]:
        with pytest.raises(InputError, match="the rank tables differ in protocol: split is "):
            check_comparable(tables[0], other)


def test_questions_compare_as_sorted_lists_of_pairs_do() -> None:
    draws = np.random.default_rng(0)
    outcomes = set()
    for _ in range(200):
        one, other = (
            list(dict.fromkeys(map(tuple, draws.integers(0, 3, (3, 2)).tolist()))) for _ in range(2)
        )
        same = sorted(one) == sorted(other)
        outcomes.add(same)
        try:
            check_comparable(table_asking(one), table_asking(other))
        except InputError:
            assert not same
        else:
            assert same
    assert outcomes == {True, False}


def pairs_corpus(folder: Path, **options: int | str) -> Corpus:
    """Five users with two items and one with a single one, prepared."""
    raw = folder / "pairs.txt"
    raw.write_text("".join(f"{u} {i}\n" for u in range(5) for i in (0, 1)) + "5 1\n")
    config = PrepareConfig(source="pairs", raw=str(raw), **options)  # type: ignore[arg-type]
    return prepare(config, folder / "-".join(["corpus", *map(str, options.values())]))


def test_a_protocol_holds_the_filters_of_the_preparation(tmp_path: Path) -> None:
    plain, cored = pairs_corpus(tmp_path), pairs_corpus(tmp_path, user_core=2, duplicates="first")
    protocols = {
        name: protocol_of(COUNTING, corpus, "test")
        for name, corpus in (("plain", plain), ("cored", cored))
    }
    assert protocols["plain"]["filters"] == {}
    assert protocols["cored"]["filters"] == {"user_core": 2, "duplicates": "first"}
    assert list(differing_fields(protocols)) == ["filters", "fingerprint"]
    # What the same corpus is called elsewhere makes no other protocol of it.
    assert not differing_fields(
        {"a": protocols["plain"], "b": {**protocols["plain"], "corpus": "x"}}
    )


def test_a_protocol_holds_the_split_without_what_is_at_its_default(tiny_corpus: Corpus) -> None:
    halves = replace(COUNTING, split=UserHoldout(test_share=0.5))
    assert protocol_of(COUNTING, tiny_corpus, "test")["split"] == {"class": "LeaveOneOut"}
    assert protocol_of(halves, tiny_corpus, "test")["split"] == {
        "class": "UserHoldout", "test_share": 0.5,
    }  # fmt: skip


def test_a_protocol_says_split_part_and_that_histories_are_whole(tiny_corpus: Corpus) -> None:
    one = protocol_of(COUNTING, tiny_corpus, "test")
    other = protocol_of(replace(COUNTING, split=UserHoldout()), tiny_corpus, "validation")
    assert one["history"] == "whole"
    assert list(differing_fields({"one": one, "other": other})) == ["part", "split"]


def test_a_seed_is_no_part_of_a_protocol(tiny_corpus: Corpus) -> None:
    seeds = (protocol_of(replace(COUNTING, seed=seed), tiny_corpus, "test") for seed in (0, 1))
    assert next(seeds) == next(seeds)

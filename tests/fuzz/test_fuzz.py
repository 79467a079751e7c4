"""A short run of every fuzz target: only documented errors come out, in bounded time and memory.

`python -m tests.fuzz` does a million cases.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Tally, do_cases, generator_of, limits, spread, working_folder
from tests.fuzz.mutations import json_altered
from tests.fuzz.targets import Target, all_targets, altering
from tests.support.marks import long_case

TARGETS = all_targets()


def cases_of(target: Target, milliseconds: int) -> int:
    """Return how many cases take so long, but at least 20."""
    return max(20, int(milliseconds / target.milliseconds))


# All targets take about five seconds, the longer way fifteen: each as long as any other.
@pytest.mark.parametrize("milliseconds", [75, long_case(300)])
@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_come_out(name: str, milliseconds: int) -> None:
    target = TARGETS[name]
    with working_folder() as folder:
        case = target.begin(folder)
        # What is imported or made once is no matter of a case.
        with limits():
            do_cases(target, case, -1, 0, 3)
        with limits():
            tally = do_cases(target, case, 0, 0, cases_of(target, milliseconds))
    command = "python -m tests.fuzz --targets {} --seed 0 --case {}"
    found = {command.format(name, first): kind for kind, (first, _) in tally.failures.items()}
    assert not found
    assert tally.cases == tally.accepted + tally.refused


def test_every_target_accepts_something_and_refuses_something() -> None:
    # One of them stands for all: the rest is told by the table of a long run.
    target = TARGETS["pairs"]
    with working_folder() as folder:
        tally = do_cases(target, target.begin(folder), 0, 0, 200)
    assert tally.accepted > 20
    assert tally.refused > 20


def test_a_case_is_known_by_target_seed_and_number() -> None:
    def drawn(target: str, seed: int, number: int) -> bytes:
        return json_altered(generator_of(target, seed, number), b'{"a": [1, 2, {"b": "c"}]}')

    assert drawn("pairs", 0, 7) == drawn("pairs", 0, 7)
    assert len({drawn(name, seed, 7) for name in ("pairs", "csv") for seed in range(5)}) > 5


def test_an_altered_file_is_put_back(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    case = altering(tmp_path, lambda random: None)
    for number in range(100):
        case(Random(number))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{"a": 1}'


def test_what_is_not_documented_is_a_failure(tmp_path: Path) -> None:
    def case(random: Random) -> None:
        raise KeyError("odd")

    target = Target(name="odd", milliseconds=1.0, begin=lambda folder: case)
    tally = do_cases(target, case, 0, 0, 3)
    assert (tally.cases, tally.accepted, tally.refused, tally.failed) == (3, 0, 0, 3)
    assert [(number, said) for number, said in tally.failures.values()] == [(0, "'odd'")]


def test_a_case_that_hangs_or_takes_memory_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(random: Random) -> object:
        while number == 0:
            pass
        return bytearray(8 << 30)

    monkeypatch.setattr(campaign, "SECONDS", 0.2)
    target = Target(name="greedy", milliseconds=1.0, begin=lambda folder: case)
    tally = Tally()
    with limits():
        for number in range(2):
            tally.add(do_cases(target, case, 0, number, number + 1))
    kinds = [kind.split(" at ")[0] for kind in tally.failures]
    assert kinds == ["more than 0.2 s", "MemoryError"]


def test_cases_are_spread_so_that_each_target_has_its_least() -> None:
    counts = spread(1_000_000, TARGETS)
    assert min(counts.values()) >= 10_000
    assert counts["report"] < counts["budgets"]
    assert 999_000 <= sum(counts.values()) <= 1_000_000

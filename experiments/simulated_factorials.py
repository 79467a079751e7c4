"""How often does a factorial study find an effect that is not there, and one that is?

Studies of 2 x 2 x 2 cells are simulated as rank tables and judged as a report judges them
(`research/report/effects.py`): three main effects, three two-way interactions, NDCG@10. The
logarithm of a held-out item's rank is the sum of
  its user's difficulty, normal with mean 3 and deviation 1.5, the same in all cells;
  the user's reaction to the cell, deviation 0.3, the same for all seeds;
  the run's own luck, the same for all users, with the deviation of the table's second column;
  what is left, deviation 1;
  the planted effect, if any: `A` lowers it for one level of factor A; `A x B` lowers it where A and
  B agree and raises it as much where they differ, so that neither has a main effect.
With one seed luck is 0: a study of one seed says nothing of other seeds.

For each setting the table has, of the effects that are not planted, the share of main effects and
of interactions that are found at a level of 5 % (p below it, and an interval without 0), and the
share of studies that find any of them after Holm's correction over all six. Of the planted one it
has its mean size, and the share of studies that find it at 5 % and after the correction.

Command: python -m experiments.simulated_factorials
Hardware: one CPU thread, some ten minutes. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from research.evaluation.rank_table import RankTable
from research.report.effects import factorial_of
from research.report.schema import LEVEL, Effect
from research.storage.records import StudyRecord

FACTORS = dict.fromkeys("ABC", ("0", "1"))
COMBINATIONS = list(itertools.product(*FACTORS.values()))
DIFFICULTY, DIFFICULTY_SPREAD, REACTION_SPREAD = 3.0, 1.5, 0.3


@dataclass(frozen=True)
class Setting:
    """How studies are simulated."""

    seeds: int
    luck: float
    """Deviation of what a run adds to the logarithm of all its ranks."""
    planted: tuple[str, ...] = ()
    """The factors of the planted effect: none, one (main) or two (interaction)."""
    size: float = 0.0
    """By how much the planted effect lowers the logarithm of ranks."""


SETTINGS = [
    *(Setting(seeds, luck) for seeds, luck in ((1, 0.0), (2, 0.1), (3, 0.0), (3, 0.1), (5, 0.1))),
    *(
        Setting(seeds, luck, planted, size)
        for seeds, luck in ((1, 0.0), (3, 0.1), (5, 0.1), (10, 0.1))
        for planted, size in ((("A",), 0.2), (("A", "B"), 0.2))
    ),
]


def simulated_ranks(
    setting: Setting, users: int, draws: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """For each combination of levels the ranks of its runs, float64 [seeds, users]."""
    difficulty = draws.normal(DIFFICULTY, DIFFICULTY_SPREAD, users)
    for combination in COMBINATIONS:
        levels = dict(zip(FACTORS, combination))
        logs = difficulty + draws.normal(0, REACTION_SPREAD, users)
        logs = logs + draws.normal(0, 1, (setting.seeds, users))
        logs += setting.luck * draws.standard_normal((setting.seeds, 1))
        logs -= setting.size * planted_share([levels[name] for name in setting.planted])
        yield 1.0 + np.floor(np.exp(logs))


def planted_share(levels: Sequence[str]) -> float:
    """The share of the planted effect that a cell with these levels of its factors has."""
    if len(levels) == 1:
        return float(levels[0] == "1")
    if len(levels) == 2:
        return 0.5 if levels[0] == levels[1] else -0.5
    return 0.0


def rank_table(ranks: NDArray[np.float64]) -> RankTable:
    """A table in which user u has the held-out item u, at the u-th of these ranks."""
    users = np.arange(len(ranks), dtype=np.int32)
    ones = np.ones(len(ranks), np.int32)
    return RankTable(
        user=users,
        item=users,
        rank=ranks,
        ties=ones - 1,
        history_length=ones,
        item_count=ones,
        protocol={"part": "test", "candidates": "full"},
    )


def study_record(seeds: int) -> StudyRecord:
    """study.json of a study whose cells cross the factors; the first is its base."""
    levels = {"".join(each): dict(zip(FACTORS, each)) for each in COMBINATIONS}
    return StudyRecord(
        name="simulated",
        question="",
        base="000",
        metrics=("ndcg@10",),
        compared="ndcg@10",
        budget=None,
        cells=tuple(levels),
        factors=FACTORS,
        levels=levels,
        changes={},
        seeds=tuple(range(seeds)),
        corpora=("simulated",),
        runs={},
        command="",
    )


def simulated_effects(
    setting: Setting, users: int, draws: np.random.Generator
) -> tuple[Effect, ...]:
    """The effects that the report of a simulated study has."""
    study = study_record(setting.seeds)
    group: Mapping[str, Mapping[int, RankTable]] = {
        cell: dict(enumerate(map(rank_table, ranks)))
        for cell, ranks in zip(study.cells, simulated_ranks(setting, users, draws))
    }
    factorial = factorial_of(study, group, (), ties="expected", figures=False)
    assert factorial is not None
    return factorial.effects["ndcg@10"]


def found(effect: Effect) -> bool:
    """Whether an effect would be found were it the only one."""
    assert effect.comparison is not None
    return effect.comparison.significant(effect.comparison.p, LEVEL)


def row_of(setting: Setting, studies: int, users: int, seed: int) -> list[str]:
    """The entries of a setting's row; see the module's docstring."""
    draws = np.random.default_rng(seed)
    wrong: dict[int, list[bool]] = {1: [], 2: []}
    wrong_studies, right, right_corrected, sizes = [], [], [], []
    for _ in range(studies):
        effects = simulated_effects(setting, users, draws)
        others = [effect for effect in effects if effect.factors != setting.planted]
        for effect in others:
            wrong[len(effect.factors)].append(found(effect))
        wrong_studies.append(any(effect.significant for effect in others))
        for effect in effects:
            if effect.factors == setting.planted and effect.comparison is not None:
                right.append(found(effect))
                right_corrected.append(effect.significant)
                sizes.append(effect.comparison.difference)
    return [
        str(setting.seeds),
        f"{setting.luck:g}",
        " x ".join(setting.planted) or "nothing",
        percent(wrong[1]),
        percent(wrong[2]),
        percent(wrong_studies),
        f"{np.mean(sizes):+.4f}" if sizes else "",
        percent(right),
        percent(right_corrected),
    ]


def percent(cases: Sequence[bool]) -> str:
    """The share of true cases; empty where there is no case."""
    return f"{100 * np.mean(cases):.1f} %" if cases else ""


def main(arguments: Sequence[str]) -> int:
    """Print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m experiments.simulated_factorials")
    parser.add_argument("--studies", type=int, default=300, help="studies of each setting")
    parser.add_argument("--users", type=int, default=200, help="users of each study")
    options = parser.parse_args(arguments)
    head = ["seeds", "luck", "planted", "wrong main effects", "wrong interactions"]
    head += ["studies with a wrong one (Holm)", "size", "found", "found (Holm)"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for number, setting in enumerate(SETTINGS):
        entries = row_of(setting, options.studies, options.users, number)
        print(f"| {' | '.join(entries)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Does a pretraining do harm because it saw the very users who are fine-tuned on?

In `experiments.objectives:lastfm` cloze as pretraining halves NDCG@10, while the training loss of
the fine-tuning is lower after it than from scratch. If it has learned the histories of its users by
heart, a pretraining on other users should do no such harm. LastFM's users are cut into two halves,
drawn anew for each seed. One half is fine-tuned on, from scratch (`none`) or after a pretraining on
the same half or on the other one:
  cloze-same, cloze-other  BERT4Rec's cloze;
  mip-same, mip-other      S3-Rec's masked items alone;
  s3-same, s3-other        S3-Rec's four heads.
Each stage has 77 epochs, as each of the pretrained cells there has, of half as many users, and so a
million tokens. The pretraining comes on top of the fine-tuning, all else is as there. All users are
asked after, in both halves, which the study's own tables do not tell apart.

`python -m experiments.other_users FOLDER` does: for the fine-tuned half and for the other one it
prints each cell's mean of a metric and its difference from `none`, and what a pretraining on the
same users is worth beside one on the others. Each seed has halves of its own: a user counts in the
seeds whose half the user is in, with half of the 95 % interval over users and seeds, and p after
Holm over a table's rows.

Command: python -m research study experiments.other_users --threads 1 --no-probe
         python -m experiments.other_users runs/other-users/LastFM
Hardware: two CPU cores, no GPU; one to three minutes a run. Results: experiments/LOG.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from baselines.s3rec import corrected_objectives
from experiments.objectives import LASTFM_PRETRAINING_EPOCHS, from_scratch, pretrained_at
from experiments.recipes import CLOZE, FIVE_SEEDS, METRICS
from research.console import plain_console
from research.data.user_range import UserRange
from research.evaluation.metrics import per_user
from research.evaluation.statistics import Comparison, comparison_of, holm
from research.objectives.base import ObjectiveConfig
from research.public.run import load
from research.report.records import read_tables
from research.runs.config import RunConfig
from research.storage.records import RunSummary
from research.studies.study import Study
from research.training.config import StageConfig

FINE_TUNED, OTHERS = UserRange(stop=0.5), UserRange(start=0.5)
BASE = "none"
Values = NDArray[np.float64]
Contrast = tuple[str, str]


def cells(rows: int, epochs: int) -> dict[str, RunConfig]:
    """The cells, at `rows` a step and so many epochs of each stage."""

    def on(stage: StageConfig, users: UserRange) -> StageConfig:
        return replace(stage, users=users, epochs=epochs)

    none = from_scratch(rows)
    none = replace(none, stages=(on(none.stages[0], FINE_TUNED),))
    heads = corrected_objectives()
    pretrainings: dict[str, Mapping[str, ObjectiveConfig]] = {
        "cloze": {"cloze": CLOZE}, "mip": {"mip": heads["mip"]}, "s3": heads
    }  # fmt: skip
    made = {BASE: none}
    for name, objectives in pretrainings.items():
        pretrain = pretrained_at(rows)(objectives).stages[0]
        for whom, users in (("same", FINE_TUNED), ("other", OTHERS)):
            made[f"{name}-{whom}"] = replace(none, stages=(on(pretrain, users), *none.stages))
    return made


def study() -> Study:
    """LastFM, five seeds."""
    return Study(
        name="other-users",
        question="Does a pretraining do harm because it saw the users who are fine-tuned on?",
        cells=cells(rows=64, epochs=LASTFM_PRETRAINING_EPOCHS),
        base=BASE,
        corpora=("data/corpora/LastFM",),
        seeds=FIVE_SEEDS,
        metrics=METRICS,
        compared="ndcg@10",
    )


@dataclass(frozen=True)
class UserValues:
    """A metric of a finished run's test, by user."""

    values_U: Values
    """[U], users ascending."""
    tuned_U: NDArray[np.bool_]
    """[U]: whether the last stage was trained on the user."""


def user_values_of(run: Path, metric: str) -> UserValues:
    """The values of a run's test among all items; `InputError` for what `sf.load` refuses."""
    parts, _ = load(run).loaded
    table = read_tables(run)["full"]
    users_U, values_U = per_user(table, metric, parts.config.evaluation.ties)
    tuned = parts.training_rows(parts.config.stages[-1]).users
    return UserValues(values_U, np.isin(users_U, tuned))


def in_group(runs: Sequence[UserValues], *, tuned: bool) -> Values:
    """[S, U]: the values of S seeds' runs, so that the mean over users is that of a group.

    The group is the users who were fine-tuned on, or the others. A value outside of it is 0, one in
    it is multiplied by the number of users over the group's.
    """
    rows = []
    for run in runs:
        group_U = run.tuned_U if tuned else ~run.tuned_U
        rows.append(np.where(group_U, run.values_U / group_U.mean(), 0.0))
    return np.stack(rows)


def contrasts(names: Sequence[str]) -> list[Contrast]:
    """What is compared with what: each cell with `none`, and `same` with `other`."""
    same = [name for name in names if name.endswith("-same")]
    others = [(name, name.removesuffix("same") + "other") for name in same]
    with_none = [(name, BASE) for name in names if name != BASE]
    return with_none + [pair for pair in others if pair[1] in names]


def table_of(runs: Mapping[str, Sequence[UserValues]], metric: str, *, tuned: bool) -> Table:
    """A row for each contrast, for one of the two groups of users."""
    values = {cell: in_group(of_cell, tuned=tuned) for cell, of_cell in runs.items()}
    pairs = contrasts(list(runs))
    compared: list[Comparison] = [
        comparison_of(values[cell] - values[other]) for cell, other in pairs
    ]
    corrected = holm([each.p for each in compared])
    whose = "fine-tuned" if tuned else "other"
    table = Table(f"{whose} users", metric, "against", metric, "difference", "p")
    for (cell, other), comparison, p in zip(pairs, compared, corrected):
        half = (comparison.high - comparison.low) / 2
        table.add_row(
            cell,
            f"{values[cell].mean():.4f}",
            other,
            f"{values[other].mean():.4f}",
            f"{comparison.difference:+.4f} ±{half:.4f}",
            f"{p:.3f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for the users who were fine-tuned on, and one for the others."""
    parser = argparse.ArgumentParser(prog="python -m experiments.other_users")
    parser.add_argument("folder", type=Path, help="the study's STUDY/DATASET")
    parser.add_argument("--metric", default="ndcg@10", help="default: ndcg@10")
    chosen = parser.parse_args(arguments)
    runs: dict[str, list[UserValues]] = {}
    for cell in cells(rows=1, epochs=1):
        found = sorted(chosen.folder.glob(f"{cell}/*/{RunSummary.FILE}"), key=seed_of_run)
        if found:
            runs[cell] = [user_values_of(summary.parent, chosen.metric) for summary in found]
    if BASE not in runs or len({len(of_cell) for of_cell in runs.values()}) != 1:
        counts = ", ".join(f"{cell} {len(of_cell)}" for cell, of_cell in runs.items())
        raise SystemExit(
            f"{chosen.folder} must have {BASE} and as many finished seeds of each other cell; it "
            f"has: {counts or 'none'}. Finish the study first"
        )
    console = plain_console()
    for tuned in (True, False):
        console.print(table_of(runs, chosen.metric, tuned=tuned))


def seed_of_run(summary: Path) -> int:
    """The seed that a run's folder is named after."""
    return int(summary.parent.name)


if __name__ == "__main__":
    main()

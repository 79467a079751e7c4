"""Does a pretraining do harm because it saw the very users who are fine-tuned on?

In `experiments.objectives:lastfm` cloze as pretraining halves NDCG@10, although the next item's
training loss is lower after it than from scratch (`docs/results.md`). If it has learned the
histories of its users by heart, a pretraining on other users should do less harm. LastFM's users
are cut into two halves, drawn anew for each seed. One half is fine-tuned on, from scratch (`none`)
or after a pretraining on the same half or on the other one:
  cloze-same, cloze-other  BERT4Rec's cloze;
  mip-same, mip-other      S3-Rec's masked items alone;
  s3-same, s3-other        S3-Rec's four heads.
Each stage has 77 epochs, as the pretrainings there; with half of the users that is a million tokens
a stage. The pretraining comes on top of the fine-tuning. The weights are selected by the validation
of all users, and all are asked after: the study's own tables do not tell the halves apart.

`python -m experiments.other_users FOLDER` does. For the users who were fine-tuned on, and for the
others, it prints a metric of each cell, its difference from `none`, and the difference of a
pretraining on the same users from one on the others. Halves differ by seed, so a user is counted in
the seeds where the user is in that half. ± is half of the 95 % interval over users and seeds; p is
corrected by Holm's method over the rows of a table.

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
from research.errors import InputError
from research.evaluation.metrics import per_user
from research.evaluation.statistics import comparison_of, holm
from research.objectives.base import ObjectiveConfig
from research.public.run import load
from research.report.records import read_tables
from research.runs.config import RunConfig
from research.runs.parts import RunParts
from research.storage.records import RunSummary
from research.studies.study import Study
from research.training.config import StageConfig

FINE_TUNED, OTHERS = UserRange(stop=0.5), UserRange(start=0.5)
BASE = "none"
Values = NDArray[np.float64]
Contrast = tuple[str, str]


def cells(rows: int, epochs: int) -> dict[str, RunConfig]:
    """The cells, at `rows` a step and so many epochs of each stage."""

    def trained_on(users: UserRange, stage: StageConfig) -> StageConfig:
        return replace(stage, users=users, epochs=epochs)

    none = from_scratch(rows)
    none = replace(none, stages=(trained_on(FINE_TUNED, none.stages[0]),))
    heads = corrected_objectives()
    pretrainings: dict[str, Mapping[str, ObjectiveConfig]] = {
        "cloze": {"cloze": CLOZE}, "mip": {"mip": heads["mip"]}, "s3": heads
    }  # fmt: skip
    configs = {BASE: none}
    for name, objectives in pretrainings.items():
        pretrain = pretrained_at(rows)(objectives).stages[0]
        for half, users in (("same", FINE_TUNED), ("other", OTHERS)):
            stages = (trained_on(users, pretrain), *none.stages)
            configs[f"{name}-{half}"] = replace(none, stages=stages)
    return configs


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


@dataclass(frozen=True, eq=False)
class UserValues:
    """A metric of a finished run's test, by user."""

    users_U: NDArray[np.int64]
    """[U] dense user ids, ascending."""
    values_U: Values
    """[U]: the metric."""
    tuned_U: NDArray[np.bool_]
    """[U]: whether the last stage was trained on the user."""


Runs = Mapping[str, Mapping[int, UserValues]]
"""By cell and seed."""


def user_values_of(run: Path, metric: str) -> UserValues:
    """The values of a run's test among all items; `InputError` for what `sf.load` refuses."""
    config = load(run).config
    users_U, values_U = per_user(read_tables(run)["full"], metric, config.evaluation.ties)
    tuned = RunParts.of(config, "data").training_rows(config.stages[-1]).users
    return UserValues(users_U, values_U, np.isin(users_U, tuned))


def in_group(runs: Mapping[int, UserValues], *, tuned: bool) -> Values:
    """[S, U]: the values of S seeds' runs, so that the mean over users is that of a group.

    The group is the users who were fine-tuned on, or the others. A value outside of it is 0, one in
    it is multiplied by the number of users over the group's.
    """
    rows = []
    for run in runs.values():
        group_U = run.tuned_U if tuned else ~run.tuned_U
        rows.append(np.where(group_U, run.values_U / group_U.mean(), 0.0))
    return np.stack(rows)


def contrasts(names: Sequence[str]) -> list[Contrast]:
    """What is compared with what: each cell with `none`, and `same` with `other`."""
    with_none = [(name, BASE) for name in names if name != BASE]
    same = [name for name in names if name.endswith("-same")]
    return with_none + [(name, name.removesuffix("same") + "other") for name in same]


def table_of(runs: Runs, metric: str, *, tuned: bool) -> Table:
    """A row for each contrast, for one of the two groups of users."""
    values = {cell: in_group(of_cell, tuned=tuned) for cell, of_cell in runs.items()}
    pairs = contrasts(list(runs))
    compared = [comparison_of(values[cell] - values[other]) for cell, other in pairs]
    corrected = holm([comparison.p for comparison in compared])
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


def runs_of(folder: Path, metric: str) -> Runs:
    """The finished runs of STUDY/DATASET; `InputError` unless each cell has the same seeds.

    Raises `InputError` too where runs were not asked after the same users.
    """
    found = {
        cell: sorted(int(path.parent.name) for path in folder.glob(f"{cell}/*/{RunSummary.FILE}"))
        for cell in cells(rows=1, epochs=1)
    }
    if not found[BASE] or any(seeds != found[BASE] for seeds in found.values()):
        seeds_of = ", ".join(f"{cell} {seeds}" for cell, seeds in found.items())
        raise InputError(
            f"{folder} must have the same finished seeds of every cell, but has {seeds_of}; finish "
            "the study first"
        )
    runs = {
        cell: {seed: user_values_of(folder / cell / str(seed), metric) for seed in seeds}
        for cell, seeds in found.items()
    }
    users_U = next(iter(runs[BASE].values())).users_U
    for cell, of_cell in runs.items():
        for seed, run in of_cell.items():
            same_users = np.array_equal(run.users_U, users_U)
            if not same_users or not np.array_equal(run.tuned_U, runs[BASE][seed].tuned_U):
                raise InputError(
                    f"{folder}/{cell}/{seed} has other users than {BASE}; do the study again"
                )
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for the users who were fine-tuned on, and one for the others."""
    parser = argparse.ArgumentParser(prog="python -m experiments.other_users")
    parser.add_argument("folder", type=Path, help="the study's STUDY/DATASET")
    parser.add_argument("--metric", default="ndcg@10", help="default: ndcg@10")
    chosen = parser.parse_args(arguments)
    try:
        runs = runs_of(chosen.folder, chosen.metric)
    except InputError as refused:
        raise SystemExit(str(refused)) from refused
    console = plain_console()
    for tuned in (True, False):
        console.print(table_of(runs, chosen.metric, tuned=tuned))


if __name__ == "__main__":
    main()

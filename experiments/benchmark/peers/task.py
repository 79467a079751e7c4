"""What a peer is asked to do, handed over as a JSON file and a file of arrays.

A peer's environment runs this file too, so it imports nothing of the rest of the project.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.benchmark.measure import WARM_STEPS, Clock, Duration, peak_megabytes
from experiments.benchmark.results import Fact, Measured

FULL_SOFTMAX = "full softmax"
ONE_NEGATIVE = "BCE, 1 negative"
S3_LOSSES = "AAP + MIP + MAP + SP"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A work, in numbers that any library understands."""

    work: str
    """W1 to W6."""
    peer: str
    """The name of the peer."""
    model: str
    """sasrec, bert4rec or s3rec."""
    ranks: bool
    """Whether the test items are ranked by an untrained model; else one epoch is trained."""
    arrays: str
    """Path of the file with the histories, see `Histories`."""
    length: int
    """Most items of a row that the model reads."""
    width: int
    """Width of the hidden states."""
    layers: int
    """Number of blocks."""
    heads: int
    """Heads of attention in a block."""
    feed_forward: int
    """Inner width of the feed-forward part."""
    dropout: float
    """Everywhere: embeddings, attention weights, outputs of attention and feed-forward part."""
    batch: int
    """Rows in a step."""
    loss: str
    """`FULL_SOFTMAX`, `ONE_NEGATIVE` or `S3_LOSSES`."""
    mask_rate: float
    """Probability that an item is masked; 0: nothing is masked."""
    lr: float
    """Adam's learning rate."""
    steps: int | None
    """Steps to time after `WARM_STEPS` others; None: all that follow these in the epoch."""
    threads: int
    """Threads of torch."""
    device: str
    """cpu or cuda."""

    @staticmethod
    def read(path: str) -> Task:
        """The task in a JSON file."""
        return Task(**json.loads(Path(path).read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """Write the task as a JSON file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Histories:
    """The corpus of a task: whole histories, of which the last two items are held out."""

    items: NDArray[np.int64]
    """int64 [N]: user after user, oldest first; ids from 0."""
    offsets: NDArray[np.int64]
    """int64 [U + 1]: the history of user u is `items[offsets[u]:offsets[u + 1]]`."""
    attribute_ids: NDArray[np.int64]
    """int64 [M]: item after item; ids from 0."""
    attribute_offsets: NDArray[np.int64]
    """int64 [V + 1]: the attributes of item v, likewise."""

    @staticmethod
    def read(path: str) -> Histories:
        """The arrays of a `.npz` file, by the names of the fields."""
        with np.load(path) as arrays:
            return Histories(**{name: arrays[name].astype(np.int64) for name in arrays.files})

    @property
    def users(self) -> NDArray[np.int64]:
        """int64 [N]: the user of each interaction."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def ages(self) -> NDArray[np.int64]:
        """int64 [N]: how many newer interactions the user has; the test item has 0."""
        return self.offsets[1:][self.users] - 1 - np.arange(len(self.items))


class StepTimer:
    """Times the steps of an epoch that follow the warm ones, up to the number asked."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.steps = -WARM_STEPS
        """Steps that were timed; negative before."""
        self.rows = 0
        """Rows of the steps that were timed."""
        self.clock: Clock | None = None
        self.duration = Duration(0.0, 0.0)
        """Time of these steps, once the timer was stopped."""

    @property
    def enough(self) -> bool:
        """Whether the steps asked for are done."""
        return self.steps == self.task.steps

    def after(self, rows: int) -> None:
        """Count a step of so many rows that is just done."""
        self.steps += 1
        if self.steps > 0:
            self.rows += rows
        elif self.steps == 0:
            self.clock = Clock(self.task.device)

    def stop(self) -> None:
        """End the measurement; at least one step must have been timed."""
        assert self.clock is not None, "an epoch has more than the warm steps"
        assert self.rows > 0, "a step was timed"
        self.duration = self.clock.spent()


def report(
    task: Task, timer: StepTimer, *, peak: float, gflop_a_row: float, facts: dict[str, Fact]
) -> None:
    """Print the measurement of an epoch, scaled by rows, as the last line of the output.

    `facts` has "rows", those of an epoch.
    """
    rows = facts["rows"]
    assert isinstance(rows, int), "a peer counts its rows"
    scale = rows / timer.rows
    measured = Measured(
        work=task.work,
        side=task.peer,
        seconds=timer.duration.seconds * scale,
        cpu=timer.duration.cpu * scale,
        steps=timer.steps,
        steps_in_epoch=-(-rows // task.batch),
        timed_share=timer.rows / rows,
        peak_megabytes=peak,
        gflop=gflop_a_row * rows,
        facts=facts,
    )
    print(measured.to_json(), flush=True)


def report_ranking(task: Task, spent: Duration, *, facts: dict[str, Fact]) -> None:
    """Print the measurement of a ranking, whose operations are not counted."""
    measured = Measured(
        work=task.work,
        side=task.peer,
        seconds=spent.seconds,
        cpu=spent.cpu,
        peak_megabytes=peak_megabytes(task.device),
        gflop=0.0,
        facts=facts,
    )
    print(measured.to_json(), flush=True)

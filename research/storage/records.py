"""What runs and studies write as JSON, a frozen dataclass a file; names as in the file.

Files are read by `read_record`, which checks them once, so that whoever has a record need not look
again: the folder may come from a stranger, or from an earlier version. What a later version added
has a default, which says what an older file means.
"""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from research.config import OLD_FORM, is_old_form, plain_from_json, plain_to_json
from research.errors import InputError
from research.storage.json_files import read_json, write_json
from research.storage.untrusted import is_file_name, own_file

Kind = TypeVar("Kind", bound="Record")


class Record(ABC):
    """All of a JSON file."""

    FILE: ClassVar[str]
    """The file's name."""
    REMEDY: ClassVar[str] = "remove it, and the command that began the run writes it anew"
    """What to do about a file that is damaged."""


# config.json


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """The corpus of a run, beside its fingerprint."""

    name: str
    """The data set's name."""
    users: int
    """Number of users."""
    items: int
    """Number of items."""
    interactions: int
    """Number of events."""
    attributes: int
    """Number of attributes."""
    filters: Mapping[str, object]
    """The options of `prepare` that decide which events there are."""


@dataclass(frozen=True, kw_only=True)
class StartRecord:
    """What a run starts from; without fields: from scratch."""

    folder: str | None = None
    """The earlier run's folder."""
    stage: str | None = None
    """Its stage."""
    sha256: str | None = None
    """Checksum of that stage's weights."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a process ran. Its name in the network is nobody's business."""

    platform: str
    """Operating system, its version, and the architecture."""
    cpu: str
    """The processor's model."""
    cores: int
    """Cores of the machine."""
    accelerator: str | None = None
    """The GPU's model; None: the CPU computed."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """By which code, on what and by which command a run was done, or a part of it."""

    begun: str | None = None
    """When first, in UTC; None: by an earlier version, which kept nothing of this."""
    commit: str | None = None
    """The git commit of the code; None: it stands in no checkout, or there is no git."""
    clean: bool | None = None
    """Whether the checkout had no change and no new Python file; None: as above."""
    machine: Machine | None = None
    """Of the main process."""
    processes: int | None = None
    """Number of processes."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python and of the packages that compute."""
    command: str | None = None
    """The command line, without the home folder's name and without keys."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveOutline:
    """What of a stored objective's config is known without its class."""

    weight: float
    """Its factor in the stage's loss."""


@dataclass(frozen=True, kw_only=True)
class StageOutline:
    """What of a stored stage's config is known without its class."""

    name: str
    """The stage's name."""
    objectives: Mapping[str, ObjectiveOutline]
    """By key."""

    def __post_init__(self) -> None:
        if not is_file_name(self.name):
            raise InputError(f"name is {self.name!r:.80}, which cannot be the name of a folder")


@dataclass(frozen=True, kw_only=True)
class RunOutline:
    """What of a stored `RunConfig` is known without its classes, which may be a stranger's."""

    corpus: str
    """The corpus's folder or name."""
    stages: tuple[StageOutline, ...]
    """None of them: a ranker that only counts."""
    encoder: Mapping[str, object]
    """The encoder's config."""
    split: Mapping[str, object]
    """The split's config."""
    evaluation: Mapping[str, object]
    """Which figures are reported."""
    ranker: Mapping[str, object] | None = None
    """The config of a ranker that only counts."""
    start_from: str | None = None
    """The earlier run that the first stage starts from."""
    seed: int = 0
    """The run's seed."""

    def __post_init__(self) -> None:
        if bool(self.stages) == (self.ranker is not None):
            raise InputError("a run has either stages or a counting ranker, and not both")


@dataclass(frozen=True, kw_only=True)
class ExtensionRecord:
    """A later limit that a run was given in the folder where it stood."""

    hash: str
    """The run's before."""
    stage: str
    """The stage that went on."""
    epoch: int
    """Epochs that it had completed; one in which a limit of steps ended it counts."""
    step: int
    """Steps that it had completed."""
    ended: bool
    """Whether it had ended; else it was interrupted."""
    tested: bool
    """Whether the test had been ranked."""
    limits: Mapping[str, tuple[object, object]]
    """By dotted field, the limit before and the later one."""


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """config.json, which recognizes a run; it is written before anything is trained."""

    FILE: ClassVar[str] = "config.json"
    hash: str
    """Of all that decides the run's result: equal runs have equal ones."""
    fingerprint: str
    """Of the corpus, without which item ids mean nothing."""
    dataset: DatasetRecord
    """What the corpus is."""
    start: StartRecord
    """What the run starts from."""
    stages: Mapping[str, str]
    """By stage, the hash of all that decides its weights."""
    config: Mapping[str, object]
    """The `RunConfig`, which `config.from_json` reads."""
    provenance: tuple[Provenance, ...] = ()
    """Each way in which the run was begun and continued, once, in order."""
    extensions: tuple[ExtensionRecord, ...] = ()
    """The later limits that the run was given since it began, in order."""

    def __post_init__(self) -> None:
        # What is no config is refused with the file.
        _ = self.outline

    @cached_property
    def outline(self) -> RunOutline:
        """What of the config is known without its classes."""
        return plain_from_json(self.config, RunOutline, "config", more=True)

    @property
    def ties(self) -> Literal["expected", "mean"]:
        """What the run's own figures are where candidates tie."""
        return "mean" if self.outline.evaluation.get("ties") == "mean" else "expected"


# summary.json


@dataclass(frozen=True, kw_only=True)
class UsersRecord:
    """Users of the test part."""

    evaluated: int
    """Those who have a held-out item."""
    not_evaluated: int
    """Those whose history is too short for one."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage ended."""

    epoch: int | None
    """Epochs completed at the best validation; None: there was none."""
    value: float | None
    """The selection metric there."""
    epochs: int
    """Epochs completed."""
    steps: int
    """Optimizer steps completed."""
    skipped: int
    """Those of them that were left out because a loss or gradient was not finite."""


@dataclass(frozen=True, kw_only=True)
class CarriedRecord:
    """Where a stage's initial weights came from."""

    moved: Mapping[str, tuple[str, ...]]
    """By source, the parameters that were taken from it."""
    new: tuple[str, ...]
    """Parameters that no source had."""
    left: tuple[str, ...]
    """Parameters of a source that had no place here."""
    rows: Mapping[str, Mapping[str, int]]
    """Where vocabularies differed: counts of items and of attributes."""


@dataclass(frozen=True, kw_only=True)
class CostRecord:
    """What a run took."""

    parameters: int
    """Trained numbers."""
    seconds: float
    """Wall time of all stages, over all continuations."""
    shared_seconds: float | None = None
    """The part of it that other runs spent, on stages that were taken over."""
    items: int | None = None
    """Tokens trained on; None: a ranker that only counts."""


@dataclass(frozen=True, kw_only=True)
class CoverageRecord:
    """What the attributes of a corpus cover."""

    items: int
    """Number of items."""
    items_without: int
    """Items that have no attribute."""
    attributes: int
    """Number of attributes."""
    never_seen: int
    """Attributes that stand on no training item."""


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """What became of a key of a foreign file, or where it came from."""

    key: str
    """Its name in the file."""
    shape: tuple[int, ...]
    """Its tensor's shape."""
    place: str
    """Where it went or came from."""


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """The foreign file that a run was made from."""

    file: str
    """Its name, without its folder."""
    sha256: str
    """Its checksum."""
    keys: tuple[KeyRecord, ...]
    """In the file's order."""
    remarks: tuple[str, ...]
    """What else a person should know."""


@dataclass(frozen=True, kw_only=True)
class FloorRecord:
    """Popularity on a run's test, and the run held against it."""

    test: Mapping[str, Mapping[str, float]]
    """Popularity's metrics by candidate set."""
    candidates: str
    """The candidate set of the comparison."""
    metric: str
    """Its metric."""
    difference: float
    """The run minus popularity, a mean over users."""
    low: float
    """Lower end of the difference's 95 % bootstrap interval over users."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True)
class RunSummary(Record):
    """summary.json, which a run has when it has ended."""

    FILE: ClassVar[str] = "summary.json"
    status: Literal["finished"] = "finished"
    """Always the same."""
    hash: str
    """As in config.json."""
    fingerprint: str
    """As in config.json."""
    protocol: Mapping[str, object]
    """What another result must share to be compared with the first one of `test`."""
    users: UsersRecord
    """How many were evaluated."""
    ties: Literal["expected", "mean"]
    """What the figures are where candidates tie."""
    val: Mapping[str, float]
    """Metrics of the validation part under full ranking; empty: nothing was held out for it."""
    test: Mapping[str, Mapping[str, float]]
    """Metrics of the test part by candidate set."""
    missed_share: float
    """Share of the test's questions whose answer had no chance, having been seen before."""
    popularity: FloorRecord | None = None
    """Popularity on the same test; None: it was not ranked beside the run."""
    attributes: CoverageRecord | None = None
    """What attributes cover; None: nothing in the run uses them."""
    best: Mapping[str, StageResult]
    """How each stage ended."""
    carried: Mapping[str, CarriedRecord] = field(default_factory=dict)
    """By stage that did not begin from scratch, where its weights came from."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """By stage that was taken over, the run that trained it, relative to this run's folder."""
    cost: CostRecord
    """What it took."""
    notes: tuple[str, ...] = ()
    """What a reader of the figures must know, such as that a selection metric never moved."""
    imported: ImportRecord | None = None
    """The foreign file that the weights came from; None: they were trained here."""
    versions: Mapping[str, str]
    """Of Python and of the packages that computed the figures."""


# Other files of a run


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Record):
    """failed.json: how a run of a study failed."""

    FILE: ClassVar[str] = "failed.json"
    hash: str
    """The run's, as in config.json."""
    error: str
    """The error's class and message."""
    traceback: str
    """Where it was raised; empty: the process was killed."""
    when: str
    """In UTC."""


@dataclass(frozen=True, kw_only=True)
class NonFiniteShare:
    """What one process had of a step that was not finite."""

    rank: int
    """The process's."""
    not_finite: tuple[str, ...]
    """Its losses that were not finite."""
    rows: tuple[int, ...]
    """Rows of its batch."""
    users: tuple[int, ...]
    """Users of those rows."""
    gradients: tuple[str, ...] | None = None
    """Parameters whose gradients were not finite; None: not asked."""


@dataclass(frozen=True, kw_only=True)
class NonFiniteRecord(Record):
    """nonfinite.json: the step that stopped a stage."""

    FILE: ClassVar[str] = "nonfinite.json"
    stage: str
    """The stage's name."""
    step: int
    """Its number."""
    epoch: int
    """Epochs completed."""
    shares: tuple[NonFiniteShare, ...]
    """Of every process."""


@dataclass(frozen=True, kw_only=True)
class OriginRecord(Record):
    """shared.json, in the folder of a stage that another run has trained."""

    FILE: ClassVar[str] = "shared.json"
    run: str
    """That run, relative to this one's folder."""

    def __post_init__(self) -> None:
        parts = self.run.split("/")
        ups = len(list(takewhile(lambda part: part == "..", parts)))
        rest = parts[ups:]
        if not (1 <= ups <= 3 and 1 <= len(rest) <= ups and all(map(is_file_name, rest))):
            raise InputError(
                f"run is {self.run!r:.100}; allowed: another run of the study, as ../../CELL/SEED"
            )


@dataclass(frozen=True, kw_only=True)
class WandbRecord(Record):
    """wandb.json: where the run was last mirrored to."""

    FILE: ClassVar[str] = "wandb.json"
    id: str
    """The W&B run's id."""
    project: str | None = None
    """Its project."""
    entity: str | None = None
    """Its user or team."""
    mode: str | None = None
    """online or offline."""
    url: str | None = None
    """Its page."""


# study.json


@dataclass(frozen=True, kw_only=True)
class StudyRecord(Record):
    """study.json: what a study asks, and which runs answer it."""

    FILE: ClassVar[str] = "study.json"
    REMEDY: ClassVar[str] = (
        "remove it, and the study's command writes it anew: finished runs are not repeated"
    )
    name: str
    """The study's name, which is its folder's."""
    question: str
    """What the tables answer."""
    base: str
    """The cell that others are compared with."""
    metrics: tuple[str, ...]
    """Columns of the tables."""
    compared: str
    """The metric that decides."""
    budget: str | None
    """What every run spends; None: as much as its config says."""
    cells: tuple[str, ...]
    """Names of the cells, the base among them."""
    objectives: tuple[str, ...] = ()
    """Keys of all objectives of all cells."""
    changes: Mapping[str, Mapping[str, tuple[object, object]]]
    """By cell and dotted field, the base's value and the cell's, as JSON values."""
    seeds: tuple[int, ...]
    """Seeds of all runs."""
    corpora: tuple[str, ...]
    """Names of the corpora."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """By cell, the hash of its config: runs of a cell that has changed are no longer wanted."""
    runs: Mapping[str, Mapping[str, Mapping[str, str]]]
    """By corpus, cell and seed, the hash of the run that is wanted."""
    command: str
    """The command line that runs the study, or what is left of it."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.corpora, *self.cells):
            if not is_file_name(name):
                raise InputError(f"it names {name!r:.80}, which cannot be the name of a folder")
        if self.base not in self.cells or self.compared not in self.metrics:
            raise InputError(
                f"its base is {self.base!r:.80} and it compares {self.compared!r:.80}, which are "
                "not among its cells and metrics"
            )
        wanted = [seed for cells in self.runs.values() for own in cells.values() for seed in own]
        if not all(map(is_seed, (*wanted, *map(str, self.seeds)))):
            raise InputError("a seed is a whole number from 0 on, of 64 bits")

    def seeds_of(self, corpus: str, cell: str) -> dict[int, str]:
        """By seed, ascending, the hash of the run of a cell that is wanted."""
        wanted = self.runs.get(corpus, {}).get(cell, {})
        return {seed: wanted[str(seed)] for seed in sorted(map(int, wanted))}


def is_seed(text: str) -> bool:
    """Whether a text is a seed, as a folder is called by it."""
    return re.fullmatch("0|[1-9][0-9]{0,19}", text) is not None and int(text) < 1 << 64


def read_record(folder: Path, kind: type[Kind], below: str = "") -> Kind | None:
    """What a file of a folder says, or one of the folder `below` in it; None: it is not there.

    `InputError` names the file and the field that is wrong, and is raised for a link that leads
    out of `folder`.
    """
    path = own_file(folder, f"{below}/{kind.FILE}" if below else kind.FILE)
    if not path.exists():
        return None
    stored = read_json(path, kind.REMEDY)
    config = stored.get("config")
    if kind is RunRecord and isinstance(config, dict) and is_old_form(config.get("class")):
        raise InputError(f"{path} names its class {config['class']!r:.100}: {OLD_FORM}")
    try:
        return plain_from_json(stored, kind)
    except InputError as error:
        raise InputError(
            f"{path} is damaged or of another program or version ({error}); {kind.REMEDY}"
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Write a record to its file, whole or not at all."""
    write_json(folder / record.FILE, plain_to_json(record))

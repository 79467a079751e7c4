"""The JSON files that runs and studies write: a frozen dataclass for each, with the same names.

`read_record` reads a file as untrusted input and checks it once, so that code which has a record
need not check it again. A field that a later version has added has a default, which says what a
file without it means.
"""

from __future__ import annotations

import math
import re
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from research.config import OLD_FORMAT_MESSAGE, is_old_format, record_from_json, record_to_json
from research.errors import InputError
from research.storage.evaluation_records import FloorRecord, QuestionsRecord
from research.storage.json_files import read_json, write_json
from research.storage.untrusted import file_inside, is_file_name

Kind = TypeVar("Kind", bound="Record")
# A report goes through all combinations of levels that a study.json names.
MAX_COMBINATIONS = 10_000


class Record(ABC):
    """Abstract: the whole content of a JSON file."""

    FILE: ClassVar[str]
    """The file's name."""
    REMEDY: ClassVar[str] = "remove it, and the command that began the run writes it anew"
    """What to do about a damaged file, for error messages."""


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
    """The options of `prepare` that decide which events the corpus has, and in which order, by
    name."""
    options: Mapping[str, object] = field(default_factory=dict)
    """All options of `prepare` that the fingerprint covers, by name, which name no file; empty: an
    earlier version did not record them."""
    events: str | None = None
    """`Corpus.events_digest`, which says whether two corpora have the same events; None: an earlier
    version wrote the record."""


@dataclass(frozen=True, kw_only=True)
class StartRecord:
    """What a run starts from; all fields are None if it starts from scratch."""

    folder: str | None = None
    """The earlier run's folder; None: from scratch."""
    stage: str | None = None
    """The name of the earlier run's stage; None: from scratch."""
    sha256: str | None = None
    """Checksum of that stage's weights; None: from scratch."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine on which the main process ran; its network name is private and not recorded."""

    platform: str
    """Operating system, its version, and the architecture."""
    cpu: str
    """The processor's model."""
    cores: int
    """Number of CPU cores of the machine."""
    accelerator: str | None = None
    """The accelerator's model; None: the CPU computed."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """By which code, on which machine and by which command a run, or a part of it, was done.

    An entry without values is of a version of the code that recorded none of this.
    """

    begun: str | None = None
    """When this was first so, in UTC; None: not recorded."""
    commit: str | None = None
    """The git commit of the code; None: the code is in no checkout, or there is no git."""
    clean: bool | None = None
    """Whether the checkout had no change and no new Python file; None: not known, as above."""
    machine: Machine | None = None
    """The machine of the main process; None: not recorded."""
    processes: int | None = None
    """Number of processes; None: not recorded."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and of the packages that compute, by name."""
    command: str | None = None
    """The command line, without the home folder's name and without keys; None: not recorded."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveOutline:
    """The part of a stored objective's config that can be read without its class."""

    weight: float
    """The objective's weight in the stage's loss."""


@dataclass(frozen=True, kw_only=True)
class StageOutline:
    """The part of a stored stage's config that can be read without its classes."""

    name: str
    """The stage's name."""
    objectives: Mapping[str, ObjectiveOutline]
    """The stage's objectives, by key."""

    def __post_init__(self) -> None:
        if not is_file_name(self.name):
            raise InputError(f"name is {self.name!r:.80}, which cannot be the name of a folder")


@dataclass(frozen=True, kw_only=True)
class RunOutline:
    """The part of a stored `RunConfig` that can be read without its classes.

    The classes may be somebody else's, and are not imported to show a run.
    """

    corpus: str
    """The corpus's folder or name."""
    stages: tuple[StageOutline, ...]
    """The stages, in order; empty: a ranker that only counts."""
    encoder: Mapping[str, object]
    """The encoder's config, as JSON."""
    split: Mapping[str, object]
    """The split's config, as JSON."""
    evaluation: Mapping[str, object]
    """The config of the evaluation, as JSON."""
    ranker: Mapping[str, object] | None = None
    """The config of a ranker that only counts, as JSON; None: the last stage ranks."""
    start_from: str | None = None
    """The earlier run that this one starts from; None: from scratch."""
    seed: int = 0
    """The run's seed."""
    training_share: float = 1.0
    """Share of the users who are trained on."""

    def __post_init__(self) -> None:
        if bool(self.stages) == (self.ranker is not None):
            raise InputError("a run has either stages or a counting ranker, and not both")

    @property
    def is_seeded(self) -> bool:
        """Whether the seed changes anything: see `RunConfig.is_seeded`."""
        return bool(self.stages) or self.training_share < 1.0


@dataclass(frozen=True, kw_only=True)
class ExtensionRecord:
    """An extension of a run: a stage went on in the same folder, beyond its earlier limit."""

    hash: str
    """The run hash before the extension."""
    stage: str
    """The name of the stage that went on."""
    epoch: int
    """Epochs that the stage had completed; one that a limit cut short counts."""
    step: int
    """Optimizer steps that the stage had completed."""
    ended: bool
    """Whether the stage had ended; otherwise it had been interrupted."""
    tested: bool
    """Whether the test part had been ranked before."""
    limits: Mapping[str, tuple[object, object]]
    """The earlier and the later limit, by dotted field."""


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """config.json: what a run is; it is written before anything is trained."""

    FILE: ClassVar[str] = "config.json"
    hash: str
    """The run hash, of all that decides the run's result: the same runs have the same hash."""
    fingerprint: str
    """Fingerprint of the corpus, without which item ids mean nothing."""
    dataset: DatasetRecord
    """Name, sizes and filters of the corpus."""
    start: StartRecord
    """What the run starts from."""
    stages: Mapping[str, str]
    """The hash of all that decides its weights, by stage."""
    config: Mapping[str, object]
    """The `RunConfig` as JSON, which `config.from_json` reads."""
    provenance: tuple[Provenance, ...] = ()
    """How the run was begun and continued, in order; entries that differ in time alone are left
    out."""
    extensions: tuple[ExtensionRecord, ...] = ()
    """The extensions of the run, in order."""

    def __post_init__(self) -> None:
        # A config that is not of the right form is refused when the file is read.
        _ = self.outline

    @cached_property
    def outline(self) -> RunOutline:
        """The part of the config that can be read without its classes."""
        return record_from_json(self.config, RunOutline, "config", more=True)

    @property
    def ties(self) -> Literal["expected", "mean"]:
        """What the run's metrics are where candidates tie: see `EvaluationConfig.ties`."""
        return "mean" if self.outline.evaluation.get("ties") == "mean" else "expected"


# summary.json


@dataclass(frozen=True, kw_only=True)
class UsersRecord:
    """How many users the test part has."""

    evaluated: int
    """Number of users who have a held-out item."""
    not_evaluated: int
    """Number of users who should have one but cannot: too short a history, or nothing on one side
    of the split's time cut."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """A stage's best validation, and how many epochs and optimizer steps it took in all."""

    epoch: int | None
    """Epochs completed at the best validation; None: the stage had no validation."""
    value: float | None
    """The selection metric at the best validation; None: the stage had none."""
    epochs: int
    """Epochs completed."""
    steps: int
    """Optimizer steps completed, skipped ones too."""
    skipped: int
    """Optimizer steps that changed nothing because a loss or gradient was not finite."""


@dataclass(frozen=True, kw_only=True)
class CarriedRecord:
    """Where a stage's initial weights came from."""

    moved: Mapping[str, tuple[str, ...]]
    """Names of the parameters that were copied, by source (a stage or an earlier run)."""
    new: tuple[str, ...]
    """Names of parameters that no source had: they began from initial values."""
    left: tuple[str, ...]
    """Names of parameters of a source that the stage does not have."""
    rows: Mapping[str, Mapping[str, int]]
    """Numbers of items and of attributes that were matched by raw name, new, and left behind; empty
    unless the vocabularies differed."""


@dataclass(frozen=True, kw_only=True)
class StageCostRecord:
    """What a stage cost, in this run or in the one that it was copied from."""

    seconds: float
    """Wall time of training and validation, over all continuations, in seconds."""
    items: int
    """Tokens trained on."""
    parameters: int
    """Number of parameters of the stage's model, each number counted."""
    validation_seconds: float | None = None
    """The part of `seconds` that validations took; None: it was not measured."""
    checkpoint_seconds: float | None = None
    """The part of `seconds` that writing checkpoints took; None: it was not measured."""
    peak_bytes: int | None = None
    """Most memory that the main process held in the stage, on its accelerator or else resident;
    None: it was not measured."""


@dataclass(frozen=True, kw_only=True)
class CostRecord:
    """What a run cost."""

    parameters: int
    """Number of parameters of the last stage's model, each number counted."""
    seconds: float
    """Wall time of training and validation in all stages, over all continuations, in seconds."""
    shared_seconds: float | None = None
    """The part of `seconds` that other runs spent, on stages that were copied from them; None: the
    run trained no stage."""
    items: int | None = None
    """Tokens trained on, in all stages; None: a ranker that only counts."""
    stages: Mapping[str, StageCostRecord] | None = None
    """What each stage cost, by its name; None: an earlier version did not record it."""
    evaluation_seconds: float | None = None
    """Wall time of the final evaluation in seconds, which is no part of `seconds`; None: an earlier
    version did not measure it."""
    evaluation_peak_bytes: int | None = None
    """Most memory that the main process held in the final evaluation, as for a stage; None: it was
    not measured."""


@dataclass(frozen=True, kw_only=True)
class CoverageRecord:
    """How many items of a corpus have attributes, and how many attributes are trained on."""

    items: int
    """Number of items."""
    items_without: int
    """Items that have no attribute."""
    attributes: int
    """Number of attributes."""
    never_seen: int
    """Attributes that no item of the training part has."""


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A tensor of a foreign state dict, and what it is here."""

    key: str
    """The tensor's key in the file."""
    shape: tuple[int, ...]
    """The tensor's shape in the file."""
    place: str
    """The parameter, and its rows, that it was imported into or exported from, in words."""


@dataclass(frozen=True, kw_only=True)
class ImportRecord:
    """The foreign file that a run was imported from."""

    file: str
    """The file's name, without its folder."""
    sha256: str
    """The file's checksum."""
    keys: tuple[KeyRecord, ...]
    """Every tensor of the file, in its order."""
    remarks: tuple[str, ...]
    """Remarks for the reader, such as that tensors were rounded."""


@dataclass(frozen=True, kw_only=True)
class RunSummary(Record):
    """summary.json: the results of a run; only a finished run has it."""

    FILE: ClassVar[str] = "summary.json"
    status: Literal["finished"] = "finished"
    """Always "finished", for other programs that read the file."""
    hash: str
    """The run hash, as in config.json."""
    fingerprint: str
    """Fingerprint of the corpus, as in config.json."""
    protocol: Mapping[str, object]
    """The protocol of the first candidate set in `test`, or of the validation part where the test
    was not ranked: results compare only under the same one."""
    users: UsersRecord
    """How many users were evaluated."""
    ties: Literal["expected", "mean"]
    """What the metrics are where candidates tie: see `EvaluationConfig.ties`."""
    val: Mapping[str, float]
    """Metrics of the validation part under full ranking, by name; empty: it has no held-out item.
    """
    test: Mapping[str, Mapping[str, float]]
    """Metrics of the test part, by candidate set and name; empty: the run leaves it alone."""
    lists: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the lists recommended in the test part, by name; empty: the config has none."""
    missed_share: float
    """Share (0 to 1) of the held-out items under `protocol` that were excluded as seen."""
    questions: Mapping[str, QuestionsRecord] = field(default_factory=dict)
    """How many held-out items are asked for in doubt, by part that was ranked, "test" first; empty:
    an earlier version did not count them."""
    popularity: FloorRecord | None = None
    """Popularity on the same test; None: it was not ranked beside the run."""
    recent_popularity: FloorRecord | None = None
    """Popularity of the last days of training on the same test; None: it was not ranked, or the
    split is not at points in time."""
    attributes: CoverageRecord | None = None
    """How many items and attributes are covered; None: no objective uses attributes."""
    best: Mapping[str, StageResult]
    """How each stage ended, by its name."""
    carried: Mapping[str, CarriedRecord] = field(default_factory=dict)
    """Where the initial weights came from, by stage that did not begin from scratch."""
    shared: Mapping[str, str] = field(default_factory=dict)
    """The run that trained it, relative to this run's folder, by stage that was copied."""
    cost: CostRecord
    """Parameters, wall time and tokens of the run."""
    notes: tuple[str, ...] = ()
    """What a reader of the figures must know, such as that a selection metric never changed."""
    imported: ImportRecord | None = None
    """The foreign file that the weights came from; None: they were trained here."""
    versions: Mapping[str, str]
    """Versions of Python and of the packages that computed the figures, by name."""

    @property
    def floors(self) -> tuple[FloorRecord, ...]:
        """What the run was compared with: popularity, and that of the last days of training."""
        floors = (self.popularity, self.recent_popularity)
        return tuple(floor for floor in floors if floor is not None)

    @property
    def first_figures(self) -> tuple[str, str, Mapping[str, float]]:
        """A part, a candidate set and its metrics: of the test, or else of the validation part."""
        if self.test:
            return ("test", *next(iter(self.test.items())))
        return "validation", "full", self.val


# Other files of a run


@dataclass(frozen=True, kw_only=True)
class FailureRecord(Record):
    """failed.json: how a run of a study failed."""

    FILE: ClassVar[str] = "failed.json"
    hash: str
    """The run hash, as in config.json."""
    error: str
    """The error's class and message."""
    traceback: str
    """The error's traceback; empty: the process was killed."""
    when: str
    """When the run failed, in UTC."""


@dataclass(frozen=True, kw_only=True)
class OriginRecord(Record):
    """shared.json: the run that trained a stage; it is in the folder of a stage that was copied."""

    FILE: ClassVar[str] = "shared.json"
    run: str
    """The folder of the run that trained the stage, relative to this run's folder."""

    def __post_init__(self) -> None:
        parts = self.run.split("/")
        ups = len(list(takewhile(lambda part: part == "..", parts)))
        names = parts[ups:]
        if not (1 <= ups <= 3 and 1 <= len(names) <= ups and all(map(is_file_name, names))):
            raise InputError(
                f"run is {self.run!r:.100}; allowed: another run of the study, as ../../CELL/SEED"
            )


@dataclass(frozen=True, kw_only=True)
class WandbRecord(Record):
    """wandb.json: the W&B run to which the run was last mirrored; a field is None if not known."""

    FILE: ClassVar[str] = "wandb.json"
    id: str
    """The W&B run's id."""
    project: str | None = None
    """The W&B project."""
    entity: str | None = None
    """The W&B user or team."""
    mode: str | None = None
    """online or offline."""
    url: str | None = None
    """The URL of the W&B run's page."""


# study.json


@dataclass(frozen=True, kw_only=True)
class StudyRecord(Record):
    """study.json: what a study compares, and the runs that it needs."""

    FILE: ClassVar[str] = "study.json"
    REMEDY: ClassVar[str] = (
        "remove it, and the study's command writes it anew: finished runs are not repeated"
    )
    name: str
    """The study's name, and the name of its folder."""
    question: str
    """The question that the study answers, in words."""
    base: str
    """The name of the base cell, with which the others are compared."""
    metrics: tuple[str, ...]
    """The metrics in the tables."""
    compared: str
    """The metric by which cells are compared to the base: one of `metrics`."""
    budget: str | None
    """The budget that every run gets, in words; None: each run's config says how long it trains."""
    cells: tuple[str, ...]
    """Names of the cells, the base among them."""
    objectives: tuple[str, ...] = ()
    """Keys of the objectives that occur in any cell."""
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of the levels of each factor that the cells cross, by factor."""
    levels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The level of every factor, by cell and factor. A cell that has none, or one that `factors`
    does not name, stands beside the crossed ones."""
    changes: Mapping[str, Mapping[str, tuple[object, object]]]
    """The base's value and the cell's, as JSON values, by cell and dotted field; `tuned` for one
    that was tuned, so that it may differ by corpus."""
    seeds: tuple[int, ...]
    """The seeds of the study's runs."""
    corpora: tuple[str, ...]
    """Names of the corpora."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """The hash of a cell's config, by cell: runs of a cell that has changed are not part of the
    study any more."""
    corpus_marks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The hash of the config that a cell has on one corpus alone, such as one with values that were
    tuned on it, by corpus and cell."""
    runs: Mapping[str, Mapping[str, Mapping[str, str]]]
    """The run hash of each run that the study needs, by corpus, cell and seed."""
    command: str
    """The command line that runs the study, or continues it."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.corpora, *self.cells):
            if not is_file_name(name):
                raise InputError(f"it names {name!r:.80}, which cannot be the name of a folder")
        if self.base not in self.cells or self.compared not in self.metrics:
            raise InputError(
                f"its base is {self.base!r:.80} and it compares {self.compared!r:.80}, which are "
                "not among its cells and metrics"
            )
        self._check_levels()
        seeds = [
            seed
            for cells in self.runs.values()
            for runs_of_cell in cells.values()
            for seed in runs_of_cell
        ]
        if not all(map(is_seed, (*seeds, *map(str, self.seeds)))):
            raise InputError("a seed is a whole number from 0 on, of 64 bits")

    def _check_levels(self) -> None:
        """Raise `InputError` unless a cell with levels has one of each factor, as no other has."""
        for factor, names in self.factors.items():
            if len(set(names)) < max(1, len(names)):
                raise InputError(f"factors.{factor!s:.80} must name one level or more, each once")
        if math.prod(map(len, self.factors.values())) > MAX_COMBINATIONS:
            raise InputError(f"factors have more than {MAX_COMBINATIONS:,} combinations of levels")
        for cell, levels in self.levels.items():
            if cell not in self.cells or levels.keys() != self.factors.keys():
                raise InputError(
                    f"levels.{cell!s:.80} has levels of {', '.join(levels)!s:.100}; it must be "
                    f"one of the cells, with levels of {', '.join(self.factors)!s:.100}"
                )
        if len({frozenset(levels.items()) for levels in self.levels.values()}) < len(self.levels):
            raise InputError("levels has two cells with the same levels")

    def seeds_of(self, corpus: str, cell: str) -> dict[int, str]:
        """The run hashes of a cell's runs on a corpus, by seed, ascending."""
        hashes = self.runs.get(corpus, {}).get(cell, {})
        return {seed: hashes[str(seed)] for seed in sorted(map(int, hashes))}


def is_seed(text: str) -> bool:
    """Whether a text is a seed (0 to 2^64 - 1), written as in the name of a run's folder."""
    return re.fullmatch("0|[1-9][0-9]{0,19}", text) is not None and int(text) < 1 << 64


def read_record(folder: Path, kind: type[Kind], below: str = "") -> Kind | None:
    """Read the record of class `kind` from `folder`, or its subfolder `below`; None: no such file.

    `InputError` names the file and the field that is wrong; it is also raised for a link that leads
    out of `folder`, and for a config.json of an earlier version of the code.
    """
    path = file_inside(folder, f"{below}/{kind.FILE}" if below else kind.FILE)
    if not path.exists():
        return None
    stored = read_json(path, kind.REMEDY)
    config = stored.get("config")
    if kind is RunRecord and isinstance(config, dict) and is_old_format(config.get("class")):
        raise InputError(f"{path} names its class {config['class']!r:.100}: {OLD_FORMAT_MESSAGE}")
    try:
        return record_from_json(stored, kind)
    except InputError as error:
        raise InputError(
            f"{path} is damaged or of another program or version ({error}); {kind.REMEDY}"
        ) from error


def write_record(folder: Path, record: Record) -> None:
    """Write a record to its file in `folder`, atomically."""
    write_json(folder / record.FILE, record_to_json(record))

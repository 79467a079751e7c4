"""What is sent to W&B of a run: its id, name, tags, config, rows and summary.

All of it is computed from the run folder, so it is the same live and in a later `sync`. One run
folder is one W&B run, however many stages it has. Its rows are the lines of metrics.jsonl; a row's
W&B step is the line's number, as that is unique and ascending, and metrics name other axes to be
drawn over. Paths, keys and the environment are not sent. This file does not import W&B's client.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from research.config import record_to_json
from research.errors import InputError
from research.storage.records import (
    Provenance,
    RunOutline,
    RunRecord,
    RunSummary,
    StudyRecord,
    WandbRecord,
    read_record,
)
from research.storage.run_folder import RunFolder, Scalar
from research.storage.stage_origin import stage_origin

MAX_NAME_LENGTH, MAX_TAG_LENGTH = 128, 64
_NOT_FINITE = ("inf", "-inf", "nan")


@dataclass(frozen=True)
class RunLocation:
    """The names that identify a run: `<study>/<corpus>/<cell>/<seed>`."""

    study: str
    corpus: str
    cell: str
    seed: int

    @classmethod
    def of(cls, path: Path, record: RunRecord) -> RunLocation:
        """The names in the run folder's path, if a study laid it out; else study `single`."""
        corpus, seed = record.dataset.name, record.outline.seed
        *_, study, above, cell, last = ("", "", "", *path.absolute().parts)
        if study and (above, last) == (corpus, str(seed)):
            return cls(study, corpus, cell, seed)
        return cls("single", corpus, path.absolute().name, seed)


def run_id(path: Path) -> str:
    """The W&B id of the run in a folder: the one it was mirrored under, else a hash of 24 digits.

    That is made of the run hash and the run's location, so doing the same run again in the same
    folder continues the same W&B run. Raises `InputError` for a folder that is no run's.
    """
    mirrored, record = read_record(path, WandbRecord), read_record(path, RunRecord)
    if mirrored is not None:
        return mirrored.id
    if record is None:
        raise InputError(f"{path} has no {RunRecord.FILE}: it is not a run folder")
    location = RunLocation.of(path, record)
    parts = [record.hash, location.study, location.corpus, location.cell, location.seed]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def job_type(outline: RunOutline) -> str:
    """W&B's job type of a run.

    "baseline" for a counting ranker, "finetune" when its last stage begins with trained weights (of
    an earlier stage or run), else "train".
    """
    if outline.ranker is not None:
        return "baseline"
    several = len(outline.stages) > 1 or outline.start_from is not None
    return "finetune" if several else "train"


@dataclass(frozen=True)
class DisplayNames:
    """The names under which W&B shows a run."""

    group: str
    """The study's name."""
    job_type: str
    name: str

    @classmethod
    def of(cls, path: Path, record: RunRecord) -> DisplayNames:
        """Group: the study's name, or "single" outside a study; name: `<cell>-s<seed>-<job type>`.

        Each has at most 128 characters: the group keeps its first ones, the name its last ones.
        """
        location, job = RunLocation.of(path, record), job_type(record.outline)
        name = f"{location.cell}-s{location.seed}-{job}"
        return cls(location.study[:MAX_NAME_LENGTH], job, name[-MAX_NAME_LENGTH:])


def tags_of(path: Path, record: RunRecord) -> list[str]:
    """The run's W&B tags: its data set, its model, its split (`proto`) and its cell.

    Runs of a study are also tagged with the base cell that they are compared with (`base:NAME`),
    and those of the base itself with `baseline`.
    """
    outline, location = record.outline, RunLocation.of(path, record)
    study = study_of(path, location)
    model = _class_name(outline.ranker or outline.encoder).removesuffix("Config").lower()
    tags = [
        f"dataset:{record.dataset.name}",
        f"model:{model}",
        f"proto:{_class_name(outline.split)}",
        f"cell:{location.cell}",
    ]
    if study is not None:
        tags += [f"base:{study.base}", *["baseline"] * (study.base == location.cell)]
    return [tag[:MAX_TAG_LENGTH] for tag in tags]


def config_of(
    path: Path, record: RunRecord, summary: RunSummary | None, *, silent: bool = False
) -> dict[str, object]:
    """The run's config as W&B stores it, nested, with `summary` adding what is known at the end.

    With `silent` it says nothing of code, machine and versions.
    `objectives` has the weight of every objective of the study; 0.0: the run does not use it.
    Raises `InputError` when a file of the run or of its study is damaged.
    """
    location, outline = RunLocation.of(path, record), record.outline
    study = study_of(path, location)
    stages = record.config["stages"]
    weights = {
        stage.name: {key: objective.weight for key, objective in stage.objectives.items()}
        for stage in outline.stages
    }
    keys = dict.fromkeys(
        (*(() if study is None else study.objectives), *chain.from_iterable(weights.values()))
    )
    weights = {stage: dict.fromkeys(keys, 0.0) | used for stage, used in weights.items()}
    config: dict[str, object] = {
        "dataset": {**record_to_json(record.dataset), "fingerprint": record.fingerprint},
        "model": {
            **_fields_of(outline.ranker or outline.encoder),
            **({} if summary is None else {"parameters": summary.cost.parameters}),
        },
        # An objective's weight in the last stage that uses it.
        "objectives": {
            key: next((used[key] for used in reversed(weights.values()) if used[key]), 0.0)
            for key in keys
        },
        "stages": {
            stage.name: {**_fields_of(stored), "weights": weights[stage.name]}
            for stage, stored in zip(outline.stages, stages if isinstance(stages, list) else [])
        },
        "items": _value_of(record.config.get("items")),
        "split": _fields_of(outline.split),
        "evaluation": _fields_of(outline.evaluation),
        "ablation": ablation_of(location, study),
        "seed": location.seed,
        "hash": record.hash,
        "start": record_to_json(replace(record.start, folder=None)),
        "shared": {stage: run_id(origin) for stage, origin in origins_of(path, record).items()},
    }
    if not silent:
        config |= provenance_fields(record, summary)
    return {name: _without_paths(part) for name, part in config.items()}


def provenance_fields(record: RunRecord, summary: RunSummary | None) -> dict[str, object]:
    """By which code, on which machine and with which versions the run was last continued."""
    latest = record.provenance[-1] if record.provenance else Provenance()
    versions = latest.versions if summary is None else summary.versions
    machine = {} if latest.machine is None else record_to_json(latest.machine)
    return {
        "env": dict(versions),
        "code": {"commit": latest.commit, "clean": latest.clean},
        "machine": {**machine, "processes": latest.processes},
    }


def study_of(path: Path, location: RunLocation) -> StudyRecord | None:
    """The study.json of the study that a run belongs to; None: it belongs to none."""
    folder = path.absolute().parent.parent.parent
    return read_record(folder, StudyRecord) if location.study == folder.name else None


def ablation_of(location: RunLocation, study: StudyRecord | None) -> dict[str, object]:
    """The run's study and cell; with a study.json also the values of its factors."""
    ablation: dict[str, object] = {"id": location.study, "cell": location.cell}
    if study is None:
        return ablation
    factors = factors_of(study, location.cell)
    return {**ablation, "baseline": study.base == location.cell, "factors": factors}


def factors_of(study: StudyRecord, cell: str) -> dict[str, object]:
    """The cell's level of every factor, so that W&B can group all runs of the study by each.

    A cell beside the crossed ones has None for each. In a study that crosses no factors every field
    that any of its cells changes is one, with the value that it has in this cell.
    """
    if study.factors:
        return {**dict.fromkeys(study.factors), **study.levels.get(cell, {})}
    in_base = {
        name: before for changes in study.changes.values() for name, (before, _) in changes.items()
    }
    return {**in_base, **{name: after for name, (_, after) in study.changes.get(cell, {}).items()}}


def origins_of(path: Path, record: RunRecord) -> dict[str, Path]:
    """By stage that was taken over from another run, the folder of that run.

    That run's W&B run has the stage's lines.
    """
    folder = RunFolder(path, writes=False)
    origins = {stage.name: stage_origin(folder, stage.name) for stage in record.outline.stages}
    return {name: path / origin for name, origin in origins.items() if origin is not None}


def axes_of(record: RunRecord) -> dict[str, str]:
    """By pattern of metric names, the metric that is their x axis."""
    names = [stage.name for stage in record.outline.stages]
    return {f"{name}/*": f"{name}/step" for name in names} | {"val/*": "epoch"}


class Rows:
    """Turns the lines of metrics.jsonl into W&B rows; the lines come in order from the first."""

    def __init__(self) -> None:
        self.number = 0
        """Number of lines so far, which is the 0-based number of the next line."""
        self._stage: Scalar | None = None
        self._steps_before, self._last_step = 0, 0

    def row(self, line: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The W&B row of the next line; `global_step` counts optimizer steps over all stages."""
        stage, step = line["stage"], int(line["step"])
        if stage != self._stage:
            self._stage = stage
            self._steps_before, self._last_step = self._steps_before + self._last_step, 0
        self._last_step = max(self._last_step, step)
        self.number += 1
        values = {name: _parse_number(value) for name, value in line.items() if name != "step"}
        total = self._steps_before + step
        return {"global_step": total, f"{stage}/step": step, **values, "stage": stage}


def summary_of(summary: RunSummary) -> dict[str, Scalar]:
    """The W&B summary of a run: `status`, `best/...`, `cost/...` and `test/METRIC`.

    Under other candidates than full ranking a test metric is named `test/CANDIDATES/METRIC`.
    """
    fields: dict[str, Scalar | None] = {"status": summary.status}
    for stage, result in summary.best.items():
        fields |= {f"best/{stage}/{name}": value for name, value in vars(result).items()}
        fields["best/epoch"] = result.epoch
    fields |= {f"best/val/{metric}": value for metric, value in summary.val.items()}
    for candidates, values in summary.test.items():
        within = "" if candidates == "full" else f"{candidates}/"
        fields |= {f"test/{within}{metric}": value for metric, value in values.items()}
    fields |= {f"test/{metric}": value for metric, value in summary.lists.items()}
    for stage, cost in (summary.cost.stages or {}).items():
        fields |= {f"cost/{stage}/{name}": value for name, value in vars(cost).items()}
    fields |= {
        f"cost/{name}": value for name, value in vars(summary.cost).items() if name != "stages"
    }
    return {name: value for name, value in fields.items() if value is not None}


def _class_name(config: Mapping[str, object]) -> str:
    """The class name of a stored config, without its package."""
    return str(config.get("class", "")).rpartition(":")[2]


def _parse_number(value: Scalar) -> Scalar:
    """A logged value, with a non-finite float restored from the text that metrics.jsonl holds."""
    return float(value) if value in _NOT_FINITE else value


def _fields_of(config: Mapping[str, object]) -> dict[str, object]:
    """A stored config as W&B gets it: `kind` with the class name takes the place of `class`."""
    kind: dict[str, object] = {"kind": _class_name(config)} if "class" in config else {}
    return kind | {name: _value_of(part) for name, part in config.items() if name != "class"}


def _value_of(value: object) -> object:
    if isinstance(value, Mapping):
        return _fields_of(value)
    return [_value_of(entry) for entry in value] if isinstance(value, list) else value


def _without_paths(value: object) -> object:
    """The value with every path cut to its last part, as the rest names people and machines.

    A float that is not finite becomes text.
    """
    if isinstance(value, Mapping):
        return {name: _without_paths(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_paths(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    is_path = isinstance(value, str) and (value.startswith(("/", "~", "..")) or "\\" in value)
    return Path(str(value).replace("\\", "/")).name if is_path else value

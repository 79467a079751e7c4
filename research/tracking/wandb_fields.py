"""What W&B is told of a run: a function of the run folder, the same live and in a later `sync`.

One run folder is one W&B run, however many stages. Its rows are the lines of metrics.jsonl, and a
row's W&B step is the line's number, which is unique and grows; axes are named beside it. Of paths,
keys and the environment nothing is told. No W&B client is needed here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from research.config import plain_to_json
from research.errors import InputError
from research.storage.records import (
    RunOutline,
    RunRecord,
    RunSummary,
    StudyRecord,
    WandbRecord,
    read_record,
)
from research.storage.run_folder import RunFolder, Scalar
from research.storage.stage_origin import taken_from

LONGEST_NAME, LONGEST_TAG = 128, 64
_NOT_FINITE = ("inf", "-inf", "nan")


@dataclass(frozen=True)
class Place:
    """What a run is called: `<study>/<corpus>/<cell>/<seed>`."""

    study: str
    corpus: str
    cell: str
    seed: int

    @classmethod
    def of(cls, path: Path, record: RunRecord) -> Place:
        """Where the folder lies, if as a study lays it out; else the study `single`."""
        corpus, seed = record.dataset.name, record.outline.seed
        *_, study, above, cell, last = ("", "", "", *path.absolute().parts)
        if study and (above, last) == (corpus, str(seed)):
            return cls(study, corpus, cell, seed)
        return cls("single", corpus, path.absolute().name, seed)


def run_id(path: Path) -> str:
    """The W&B id of the run in a folder: of its hash and its place, or as it was mirrored before.

    A rerun of the same thing in the same place continues the same W&B run.
    """
    mirrored, record = read_record(path, WandbRecord), read_record(path, RunRecord)
    if mirrored is not None:
        return mirrored.id
    if record is None:
        raise InputError(f"{path} has no {RunRecord.FILE}: it is not a run folder")
    place = Place.of(path, record)
    named = [record.hash, place.study, place.corpus, place.cell, place.seed]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:24]


def job_type(outline: RunOutline) -> str:
    """baseline: it only counts; finetune: it begins with trained weights; else train."""
    if outline.ranker is not None:
        return "baseline"
    several = len(outline.stages) > 1 or outline.start_from is not None
    return "finetune" if several else "train"


@dataclass(frozen=True)
class Named:
    """Under what a run is found."""

    group: str
    """The study."""
    job_type: str
    name: str

    @classmethod
    def of(cls, path: Path, record: RunRecord) -> Named:
        """`<cell>-s<seed>-<job type>` in its study, as long as W&B allows."""
        place, job = Place.of(path, record), job_type(record.outline)
        name = f"{place.cell}-s{place.seed}-{job}"
        return cls(place.study[:LONGEST_NAME], job, name[-LONGEST_NAME:])


def tags_of(record: RunRecord) -> list[str]:
    """Few and stable: which data, which model, which protocol."""
    outline = record.outline
    model = _name(outline.ranker or outline.encoder).removesuffix("Config").lower()
    tags = [f"dataset:{record.dataset.name}", f"model:{model}", f"proto:{_name(outline.split)}"]
    return [tag[:LONGEST_TAG] for tag in tags]


def config_of(path: Path, record: RunRecord, summary: RunSummary | None) -> dict[str, object]:
    """The nested config, with the weight of each objective of its study (0.0: off)."""
    place, outline = Place.of(path, record), record.outline
    study = study_of(path, place)
    stages = record.config["stages"]
    weights = {
        stage.name: {key: objective.weight for key, objective in stage.objectives.items()}
        for stage in outline.stages
    }
    keys = dict.fromkeys(
        (*(() if study is None else study.objectives), *chain.from_iterable(weights.values()))
    )
    weights = {stage: dict.fromkeys(keys, 0.0) | own for stage, own in weights.items()}
    told: dict[str, object] = {
        "dataset": {**plain_to_json(record.dataset), "fingerprint": record.fingerprint},
        "model": {
            **_told(outline.ranker or outline.encoder),
            **({} if summary is None else {"parameters": summary.cost.parameters}),
        },
        # Of a run: an objective's weight in the last stage that has it on.
        "objectives": {
            key: next((each[key] for each in reversed(weights.values()) if each[key]), 0.0)
            for key in keys
        },
        "stages": {
            stage.name: {**_told(stored), "weights": weights[stage.name]}
            for stage, stored in zip(outline.stages, stages if isinstance(stages, list) else [])
        },
        "items": _plain(record.config.get("items")),
        "split": _told(outline.split),
        "evaluation": _told(outline.evaluation),
        "ablation": ablation_of(place, study),
        "seed": place.seed,
        "hash": record.hash,
        "start": plain_to_json(replace(record.start, folder=None)),
        "shared": {stage: run_id(donor) for stage, donor in donors_of(path, record).items()},
    }
    if summary is not None:
        told["env"] = summary.versions
    return {name: _without_paths(part) for name, part in told.items()}


def study_of(path: Path, place: Place) -> StudyRecord | None:
    """The study.json of the study that a run belongs to; None: there is none."""
    folder = path.absolute().parent.parent.parent
    return read_record(folder, StudyRecord) if place.study == folder.name else None


def ablation_of(place: Place, study: StudyRecord | None) -> dict[str, object]:
    """Which cell of which study this is, and what it changes if there is a study.json."""
    told: dict[str, object] = {"id": place.study, "cell": place.cell}
    if study is None:
        return told
    changes = study.changes.get(place.cell, {})
    factors = {field: value for field, (_, value) in changes.items()}
    return {**told, "baseline": study.base == place.cell, "factors": factors}


def donors_of(path: Path, record: RunRecord) -> dict[str, Path]:
    """By stage, the folder of the run that trained it, where that is another: it has logged it."""
    folder = RunFolder(path, writes=False)
    origins = {stage.name: taken_from(folder, stage.name) for stage in record.outline.stages}
    return {name: path / origin for name, origin in origins.items() if origin is not None}


def axes_of(record: RunRecord) -> dict[str, str]:
    """Metrics by pattern, and the axis each is drawn over."""
    names = [stage.name for stage in record.outline.stages]
    return {f"{name}/*": f"{name}/step" for name in names} | {"val/*": "epoch"}


class Rows:
    """Makes rows of lines that come one after another from the first one on."""

    def __init__(self) -> None:
        self.number = 0
        """Lines seen, which is the number of the next one."""
        self._stage: Scalar | None = None
        self._before, self._last = 0, 0

    def row(self, line: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """The next line as W&B is told it; `global_step` counts optimizer steps over all stages."""
        stage, step = line["stage"], int(line["step"])
        if stage != self._stage:
            self._stage, self._before, self._last = stage, self._before + self._last, 0
        self._last = max(self._last, step)
        self.number += 1
        values = {name: _number(value) for name, value in line.items() if name != "step"}
        return {"global_step": self._before + step, f"{stage}/step": step, **values, "stage": stage}


def summary_of(summary: RunSummary) -> dict[str, Scalar]:
    """`status`, `best/...`, `cost/...`, `test/...` (candidates other than all are named in it)."""
    told: dict[str, Scalar | None] = {"status": summary.status}
    for stage, result in summary.best.items():
        told |= {f"best/{stage}/{name}": value for name, value in vars(result).items()}
        told["best/epoch"] = result.epoch
    told |= {f"best/val/{metric}": value for metric, value in summary.val.items()}
    for candidates, values in summary.test.items():
        within = "" if candidates == "full" else f"{candidates}/"
        told |= {f"test/{within}{metric}": value for metric, value in values.items()}
    told |= {f"cost/{name}": value for name, value in vars(summary.cost).items()}
    return {name: value for name, value in told.items() if value is not None}


def _name(config: Mapping[str, object]) -> str:
    """The class of a stored config, without its package."""
    return str(config.get("class", "")).rpartition(":")[2]


def _number(value: Scalar) -> Scalar:
    """metrics.jsonl has values that are not finite as text."""
    return float(value) if value in _NOT_FINITE else value


def _told(config: Mapping[str, object]) -> dict[str, object]:
    """A config's JSON as W&B is told it: classes by their names."""
    named: dict[str, object] = {"kind": _name(config)} if "class" in config else {}
    return named | {name: _plain(part) for name, part in config.items() if name != "class"}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return _told(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _without_paths(value: object) -> object:
    """The same with the last part of every path alone: the rest names people and machines."""
    if isinstance(value, Mapping):
        return {name: _without_paths(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    is_path = isinstance(value, str) and (value.startswith(("/", "~", "..")) or "\\" in value)
    return Path(str(value).replace("\\", "/")).name if is_path else value

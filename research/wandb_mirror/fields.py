"""What W&B is told of a run: a function of the run folder, the same live and in a later `sync`.

One run folder is one W&B run, however many stages. Its rows are the lines of metrics.jsonl, and a
row's W&B step is the line's number, which is unique and grows; axes are named beside it. Of paths,
keys and the environment nothing is told. No W&B client is needed here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

from research.json_files import read_json
from research.sharing import taken_from
from research.tracking import STUDY, RunFolder, Scalar

Nested = Mapping[str, object]
# What the W&B client was told last: id, project, entity, mode, url.
RECORD = "wandb.json"
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
    def of(cls, path: Path, stored: Nested) -> Place:
        """Where the folder lies, if as a study lays it out; else the study `single`."""
        corpus = corpus_of(stored)
        seed = cast(int, _part(stored, "config").get("seed", 0))
        *_, study, above, cell, last = ("", "", "", *path.absolute().parts)
        if study and (above, last) == (corpus, str(seed)):
            return cls(study, corpus, cell, seed)
        return cls("single", corpus, path.absolute().name, seed)


def corpus_of(stored: Nested) -> str:
    """The corpus's name; of a run folder that does not tell it, that of the corpus's folder."""
    named = _part(stored, "dataset").get("name")
    return _text(named or Path(_text(_part(stored, "config")["corpus"])).name)


def run_id(path: Path) -> str:
    """The W&B id of the run in a folder: of its hash and its place, or as it was mirrored before.

    A rerun of the same thing in the same place continues the same W&B run.
    """
    if (path / RECORD).is_file():
        return str(read_json(path / RECORD)["id"])
    stored = read_json(path / "config.json")
    place = Place.of(path, stored)
    named = [stored["hash"], place.study, place.corpus, place.cell, place.seed]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:24]


def job_type(config: Nested) -> str:
    """baseline: it only counts; finetune: it begins with trained weights; else train."""
    if config.get("ranker") is not None:
        return "baseline"
    several = len(cast(Sequence[object], config["stages"])) > 1
    return "finetune" if several or config.get("start_from") is not None else "train"


@dataclass(frozen=True)
class Named:
    """Under what a run is found."""

    group: str
    """The study."""
    job_type: str
    name: str

    @classmethod
    def of(cls, path: Path, stored: Nested) -> Named:
        """`<cell>-s<seed>-<job type>` in its study, as long as W&B allows."""
        place, job = Place.of(path, stored), job_type(_part(stored, "config"))
        name = f"{place.cell}-s{place.seed}-{job}"
        return cls(place.study[:LONGEST_NAME], job, name[-LONGEST_NAME:])


def tags_of(stored: Nested) -> list[str]:
    """Few and stable: which data, which model, which protocol."""
    config = _part(stored, "config")
    ranker = config.get("ranker")
    model = _name(config["encoder"] if ranker is None else ranker).removesuffix("Config").lower()
    tags = [
        f"dataset:{corpus_of(stored)}",
        f"model:{model}",
        f"proto:{_name(config['split'])}",
    ]
    return [tag[:LONGEST_TAG] for tag in tags]


def config_of(path: Path, stored: Nested, summary: Nested | None) -> dict[str, object]:
    """The nested config, with the weight of each objective of its study (0.0: off)."""
    config, place = _part(stored, "config"), Place.of(path, stored)
    stages = cast(Sequence[Nested], config["stages"])
    known = cast(Sequence[str], study_of(path, place).get("objectives", ()))
    weights = {_text(stage["name"]): weights_of(stage) for stage in stages}
    keys = dict.fromkeys((*known, *chain.from_iterable(weights.values())))
    weights = {stage: dict.fromkeys(keys, 0.0) | own for stage, own in weights.items()}
    told: dict[str, object] = {
        "dataset": {
            "name": place.corpus,
            **_part(stored, "dataset"),
            "fingerprint": stored.get("fingerprint"),
        },
        "model": _plain(config["encoder"] if stages else config["ranker"]),
        # Of a run: an objective's weight in the last stage that has it on.
        "objectives": {
            key: next((each[key] for each in reversed(weights.values()) if each[key]), 0.0)
            for key in keys
        },
        "stages": {
            _text(stage["name"]): {
                **cast(dict[str, object], _plain(stage)),
                "weights": weights[_text(stage["name"])],
            }
            for stage in stages
        },
        "items": _plain(config["items"]),
        "split": _plain(config["split"]),
        "evaluation": _plain(config["evaluation"]),
        "ablation": ablation_of(path, place),
        "seed": place.seed,
        "hash": stored["hash"],
        "start": {key: value for key, value in _part(stored, "start").items() if key != "folder"},
        "shared": {stage: run_id(donor) for stage, donor in donors_of(path, stored).items()},
    }
    if summary is not None:
        told["env"] = summary["versions"]
        parameters = _part(summary, "cost")["parameters"]
        told["model"] = {**cast(Nested, told["model"]), "parameters": parameters}
    return cast(dict[str, object], _without_paths(told))


def weights_of(stage: Nested) -> dict[str, float]:
    """The weight of each objective of a stage."""
    own = cast(Mapping[str, Nested], stage["objectives"])
    return {key: cast(float, objective["weight"]) for key, objective in own.items()}


def study_of(path: Path, place: Place) -> Nested:
    """The study.json of the study that a run belongs to; {}: there is none."""
    study = path.absolute().parent.parent.parent / STUDY
    if place.study != study.parent.name or not study.is_file():
        return {}
    return read_json(study)


def ablation_of(path: Path, place: Place) -> dict[str, object]:
    """Which cell of which study this is, and what it changes if there is a study.json."""
    told: dict[str, object] = {"id": place.study, "cell": place.cell}
    known = study_of(path, place)
    if not known:
        return told
    changes = cast(Mapping[str, Mapping[str, Sequence[object]]], known.get("changes", {}))
    factors = {field: values[-1] for field, values in changes.get(place.cell, {}).items()}
    return {**told, "baseline": known.get("base") == place.cell, "factors": factors}


def donors_of(path: Path, stored: Nested) -> dict[str, Path]:
    """By stage, the folder of the run that trained it, where that is another: it has logged it."""
    folder, names = RunFolder(path, writes=False), stage_names(stored)
    origins = {name: taken_from(folder, name) for name in names}
    return {name: path / origin for name, origin in origins.items() if origin is not None}


def stage_names(stored: Nested) -> list[str]:
    """Names of a run's stages, in their order."""
    stages = cast(Sequence[Nested], _part(stored, "config")["stages"])
    return [_text(stage["name"]) for stage in stages]


def axes_of(stored: Nested) -> dict[str, str]:
    """Metrics by pattern, and the axis each is drawn over."""
    return {f"{name}/*": f"{name}/step" for name in stage_names(stored)} | {"val/*": "epoch"}


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


def summary_of(summary: Nested) -> dict[str, Scalar]:
    """`status`, `best/...`, `cost/...`, `test/...` (candidates other than all are named in it)."""
    best = cast(Mapping[str, Mapping[str, Scalar | None]], summary.get("best", {}))
    told: dict[str, Scalar | None] = {"status": _text(summary["status"])}
    for stage, state in best.items():
        told |= {f"best/{stage}/{name}": value for name, value in state.items()}
    if best:
        told["best/epoch"] = list(best.values())[-1].get("epoch")
    val = cast(Mapping[str, Scalar], summary.get("val", {}))
    told |= {f"best/val/{metric}": value for metric, value in val.items()}
    test = cast(Mapping[str, Mapping[str, Scalar]], summary.get("test", {}))
    for candidates, values in test.items():
        within = "" if candidates == "full" else f"{candidates}/"
        told |= {f"test/{within}{metric}": value for metric, value in values.items()}
    cost = cast(Mapping[str, Scalar], summary.get("cost", {}))
    told |= {f"cost/{name}": value for name, value in cost.items()}
    return {name: value for name, value in told.items() if value is not None}


def _part(value: Nested, name: str) -> Nested:
    return cast(Nested, value.get(name, {}))


def _text(value: object) -> str:
    return str(value)


def _name(config: object) -> str:
    return _text(cast(Nested, config)["class"]).rpartition(":")[2]


def _number(value: Scalar) -> Scalar:
    """metrics.jsonl has values that are not finite as text."""
    return float(value) if value in _NOT_FINITE else value


def _plain(value: object) -> object:
    """A config's JSON as W&B is told it: classes by their name."""
    if isinstance(value, Mapping):
        named = {"kind": _name(value)} if "class" in value else {}
        return named | {name: _plain(each) for name, each in value.items() if name != "class"}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _without_paths(value: object) -> object:
    """The same with the last part of every path alone: the rest names people and machines."""
    if isinstance(value, Mapping):
        return {name: _without_paths(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_paths(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return _text(value)
    is_path = isinstance(value, str) and (value.startswith(("/", "~", "..")) or "\\" in value)
    return Path(_text(value).replace("\\", "/")).name if is_path else value

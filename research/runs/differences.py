"""What differs between the configs of two runs, by dotted field names and with both values.

Studies list a cell's changes this way; `extension.py` decides by it whether a folder holds the same
run, the same run with an earlier limit, or another run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

from research.annotations import is_config
from research.config import from_json, packages_of, to_json
from research.errors import InputError
from research.runs.config import RunConfig
from research.storage.records import RunRecord, StartRecord
from research.storage.untrusted import short_text
from research.training.config import StageConfig

Differences = Iterator[tuple[str, list[object]]]
# Most fields that a message shows, and most characters of each value.
MAX_SHOWN, MAX_SHOWN_LENGTH = 5, 60
# Fields that decide nothing by themselves: the corpus and the warm start are compared by content,
# and sharding does not change what is learned.
_IGNORED_FIELDS = ("corpus", "start_from", "compute.shard_weights")


def difference_of(base: RunConfig, config: RunConfig) -> dict[str, list[object]]:
    """The fields that differ: `{dotted field: [the base's value, the config's]}`, as JSON values.

    A value that is a config is shown as the name of its class. If the two sides have configs of
    different classes, or only `config` has one, its fields are listed below it: a field that one
    side lacks is listed where it is not at its default, with None for the side without it. Of a new
    stage only the class is listed. Stages are named by number if both runs have the same stages in
    the same order, otherwise by their names.
    """
    return dict(_differences(base, config, ""))


def other_run(stored: RunRecord, record: RunRecord, config: RunConfig) -> str:
    """A message that says how the run that a folder holds differs from the requested one.

    `stored` is the folder's record; `record` and `config` are those of the requested run. At most
    five differing fields are shown, then the number of the others, and both run hashes.
    """
    hashes = f"run hash {stored.hash} in the folder and {record.hash} in this run"
    try:
        stored_config = from_json(stored.config, RunConfig, allow=packages_of(config))
    except InputError as error:
        return f"its config cannot be read: {error}; {hashes}"
    differences = {
        name: values
        for name, values in difference_of(stored_config, config).items()
        if name not in _IGNORED_FIELDS
    }
    if None not in differences.get("evaluation.negatives_file", [None]):
        del differences["evaluation.negatives_file"]
    if stored.fingerprint != record.fingerprint:
        differences["the corpus's fingerprint"] = [stored.fingerprint[:16], record.fingerprint[:16]]
    if stored.start.sha256 != record.start.sha256:
        differences["start_from"] = [_start_of(stored.start), _start_of(record.start)]
    if stored.extensions != record.extensions:
        differences["extended after steps"] = [_steps_of(stored), _steps_of(record)]
    texts = [
        f"{name} is {short_text(stored_value, MAX_SHOWN_LENGTH)} in the folder and "
        f"{short_text(value, MAX_SHOWN_LENGTH)} in this run"
        for name, (stored_value, value) in list(differences.items())[:MAX_SHOWN]
    ]
    texts += (
        [f"{len(differences) - MAX_SHOWN} more fields differ"]
        if len(differences) > MAX_SHOWN
        else []
    )
    # No field differs, but the hashes do: a negatives file has changed, or another version of the
    # code hashes the same config differently.
    texts = texts or ["a file that its config names has changed"]
    return f"{'; '.join(texts)}; {hashes}"


def _steps_of(record: RunRecord) -> str:
    """The steps after which a run was extended, for a message."""
    return ", ".join(str(extension.step) for extension in record.extensions) or "none"


def _start_of(start: StartRecord) -> str:
    """What a run starts from, for a message."""
    if start.sha256 is None:
        return "scratch"
    return f"stage {start.stage} ({start.sha256[:16]}) of {start.folder}"


def _differences(ours: object, theirs: object, path: str) -> Differences:
    """What differs at `path` and below: pairs of a dotted name and [our value, their value]."""
    if ours == theirs:
        return
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*ours, *theirs)):
            yield from _differences(ours.get(key), theirs.get(key), _join_path(path, key))
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and _are_stages((*ours, *theirs)):
        yield from _stage_differences(ours, theirs, path)
    elif is_config(ours) and is_config(theirs):
        if type(ours) is not type(theirs):
            yield path, [_display_value(ours), _display_value(theirs)]
        for name in dict.fromkeys((*vars(ours), *vars(theirs))):
            field = _join_path(path, name)
            if name in vars(ours) and name in vars(theirs):
                yield from _differences(vars(ours)[name], vars(theirs)[name], field)
            elif name in vars(theirs):
                yield from _difference_from_default(theirs, name, field)
            else:
                yield from (
                    (each, both[::-1]) for each, both in _difference_from_default(ours, name, field)
                )
    elif ours is None and _holds_configs(theirs):
        for key, value in theirs.items():
            yield from _differences(None, value, _join_path(path, key))
    else:
        yield path, [_display_value(ours), _display_value(theirs)]
        if ours is None and is_config(theirs):
            # The path ends with the name of a stage already.
            for name in vars(theirs):
                if name == "name" and isinstance(theirs, StageConfig):
                    continue
                yield from _difference_from_default(theirs, name, _join_path(path, name))


def _stage_differences(
    ours: tuple[StageConfig, ...], theirs: tuple[StageConfig, ...], path: str
) -> Differences:
    first, second = ({stage.name: stage for stage in side} for side in (ours, theirs))
    if [name for name in first if name in second] != [name for name in second if name in first]:
        yield path, [list(first), list(second)]
    same_stages = list(first) == list(second)
    for index, name in enumerate(dict.fromkeys((*first, *second))):
        stage_path = _join_path(path, str(index) if same_stages else name)
        yield from _differences(first.get(name), second.get(name), stage_path)


def _join_path(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _are_stages(values: Sequence[object]) -> bool:
    return all(isinstance(value, StageConfig) for value in values)


def _difference_from_default(config: object, name: str, path: str) -> Differences:
    """Where field `name` of `config` differs from its default: [None, its value]."""
    assert dataclasses.is_dataclass(config)
    field = next(candidate for candidate in dataclasses.fields(config) if candidate.name == name)
    default: object = None
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    for below, (_, value) in _differences(default, vars(config)[name], path):
        yield below, [None, value]


def _holds_configs(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value is a mapping of configs, such as a stage's objectives."""
    return isinstance(value, Mapping) and bool(value) and all(map(is_config, value.values()))


def _display_value(value: object) -> object:
    """A value as a difference shows it: a config as its class's name, all else as JSON."""
    if isinstance(value, StageConfig):
        return _stage_text(value)
    return type(value).__name__ if is_config(value) else to_json(value)


def _stage_text(stage: StageConfig) -> str:
    """A stage in short: how long it trains, at which learning rate, and on what.

    Objectives have their weights unless there is only one: `20 epochs, adam at 0.001, aap 0.2 + mip
    1`.
    """
    limits = {name: getattr(stage, name) for name in ("epochs", "steps", "tokens", "seconds")}
    length = " or ".join(f"{limit:,} {name}" for name, limit in limits.items() if limit is not None)
    weights = {key: objective.weight for key, objective in stage.objectives.items()}
    parts = [f"{key} {weight:g}" for key, weight in weights.items()]
    objectives = " + ".join(parts if len(parts) > 1 else weights)
    return f"{length}, {stage.optimizer.method} at {stage.optimizer.lr:g}, {objectives}"

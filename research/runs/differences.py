"""What differs between two runs, by dotted names and with both values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from research.config import from_json, is_config, packages_of, to_json
from research.errors import InputError
from research.runs.config import RunConfig
from research.storage.records import RunRecord, StartRecord
from research.storage.untrusted import short
from research.training.config import StageConfig

Differences = Iterator[tuple[str, list[object]]]
# Fields that a message shows, and characters of each value.
SHOWN, LONGEST = 5, 60
# They decide nothing by themselves: what they name does, which is compared by its content.
_NAMES = ("corpus", "start_from", "compute.shard_weights")


def difference_of(base: RunConfig, config: RunConfig) -> dict[str, list[object]]:
    """`{dotted field: [the base's value, the config's]}` of what differs, as JSON values.

    A whole config is named by its class. Below one that is new or of another class stand its fields
    that differ, from their defaults where the other side, then None, has no such field; of a new
    stage only the class. Stages go by number while both runs have the same ones, else by name.
    """
    return dict(_differences(base, config, ""))


def other_run(stored: RunRecord, record: RunRecord, config: RunConfig) -> str:
    """What tells the run that a folder holds from this one, whose `record` and `config` are given.

    Of more fields than a line can hold it says how many there are.
    """
    hashes = f"hash {stored.hash} there and {record.hash} here"
    try:
        theirs = from_json(stored.config, RunConfig, allow=packages_of(config))
    except InputError as error:
        return f"that one cannot be read: {error}; {hashes}"
    found = {
        name: both for name, both in difference_of(theirs, config).items() if name not in _NAMES
    }
    if None not in found.get("evaluation.negatives_file", [None]):
        del found["evaluation.negatives_file"]
    if stored.fingerprint != record.fingerprint:
        found["the corpus's fingerprint"] = [stored.fingerprint[:16], record.fingerprint[:16]]
    if stored.start.sha256 != record.start.sha256:
        found["start_from"] = [_start_of(stored.start), _start_of(record.start)]
    if stored.extensions != record.extensions:
        found["extended after steps"] = [_steps_of(stored), _steps_of(record)]
    texts = [
        f"{name} is {short(there, LONGEST)} there and {short(here, LONGEST)} here"
        for name, (there, here) in list(found.items())[:SHOWN]
    ]
    texts += [f"{len(found) - SHOWN} more fields differ"] if len(found) > SHOWN else []
    # A file of negatives, or what another version of the code meant by the same config.
    texts = texts or ["what its config names has another content"]
    return f"{'; '.join(texts)}; {hashes}"


def _steps_of(record: RunRecord) -> str:
    """Where a run was given later limits, for a person."""
    return ", ".join(str(each.step) for each in record.extensions) or "none"


def _start_of(start: StartRecord) -> str:
    """What a run starts from, for a person."""
    if start.sha256 is None:
        return "scratch"
    return f"stage {start.stage} ({start.sha256[:16]}) of {start.folder}"


def _differences(ours: object, theirs: object, path: str) -> Differences:
    """What differs at `path` and below, each as its dotted name and both values."""
    if ours == theirs:
        return
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in dict.fromkeys((*ours, *theirs)):
            yield from _differences(ours.get(key), theirs.get(key), _below(path, key))
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and _are_stages((*ours, *theirs)):
        yield from _stage_differences(ours, theirs, path)
    elif is_config(ours) and is_config(theirs):
        if type(ours) is not type(theirs):
            yield path, [_shown(ours), _shown(theirs)]
        for name in dict.fromkeys((*vars(ours), *vars(theirs))):
            field = _below(path, name)
            if name in vars(ours) and name in vars(theirs):
                yield from _differences(vars(ours)[name], vars(theirs)[name], field)
            elif name in vars(theirs):
                yield from _set(theirs, name, field)
            else:
                yield from ((each, both[::-1]) for each, both in _set(ours, name, field))
    else:
        yield path, [_shown(ours), _shown(theirs)]
        if ours is None and is_config(theirs) and not isinstance(theirs, StageConfig):
            for name in vars(theirs):
                yield from _set(theirs, name, _below(path, name))


def _stage_differences(
    ours: tuple[StageConfig, ...], theirs: tuple[StageConfig, ...], path: str
) -> Differences:
    first, second = ({each.name: each for each in side} for side in (ours, theirs))
    if [name for name in first if name in second] != [name for name in second if name in first]:
        yield path, [list(first), list(second)]
    numbered = list(first) == list(second)
    for place, name in enumerate(dict.fromkeys((*first, *second))):
        stage = _below(path, str(place) if numbered else name)
        yield from _differences(first.get(name), second.get(name), stage)


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _are_stages(values: Sequence[object]) -> bool:
    return all(isinstance(value, StageConfig) for value in values)


def _set(owner: object, name: str, path: str) -> Differences:
    """Where a field of a config is not at its default: None and what it is."""
    assert dataclasses.is_dataclass(owner)
    field = next(each for each in dataclasses.fields(owner) if each.name == name)
    default: object = None
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    for below, (_, value) in _differences(default, vars(owner)[name], path):
        yield below, [None, value]


def _shown(value: object) -> object:
    """A value in a difference: a config as its class's name, all else as JSON has it."""
    return type(value).__name__ if is_config(value) else to_json(value)

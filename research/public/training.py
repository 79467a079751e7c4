"""`sf.config`, `sf.change` and `sf.train`: from a recipe's name to a trained run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, overload

from research.config import hash_of, packages_of
from research.data.corpus import Corpus
from research.distributed.signals import handle_signals
from research.errors import InputError
from research.overrides import replace_fields
from research.public.messages import check_argument
from research.public.preparing import load_corpus
from research.public.run import Run, load
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.studies.target import import_if_exists, load_target

Config = TypeVar("Config")
# A config, a function that returns one, or a dotted name of such a function.
ConfigLike = RunConfig | Callable[[], RunConfig] | str
CorpusLike = Corpus | Path | str
# torch's generator, its switches and Accelerate's state belong to the whole process.
_training = threading.Lock()


def config_of(recipe: ConfigLike) -> RunConfig:
    """The config that a name, a function or a config stands for.

    A name is a dotted one, `package.module.function` or `module:function`; for the baselines of
    this project the package may be left out. Raises `InputError` where nothing has this name.

        >>> sf.config("sasrec.full_softmax").stages[0].epochs
        200
    """
    if isinstance(recipe, str):
        module = recipe.partition(":")[0].partition(".")[0]
        ours = import_if_exists(module) is None and import_if_exists(f"baselines.{module}")
        return load_target(f"baselines.{recipe}" if ours else recipe, RunConfig)
    if not isinstance(recipe, RunConfig) and not callable(recipe):
        raise InputError(
            f"the config is of type {type(recipe).__name__}; give a RunConfig, a function that "
            "returns one, or a dotted name"
        )
    result = recipe if isinstance(recipe, RunConfig) else recipe()
    if not isinstance(result, RunConfig):
        raise InputError(
            f"the function returns a {type(result).__name__}; give one that returns a RunConfig"
        )
    return result


@overload
def change(config: str, changes: Mapping[str, object]) -> RunConfig: ...
@overload
def change(config: Config, changes: Mapping[str, object]) -> Config: ...
def change(config: object, changes: Mapping[str, object]) -> object:
    """The config with fields replaced by dotted name; the config given stays as it is.

    A name stands for a recipe, as for `sf.config`. A value may be a plain value, a whole config, or
    the name of a config's class. Raises `InputError` for an unknown name (near ones are suggested)
    or a value that is not allowed.

        >>> sf.change(config, {"stages.0.epochs": 3, "encoder.positions": "Rotary"})
    """
    check_argument("changes", changes, Mapping[str, object])
    return replace_fields(config_of(config) if isinstance(config, str) else config, changes)


def train(
    config: ConfigLike,
    corpus: CorpusLike,
    *,
    out: Path | str | None = None,
    seed: int | None = None,
    quiet: bool = True,
    device: str | None = None,
    allow: Sequence[str] = (),
    data_root: Path | str = "data",
) -> Run:
    """Train and evaluate a config on a corpus, and return the run.

    A run that has finished in `out` is returned at once, or goes on if the config now has more
    epochs. One that was interrupted goes on from its last checkpoint, so a cell of a notebook that
    was stopped is simply run again.

    In the main thread, stopping the cell ends the stage after the step, with a checkpoint, and
    raises `KeyboardInterrupt`; another thread cannot be stopped so. One thread of a process trains
    at a time. When it returns or raises, signal handlers are as before and no process group is
    left; torch's generator has been seeded anew, and its switches are as the config's `compute`
    says.

        >>> run = sf.train("sasrec.full_softmax", corpus)
        >>> run = sf.train(sf.change(config, {"stages.0.epochs": 3}), corpus, seed=1)

    Args:
        config: a `RunConfig`, a function that returns one, or a name as for `sf.config`.
        corpus: a `Corpus`, or what `sf.load_corpus` takes.
        out: the run's folder. None: `runs/python/CORPUS/HASH/SEED`, so that every config has its
            own.
        seed: seed of initial weights, order of rows, masks and dropout. None: the config's.
        quiet: print nothing, as what is printed grows long. False: a line for each validation.
        device: "cpu", "cuda" or "cuda:N". None: a GPU if there is one.
        allow: packages whose config classes are trusted in the run that `start_from` names.
        data_root: the folder of prepared corpora.

    Raises:
        InputError: for a config that is not valid or does not fit the corpus, for a folder that
            holds another run, and while another thread trains.
    """
    check_argument("out", out, str | Path | None)
    check_argument("seed", seed, int | None)
    check_argument("device", device, str | None)
    opened = corpus if isinstance(corpus, Corpus) else load_corpus(corpus, data_root=data_root)
    chosen = replace(config_of(config), corpus=str(opened.folder))
    chosen = chosen if seed is None else replace(chosen, seed=seed)
    if out is None:
        cell = hash_of(replace(chosen, seed=0, corpus=""), opened.fingerprint)[:12]
        out = Path("runs", "python", opened.name, cell, str(chosen.seed))
    options = RunOptions(data_root=str(data_root), quiet=quiet, device=device, allow=tuple(allow))
    with in_session():
        execute(chosen, Path(out), options=options)
    return load(out, device=device, allow=(*allow, *packages_of(chosen)), data_root=data_root)


@contextmanager
def in_session() -> Iterator[None]:
    """Train within as a guest of a notebook: one thread at a time, and stopped as a command is.

    A signal stops the stage after the step, with a checkpoint, and raises `KeyboardInterrupt`;
    afterwards the handlers are those of before. `InputError` while another thread trains.
    """
    if not _training.acquire(blocking=False):
        raise InputError(
            "another thread of this process is training, and torch's generator and switches belong "
            "to the whole process; wait for it, or train in another process"
        )
    try:
        with handle_signals():
            yield
    finally:
        _training.release()

"""All that is asked of Optuna: values of new trials, whether to prune, importances, and a journal.

The journal holds the trials of a tuning, in Optuna's own format, one study for each corpus and
cell. Each draw is made by a study in memory, from the trials that it may know of and with a seed of
its own; so a draw is the same before and after an interruption. Optuna is an extra, and imported
only within functions.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research.errors import InputError, extra_remedy, optional_import
from research.storage.atomic import replacing
from research.storage.tuning_records import TrialState
from research.storage.untrusted import printable, short_text
from research.studies.search import PrunerConfig, SamplerConfig
from research.studies.space import (
    Choice,
    Distribution,
    Draw,
    FloatRange,
    IntegerRange,
    Value,
    check_same,
    is_within,
)

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages.journal import BaseJournalBackend
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.log"
# Fewer complete trials than this say nothing of what matters.
LEAST_FOR_IMPORTANCES = 4
IMPORTANCE = "PED-ANOVA (Watanabe et al., IJCAI 2023), of complete trials"


@dataclass(frozen=True)
class Curve:
    """The validations of a run's last stage."""

    points: tuple[tuple[int, float], ...]
    """Completed epochs and the tuned metric."""
    value: float | None
    """The value of a complete trial; None: the trial was pruned."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A trial as the journal has it."""

    number: int
    """Its number, from 0 on."""
    state: TrialState
    """`running` until its end has been recorded."""
    value: float | None
    """Its value; None: it failed or is running."""
    parameters: Mapping[str, Value]
    """The values drawn, by name."""
    distributions: Mapping[str, Distribution]
    """What each was drawn from."""
    curve: Curve
    """Its validations; empty while it is running."""


def check_optuna() -> None:
    """Raise `InputError` when Optuna is not installed."""
    with optional_import(("optuna",), "tuning", extra_remedy("tune")):
        import optuna  # noqa: F401


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from printing that a study was made."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def drawing(
    sampler: SamplerConfig, seed: int, known: Sequence[StoredTrial], running: Sequence[StoredTrial]
) -> Draw:
    """What draws the values of one new trial, by what is known of earlier ones.

    Of the trials in `running` only the parameters count, whatever has become of them.
    """
    import optuna

    with quiet_optuna():
        study = optuna.create_study(direction="maximize", sampler=sampler.build(seed))
    study.add_trials([frozen_trial(trial) for trial in known])
    study.add_trials([frozen_trial(trial, running=True) for trial in running])
    trial = study.ask()
    earlier = {
        name: each for past in (*known, *running) for name, each in past.distributions.items()
    }

    def draw(name: str, distribution: Distribution) -> Value:
        check_same(name, earlier.get(name, distribution), distribution)
        if isinstance(distribution, Choice):
            return trial.suggest_categorical(name, distribution.names)
        low, high, log = distribution.low, distribution.high, distribution.log
        if isinstance(distribution, IntegerRange):
            return trial.suggest_int(name, int(low), int(high), log=log)
        return trial.suggest_float(name, low, high, log=log)

    return draw


def pruning_rule(pruner: PrunerConfig, earlier: Sequence[Curve]) -> Callable[[int, float], bool]:
    """A function that is told of a trial's validations in order: (completed epochs, value).

    It returns whether the trial should be ended, by the curves of earlier trials.
    """
    import optuna
    from optuna.trial import TrialState

    with quiet_optuna():
        study = optuna.create_study(direction="maximize", pruner=pruner.build())
    for curve in earlier:
        trial = study.ask()
        for epoch, value in curve.points:
            trial.report(value, epoch)
            # A pruner may note on a trial how far it came, as ASHA does, only when it is asked.
            trial.should_prune()
        state = TrialState.PRUNED if curve.value is None else TrialState.COMPLETE
        study.tell(trial, curve.value, state)
    own = study.ask()

    def is_behind(epoch: int, value: float) -> bool:
        own.report(value, epoch)
        return own.should_prune()

    return is_behind


def importances_of(trials: Sequence[StoredTrial]) -> dict[str, float] | None:
    """The importance of each parameter, the largest first; None: too few trials are complete.

    By PED-ANOVA, for being among the best tenth of the complete trials, or the best five, at most
    the better half.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    complete = [trial for trial in trials if trial.state == "complete"]
    names = sorted({name for trial in complete for name in trial.parameters})
    if len(complete) < LEAST_FOR_IMPORTANCES or not names:
        return None
    with quiet_optuna(), warnings.catch_warnings():
        # It warns of parameters that few trials have; the report says how many trials there were.
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction="maximize")
        study.add_trials([frozen_trial(trial) for trial in complete])
        evaluator = PedAnovaImportanceEvaluator(
            target_quantile=max(0.1, min(0.5, 5 / len(complete)))
        )
        values = get_param_importances(study, evaluator=evaluator, params=names)
    return dict(sorted(values.items(), key=lambda entry: (-entry[1], entry[0])))


class TrialStore:
    """The journal of a tuning, in the folder of its trials, which the caller has locked."""

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        """Open the journal, or begin one; `InputError` when it is damaged.

        Without `writes` the file is only read: what is added is kept in memory.
        """
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.path = folder / JOURNAL
        with self.reading():
            if not self.path.is_file() and (self.path.exists() or self.path.is_symlink()):
                raise ValueError("it is no file")
            if writes:
                drop_cut_line(self.path)
                # A killed process leaves its lock, for which Optuna would wait half a minute.
                self.path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
                self.storage = JournalStorage(JournalFileBackend(str(self.path)))
            else:
                self.storage = JournalStorage(journal_in_memory(self.path))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise `InputError` where the journal cannot be read: Optuna takes its lines on trust.

        A line that is JSON, but not what Optuna wrote, makes it raise any kind of error.
        """
        try:
            yield
        except (InputError, OSError):
            raise
        except Exception as error:
            reason = printable(f"{type(error).__name__}: {error!s:.100}")
            raise InputError(
                f"{self.path} is damaged ({reason}); remove it, and the same command draws the "
                "same trials again and repeats no run that has ended"
            ) from error

    def trials_of(self, corpus: str, cell: str, facts: Mapping[str, object]) -> StoredTrials:
        """The trials of a cell on a corpus; `facts` are all that decides the draws and values.

        They are JSON values. Raises `InputError` when the journal has trials of other facts, or is
        damaged.
        """
        from optuna.study import StudyDirection

        name = f"{corpus}/{cell}"
        with self.reading():
            try:
                study_id = self.storage.get_study_id_from_name(name)
            except KeyError:
                with quiet_optuna():
                    study_id = self.storage.create_new_study([StudyDirection.MAXIMIZE], name)
            stored = self.storage.get_study_user_attrs(study_id).get("tuning")
            if stored is None:
                self.storage.set_study_user_attr(study_id, "tuning", dict(facts))
                stored = dict(facts)
            if not isinstance(stored, dict):
                raise ValueError(f"{name} is of a tuning {stored!r:.40}")
            if stored != dict(facts):
                differing = [key for key in facts if stored.get(key) != facts[key]]
                key = differing[0] if differing else "number of facts"
                raise InputError(
                    f"{self.path} has the trials of another tuning of {name}: {key} was "
                    f"{short_text(stored.get(key))} and is {short_text(facts.get(key))}; give the "
                    "tuning another name, choose another --runs, or undo the change"
                )
        return StoredTrials(self, study_id)


class StoredTrials:
    """The trials of one cell on one corpus in the journal."""

    def __init__(self, store: TrialStore, study_id: int) -> None:
        self.store, self.storage = store, store.storage
        self.study_id = study_id

    def all(self) -> list[StoredTrial]:
        """All trials, in the order of their numbers; `InputError` when the journal is damaged."""
        with self.store.reading():
            frozen = self.storage.get_all_trials(self.study_id, deepcopy=False)
            return list(map(stored_trial, frozen))

    def begin(self, trial: StoredTrial) -> None:
        """Add a trial, which is running from now on, in one line of the journal."""
        self.storage.create_new_trial(self.study_id, frozen_trial(trial))

    def end(self, number: int, state: TrialState, value: float | None, curve: Curve) -> None:
        """Record how a running trial has ended; its state is written last."""
        from optuna.trial import TrialState as OptunaState

        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        for epoch, at_epoch in curve.points:
            self.storage.set_trial_intermediate_value(trial_id, epoch, at_epoch)
        values = None if value is None else [value]
        self.storage.set_trial_state_values(trial_id, OptunaState[OPTUNA_STATES[state]], values)


# Optuna's names of states.
OPTUNA_STATES: Mapping[TrialState, str] = {
    "complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "running": "RUNNING"
}  # fmt: skip


def stored_trial(frozen: FrozenTrial) -> StoredTrial:
    """A trial of Optuna's in our form; one that waits counts as running.

    Raises `ValueError` for a trial that this project cannot have stored, and whatever Optuna
    raises for one that Optuna cannot have.
    """
    names = {name: state for state, name in OPTUNA_STATES.items()}
    state = names.get(frozen.state.name, "running")
    value = frozen.value if state in ("complete", "pruned") else None
    points = tuple(sorted(frozen.intermediate_values.items()))
    distributions = {name: distribution_of(each) for name, each in frozen.distributions.items()}
    wrong = [
        f"{name} is {each!r:.40}"
        for name, each in frozen.params.items()
        if name not in distributions or not is_within(each, distributions[name])
    ]
    wrong += [f"{name} has no value" for name in distributions if name not in frozen.params]
    wrong += [
        f"epoch {epoch!r:.40} has {at_epoch!r:.40}"
        for epoch, at_epoch in points
        if type(epoch) is not int or epoch < 0 or not is_finite(at_epoch)
    ]
    if state in ("complete", "pruned") and not is_finite(value):
        wrong.append(f"its value is {value!r:.40}")
    if wrong:
        raise ValueError(f"trial {frozen.number}: {wrong[0]}")
    return StoredTrial(
        number=frozen.number,
        state=state,
        value=value,
        parameters=dict(frozen.params),
        distributions=distributions,
        curve=Curve(points, value if state == "complete" else None),
    )


def is_finite(value: object) -> bool:
    """Whether a value of the journal is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def frozen_trial(trial: StoredTrial, *, running: bool = False) -> FrozenTrial:
    """A trial in Optuna's form; `running`: as if it had not ended."""
    from optuna.trial import TrialState as OptunaState
    from optuna.trial import create_trial

    state: TrialState = "running" if running else trial.state
    has_ended = state != "running"
    return create_trial(
        state=OptunaState[OPTUNA_STATES[state]],
        value=trial.value if has_ended else None,
        params=dict(trial.parameters),
        distributions={
            name: optuna_distribution(each) for name, each in trial.distributions.items()
        },
        intermediate_values=dict(trial.curve.points) if has_ended else {},
    )


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """A distribution in Optuna's form."""
    from optuna import distributions as theirs

    if isinstance(distribution, Choice):
        return theirs.CategoricalDistribution(distribution.names)
    low, high, log = distribution.low, distribution.high, distribution.log
    if isinstance(distribution, IntegerRange):
        return theirs.IntDistribution(int(low), int(high), log=log)
    return theirs.FloatDistribution(low, high, log=log)


def distribution_of(theirs: BaseDistribution) -> Distribution:
    """A distribution of Optuna's in our form."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(theirs, CategoricalDistribution):
        return Choice(tuple(map(str, theirs.choices)))
    if isinstance(theirs, IntDistribution):
        return IntegerRange(theirs.low, theirs.high, theirs.log)
    assert isinstance(theirs, FloatDistribution), "Optuna has no fourth kind"
    return FloatRange(theirs.low, theirs.high, theirs.log)


def journal_in_memory(path: Path) -> BaseJournalBackend:
    """A journal that begins with the whole lines of a file, and is never written."""
    from optuna.storages.journal import BaseJournalBackend

    text = path.read_bytes() if path.is_file() else b""
    lines: list[dict[str, Any]] = [json.loads(line) for line in text.split(b"\n")[:-1]]

    class Lines(BaseJournalBackend):
        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return lines[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines.extend(logs)

    return Lines()


def drop_cut_line(path: Path) -> None:
    """Remove a last line without an end, which a crash has cut off; nothing was based on it yet."""
    if not path.is_file():
        return
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        with replacing(path) as file:
            file.write(text[: text.rfind(b"\n") + 1])

"""The audit of a finished run: its own config and results, then its corpus under its split.

`research/data/audit.py` asks about the corpus; the verb `audit` prints all findings.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from research.config import from_json
from research.data.audit import audit_corpus
from research.data.corpus import Corpus
from research.data.findings import Finding, Level, level_of, percent, share_of
from research.data.split_config import split_corpus
from research.data.splits import HeldOut, LeaveOneOut
from research.errors import InputError
from research.evaluation.candidates import is_in_history, read_candidates
from research.runs.config import RunConfig
from research.runs.corpus import open_corpus
from research.runs.load import records_of
from research.storage.evaluation_records import FloorRecord
from research.storage.records import RunRecord, RunSummary


def audit_run(path: Path, data_root: str, allow: Sequence[str] = ()) -> list[Finding]:
    """The findings of all checks of the finished run in folder `path`, and of its corpus.

    `allow` is as in `load_run`. The corpus is not checked when it is not the one that the run was
    trained on. `InputError` when there is no run, it has not finished or is damaged, or when there
    is no such corpus or it is damaged.
    """
    record, summary = records_of(path)
    config = from_json(record.config, RunConfig, allow=allow)
    corpus = open_corpus(config.corpus, data_root)
    findings = [
        same_corpus(record, corpus),
        *selection(config, record, summary),
        *popularity(config, summary.popularity),
        *([] if summary.recent_popularity is None else [above_floor(summary.recent_popularity)]),
        candidate_sets(config),
    ]
    if record.fingerprint != corpus.fingerprint:
        return findings
    findings += audit_corpus(corpus, config.split, config.evaluation.seen, config.trained_users)
    if config.evaluation.negatives_file is not None:
        arranged, split = split_corpus(config.split, corpus)
        findings.append(candidate_file(config.evaluation.negatives_file, arranged, split.test))
    return findings


def same_corpus(record: RunRecord, corpus: Corpus) -> Finding:
    """Whether the corpus is the one that the run was trained on, by its fingerprint."""
    same = record.fingerprint == corpus.fingerprint
    return Finding(
        check="corpus",
        level="fine" if same else "problem",
        numbers={"same": int(same)},
        sentence=(
            f"The corpus is the one that the run was trained on ({corpus.fingerprint[:12]})."
            if same
            else f"The run was trained on a corpus with fingerprint {record.fingerprint[:12]}, but "
            f"{corpus.folder} has {corpus.fingerprint[:12]}: its figures are of other data, and "
            "nothing more is checked. Find that corpus, or do the run again on this one."
        ),
    )


def selection(config: RunConfig, record: RunRecord, summary: RunSummary) -> list[Finding]:
    """By what the weights were chosen, and whether the test part may have had a say in it."""
    findings = [selected_by(config, summary)]
    if isinstance(config.split, LeaveOneOut) and config.split.validation_in_training:
        findings.append(
            Finding(
                check="validation in training",
                level="warning",
                numbers={},
                sentence=(
                    "The validation items are in the training rows, so that the validation figures "
                    "say nothing. Report those of the test only, and choose nothing by the others."
                ),
            )
        )
    after_test = sum(extension.tested for extension in record.extensions)
    if after_test:
        findings.append(
            Finding(
                check="extensions",
                level="warning",
                numbers={"after_test": after_test, "extensions": len(record.extensions)},
                sentence=(
                    f"Training went on {after_test} times after the test part had been ranked, so "
                    "that its figures may have decided how long to train. Do the run again with "
                    "the last limit from the beginning, or say so."
                ),
            )
        )
    if config.start_from is not None:
        findings.append(
            Finding(
                check="start",
                level="warning",
                numbers={},
                sentence=(
                    f"The run begins with the weights of {config.start_from}, whose training data "
                    "is not checked here. Audit that run, and make sure that it held out the same "
                    "items: otherwise this run's test items may have been trained on."
                ),
            )
        )
    return findings


def selected_by(config: RunConfig, summary: RunSummary) -> Finding:
    """By which figures the last stage kept its weights; the test part is no choice of a config."""
    check = "selection"
    if summary.imported is not None:
        return Finding(
            check=check,
            level="warning",
            numbers={},
            sentence=(
                f"The weights were imported from {summary.imported.file}: by which figures they "
                "were selected is unknown, and it may have been those of the test. Say so beside "
                "the figures."
            ),
        )
    if not config.stages:
        sentence = "The run only counts training interactions, and selects nothing."
        return Finding(check=check, level="fine", numbers={}, sentence=sentence)
    rule = config.stages[-1].validation
    if rule is None:
        return Finding(
            check=check,
            level="warning",
            numbers={},
            sentence=(
                f"The last stage, {config.stages[-1].name}, has no validation and keeps its last "
                "weights. Say how the length of training was chosen; it must not have been by the "
                "test figures."
            ),
        )
    return Finding(
        check=check,
        level="fine",
        numbers={},
        sentence=(
            f"The last stage, {config.stages[-1].name}, selects its weights by {rule.metric} of "
            "the validation part; no stage reads the test part."
        ),
    )


def popularity(config: RunConfig, floor: FloorRecord | None) -> list[Finding]:
    """Whether the run is above popularity on its own test; nothing for a run that only counts."""
    if not config.stages:
        return []
    if floor is None:
        return [
            Finding(
                check="popularity",
                level="warning",
                numbers={},
                sentence=(
                    "Popularity was not ranked beside the run. Rank it on the same corpus and "
                    "split: run baselines.popularity.popularity."
                ),
            )
        ]
    return [above_floor(floor)]


def above_floor(floor: FloorRecord) -> Finding:
    """Whether the run is above popularity, or above that of the last days of training."""
    check = floor.name
    numbers = {"difference": floor.difference, "low": floor.low, "high": floor.high}
    difference = (
        f"{floor.difference:+.4f} in {floor.metric} (95 % of resamples: {floor.low:+.4f} to "
        f"{floor.high:+.4f})"
    )
    if floor.low > 0.0:
        sentence = f"The run is above {floor.name} by {difference}."
        return Finding(check=check, level="fine", numbers=numbers, sentence=sentence)
    return Finding(
        check=check,
        level="problem",
        numbers=numbers,
        sentence=(
            f"The run is not above {floor.name}: {difference}. It has not learned more from "
            "histories than which items are frequent; train longer or change the recipe "
            "before comparing it with anything."
        ),
    )


def candidate_sets(config: RunConfig) -> Finding:
    """Whether figures are of full ranking, or of a few candidates."""
    sampled = [name for name in config.evaluation.candidates if name != "full"]
    sampled += ["a file"] * (config.evaluation.negatives_file is not None)
    has_full = "full" in config.evaluation.candidates
    numbers = {"sampled_sets": len(sampled), "full": int(has_full)}
    if not sampled:
        sentence = "Held-out items are ranked among all items."
        return Finding(check="candidates", level="fine", numbers=numbers, sentence=sentence)
    remedy = (
        "compare models by the full ranking"
        if has_full
        else "rank among all items too: evaluate RUN --candidates full"
    )
    return Finding(
        check="candidates",
        level="warning" if has_full else "problem",
        numbers=numbers,
        sentence=(
            f"Figures under {' and '.join(sampled)} are not comparable with full ranking, and may "
            f"order models otherwise; {remedy}."
        ),
    )


def candidate_file(name: str, corpus: Corpus, held_out: HeldOut) -> Finding:
    """Whether negatives of a file are in their users' own histories."""
    check = "candidate file"
    try:
        # Whatever the run's policy was, its file is looked at, not refused.
        listed = read_candidates(Path(os.path.expanduser(name)), corpus, held_out, "kept")
    except InputError as error:
        sentence = f"The candidates cannot be read again: {error}"
        return Finding(check=check, level="problem", numbers={}, sentence=sentence)
    is_seen_QN = is_in_history(corpus, held_out, listed.negatives_QN.numpy())
    touched = int(is_seen_QN.any(axis=1).sum())
    share = share_of(touched, len(held_out))
    level: Level = level_of(share)
    return Finding(
        check=check,
        level=level,
        numbers={"questions": len(held_out), "touched": touched, "share": share},
        sentence=(
            f"For {percent(share)} of the test's held-out items the file lists items of the user's "
            "own history as negatives."
            + " Under seen=excluded these do not compete, so that fewer candidates are ranked "
            "than the file's name says; take negatives from outside the history."
            * (level != "fine")
        ),
    )

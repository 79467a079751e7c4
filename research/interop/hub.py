"""`--format hub`: a run's last stage as a folder of the Hugging Face Hub, and as a run again.

The folder holds `model.safetensors` (the weights of the last stage, the very file of its
checkpoint), `config.json` and `summary.json` (those of the run), `items.csv` and `README.md` (the
model card). It does not hold the corpus, which is named by its fingerprint and needed to import.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from research.checkpoint import files as checkpoint
from research.checkpoint.tensors import fill_weights
from research.config import from_json, to_json
from research.errors import InputError
from research.evaluation.metrics import metrics
from research.evaluation.rank_table import RankTable
from research.evaluation.ties import TiePolicy
from research.interop.item_file import write_items
from research.interop.model_card import model_card
from research.interop.model_files import ExportedRun
from research.interop.new_run import MEANWHILE, check_free, new_run, save_ended_stage
from research.runs.config import RunConfig
from research.runs.corpus import check_fingerprint
from research.runs.extension import with_extensions
from research.runs.finish import rank
from research.runs.load import check_size, load_run
from research.runs.parts import RunParts
from research.runs.run_hash import dataset_record, record_of, run_hash
from research.storage.atomic import whole_folder
from research.storage.folders import kind_of
from research.storage.records import RunRecord, RunSummary, read_record, write_record
from research.storage.run_folder import RunFolder
from research.storage.untrusted import file_inside
from research.training.state import StageState

WEIGHTS, ITEMS, CARD = "model.safetensors", "items.csv", "README.md"
FILES = (WEIGHTS, ITEMS, CARD, RunRecord.FILE, RunSummary.FILE)
# A published figure that comes out otherwise by more than this is pointed out.
FIGURE_TOLERANCE = 1e-4


def export_hub(source: ExportedRun, out: Path, license_name: str | None) -> list[str]:
    """Write the folder; it appears whole or not at all. Returns lines to print.

    `InputError` when `out` exists.
    """
    check_free(out)
    record, summary = _records_of(source.run)
    # A run of an earlier version has no options of preparation in its record.
    record = replace(record, dataset=dataset_record(source.parts.corpus))
    with whole_folder(out) as partial:
        shutil.copyfile(source.checkpoint / WEIGHTS, partial / WEIGHTS)
        write_items(partial / ITEMS, source.parts.corpus)
        write_record(partial, record)
        write_record(partial, summary)
        card = model_card(source.run, record, summary, license_name)
        (partial / CARD).write_text(card, encoding="utf-8")
        sizes = {name: (partial / name).stat().st_size for name in FILES}
    if not out.is_dir() or checkpoint.sha256_of(out / WEIGHTS) != checkpoint.sha256_of(
        source.checkpoint / WEIGHTS
    ):
        raise InputError(f"{out} {MEANWHILE}")
    return [f"{name}: {size:,} bytes" for name, size in sizes.items()]


def is_of_run(folder: Path, source: ExportedRun) -> bool:
    """Whether a folder holds the run in the form of the Hub: its run hash and its very weights."""
    if kind_of(folder) != "hub":
        return False
    record, _ = _records_of(folder)
    weights = [checkpoint.sha256_of(each / WEIGHTS) for each in (folder, source.checkpoint)]
    return record.hash == _records_of(source.run)[0].hash and weights[0] == weights[1]


def import_hub(
    folder: Path,
    out: Path,
    *,
    corpus: str | None,
    negatives_file: str | None = None,
    data_root: str,
    allow: tuple[str, ...] = (),
    device: str | None = None,
) -> list[str]:
    """Make the run folder `out` from a Hub folder; it appears whole or not at all.

    `corpus` and `negatives_file` are where those of the run stand here. None: the corpus is where
    the run had it, and nothing is ranked by a negatives file. The test is ranked again, and its
    figures are compared with the published ones; of a tuning's trial the validation is, as its test
    part is never ranked. Returns lines to print. `InputError` when the
    folder is damaged or its records do not fit together, the corpus is another one, or `out`
    exists.
    """
    check_free(out)
    record, summary = _records_of(folder)
    config = from_json(record.config, RunConfig, allow=allow)
    if not config.stages:
        raise InputError(f"{folder}: its run has no stages, so no weights; nothing to import")
    named = config.evaluation.negatives_file
    if negatives_file is not None and named is None:
        raise InputError(
            f"--negatives-file is {negatives_file}, but the run in {folder} was not ranked by such "
            "a file; leave it out"
        )
    # A path that a stranger's config names is not opened.
    evaluation = replace(config.evaluation, negatives_file=negatives_file)
    config = replace(config, corpus=corpus or config.corpus, evaluation=evaluation)
    parts = RunParts.of(config, data_root)
    check_fingerprint(
        parts.corpus,
        record.fingerprint,
        folder,
        f"prepare the data with the options that {folder / CARD} lists, and name that corpus",
    )
    _check_hashes(folder, record, summary, parts, known=negatives_file is not None or named is None)
    stored = replace(evaluation, negatives_file=negatives_file or named)
    record = replace(record, config=to_json(replace(config, evaluation=stored)))
    with new_run(out, record.hash) as run:
        _write_stage(folder, run, parts, summary)
        run.write(record)
        run.write(summary)
        _, ranker = load_run(run.path, data_root, allow, device)
        try:
            validation, tables, _ = rank(parts, ranker, parts.test_candidate_sets(), run)
        except FloatingPointError as error:
            raise InputError(
                f"{folder}: its weights give scores that are not finite; copy the folder again"
            ) from error
    if not config.evaluation.test:
        return _comparison("validation", validation, {"full": summary.val}, summary.ties)
    return _comparison("test", tables, summary.test, summary.ties)


def _check_hashes(
    folder: Path, record: RunRecord, summary: RunSummary, parts: RunParts, *, known: bool
) -> None:
    """Raise `InputError` unless the record's hashes are those of its config on this corpus.

    They say which runs and stages are the same, so a study would take another run's stage for its
    own. `known` is whether the negatives file, whose content the run hash covers, is given here.
    """
    start = record.start.sha256 if summary.imported is None else summary.imported.sha256
    expected = with_extensions(
        replace(
            record_of(parts.config, parts.corpus, record.start),
            hash=run_hash(parts.config, parts.corpus, start),
        ),
        record.extensions,
    )
    if dict(expected.stages) != dict(record.stages) or (known and expected.hash != record.hash):
        raise InputError(
            f"{folder}: {RunRecord.FILE} says that it is of run {record.hash:.40}, but its config "
            f"is of run {expected.hash}; it has been changed: copy the folder again (and give the "
            "negatives file of the run, if it has one)"
        )


def _records_of(folder: Path) -> tuple[RunRecord, RunSummary]:
    record, summary = read_record(folder, RunRecord), read_record(folder, RunSummary)
    if record is None or summary is None:
        missing = RunRecord.FILE if record is None else RunSummary.FILE
        raise InputError(
            f"{folder} has no {missing}; a folder of the Hub's form has {', '.join(FILES)}"
        )
    if record.hash != summary.hash:
        raise InputError(
            f"{folder}: {RunRecord.FILE} is of run {record.hash:.40} and {RunSummary.FILE} of run "
            f"{summary.hash:.40}; copy the folder again"
        )
    return record, summary


def _write_stage(folder: Path, run: RunFolder, parts: RunParts, summary: RunSummary) -> None:
    """Write the weights as the checkpoint of the last stage, which has ended."""
    weights, stage = file_inside(folder, WEIGHTS), parts.config.stages[-1]
    if not weights.is_file():
        raise InputError(f"{folder} has no {WEIGHTS}; copy the folder again")
    num_embeddings = parts.config.items.num_embeddings(parts.corpus.num_items)
    check_size(parts.config.encoder, num_embeddings, weights)
    model = parts.model(stage, parts.components())
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise InputError(f"{weights} is damaged ({error}); copy the folder again") from error
    fill_weights(tensors, model, str(weights))
    result = summary.best.get(stage.name)
    state = StageState(finished=True)
    if result is not None:
        state = replace(state, epoch=result.epochs, step=result.steps, skipped=result.skipped)
    save_ended_stage(run, stage.name, model, parts.corpus.fingerprint, state)


def _comparison(
    part: str,
    tables: Mapping[str, RankTable],
    figures: Mapping[str, Mapping[str, float]],
    ties: TiePolicy,
) -> list[str]:
    """A line on each candidate set of a part: its figures, and whether they are as published."""
    lines = []
    for name, published in figures.items():
        if name not in tables:
            lines.append(
                f"{part}, {name}: not ranked again; its candidates are those of the run's "
                "negatives file: --negatives-file FILE"
            )
            continue
        found = metrics(tables[name], tuple(published), ties)
        off = max((abs(found[metric] - value) for metric, value in published.items()), default=0.0)
        same = "as published" if off <= FIGURE_TOLERANCE else f"off by up to {off:.4f}"
        ranked = ", ".join(f"{metric} {value:.4f}" for metric, value in found.items())
        lines.append(f"{part}, {name}: {ranked} ({same})")
    return lines

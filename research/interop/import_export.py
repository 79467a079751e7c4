"""`import` and `export`: a foreign checkpoint becomes a run folder, a run's stage a foreign file.

The format itself is in `s3rec.py`. An imported run has one stage, which was not trained here; it is
evaluated like any other run, and another run can start from it. Both commands report what became of
every key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from research.checkpoint import files as checkpoint
from research.checkpoint.transfer import transfer_weights
from research.config import packages_of
from research.data.corpus import Corpus
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.interop.s3rec import (
    ITEMS,
    ZERO_ROWS,
    Entry,
    Sizes,
    entries,
    objectives,
    to_parameters,
    to_state_dict,
)
from research.interop.s3rec_checks import (
    check_counts,
    check_heads,
    expressible_encoder,
    read_sizes,
    row_numbers,
)
from research.interop.state_dict import checked_float, read_state_dict, write_state_dict
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig
from research.runs.finish import evaluate_run, write_config
from research.runs.parts import RunParts, ranking_objective
from research.runs.run_hash import record_of, run_hash
from research.runs.stages import TrainingResult
from research.runs.warm_start import WarmStart, find_warm_start
from research.storage.atomic import replacing, whole_folder
from research.storage.records import CostRecord, ImportRecord, KeyRecord, RunRecord, StageResult
from research.storage.run_folder import RunFolder
from research.storage.untrusted import file_inside
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.state import StageState

STAGE = "imported"
ZERO_ROWS_FILE = "zero_rows.safetensors"


@dataclass(frozen=True, eq=False)
class Account:
    """The report of an import or export: where every key of the file went, or came from."""

    keys: tuple[KeyRecord, ...]
    """Every key of the file, in its order."""
    remarks: tuple[str, ...]
    """Remarks for the user, such as that tensors were rounded."""


def import_run(
    file: Path,
    out: Path,
    *,
    corpus: str,
    heads: int,
    keep_zero_rows: bool,
    special_classes: bool = False,
    data_root: str,
    device: str | None = None,
) -> Account:
    """Make the run folder `out` from an S3-Rec state dict; it appears whole or not at all.

    `corpus` is the corpus that the weights were trained on, `heads` the number of attention heads,
    which the file does not say. With `keep_zero_rows` the rows 0 of the tables, which have no place
    here, are kept in a file of the run folder, for an export. With `special_classes` the padding
    row 0 of the item table and the mask's row are ranked among the items. The run is evaluated on
    `device` (see `RunOptions`).

    `InputError` when the file is not of the format, or does not fit the corpus, or `out` exists:
    before anything is written, or, if `out` is made by another process meanwhile, at the end.
    """
    _check_free(out)
    raw_state = read_state_dict(file)
    sizes = read_sizes(raw_state, file)
    check_heads(sizes, heads, file)
    state = {key: checked_float(key, tensor, file) for key, tensor in raw_state.items()}
    stage = imported_stage(special_classes)
    config = RunConfig(corpus=corpus, encoder=sizes.encoder(heads), stages=(stage,))
    run_parts = RunParts.of(config, data_root)
    opened = run_parts.corpus
    check_counts(sizes, opened.num_items, opened.num_attributes, file, opened.name)
    table = _table_of(sizes, opened)
    model = run_parts.model(stage, run_parts.components())
    weights = to_parameters(state, table)
    if special_classes:
        weights[ZERO_ROWS[ITEMS]] = state[ITEMS][:1]
    transfer = transfer_weights(weights, model, source=str(file))
    assert not transfer.new + transfer.left, "the format has every parameter of the stage"
    content = checkpoint.sha256_of(file)
    record = replace(record_of(config, opened), hash=run_hash(config, opened, content))
    ranked_keys = {ITEMS} if special_classes else set()
    account = _import_account(raw_state, table, ranked_keys, keep_zero_rows)
    accelerator = make_accelerator(device=device)
    model = model.to(accelerator.device)
    objective = ranking_objective(stage, model)
    assert objective is not None, "the stage ranks by next"
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = TrainingResult(
        ranker=TrainedRanker(model.encoder, objective),
        cost=CostRecord(parameters=parameters, seconds=0.0, items=0),
        best={STAGE: StageResult(epoch=None, value=None, epochs=0, steps=0, skipped=0)},
        attributes=run_parts.catalogue.coverage,
        imported=ImportRecord(
            file=file.name, sha256=content, keys=account.keys, remarks=account.remarks
        ),
    )
    zero_rows = {key: state[key][0].contiguous() for key in ZERO_ROWS if key not in ranked_keys}
    with whole_folder(out) as partial:
        folder = RunFolder(partial)
        write_config(record, folder, accelerator)
        _save_stage(folder, model, opened.fingerprint)
        if keep_zero_rows:
            with replacing(partial / ZERO_ROWS_FILE) as zero_rows_file:
                zero_rows_file.write(safetensors.torch.save(zero_rows))
        sets = run_parts.candidate_sets(run_parts.split.test, "test")
        evaluate_run(run_parts, trained, sets, record, folder, torch.device("cpu"))
    written_record = RunFolder(out, writes=False).read(RunRecord)
    if written_record is None or written_record.hash != record.hash:
        raise InputError(f"{out} was made by another process meanwhile; choose another folder")
    return account


def imported_stage(special_classes: bool) -> StageConfig:
    """The stage of an imported run: never trained here, and ranked by the next item."""
    return StageConfig(
        name=STAGE, objectives=objectives(special_classes), rank_by="next", validation=None
    )


def _save_stage(folder: RunFolder, model: MultiObjectiveModel, fingerprint: str) -> None:
    """Write the weights as the checkpoint of a stage that has ended after no step."""
    stored = {"fingerprint": fingerprint, **asdict(StageState(finished=True))}
    target = checkpoint.folder_of(folder.stage(STAGE), checkpoint.STEP, 0)
    checkpoint.save(target, model, None, stored)


def _import_account(
    raw_state: Mapping[str, Tensor], table: list[Entry], ranked_keys: Set[str], keep_zero_rows: bool
) -> Account:
    """The report of an import; the stage has a parameter for the row 0 of each of `ranked_keys`."""
    descriptions = {entry.key: entry.description for entry in table}
    zero_row_place = f"kept aside in {ZERO_ROWS_FILE}" if keep_zero_rows else "dropped"
    for key, parameter in ZERO_ROWS.items():
        descriptions[key] += f"; row 0 {parameter if key in ranked_keys else zero_row_place}"
    keys = tuple(
        KeyRecord(key=key, shape=tuple(tensor.shape), place=descriptions[key])
        for key, tensor in raw_state.items()
    )
    wide = [key for key, tensor in raw_state.items() if tensor.dtype == torch.float64]
    remarks = [f"rounded from float64 to float32: {', '.join(wide)}"] if wide else []
    return Account(keys, tuple(remarks))


def _check_free(out: Path) -> None:
    if out.exists():
        raise InputError(
            f"{out} exists; an imported run needs a new folder: remove it or choose another"
        )


def _table_of(sizes: Sizes, corpus: Corpus) -> list[Entry]:
    items_V = row_numbers(list(corpus.item_names), "item", corpus.name)
    attributes_A = row_numbers(list(corpus.attribute_names), "attribute", corpus.name)
    return entries(sizes, items_V, attributes_A)


def export_stage(run: str, out: Path, *, data_root: str, allow: Sequence[str] = ()) -> Account:
    """Write the stage that `run` names (RUN, or RUN/stages/NAME) as an S3-Rec state dict.

    A parameter that the stage does not have comes from the nearest earlier stage that has it; if
    none has it, it is written as zeros. `allow` names packages, beside ours, whose config classes
    the run may hold. `InputError` when the run cannot be read, its encoder or head cannot be
    written in the format, or `out` exists.
    """
    start = find_warm_start(run, "RUN", allow)
    config, objectives_of_stage = start.config, start.stage.objectives
    encoder = expressible_encoder(config.encoder, config.items, objectives_of_stage, start.source)
    corpus = start.corpus(data_root)
    corpus.verify()
    sizes = Sizes(
        num_items=corpus.num_items,
        num_attributes=corpus.num_attributes,
        width=encoder.width,
        layers=encoder.layers,
        length=encoder.length,
        inner=encoder.feed_forward,
    )
    numbers = sum(tensor.numel() for tensor in checkpoint.read_weights(start.weights).values())
    if max(sizes.width, sizes.layers, sizes.length, sizes.inner) > numbers:
        raise InputError(
            f"{start.source}: its checkpoint has {numbers:,} numbers, fewer than {sizes} needs; "
            "the config or the checkpoint is of another run"
        )
    table = _table_of(sizes, corpus)
    needed = {entry.parameter for entry in table}
    weights, stages = _gather_weights(start, needed)
    zero_rows, zero_row_descriptions = _zero_rows(start, weights, stages, encoder.width)
    write_state_dict(out, to_state_dict(weights, zero_rows, table))
    keys = []
    for entry in table:
        stage = stages.get(entry.parameter)
        description = f"zeros: no stage of {start.folder} has {entry.parameter}"
        if stage is not None:
            description = f"{entry.description}, of stage {stage}"
        description += zero_row_descriptions.get(entry.key, "")
        keys.append(KeyRecord(key=entry.key, shape=entry.shape, place=description))
    not_written = [
        f"{name} (stage {stage})"
        for name, stage in stages.items()
        if name not in needed and name not in ZERO_ROWS.values()
    ]
    remarks = [f"heads: {encoder.heads}, which the file does not say; import asks for it"]
    kinds = {type(objective).__name__ for objective in start.stage.objectives.values()}
    if "NextItemConfig" not in kinds:
        remarks.append(
            "the stage has no next-item objective, by which the format's models rank, causally"
        )
    if not_written:
        remarks.append(f"not written, as the format has no place for it: {', '.join(not_written)}")
    return Account(tuple(keys), tuple(remarks))


def _gather_weights(start: WarmStart, needed: set[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(weights, stages): parameters by name, and the stage that each is taken from.

    If the stage lacks some of `needed`, they are taken from the nearest earlier stage of the same
    run that has them.
    """
    stage_names = [stage.name for stage in start.config.stages]
    index = stage_names.index(start.stage.name)
    weights = checkpoint.read_weights(start.weights)
    stages = dict.fromkeys(weights, start.stage.name)
    for name in reversed(stage_names[:index]):
        if needed <= weights.keys():
            break
        earlier_stage = find_warm_start(
            str(start.folder / "stages" / name), start.argument, packages_of(start.config)
        )
        for parameter, tensor in checkpoint.read_weights(earlier_stage.weights).items():
            if parameter not in weights:
                weights[parameter], stages[parameter] = tensor, name
    return weights, stages


def _zero_rows(
    start: WarmStart, weights: Mapping[str, Tensor], stages: Mapping[str, str], width: int
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(rows, texts): the rows 0 that are known, [D] each by key, and their part of the report."""
    rows: dict[str, Tensor] = {}
    descriptions = dict.fromkeys(ZERO_ROWS, "; row 0 zeros")
    for key, parameter in ZERO_ROWS.items():
        if parameter in weights:
            rows[key] = weights[parameter][0]
            descriptions[key] = f"; row 0 {parameter}, of stage {stages[parameter]}"
    stored = stored_zero_rows(start.folder, width)
    rows |= stored
    descriptions |= dict.fromkeys(stored, f"; row 0 {ZERO_ROWS_FILE}")
    return rows, descriptions


def stored_zero_rows(folder: Path, width: int) -> dict[str, Tensor]:
    """The rows 0 that an import has kept in the run folder, [D] each by key; empty: it kept none.

    `width` is D. `InputError` when their file is damaged.
    """
    path = file_inside(folder, ZERO_ROWS_FILE)
    if not path.is_file():
        return {}
    try:
        rows = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}); import the file again") from error
    shapes = {key: tuple(row.shape) for key, row in rows.items()}
    if not shapes.keys() <= ZERO_ROWS.keys() or set(shapes.values()) - {(width,)}:
        raise InputError(
            f"{path}: rows 0 are {shapes}; allowed: ({width},) for each of "
            f"{', '.join(ZERO_ROWS)}; import the file again"
        )
    return rows

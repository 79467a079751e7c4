"""`import` and `export`: a foreign checkpoint becomes a run folder, a run's stage a foreign file.

What a format's tensors are here is in `s3rec_import.py` and `row_model.py`. An imported run has
one stage, which was not trained here; it is evaluated like any other run, and another run can start
from it. S3-Rec's format is exported too. Both commands report what became of every key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from research.checkpoint import files as checkpoint
from research.checkpoint.transfer import transfer_weights
from research.config import packages_of
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.interop.foreign import STAGE, ForeignModel
from research.interop.new_run import check_free, new_run, save_ended_stage
from research.interop.s3rec import ZERO_ROWS, Sizes, to_state_dict
from research.interop.s3rec_checks import expressible_encoder
from research.interop.s3rec_import import ZERO_ROWS_FILE, table_of
from research.interop.state_dict import checked_float, read_state_dict, write_state_dict
from research.objectives.ranker import TrainedRanker
from research.runs.config import RunConfig
from research.runs.finish import evaluate_run, write_config
from research.runs.parts import RunParts, ranking_objective
from research.runs.run_hash import record_of, run_hash
from research.runs.stages import TrainingResult
from research.runs.warm_start import WarmStart, find_warm_start
from research.storage.atomic import replacing
from research.storage.records import CostRecord, ImportRecord, KeyRecord, StageResult
from research.storage.untrusted import file_inside
from research.training.state import StageState


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
    read: Callable[[Mapping[str, Tensor], Path], ForeignModel],
    *,
    corpus: str,
    data_root: str,
    device: str | None = None,
) -> Account:
    """Make the run folder `out` from a state dict; it appears whole or not at all.

    `read` checks its keys and shapes and says what they are here. `corpus` is the corpus that the
    weights were trained on. The run is evaluated on `device` (see `RunOptions`).

    `InputError` when the file is not of the format, or does not fit the corpus, or `out` exists:
    before anything is written, or, if `out` is made by another process meanwhile, at the end.
    """
    check_free(out)
    raw_state = read_state_dict(file)
    foreign = read(raw_state, file)
    state = {key: checked_float(key, tensor, file) for key, tensor in raw_state.items()}
    stage = foreign.stage
    config = RunConfig(corpus=corpus, encoder=foreign.encoder, stages=(stage,))
    run_parts = RunParts.of(config, data_root)
    opened = run_parts.corpus
    table = foreign.table(opened)
    model = run_parts.model(stage, run_parts.components())
    transfer = transfer_weights(foreign.weights(state, table), model, source=str(file))
    assert not transfer.new + transfer.left, "the format has every parameter of the stage"
    content = checkpoint.sha256_of(file)
    record = replace(record_of(config, opened), hash=run_hash(config, opened, content))
    account = Account(foreign.keys(raw_state, table), (*_rounded(raw_state), *foreign.remarks()))
    accelerator = make_accelerator(device=device)
    model = model.to(accelerator.device)
    objective = ranking_objective(stage, model)
    assert objective is not None, "the stage ranks"
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
    with new_run(out, record.hash) as folder:
        write_config(record, folder, accelerator)
        save_ended_stage(folder, STAGE, model, opened.fingerprint, StageState(finished=True))
        for name, tensors in foreign.kept(state).items():
            with replacing(folder.path / name) as kept_file:
                kept_file.write(safetensors.torch.save(dict(tensors)))
        sets = run_parts.candidate_sets(run_parts.split.test, "test")
        evaluate_run(run_parts, trained, sets, record, folder, torch.device("cpu"))
    return account


def _rounded(raw_state: Mapping[str, Tensor]) -> list[str]:
    wide = [key for key, tensor in raw_state.items() if tensor.dtype == torch.float64]
    return [f"rounded from float64 to float32: {', '.join(wide)}"] if wide else []


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
    table = table_of(sizes, corpus)
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

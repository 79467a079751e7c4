"""`export --format onnx`, `torch-export` or `safetensors`: a run's model as one file, items beside.

A file of weights has the project's own names. A program is traced by torch from `RankerProgram`; it
needs no code of ours. The file is made in memory, ranked with, and written only if it ranks as the
run does (`parity.py`).
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from research.checkpoint.files import read_weights
from research.checkpoint.tensors import fill_weights
from research.config import to_json
from research.errors import InputError, extra_remedy, optional_import
from research.interop.item_file import write_items
from research.interop.new_run import check_free
from research.interop.parity import Exported, check_parity, histories_of, pieces_of, run_scores
from research.interop.program import PADDING, Answer, RankerProgram
from research.model.attention import MAX_SEQUENCES
from research.objectives.ranker import TrainedRanker
from research.runs.load import load_run
from research.runs.parts import RunParts, ranking_objective
from research.runs.warm_start import find_warm_start
from research.storage.atomic import replacing
from research.storage.untrusted import without_home

# The key of our JSON among the metadata of a file.
KEY = "sixfold"
INPUT, SCORES, BEST = "items", "scores", "best"
# A file of ONNX is one protobuf message, which may not be larger.
ONNX_BYTES = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class ExportedRun:
    """The run that is exported."""

    run: Path
    """Its folder."""
    parts: RunParts
    """Its parts, opened."""
    ranker: TrainedRanker
    """Its ranker, on the CPU."""
    checkpoint: Path
    """The folder of the weights with which its last stage ended."""


def open_source(run: Path, *, data_root: str, allow: tuple[str, ...]) -> ExportedRun:
    """Open a finished run; `InputError` as for `load_run`, and when its ranker only counts."""
    parts, ranker = load_run(run, data_root, allow, "cpu")
    if not isinstance(ranker, TrainedRanker):
        raise InputError(
            f"{run} ranks by {type(ranker).__name__}, which has no weights; export a run that was "
            "trained"
        )
    return ExportedRun(run, parts, ranker, find_warm_start(str(run), "RUN", allow).weights)


def export_weights(source: ExportedRun, out: Path) -> list[str]:
    """Write the last stage's parameters, by our names, as safetensors; returns lines to print.

    The metadata's key "sixfold" holds JSON: the config, the corpus and the name of the items' file.
    """
    items_file = _items_file_of(out)
    parts = source.parts
    model = parts.model(parts.config.stages[-1], parts.components())
    weights = read_weights(source.checkpoint)
    about = json.dumps(_about(source, items_file))
    content = safetensors.torch.save(weights, {"format": "pt", KEY: about})
    fill_weights(safetensors.torch.load(content), model, str(out))
    objective = ranking_objective(parts.config.stages[-1], model)
    assert objective is not None, "a run's last stage ranks"
    again = TrainedRanker(model.encoder, objective)
    histories = histories_of(parts.corpus, parts.config.encoder.length)
    for piece in pieces_of(histories, parts.corpus.num_items):
        scores_BV = run_scores(source.ranker, parts, piece)
        if not torch.equal(run_scores(again, parts, piece), scores_BV):
            raise InputError(
                f"{out}: the file's weights rank otherwise than the run; nothing is written; "
                "report it"
            )
    _write(out, content, items_file, source)
    return [
        f"{len(weights)} tensors, {len(content):,} bytes; items in {items_file.name}",
        f"parity on {len(histories):,} histories of {parts.corpus.name}: scores are bit-equal",
    ]


def export_program(source: ExportedRun, out: Path, kind: str, answer: Answer) -> list[str]:
    """Write the run's ranker as a program of `kind`, onnx or torch-export; returns lines to print.

    `InputError` when a package is missing, the run cannot be traced, or the program does not rank
    as the run does.
    """
    items_file = _items_file_of(out)
    parts = source.parts
    if parts.config.encoder.fields:
        fields = ", ".join(parts.config.encoder.fields)
        raise InputError(
            f"{source.run}: its encoder reads the {fields} of every event, and a program takes "
            "items alone; export it with --format safetensors or hub"
        )
    if answer.k is not None and not 1 <= answer.k <= parts.corpus.num_items:
        raise InputError(
            f"--k is {answer.k}; allowed: 1 to {parts.corpus.num_items}, the number of items"
        )
    if kind == "onnx":
        _check_onnx()
    program = RankerProgram(source.ranker, answer)
    about = {**_about(source, items_file), **_reading(program, answer)}
    traced, shapes = trace(program)
    if kind == "onnx":
        content, exported = _onnx(traced, shapes, about)
    else:
        content, exported = _torch_export(traced, about)
    parity = check_parity(exported, source.ranker, parts, answer, program.longest)
    _write(out, content, items_file, source)
    return [
        f"{len(content):,} bytes; items in {items_file.name}",
        f"input: {about['input']}, at most {program.longest} of them",
        f"output: {about['output']}",
        parity,
    ]


def trace(program: RankerProgram) -> tuple[ExportedProgram, tuple[dict[int, Any], ...]]:
    """The program as torch traces it, for any number of histories, and its dynamic shapes."""
    sizes: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_SEQUENCES)}
    if program.longest > 1:
        sizes[1] = Dim("length", min=1, max=program.longest)
    example = torch.full((3, min(2, program.longest)), 0)
    with torch.no_grad(), _quiet():
        traced = torch.export.export(program, (example,), dynamic_shapes=(sizes,), strict=False)
    return traced, (sizes,)


def _check_onnx() -> None:
    """Raise `InputError` unless the packages that write and run ONNX are installed."""
    with optional_import(
        ("onnx", "onnxruntime", "onnxscript", "onnx_ir"),
        "an export to ONNX",
        extra_remedy("onnx"),
    ):
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401


def _onnx(
    traced: ExportedProgram, shapes: tuple[dict[int, Any], ...], about: dict[str, object]
) -> tuple[bytes, Exported]:
    """The program as the bytes of an ONNX file, and those bytes run by ONNX Runtime."""
    import onnxruntime

    size = sum(tensor.nbytes for tensor in traced.state_dict.values())
    if size > ONNX_BYTES:
        raise InputError(
            f"the model has {size:,} bytes, and a file of ONNX at most {ONNX_BYTES:,}; use "
            "--format torch-export"
        )
    outputs = [SCORES] if about["k"] is None else [SCORES, BEST]
    with _quiet():
        written = torch.onnx.export(
            traced,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[INPUT],
            output_names=outputs,
            verbose=False,
        )
        assert written is not None, "the exporter returns a program where it writes no file"
        written.model.metadata_props[KEY] = json.dumps(about)
        content: bytes = written.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(table_BL: Tensor) -> tuple[Tensor, ...]:
        found = session.run(outputs, {INPUT: table_BL.numpy()})
        return tuple(torch.from_numpy(output) for output in found)

    return content, run


def _torch_export(traced: ExportedProgram, about: dict[str, object]) -> tuple[bytes, Exported]:
    """The program as the bytes of a .pt2 file, and those bytes run by torch."""
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(traced, buffer, extra_files={KEY: json.dumps(about)})
        content = buffer.getvalue()
        module = torch.export.load(io.BytesIO(content)).module()

    def run(table_BL: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found: Tensor | tuple[Tensor, Tensor] = module(table_BL)
        return (found,) if isinstance(found, Tensor) else found

    return content, run


def _about(source: ExportedRun, items_file: Path) -> dict[str, object]:
    """What the metadata of every file say of the run."""
    corpus = source.parts.corpus
    config = without_home(to_json(source.parts.config))
    return {
        "run": source.run.name,
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "num_items": corpus.num_items,
        "items": items_file.name,
        "config": config,
    }


def _reading(program: RankerProgram, answer: Answer) -> dict[str, object]:
    """What the metadata of a program say of its input and output."""
    output = f"{SCORES}: float32 [batch, {program.num_items}], of every item by its number"
    if answer.k is not None:
        seen = "with" if answer.keep_seen else "without"
        output = (
            f"{SCORES}: float32 [batch, {answer.k}], and {BEST}: int64 [batch, {answer.k}], "
            f"the numbers of the best items, best first, {seen} those of the history"
        )
    return {
        "input": (
            f"{INPUT}: int64 [batch, length], the numbers of a history's newest items, oldest "
            f"first, then {PADDING} up to the longest history of the batch"
        ),
        "output": output,
        "refused": (
            f"a row without items, with {PADDING} before an item, or with a number that is neither "
            f"an item's nor {PADDING}, has {SCORES} NaN"
            + (f" and {BEST} {PADDING}" if answer.k is not None else "")
        ),
        "longest": program.longest,
        "padding": PADDING,
        "padding_side": "right",
        "k": answer.k,
        "seen": None if answer.k is None else "kept" if answer.keep_seen else "excluded",
    }


def _items_file_of(out: Path) -> Path:
    """The path of the items' file beside `out`; `InputError` where either exists."""
    items_file = out.with_name(f"{out.name}.items.csv")
    check_free(out, items_file)
    return items_file


def _write(out: Path, content: bytes, items_file: Path, source: ExportedRun) -> None:
    write_items(items_file, source.parts.corpus)
    with replacing(out) as file:
        file.write(content)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's exporters, which are about their own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

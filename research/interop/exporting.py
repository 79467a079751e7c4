"""A run's model in the form that a format names: a program, weights, or a folder of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from research.interop.hub import export_hub
from research.interop.model_files import ExportedRun, export_program, export_weights
from research.interop.program import Answer

# What the model of any run can be exported as.
ModelFormat = Literal["onnx", "torch-export", "safetensors", "hub"]


def export_model(
    source: ExportedRun, out: Path, format: ModelFormat, *, answer: Answer, license: str | None
) -> list[str]:
    """Write the model to `out`, checked by its format's own rules; returns lines to print.

    `answer` is for programs, and `license`, that of the weights (None: unknown), for `hub`.
    `InputError` when `out` exists, the format cannot hold this run, or a check fails; then nothing
    is written.
    """
    if format == "safetensors":
        return export_weights(source, out)
    if format == "hub":
        return export_hub(source, out, license)
    return export_program(source, out, format, answer)

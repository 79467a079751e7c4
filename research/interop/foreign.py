"""What the formats of other programs share: their tensors are rows of our parameters.

One table of `Entry`s serves import and, where there is one, export; both are exact.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.storage.records import KeyRecord
from research.training.config import StageConfig

STAGE = "imported"
_MAX_NAMED = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """One tensor of the format; its row `file_rows[i]` is row `parameter_rows[i]` of ours."""

    key: str
    """Key of the tensor in the format."""
    shape: tuple[int, ...]
    """Shape of the tensor in the format."""
    file_rows: Tensor
    """int64: rows of that tensor; those that have no place here are not among them."""
    parameter: str
    """Name of our parameter."""
    parameter_shape: tuple[int, ...]
    """Shape of our parameter, all of its rows counted."""
    parameter_rows: Tensor
    """int64: the corresponding rows of our parameter."""
    description: str
    """Our parameter and its rows, in words, for the report."""


class ForeignModel(ABC):
    """Abstract: a state dict of another program whose keys and shapes have been checked."""

    @property
    @abstractmethod
    def encoder(self) -> TransformerConfig:
        """The config of the encoder that computes what that program does."""

    @property
    @abstractmethod
    def stage(self) -> StageConfig:
        """The stage of the imported run: never trained here."""

    @abstractmethod
    def table(self, corpus: Corpus) -> list[Entry]:
        """The table of its tensors; `InputError` when they do not fit the corpus."""

    @abstractmethod
    def weights(self, state: Mapping[str, Tensor], table: list[Entry]) -> dict[str, Tensor]:
        """All of our parameters by name, from the float32 tensors."""

    @abstractmethod
    def places(self, table: list[Entry]) -> Mapping[str, str]:
        """What becomes of each key, in words."""

    @abstractmethod
    def kept(self, state: Mapping[str, Tensor]) -> Mapping[str, Mapping[str, Tensor]]:
        """Tensors that are kept aside, by the file of the run folder and their keys; or none."""

    def remarks(self) -> tuple[str, ...]:
        """Remarks for the user, by default none."""
        return ()

    def keys(self, raw_state: Mapping[str, Tensor], table: list[Entry]) -> tuple[KeyRecord, ...]:
        """The report on every key of the file, in its order."""
        places = self.places(table)
        return tuple(
            KeyRecord(key=key, shape=tuple(tensor.shape), place=places[key])
            for key, tensor in raw_state.items()
        )


def rows_in_parameter(parameter: str, size: int, third: int) -> tuple[int, Tensor, str]:
    """Where the `size` rows of a file's dense layer, norm or bias go in a parameter of ours.

    Returns the parameter's number of rows, the rows in it (int64 [size]), and words for the report.
    Queries, keys and values are thirds of one parameter here, and `third` says which it is.
    """
    rows = torch.arange(size)
    if ".qkv." not in parameter:
        return size, rows, parameter
    rows += third * size
    return 3 * size, rows, f"{parameter}, rows {int(rows[0])} to {int(rows[-1])}"


def to_parameters(
    state: Mapping[str, Tensor], table: list[Entry], zeroed: Collection[str] = ()
) -> dict[str, Tensor]:
    """Our parameters by name, all rows filled, from a checked state dict.

    Rows that the file lacks are zeros in the parameters `zeroed`; no other may have such rows.
    """
    weights: dict[str, Tensor] = {}
    for entry in table:
        if entry.parameter not in weights:
            initial = 0.0 if entry.parameter in zeroed else torch.nan
            weights[entry.parameter] = torch.full(entry.parameter_shape, initial)
        weights[entry.parameter][entry.parameter_rows] = state[entry.key][entry.file_rows]
    assert not any(bool(weight.isnan().any()) for weight in weights.values()), "a row is left out"
    return weights


def num_layers(state: Mapping[str, Tensor], block: re.Pattern[str]) -> int:
    """The number of layers that the keys of a state dict name, at least 1."""
    matches = [block.fullmatch(key) for key in state]
    return max(1, len({match[1] for match in matches if match is not None}))


def check_keys(
    state: Mapping[str, Tensor], expected: list[str], path: Path, kind: str, layers: int
) -> None:
    """Raise `InputError` unless a state dict has these keys and no other."""
    missing = [key for key in expected if key not in state]
    unknown = [key for key in state if key not in expected]
    problems = []
    if missing:
        problems.append(f"no key {_first_keys(missing)}")
    if unknown:
        problems.append(f"unknown key {_first_keys(unknown)}")
    if problems:
        raise InputError(
            f"{path} is no {kind} state dict of {layers} layer(s): {'; '.join(problems)}; it must "
            f"have these {len(expected)} keys and no other, from {expected[0]} to {expected[-1]}"
        )


def _first_keys(keys: list[str]) -> str:
    shown = ", ".join(
        key if key.isprintable() and len(key) < 100 else f"{key!r:.100}"
        for key in keys[:_MAX_NAMED]
    )
    further = len(keys) - _MAX_NAMED
    return f"{shown} and {further} more" if further > 0 else shown


def check_shapes(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path, beside: str
) -> None:
    """Raise `InputError` for a tensor of another shape; `beside` names those that say the sizes."""
    for key, shape in shapes.items():
        if tuple(state[key].shape) != shape:
            raise InputError(
                f"{path}: {key} has shape {tuple(state[key].shape)}; allowed beside {beside}: "
                f"{shape}; use another checkpoint"
            )


def check_tables(state: Mapping[str, Tensor], least_rows: Mapping[str, int], path: Path) -> None:
    """Raise `InputError` unless these tensors have two dimensions and at least so many rows."""
    for key, least in least_rows.items():
        shape = tuple(state[key].shape)
        if len(shape) != 2 or min(shape) < 1 or shape[0] < least:
            raise InputError(
                f"{path}: {key} has shape {shape}; allowed: two dimensions, at least ({least}, 1); "
                "use another checkpoint"
            )


def check_heads(width: int, heads: int, path: Path, hint: str = "") -> None:
    """Raise `InputError` unless the width is a multiple of `heads`, which is at least 1."""
    if heads < 1 or width % heads:
        raise InputError(
            f"--heads is {heads}; allowed: divisors of the width {width} of {path}; the file "
            f"does not say{hint}"
        )

"""Transfers weights into a stage from an earlier stage or run, and reports on every parameter.

A parameter goes to the one of the same name. Where two vocabularies differ, rows of items and of
attributes are matched by raw name; the other rows keep their initial values. The report leaves
nothing out (docs/pitfalls.md, "pretraining silently missing").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from research.errors import InputError

# Endings of the names of parameters that have one row for each item, or for each attribute.
ITEM_ROWS = ("item_table.weight", "item_bias")
ATTRIBUTE_ROWS = ("attribute_table.weight",)


@dataclass(frozen=True, eq=False)
class RowMatch:
    """Which rows of an old vocabulary are which of a new one; N names are in both."""

    old: NDArray[np.int64]
    """int64 [N]: ids of these names in the old vocabulary."""
    new: NDArray[np.int64]
    """int64 [N]: ids of these names in the new vocabulary."""
    num_old: int
    """Size of the old vocabulary."""
    num_new: int
    """Size of the new vocabulary."""

    @staticmethod
    def of(old: Sequence[str], new: Sequence[str]) -> RowMatch:
        """Match the names that are in both vocabularies; each is raw names in the order of ids."""
        new_index = {name: index for index, name in enumerate(new)}
        pairs = [(index, new_index[name]) for index, name in enumerate(old) if name in new_index]
        both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return RowMatch(both[:, 0], both[:, 1], len(old), len(new))

    @property
    def counts(self) -> dict[str, int]:
        """How many rows were matched, keep their initial values ("fresh"), and were left behind."""
        matched = len(self.old)
        return {
            "matched": matched,
            "fresh": self.num_new - matched,
            "left": self.num_old - matched,
        }


@dataclass(frozen=True, eq=False)
class TransferReport:
    """Where each parameter came from when weights were transferred into a stage."""

    moved: Mapping[str, tuple[str, ...]]
    """By source, the names of the parameters that came from it."""
    new: tuple[str, ...]
    """Names of parameters that no source has; they keep their initial values."""
    left: tuple[str, ...]
    """Names of a source's parameters that this stage does not have."""
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """For "items" and "attributes", where their vocabularies differ: `RowMatch.counts`."""

    def combined_with(self, earlier: TransferReport) -> TransferReport:
        """Return the report on two transfers, of which this one came after `earlier`.

        A parameter that both filled came from this one's source.
        """
        own_names = {name for names in self.moved.values() for name in names}
        earlier_moved = {
            source: tuple(name for name in names if name not in own_names)
            for source, names in earlier.moved.items()
        }
        moved = {source: names for source, names in earlier_moved.items() if names} | dict(
            self.moved
        )
        all_names = own_names | {name for names in earlier_moved.values() for name in names}
        return TransferReport(
            moved=moved,
            new=tuple(name for name in self.new if name not in all_names),
            left=tuple(dict.fromkeys((*earlier.left, *self.left))),
            rows={**earlier.rows, **self.rows},
        )

    @property
    def line(self) -> str:
        """The report as one line for the terminal."""
        from_each = [f"{len(names)} from {source}" for source, names in self.moved.items()]
        parts = [f"parameters moved: {', '.join(from_each)}"]
        parts += (
            [f"newly initialized: {', '.join(self.new)}"]
            if self.new
            else ["none newly initialized"]
        )
        parts += [f"not used: {', '.join(self.left)}"] if self.left else []
        parts += [
            f"{kind}: {counts['matched']} matched by raw name, {counts['fresh']} new, "
            f"{counts['left']} not used"
            for kind, counts in self.rows.items()
        ]
        return "; ".join(parts)


def transfer_weights(
    weights: Mapping[str, Tensor],
    module: nn.Module,
    *,
    source: str,
    items: RowMatch | None = None,
    attributes: RowMatch | None = None,
) -> TransferReport:
    """Fill the module's parameters from those of the same name in `weights`, and return the report.

    `source` names where the weights come from. `items` and `attributes` are given where the
    vocabularies differ. `InputError` lists every shape that differs, and is raised too when
    `weights` has no parameter of the encoder.
    """
    parameters = dict(module.named_parameters())
    moved = tuple(name for name in parameters if name in weights)
    if not any(name.startswith("encoder.") for name in moved):
        raise InputError(f"{source} has none of the encoder's parameters; is it a trained run?")
    problems = []
    for name in moved:
        match = _match_of(name, items, attributes)
        parameter, tensor = parameters[name], weights[name]
        if match is None:
            if parameter.shape != tensor.shape:
                problems.append(_shape_mismatch(name, tensor, parameter))
            elif parameter is not tensor:
                with torch.no_grad():
                    parameter.copy_(tensor)
            continue
        # The mask's row comes after the rows of the items.
        extra_rows = len(parameter) - match.num_new
        if len(tensor) - match.num_old != extra_rows or tensor.shape[1:] != parameter.shape[1:]:
            problems.append(_shape_mismatch(name, tensor, parameter))
            continue
        with torch.no_grad():
            old, new = torch.from_numpy(match.old), torch.from_numpy(match.new)
            parameter[new.to(parameter.device)] = tensor[old].to(parameter)
            if extra_rows:
                parameter[-extra_rows:] = tensor[-extra_rows:].to(parameter)
    if problems:
        raise InputError(
            f"{source} does not fit this stage: {'; '.join(problems)}; give both the same sizes "
            "and heads, or start from another"
        )
    rows = {"items": items, "attributes": attributes}
    return TransferReport(
        moved={source: moved},
        new=tuple(name for name in parameters if name not in weights),
        left=tuple(name for name in weights if name not in parameters),
        rows={kind: match.counts for kind, match in rows.items() if match is not None},
    )


def _match_of(name: str, items: RowMatch | None, attributes: RowMatch | None) -> RowMatch | None:
    if name.endswith(ITEM_ROWS):
        return items
    return attributes if name.endswith(ATTRIBUTE_ROWS) else None


def _shape_mismatch(name: str, tensor: Tensor, parameter: Tensor) -> str:
    return f"{name} has shape {tuple(tensor.shape)}, expected {tuple(parameter.shape)}"

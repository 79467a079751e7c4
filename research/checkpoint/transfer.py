"""Weights from one stage into the next, or from an earlier run, with an account of every parameter.

A parameter moves to the one of the same name. Where two vocabularies differ, rows of items and of
attributes move by raw name; the others keep their initial values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from research.errors import InputError

# The last parts of the names of parameters that have a row an item, or an attribute.
ITEM_ROWS = ("item_table.weight", "item_bias")
ATTRIBUTE_ROWS = ("attribute_table.weight",)


@dataclass(frozen=True, eq=False)
class RowMatch:
    """Which rows of an old vocabulary are which of a new one."""

    old: NDArray[np.int64]
    """[N]: ids in the old vocabulary."""
    new: NDArray[np.int64]
    """[N]: the same things' ids in the new one."""
    num_old: int
    num_new: int

    @staticmethod
    def of(old: Sequence[str], new: Sequence[str]) -> RowMatch:
        """Match by raw name."""
        place = {name: index for index, name in enumerate(new)}
        pairs = [(index, place[name]) for index, name in enumerate(old) if name in place]
        both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        return RowMatch(both[:, 0], both[:, 1], len(old), len(new))

    @property
    def counts(self) -> dict[str, int]:
        """How many were matched, freshly initialized, and left behind."""
        matched = len(self.old)
        return {
            "matched": matched,
            "fresh": self.num_new - matched,
            "left": self.num_old - matched,
        }


@dataclass(frozen=True, eq=False)
class Carried:
    """What became of every parameter of a stage."""

    moved: Mapping[str, tuple[str, ...]]
    """By source, the parameters that came from it."""
    new: tuple[str, ...]
    """Parameters that no source has: they keep their initial values."""
    left: tuple[str, ...]
    """Parameters of a source that have no place here."""
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Where vocabularies differ: counts of items and of attributes."""

    def over(self, earlier: Carried) -> Carried:
        """The account of both, when this was carried after `earlier`."""
        ours = {name for names in self.moved.values() for name in names}
        theirs = {
            source: tuple(name for name in names if name not in ours)
            for source, names in earlier.moved.items()
        }
        moved = {source: names for source, names in theirs.items() if names} | dict(self.moved)
        known = ours | {name for names in theirs.values() for name in names}
        return Carried(
            moved=moved,
            new=tuple(name for name in self.new if name not in known),
            left=tuple(dict.fromkeys((*earlier.left, *self.left))),
            rows={**earlier.rows, **self.rows},
        )

    @property
    def line(self) -> str:
        """For the terminal."""
        from_each = [f"{len(names)} from {source}" for source, names in self.moved.items()]
        parts = [f"parameters moved: {', '.join(from_each)}"]
        parts += [f"newly made: {', '.join(self.new)}"] if self.new else ["none newly made"]
        parts += [f"left behind: {', '.join(self.left)}"] if self.left else []
        parts += [
            f"{kind}: {counts['matched']} matched by raw name, {counts['fresh']} fresh, "
            f"{counts['left']} left behind"
            for kind, counts in self.rows.items()
        ]
        return "; ".join(parts)


def carry(
    weights: Mapping[str, Tensor],
    module: nn.Module,
    *,
    source: str,
    items: RowMatch | None = None,
    attributes: RowMatch | None = None,
) -> Carried:
    """Fill the module's parameters from `weights`; `InputError` lists every shape that differs.

    `items` and `attributes` are given where the vocabularies differ.
    """
    wanted = dict(module.named_parameters())
    moved = tuple(name for name in wanted if name in weights)
    if not any(name.startswith("encoder.") for name in moved):
        raise InputError(f"{source} has none of the encoder's parameters; is it a trained run?")
    problems = []
    for name in moved:
        match = _match_of(name, items, attributes)
        parameter, given = wanted[name], weights[name]
        if match is None:
            if parameter.shape != given.shape:
                problems.append(_differing(name, given, parameter))
            elif parameter is not given:
                with torch.no_grad():
                    parameter.copy_(given)
            continue
        # The mask's row stands after the items'.
        further = len(parameter) - match.num_new
        if len(given) - match.num_old != further or given.shape[1:] != parameter.shape[1:]:
            problems.append(_differing(name, given, parameter))
            continue
        with torch.no_grad():
            old, new = torch.from_numpy(match.old), torch.from_numpy(match.new)
            parameter[new.to(parameter.device)] = given[old].to(parameter)
            if further:
                parameter[-further:] = given[-further:].to(parameter)
    if problems:
        raise InputError(
            f"{source} does not fit this stage: {'; '.join(problems)}; give both the same sizes "
            "and heads, or start from another"
        )
    rows = {"items": items, "attributes": attributes}
    return Carried(
        moved={source: moved},
        new=tuple(name for name in wanted if name not in weights),
        left=tuple(name for name in weights if name not in wanted),
        rows={kind: match.counts for kind, match in rows.items() if match is not None},
    )


def _match_of(name: str, items: RowMatch | None, attributes: RowMatch | None) -> RowMatch | None:
    if name.endswith(ITEM_ROWS):
        return items
    return attributes if name.endswith(ATTRIBUTE_ROWS) else None


def _differing(name: str, given: Tensor, wanted: Tensor) -> str:
    return f"{name} has shape {tuple(given.shape)}, expected {tuple(wanted.shape)}"

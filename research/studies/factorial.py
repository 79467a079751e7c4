"""`Grid`: the cells of a factorial study, and which level of every factor each of them has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

from research.errors import InputError
from research.runs.config import RunConfig


@final
class Grid(Mapping[str, RunConfig]):
    """The cells of crossed factors, by name; `research.studies.cells.grid` makes one.

    Cells beside the grid are added by `|`, as in `grid(...) | {"popularity": popularity()}`; they
    have no levels. A copy of the cells into a dict does not know the factors, and a study of it
    reports no effects.
    """

    def __init__(
        self,
        cells: Mapping[str, RunConfig],
        factors: Mapping[str, tuple[str, ...]],
        levels: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._cells = dict(cells)
        self.factors = factors
        """The names of each factor's levels, by factor."""
        self.levels = levels
        """The level of every factor, by cell and factor. The base's level of a factor is its own
        cell's name where the base has none of the factor's levels."""

    def __getitem__(self, cell: str) -> RunConfig:
        return self._cells[cell]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)

    def __or__(self, others: Mapping[str, RunConfig]) -> Grid:
        """The grid with further cells after its own; `InputError` for a name that it has."""
        return Grid(self._united(self._cells, others), self.factors, self.levels)

    def __ror__(self, others: Mapping[str, RunConfig]) -> Grid:
        """The grid with further cells before its own; `InputError` for a name that it has."""
        return Grid(self._united(others, self._cells), self.factors, self.levels)

    def __repr__(self) -> str:
        factors = " x ".join(f"{name} ({', '.join(level)})" for name, level in self.factors.items())
        return f"Grid of {len(self)} cells: {factors}"

    @staticmethod
    def _united(
        first: Mapping[str, RunConfig], second: Mapping[str, RunConfig]
    ) -> dict[str, RunConfig]:
        both = sorted(first.keys() & second.keys())
        if both:
            raise InputError(f"the grid has a cell {both[0]} already; give the other another name")
        return {**first, **second}

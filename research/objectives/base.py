"""What every objective is: integers to predict, drawn beforehand, and a sum of losses over states.

An objective works in two halves. `targets` draws and looks up all integers of a batch, before
anything is encoded; `loss` is floating-point work alone. The loop knows `Objective` and `LossSum`
only. An objective is one file in this folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from research.config import check_types
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.errors import InputError
from research.model.item_table import ItemTable
from research.objectives.components import ModelComponents
from research.objectives.head import Head
from research.packed import Packed

SomeTargets = TypeVar("SomeTargets", bound="Targets")


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How much of what was counted is right, before any division."""

    correct: Tensor
    """Scalar float64, without a graph."""
    count: Tensor
    """Scalar float64; may be 0."""


@dataclass(frozen=True, eq=False)
class LossSum:
    """A loss before any division."""

    total: Tensor
    """Scalar, attached to the graph: the sum over what is counted."""
    count: Tensor
    """Scalar float64: how many things were summed; may be 0."""
    accuracy: Accuracy | None = None
    """How much of it is right, in a step that measures."""


@dataclass(frozen=True, eq=False)
class View:
    """What the encoder sees of a batch, and which of its tokens a corruption picked."""

    packed: Packed
    """Corrupted sequences, row by row: those of the batch's row 0 first, then those of row 1."""
    row_S: Tensor
    """int64 [S], ascending: the batch's row of each sequence. A row may have none, or several."""
    num_rows: int
    """R: rows of the batch."""
    picked_P: Tensor
    """int64 [P], ascending: tokens of `packed` that the corruption picked."""
    items_P: Tensor
    """int64 [P]: the item that belongs there; empty where picks are compared with one another."""

    @staticmethod
    def of_rows(packed: Packed, picked_P: Tensor, items_P: Tensor) -> View:
        """A view that has one sequence a row."""
        rows_S = torch.arange(packed.num_sequences, device=packed.offsets.device)
        return View(packed, rows_S, packed.num_sequences, picked_P, items_P)

    @cached_property
    def row_P(self) -> Tensor:
        """int64 [P]: the batch's row of each picked token."""
        return self.row_S[self.packed.owner_T[self.picked_P]]

    def row_offsets(self, tokens_P: Tensor) -> Tensor:
        """int64 [R + 1]: where each row's tokens stand among `tokens_P` (ascending)."""
        rows_R = torch.arange(self.num_rows + 1, device=tokens_P.device)
        starts_R = self.packed.offsets[torch.searchsorted(self.row_S, rows_R)]
        return torch.searchsorted(tokens_P, starts_R)

    def cut(self, first: int, last: int) -> tuple[View, int]:
        """The view of the rows from `first` to before `last`, and its first token's number here."""
        bounds = torch.searchsorted(self.row_S, self.row_S.new_tensor([first, last]))
        begin, end = bounds.tolist()
        tokens = self.packed.offsets[bounds].tolist()
        places = torch.searchsorted(self.picked_P, self.picked_P.new_tensor(tokens)).tolist()
        picked = slice(places[0], places[1])
        view = View(
            self.packed.between((begin, end), (tokens[0], tokens[1])),
            self.row_S[begin:end] - first,
            last - first,
            self.picked_P[picked] - tokens[0],
            self.items_P[picked],
        )
        return view, tokens[0]


# How the fields of a class of `Targets` are cut, each given as `field(metadata=...)`: the first
# axis is the batch's rows, the tokens that are read, or the offsets of what is ragged over those;
# or the field belongs to no row and every piece of a batch has the whole of it.
PER_ROW = MappingProxyType({"axis": "R"})
PER_READ = MappingProxyType({"axis": "P"})
OFFSETS_OF_READS = MappingProxyType({"axis": "P + 1"})
WHOLE = MappingProxyType({"axis": "whole"})


def ragged(offsets: str) -> Mapping[str, str]:
    """The metadata of a field with several entries a read token, cut by the field `offsets`."""
    return {"axis": offsets}


@dataclass(frozen=True, eq=False, kw_only=True)
class Targets:
    """What a loss compares with states: integers alone, in the order of the batch's rows.

    A class of its own beside each objective adds the integers that its loss needs, each of them a
    tensor (or None) whose metadata is PER_ROW, PER_READ, OFFSETS_OF_READS, WHOLE or `ragged(...)`.
    """

    read_P: Tensor = field(metadata=MappingProxyType({"axis": "tokens"}))
    """int64 [P], ascending: the view's tokens whose states the loss is given, in this order."""
    offsets_R: Tensor = field(metadata=MappingProxyType({"axis": "R + 1"}))
    """int64 [R + 1]: where each row's read tokens begin; the last entry is P."""
    counts_R: Tensor = field(metadata=PER_ROW)
    """float64 [R]: how much each row counts (how many things the loss sums for it)."""

    def __post_init__(self) -> None:
        for part in fields(self):
            value, place = vars(self)[part.name], f"{type(self).__name__}.{part.name}"
            assert "axis" in part.metadata, (
                f"{place} must say by its metadata how it is cut: PER_ROW, PER_READ, "
                "OFFSETS_OF_READS, WHOLE or ragged(...)"
            )
            kind = torch.float64 if part.name == "counts_R" else torch.int64
            assert value is None or value.dtype == kind, (
                f"{place} is of {value.dtype}; targets are integers (int64), of which a loss makes "
                "what it needs"
            )

    @property
    def count(self) -> Tensor:
        """Scalar float64: how many things the loss sums."""
        return self.counts_R.sum()

    @property
    def row_P(self) -> Tensor:
        """int64 [P]: the batch's row of each read token."""
        rows_R = torch.arange(len(self.offsets_R) - 1, device=self.offsets_R.device)
        return torch.repeat_interleave(rows_R, self.offsets_R.diff(), output_size=len(self.read_P))

    def cut(self: SomeTargets, first: int, last: int, token: int) -> SomeTargets:
        """The rows from `first` to before `last` of a view that begins at the token `token`."""
        begin, end = self.offsets_R[[first, last]].tolist()

        def piece(name: str, axis: str) -> Tensor:
            values: Tensor = vars(self)[name]
            if axis == "tokens":
                return values[begin:end] - token
            if axis == "R":
                return values[first:last]
            if axis == "P":
                return values[begin:end]
            if axis == "whole":
                return values
            if axis in ("R + 1", "P + 1"):
                start, stop = (first, last) if axis == "R + 1" else (begin, end)
                return values[start : stop + 1] - values[start]
            start, stop = vars(self)[axis][[begin, end]].tolist()
            return values[start:stop]

        axes = {part.name: part.metadata["axis"] for part in fields(self)}
        pieces = {
            name: piece(name, axis) for name, axis in axes.items() if vars(self)[name] is not None
        }
        return replace(self, **pieces)


class Corruption(ABC):
    """Abstract; a frozen dataclass below. Equal corruptions share one encoding."""

    causal: ClassVar[bool] = False
    """Whether its views are read from the oldest to the newest token, or from both sides."""
    fields: ClassVar[tuple[str, ...]] = ()
    """Fields of `Packed` that it sets and that an encoder must read, else it would be lost."""

    @abstractmethod
    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The corrupted batch; a pure function of the batch and its random states."""


class Objective(nn.Module, ABC):
    """Abstract. Owns its projections; never moves devices, never sees step or rank."""

    corruption: Corruption

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """By what a row's loss depends on other rows: items that they offer, or their states.

        None: it does not, and a batch may be cut into pieces as one likes.
        """
        return None

    @property
    def most_candidates(self) -> int:
        """Most items that are scored for a token, apart from the whole catalogue at once."""
        return 0

    @abstractmethod
    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """All integers that the loss of a view needs; a pure function, no parameter is read.

        Draws are keyed by `batch.states_S`, a token's by its place in the row from the oldest.
        """

    @abstractmethod
    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Scalar: the sum of the losses; `states_PD` are those of the tokens `targets.read_P`.

        Nothing is drawn here, and nothing is read back to the host.
        """

    def loss_among(
        self, targets: Targets, states_PD: Tensor, items: ItemTable, others_QD: Tensor
    ) -> Tensor:
        """As `loss`, given the states of the other processes' rows too, in the order of ranks.

        An objective that couples rows by "states" must have it, no other is asked; `others_QD` is
        empty on one process.
        """
        raise NotImplementedError(
            f"{type(self).__name__} couples rows by 'states' and has no loss_among"
        )

    def offered(self, view: View, batch: Batch) -> Tensor:
        """int64 [N]: item ids that the batch's rows offer to those of all processes.

        An objective that couples rows by "items" must have it, no other is asked; `targets` finds
        those of all processes in `batch.offered`.
        """
        raise NotImplementedError(f"{type(self).__name__} couples rows by 'items' and offers none")

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy | None:
        """How much of what is asked is answered rightly; called without gradients. None: unsaid."""
        return None

    def shared(self) -> dict[str, nn.Module]:
        """The parts of `ModelComponents`, by name, that the objective holds beside its own."""
        return {}

    def emptiness(self, longest: int, catalogue: Catalogue) -> str | None:
        """Why nothing can be counted where the longest row has `longest` items; None: it can."""
        return None


class RankingObjective(Objective):
    """Abstract: an objective whose head can also rank all items for a history."""

    head: Head

    @abstractmethod
    def ranking_view(self, histories: Packed, length: int, num_items: int) -> View:
        """What an encoder of `length` items reads of histories of any length.

        One picked token a sequence; all fields of the histories are kept.
        """


def able_to_rank(objectives: Mapping[str, nn.Module]) -> dict[str, RankingObjective]:
    """The objectives that can rank, by key."""
    return {key: part for key, part in objectives.items() if isinstance(part, RankingObjective)}


class ObjectiveConfig(ABC):
    """Abstract; a frozen dataclass beside each objective, with at least a `weight`."""

    weight: float

    def __post_init__(self) -> None:
        check_types(self)
        if "weight" not in vars(self):
            raise InputError(f"{type(self).__name__} has no field weight: float")

    @abstractmethod
    def build(self, shared: ModelComponents, seed: int) -> Objective:
        """The objective's module, its start a function of the seed alone."""

"""The interface of every objective: integer targets, drawn beforehand, and a summed loss.

An objective works in two halves. `targets` makes all draws and lookups of a batch before anything
is encoded; `loss` does floating-point work alone, on the encoder's states. The training loop knows
only `Objective` and `LossSum`. Each objective is one file in this folder.
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
    """An accuracy before its division: how many predictions are right, out of how many."""

    correct: Tensor
    """Scalar float64, without a graph: right predictions; one that is partly right adds a
    fraction."""
    count: Tensor
    """Scalar float64: number of predictions that were scored; may be 0."""


@dataclass(frozen=True, eq=False)
class LossSum:
    """A loss before any division."""

    total: Tensor
    """Scalar, attached to the graph: the sum of the losses."""
    count: Tensor
    """Scalar float64: how many targets the sum covers, by which it is divided later; may be 0."""
    accuracy: Accuracy | None = None
    """The accuracy on the same targets; None: not measured in this step, or not defined."""


@dataclass(frozen=True, eq=False)
class View:
    """The corrupted batch that the encoder sees, and the tokens that the corruption picked."""

    packed: Packed
    """Corrupted sequences, row by row: those of the batch's row 0 first, then those of row 1."""
    row_S: Tensor
    """int64 [S], ascending: the batch's row that each sequence comes from; a row may have no
    sequence, or several."""
    num_rows: int
    """R: rows of the batch."""
    picked_P: Tensor
    """int64 [P], ascending: indices of the tokens of `packed` that the corruption picked."""
    items_P: Tensor
    """int64 [P]: the true item at each picked token; int64 [0] where an objective compares the
    picked states with one another and needs no items."""

    @staticmethod
    def of_rows(packed: Packed, picked_P: Tensor, items_P: Tensor) -> View:
        """A view in which sequence s comes from row s: exactly one sequence for each row."""
        rows_S = torch.arange(packed.num_sequences, device=packed.offsets.device)
        return View(packed, rows_S, packed.num_sequences, picked_P, items_P)

    @cached_property
    def row_P(self) -> Tensor:
        """int64 [P]: the batch's row that each picked token belongs to."""
        return self.row_S[self.packed.owner_T[self.picked_P]]

    def row_offsets(self, tokens_P: Tensor) -> Tensor:
        """int64 [R + 1]: where each row's tokens begin in `tokens_P`; the last entry is P.

        `tokens_P` are indices of tokens of `packed`, ascending.
        """
        rows_R = torch.arange(self.num_rows + 1, device=tokens_P.device)
        starts_R = self.packed.offsets[torch.searchsorted(self.row_S, rows_R)]
        return torch.searchsorted(tokens_P, starts_R)

    def cut(self, first: int, last: int) -> tuple[View, int]:
        """The view of the rows from `first` to before `last`, and where it begins in this one.

        The second result is the index in this view's `packed` of the cut view's first token.
        """
        bounds = torch.searchsorted(self.row_S, self.row_S.new_tensor([first, last]))
        begin, end = bounds.tolist()
        tokens = self.packed.offsets[bounds].tolist()
        first_pick, end_of_picks = torch.searchsorted(
            self.picked_P, self.picked_P.new_tensor(tokens)
        ).tolist()
        picked = slice(first_pick, end_of_picks)
        view = View(
            self.packed.between((begin, end), (tokens[0], tokens[1])),
            self.row_S[begin:end] - first,
            last - first,
            self.picked_P[picked] - tokens[0],
            self.items_P[picked],
        )
        return view, tokens[0]


# How `Targets.cut` cuts a field into micro-batches, declared by `field(metadata=...)`: the field's
# first axis is the batch's rows (PER_ROW), the read tokens (PER_READ), or the offsets of a list
# that is ragged over the read tokens (OFFSETS_OF_READS). A field that belongs to no row is not cut:
# every micro-batch has all of it (WHOLE).
PER_ROW = MappingProxyType({"axis": "R"})
PER_READ = MappingProxyType({"axis": "P"})
OFFSETS_OF_READS = MappingProxyType({"axis": "P + 1"})
WHOLE = MappingProxyType({"axis": "whole"})


def ragged(offsets: str) -> Mapping[str, str]:
    """The metadata of a field with any number of entries for each read token.

    `offsets` names the field, declared by OFFSETS_OF_READS, that says where each token's begin.
    """
    return {"axis": offsets}


@dataclass(frozen=True, eq=False, kw_only=True)
class Targets:
    """The integers that a loss needs beside the states, in the order of the batch's rows.

    Each objective's subclass adds the integers of its own loss. Each is a tensor (or None) whose
    metadata is PER_ROW, PER_READ, OFFSETS_OF_READS, WHOLE or `ragged(...)`.
    """

    read_P: Tensor = field(metadata=MappingProxyType({"axis": "tokens"}))
    """int64 [P], ascending: indices of the view's tokens whose states the loss gets, in this
    order."""
    offsets_R: Tensor = field(metadata=MappingProxyType({"axis": "R + 1"}))
    """int64 [R + 1]: where each row's read tokens begin; the last entry is P."""
    target_counts_R: Tensor = field(metadata=PER_ROW)
    """float64 [R]: how many targets each row has, the row's part of the divisor of the loss."""

    def __post_init__(self) -> None:
        for part in fields(self):
            value, name = vars(self)[part.name], f"{type(self).__name__}.{part.name}"
            assert "axis" in part.metadata, (
                f"{name} must say by its metadata how it is cut: PER_ROW, PER_READ, "
                "OFFSETS_OF_READS, WHOLE or ragged(...)"
            )
            kind = torch.float64 if part.name == "target_counts_R" else torch.int64
            assert value is None or value.dtype == kind, (
                f"{name} is of {value.dtype}; targets are integers (int64), of which a loss makes "
                "what it needs"
            )

    @staticmethod
    def of_picked(view: View) -> Targets:
        """Reads the view's picked tokens; each of them is one target."""
        offsets_R = view.row_offsets(view.picked_P)
        return Targets(
            read_P=view.picked_P, offsets_R=offsets_R, target_counts_R=offsets_R.diff().double()
        )

    @property
    def count(self) -> Tensor:
        """Scalar float64: how many targets all rows have, the divisor of the loss."""
        return self.target_counts_R.sum()

    @property
    def row_P(self) -> Tensor:
        """int64 [P]: the batch's row that each read token belongs to."""
        rows_R = torch.arange(len(self.offsets_R) - 1, device=self.offsets_R.device)
        return torch.repeat_interleave(rows_R, self.offsets_R.diff(), output_size=len(self.read_P))

    def cut(self: SomeTargets, first: int, last: int, token: int) -> SomeTargets:
        """The targets of the rows from `first` to before `last`.

        `token` is the index of the first token of these rows, as `View.cut` returns it.
        """
        begin, end = self.offsets_R[[first, last]].tolist()

        def cut_field(name: str, axis: str) -> Tensor:
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
            name: cut_field(name, axis)
            for name, axis in axes.items()
            if vars(self)[name] is not None
        }
        return replace(self, **pieces)


class Corruption(ABC):
    """Abstract: how a clean batch becomes the encoder's input. A subclass is a frozen dataclass.

    Objectives with equal corruptions and the same rows share one view and its encoding.
    """

    causal: ClassVar[bool] = False
    """Whether the encoder reads its views causally (no token sees a newer one); False:
    bidirectionally."""
    hides_newest: ClassVar[bool] = False
    """Whether a bidirectional view reads the older L of L + 1 items, of which the newest is only
    predicted, as causal views do; False: it reads the newest L."""
    fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields of `Packed` that it sets. The encoder must read them, as the corruption
    would otherwise be lost."""

    @abstractmethod
    def view(self, batch: Batch, catalogue: Catalogue) -> View:
        """The corrupted batch: a pure function of the batch, its random states and the catalogue.

        No sequence may be longer than `batch.length`.
        """


class Objective(nn.Module, ABC):
    """Abstract: a loss on the encoder's hidden states, with the projections that it needs.

    It moves nothing between devices, and knows neither the step nor the process's rank. A parameter
    with a row for each item is called `item_table.weight` or `item_bias`, one with a row for each
    attribute `attribute_table.weight`, so that its rows can move to another catalogue.
    """

    corruption: Corruption

    @property
    def couples_rows(self) -> Literal["items", "states"] | None:
        """How a row's loss depends on other rows: by "items" that they offer, or by their "states".

        None: it does not. A batch coupled by "states" cannot be cut into micro-batches.
        """
        return None

    @property
    def max_candidates(self) -> int:
        """Most negatives that are scored one by one for a token, for estimates of memory.

        0: there are none; the whole catalogue, or the step's items, compete instead.
        """
        return 0

    @property
    def shared_negatives(self) -> int:
        """Negatives drawn once for all tokens of a step, for estimates of memory; 0: none are."""
        return 0

    @property
    def may_be_negative(self) -> bool:
        """Whether its loss can be below 0, so that no weight can be learned for it."""
        return False

    @abstractmethod
    def targets(self, view: View, batch: Batch, catalogue: Catalogue) -> Targets:
        """All integers that the loss of a view needs: a pure function that reads no parameter.

        A row's draws are keyed by `batch.random_states_S`, a token's also by its 0-based position
        in the row, counted from the oldest.
        """

    @abstractmethod
    def loss(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Tensor:
        """Scalar: the sum of the losses, from the states [P, D] of the tokens `targets.read_P`.

        It draws nothing and does not wait for the device.
        """

    def compared_states(self, targets: Targets, states_PD: Tensor) -> Tensor:
        """[N, E]: what rows are compared by, of this process's rows; by default the read states.

        It is called only where `couples_rows` is "states". E must be the same in all steps.
        """
        return states_PD

    def loss_with_other_rows(
        self, targets: Targets, compared_NE: Tensor, items: ItemTable, others_QE: Tensor
    ) -> Tensor:
        """Scalar: the sum of the losses, from the `compared_states` [N, E] of this process's rows.

        `others_QE` [Q, E] are those of the other processes in the order of their ranks, which are
        candidates too; with one process it is empty. It is called, and must be overridden, only
        where `couples_rows` is "states"; otherwise it raises `NotImplementedError`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} couples rows by 'states' and has no loss_with_other_rows"
        )

    def offered_items(self, view: View, batch: Batch) -> Tensor:
        """int64 [N]: item ids that the batch's rows offer as candidates to the rows of the step.

        `targets` finds the ids of all processes in `batch.offered_items`. It is called, and must be
        overridden, only where `couples_rows` is "items"; otherwise it raises `NotImplementedError`.
        """
        raise NotImplementedError(f"{type(self).__name__} couples rows by 'items' and offers none")

    def accuracy(self, targets: Targets, states_PD: Tensor, items: ItemTable) -> Accuracy | None:
        """The accuracy on these targets; None: not defined. It is called without gradients."""
        return None

    def shared_modules(self) -> dict[str, nn.Module]:
        """By name, the modules of `ModelComponents` that the objective uses beside its own."""
        return {}

    def no_target_reason(self, longest: int, catalogue: Catalogue) -> str | None:
        """Why no row can have a target, if the longest row has `longest` items; None: one can.

        It is called before the stage trains.
        """
        return None


class RankingObjective(Objective):
    """Abstract: an objective whose head can also rank all items for a history."""

    head: Head

    @abstractmethod
    def ranking_view(self, histories: Packed, length: int, num_items: int) -> View:
        """What an encoder of `length` items reads of histories of any length, to rank items.

        The view has one sequence for each history, whose picked token's state ranks the items. It
        keeps all fields of the histories. `num_items` is V, also the id of the mask.
        """


def able_to_rank(objectives: Mapping[str, nn.Module]) -> dict[str, RankingObjective]:
    """The objectives that can rank, by key."""
    return {key: part for key, part in objectives.items() if isinstance(part, RankingObjective)}


class ObjectiveConfig(ABC):
    """Abstract: a subclass is a frozen dataclass beside its objective, with at least a `weight`.

    `InputError` when a value has the wrong type or `weight` is absent.
    """

    weight: float

    def __post_init__(self) -> None:
        check_types(self)
        if "weight" not in vars(self):
            raise InputError(f"{type(self).__name__} has no field weight: float")

    @abstractmethod
    def build(self, components: ModelComponents, seed: int) -> Objective:
        """The objective's module; its initial weights depend on nothing but the seed."""

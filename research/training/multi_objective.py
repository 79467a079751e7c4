"""The encoder and objectives of a stage as one module, and what it needs of a batch.

`prepare` draws and looks up all integers that a step's losses need, before anything is encoded:
each corruption is applied once. `forward` then calls the encoder at most once a direction.
`MultiObjectiveModel` is the module that is wrapped for several processes, so everything
differentiable happens inside its one call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.data.windows import WindowsConfig
from research.model.attribute_embedding import AttributeTable
from research.model.backbone import Backbone
from research.model.kernels.upload import upload
from research.objectives.base import Corruption, LossSum, Objective, Targets, View
from research.packed import Packed
from research.training.combination import Combination, FixedWeights
from research.training.gather import Gather


@dataclass(frozen=True, eq=False)
class Encoding:
    """The input of one call of the encoder."""

    causal: bool
    """Whether a token's state depends on no newer token."""
    packed: Packed
    """All views of this direction, end to end."""
    read_P: Tensor | None
    """int64 [P], ascending: the tokens whose states an objective reads; None: all tokens."""


@dataclass(frozen=True, eq=False)
class Reads:
    """Where an objective finds its hidden states among those of an encoding."""

    encoding: int
    """Index of the encoding in `StepInputs.encodings`."""
    begin: int
    end: int
    """The states of its view are those from `begin` to before `end`."""
    places_P: Tensor | None
    """int64 [P]: which of the view's states it reads; None: all of them, in their order."""


@dataclass(frozen=True, eq=False)
class StepInputs:
    """The integers that one call of the model needs of a batch or micro-batch."""

    encodings: tuple[Encoding, ...]
    """At most one for each direction."""
    targets: Mapping[str, Targets]
    """By objective, what its loss compares states with."""
    reads: Mapping[str, Reads]
    """By objective, where it finds its states."""
    rows: Mapping[str, int]
    """By objective, how many rows of the batch it was shown."""

    def counts(self, key: str) -> tuple[float, float, float]:
        """Return three counts of an objective: things that its loss sums, rows, rows that count.

        A row counts if the loss sums at least one thing for it.
        """
        target_counts_R = self.targets[key].target_counts_R
        return (
            float(target_counts_R.sum()),
            float(self.rows[key]),
            float((target_counts_R > 0).sum()),
        )

    def to(self, device: torch.device) -> StepInputs:
        """Return a copy on another device; all integers travel by one asynchronous copy."""
        return upload(self, device)


class MultiObjectiveModel(nn.Module):
    """An encoder and the objectives of a stage."""

    def __init__(
        self,
        encoder: Backbone,
        objectives: Mapping[str, Objective],
        catalogue: Catalogue,
        own_windows: Mapping[str, WindowsConfig] = MappingProxyType({}),
        combination: Combination | None = None,
    ) -> None:
        """`own_windows` are the window rules of objectives that do not use the stage's, by key.

        `combination` makes one update of the objectives; None: their weighted sum.
        """
        super().__init__()
        self.encoder = encoder
        # Registered before the objectives, so that the parameters of a part that several objectives
        # share have the same names in every stage.
        self.shared = nn.ModuleDict(
            {
                name: part
                for objective in objectives.values()
                for name, part in objective.shared_modules().items()
            }
        )
        self.objectives = nn.ModuleDict(objectives)
        self.catalogue = catalogue
        self.own_windows = own_windows
        self.combination = FixedWeights() if combination is None else combination
        self.gather = Gather()

    @property
    def uses_attributes(self) -> bool:
        """Whether the encoder or an objective reads the catalogue's attributes."""
        return any(isinstance(part, AttributeTable) for part in self.modules())

    @property
    def max_candidates(self) -> int:
        """Most negatives that an objective scores one by one for a token; 0: none."""
        return max(part.max_candidates for part in self._objectives().values())

    @property
    def shared_negatives(self) -> int:
        """Most negatives that an objective draws once for all tokens of a step; 0: none."""
        return max(part.shared_negatives for part in self._objectives().values())

    @property
    def couples_rows(self) -> bool:
        """Whether an objective compares the rows of a step with one another."""
        return any(part.couples_rows is not None for part in self._objectives().values())

    @property
    def compares_states(self) -> bool:
        """Whether an objective compares the states of a step's rows, so that no step can be cut."""
        return any(part.couples_rows == "states" for part in self._objectives().values())

    def prepare(self, batch: Batch) -> StepInputs:
        """Return what each objective needs of a batch; no parameter is read, nothing is encoded."""
        return self.prepare_micro_batches(batch, 1)[0]

    @torch.no_grad()
    def prepare_micro_batches(
        self, batch: Batch, number: int, excluded: Collection[str] = ()
    ) -> list[StepInputs]:
        """Prepare a batch, cut into `number` micro-batches of consecutive rows; some may be empty.

        Objectives in `excluded` are shown no row. The work is done on the batch's device; with a
        batch on the host it costs an accelerator nothing. All processes call it together, since
        objectives may gather item ids.
        """
        catalogue = self.catalogue.to(batch.rows_S.device)
        rows = {key: batch.for_windows(self.own_windows.get(key)) for key in self.objectives}
        views: dict[tuple[Corruption, Batch], View] = {}
        targets: dict[str, Targets] = {}
        for key, part in self._objectives().items():
            view_key = part.corruption, rows[key]
            if view_key not in views:
                views[view_key] = part.corruption.view(rows[key], catalogue)
                check_length(views[view_key], part.corruption, self.encoder.config.length)
            objective_batch = rows[key]
            if part.couples_rows == "items":
                offered = self.gather.ids(part.offered_items(views[view_key], objective_batch))
                objective_batch = replace(objective_batch, offered_items=offered)
            targets[key] = part.targets(views[view_key], objective_batch, catalogue)
            check_read(targets[key], key)
        view_of = {
            key: views[part.corruption, rows[key]] for key, part in self._objectives().items()
        }
        for key in excluded:
            view_of[key], _ = view_of[key].cut(0, 0)
            targets[key] = targets[key].cut(0, 0, 0)
        if number == 1:
            return [self._inputs(view_of, targets)]
        micro_batches = []
        for index in range(number):
            cut_views: dict[View, tuple[View, int]] = {}
            bounds: dict[View, tuple[int, int]] = {}
            for view in dict.fromkeys(view_of.values()):
                row_ends = [view.num_rows * step // number for step in (index, index + 1)]
                bounds[view] = row_ends[0], row_ends[1]
                cut_views[view] = view.cut(*bounds[view])
            parts = {
                key: targets[key].cut(*bounds[view], cut_views[view][1])
                for key, view in view_of.items()
            }
            micro_batches.append(
                self._inputs({key: cut_views[view][0] for key, view in view_of.items()}, parts)
            )
        return micro_batches

    def _inputs(self, view_of: Mapping[str, View], targets: Mapping[str, Targets]) -> StepInputs:
        """Return the encodings of the views, and where each objective finds its states in them."""
        encodings: list[Encoding] = []
        reads: dict[str, Reads] = {}
        for causal in (False, True):
            keys = [
                key for key, part in self._objectives().items() if part.corruption.causal is causal
            ]
            if not keys:
                continue
            views = list(dict.fromkeys(view_of[key] for key in keys))
            reads_by_view = [
                union([targets[key].read_P for key in keys if view_of[key] is view], view)
                for view in views
            ]
            begin, token = 0, 0
            tokens = []
            for view, read_P in zip(views, reads_by_view):
                end = begin + len(read_P)
                reads_whole_view = len(read_P) == view.packed.num_tokens
                for key in keys:
                    if view_of[key] is view:
                        read_by_key_P = targets[key].read_P
                        reads_all = len(read_by_key_P) == len(read_P)
                        places_P = (
                            read_by_key_P
                            if reads_whole_view
                            else torch.searchsorted(read_P, read_by_key_P)
                        )
                        places = None if reads_all else places_P
                        reads[key] = Reads(len(encodings), begin, end, places)
                tokens.append(read_P + token)
                begin, token = end, token + view.packed.num_tokens
            read_all = None if begin == token else torch.cat(tokens)
            # The views of an encoding must have the same fields, but a corruption may set one that
            # others do not.
            parts = self._objectives()
            fields = [name for key in keys for name in parts[key].corruption.fields]
            packed = Packed.cat([view.packed.with_fields(fields) for view in views])
            encodings.append(Encoding(causal, packed, read_all))
        counts = {key: view.num_rows for key, view in view_of.items()}
        return StepInputs(tuple(encodings), targets, reads, counts)

    def forward(self, inputs: StepInputs, *, measured: bool = False) -> dict[str, LossSum]:
        """Return each objective's loss on the inputs, by key; with `measured` its accuracy too."""
        with self.encoder.item_table.one_step():
            return self._losses(inputs, measured)

    def _losses(self, inputs: StepInputs, measured: bool) -> dict[str, LossSum]:
        encoded: list[Tensor] = [
            self.encoder(encoding.packed, causal=encoding.causal, read_P=encoding.read_P)
            for encoding in inputs.encodings
        ]
        items = self.encoder.item_table
        losses: dict[str, LossSum] = {}
        for key, part in self._objectives().items():
            reads, targets = inputs.reads[key], inputs.targets[key]
            states_PD = encoded[reads.encoding][reads.begin : reads.end]
            if reads.places_P is not None:
                states_PD = states_PD.index_select(0, reads.places_P)
            if part.couples_rows == "states":
                compared_NE = part.compared_states(targets, states_PD)
                others_QE = self.gather.states(compared_NE)
                total = part.loss_with_other_rows(targets, compared_NE, items, others_QE)
            else:
                total = part.loss(targets, states_PD, items)
            losses[key] = LossSum(total, targets.count)
            if measured:
                with torch.no_grad():
                    accuracy = part.accuracy(targets, states_PD, items)
                losses[key] = replace(losses[key], accuracy=accuracy)
        return losses

    def losses(self, batch: Batch, *, measured: bool = False) -> dict[str, LossSum]:
        """Prepare and encode a batch at once, and return each objective's loss on it, by key."""
        return self.forward(self.prepare(batch), measured=measured)

    def _objectives(self) -> dict[str, Objective]:
        parts: dict[str, Objective] = {}
        for key, part in self.objectives.items():
            assert isinstance(part, Objective)
            parts[key] = part
        return parts


def check_length(view: View, corruption: Corruption, length: int) -> None:
    """Assert that a view has no more tokens in a row than the encoder can read."""
    assert view.packed.longest <= length, (
        f"{type(corruption).__name__} shows {view.packed.longest} tokens in a row, the encoder "
        f"reads {length}: a view begins with batch.packed.newest(batch.length)"
    )


def check_read(targets: Targets, key: str) -> None:
    """Assert that `read_P` is ascending without repetition; it is checked on the host alone."""
    if targets.read_P.device.type == "cpu":
        ascending = bool((targets.read_P.diff() > 0).all())
        assert ascending, f"objective {key}: read_P must be ascending, without repetition"


def union(read_by_objective: Sequence[Tensor], view: View) -> Tensor:
    """Return int64, ascending: the tokens of a view that at least one objective reads."""
    if len(read_by_objective) == 1:
        return read_by_objective[0]
    read_T = torch.zeros_like(view.packed.items_T, dtype=torch.bool)
    for read_P in read_by_objective:
        read_T[read_P] = True
    return read_T.nonzero()[:, 0]

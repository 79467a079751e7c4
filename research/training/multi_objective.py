"""One step's integers, and its forward pass: corrupt once a corruption, encode once a direction.

`prepare` draws and looks up all that a step's losses need, before anything is encoded;
`MultiObjectiveModel` itself is the module that is wrapped for several processes, so everything
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
    """One call of the encoder."""

    causal: bool
    packed: Packed
    """All views of this direction, end to end."""
    read_P: Tensor | None
    """int64 [P], ascending: the tokens whose states anybody reads; None: all of them."""


@dataclass(frozen=True, eq=False)
class Reads:
    """Where an objective's states stand among those of an encoding."""

    encoding: int
    """The number of the encoding."""
    begin: int
    end: int
    """The states of its view are those from `begin` to before `end`."""
    places_P: Tensor | None
    """int64 [P]: which of these it reads; None: all of them, in their order."""


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What one call of the model needs of a batch, or of a piece of it: integers alone."""

    encodings: tuple[Encoding, ...]
    """At most one a direction."""
    targets: Mapping[str, Targets]
    """By objective."""
    reads: Mapping[str, Reads]
    """By objective."""
    rows: Mapping[str, int]
    """By objective, how many rows of the batch it was shown."""

    def counts(self, key: str) -> tuple[float, float, float]:
        """How many things an objective's loss sums, its rows, and those of them that count."""
        counts_R = self.targets[key].counts_R
        return float(counts_R.sum()), float(self.rows[key]), float((counts_R > 0).sum())

    def to(self, device: torch.device) -> StepInputs:
        """The same on another device, all integers by one copy that nobody waits for."""
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
        """`own_windows` are the rules of objectives that do not see the stage's rows, by key;
        `combination` makes one update of the objectives, None: their weighted sum."""
        super().__init__()
        self.encoder = encoder
        # Before the objectives, so that a part that several share has one name wherever it serves.
        self.shared = nn.ModuleDict(
            {name: part for each in objectives.values() for name, part in each.shared().items()}
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
    def most_candidates(self) -> int:
        """Most items that an objective scores for a token beside the whole catalogue; 0: none."""
        return max(part.most_candidates for part in self._objectives().values())

    @property
    def couples_rows(self) -> bool:
        """Whether an objective compares the rows of a step with one another."""
        return any(part.couples_rows is not None for part in self._objectives().values())

    def prepare(self, batch: Batch) -> StepInputs:
        """What each objective sees of a batch: no parameter is read, nothing is encoded."""
        return self.prepare_pieces(batch, 1)[0]

    @torch.no_grad()
    def prepare_pieces(
        self, batch: Batch, number: int, left_out: Collection[str] = ()
    ) -> list[StepInputs]:
        """As `prepare`, cut by rows into so many pieces of neighbours; some may be empty.

        Objectives that are left out are shown no row. Works on the batch's device; a batch on the
        host costs an accelerator nothing.
        """
        catalogue = self.catalogue.to(batch.rows_S.device)
        rows = {key: batch.under(self.own_windows.get(key)) for key in self.objectives}
        views: dict[tuple[Corruption, Batch], View] = {}
        targets: dict[str, Targets] = {}
        for key, part in self._objectives().items():
            source = part.corruption, rows[key]
            if source not in views:
                views[source] = part.corruption.view(rows[key], catalogue)
                check_length(views[source], part.corruption, self.encoder.config.length)
            given = rows[key]
            if part.couples_rows == "items":
                offered = self.gather.ids(part.offered(views[source], given))
                given = replace(given, offered=offered)
            targets[key] = part.targets(views[source], given, catalogue)
            check_read(targets[key], key)
        shown = {key: views[part.corruption, rows[key]] for key, part in self._objectives().items()}
        for key in left_out:
            shown[key], _ = shown[key].cut(0, 0)
            targets[key] = targets[key].cut(0, 0, 0)
        if number == 1:
            return [self._inputs(shown, targets)]
        pieces = []
        for piece in range(number):
            cut: dict[View, tuple[View, int]] = {}
            bounds: dict[View, tuple[int, int]] = {}
            for view in dict.fromkeys(shown.values()):
                ends = [view.num_rows * step // number for step in (piece, piece + 1)]
                bounds[view] = ends[0], ends[1]
                cut[view] = view.cut(*bounds[view])
            parts = {
                key: targets[key].cut(*bounds[view], cut[view][1]) for key, view in shown.items()
            }
            pieces.append(self._inputs({key: cut[view][0] for key, view in shown.items()}, parts))
        return pieces

    def _inputs(self, shown: Mapping[str, View], targets: Mapping[str, Targets]) -> StepInputs:
        """The encodings of the views, and where each objective finds its states."""
        encodings: list[Encoding] = []
        reads: dict[str, Reads] = {}
        for causal in (False, True):
            keys = [
                key for key, part in self._objectives().items() if part.corruption.causal is causal
            ]
            if not keys:
                continue
            views = list(dict.fromkeys(shown[key] for key in keys))
            read = [
                union([targets[key].read_P for key in keys if shown[key] is view], view)
                for view in views
            ]
            begin, token = 0, 0
            tokens = []
            for view, read_P in zip(views, read):
                end = begin + len(read_P)
                whole = len(read_P) == view.packed.num_tokens
                for key in keys:
                    if shown[key] is view:
                        own_P = targets[key].read_P
                        every = len(own_P) == len(read_P)
                        places_P = own_P if whole else torch.searchsorted(read_P, own_P)
                        places = None if every else places_P
                        reads[key] = Reads(len(encodings), begin, end, places)
                tokens.append(read_P + token)
                begin, token = end, token + view.packed.num_tokens
            read_all = None if begin == token else torch.cat(tokens)
            # A corruption may mark tokens by a field that those beside it do not set.
            parts = self._objectives()
            fields = [name for key in keys for name in parts[key].corruption.fields]
            packed = Packed.cat([view.packed.with_fields(fields) for view in views])
            encodings.append(Encoding(causal, packed, read_all))
        counts = {key: view.num_rows for key, view in shown.items()}
        return StepInputs(tuple(encodings), targets, reads, counts)

    def forward(self, inputs: StepInputs, *, measured: bool = False) -> dict[str, LossSum]:
        """Each objective's loss of what it sees; measured, its accuracy too."""
        encoded: list[Tensor] = [
            self.encoder(each.packed, causal=each.causal, read_P=each.read_P)
            for each in inputs.encodings
        ]
        items = self.encoder.item_table
        losses: dict[str, LossSum] = {}
        for key, part in self._objectives().items():
            reads, targets = inputs.reads[key], inputs.targets[key]
            states_PD = encoded[reads.encoding][reads.begin : reads.end]
            if reads.places_P is not None:
                states_PD = states_PD.index_select(0, reads.places_P)
            if part.couples_rows == "states":
                total = part.loss_among(targets, states_PD, items, self.gather.states(states_PD))
            else:
                total = part.loss(targets, states_PD, items)
            losses[key] = LossSum(total, targets.count)
            if measured:
                with torch.no_grad():
                    accuracy = part.accuracy(targets, states_PD, items)
                losses[key] = replace(losses[key], accuracy=accuracy)
        return losses

    def losses(self, batch: Batch, *, measured: bool = False) -> dict[str, LossSum]:
        """Each objective's loss on a batch, prepared and encoded at once."""
        return self.forward(self.prepare(batch), measured=measured)

    def _objectives(self) -> dict[str, Objective]:
        parts: dict[str, Objective] = {}
        for key, part in self.objectives.items():
            assert isinstance(part, Objective)
            parts[key] = part
        return parts


def check_length(view: View, corruption: Corruption, length: int) -> None:
    """An assertion that the encoder can read a view."""
    assert view.packed.longest <= length, (
        f"{type(corruption).__name__} shows {view.packed.longest} tokens in a row, the encoder "
        f"reads {length}: a view begins with batch.packed.newest(batch.length)"
    )


def check_read(targets: Targets, key: str) -> None:
    """An assertion that tokens are read in ascending order, each once; on the host alone."""
    if targets.read_P.device.type == "cpu":
        ascending = bool((targets.read_P.diff() > 0).all())
        assert ascending, f"objective {key}: read_P must be ascending, without repetition"


def union(read: Sequence[Tensor], view: View) -> Tensor:
    """int64, ascending: the tokens of a view that at least one objective reads."""
    if len(read) == 1:
        return read[0]
    read_T = torch.zeros_like(view.packed.items_T, dtype=torch.bool)
    for read_P in read:
        read_T[read_P] = True
    return read_T.nonzero()[:, 0]

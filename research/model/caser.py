"""The backbone of Caser: convolutions over the newest few items (Tang and Wang 2018, WSDM).

A token's state comes from E [L, D], the embeddings of the L newest items up to it, oldest first,
with zeros in place of items that do not exist. Section 3.2 has F horizontal filters of each height
h = 1..L, which read h neighboring rows over the whole width, and G vertical filters, which weigh
the L rows (eq. 3 to 7):

    o_hf = max_i relu(<E[i : i + h], F_hf> + b_hf)        o~_gd = sum_l G_gl E[l, d] + c_g
    z = relu(W [o~, o] + w)                               (eq. 9; biases as in the authors' code)

z is the state. The paper scores by [z, P_u] with an embedding P_u of the user (eq. 10), which is
left out: a history may be a stranger's, and no other backbone here knows who it is. As a state
reads only its own token and older ones, a window of many items gives one state, and so one target,
for each of its items: the sliding windows of the authors' code, computed together. There a window
has the T items after it for targets, here it has the next one (T = 1, as in RecBole).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from research.errors import InputError
from research.model.backbone import Backbone, BackboneConfig, Direction, check_numbers
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.model.kernels.dropout import dropout
from research.packed import Packed

_FLOAT = 4
_SIZES = ("length", "width", "newest", "horizontal", "vertical")


@dataclass(frozen=True, kw_only=True)
class CaserConfig(BackboneConfig):
    """A convolutional encoder; sizes and dropout are by default those of the authors' code."""

    length: int = 50
    """Longest history that is encoded at once, in items; each state reads only `newest` of them."""
    width: int = 50
    """Width D of the item embeddings and of the hidden states."""
    newest: int = 5
    """L, how many items a state reads; at most `length`."""
    horizontal: int = 16
    """F, the number of horizontal filters of each height from 1 to L."""
    vertical: int = 4
    """G, the number of vertical filters."""
    dropout: float = 0.5
    """Dropout on the outputs of the filters."""
    init_std: float = 0.02
    """Standard deviation of normal initial weights; biases start at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, _SIZES, ("dropout",))
        if self.newest > self.length:
            raise InputError(
                f"encoder.newest is {self.newest} and encoder.length {self.length}; a state cannot "
                "read more items than are encoded: raise encoder.length or lower encoder.newest"
            )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Only causal: a state reads the newest items up to its own."""
        return ("causal",)

    @property
    def learning_fields(self) -> Collection[str]:
        """The dropout, and the standard deviation of initial weights."""
        return ("init_std", "dropout")

    @property
    def filter_outputs(self) -> int:
        """How many numbers the filters give for a state: G D + F L."""
        return self.vertical * self.width + self.horizontal * self.newest

    def build(self, item_table: ItemTable, seed: int) -> CaserEncoder:
        """The encoder around an item table, with initial weights drawn by `seed`."""
        return CaserEncoder(self, item_table, seed)

    def num_parameters(self, num_items: int) -> int:
        """The learned numbers of item table, filters and dense layer."""
        heights = self.newest * (self.newest + 1) // 2
        horizontal = self.horizontal * (heights * self.width + self.newest)
        vertical = self.vertical * (self.newest + 1)
        dense = (self.filter_outputs + 1) * self.width
        return (num_items + 1) * self.width + horizontal + vertical + dense

    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that a step in fp32 keeps for its backward pass.

        Every token keeps the L D numbers that it reads, the outputs of the horizontal filters at
        each place, the highest of them, and the inputs of the dense layer, before and after
        dropout, and its outputs.
        """
        places = self.newest * (self.newest + 1) // 2 + self.newest
        dense = self.filter_outputs * (1 + (self.dropout > 0)) + self.width
        return {
            "items that states read": _FLOAT * tokens * self.newest * self.width,
            "outputs of horizontal filters": _FLOAT * tokens * places * self.horizontal,
            "inputs and outputs of the dense layer": _FLOAT * tokens * dense,
        }


class CaserEncoder(Backbone):
    """Horizontal and vertical filters over an item table; a state depends on its L newest items."""

    config: CaserConfig
    traceable = True

    def __init__(self, config: CaserConfig, item_table: ItemTable, seed: int) -> None:
        super().__init__(config, item_table)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(config.width, config.horizontal, height)
            for height in range(1, config.newest + 1)
        )
        self.vertical = nn.Linear(config.newest, config.vertical)
        self.dense = nn.Linear(config.filter_outputs, config.width)
        initialize(self, config.init_std, seed, "encoder", skip=[item_table])

    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """Hidden states [T, D] of all tokens, or [P, D] of the tokens with the indices `read_P`.

        `causal` must be True. The host does not wait for the device.
        """
        config = self.config
        assert causal, "a stage that needs bidirectional states is refused before it is built"
        assert packed.longest <= config.length, "a view longer than encoder.length"
        newest_PDL = self.newest_items(packed, read_P).transpose(1, 2).contiguous()
        outputs = [self.vertical(newest_PDL).transpose(1, 2).flatten(1)]
        outputs += [filters(newest_PDL).relu().amax(2) for filters in self.horizontal]
        outputs_PF = dropout(torch.cat(outputs, 1), config.dropout, self.training)
        states_PD: Tensor = self.dense(outputs_PF).relu()
        return states_PD

    def newest_items(self, packed: Packed, read_P: Tensor | None) -> Tensor:
        """[P, L, D]: the embeddings of the L newest items up to each token, oldest first.

        They are zeros where a token has fewer items before it.
        """
        x_TD, device = self.item_table.lookup(packed.items_T), packed.offsets.device
        tokens_P = torch.arange(packed.num_tokens, device=device) if read_P is None else read_P
        oldest_P = packed.offsets[packed.owner_T[tokens_P]]
        tokens_PL = tokens_P[:, None] - torch.arange(self.config.newest - 1, -1, -1, device=device)
        exists_PL = tokens_PL >= oldest_P[:, None]
        x_ND = x_TD.index_select(0, tokens_PL.clamp(min=0).flatten())
        newest_PLD: Tensor = x_ND.unflatten(0, tokens_PL.shape)
        return newest_PLD * exists_PL[..., None]

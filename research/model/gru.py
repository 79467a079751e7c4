"""The backbone of GRU4Rec: recurrent layers over item embeddings (Hidasi et al. 2016, section 3.1).

From the input x_t and the previous token's state h_{t-1} (zeros before the oldest), a layer
computes

    r_t = sigmoid(W_r x_t + U_r h_{t-1})        z_t = sigmoid(W_z x_t + U_z h_{t-1})
    n_t = tanh(W_n x_t + r_t * (U_n h_{t-1}))   h_t = (1 - z_t) * n_t + z_t * h_{t-1}

and, with `gate_biases`, adds a bias to each of the six products. This is the GRU of torch and cuDNN
(Cho et al. 2014), and of the authors' PyTorch code; the paper's eq. 3 multiplies by r_t before U_n,
and its z_t is 1 - z_t here.

The original trains on session-parallel mini-batches: a step takes one event of each session, and
passes the states on to the next step without a gradient. That is not built: here a step takes whole
windows, and gradients reach back to their oldest token, as with every other backbone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from research.errors import InputError
from research.model.backbone import (
    Backbone,
    BackboneConfig,
    Direction,
    check_numbers,
    count_parameters,
)
from research.model.initialization import initialize
from research.model.item_table import ItemTable
from research.model.kernels.dropout import dropout
from research.packed import Packed

# Time steps that a layer does in one call on a CPU. There, for each time step, torch's backward
# pass fills a tensor as large as all inputs of the call: 200 steps of 13,613 tokens in one call
# took 8 times as long as in calls of 8 steps (1.35 s and 0.16 s of CPU time, forward and backward).
STEPS_A_CALL = 8
_FLOAT = 4
_SIZES = ("length", "width", "hidden_width", "layers")
_DROPOUTS = ("embedding_dropout", "hidden_dropout")


@dataclass(frozen=True, kw_only=True)
class GRUConfig(BackboneConfig):
    """A recurrent encoder; sizes and dropouts are by default those of GRU4Rec in RecBole."""

    length: int = 50
    """Longest history that the encoder reads, in items."""
    width: int = 64
    """Width D of the item embeddings and of the hidden states that the encoder returns."""
    hidden_width: int = 128
    """Width F of the states inside the recurrent layers."""
    layers: int = 1
    """Number of recurrent layers."""
    gate_biases: bool = False
    """Whether gates have biases, as in the authors' code; RecBole's have none."""
    projection: bool = True
    """Whether a dense layer brings the last layer's states to width D, as in RecBole; without it,
    as in the authors' code, `hidden_width` must equal `width`."""
    embedding_dropout: float = 0.3
    """Dropout on the item embeddings."""
    hidden_dropout: float = 0.0
    """Dropout on the outputs of each layer, on their way to the next layer, the projection or the
    head. The state that a layer passes on to its next time step has none; the authors' code has
    dropout there as well."""
    init_std: float = 0.02
    """Standard deviation of normal initial weights; biases start at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, _SIZES, _DROPOUTS)
        if not self.projection and self.hidden_width != self.width:
            raise InputError(
                f"encoder.hidden_width is {self.hidden_width} and encoder.width {self.width}; make "
                "them equal or set encoder.projection to True"
            )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Only causal: layers read from the oldest token to the newest."""
        return ("causal",)

    @property
    def learning_fields(self) -> Collection[str]:
        """The dropouts, and the standard deviation of initial weights."""
        return ("init_std", *_DROPOUTS)

    def build(self, item_table: ItemTable, seed: int) -> GRUEncoder:
        """The encoder around an item table, with initial weights drawn by `seed`."""
        return GRUEncoder(self, item_table, seed)

    def layer(self, number: int) -> nn.GRU:
        """The layer with this 0-based number, still with torch's initial weights."""
        inputs = self.hidden_width if number else self.width
        return nn.GRU(inputs, self.hidden_width, bias=self.gate_biases)

    def num_parameters(self, num_items: int) -> int:
        """The learned numbers of item table, layers and projection."""
        later = count_parameters(lambda: self.layer(1)) * (self.layers - 1)
        projection = (self.hidden_width + 1) * self.width * self.projection
        table = (num_items + 1) * self.width
        return table + count_parameters(lambda: self.layer(0)) + later + projection

    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that a step in fp32 keeps for its backward pass.

        Each token, and on an accelerator each empty slot, keeps 8 F numbers a layer and 2 D; hidden
        dropout adds F a layer, and embedding dropout D. This is within 11 % of what torch saves on
        a CPU; what cuDNN keeps has not been measured.
        """
        layer = self.hidden_width * (8 + (self.hidden_dropout > 0))
        slot = _FLOAT * (self.layers * layer + self.width * (2 + (self.embedding_dropout > 0)))
        return {
            "recurrent states": slot * tokens,
            "empty slots of an accelerator": slot * (rows * longest - tokens),
        }


@dataclass(frozen=True, eq=False)
class TimeMajor:
    """A time-major layout: the oldest token of each sequence, then the second ones, and so on.

    On a CPU the longest sequence comes first and no slot is empty (torch's `PackedSequence`). This
    needs the number of slots in each time step on the host, which would have to wait for an
    accelerator's lengths. So there, and if the batch has no token, every sequence has a slot in
    each of `longest` time steps. Empty slots come after a sequence's tokens, so that they do not
    affect a token's state.
    """

    slots_T: Tensor
    """int64 [T]: the slot that holds each token."""
    num_slots: int
    """Number of slots; at least 1, so that every parameter gets a gradient in every step."""
    step_sizes: Tensor | None
    """int64, on the host: the number of slots in each time step, if no slot is empty; None: each
    has `rows`."""
    rows: int
    """Number of sequences, or 1 if there is none."""

    @staticmethod
    def of(packed: Packed) -> TimeMajor:
        """The layout of a batch; the host does not wait for an accelerator."""
        owner_T, device = packed.owner_T, packed.offsets.device
        places_T = torch.arange(packed.num_tokens, device=device) - packed.offsets[owner_T]
        rows = max(packed.num_sequences, 1)
        if device.type != "cpu" or packed.num_tokens == 0:
            num_slots = max(packed.longest, 1) * rows
            return TimeMajor(places_T * rows + owner_T, num_slots, None, rows)
        order_S = packed.lengths_S.argsort(descending=True, stable=True)
        ranks_S = torch.empty_like(order_S).index_copy(0, order_S, torch.arange(rows))
        # The number of sequences that are long enough to have a token at each place.
        step_sizes = places_T.bincount()
        firsts = step_sizes.cumsum(0) - step_sizes
        slots_T = firsts[places_T] + ranks_S[owner_T]
        return TimeMajor(slots_T, packed.num_tokens, step_sizes, rows)

    def to_slots(self, x_TD: Tensor) -> Tensor:
        """[slots, D]: the rows of `x_TD` in their tokens' slots; zeros in empty slots."""
        return x_TD.new_zeros(self.num_slots, x_TD.shape[1]).index_copy(0, self.slots_T, x_TD)

    def states(self, layer: nn.GRU, inputs: Tensor) -> Tensor:
        """[slots, F]: a layer's states, from its inputs [slots, D] or [slots, F]."""
        if self.step_sizes is None:
            padded: Tensor = layer(inputs.unflatten(0, (-1, self.rows)))[0]
            return padded.flatten(0, 1)
        all_outputs: list[Tensor] = []
        hidden: Tensor | None = None
        step_sizes_by_call = self.step_sizes.split(STEPS_A_CALL)
        for step_inputs, sizes in zip(
            inputs.split([int(sizes.sum()) for sizes in step_sizes_by_call]), step_sizes_by_call
        ):
            if hidden is not None:
                hidden = hidden[:, : sizes[0]]
            outputs, hidden = layer(PackedSequence(step_inputs, sizes), hidden)
            all_outputs.append(outputs.data)
        return torch.cat(all_outputs)


class GRUEncoder(Backbone):
    """Recurrent layers over an item table; a state depends on its own token and on older ones."""

    config: GRUConfig

    def __init__(self, config: GRUConfig, item_table: ItemTable, seed: int) -> None:
        super().__init__(config, item_table)
        self.layers = nn.ModuleList(config.layer(number) for number in range(config.layers))
        if config.projection:
            self.projection = nn.Linear(config.hidden_width, config.width)
        initialize(self, config.init_std, seed, "encoder", skip=[item_table])

    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """Hidden states [T, D] of all tokens, or [P, D] of the tokens with the indices `read_P`.

        `causal` must be True. The host does not wait for the device.
        """
        config = self.config
        assert causal, "a stage that needs bidirectional states is refused before it is built"
        assert packed.longest <= config.length, "a view longer than encoder.length"
        x_TD = self.item_table.lookup(packed.items_T)
        x_TD = dropout(x_TD, config.embedding_dropout, self.training)
        layout = TimeMajor.of(packed)
        states = layout.to_slots(x_TD)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, nn.GRU)
            if number:
                states = dropout(states, config.hidden_dropout, self.training)
            states = layout.states(layer, states)
        slots_P = layout.slots_T if read_P is None else layout.slots_T.index_select(0, read_P)
        states_PF = states.index_select(0, slots_P)
        states_PF = dropout(states_PF, config.hidden_dropout, self.training)
        if not config.projection:
            return states_PF
        states_PD: Tensor = self.projection(states_PF)
        return states_PD

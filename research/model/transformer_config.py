"""`TransformerConfig`: the transformer's sizes, and the choices in which published ones differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from research.errors import InputError
from research.model.backbone import (
    BOTH_DIRECTIONS,
    MAX_SIZE,
    BackboneConfig,
    Direction,
    check_numbers,
    count_parameters,
)
from research.model.item_table import ItemTable
from research.model.positions import LearnedPositions, PositionsConfig
from research.model.transformer import TransformerEncoder
from research.model.transformer_block import Activation, BlockConfig, PostNorm

_SIZES = ("length", "width", "layers", "heads", "feed_forward")
_DROPOUTS = ("embedding", "hidden", "attention", "attention_output", "inner")


@dataclass(frozen=True)
class Dropouts:
    """The dropout probabilities of an encoder, with the defaults filled in."""

    embedding: float
    hidden: float
    attention: float
    attention_output: float
    inner: float


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(BackboneConfig):
    """A transformer encoder: its sizes, and the choices in which published ones differ."""

    length: int = 50
    """Longest history that the encoder reads, in items."""
    width: int = 64
    """Width D of the hidden states and of the item embeddings."""
    layers: int = 2
    """Number of transformer blocks."""
    heads: int = 2
    """Attention heads; must divide the width."""
    feed_forward: int = 256
    """Inner width of the feed-forward part."""
    activation: Activation = "gelu"
    """Activation of the feed-forward part; gelu is the erf form."""
    block: BlockConfig = PostNorm()
    """The kind of block: which layers it has, and where its norms are."""
    positions: PositionsConfig = LearnedPositions()
    """How the encoder learns at which place of its sequence an item is."""
    output_projection: bool = True
    """Whether attention ends in a dense layer (SASRec has none)."""
    embedding_norm: bool = True
    """Whether the sum of embeddings goes through a LayerNorm (BERT, S3-Rec)."""
    embedding_scale: bool = False
    """Whether item embeddings are multiplied by sqrt(width), on the input side only (SASRec)."""
    final_norm: bool = False
    """Whether a LayerNorm follows the last block (SASRec, pre-norm stacks)."""
    norm_eps: float = 1e-12
    """Epsilon of every norm."""
    segments: int = 0
    """Number of segment types that have an embedding; 0: no segment embeddings. Tokens without the
    field "segment" are of type 0."""
    dropout: float = 0.5
    """Probability of each dropout below that is None."""
    embedding_dropout: float | None = None
    """Dropout on the sum of embeddings; None: as `dropout`."""
    hidden_dropout: float | None = None
    """Dropout on the output of attention and of the feed-forward part; None: as `dropout`."""
    attention_dropout: float | None = None
    """Dropout on attention weights; None: as `dropout`."""
    attention_output_dropout: float | None = None
    """Dropout on the output of attention (0: SASRec and its descendants); None: as
    `hidden_dropout`."""
    inner_dropout: float = 0.0
    """Dropout after the activation inside the feed-forward part (SASRec, the PyTorch ports)."""
    init_std: float = 0.02
    """Standard deviation of normal initial weights; biases start at 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_numbers(self, _SIZES, ("dropout", *(f"{each}_dropout" for each in _DROPOUTS)))
        if self.width % self.heads:
            raise InputError(
                f"encoder.heads is {self.heads}, which does not divide encoder.width "
                f"{self.width}; choose a divisor of the width"
            )
        for name in ("segments", "norm_eps"):
            if not vars(self)[name] >= 0:
                raise InputError(f"encoder.{name} is {vars(self)[name]}; it must be 0 or more")
        if not self.directions:
            (of_block,), (of_positions,) = self.block.directions, self.positions.directions
            raise InputError(
                f"encoder.block {type(self.block).__name__} has {of_block} states alone, "
                f"encoder.positions {type(self.positions).__name__} {of_positions} ones alone; "
                "choose another block or other positions"
            )
        if self.segments > MAX_SIZE:
            raise InputError(f"encoder.segments is {self.segments}; at most {MAX_SIZE}")

    @property
    def directions(self) -> Collection[Direction]:
        """Those that its blocks and its positions allow; the caller chooses one for each call."""
        return tuple(
            direction
            for direction in BOTH_DIRECTIONS
            if direction in self.block.directions and direction in self.positions.directions
        )

    @property
    def choice_of_directions(self) -> tuple[str, str]:
        """Its positions or its blocks, if they allow one direction alone."""
        for name, part in (("block", self.block), ("positions", self.positions)):
            if len(part.directions) < len(BOTH_DIRECTIONS):
                return f"encoder.{name} is {type(part).__name__}", f"encoder.{name}"
        return super().choice_of_directions

    @property
    def fields(self) -> Collection[str]:
        """The fields that its positions and its blocks need."""
        return (*self.positions.fields, *self.block.fields)

    @property
    def optional_fields(self) -> Collection[str]:
        """The field "segment", if segments have embeddings."""
        return ("segment",) if self.segments else ()

    @property
    def learning_fields(self) -> Collection[str]:
        """The dropouts, and the standard deviation of initial weights."""
        return ("init_std", "dropout", *(f"{each}_dropout" for each in _DROPOUTS))

    @property
    def dropouts(self) -> Dropouts:
        """The probability of every dropout, with None replaced by what it defaults to."""

        def first(*values: float | None) -> float:
            return next(value for value in values if value is not None)

        return Dropouts(
            embedding=first(self.embedding_dropout, self.dropout),
            hidden=first(self.hidden_dropout, self.dropout),
            attention=first(self.attention_dropout, self.dropout),
            attention_output=first(
                self.attention_output_dropout, self.hidden_dropout, self.dropout
            ),
            inner=self.inner_dropout,
        )

    def build(self, item_table: ItemTable, seed: int) -> TransformerEncoder:
        """The encoder; `InputError` if its block or positions do not fit its sizes."""
        return TransformerEncoder(self, item_table, seed)

    def num_parameters(self, num_items: int) -> int:
        """The learned numbers of item table, positions, segments, norms and blocks."""
        norm = count_parameters(lambda: nn.LayerNorm(self.width))
        return (
            self.width * (num_items + 1 + self.segments)
            + norm * (self.embedding_norm + self.final_norm)
            + count_parameters(lambda: self.positions.build(self))
            + count_parameters(lambda: self.block.build(self)) * self.layers
        )

    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """The block's own estimates in bytes, multiplied by the number of blocks."""
        block_bytes = self.block.activation_bytes(self, tokens, rows, longest)
        return {name: self.layers * number for name, number in block_bytes.items()}


def as_transformer(config: BackboneConfig, asker: str) -> TransformerConfig:
    """`config` itself; `InputError`, whose message begins with `asker`, for another backbone."""
    if not isinstance(config, TransformerConfig):
        raise InputError(
            f"{asker}: encoder is a {type(config).__name__}; allowed: TransformerConfig alone"
        )
    return config

"""`TransformerConfig`: sizes, and the choices in which published transformers differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from research.config import check_types
from research.errors import InputError
from research.model.backbone import (
    BOTH,
    LARGEST,
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
    """The dropouts of an encoder once those that are not set have been."""

    embedding: float
    hidden: float
    attention: float
    attention_output: float
    inner: float


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(BackboneConfig):
    """Sizes and the choices in which published backbones differ."""

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
    """The kind of block: where its norms stand, and what it is made of."""
    positions: PositionsConfig = LearnedPositions()
    """How the encoder is told where in its sequence an item stands."""
    output_projection: bool = True
    """Whether attention ends in a dense layer (SASRec has none)."""
    embedding_norm: bool = True
    """LayerNorm on the sum of embeddings (BERT, S3-Rec)."""
    embedding_scale: bool = False
    """Multiply item embeddings by sqrt(width) on the input side only (SASRec)."""
    final_norm: bool = False
    """LayerNorm after the last block (SASRec, pre-norm stacks)."""
    norm_eps: float = 1e-12
    """Epsilon of every LayerNorm."""
    segments: int = 0
    """Number of segment types with an embedding; 0: none. Tokens are of type 0 unless said."""
    dropout: float = 0.5
    """Every dropout below that is not set."""
    embedding_dropout: float | None = None
    """Dropout on the sum of embeddings; None: as `dropout`."""
    hidden_dropout: float | None = None
    """Dropout on the output of attention and of the feed-forward part; None: as `dropout`."""
    attention_dropout: float | None = None
    """Dropout on attention weights; None: as `dropout`."""
    attention_output_dropout: float | None = None
    """Dropout on the output of attention (0: SASRec and its descendants); None: as hidden."""
    inner_dropout: float = 0.0
    """Dropout after the activation inside the feed-forward part (SASRec, the PyTorch ports)."""
    init_std: float = 0.02
    """Standard deviation of normal initial weights; biases start at 0."""

    def __post_init__(self) -> None:
        check_types(self)
        check_numbers(self, _SIZES, ("dropout", *(f"{each}_dropout" for each in _DROPOUTS)))
        if self.width % self.heads:
            raise InputError(
                f"encoder.heads is {self.heads}, which does not divide encoder.width "
                f"{self.width}; choose a divisor of the width"
            )
        for name in ("segments", "norm_eps"):
            if not vars(self)[name] >= 0:
                raise InputError(f"encoder.{name} is {vars(self)[name]}; it must be 0 or more")
        if self.segments > LARGEST:
            raise InputError(f"encoder.segments is {self.segments}; at most {LARGEST}")

    @property
    def directions(self) -> Collection[Direction]:
        """Both."""
        return BOTH

    @property
    def fields(self) -> Collection[str]:
        """What its positions and blocks read; segments are of type 0 unless said."""
        return (*self.positions.fields, *self.block.fields)

    @property
    def optional_fields(self) -> Collection[str]:
        """Segments, where they have embeddings; tokens without are of type 0."""
        return ("segment",) if self.segments else ()

    @property
    def learning_fields(self) -> Collection[str]:
        """Dropouts and the spread of initial weights."""
        return ("init_std", "dropout", *(f"{each}_dropout" for each in _DROPOUTS))

    @property
    def dropouts(self) -> Dropouts:
        """Every dropout, set or not."""

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
        """The encoder; `InputError` where block or positions do not go with its sizes."""
        return TransformerEncoder(self, item_table, seed)

    def num_parameters(self, num_items: int) -> int:
        """Item table, positions, segments, norms and blocks."""
        norm = count_parameters(lambda: nn.LayerNorm(self.width))
        return (
            self.width * (num_items + 1 + self.segments)
            + norm * (self.embedding_norm + self.final_norm)
            + count_parameters(lambda: self.positions.build(self))
            + count_parameters(lambda: self.block.build(self)) * self.layers
        )

    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """What its blocks say of themselves, times their number."""
        of_block = self.block.activation_bytes(self, tokens, rows, longest)
        return {name: self.layers * number for name, number in of_block.items()}


def as_transformer(config: BackboneConfig, asker: str) -> TransformerConfig:
    """The config of a transformer; `InputError` for another backbone, beginning with `asker`."""
    if not isinstance(config, TransformerConfig):
        raise InputError(
            f"{asker}: encoder is a {type(config).__name__}; allowed: TransformerConfig alone"
        )
    return config

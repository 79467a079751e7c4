"""S3-Rec's state dict as a `ForeignModel`; the format itself is in `s3rec.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from research.data.corpus import Corpus
from research.interop.foreign import STAGE, Entry, ForeignModel, check_heads, to_parameters
from research.interop.s3rec import ITEMS, ZERO_ROWS, Sizes, entries, objectives
from research.interop.s3rec_checks import check_counts, read_sizes, row_numbers
from research.model.transformer_config import TransformerConfig
from research.training.config import StageConfig

ZERO_ROWS_FILE = "zero_rows.safetensors"


@dataclass(frozen=True, eq=False)
class S3RecModel(ForeignModel):
    """A state dict of S3-Rec's code."""

    file: Path
    """The file, for messages."""
    sizes: Sizes
    """The sizes that the shapes show."""
    heads: int
    """Number of attention heads, which the file does not say."""
    special_classes: bool
    """Whether the padding row 0 of the item table and the mask's row are ranked too."""
    keep_zero_rows: bool
    """Whether rows 0 of the tables, which have no place here, are kept for an export."""

    @staticmethod
    def of(
        state: Mapping[str, Tensor],
        file: Path,
        *,
        heads: int,
        special_classes: bool = False,
        keep_zero_rows: bool = False,
    ) -> S3RecModel:
        """Check a state dict; `InputError` when it is not of the format, or heads do not fit."""
        sizes = read_sizes(state, file)
        check_heads(sizes.width, heads, file, ", and all released ones have 2")
        return S3RecModel(file, sizes, heads, special_classes, keep_zero_rows)

    @property
    def encoder(self) -> TransformerConfig:
        """The published encoder."""
        return self.sizes.encoder(self.heads)

    @property
    def stage(self) -> StageConfig:
        """A stage with all heads of the format, which ranks by the next item."""
        return StageConfig(
            name=STAGE,
            objectives=objectives(self.special_classes),
            rank_by="next",
            validation=None,
        )

    def table(self, corpus: Corpus) -> list[Entry]:
        """The table, by raw ids of items and attributes."""
        check_counts(self.sizes, corpus.num_items, corpus.num_attributes, self.file, corpus.name)
        return table_of(self.sizes, corpus)

    def weights(self, state: Mapping[str, Tensor], table: list[Entry]) -> dict[str, Tensor]:
        """Our parameters, with the padding row where it is ranked."""
        weights = to_parameters(state, table)
        if self.special_classes:
            weights[ZERO_ROWS[ITEMS]] = state[ITEMS][:1]
        return weights

    def places(self, table: list[Entry]) -> Mapping[str, str]:
        """The parameters, and what becomes of rows 0."""
        places = {entry.key: entry.description for entry in table}
        aside = f"kept aside in {ZERO_ROWS_FILE}" if self.keep_zero_rows else "dropped"
        for key, parameter in ZERO_ROWS.items():
            places[key] += f"; row 0 {parameter if key in self._ranked else aside}"
        return places

    def kept(self, state: Mapping[str, Tensor]) -> Mapping[str, Mapping[str, Tensor]]:
        """Rows 0, [D] each by key, in a file of the run folder."""
        if not self.keep_zero_rows:
            return {}
        rows = {key: state[key][0].contiguous() for key in ZERO_ROWS if key not in self._ranked}
        return {ZERO_ROWS_FILE: rows}

    @property
    def _ranked(self) -> set[str]:
        """Keys whose row 0 the stage has a parameter for."""
        return {ITEMS} if self.special_classes else set()


def table_of(sizes: Sizes, corpus: Corpus) -> list[Entry]:
    """The table of all tensors for a corpus; `InputError` if its raw ids are not row numbers."""
    items_V = row_numbers(list(corpus.item_names), "item", corpus.name)
    attributes_A = row_numbers(list(corpus.attribute_names), "attribute", corpus.name)
    return entries(sizes, items_V, attributes_A)

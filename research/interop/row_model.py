"""A state dict of one of the `row_formats.py`, as a `ForeignModel`.

Row n of its item table is the corpus's n-th item, or the n-th of a file of raw ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.errors import InputError
from research.interop.foreign import (
    STAGE,
    Entry,
    ForeignModel,
    check_heads,
    rows_in_parameter,
    to_parameters,
)
from research.interop.row_formats import BIAS, ITEMS, OUTPUT, POSITIONS, RowFormat, RowSizes
from research.model.transformer_config import TransformerConfig
from research.training.config import StageConfig

ITEM_TABLE = "encoder.item_table.weight"
PAD_TOKEN = "[PAD]"


@dataclass(frozen=True, eq=False)
class RowModel(ForeignModel):
    """A state dict of a `RowFormat`."""

    file: Path
    """The file, for messages."""
    row_format: RowFormat
    """Its format."""
    sizes: RowSizes
    """The sizes that the shapes show."""
    heads: int
    """Number of attention heads, which the file does not say."""
    item_ids: Path | None
    """The file of raw ids by row; None: rows are in the corpus's order."""

    @staticmethod
    def of(
        state: Mapping[str, Tensor],
        file: Path,
        *,
        row_format: RowFormat,
        heads: int,
        item_ids: Path | None,
    ) -> RowModel:
        """Check a state dict; `InputError` when it is not of the format, or heads do not fit."""
        sizes = row_format.read_sizes(state, file)
        check_heads(sizes.width, heads, file)
        return RowModel(file, row_format, sizes, heads, item_ids)

    @property
    def encoder(self) -> TransformerConfig:
        """The published encoder."""
        return self.row_format.encoder(self.sizes, self.heads)

    @property
    def stage(self) -> StageConfig:
        """A stage with the one objective of the format."""
        key = self.row_format.key
        objective = self.row_format.objective(self.sizes.own_table)
        return StageConfig(name=STAGE, objectives={key: objective}, rank_by=key, validation=None)

    def table(self, corpus: Corpus) -> list[Entry]:
        """The table, with rows of items as the corpus or the file of raw ids has them."""
        num_items = self.sizes.num_items
        if num_items != corpus.num_items:
            rows = num_items + 1 + self.row_format.last_rows
            raise InputError(
                f"{self.file}: {ITEMS} has {rows} rows for {num_items:,} items, but corpus "
                f"{corpus.name} has {corpus.num_items:,}; import it on the corpus that it was "
                "trained on"
            )
        rows_V = torch.arange(1, num_items + 1)
        if self.item_ids is not None:
            rows_V = rows_by_id(self.item_ids, corpus)
        shapes = self.row_format.shapes(self.sizes)
        return [self._entry(key, shape, rows_V) for key, shape in shapes.items()]

    def weights(self, state: Mapping[str, Tensor], table: list[Entry]) -> dict[str, Tensor]:
        """Our parameters; the mask's row is zeros where the format has none."""
        return to_parameters(state, table, () if self.row_format.masked else {ITEM_TABLE})

    def places(self, table: list[Entry]) -> Mapping[str, str]:
        """The parameters, by key."""
        return {entry.key: entry.description for entry in table}

    def kept(self, state: Mapping[str, Tensor]) -> Mapping[str, Mapping[str, Tensor]]:
        """Nothing."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """What the file does not say."""
        order = "the corpus's order" if self.item_ids is None else f"the order of {self.item_ids}"
        return (f"items are taken in {order}", f"taken for granted: {self.row_format.implied}")

    def _entry(self, key: str, shape: tuple[int, ...], rows_V: Tensor) -> Entry:
        num_items, masked = self.sizes.num_items, self.row_format.masked
        parameter_rows, rows = torch.arange(num_items), num_items
        if key == ITEMS:
            parameter, rows = ITEM_TABLE, num_items + 1
            unused = "row 0" if self.row_format.last_rows == masked else "first and last row"
            description = f"{parameter}, rows by item; {unused} dropped"
            file_rows = rows_V
            if masked:
                parameter_rows = torch.arange(rows)
                file_rows = torch.cat([rows_V, torch.tensor([num_items + 1])])
                description += ", the mask's last"
            else:
                description += ", the mask's zeros"
        elif key == OUTPUT:
            parameter = f"objectives.{self.row_format.key}.head.item_table.weight"
            file_rows = rows_V
            description = f"{parameter}, rows by item; first and last row dropped"
        elif key == BIAS:
            parameter = f"objectives.{self.row_format.key}.head.item_bias"
            file_rows, description = rows_V, f"{parameter}, by item; that of padding dropped"
        elif key == POSITIONS:
            parameter, rows = "encoder.positions.weight", shape[0]
            parameter_rows = file_rows = torch.arange(rows)
            description = parameter
            if self.row_format.newest:
                file_rows, description = file_rows.flip(0), f"{parameter}, rows in reverse"
        else:
            stem, _, part = key.rpartition(".")
            module, third = self.row_format.module_of(stem)
            parameter, file_rows = f"{module}.{part}", torch.arange(shape[0])
            rows, parameter_rows, description = rows_in_parameter(parameter, shape[0], third)
        return Entry(
            key=key,
            shape=shape,
            file_rows=file_rows,
            parameter=parameter,
            parameter_shape=(rows, *shape[1:]),
            parameter_rows=parameter_rows,
            description=description,
        )


def rows_by_id(path: Path, corpus: Corpus) -> Tensor:
    """int64 [V]: for each item of the corpus, its row by a file with a raw id for each row from 1.

    A first line `[PAD]`, which RecBole has for row 0, is passed over. `InputError` names the line
    of an id that the corpus does not have or that is there twice, or says which id is missing.
    """
    if not path.is_file():
        raise InputError(f"--item-ids {path}: there is no such file")
    try:
        # Some editors begin a file with a byte-order mark, which is no part of the first id.
        names = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"--item-ids {path} is not UTF-8 ({error}); write it anew") from error
    names = [name.removesuffix("\r") for name in names]
    names = names[:-1] if names[-1] == "" else names
    begin = 1 if names[:1] == [PAD_TOKEN] else 0
    rows_V = torch.zeros(corpus.num_items, dtype=torch.int64)
    for number, name in enumerate(names[begin:], begin + 1):
        if name not in corpus.item_names:
            raise InputError(
                f"--item-ids {path}, line {number}: corpus {corpus.name} has no item "
                f"{name!r:.100}; the file must have the raw id of each of its items once"
            )
        item = corpus.item_names.index(name)
        if rows_V[item]:
            raise InputError(
                f"--item-ids {path}, line {number}: {name!r:.100} is there already; the file must "
                "have the raw id of each item once"
            )
        rows_V[item] = number - begin
    missing = (rows_V == 0).nonzero()[:, 0].tolist()
    if missing:
        raise InputError(
            f"--item-ids {path} has {len(names) - begin} ids, but not "
            f"{corpus.item_names[missing[0]]!r:.100} of corpus {corpus.name}; the file must have "
            "the raw id of each of its items once"
        )
    return rows_V

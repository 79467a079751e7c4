"""The audit of sub-sequence splitting: its cells differ in what they are named for, alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

import experiments.subsequences as subsequences
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import BinaryCrossEntropy, FullSoftmax
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemConfig
from research.studies.factorial import Grid

ROWS = {"whole": LastItems(), "prefixes": EveryPrefix(), "sliding": Sliding()}
LOSSES = {"softmax": FullSoftmax(), "bce": BinaryCrossEntropy()}


@pytest.mark.parametrize(("name", "cells"), [("sasrec", 12), ("bsarec", 6)])
def test_rows_targets_and_losses_are_those_of_the_cells_name(name: str, cells: int) -> None:
    study = getattr(subsequences, name)()
    grid = study.cells
    assert isinstance(grid, Grid)
    assert len(grid) == cells
    (recipe,) = grid["recipe"].stages
    for cell, config in grid.items():
        (stage,) = config.stages
        levels, objective = grid.levels[cell], stage.objectives["next"]
        assert isinstance(objective, NextItemConfig)
        assert stage.windows == ROWS[levels["rows"]]
        assert objective.loss == LOSSES[levels["loss"]]
        assert objective.predict == levels.get("targets", "last")
        same = replace(stage, windows=recipe.windows, objectives=recipe.objectives)
        assert replace(config, stages=(same,)) == grid["recipe"]


def test_bert4rec_hides_random_items_or_the_newest_alone() -> None:
    grid = subsequences.bert4rec().cells
    assert isinstance(grid, Grid)
    assert len(grid) == 12
    for cell, levels in grid.levels.items():
        (stage,) = grid[cell].stages
        objective = stage.objectives["cloze"]
        assert isinstance(objective, ClozeConfig)
        assert isinstance(objective.corruption, MaskItems)
        assert objective.corruption.last_only_share == float(levels["masks"] == "last")
        assert objective.loss == LOSSES[levels["loss"]]
        assert stage.windows == ROWS[levels["rows"]]
        # An epoch of prefixes is about seven of the others.
        assert stage.validation is not None
        assert stage.validation.every_epochs == (1 if levels["rows"] == "prefixes" else 5)

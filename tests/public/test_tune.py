"""`sf.tune`: a space beside a config, and the same result as the command line's."""

from __future__ import annotations

from pathlib import Path

import pytest

import sixfold as sf
from research.storage.tuning_records import TuningRecord

pytest.importorskip("optuna")


def space(trial: sf.Trial) -> dict[str, object]:
    """A rate and a block."""
    return {
        "stages.0.optimizer.lr": trial.log_uniform("lr", 1e-3, 1e-1),
        "encoder.block": trial.choice("block", {"pre": sf.PreNorm(), "post": sf.PostNorm()}),
    }


def test_a_config_is_tuned_by_its_space(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    cells = {"popularity": "popularity.popularity", "next": (small_config, space)}
    result = sf.tune(
        cells, small_corpus, trials=3, sampler=sf.RandomSearch(), fresh_seeds=(1, 2), out=tmp_path
    )
    assert set(result.table()["cell"]) == {"popularity", "next"}
    assert result.run("next", seed=2).config.seed == 2
    assert (result.folder / TuningRecord.FILE).is_file()
    assert len(list((tmp_path / "tuning-trials").rglob("summary.json"))) == 3
    assert "How the cells were tuned" in result.report().read_text(encoding="utf-8")


def test_a_cell_that_is_none_is_refused(small_config: sf.RunConfig, tmp_path: Path) -> None:
    for cells, message in (
        ({}, "no cell has a space"),
        ({"next": (small_config, space, 3)}, r"a cell is a tuple of 3; give \(config, space\)"),
        ({"next": small_config}, "no cell has a space"),
    ):
        with pytest.raises(sf.InputError, match=message):
            sf.tune(cells, "none", out=tmp_path)  # type: ignore[arg-type]

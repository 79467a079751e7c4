"""What W&B is told of a run: names, ids, nested config, numbered rows, summary; and of no path."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import baselines.popularity
import baselines.s3rec
import baselines.sasrec
from research.runs.config import RunConfig
from research.storage.records import Machine, Provenance, StartRecord, WandbRecord
from research.tracking.wandb_fields import (
    DisplayNames,
    Rows,
    RunLocation,
    axes_of,
    config_of,
    run_id,
    summary_of,
    tags_of,
)
from tests.support.records import study_record, write_as_json
from tests.support.wandb_run_folders import SUMMARY, shop_run_record, write_run


def told(path: Path, config: RunConfig | None = None) -> dict[str, Any]:
    return config_of(path, shop_run_record(config), None)


def test_a_folder_as_a_study_lays_it_out_says_what_the_run_is(tmp_path: Path) -> None:
    place = RunLocation.of(tmp_path / "heads" / "shop" / "none" / "0", shop_run_record())
    assert place == RunLocation("heads", "shop", "none", 0)


@pytest.mark.parametrize("name", ["mine", "7", "other/none/0"])
def test_any_other_folder_is_a_run_of_its_own_whose_place_is_not_told(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    assert RunLocation.of(path, shop_run_record()) == RunLocation("single", "shop", path.name, 0)


def test_equal_runs_in_equal_places_have_one_id_and_others_have_others(tmp_path: Path) -> None:
    one = write_run(tmp_path / "a" / "heads" / "shop" / "none" / "0")
    again = write_run(tmp_path / "b" / "heads" / "shop" / "none" / "0")
    others = [
        write_run(tmp_path / "a" / "heads" / "shop" / "all" / "0"),
        write_run(tmp_path / "a" / "masks" / "shop" / "none" / "0"),
        write_run(
            tmp_path / "a" / "heads" / "shop" / "none" / "1",
            config=replace(baselines.sasrec.full_softmax(), seed=1),
        ),
    ]
    assert run_id(one) == run_id(again)
    ids = {run_id(path) for path in [one, *others]}
    assert len(ids) == 4
    assert all(len(each) <= 64 and each.isalnum() for each in ids)


def test_a_run_keeps_the_id_that_it_was_mirrored_under(tmp_path: Path) -> None:
    write_as_json(write_run(tmp_path), WandbRecord(id="of-a-sweep"))
    assert run_id(tmp_path) == "of-a-sweep"


@pytest.mark.parametrize(
    ("config", "job"),
    [
        (baselines.popularity.popularity(), "baseline"),
        (baselines.sasrec.full_softmax(), "train"),
        (replace(baselines.sasrec.full_softmax(), start_from="runs/a"), "finetune"),
        (baselines.s3rec.corrected(), "finetune"),
    ],
)
def test_the_job_type_says_how_a_run_comes_to_its_weights(
    tmp_path: Path, config: RunConfig, job: str
) -> None:
    named = DisplayNames.of(tmp_path / "heads" / "shop" / "none" / "0", shop_run_record(config))
    assert named == DisplayNames("heads", job, f"none-s0-{job}")


def test_a_long_name_is_cut_to_what_is_allowed_and_keeps_its_seed(tmp_path: Path) -> None:
    named = DisplayNames.of(tmp_path / "heads" / "shop" / ("x" * 200) / "0", shop_run_record())
    assert len(named.name) == 128
    assert named.name.endswith("x-s0-finetune")


def test_tags_are_few(tmp_path: Path) -> None:
    counting = shop_run_record(baselines.popularity.popularity())
    assert tags_of(tmp_path / "mine", counting) == [
        "dataset:shop", "model:popularity", "proto:LeaveOneOut", "cell:mine",
    ]  # fmt: skip
    tags = tags_of(tmp_path / "mine", shop_run_record())
    assert tags[1:3] == ["model:transformer", "proto:GlobalTemporal"]


def test_runs_of_a_study_are_tagged_with_their_baseline(tmp_path: Path) -> None:
    write_as_json(tmp_path / "heads", study_record("heads", ["all", "none"]))
    shop = tmp_path / "heads" / "shop"
    assert tags_of(shop / "none" / "0", shop_run_record())[3:] == ["cell:none", "base:all"]
    assert tags_of(shop / "all" / "0", shop_run_record())[3:] == [
        "cell:all", "base:all", "baseline",
    ]  # fmt: skip


def test_code_machine_and_versions_are_told_unless_it_is_silent(tmp_path: Path) -> None:
    entry = Provenance(
        begun="2026-11-01T10:00:00Z", commit="c0ffee", clean=True, processes=2,
        machine=Machine(platform="Linux-6", cpu="A processor", cores=8),
        versions={"torch": "2.13"}, command="python /home/someone/x.py",
    )  # fmt: skip
    record = replace(shop_run_record(), provenance=(Provenance(), entry))
    config: dict[str, Any] = config_of(tmp_path, record, None)
    assert config["code"] == {"commit": "c0ffee", "clean": True}
    assert config["env"] == {"torch": "2.13"}
    assert (config["machine"]["cores"], config["machine"]["processes"]) == (8, 2)
    assert "someone" not in json.dumps(config)
    silent = config_of(tmp_path, record, SUMMARY, silent=True)
    assert {"code", "env", "machine"} & silent.keys() == set()
    assert config_of(tmp_path, record, SUMMARY)["env"] == dict(SUMMARY.versions)


def test_every_run_tells_the_weights_of_all_objectives_of_its_study(tmp_path: Path) -> None:
    config = told(tmp_path, baselines.s3rec.corrected())
    assert config["objectives"] == {"aap": 0.2, "mip": 1.0, "map": 1.0, "sp": 0.5, "next": 1.0}
    assert config["stages"]["finetune"]["weights"] == {
        "aap": 0.0, "mip": 0.0, "map": 0.0, "sp": 0.0, "next": 1.0
    }  # fmt: skip
    study = study_record("heads", ["none", "all"])
    write_as_json(tmp_path / "heads", replace(study, objectives=("next", "contrast")))
    config = told(tmp_path / "heads" / "shop" / "all" / "0", baselines.sasrec.full_softmax())
    assert config["objectives"] == {"next": 1.0, "contrast": 0.0}
    assert config["stages"]["train"]["weights"] == {"next": 1.0, "contrast": 0.0}
    counting = told(tmp_path, baselines.popularity.popularity())
    assert counting["objectives"] == {}
    assert counting["model"] == {
        "kind": "PopularityConfig", "newest_share": 1.0, "newest_days": None,
    }  # fmt: skip


def test_what_a_cell_changes_is_told_from_the_studys_own_record(tmp_path: Path) -> None:
    changes = {"none": {"stages.0.objectives.mip.weight": (1.0, 0.0)}}
    write_as_json(
        tmp_path / "heads", replace(study_record("heads", ["all", "none"]), changes=changes)
    )
    assert told(tmp_path / "heads" / "shop" / "none" / "0")["ablation"] == {
        "id": "heads",
        "cell": "none",
        "baseline": False,
        "factors": {"stages.0.objectives.mip.weight": 0.0},
    }
    # The base has a value of every field that another cell changes, so that runs can be grouped.
    assert told(tmp_path / "heads" / "shop" / "all" / "0")["ablation"] == {
        "id": "heads",
        "cell": "all",
        "baseline": True,
        "factors": {"stages.0.objectives.mip.weight": 1.0},
    }


def test_every_run_of_a_grid_tells_its_level_of_every_factor(tmp_path: Path) -> None:
    levels = {"all": {"mip": "on", "layers": "2"}, "none": {"mip": "off", "layers": "2"}}
    study = replace(
        study_record("heads", ["all", "none", "popularity"]),
        factors={"mip": ("on", "off"), "layers": ("1", "2")},
        levels=levels,
        changes={"none": {"stages.0.objectives.mip.weight": (1.0, 0.0)}},
    )
    write_as_json(tmp_path / "heads", study)
    for cell in ("all", "none"):
        run = told(tmp_path / "heads" / "shop" / cell / "0")
        assert run["ablation"]["factors"] == levels[cell]
    beside = told(tmp_path / "heads" / "shop" / "popularity" / "0")
    assert beside["ablation"]["factors"] == {"mip": None, "layers": None}


def test_of_paths_only_the_last_part_is_told(tmp_path: Path) -> None:
    config = baselines.sasrec.full_softmax()
    config = replace(
        config,
        corpus="/home/ann/data/shop",
        start_from="/home/ann/runs/old",
        evaluation=replace(config.evaluation, negatives_file="/home/ann/negatives.txt"),
    )
    start = StartRecord(folder="/home/ann/runs/old", stage="train", sha256="ab")
    record = replace(shop_run_record(config), start=start)
    told = config_of(tmp_path / "mine", record, SUMMARY)
    assert told["start"] == {"stage": "train", "sha256": "ab"}
    text = json.dumps([told, tags_of(tmp_path / "mine", record)])
    assert "negatives.txt" in text
    assert "ann" not in text
    assert str(tmp_path) not in text


def test_a_row_has_its_values_and_the_axes_to_draw_them_over() -> None:
    rows = Rows()
    lines: list[dict[str, Any]] = [
        {"stage": "first", "step": 2, "epoch": 0, "first/loss": 0.5},
        {"stage": "first", "step": 2, "epoch": 1, "val/mrr": 0.25},
        {"stage": "second", "step": 3, "epoch": 0, "second/loss": 0.75},
    ]
    assert [rows.row(line) for line in lines] == [
        {"global_step": 2, "first/step": 2, "epoch": 0, "stage": "first", "first/loss": 0.5},
        {"global_step": 2, "first/step": 2, "epoch": 1, "stage": "first", "val/mrr": 0.25},
        {"global_step": 5, "second/step": 3, "epoch": 0, "stage": "second", "second/loss": 0.75},
    ]
    assert rows.number == 3
    assert axes_of(shop_run_record()) == {
        "first/*": "first/step", "second/*": "second/step", "val/*": "epoch"
    }  # fmt: skip


def test_values_that_are_not_finite_are_numbers_again() -> None:
    row = Rows().row({"stage": "nan", "step": 1, "epoch": 0, "nan/loss": "inf", "nan/lr": "-inf"})
    assert (row["nan/loss"], row["nan/lr"]) == (float("inf"), float("-inf"))
    assert row["stage"] == "nan"


def test_the_summary_has_status_best_and_test() -> None:
    assert summary_of(SUMMARY) == {
        "status": "finished",
        "best/epoch": 2,
        "best/val/ndcg@10": 0.25,
        "best/first/epochs": 3,
        "best/first/steps": 6,
        "best/first/skipped": 0,
        "best/second/epoch": 2,
        "best/second/value": 0.25,
        "best/second/epochs": 4,
        "best/second/steps": 8,
        "best/second/skipped": 0,
        "test/hr@10": 0.5,
        "test/uniform-100/hr@10": 0.75,
        "cost/parameters": 12,
        "cost/seconds": 1.5,
    }

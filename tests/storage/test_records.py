"""Records: what runs and studies write is read as it was written, or refused by file and field.

`earlier_run` beside this file is a run as commit 22711a7 left it, before runs kept by which code
they were done.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baselines.popularity import popularity
from research.config import record_to_json
from research.errors import InputError
from research.storage.nonfinite_record import NonFiniteRecord, NonFiniteShare
from research.storage.records import (
    CarriedRecord,
    CostRecord,
    CoverageRecord,
    FailureRecord,
    ImportRecord,
    KeyRecord,
    Machine,
    OriginRecord,
    Provenance,
    Record,
    RunRecord,
    RunSummary,
    StageResult,
    StartRecord,
    StudyRecord,
    UsersRecord,
    WandbRecord,
    read_record,
    write_record,
)
from tests.support.command_line import run_command
from tests.support.records import run_record, run_summary, study_record, write_as_json

EARLIER = Path(__file__).parent / "earlier_run"


def stored(path: Path) -> Any:
    return json.loads(path.read_text())


def refusal(folder: Path, kind: type[Record], **changes: Any) -> str:
    """What is said of a file of which these fields are changed (...: taken out)."""
    records: dict[type[Record], Record] = {
        RunRecord: run_record(),
        RunSummary: run_summary(),
        FailureRecord: FailureRecord(hash="ab", error="", traceback="", when=""),
        OriginRecord: OriginRecord(run="../other"),
    }
    write_as_json(folder, records[kind])
    path = folder / kind.FILE
    fields = {**stored(path), **changes}
    path.write_text(json.dumps({name: part for name, part in fields.items() if part is not ...}))
    with pytest.raises(InputError) as caught:
        read_record(folder, kind)
    found = re.fullmatch(
        rf"{re.escape(str(path))} is damaged or of another program or version \((.*)\); "
        "remove it, and the command that began the run writes it anew",
        str(caught.value),
    )
    assert found, caught.value
    return found[1]


# A run of an earlier version


def test_an_earlier_run_is_read_as_it_was_written() -> None:
    record, summary = read_record(EARLIER, RunRecord), read_record(EARLIER, RunSummary)
    earlier = stored(EARLIER / "config.json")
    dataset = earlier["dataset"]
    assert isinstance(dataset, dict)
    assert record_to_json(record) == {
        **earlier,
        "dataset": {**dataset, "options": {}},
        "provenance": [],
        "extensions": [],
    }
    assert record_to_json(summary) == {
        **stored(EARLIER / "summary.json"),
        "lists": {},
        "questions": {},
        "notes": [],
    }
    assert record is not None
    assert (record.outline.corpus, record.outline.seed, record.ties) == (
        "corpora/shop", 0, "expected"
    )  # fmt: skip
    assert summary is not None
    assert summary.users == UsersRecord(evaluated=15, not_evaluated=0)
    assert summary.cost == CostRecord(
        parameters=244, seconds=0.3109687190008117, shared_seconds=0.12290987900087202, items=305
    )
    assert summary.best["pretrain"] == StageResult(
        epoch=None, value=None, epochs=1, steps=3, skipped=0
    )
    assert summary.shared == {"pretrain": "../../base/0"}


def test_an_earlier_run_is_shown_with_an_unknown_origin(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_command(capsys, "show", EARLIER)
    assert answer.code == 0
    for line in (
        "│ hr@2   │           0.3333 │     0.3333 │          0.4667 │",
        "│ mrr    │           0.3157 │     0.3346 │          0.4167 │",
        "stage pretrain: 1 epochs, 3 steps, no validation", "parameters: 244", "tokens: 305",
        "trained: in 0.3 s, 0.1 s of it by other runs", "users: 15 evaluated, 0 could not be",
        "held-out items that the history has, so never hit: 6.7%",
        "carried into finetune: 16 from stage pretrain, 0 newly initialized, 9 not used",
        "fingerprint: 49941153bfe5badf", "ties: expected",
        "versions: torch 2.13.0+cpu", "begun: unknown", "commit: unknown", "machine: unknown",
        "command: unknown",
    ):  # fmt: skip
        assert f"\n{line}\n" in answer.out


# Written and read again


PROVENANCE = Provenance(
    begun="2026-01-02T03:04:05Z",
    commit="ab" * 20,
    clean=False,
    machine=Machine(platform="Linux", cpu="A CPU", cores=4, accelerator="A GPU"),
    processes=2,
    versions={"python": "3.11.7"},
    command="python -m research run x",
)
RECORDS: list[Record] = [
    run_record(),
    run_record(popularity(), provenance=(Provenance(), PROVENANCE)),
    run_record(start=StartRecord(folder="runs/a", stage="train", sha256="ab")),
    run_summary(),
    run_summary(
        best={}, val={}, cost=CostRecord(parameters=0, seconds=0.5), notes=("ä\u2028",),
        attributes=CoverageRecord(items=1, items_without=0, attributes=2, never_seen=1),
        carried={"a": CarriedRecord(moved={"b": ("c",)}, new=(), left=(), rows={"e": {"f": 1}})},
        shared={"a": "../b"},
        imported=ImportRecord(
            file="a.pt", sha256="ab", remarks=(), keys=(KeyRecord(key="k", shape=(), place="p"),)
        ),
    ),
    FailureRecord(hash="ab", error="E: x\ny", traceback="", when="2026-01-02T03:04:05Z"),
    NonFiniteRecord(
        stage="train", step=3, epoch=0,
        shares=(NonFiniteShare(rank=0, not_finite=("a",), rows=(1, 2), users=(3,)),),
    ),
    OriginRecord(run="../../CELL/0"),
    WandbRecord(id="a"),
    replace(
        study_record("s", ["a", "b"]),
        changes={"b": {"x.y": (None, {"class": "A", "b": [1, 2]})}},
        runs={"films": {"a": {"0": "ab", "10": "cd", "9": "ef"}}},
        factors={"x": ("1", "2")},
        levels={"a": {"x": "1"}, "b": {"x": "2"}},
    ),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_written_is_what_is_read(tmp_path: Path, record: Record) -> None:
    write_record(tmp_path, record)
    assert read_record(tmp_path, type(record)) == record


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path, RunSummary) is None
    assert read_record(tmp_path, OriginRecord, "stages/train") is None


def test_what_is_no_file_is_not_taken_for_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(InputError, match=r"summary\.json is no file"):
        read_record(tmp_path, RunSummary)


def test_only_what_is_none_by_default_is_left_out() -> None:
    assert record_to_json(StartRecord()) == {}
    assert record_to_json(CostRecord(parameters=1, seconds=2.0)) == {
        "parameters": 1,
        "seconds": 2.0,
    }
    result = StageResult(epoch=None, value=None, epochs=1, steps=2, skipped=0)
    assert record_to_json(result)["epoch"] is None
    assert record_to_json(run_summary())["shared"] == {}


def test_seeds_are_in_the_order_of_numbers() -> None:
    study = RECORDS[-1]
    assert list(vars(study)["runs"]["films"]["a"]) == ["0", "10", "9"]
    assert study.seeds_of("films", "a") == {0: "ab", 9: "ef", 10: "cd"}  # type: ignore[attr-defined]
    assert study.seeds_of("films", "b") == {}  # type: ignore[attr-defined]


def test_a_study_of_a_version_without_factors_crosses_none(tmp_path: Path) -> None:
    write_as_json(tmp_path, study_record("s", ["a", "b"]))
    fields = stored(tmp_path / "study.json")
    del fields["factors"], fields["levels"]
    (tmp_path / "study.json").write_text(json.dumps(fields))
    study = read_record(tmp_path, StudyRecord)
    assert study is not None
    assert (study.factors, study.levels) == ({}, {})


# What is wrong is named


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        (RunRecord, {"hash": ...}, "hash is missing; allowed: str"),
        (RunRecord, {"hash": 7}, "hash is 7; allowed: str"),
        (RunRecord, {"hsh": "x"}, "hsh is not a known field; did you mean hash? (allowed: "
         "config, dataset, extensions, fingerprint, hash, provenance, stages, start)"),
        (RunRecord, {"dataset": []}, "dataset is []; allowed: an object with name, users, items, "
         "interactions, attributes, filters, options, events"),
        (RunRecord, {"dataset": ...}, "dataset is missing; allowed: an object with name, users, "
         "items, interactions, attributes, filters, options, events"),
        (RunRecord, {"dataset": {"name": "x"}}, "dataset.users is missing; allowed: int"),
        (RunRecord, {"start": {"sha26": "x"}}, "start.sha26 is not a known field; did you "
         "mean sha256? (allowed: folder, sha256, stage)"),
        (RunRecord, {"stages": {"a": 1}}, "stages.a is 1; allowed: str"),
        (RunRecord, {"config": None}, "config is None; allowed: an object"),
        (RunRecord, {"config": {}}, "config.corpus is missing; allowed: str"),
        (RunRecord, {"provenance": [{}, {"cores": 1}]}, "provenance.1.cores is not a known "
         "field; allowed: begun, clean, command, commit, machine, processes, versions"),
        (RunRecord, {"provenance": [{"machine": {"cpu": 1}}]},
         "provenance.0.machine.platform is missing; allowed: str"),
        (RunRecord, {"provenance": [{"machine": 1}]}, "provenance.0.machine is 1; allowed: an "
         "object with platform, cpu, cores, accelerator | None"),
        (RunSummary, {"status": "failed"}, "status is 'failed'; allowed: finished"),
        (RunSummary, {"ties": "best"}, "ties is 'best'; allowed: expected | mean"),
        (RunSummary, {"best": {"train": {"epoch": 1, "value": 0.5, "epochs": 2, "steps": "3"}}},
         "best.train.skipped is missing; allowed: int"),
        (RunSummary, {"cost": {"parameters": 1, "seconds": "long"}},
         "cost.seconds is 'long'; allowed: float"),
        (RunSummary, {"users": {"evaluated": True, "not_evaluated": 0}},
         "users.evaluated is True; allowed: int"),
        (RunSummary, {"test": {"full": {"mrr": None}}}, "test.full.mrr is None; allowed: float"),
        (RunSummary, {"notes": ["a", 3]}, "notes.1 is 3; allowed: str"),
        (RunSummary, {"notes": "a"}, "notes is 'a'; allowed: a list of str"),
        (FailureRecord, {"when": None}, "when is None; allowed: str"),
        (OriginRecord, {"run": "/etc"},
         "run is '/etc'; allowed: another run of the study, as ../../CELL/SEED"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_dotted_field(
    tmp_path: Path, kind: type[Record], changes: dict[str, Any], said: str
) -> None:
    assert refusal(tmp_path, kind, **changes) == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": []}, "config: a run has either stages or a counting ranker, and not both"),
        ({"stages": [{"name": "a"}]}, "config.stages.0.objectives is missing; allowed: "
         "an object of an object with weight"),
        ({"stages": [{"name": "../x", "objectives": {}}]},
         "config.stages.0: name is '../x', which cannot be the name of a folder"),
        ({"stages": [{"name": "a\0", "objectives": {}}]},
         "config.stages.0: name is 'a\\x00', which cannot be the name of a folder"),
        ({"stages": [{"name": "a", "objectives": {"next": {}}}]},
         "config.stages.0.objectives.next.weight is missing; allowed: float"),
        ({"seed": "1"}, "config.seed is '1'; allowed: int"),
        ({"encoder": 3}, "config.encoder is 3; allowed: an object"),
    ],
)  # fmt: skip
def test_what_of_a_config_can_be_checked_without_its_classes_is(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    assert refusal(tmp_path, RunRecord, config={**run_record().config, **changes}) == said


def test_fields_of_a_config_that_this_version_does_not_know_are_left_to_its_classes(
    tmp_path: Path,
) -> None:
    write_as_json(tmp_path, run_record(), config={**run_record().config, "later": {"class": "x:Y"}})
    record = read_record(tmp_path, RunRecord)
    assert record is not None
    assert record.config["later"] == {"class": "x:Y"}


def test_a_config_of_a_version_that_named_modules_says_so(tmp_path: Path) -> None:
    write_as_json(tmp_path, run_record(), config={"class": "research.run:RunConfig"})
    with pytest.raises(InputError, match=r"names its class 'research.run:RunConfig': that is the"):
        read_record(tmp_path, RunRecord)


def test_damaged_json_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"not valid JSON .*; remove it, and the command that beg"):
        read_record(tmp_path, RunSummary)


@pytest.mark.parametrize(
    ("factors", "levels", "said"),
    [
        ({}, {"a": {"x": "1"}}, "levels.a has levels of x; it must be one of the cells, with"),
        ({"x": ["1"]}, {"a": {}}, "levels.a has levels of ; it must be one of the cells"),
        ({"x": ["1"]}, {"c": {"x": "1"}}, "levels.c has levels of x; it must be one of the cells"),
        ({"x": ["1"]}, {"a": {"x": "1"}, "b": {"x": "1"}}, "levels has two cells with the same"),
        ({"x": []}, {}, "factors.x must name one level or more, each once"),
        ({"x": ["1", "1"]}, {}, "factors.x must name one level or more, each once"),
        ({name: ["1", "2"] for name in "abcdefghijklmn"}, {}, "more than 10,000 combinations"),
    ],
)
def test_levels_that_a_report_could_not_use_are_refused(
    tmp_path: Path, factors: dict[str, Any], levels: dict[str, Any], said: str
) -> None:
    write_as_json(tmp_path, study_record("s", ["a", "b"]), factors=factors, levels=levels)
    with pytest.raises(InputError, match=re.escape(said)):
        read_record(tmp_path, StudyRecord)

"""Targets: run folders, studies, rank tables, checkpoints and foreign weights."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections import OrderedDict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from rich.console import Console

from research.checkpoint import files as checkpoint
from research.checkpoint.tensors import fill_optimizer
from research.cli.show import show_run
from research.config import record_to_json
from research.evaluation.list_metrics import LIST_METRICS
from research.evaluation.list_table import ListTable
from research.evaluation.metrics import per_user
from research.evaluation.rank_table import RankTable
from research.interop.hub import export_hub, import_hub
from research.interop.import_export import stored_zero_rows
from research.interop.model_files import open_source
from research.interop.row_formats import ROW_FORMATS
from research.interop.row_model import RowModel, rows_by_id
from research.interop.s3rec_import import S3RecModel
from research.interop.state_dict import checked_float, read_state_dict
from research.report.build import cost_of, read_runs, report_of
from research.report.csv_table import effects_frame_of, frame_of
from research.report.latex import latex_of
from research.report.learning_curves import cosines, panels, read_lines
from research.report.records import read_study
from research.report.terminal import print_report
from research.runs.execute import execute
from research.runs.warm_start import find_warm_start
from research.storage.json_files import write_json
from research.storage.records import (
    CarriedRecord,
    CoverageRecord,
    FailureRecord,
    ImportRecord,
    KeyRecord,
    OriginRecord,
    RunRecord,
    RunSummary,
    StageResult,
    WandbRecord,
    read_record,
    write_record,
)
from research.storage.run_folder import RunFolder
from research.storage.stage_origin import stage_origin
from research.studies.record import record_study
from research.studies.study import Study
from research.tracking.sync import read_run_files
from research.training.checkpointer import state_of
from research.training.state import StageState
from tests.evaluation.reference_list_metrics import table_of as lists_of
from tests.fuzz.mutations import number_of
from tests.fuzz.targets import Case, Target, altering, some, written
from tests.support.configs import CONFIGS
from tests.support.records import FINGERPRINT, HASH, run_record, run_summary
from tests.support.row_format_files import gsasrec_state, recbole_state
from tests.support.s3rec_files import numbered_corpus, published_state
from tests.support.small_runs import FINETUNE, QUIET, config_of, frozen
from tests.support.study_folders import fail_run, table_of, write_run, write_study

SUMMARY = run_summary(
    best={"train": StageResult(epoch=1, value=0.25, epochs=2, steps=10, skipped=0)},
    carried={
        "train": CarriedRecord(
            moved={"stage a": ("x",)}, new=("y",), left=(), rows={"items": {"kept": 3}}
        )
    },
    shared={"train": "../../other/0"},
    attributes=CoverageRecord(items=6, items_without=1, attributes=3, never_seen=0),
    notes=("a note",),
    imported=ImportRecord(
        file="x.pt",
        sha256="00",
        keys=(KeyRecord(key="a", shape=(2, 3), place="dropped"),),
        remarks=("a remark",),
    ),
)
LINES = [
    {"stage": "train", "step": 5, "epoch": 0, "train/loss/next": 2.5, "train/loss/cloze": "nan"},
    {"stage": "train", "step": 5, "epoch": 1, "val/mrr": 0.2, "val/hr@1": 0.1},
    {"stage": "train", "step": 10, "epoch": 1, "train/loss/next": 2.0,
     "train/gradient_norm/next": 1.0, "train/gradient_norm/cloze": 2.0,
     "train/gradient_cosine/next+cloze": 0.3},
    {"stage": "train", "step": 10, "epoch": 2, "val/mrr": 0.25, "val/hr@1": 0.5},
]  # fmt: skip


def one_run(path: Path) -> Path:
    """A finished run's JSON files, its rank tables, and checkpoints of a tiny model."""
    write_record(path, run_record())
    write_record(path, SUMMARY)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    write_record(path, FailureRecord(hash=HASH, error="x", traceback="", when=""))
    write_record(path, WandbRecord(id="0123", project="p"))
    write_record(path / "stages" / "train", OriginRecord(run="../../other/0"))
    write_record(path.parent.parent / "other" / "0", run_record())
    return path


def run_folder(folder: Path) -> Case:
    path = one_run(folder / "films" / "cell" / "0")

    def read(random: Random) -> object:
        reader = RunFolder(path, writes=False)
        kind = random.randrange(6)
        if kind == 0:
            return [reader.read(kind) for kind in (RunRecord, RunSummary, FailureRecord)]
        if kind == 1:
            return read_record(path, WandbRecord)
        if kind == 2:
            return reader.metrics()
        if kind == 3:
            return stage_origin(reader, "train")
        if kind == 4:
            return read_run_files(path)
        return show_run(path)

    return altering(path, read)


def study_folder(folder: Path) -> Path:
    made = write_study(
        folder / "heads",
        ["base", "more"],
        changes={"more": {"encoder.width": [8, {"a": [1, None]}]}},
        factors={"width": ["8", "16"]},
        levels={"base": {"width": "8"}, "more": {"width": "16"}},
    )
    for cell in ("base", "more"):
        ranks = [1, 2, 3, 4, 5, float("inf")] if cell == "base" else [2, 1, 1, 3, 9, 4]
        run = write_run(made, cell, 0, ranks, lines=LINES, summary=record_to_json(SUMMARY))
        table_of(ranks, candidates="uniform-3").save(run / "ranks" / "test-uniform-3.npz")
    fail_run(made, "base", 1, "ValueError: bad")
    return made


def study(folder: Path) -> Case:
    """What a report reads, without its statistics."""
    made = study_folder(folder)

    def read(random: Random) -> None:
        record = read_study(made)
        for corpus in record.corpora:
            runs = read_runs(made, record, corpus, "test")
            finished = [run for run in runs if run.status == "finished"]
            for run in finished:
                run.origin_cells()
            [cost_of(cell, runs) for cell in record.cells]
            lines = read_lines(finished)
            panels(lines, record.compared)
            cosines(lines)

    return altering(made, read)


def report(folder: Path) -> Case:
    """The whole report, as text."""
    made = study_folder(folder)

    def read(random: Random) -> None:
        found = report_of(made, figures=random.random() < 0.2)
        print_report(found, Console(file=io.StringIO(), width=200, markup=False))
        latex_of(found).encode()
        frame_of(found).to_csv(index=False).encode()
        effects_frame_of(found).to_csv(index=False).encode()

    altered = altering(made, read)
    path = made / "films" / "more" / "0" / "ranks" / "test-full.npz"
    valid = path.read_bytes()

    def other_ranks(random: Random) -> None:
        """A rank table that is whole, of numbers that no ranking may give."""
        number = random.choice((0, 1, 5, 6, 6, 6))
        ranks = [
            random.choice((1.0, 1.5, 2.0, 7.0, 1e300, float("inf"), 0.5)) for _ in "x" * number
        ]
        ranks = [max(each, 1.0) if random.random() < 0.9 else each for each in ranks]
        ties = np.array([random.choice((0, 0, 1, 7, 10_000)) for _ in ranks], np.int32)
        if random.random() < 0.7:
            # A whole place for the first of those that tie.
            ranks = [np.floor(rank) + others / 2 for rank, others in zip(ranks, ties.tolist())]
        table = table_of(ranks)
        users = np.array([random.randrange(4) for _ in ranks], np.int32)
        columns = {"ties": ties} | ({"user": users} if random.random() < 0.5 else {})
        if random.random() < 0.2:
            columns["item_count"] = users - random.randrange(3)
        replace(table, **columns).save(path)
        try:
            read(random)
        finally:
            path.write_bytes(valid)

    return some(altered, altered, other_ranks)


def study_record(folder: Path) -> Case:
    """What `study` reads before it writes study.json anew."""
    config = CONFIGS["popularity"]()
    asked = Study(name="mine", question="?", cells={"base": config}, base="base")
    record_study(asked, folder, [], "command")
    path = folder / "mine" / "study.json"
    stored = json.loads(path.read_text())
    write_json(path, {**stored, "runs": {"films": {"base": {"0": "abcd"}}}})
    return altering(path.parent, lambda random: record_study(asked, folder, [], "command"))


def rank_table(folder: Path) -> Case:
    table_of([1, 2, 3, 4, 5, float("inf")]).save(folder / "test-full.npz")
    written(folder, {"empty": ""})
    long = table_of(np.arange(1, 300, dtype=np.float64).tolist())
    long.save(folder / "long.npz")
    cases = [
        altering(folder, lambda random, path=path: RankTable.load(path), [path.name])
        for path in (folder / "test-full.npz", folder / "long.npz")
    ]
    return some(*cases)


def list_table(folder: Path) -> Case:
    table = lists_of([[1, 3], [0, 3], [2]], 5, trained=[[0, 1], [0, 2], [4]], attributes=[[0]] * 5)
    table.save(folder / "lists.npz")

    def read(random: Random) -> None:
        """What can be read gives every metric, or says why it cannot."""
        loaded = ListTable.load(folder / "lists.npz")
        for kind in LIST_METRICS:
            per_user(loaded, f"{kind}@2")

    return altering(folder, read)


def start(folder: Path) -> Case:
    """What `start_from` and `export` read of a run."""
    path = one_run(folder / "run")
    stage, module = path / "stages" / "train", torch.nn.Linear(3, 2)
    state = {"fingerprint": FINGERPRINT, "finished": True, "step": 3, "best_step": 2}
    checkpoint.save(checkpoint.folder_of(stage, checkpoint.BEST, 2), module, None, state)
    checkpoint.save(checkpoint.folder_of(stage, checkpoint.STEP, 3), module, None, state)
    asked = (str(path), f"{path}/stages/train")
    return altering(path, lambda random: find_warm_start(random.choice(asked)))


def checkpoints(folder: Path) -> Case:
    """A stage's checkpoints; mostly with right checksums, so that what lies behind them is read."""
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"fingerprint": FINGERPRINT, **asdict(StageState(step=3, best_step=2))}
    best = checkpoint.folder_of(folder, checkpoint.BEST, 2)
    last = checkpoint.folder_of(folder, checkpoint.STEP, 3)
    checkpoint.save(best, module, None, state)
    checkpoint.save(last, module, optimizer, state)
    valid = {path: (path / "state.json").read_bytes() for path in (best, last)}

    def read(random: Random) -> None:
        if random.random() < 0.8:
            for path in (best, last):
                seal(path)
        newest = checkpoint.newest_state(folder, FINGERPRINT)[0]
        state_of(checkpoint.read_state(newest, FINGERPRINT), str(newest))
        checkpoint.has_finished(folder)
        # What is filled is thrown away.
        fresh = torch.nn.Linear(3, 2)
        checkpoint.load_weights(checkpoint.result_folder(folder, FINGERPRINT), fresh)
        stored = checkpoint.read_optimizer(newest)
        fill_optimizer(stored, torch.optim.AdamW(fresh.parameters()), str(newest))

    case = altering(folder, read)

    def whole(random: Random) -> object:
        try:
            return case(random)
        finally:
            for path, content in valid.items():
                (path / "state.json").write_bytes(content)

    return whole


def seal(path: Path) -> None:
    """Make the checksums of a checkpoint right, if that is possible."""
    if not (path / "state.json").is_file():
        return
    try:
        state = json.loads((path / "state.json").read_bytes())
        names = ("model.safetensors", "optimizer.safetensors")
        state["sha256"] = {
            name: checkpoint.sha256_of(path / name) for name in names if (path / name).is_file()
        }
        state.pop("checksum", None)
        (path / "state.json").write_text(checkpoint.state_text(state))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        pass


def zero_rows(folder: Path) -> Case:
    import safetensors.torch

    rows = {
        name: torch.zeros(8) for name in ("item_embeddings.weight", "attribute_embeddings.weight")
    }
    safetensors.torch.save_file(rows, folder / "zero_rows.safetensors")
    return altering(folder, lambda random: stored_zero_rows(folder, 8))


def pickled(state: object, *, old: bool = False) -> bytes:
    target = io.BytesIO()
    torch.save(state, target, _use_new_zipfile_serialization=not old)
    return target.getvalue()


class Planted:
    """An object whose pickle asks for code to be run when it is read."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("this must never be run",))


class Greedy:
    """An object of a few bytes whose pickle asks for a terabyte."""

    def __reduce__(self) -> tuple[object, ...]:
        return (bytearray, (1 << 40,))


def state_dict(folder: Path) -> Case:
    """Foreign weights as `import` reads them."""
    full = published_state()
    small = OrderedDict((name, full[name]) for name in list(full)[:4])
    odd: list[object] = [
        {"a": torch.zeros(2).to_sparse(), "b": torch.zeros(1).expand(1 << 40)},
        {"a": torch.tensor([1, 2]), "b": torch.tensor([1j])},
        {"model": small, "epoch": 3},
        [1, 2], {}, {1: torch.zeros(1)}, {"a": Planted()}, torch.nn.Linear(2, 2),
        {"a": Greedy()},
        {"a": torch.zeros(2, device="meta")},
    ]  # fmt: skip
    files: dict[str, str | bytes] = {"full.pt": pickled(full), "old.bin": pickled(small, old=True)}
    files |= {
        "recbole.pt": pickled(recbole_state(bert=True)), "gsasrec.pt": pickled(gsasrec_state()),
    }  # fmt: skip
    files |= {f"odd{place}.pt": pickled(each) for place, each in enumerate(odd)}
    files |= {"plain.bin": pickle.dumps({"a": [1.0]}), "empty.pt": _zip({"x/data.pkl": b""})}
    written(folder, files)

    def read(path: Path, random: Random) -> None:
        state = read_state_dict(path)
        for name, tensor in state.items():
            checked_float(name, tensor, path)
        heads = number_of(random)
        if path.name == "full.pt":
            S3RecModel.of(state, path, heads=heads)
            return
        kind = random.choice(list(ROW_FORMATS.values()))
        RowModel.of(state, path, row_format=kind, heads=heads, item_ids=None)

    names = ["full.pt", "full.pt", "recbole.pt", "gsasrec.pt", "old.bin", "old.bin", *files]
    cases = {name: altering(folder, partial(read, folder / name), [name]) for name in files}
    return lambda random: cases[random.choice(names)](random)


def item_ids(folder: Path) -> Case:
    """A file of raw ids by row, as `import --item-ids` reads it."""
    corpus = numbered_corpus(folder / "corpus")
    path = folder / "files" / "ids.txt"
    written(path.parent, {path.name: "\n".join(["[PAD]", *corpus.item_names]) + "\n"})
    return altering(path.parent, lambda random: rows_by_id(path, corpus))


def hub_folder(folder: Path) -> Case:
    """A folder of the Hub as `import --format hub` reads it."""
    corpus, run, out = numbered_corpus(folder / "corpus"), folder / "run", folder / "imported"
    execute(config_of(corpus, frozen(FINETUNE)), run, options=QUIET)
    export_hub(open_source(run, data_root="data", allow=()), folder / "hub", "mit")

    def read(random: Random) -> None:
        try:
            import_hub(folder / "hub", out, corpus=str(corpus.folder), data_root=str(folder))
        finally:
            shutil.rmtree(out, ignore_errors=True)

    return altering(folder / "hub", read, ["config.json", "summary.json", "model.safetensors"])


def _zip(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return target.getvalue()


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


TARGETS = (
    Target(name="run-folder", milliseconds=1.2, begin=run_folder),
    Target(name="study", milliseconds=5.0, begin=study),
    Target(name="report", milliseconds=15.0, begin=report),
    Target(name="study-record", milliseconds=0.5, begin=study_record),
    Target(name="rank-table", milliseconds=5.0, begin=rank_table),
    Target(name="list-table", milliseconds=5.0, begin=list_table),
    Target(name="start", milliseconds=2.5, begin=start),
    Target(name="checkpoints", milliseconds=3.0, begin=checkpoints),
    Target(name="zero-rows", milliseconds=0.2, begin=zero_rows),
    Target(name="state-dict", milliseconds=1.2, begin=state_dict),
    Target(name="item-ids", milliseconds=0.3, begin=item_ids),
    Target(name="hub-folder", milliseconds=30.0, begin=hub_folder),
)

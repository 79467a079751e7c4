"""A run as a folder of the Hub, and back: the same weights, records and scores; no network."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.errors
import pytest
import torch
from safetensors.torch import load_file, save_file

import sixfold as sf
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.model.hstu import HSTU
from research.packed import Packed
from research.recommend.embeddings import attribute_embeddings
from research.runs.config import EvaluationConfig
from research.runs.execute import execute
from research.runs.load import load_run
from research.storage.folders import folders_below
from tests.evaluation.reference_ranks import scores_of_all
from tests.support.command_line import command_error, run_command, shop_corpus
from tests.support.hub_stand_in import Hub, stand_in_for_the_hub
from tests.support.row_format_files import HEADS, gsasrec_state
from tests.support.s3rec_files import numbered_corpus
from tests.support.small_runs import (
    ENCODER,
    FINETUNE,
    PRETRAIN,
    QUIET,
    config_of,
    frozen,
    input_error_of,
    third_stage,
)

Capture = pytest.CaptureFixture[str]
ROWS = [[4], [1, 3, 5], [0, 2, 4, 6, 8, 10]]
FILES = ["README.md", "config.json", "items.csv", "model.safetensors", "summary.json"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "0"
    execute(config_of(corpus, FINETUNE), folder, options=QUIET)
    return folder


@pytest.fixture
def hub(capsys: Capture, run: Path, tmp_path: Path) -> Path:
    return export(capsys, run, tmp_path / "hub")


def export(capsys: Capture, run: Path, out: Path, *more: object) -> Path:
    answer = run_command(
        capsys, "export", run, "--format", "hub", "--out", out, "--license", "mit", *more
    )
    assert (answer.code, answer.err) == (0, "")
    return out


def test_a_run_is_the_same_after_its_round_trip(
    capsys: Capture, corpus: Corpus, run: Path, hub: Path, tmp_path: Path
) -> None:
    assert sorted(path.name for path in hub.iterdir()) == FILES
    again = tmp_path / "again"
    answer = run_command(capsys, "import", hub, "--format", "hub", "--out", again)
    assert (answer.code, answer.err) == (0, "")
    assert "(as published)" in answer.out
    _, ranker = load_run(run, "data")
    _, ranker_again = load_run(again, "data")
    packed = Packed.from_lists(ROWS)
    assert torch.equal(scores_of_all(ranker, packed), scores_of_all(ranker_again, packed))
    for name in ("config.json", "summary.json"):
        assert json.loads((again / name).read_text()) == json.loads((run / name).read_text())
    for name in ("test-full", "validation-full"):
        tables = [RankTable.load(folder / "ranks" / f"{name}.npz") for folder in (run, again)]
        assert tables[0].rank.tolist() == tables[1].rank.tolist()
    # And once more: the folder of the imported run is the same to the last byte.
    export(capsys, again, tmp_path / "hub2")
    for name in ("model.safetensors", "items.csv", "config.json", "summary.json"):
        assert (tmp_path / "hub2" / name).read_bytes() == (hub / name).read_bytes()


def test_the_corpus_may_stand_elsewhere(
    capsys: Capture, corpus: Corpus, hub: Path, tmp_path: Path
) -> None:
    stored = json.loads((hub / "config.json").read_text())
    stored["config"]["corpus"] = "/nowhere/shop"
    (hub / "config.json").write_text(json.dumps(stored))
    arguments = ("import", hub, "--format", "hub", "--out", tmp_path / "again")
    assert "corpus /nowhere/shop is not a prepared corpus" in command_error(capsys, *arguments)
    other = shop_corpus(tmp_path / "other", seed=6)
    said = command_error(capsys, *arguments, "--corpus", other.folder)
    assert f"was trained on a corpus with fingerprint {corpus.fingerprint}" in said
    assert not (tmp_path / "again").exists()
    assert run_command(capsys, *arguments, "--corpus", corpus.folder).code == 0


def test_the_model_card_is_filled_from_the_run(corpus: Corpus, run: Path, hub: Path) -> None:
    card = (hub / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    about = json.loads(front)
    summary = json.loads((run / "summary.json").read_text())
    assert (about["library_name"], about["license"]) == ("sixfold", "mit")
    figures = about["model-index"][0]["results"][0]["metrics"]
    assert {each["type"]: each["value"] for each in figures} == summary["test"]["full"]
    row = re.search(r"\| full \| ndcg@10 \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|", body)
    assert row is not None
    value, low, high = map(float, row.groups())
    assert low <= value <= high
    assert value == pytest.approx(summary["test"]["full"]["ndcg@10"], abs=5e-5)
    assert f"- fingerprint `{corpus.fingerprint}`" in body
    # What `prepare` must be given again; the whole of it is in the record too.
    options = json.loads((corpus.folder / "manifest.json").read_text())["options"]
    assert json.loads((hub / "config.json").read_text())["dataset"]["options"] == options
    assert set(options) >= {"source", "min_rating", "user_core", "timestamp_column"}
    for line in ("source: atomic", "user_core: 0", "timestamp_column: timestamp"):
        assert f"- prepared with {line}\n" in body
    assert "- split: LeaveOneOut()" in body
    assert f"- {summary['cost']['parameters']:,} parameters" in body
    assert "sixfold import FOLDER --format hub --corpus CORPUS --out RUN" in body


def test_the_options_of_preparation_are_added_to_a_run_of_an_earlier_version(
    capsys: Capture, run: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    shutil.copytree(run, earlier)
    stored = json.loads((earlier / "config.json").read_text())
    del stored["dataset"]["options"]
    (earlier / "config.json").write_text(json.dumps(stored))
    hub = export(capsys, earlier, tmp_path / "hub")
    assert json.loads((hub / "config.json").read_text())["dataset"]["options"]["source"] == "atomic"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"short", "is too small for a model of"),
        ("model.safetensors", b"\xff" * 5000, "is damaged"),
        ("summary.json", b"{}", "is damaged or of another program"),
        ("config.json", None, "has no config.json; a folder of the Hub's form has"),
    ],
)
def test_a_damaged_folder_is_refused(
    capsys: Capture, hub: Path, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    (hub / name).unlink()
    if content is not None:
        (hub / name).write_bytes(content)
    message = command_error(capsys, "import", hub, "--format", "hub", "--out", tmp_path / "again")
    assert said in message
    assert not (tmp_path / "again").exists()


def test_weights_that_are_not_finite_are_refused(
    capsys: Capture, hub: Path, tmp_path: Path
) -> None:
    weights = load_file(hub / "model.safetensors")
    weights["encoder.item_table.weight"][2, 1] = torch.inf
    save_file(weights, hub / "model.safetensors")
    message = command_error(capsys, "import", hub, "--format", "hub", "--out", tmp_path / "again")
    assert "its weights give scores that are not finite; copy the folder again" in message
    assert not (tmp_path / "again").exists()


def test_a_folder_of_the_hub_is_no_run_until_it_is_imported(
    capsys: Capture, corpus: Corpus, hub: Path, tmp_path: Path
) -> None:
    remedy = (
        f"it is a run in the form of the Hub; `sixfold import {hub} --format hub --out RUN` makes "
        "a run of it"
    )
    for words in (["evaluate", hub], ["recommend", hub, "--items", "1"]):
        assert f"{hub} is not a run folder: {remedy}" in command_error(capsys, *words)
    with pytest.raises(InputError, match="is not a run folder: it is a run in the form of the Hub"):
        sf.load(hub)
    message = input_error_of(config_of(corpus, FINETUNE, start_from=str(hub)), tmp_path)
    assert message.endswith(remedy)
    assert list(folders_below(tmp_path, "run")) == []
    assert list(folders_below(tmp_path, "hub")) == [hub]


# A run of two stages, whose encoder reads times, and which is ranked by a negatives file too


@pytest.fixture(scope="module")
def negatives(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three items for each user that the user has nothing to do with."""
    path = tmp_path_factory.mktemp("negatives") / "negatives.txt"
    lines = []
    for user in range(corpus.num_users):
        own = set(corpus.items[corpus.offsets[user] : corpus.offsets[user + 1]].tolist())
        others = [item for item in range(corpus.num_items) if item not in own][:3]
        raw_ids = [corpus.user_names[user], *(corpus.item_names[item] for item in others)]
        lines.append(" ".join(raw_ids) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def rich_run(corpus: Corpus, negatives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "rich"
    config = config_of(
        corpus,
        replace(FINETUNE, name="first", epochs=1, validation=None),
        FINETUNE,
        evaluation=EvaluationConfig(candidates=(), negatives_file=str(negatives)),
    )
    encoder = replace(ENCODER, block=HSTU(times=True))
    execute(replace(config, encoder=encoder), folder, options=QUIET)
    return folder


@pytest.fixture
def rich_hub(capsys: Capture, rich_run: Path, tmp_path: Path) -> Path:
    return export(capsys, rich_run, tmp_path / "hub")


def test_a_run_with_stages_times_and_negatives_is_the_same_after_its_round_trip(
    capsys: Capture, corpus: Corpus, negatives: Path, rich_run: Path, rich_hub: Path, tmp_path: Path
) -> None:
    again, moved = tmp_path / "again", tmp_path / "moved.txt"
    moved.write_bytes(negatives.read_bytes())
    arguments = ("import", rich_hub, "--format", "hub", "--negatives-file", moved, "--out", again)
    answer = run_command(capsys, *arguments)
    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"test, file-3: hr@5 .* \(as published\)", answer.out)
    tables = [RankTable.load(each / "ranks" / "test-file-3.npz") for each in (rich_run, again)]
    assert tables[0].rank.tolist() == tables[1].rank.tolist()
    assert not (again / "ranks" / "validation-file-3.npz").exists()
    evaluated = run_command(capsys, "evaluate", again)
    assert (evaluated.code, evaluated.err) == (0, "")


def test_a_negatives_file_that_the_folder_names_is_not_opened(
    capsys: Capture, rich_hub: Path, tmp_path: Path
) -> None:
    stored = json.loads((rich_hub / "config.json").read_text())
    # What is no file is refused where it is read.
    os.mkfifo(tmp_path / "private")
    stored["config"]["evaluation"]["negatives_file"] = str(tmp_path / "private")
    (rich_hub / "config.json").write_text(json.dumps(stored))
    again = tmp_path / "again"
    answer = run_command(capsys, "import", rich_hub, "--format", "hub", "--out", again)
    assert (answer.code, answer.err) == (0, "")
    assert (
        "test, file-3: not ranked again; its candidates are those of the run's negatives file: "
        "--negatives-file FILE" in answer.out
    )
    assert [path.name for path in (again / "ranks").iterdir()] == ["validation-full.npz"]


def test_another_negatives_file_is_refused(
    capsys: Capture, hub: Path, rich_run: Path, negatives: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("".join(line + "\n" for line in negatives.read_text().splitlines()[::-1]))
    arguments = ("--format", "hub", "--out", tmp_path / "again", "--negatives-file", other)
    assert "was not ranked by such a file" in command_error(capsys, "import", hub, *arguments)
    rich_hub = export(capsys, rich_run, tmp_path / "rich")
    assert "it has been changed" in command_error(capsys, "import", rich_hub, *arguments)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("what", ["hash", "stage", "seed", "encoder"])
def test_records_that_are_not_of_one_run_are_refused(
    capsys: Capture, hub: Path, tmp_path: Path, what: str
) -> None:
    for name in ("config.json", "summary.json"):
        stored = json.loads((hub / name).read_text())
        if what == "hash":
            stored["hash"] = "0123456789abcdef"
        elif name == "config.json" and what == "stage":
            stored["stages"]["finetune"] = "0123456789abcdef"
        elif name == "config.json" and what == "seed":
            stored["config"]["seed"] = 7
        elif name == "config.json":
            stored["config"]["encoder"]["heads"] = 1
        (hub / name).write_text(json.dumps(stored))
    message = command_error(capsys, "import", hub, "--format", "hub", "--out", tmp_path / "again")
    assert "it has been changed: copy the folder again" in message
    assert not (tmp_path / "again").exists()


def test_hashes_of_extended_and_of_imported_runs_are_known(
    capsys: Capture, corpus: Corpus, run: Path, tmp_path: Path
) -> None:
    extended = tmp_path / "extended"
    shutil.copytree(run, extended)
    longer = config_of(corpus, replace(FINETUNE, epochs=3))
    execute(longer, extended, options=QUIET)
    assert json.loads((extended / "config.json").read_text())["extensions"]
    described = numbered_corpus(tmp_path / "described")
    torch.save(gsasrec_state(), tmp_path / "gsasrec.pt")
    imported = tmp_path / "imported"
    assert run_command(
        capsys, "import", tmp_path / "gsasrec.pt", "--format", "gsasrec", "--heads", HEADS,
        "--corpus", described.folder, "--out", imported,
    ).code == 0  # fmt: skip
    for number, folder in enumerate((extended, imported)):
        hub = export(capsys, folder, tmp_path / f"hub{number}")
        out = tmp_path / f"again{number}"
        answer = run_command(capsys, "import", hub, "--format", "hub", "--out", out)
        assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize("learned_last", [True, False])
def test_an_imported_run_holds_its_last_stage_alone(
    capsys: Capture, tmp_path: Path, learned_last: bool
) -> None:
    described = numbered_corpus(tmp_path / "described")
    run, again = tmp_path / "run", tmp_path / "again"
    last = replace(third_stage(), name="last") if learned_last else frozen(FINETUNE)
    execute(config_of(described, PRETRAIN, last), run, options=QUIET)
    hub = export(capsys, run, tmp_path / "hub")
    assert run_command(capsys, "import", hub, "--format", "hub", "--out", again).code == 0
    parts, _ = load_run(again, "data")
    if learned_last:
        vectors = [attribute_embeddings(parts, folder).vectors_ND for folder in (run, again)]
        assert vectors[0].tolist() == vectors[1].tolist()
    else:
        with pytest.raises(InputError, match="holds no weights of stage pretrain, as a run import"):
            attribute_embeddings(parts, again)
    start = str(again / "stages" / "pretrain")
    message = input_error_of(config_of(described, FINETUNE, start_from=start), tmp_path)
    assert "it has finished but holds no weights of stage pretrain; a run imported" in message


# Push and pull, against a stand-in for the Hub


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    return stand_in_for_the_hub(monkeypatch, tmp_path / "remote")


def test_a_run_is_pushed_and_pulled(
    capsys: Capture, run: Path, remote: Hub, tmp_path: Path
) -> None:
    export(capsys, run, tmp_path / "hub", "--push", "me/model", "--private")
    out = tmp_path / "again"
    answer = run_command(capsys, "import", "hf://me/model@v1", "--format", "hub", "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert remote.calls == [("me/model", True), ("me/model", "v1")]
    packed = Packed.from_lists(ROWS)
    scores = [scores_of_all(load_run(folder, "data")[1], packed) for folder in (run, out)]
    assert torch.equal(*scores)


def test_a_push_that_failed_can_be_tried_again(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, run: Path, remote: Hub, tmp_path: Path
) -> None:
    words = ("export", run, "--format", "hub", "--out", tmp_path / "hub", "--push", "me/model")
    with monkeypatch.context() as patch:
        patch.setattr(remote, "upload_folder", refused_by_the_hub)
        message = command_error(capsys, *words)
        assert "--push me/model: the Hub refused (403 Forbidden); check the name and the" in message
        patch.setattr(remote, "upload_folder", unreachable)
        message = command_error(capsys, *words)
        assert "--push me/model: the Hub cannot be reached (no route); try again later" in message
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == FILES
    answer = run_command(capsys, *words)
    assert (answer.code, answer.err) == (0, "")
    assert "holds this run already and is uploaded as it is" in answer.out
    assert sorted(path.name for path in (tmp_path / "remote/me/model").iterdir()) == FILES
    # A folder of other weights is neither uploaded nor overwritten.
    weights = load_file(tmp_path / "hub" / "model.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()},
        tmp_path / "hub" / "model.safetensors",
    )
    assert "exists and is not overwritten" in command_error(capsys, *words)
    # Without --push an existing folder is refused as before.
    assert "exists and is not overwritten" in command_error(capsys, *words[:-2])


# Its own names for what its requests give, in whichever package they are.
HUB_ERRORS: Any = huggingface_hub.errors


def refused_by_the_hub(**given: object) -> None:
    response = SimpleNamespace(headers={}, request=None)
    raise HUB_ERRORS.HfHubHTTPError("403 Forbidden", response=response)


def unreachable(**given: object) -> None:
    raise HUB_ERRORS.HTTPError("no route")


@pytest.mark.parametrize("name", ["model", "me/my/model", "me/mo del", "me/..", "/model", ""])
def test_a_name_of_no_repository_is_refused_at_once(
    capsys: Capture, run: Path, remote: Hub, tmp_path: Path, name: str
) -> None:
    for words in (
        ["export", run, "--format", "hub", "--out", tmp_path / "hub", f"--push={name}"],
        ["import", f"hf://{name}", "--format", "hub", "--out", tmp_path / "again"],
    ):
        assert command_error(capsys, *words).endswith("; give OWNER/NAME\n")
    assert (remote.calls, list(tmp_path.iterdir())) == ([], [])


def test_errors_of_the_hub_are_said_in_a_line(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, run: Path, remote: Hub, tmp_path: Path
) -> None:
    arguments: list[Any] = ["import", "hf://me/none", "--format", "hub", "--out", tmp_path / "r"]
    said = command_error(capsys, *arguments)
    assert "hf://me/none: the Hub cannot be reached (no such place)" in said
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    said = command_error(
        capsys, "export", run, "--format", "hub", "--out", tmp_path / "hub", "--push", "me/model"
    )
    assert "--push needs a token of the Hub, and none is configured" in said
    assert not (tmp_path / "hub").exists()
    said = command_error(
        capsys, "export", run, "--format", "hub", "--out", tmp_path / "hub", "--license", "a b"
    )
    assert "--license is 'a b'; allowed: an identifier" in said

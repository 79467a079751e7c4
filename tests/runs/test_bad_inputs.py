"""Bad input, as a person meets it: one line that names it, exit code 2, nothing half-written.

What the readers, the corpus, the configs and the run refuse is pinned beside each of them; here
the same comes from the command line, with folders that are damaged, foreign or hostile.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from research.checkpoint import files as checkpoint
from research.cli.main import main
from research.data.corpus import Corpus
from tests.support.checkpoints import newest_checkpoint
from tests.support.command_line import (
    TINY,
    command_error,
    files_of,
    raw_id,
    run_command,
    shop_corpus,
)
from tests.support.synthetic import write_histories
from tests.support.tampering import Json, edit_json, replace_tensors

SASREC = "baselines.sasrec.full_softmax"
POPULARITY = "baselines.popularity.popularity"
STAGE = Path("stages") / "train"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def finished(shop: Corpus) -> Path:
    """The folder of a finished run, with the checkpoints of both its epochs."""
    folder = shop.folder.parent / "sasrec"
    given = ["--out", str(folder), "--quiet", "--checkpoint-steps", "3", *TINY]
    assert main(["run", SASREC, f"corpus={shop.folder}", *given]) == 0
    assert list(checkpoint.checkpoints_by_step(folder / STAGE)) == [6, 3]
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be damaged: no other checkpoint can serve for its last one."""
    return copy_until(finished, 6, tmp_path / "run")


@pytest.fixture
def stopped(finished: Path, tmp_path: Path) -> Path:
    """A copy of a run that has one of its two epochs behind it."""
    folder = copy_until(finished, 3, tmp_path / "run")
    (folder / "summary.json").unlink()
    return folder


def copy_until(run: Path, step: int, folder: Path) -> Path:
    """A copy of a run whose only checkpoint is that of `step`."""
    shutil.copytree(run, folder)
    for number, path in checkpoint.checkpoints_by_step(folder / STAGE).items():
        if number != step:
            shutil.rmtree(path)
    checkpoint.prune(folder / STAGE, step, keep=1)
    assert len(checkpoint.checkpoints_by_step(folder / STAGE, "best")) == 1
    return folder


def best(run: Path) -> Path:
    """The best weights of a run."""
    return newest_checkpoint(run / STAGE, "best")


def last(run: Path) -> Path:
    """The checkpoint from which a run goes on."""
    return newest_checkpoint(run / STAGE)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def continue_(shop: Corpus, run: Path) -> list[object]:
    """The arguments of the command that began the run."""
    return ["run", SASREC, f"corpus={shop.folder}", "--out", run, "--quiet", *TINY]


# prepare


CSV = "user,item,timestamp\n"
PREPARE: dict[str, tuple[dict[str, str | bytes], list[str], str]] = {
    "a missing file": ({}, ["pairs", "--raw", "p.txt"], "p.txt: there is no such file"),
    "no file": ({}, ["pairs"], "pairs is a format: name the file with --raw"),
    "a source that is neither": (
        {}, ["csvv", "--raw", "p.txt"], "unknown source 'csvv'; known: ml-100k,"
    ),
    "an empty file": ({"p.txt": ""}, ["pairs", "--raw", "p.txt"], "p.txt: the file is empty"),
    "a file of blank lines": (
        {"p.txt": "\n \n"}, ["pairs", "--raw", "p.txt"], "p.txt: holds no interactions"
    ),
    "too many fields": (
        {"p.txt": "1 2\n1 2 3\n"}, ["pairs", "--raw", "p.txt"],
        "p.txt, line 2: 3 field(s); expected 2 (user item)",
    ),
    "too few fields": (
        {"c.csv": CSV + "a,x,1\na,x\n"}, ["csv", "--raw", "c.csv"],
        "c.csv, line 3: 2 fields; expected 3",
    ),
    "a word for an id": (
        {"p.txt": "1 2\n1 x\n"}, ["pairs", "--raw", "p.txt"],
        "p.txt, line 2, field 2: 'x' is not an integer",
    ),
    "a word for a time": (
        {"c.csv": CSV + "a,x,soon\n"}, ["csv", "--raw", "c.csv"],
        "c.csv, line 2, column 'timestamp': 'soon' is neither a number nor a date",
    ),
    "an infinite time": (
        {"c.csv": CSV + "a,x,1\na,y,inf\n"}, ["csv", "--raw", "c.csv"],
        "c.csv, line 3, column 'timestamp': 'inf' is no number, while '1'",
    ),
    "another encoding": (
        {"c.csv": CSV.encode() + b"a,caf\xe9,1\n"}, ["csv", "--raw", "c.csv"],
        "c.csv, line 2, column 'item': 'caf\\xe9' is not utf-8 text",
    ),
    "a column that is not there": (
        {"c.csv": "who,item,timestamp\na,x,1\n"}, ["csv", "--raw", "c.csv"],
        "c.csv: there is no column 'user'; the columns are who, item, timestamp.",
    ),
    "an attribute file of another data set": (
        {"B.txt": "1 1 2 3\n", "B_item2attributes.json": '{"8": [1], "9": [1]}'},
        ["s3rec", "--raw", "B.txt"],
        "B_item2attributes.json: none of its 2 items is among the 3 items",
    ),
    "an attribute file that is not JSON": (
        {"B.txt": "1 1 2 3\n", "B_item2attributes.json": "{'1': [1]}"},
        ["s3rec", "--raw", "B.txt"], "B_item2attributes.json: not readable as JSON",
    ),
    "a core that removes everything": (
        {"p.txt": "1 2\n1 3\n2 2\n"}, ["pairs", "--raw", "p.txt", "--user-core", "3"],
        "user_core 3 and item_core 0 remove everything: there were 3 interactions of 2 users with",
    ),
    "a rating that nobody gave": (
        {"c.csv": "user,item,rating,timestamp\na,x,3,1\n"},
        ["csv", "--raw", "c.csv", "--min-rating", "4"],
        "min_rating 4.0 removes everything: there were 1 interactions, rated 3.0 to 3.0",
    ),
    "a core below zero": (
        {"p.txt": "1 2\n"}, ["pairs", "--raw", "p.txt", "--item-core=-2"],
        "user_core 0, item_core -2: 0 or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREPARE)
def test_what_cannot_be_prepared_is_named_and_nothing_is_written(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files, given, message = PREPARE[name]
    monkeypatch.chdir(tmp_path)
    for path, content in files.items():
        (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files_of(tmp_path)
    for more in (["--out", "corpora/mine"], []):
        assert message in command_error(capsys, "prepare", *given, *more)
    assert files_of(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_items_that_an_attribute_file_alone_knows_are_counted(
    capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "B.txt").write_text("1 1 2 3\n")
    (tmp_path / "B_item2attributes.json").write_text('{"1": [1], "8": [1], "9": [2]}')
    answer = run_command(
        capsys, "prepare", "s3rec", "--raw", tmp_path / "B.txt", "--out", tmp_path / "B"
    )
    assert answer.code == 0
    assert [line.split("│")[2].strip() for line in answer.out.splitlines() if "unknown it" in line]
    report: Any = Corpus.open(tmp_path / "B").manifest.report
    assert report["attribute_file_unknown_items"] == 2


@pytest.mark.parametrize("file", ["notes.txt", "manifest.json"])
def test_a_folder_of_something_else_is_not_written_into(
    capsys: Capture, tmp_path: Path, file: str
) -> None:
    (tmp_path / "p.txt").write_text("1 2\n1 3\n1 4\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / file).write_text("precious")
    before = files_of(tmp_path)
    message = command_error(
        capsys, "prepare", "pairs", "--raw", tmp_path / "p.txt", "--out", tmp_path / "mine"
    )
    assert str(tmp_path / "mine") in message
    assert files_of(tmp_path) == before


def test_a_file_in_the_place_of_a_folder_is_no_traceback(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("precious")
    given = ["run", POPULARITY, f"corpus={shop.folder}", "--out"]
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        answer = run_command(capsys, *given, out)
        assert answer.code == 2
        assert answer.err.endswith("is a file; choose another folder\n")
        assert answer.err.count("\n") == 1
        assert str(tmp_path / "file") in answer.err
    assert files_of(tmp_path) == {"file": b"precious"}


# run


RUN: dict[str, tuple[list[str], str]] = {
    "a length of nothing": (["encoder.length=0"], "encoder.length is 0; it must be at least 1"),
    "a width of nothing": (["encoder.width=0"], "encoder.width is 0; it must be at least 1"),
    "heads that do not divide": (
        ["encoder.heads=3"],
        "encoder.heads is 3, which does not divide encoder.width 8; choose a divisor of the width",
    ),
    "a dropout of one": (
        ["--encoder.hidden_dropout", "1"], "encoder.hidden_dropout is 1.0; it must be in [0, 1)"
    ),
    "a validation metric that does not exist": (
        ["--stages.0.validation.metric", "ncdg@10"],
        "metric 'ncdg@10' does not exist; allowed: hr@K, ndcg@K, mrr@K, recall@K, precision@K, "
        "map@K, map-r@K, coverage@K, ",
    ),
    "a validation metric without a place": (
        ["stages.0.validation.metric=hr"], "metric 'hr' does not exist; allowed: hr@K"
    ),
    "a metric that does not exist": (
        ["--evaluation.metrics", "mrr", "auc"], "metric 'auc' does not exist; allowed: hr@K"
    ),
    "candidates that do not exist": (
        ["--evaluation.candidates", "uniform"],
        "evaluation.candidates has 'uniform'; allowed: full, uniform-N, popularity-N",
    ),
    "more candidates than there are": (
        ["--evaluation.candidates", "full", "popularity-99"],
        "popularity-99 asks for 99 distinct negatives",
    ),
    "a negatives file that is not there": (
        ["evaluation.negatives_file=none.txt"], "file none.txt "
    ),
    "an objective that is not there": (
        ["stages.0.rank_by=cloze"],
        "stage train: rank_by is 'cloze'; objectives that can rank here: next",
    ),
    "no epochs": (["stages.0.epochs=0"], "stage train: epochs is 0"),
    "a rate of nothing": (["stages.0.optimizer.lr=0"], "optimizer.lr is 0.0; it must be above 0"),
    "a batch of nothing": (
        ["stages.0.batches.sequences_per_batch=0"], "batches: sequences_per_batch is 0"
    ),
    "a corpus that is not there": (
        ["corpus=no/where"], "corpus no/where is not a prepared corpus folder: it does not exist"
    ),
    "a corpus of no known name": (["corpus=ml-1k"], "corpus is 'ml-1k', which is neither in "),
}  # fmt: skip


@pytest.mark.parametrize("name", RUN)
def test_what_cannot_be_run_is_named_and_nothing_is_written(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    given, message = RUN[name]
    monkeypatch.chdir(tmp_path)
    for more in (["--out", "r"], []):
        wrong = ["run", SASREC, f"corpus={shop.folder}", *TINY, *given, *more]
        assert message in command_error(capsys, *wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_without_a_user_long_enough_is_named(capsys: Capture, tmp_path: Path) -> None:
    write_histories(tmp_path / "short", [[0, 1], [1]], num_items=2)
    for target in (SASREC, POPULARITY):
        given = ["run", target, f"corpus={tmp_path / 'short'}", "--out", tmp_path / "r"]
        assert command_error(capsys, *given) == (
            "sixfold run: corpus short: no user has the 3 interactions that leave-one-out needs "
            "(the longest history has 2); prepare it with weaker filters or choose another split\n"
        )
    assert {path.name for path in tmp_path.iterdir()} == {"short"}


def test_a_loss_that_is_not_finite_fails_in_one_line(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    wild = ["stages.0.optimizer.lr=1e30", "stages.0.optimizer.clip_norm=None"]
    answer = run_command(capsys, *continue_(shop, tmp_path / "r"), *wild)
    assert answer.code == 1
    assert answer.err.startswith("sixfold run: stage train, step 2, epoch 0: the loss of next is ")
    assert answer.err.count("\n") == 1


# A corpus that is damaged or foreign


def truncate(folder: Path) -> None:
    path = folder / "items.npy"
    path.write_bytes(path.read_bytes()[:-8])


def manifest(**fields: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "manifest.json", lambda stored: stored.update(fields))


CORPUS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing array": (
        lambda folder: (folder / "offsets.npy").unlink(), "offsets.npy: missing. The corpus is inc"
    ),
    "a cut array": (truncate, "items.npy: not a complete .npy file"),
    "an array of something else": (
        lambda folder: np.save(folder / "items.npy", np.zeros(3)),
        "items.npy: 1-dimensional <f8; expected one dimension, <i4",
    ),
    "another format": (manifest(format=2), "manifest.json: format version 2; this program reads 1"),
    "a manifest that is not JSON": (
        lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is not valid JSON"
    ),
    "a manifest without a name": (manifest(name=None), "name is None; allowed: str"),
    "other counts": (
        manifest(counts={"users": 1, "items": 40, "interactions": 3, "attributes": 0}),
        "84 users, but manifest.json says 1. Prepare the corpus again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_a_damaged_or_foreign_corpus_is_named(
    capsys: Capture, shop: Corpus, tmp_path: Path, name: str
) -> None:
    damage, message = CORPUS[name]
    folder = tmp_path / "corpus"
    shutil.copytree(shop.folder, folder)
    damage(folder)
    before = files_of(tmp_path)
    for given in (
        ["run", POPULARITY, f"corpus={folder}", "--out", tmp_path / "r"],
        ["run", POPULARITY, f"corpus={folder}", "--runs", tmp_path / "runs"],
        ["study", "experiments.quickstart", "--corpora", folder, "--runs", tmp_path / "runs"],
        ["show", folder],
    ):
        assert message in command_error(capsys, *given)
    assert files_of(tmp_path) == before


def test_showing_a_corpus_finds_changed_bytes(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shop.folder, tmp_path / "corpus"))
    items = np.load(folder / "items.npy")
    items[0], items[1] = items[1], items[0]
    np.save(folder / "items.npy", items)
    message = command_error(capsys, "show", folder)
    assert f"but manifest.json says {shop.fingerprint[:12]}; the corpus was changed" in message
    flip(folder / "items.npy", -1)
    assert "items.npy: ids from" in command_error(capsys, "show", folder)


def test_a_run_finds_changed_bytes_of_its_corpus(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shop.folder, tmp_path / "corpus"))
    items = np.load(folder / "items.npy")
    items[0], items[1] = items[1], items[0]
    np.save(folder / "items.npy", items)
    message = command_error(capsys, "run", POPULARITY, f"corpus={folder}", "--out", tmp_path / "r")
    assert "the corpus was changed" in message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("verb", ["evaluate", "recommend"])
def test_a_corpus_with_another_fingerprint_is_named(
    capsys: Capture, shop: Corpus, tmp_path: Path, verb: str
) -> None:
    mine = Path(shutil.copytree(shop.folder, tmp_path / "mine"))
    given = ["run", POPULARITY, f"corpus={mine}", "--out", tmp_path / "r"]
    assert run_command(capsys, *given).code == 0
    shutil.rmtree(mine)
    other = shop_corpus(tmp_path / "other", seed=6)
    other.folder.rename(mine)
    before = files_of(tmp_path)
    more = ["--items", raw_id(0)] if verb == "recommend" else []
    message = command_error(capsys, verb, tmp_path / "r", *more)
    assert f"was trained on a corpus with fingerprint {shop.fingerprint}, but {mine}" in message
    assert f"has {other.fingerprint}; the same ids would mean other items" in message
    assert "holds another run" in command_error(capsys, *given)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("verb", ["evaluate", "recommend"])
def test_a_corpus_that_is_gone_is_named(
    capsys: Capture, shop: Corpus, run: Path, verb: str
) -> None:
    edit_json(run / "config.json", lambda stored: stored["config"].update(corpus="gone/away"))
    more = ["--items", raw_id(0)] if verb == "recommend" else []
    assert "corpus gone/away is not a prepared corpus folder" in command_error(
        capsys, verb, run, *more
    )


# A checkpoint that is damaged or foreign


def foreign_weights(run: Path) -> None:
    tensors = load_file(best(run) / "model.safetensors")
    tensors["head.extra"] = torch.zeros(1)
    del tensors["encoder.item_table.weight"]
    replace_tensors(best(run) / "model.safetensors", tensors)


def state(**fields: object) -> Callable[[Path], None]:
    """Change both checkpoints' state."""

    def change(run: Path) -> None:
        for place in (best(run), last(run)):
            edit_json(place / "state.json", lambda stored: stored.update(fields))

    return change


CHECKPOINT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped byte of the header": (
        lambda run: flip(best(run) / "model.safetensors", 8), "model.safetensors is damaged ("
    ),
    "a flipped byte of the header's length": (
        lambda run: flip(best(run) / "model.safetensors", 1), "model.safetensors is damaged ("
    ),
    "a cut file": (
        lambda run: (best(run) / "model.safetensors").write_bytes(
            (best(run) / "model.safetensors").read_bytes()[:-4]
        ),
        "model.safetensors is damaged (",
    ),
    "an empty file": (
        lambda run: (best(run) / "model.safetensors").write_bytes(b""),
        "model.safetensors is damaged (",
    ),
    "a missing file": (
        lambda run: (best(run) / "model.safetensors").unlink(),
        "model.safetensors is missing); remove the folder",
    ),
    "no best weights": (
        lambda run: shutil.rmtree(best(run)), "is missing); remove the folder",
    ),
    "no checkpoint": (
        lambda run: shutil.rmtree(last(run)), "train holds no checkpoint; was the run interrupted"
    ),
    "weights of another model": (
        foreign_weights,
        "does not fit this configuration: missing encoder.item_table.weight; unknown head.extra",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_damaged_or_foreign_checkpoint_is_named(capsys: Capture, run: Path, name: str) -> None:
    damage, message = CHECKPOINT[name]
    damage(run)
    before = files_of(run)
    assert message in command_error(capsys, "evaluate", run)
    assert message in command_error(capsys, "recommend", run, "--items", raw_id(0))
    assert files_of(run) == before


def test_weights_of_another_width_are_named_one_by_one(capsys: Capture, run: Path) -> None:
    edit_json(run / "config.json", lambda stored: stored["config"]["encoder"].update(width=16))
    message = command_error(capsys, "evaluate", run)
    tensors = load_file(best(run) / "model.safetensors")
    # The feed-forward part is 8 wide on its inside, whatever the width.
    changed = {name for name in tensors if not name.endswith("inner.bias")}
    assert changed
    for name in changed:
        assert f"{name} has shape {tuple(tensors[name].shape)}, expected (" in message
    assert "encoder.item_table.weight has shape (41, 8), expected (41, 16)" in message


@pytest.mark.parametrize("text", ['{"format": 1}', '{"step": 3}'])
def test_a_state_of_another_format_is_not_continued(
    capsys: Capture, shop: Corpus, stopped: Path, text: str
) -> None:
    (last(stopped) / "state.json").write_text(text)
    before = files_of(stopped)
    message = command_error(capsys, *continue_(shop, stopped))
    assert (
        "state.json is not a checkpoint of format 2; it was written by another program" in message
    )
    assert files_of(stopped) == before


@pytest.mark.parametrize("text", ['{"format": 2, "step"', "[]", '{"format": 2, "step": 3}'])
def test_a_damaged_state_is_not_continued(
    capsys: Capture, shop: Corpus, stopped: Path, text: str
) -> None:
    (last(stopped) / "state.json").write_text(text)
    before = files_of(stopped)
    assert "no checkpoint is undamaged (" in command_error(capsys, *continue_(shop, stopped))
    assert files_of(stopped) == before


def test_a_state_that_lacks_fields_is_not_continued(
    capsys: Capture, shop: Corpus, stopped: Path
) -> None:
    edit_json(last(stopped) / "state.json", lambda stored: stored.pop("stale"))
    message = command_error(capsys, *continue_(shop, stopped))
    assert "state.json: stale is 'missing'; allowed: int; use another" in message


@pytest.mark.parametrize("verb", ["evaluate", "recommend"])
def test_an_unfinished_run_is_named(capsys: Capture, stopped: Path, verb: str) -> None:
    more = ["--items", raw_id(0)] if verb == "recommend" else []
    message = command_error(capsys, verb, stopped, *more)
    assert (
        f"{stopped} holds a run that has not finished; run the command that started it" in message
    )


def test_an_undamaged_run_is_continued(capsys: Capture, shop: Corpus, stopped: Path) -> None:
    assert run_command(capsys, *continue_(shop, stopped)).code == 0
    assert (stopped / "summary.json").is_file()


def test_a_checkpoint_of_another_format_is_not_evaluated(capsys: Capture, run: Path) -> None:
    state(format=3)(run)
    assert "is not a checkpoint of format 2" in command_error(capsys, "evaluate", run)


def test_a_flipped_bit_among_the_weights_is_found(capsys: Capture, run: Path) -> None:
    flip(best(run) / "model.safetensors", -1)
    assert "model.safetensors is damaged" in command_error(capsys, "evaluate", run)


def test_a_checkpoint_of_another_corpus_is_named(
    capsys: Capture, run: Path, tmp_path: Path
) -> None:
    other = shop_corpus(tmp_path / "other", seed=6)
    assert run_command(capsys, *continue_(other, tmp_path / "r")).code == 0
    place = best(run)
    shutil.rmtree(place)
    shutil.copytree(best(tmp_path / "r"), place)
    assert "fingerprint" in command_error(capsys, "evaluate", run)


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "types": (
        lambda folder: edit_json(folder / "state.json", lambda stored: stored.update(step="3")),
        "state.json: step is '3'; allowed: int; use another checkpoint",
    ),
    "unsigned": (
        lambda folder: save_file({"x": torch.zeros(1)}, folder / "optimizer.safetensors"),
        "optimizer.safetensors is damaged (its checksum differs)",
    ),
    "no checksums": (
        lambda folder: edit_json(folder / "state.json", lambda stored: stored.pop("sha256")),
        "state.json is damaged (sha256 is None)",
    ),
    "names": (
        lambda folder: replace_tensors(folder / "optimizer.safetensors", {"x": torch.zeros(1)}),
        "optimizer.safetensors does not fit this configuration: x has shape (1,)",
    ),
    "shapes": (
        lambda folder: replace_tensors(
            folder / "optimizer.safetensors", {"0.exp_avg": torch.zeros(1)}
        ),
        "optimizer.safetensors does not fit this configuration: 0.exp_avg has shape (1,)",
    ),
    "a scalar for a moment": (
        lambda folder: replace_tensors(
            folder / "optimizer.safetensors", {"0.exp_avg": torch.zeros(())}
        ),
        "optimizer.safetensors does not fit this configuration: 0.exp_avg has shape ()",
    ),
    "fields": (
        lambda folder: replace_tensors(
            folder / "optimizer.safetensors", {"0.exp_avg": torch.zeros(41, 8)}
        ),
        "does not fit this configuration: missing 0.exp_avg_sq, 0.step",
    ),
    "fields of another method": (
        lambda folder: replace_tensors(
            folder / "optimizer.safetensors", {"0.momentum_buffer": torch.zeros(41, 8)}
        ),
        "does not fit this configuration: 0.momentum_buffer has shape (41, 8)",
    ),
    "a parameter too many": (
        lambda folder: replace_tensors(
            folder / "optimizer.safetensors", {"999.step": torch.zeros(())}
        ),
        "does not fit this configuration: 999.step has shape ()",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", STRANGE)
def test_a_strangers_checkpoint_is_not_continued(
    capsys: Capture, shop: Corpus, stopped: Path, what: str
) -> None:
    change, message = STRANGE[what]
    change(last(stopped))
    before = files_of(stopped)
    assert message in command_error(capsys, *continue_(shop, stopped))
    assert files_of(stopped) == before


# A run folder that is damaged or hostile


HOSTILE: dict[str, tuple[Callable[[Json], object], str]] = {
    "a class outside the packages": (
        lambda config: config.update({"class": "os:system"}),
        "config.class is os:system, outside research, baselines; name its package with --allow os",
    ),
    "a class outside the packages, deep inside": (
        lambda config: config["stages"][0]["objectives"]["next"].update({"class": "own_evil:Evil"}),
        "config.stages.0.objectives.next.class is own_evil:Evil, outside research, baselines;",
    ),
    "a function for a class": (
        lambda config: config.update({"class": "execute"}),
        "config.class is execute, but there is no such class in research and baselines",
    ),
    "a class of an earlier version": (
        lambda config: config["encoder"].update({"class": "research.model.encoder:EncoderConfig"}),
        "config.encoder.class is research.model.encoder:EncoderConfig: that is the form of an earl",
    ),
    "a text for a number": (
        lambda config: config.update(seed="0"), "config.seed is '0'; allowed: int"
    ),
    "a list for an object": (
        lambda config: config.update(encoder=[]), "config.encoder is []; allowed: an object"
    ),
    "an unknown field": (
        lambda config: config["encoder"].update(widht=8),
        "config.encoder: TransformerConfig has no field 'widht'; did you mean width?",
    ),
    "a metric that does not exist": (
        lambda config: config["evaluation"].update(metrics=["__class__"]),
        "metric '__class__' does not exist",
    ),
    "heads that do not divide": (
        lambda config: config["encoder"].update(heads=3), "encoder.heads is 3, which does not div"
    ),
    "no stages": (lambda config: config.update(stages=[]), "either stages or a counting ranker"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_config_is_data_and_never_code(
    capsys: Capture, run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(run)
    monkeypatch.syspath_prepend(run)
    (run / "own_evil.py").write_text("raise SystemExit('executed')\n")
    change, message = HOSTILE[name]
    edit_json(run / "config.json", lambda stored: change(stored["config"]))
    before = files_of(run)
    assert message in command_error(capsys, "evaluate", run)
    assert message in command_error(capsys, "recommend", run, "--items", raw_id(0))
    assert files_of(run) == before
    assert "own_evil" not in sys.modules


def of_an_earlier_version(run: Path) -> None:
    """Make a run folder one that names classes by their modules."""
    edit_json(
        run / "config.json",
        lambda stored: stored["config"].update({"class": "research.run:X"}),
    )


def test_a_run_folder_of_an_earlier_version_is_refused_wherever_it_is_named(
    capsys: Capture, shop: Corpus, run: Path, tmp_path: Path
) -> None:
    of_an_earlier_version(run)
    before = files_of(run)
    other = ["run", SASREC, f"corpus={shop.folder}", "--out", tmp_path / "other", *TINY]
    for given in (
        ["evaluate", run],
        ["recommend", run, "--items", raw_id(0)],
        ["show", run],
        ["export", run, "--format", "s3rec", "--out", tmp_path / "x.pt"],
        continue_(shop, run),
        [*other, f"start_from={run}"],
        [*other, f"start_from={run / STAGE}"],
    ):
        message = command_error(capsys, *given)
        assert f"{run / 'config.json'} names its class 'research.run:X': that is the for" in message
        assert "Do the run again in a new folder, or read this one with the version that" in message
    assert files_of(run) == before
    assert not (tmp_path / "other").exists()


def test_a_study_does_not_go_on_in_folders_of_an_earlier_version(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "own_study.py").write_text(
        "from baselines.popularity import popularity\n"
        "from research.studies.study import Study\n"
        "cells = {'popularity': popularity()}\n"
        f"study = Study(name='old', question='?', cells=cells, base='popularity',\n"
        f"              corpora=({str(shop.folder)!r},))\n"
    )
    assert run_command(capsys, "study", "own_study").code == 0
    of_an_earlier_version(tmp_path / "runs" / "old" / "shop" / "popularity" / "0")
    for given in (["study", "own_study"], ["report", "old"]):
        assert "that is the form of an earlier version of Sixfold" in command_error(capsys, *given)
    del sys.modules["own_study"]


def test_a_module_that_is_allowed_is_read(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "own_ranker.py").write_text(
        "from dataclasses import dataclass\n"
        "from baselines.popularity import PopularityConfig\n"
        "from research.data.splits import training_counts\n"
        "from research.evaluation.ranker import RankerConfig\n"
        "from research.runs.config import RunConfig\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class MineConfig(RankerConfig):\n"
        "    def build(self, corpus, split):\n"
        "        return PopularityConfig().build(corpus, split)\n\n\n"
        "def cell():\n    return RunConfig(ranker=MineConfig())\n"
    )
    given = ["run", "own_ranker.cell", f"corpus={shop.folder}", "--out", "r"]
    assert run_command(capsys, *given).code == 0
    message = command_error(capsys, "evaluate", "r")
    assert "config.ranker.class is own_ranker:MineConfig, outside research, baselines" in message
    assert "name its package with --allow own_ranker if you trust it" in message
    answer = run_command(capsys, "evaluate", "r", "--allow", "own_ranker")
    assert answer.code == 0
    del sys.modules["own_ranker"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.json is not valid JSON"),
        ("{", "config.json is not valid JSON"),
        ("[1]", "config.json holds list, not an object"),
        ("{}", "or of another program or version (hash is missing; allowed: str); remove it, and"),
        ('{"hash": 3}', "fingerprint is missing; allowed: str"),
        ('{"hsh": 3}', "hsh is not a known field; did you mean hash? (allowed: config, data"),
    ],
)
def test_a_damaged_config_is_named(capsys: Capture, run: Path, text: str, message: str) -> None:
    (run / "config.json").write_text(text)
    assert message in command_error(capsys, "evaluate", run)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"config": 1' + "0" * 5000 + "}"])
def test_a_hostile_json_file_is_named(capsys: Capture, run: Path, text: str) -> None:
    (run / "config.json").write_text(text)
    assert "config.json is not valid JSON" in command_error(capsys, "evaluate", run)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["encoder"].update(norm_eps=10**400),
        lambda config: config["encoder"].update(width=2 * 10**12),
        lambda config: config["encoder"].update(segments=2 * 10**12),
        lambda config: config["stages"][0].update(
            objectives={"a.b": config["stages"][0]["objectives"]["next"]}
        ),
    ],
    ids=["an endless number", "an endless width", "endless segments", "a key with a dot"],
)
def test_a_config_that_cannot_be_built_is_named(
    capsys: Capture, run: Path, change: Callable[[Json], object]
) -> None:
    edit_json(run / "config.json", lambda stored: change(stored["config"]))
    assert "config" in command_error(capsys, "evaluate", run)


def test_a_stage_does_not_choose_where_its_checkpoints_lie(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    given = [*continue_(shop, tmp_path / "a" / "r"), "stages.0.name=../../../elsewhere"]
    assert "elsewhere" in command_error(capsys, *given)
    assert list(tmp_path.iterdir()) == []


SHOW: dict[str, tuple[str, bytes]] = {
    "a summary without figures": ("summary.json", b'{"status": "finished"}'),
    "a summary with other figures": ("summary.json", b'{"test": {"full": {"hr@1": "x"}}}'),
    "a summary of numbers": ("summary.json", b'{"test": 3, "val": 4}'),
    "a summary without candidates": ("summary.json", b'{"test": {}, "val": {}}'),
    "metrics of another program": ("metrics.jsonl", b'{"loss": 1}\n'),
    "metrics that are lists": ("metrics.jsonl", b"[]\n"),
    "metrics that are not text": ("metrics.jsonl", b"\xff\xfe\n"),
    "metrics that are not JSON": ("metrics.jsonl", b"loss 3\n"),
}


@pytest.mark.parametrize("name", SHOW)
def test_a_damaged_run_is_not_shown(capsys: Capture, run: Path, name: str) -> None:
    file, content = SHOW[name]
    (run / "summary.json").unlink()
    (run / file).write_bytes(content)
    message = command_error(capsys, "show", run)
    assert str(run) in message
    assert "damaged" in message

"""What `import` refuses: one line that names it, exit code 2, nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from research.data.corpus import Corpus
from research.evaluation.rank_table import RankTable
from tests.support.command_line import command_error, run_command
from tests.support.s3rec_files import (
    ATTRIBUTES,
    HEADS,
    ITEMS,
    Capture,
    import_error,
    numbered_corpus,
    published_state,
)

State = dict[str, Tensor]
KEY = "item_encoder.layer.1.attention.key.weight"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "corpus")


# State dicts that are not S3-Rec's


def without(state: State, *keys: str) -> State:
    return {key: tensor for key, tensor in state.items() if key not in keys}


def holed(tensor: Tensor, *values: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[: len(values)] = torch.tensor(values)
    return changed


WRONG: dict[str, tuple[Callable[[State], State], str]] = {
    "a missing key": (
        lambda state: without(state, KEY),
        f"is no S3-Rec state dict of 2 layer(s): no key {KEY}; it must have these 45 keys and no "
        "other, from item_embeddings.weight to sp_norm.bias",
    ),
    "a missing layer": (
        lambda state: {key.replace("layer.1", "layer.2"): each for key, each in state.items()},
        "no key item_encoder.layer.1.attention.query.weight, item_encoder.layer.1.attention.query."
        "bias, item_encoder.layer.1.attention.key.weight and 13 more; unknown key item_encoder.",
    ),
    "an unknown key": (
        lambda state: {**state, "module.extra.weight": torch.ones(3)},
        "is no S3-Rec state dict of 2 layer(s): unknown key module.extra.weight; it must have",
    ),
    "another model": (
        lambda state: {"bert.weight": torch.ones(3)},
        "no key item_embeddings.weight, attribute_embeddings.weight, position_embeddings.weight "
        "and 26 more; unknown key bert.weight; it must have these 29 keys",
    ),
    "a wrong shape": (
        lambda state: {**state, KEY: torch.ones(8, 7)},
        f"{KEY} has shape (8, 7); allowed beside item_embeddings.weight (14, 8) and item_encoder."
        "layer.0.intermediate.dense_1.weight (32, 8): (8, 8); use another checkpoint",
    ),
    "a table of another width": (
        lambda state: {**state, "position_embeddings.weight": torch.ones(50, 6)},
        "position_embeddings.weight has shape (50, 6); allowed beside",
    ),
    "a flat table": (
        lambda state: {**state, "item_embeddings.weight": torch.ones(112)},
        "item_embeddings.weight has shape (112,); allowed: two dimensions, at least (3, 1)",
    ),
    "no items": (
        lambda state: {**state, "item_embeddings.weight": torch.ones(2, 8)},
        "item_embeddings.weight has shape (2, 8); allowed: two dimensions, at least (3, 1)",
    ),
    "whole numbers": (
        lambda state: {**state, KEY: torch.ones(8, 8).long()},
        f"{KEY} is of type int64; allowed: floating types; convert it to one",
    ),
    "a hole": (
        lambda state: {**state, KEY: holed(state[KEY], torch.nan, torch.inf)},
        f"{KEY} has 2 of 64 values that are not finite in float32; use another checkpoint",
    ),
    "too much for float32": (
        lambda state: {**state, KEY: holed(state[KEY].double(), 1e300)},
        f"{KEY} has 1 of 64 values that are not finite in float32",
    ),
    "a hole in a row that is dropped": (
        lambda state: {
            **state,
            "item_embeddings.weight": holed(state["item_embeddings.weight"], -torch.inf),
        },
        "item_embeddings.weight has 1 of 112 values that are not finite",
    ),
    "a sparse tensor": (
        lambda state: {**state, KEY: state[KEY].to_sparse()},
        f"{KEY}, (8, 8), is not a dense tensor with a value for each place",
    ),
    "a tensor without values": (
        lambda state: {**state, KEY: torch.ones(8, 8, device="meta")},
        f"{KEY}, (8, 8), is not a dense tensor with a value for each place",
    ),
    "one number that claims a shape": (
        lambda state: {**state, KEY: torch.ones(1).expand(8, 8)},
        f"{KEY}, (8, 8), is not a dense tensor with a value for each place",
    ),
    "more items": (
        lambda state: {**state, "item_embeddings.weight": torch.ones(15, 8)},
        "item_embeddings.weight has 15 rows for 13 items, but corpus corpus has 12; allowed: 14 "
        "rows; import it on the corpus that it was trained on",
    ),
    "fewer attributes": (
        lambda state: {**state, "attribute_embeddings.weight": torch.ones(5, 8)},
        "attribute_embeddings.weight has 5 rows for 4 attributes, but corpus corpus has 5; "
        "allowed: 6 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_state_dict_that_is_not_s3recs_is_refused(
    capsys: Capture,
    corpus: Corpus,
    tmp_path: Path,
    change: Callable[[State], State],
    message: str,
) -> None:
    file = tmp_path / "f.pt"
    torch.save(change(published_state()), file)
    said = import_error(capsys, file, corpus)
    assert said.startswith(str(file))
    assert message in said


@pytest.mark.parametrize("heads", [3, 0, -2])
def test_heads_that_do_not_divide_the_width_are_refused(
    capsys: Capture, corpus: Corpus, tmp_path: Path, heads: int
) -> None:
    torch.save(published_state(), tmp_path / "f.pt")
    assert import_error(capsys, tmp_path / "f.pt", corpus, heads) == (
        f"--heads is {heads}; allowed: divisors of the width 8 of {tmp_path / 'f.pt'}; the file "
        "does not say, and all released ones have 2"
    )


Names = tuple[int | str, ...]


@pytest.mark.parametrize(
    ("items", "attributes", "message"),
    [
        ((*ITEMS[:-1], "B5"), ATTRIBUTES, "item 'B5' is not a number from 1 to 12, which is how"),
        ((*ITEMS[:-1], 13), ATTRIBUTES, "item '13' is not a number from 1 to 12"),
        ((*ITEMS[:-1], "05"), ATTRIBUTES, "item '05' is not a number from 1 to 12"),
        ((0, *ITEMS[1:]), ATTRIBUTES, "item '0' is not a number from 1 to 12"),
        (ITEMS, (*ATTRIBUTES[:-1], "Drama"), "attribute 'Drama' is not a number from 1 to 5"),
        (ITEMS, (), "has 6 rows for 5 attributes, but corpus other has 0; allowed: 1 rows"),
    ],
)  # fmt: skip
def test_a_corpus_of_other_names_is_refused(
    capsys: Capture, tmp_path: Path, items: Names, attributes: Names, message: str
) -> None:
    other = numbered_corpus(tmp_path / "other", items=items, attributes=attributes)
    torch.save(published_state(), tmp_path / "f.pt")
    assert message in import_error(capsys, tmp_path / "f.pt", other)


def test_a_corpus_that_is_not_there_is_refused(capsys: Capture, tmp_path: Path) -> None:
    torch.save(published_state(), tmp_path / "f.pt")
    said = import_error(capsys, tmp_path / "f.pt", tmp_path / "none")
    assert said.startswith(f"corpus {tmp_path / 'none'} is not a prepared corpus folder: it does")


def test_a_folder_that_exists_is_refused_and_left_alone(
    capsys: Capture, corpus: Corpus, tmp_path: Path
) -> None:
    torch.save(published_state(), tmp_path / "f.pt")
    (tmp_path / "run").mkdir()
    said = import_error(capsys, tmp_path / "f.pt", corpus)
    assert said == (
        f"{tmp_path / 'run'} exists and is not overwritten; remove it or choose another name"
    )
    assert list((tmp_path / "run").iterdir()) == []


def test_an_import_that_fails_late_leaves_nothing(
    capsys: Capture, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OSError("No space left on device")

    torch.save(published_state(), tmp_path / "f.pt")
    monkeypatch.setattr(RankTable, "save", full)
    answer = run_command(
        capsys, "import", tmp_path / "f.pt", "--format", "s3rec", "--corpus", corpus.folder,
        "--out", tmp_path / "run", "--heads", HEADS,
    )  # fmt: skip
    assert (answer.code, answer.err) == (1, "sixfold import: No space left on device\n")
    assert os.listdir(tmp_path) == ["f.pt"]


def test_a_folder_that_appears_meanwhile_is_left_alone(
    capsys: Capture, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = RankTable.save

    def make_another(table: RankTable, path: Path) -> None:
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "mine").write_text("mine")
        save(table, path)

    torch.save(published_state(), tmp_path / "f.pt")
    monkeypatch.setattr(RankTable, "save", make_another)
    said = command_error(
        capsys, "import", tmp_path / "f.pt", "--format", "s3rec", "--corpus", corpus.folder,
        "--out", tmp_path / "run", "--heads", HEADS,
    )  # fmt: skip
    assert f"{tmp_path / 'run'} was made by another process meanwhile" in said
    assert os.listdir(tmp_path / "run") == ["mine"]
    assert sorted(os.listdir(tmp_path)) == ["f.pt", "run"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["import", "f.pt"], ("--format", "--out")),
        (
            ["import", "f.pt", "--format", "s3rec", "--out", "r", "--corpus", "c"],
            ("--heads is missing, which --format s3rec needs",),
        ),
        (["export", "r", "--out", "f"], ("Missing from sixfold export: --format",)),
        (["export", "r", "--out", "f", "--format", "tflite"], ("invalid choice 'tflite'",)),
        (
            ["export", "r", "--out", "f", "--format", "hub", "--k", "3"],
            ("--k is an option of --format onnx, torch-export alone; leave it out",),
        ),
        (
            ["export", "r", "--out", "f", "--format", "onnx", "--keep-seen"],
            ("--keep-seen needs --k; add that, or leave it out",),
        ),
    ],
)
def test_wrong_usage_says_what_is_missing(
    capsys: Capture, given: list[str], message: tuple[str, ...]
) -> None:
    answer = run_command(capsys, *given)
    assert answer.code == 2
    said = " ".join(answer.err.replace("│", " ").split())
    for part in message:
        assert part in said

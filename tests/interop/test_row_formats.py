"""RecBole's and gSASRec's weights as runs: the same scores as plain loops over the file's tensors.

The parity with RecBole's own scores is in `test_recbole_parity.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from research.cli import exchange_verbs
from research.data.corpus import Corpus
from research.interop.row_formats import ROW_FORMATS
from research.packed import Packed
from research.runs.load import load_run
from tests.evaluation.reference_ranks import scores_of_all
from tests.interop.reference_row_formats import (
    gsasrec_scores,
    recbole_bert4rec_scores,
    recbole_sasrec_scores,
)
from tests.support.command_line import command_error, run_command, table_rows
from tests.support.row_format_files import HEADS, gsasrec_state, recbole_state
from tests.support.s3rec_files import ITEMS, NUM_ITEMS, Capture, numbered_corpus

State = dict[str, Tensor]
Scores = Callable[[State, Sequence[int], int], Tensor]
FORMATS: dict[str, tuple[str, State, Scores]] = {
    "SASRec": ("recbole-sasrec", recbole_state(bert=False), recbole_sasrec_scores),
    "BERT4Rec": ("recbole-bert4rec", recbole_state(bert=True), recbole_bert4rec_scores),
    "gSASRec": ("gsasrec", gsasrec_state(), gsasrec_scores),
    "gSASRec, one table": ("gsasrec", gsasrec_state(own_table=False), gsasrec_scores),
}
# Of one item, of an odd number, of as many as the encoder reads, of more.
ROWS = [[4], [1, 3, 5], [0, 2, 4, 6, 8, 10, 1, 3, 5], list(range(12))]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "corpus")


def import_state(
    capsys: Capture, state: State, name: str, corpus: Corpus, folder: Path, *more: object
) -> str:
    """Import a state dict as `folder`/run, and return what was printed."""
    torch.save(state, folder / "model.pt")
    answer = run_command(
        capsys, "import", folder / "model.pt", "--format", name, "--corpus", corpus.folder,
        "--out", folder / "run", "--heads", HEADS, *more,
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, ""), answer.err
    return answer.out


@pytest.mark.parametrize("case", FORMATS)
def test_imported_scores_are_those_of_a_plain_loop(
    capsys: Capture, corpus: Corpus, tmp_path: Path, case: str
) -> None:
    name, state, reference = FORMATS[case]
    out = import_state(capsys, state, name, corpus, tmp_path)
    _, ranker = load_run(tmp_path / "run", "data")
    found = scores_of_all(ranker, Packed.from_lists(ROWS))
    for row, scores_V in zip(ROWS, found, strict=True):
        wanted = reference(state, [item + 1 for item in row], HEADS)[1 : NUM_ITEMS + 1]
        # Float32 sums of a few dozen terms in another order.
        torch.testing.assert_close(scores_V, wanted, rtol=0.0, atol=1e-5)
    rows = {row[0]: row[1:] for row in table_rows(out)}
    assert state.keys() <= rows.keys()
    assert "items are taken in the corpus's order" in out
    keys = json.loads((tmp_path / "run" / "summary.json").read_text())["imported"]["keys"]
    assert [each["key"] for each in keys] == list(state)


def test_the_report_says_where_rows_went(capsys: Capture, corpus: Corpus, tmp_path: Path) -> None:
    out = import_state(capsys, gsasrec_state(), "gsasrec", corpus, tmp_path)
    rows = {row[0]: row[1:] for row in table_rows(out)}
    assert rows["item_embedding.weight"] == [
        "(14, 8)",
        "encoder.item_table.weight, rows by item; first and last row dropped, the mask's zeros",
    ]
    assert rows["position_embedding.weight"][1] == "encoder.positions.weight, rows in reverse"
    key = "transformer_blocks.1.multihead_attention.key_proj.weight"
    assert rows[key] == ["(8, 8)", "encoder.blocks.1.qkv.weight, rows 8 to 15"]


@pytest.mark.parametrize("first", ["[PAD]\n", "", "\ufeff", "\ufeff[PAD]\n"])
def test_rows_are_found_by_a_file_of_raw_ids(
    capsys: Capture, corpus: Corpus, tmp_path: Path, first: str
) -> None:
    # Row n + 1 of the file is the item with the raw id n + 1, dense id ITEMS.index(n + 1).
    ids = "".join(f"{number}\n" for number in range(1, NUM_ITEMS + 1))
    (tmp_path / "ids.txt").write_text(first + ids, encoding="utf-8")
    state = recbole_state(bert=False)
    out = import_state(
        capsys, state, "recbole-sasrec", corpus, tmp_path, "--item-ids", tmp_path / "ids.txt"
    )
    assert "items are taken in the order of" in out
    _, ranker = load_run(tmp_path / "run", "data")
    found = scores_of_all(ranker, Packed.from_lists(ROWS))
    for row, scores_V in zip(ROWS, found, strict=True):
        wanted = recbole_sasrec_scores(state, [ITEMS[item] for item in row], HEADS)
        torch.testing.assert_close(scores_V, wanted[list(ITEMS)], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ("1\n2\n1\n", "line 3: '1' is there already"),
        ("[PAD]\n1\nx\n", "line 3: corpus corpus has no item 'x'"),
        ("1\n2\n", "has 2 ids, but not '7' of corpus"),
    ],
)
def test_a_file_of_raw_ids_that_does_not_fit_is_refused(
    capsys: Capture, corpus: Corpus, tmp_path: Path, ids: str, said: str
) -> None:
    (tmp_path / "ids.txt").write_text(ids)
    torch.save(recbole_state(bert=False), tmp_path / "model.pt")
    message = command_error(
        capsys, "import", tmp_path / "model.pt", "--format", "recbole-sasrec", "--corpus",
        corpus.folder, "--out", tmp_path / "run", "--heads", HEADS, "--item-ids",
        tmp_path / "ids.txt",
    )  # fmt: skip
    assert said in message
    assert not (tmp_path / "run").exists()


def test_the_weights_of_another_model_are_refused(
    capsys: Capture, corpus: Corpus, tmp_path: Path
) -> None:
    torch.save(recbole_state(bert=False), tmp_path / "model.pt")
    arguments = ["import", tmp_path / "model.pt", "--corpus", corpus.folder, "--out",
                 tmp_path / "run", "--heads", HEADS, "--format"]  # fmt: skip
    message = command_error(capsys, *arguments, "recbole-bert4rec")
    assert "is no RecBole BERT4Rec state dict of 2 layer(s): no key output_bias, " in message
    message = command_error(capsys, *arguments, "gsasrec")
    assert "is no gSASRec-pytorch state dict of 1 layer(s): no key transformer_blocks.0" in message
    state = recbole_state(bert=False)
    state["item_embedding.weight"] = state["item_embedding.weight"][:-1]
    torch.save(state, tmp_path / "model.pt")
    message = command_error(capsys, *arguments, "recbole-sasrec")
    assert "has 12 rows for 11 items, but corpus corpus has 12" in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "gsasrec", "--corpus", "c"], "--heads is missing, which --format gsasrec"),
        (["--format", "gsasrec", "--heads", "2"], "--corpus is missing, which --format gsasrec"),
        (["--format", "hub", "--heads", "2"], "--heads is an option of --format s3rec, recbole-"),
        (
            ["--format", "gsasrec", "--heads", "2", "--corpus", "c", "--keep-zero-rows"],
            "--keep-zero-rows is an option of --format s3rec alone; leave it out",
        ),
    ],
)
def test_an_option_of_another_format_is_refused(
    capsys: Capture, arguments: list[str], said: str
) -> None:
    assert said in command_error(capsys, "import", "file", "--out", "run", *arguments)


def test_the_command_line_has_the_names_of_the_row_formats() -> None:
    # It does not import them, as they import torch.
    assert set(exchange_verbs.ROW_FORMATS) == set(ROW_FORMATS)
    formats = get_args(get_type_hints(exchange_verbs.ImportCommand)["format"])
    assert set(formats) == {"s3rec", "hub", *ROW_FORMATS}

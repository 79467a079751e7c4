"""S3-Rec's checkpoints as runs: the same states, scores and ranks, and every verb works on them.

What is imported meets a padded forward pass that knows nothing of ours (`reference_s3rec.py`). What
is refused stands in `test_interop_errors.py`, the way back in `test_export.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from research.checkpoint import files as checkpoint
from research.data.corpus import Corpus
from research.evaluation.rank_table import RankTable
from research.packed import Packed
from research.runs.load import load_run
from tests.evaluation.reference_ranks import scores_of_all
from tests.interop import reference_s3rec
from tests.support.checkpoints import newest_checkpoint
from tests.support.command_line import run_command, table_rows
from tests.support.s3rec_files import (
    ATTRIBUTES,
    HEADS,
    HISTORIES,
    ITEMS,
    LENGTH,
    NUM_ITEMS,
    ROWS,
    Capture,
    encoder_states,
    import_file,
    numbered_corpus,
    published_state,
    raw_ids,
)

# Float32 sums of a few dozen terms in another order.
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "corpus")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return published_state()


@pytest.fixture
def file(tmp_path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, tmp_path / "s3rec.pt")
    return tmp_path / "s3rec.pt"


@pytest.fixture
def imported(capsys: Capture, file: Path, corpus: Corpus, tmp_path: Path) -> Path:
    import_file(capsys, file, corpus, tmp_path / "imported")
    return tmp_path / "imported"


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_imported_states_are_those_of_the_padded_model(
    capsys: Capture, corpus: Corpus, tmp_path: Path, causal: bool, zipped: bool
) -> None:
    state = published_state(seed=1)
    torch.save(state, tmp_path / "file", _use_new_zipfile_serialization=zipped)
    import_file(capsys, tmp_path / "file", corpus, tmp_path / "run")
    items_BL = reference_s3rec.padded(raw_ids(ROWS), LENGTH)
    expected = reference_s3rec.states(state, items_BL, heads=HEADS, causal=causal)
    for row, hidden_LD, wanted_LD in zip(
        ROWS, encoder_states(tmp_path / "run", ROWS, causal=causal), expected, strict=True
    ):
        assert len(hidden_LD) == min(len(row), LENGTH)
        torch.testing.assert_close(hidden_LD, wanted_LD[-len(hidden_LD) :], **CLOSE)


def test_a_masked_item_reads_the_masks_row(state: dict[str, Tensor], imported: Path) -> None:
    rows = [[3, NUM_ITEMS, 5], [NUM_ITEMS]]
    theirs = [[ITEMS[3], NUM_ITEMS + 1, ITEMS[5]], [NUM_ITEMS + 1]]
    items_BL = reference_s3rec.padded(theirs, LENGTH)
    expected = reference_s3rec.states(state, items_BL, heads=HEADS, causal=False)
    found = encoder_states(imported, rows, causal=False)
    for hidden_LD, wanted_LD in zip(found, expected, strict=True):
        torch.testing.assert_close(hidden_LD, wanted_LD[-len(hidden_LD) :], **CLOSE)


def test_imported_scores_are_those_of_the_padded_model(
    state: dict[str, Tensor], imported: Path
) -> None:
    _, ranker = load_run(imported, "data")
    found = scores_of_all(ranker, Packed.from_lists(ROWS))
    items_BL = reference_s3rec.padded(raw_ids(ROWS), LENGTH)
    expected = reference_s3rec.scores(state, items_BL, heads=HEADS)
    torch.testing.assert_close(found, expected[:, list(ITEMS)], **CLOSE)


@pytest.mark.parametrize(("part", "left"), [("test", 1), ("validation", 2)])
def test_imported_ranks_are_those_of_the_padded_model(
    state: dict[str, Tensor], imported: Path, part: str, left: int
) -> None:
    expected = []
    for history in HISTORIES[:-1]:
        known, target = history[:-left], history[-left]
        items_BL = reference_s3rec.padded(raw_ids([known]), LENGTH)
        scores = reference_s3rec.scores(state, items_BL, heads=HEADS)[0]
        others = [scores[ITEMS[item]] for item in range(NUM_ITEMS) if item not in known]
        rank = 1.0 + sum(bool(score > scores[ITEMS[target]]) for score in others)
        expected.append(rank if target not in known else float("inf"))
    assert float("inf") in expected
    assert len(set(expected)) > 2
    table = RankTable.load(imported / "ranks" / f"{part}-full.npz")
    assert dict(zip(table.user.tolist(), table.rank.tolist(), strict=True)) == dict(
        enumerate(expected)
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_padding_and_mask_compete_where_that_is_asked_for(
    capsys: Capture, corpus: Corpus, tmp_path: Path, seed: int
) -> None:
    state = published_state(seed=seed)
    torch.save(state, tmp_path / "file")
    import_file(capsys, tmp_path / "file", corpus, tmp_path / "run", "--special-classes")
    expected, beaten = [], 0
    for history in HISTORIES[:-1]:
        known, target = history[:-1], history[-1]
        items_BL = reference_s3rec.padded(raw_ids([known]), LENGTH)
        scores = reference_s3rec.scores(state, items_BL, heads=HEADS)[0]
        special = [scores[0], scores[NUM_ITEMS + 1]]
        others = [scores[ITEMS[item]] for item in range(NUM_ITEMS) if item not in known]
        better = [bool(score > scores[ITEMS[target]]) for score in (*others, *special)]
        beaten += any(better[-2:])
        expected.append(1.0 + sum(better) if target not in known else float("inf"))
    assert beaten
    table = RankTable.load(tmp_path / "run" / "ranks" / "test-full.npz")
    assert table.rank.tolist() == expected


def test_heads_and_attributes_go_where_their_objectives_read_them(
    state: dict[str, Tensor], imported: Path
) -> None:
    weights = checkpoint.read_weights(newest_checkpoint(imported / "stages" / "imported"))
    for name in ("aap", "mip", "map"):
        dense = weights[f"objectives.{name}.head.dense.weight"]
        assert torch.equal(dense, state[f"{name}_norm.weight"])
    assert torch.equal(weights["objectives.sp.dense.bias"], state["sp_norm.bias"])
    table = weights["shared.attributes.attribute_table.weight"]
    assert torch.equal(table, state["attribute_embeddings.weight"][list(ATTRIBUTES)])


def test_half_precision_is_read_exactly_and_float64_is_rounded_and_said(
    capsys: Capture, corpus: Corpus, tmp_path: Path
) -> None:
    state = published_state()
    state["aap_norm.weight"] = state["aap_norm.weight"].bfloat16()
    state["sp_norm.weight"] = torch.nn.Parameter(state["sp_norm.weight"].double() + 1e-12)
    torch.save(state, tmp_path / "mixed.pt")
    out = import_file(capsys, tmp_path / "mixed.pt", corpus, tmp_path / "run").out
    assert "\nrounded from float64 to float32: sp_norm.weight\n" in out
    weights = checkpoint.read_weights(newest_checkpoint(tmp_path / "run" / "stages" / "imported"))
    half = weights["objectives.aap.head.dense.weight"]
    assert torch.equal(half, state["aap_norm.weight"].float())


# The account


def test_the_report_tells_of_every_key(
    capsys: Capture, file: Path, state: dict[str, Tensor], corpus: Corpus, tmp_path: Path
) -> None:
    answer = import_file(capsys, file, corpus, tmp_path / "run")
    rows = {row[0]: row[1:] for row in table_rows(answer.out)}
    assert rows["item_embeddings.weight"] == [
        "(14, 8)", "encoder.item_table.weight, rows by raw item id, the mask's last; row 0 dropped",
    ]  # fmt: skip
    assert rows["attribute_embeddings.weight"] == [
        "(6, 8)",
        "shared.attributes.attribute_table.weight, rows by raw attribute id; row 0 dropped",
    ]  # fmt: skip
    assert rows["position_embeddings.weight"][1] == "encoder.positions.weight, rows in reverse"
    key = "item_encoder.layer.1.attention.key.weight"
    assert rows[key] == ["(8, 8)", "encoder.blocks.1.qkv.weight, rows 8 to 15"]
    assert state.keys() <= rows.keys()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    told = summary["imported"]
    assert [each["key"] for each in told["keys"]] == list(state)
    assert [tuple(each["shape"]) for each in told["keys"]] == [
        tuple(tensor.shape) for tensor in state.values()
    ]
    assert told["keys"][0]["place"] == rows["item_embeddings.weight"][1]
    assert told["file"] == "s3rec.pt"
    assert told["sha256"] == checkpoint.sha256_of(file)


def test_two_files_give_two_hashes(
    capsys: Capture, imported: Path, corpus: Corpus, tmp_path: Path
) -> None:
    torch.save(published_state(seed=3), tmp_path / "other.pt")
    import_file(capsys, tmp_path / "other.pt", corpus, tmp_path / "other")
    stored = [run / "config.json" for run in (imported, tmp_path / "other")]
    assert len({json.loads(path.read_text())["hash"] for path in stored}) == 2


# The imported run is a run


def summary_of(run: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return stored


def test_show_evaluate_and_recommend_work_on_an_imported_run(
    capsys: Capture, state: dict[str, Tensor], imported: Path
) -> None:
    summary = summary_of(imported)
    shown = run_command(capsys, "show", imported)
    assert (shown.code, shown.err) == (0, "")
    figures = {row[0]: row[1:] for row in table_rows(shown.out)}
    assert figures["ndcg@10"][1] == f"{summary['test']['full']['ndcg@10']:.4f}"
    evaluated = run_command(capsys, "evaluate", imported)
    assert (evaluated.code, evaluated.err) == (0, "")
    again = {row[0]: row[1:] for row in table_rows(evaluated.out)}
    assert again["ndcg@10"] == figures["ndcg@10"][1:2]
    recommended = run_command(capsys, "recommend", imported, "--items", "7,2,12", "--k", "3")
    scores = reference_s3rec.scores(
        state, reference_s3rec.padded([[7, 2, 12]], LENGTH), heads=HEADS
    )[0]
    scores[[0, 7, 2, 12, NUM_ITEMS + 1]] = -torch.inf
    best = torch.topk(scores, 3).indices.tolist()
    assert [row[1] for row in table_rows(recommended.out)] == [str(item) for item in best]


def test_a_run_starts_from_an_imported_one(
    capsys: Capture, corpus: Corpus, imported: Path, tmp_path: Path
) -> None:
    answer = run_command(
        capsys, "run", "baselines.s3rec.published_softmax", f"corpus={corpus.folder}", "--out",
        tmp_path / "next", "--quiet", f"start_from={imported}", "encoder.width=8",
        "encoder.feed_forward=32", "stages.0.epochs=1", "stages.1.epochs=1",
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")
    carried = summary_of(tmp_path / "next")["carried"]["pretrain"]
    assert list(carried["moved"]) == [f"{imported} (stage imported)"]
    # As published, attribute 0 is scored: the imported run has no such class.
    assert carried["new"] == ["shared.zero.row"]
    assert carried["left"] == []

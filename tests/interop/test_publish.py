"""Models as files for other programs: they rank as the run does, or nothing is written."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import research.interop.model_files as model_files
import research.interop.parity as parity
from research.data.corpus import Corpus
from research.errors import InputError
from research.interop.model_files import export_program, open_source
from research.interop.parity import check_parity, histories_of, pieces_of
from research.interop.program import Answer, RankerProgram
from research.model.bsarec import BSARec
from research.model.caser import CaserConfig
from research.model.fmlp import FMLP
from research.model.gru import GRUConfig
from research.model.hstu import HSTU
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.objectives.cloze import ClozeConfig
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.packed import Packed
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.load import load_run
from research.storage.run_folder import RunFolder
from research.training.config import StageConfig
from tests.evaluation.reference_ranks import scores_of_all
from tests.support.command_line import command_error, run_command, shop_corpus
from tests.support.s3rec_files import numbered_corpus
from tests.support.small_runs import ENCODER, FINETUNE, QUIET, frozen

Capture = pytest.CaptureFixture[str]
NEXT = frozen(FINETUNE)
CLOZE = replace(
    NEXT, objectives={"cloze": ClozeConfig(head=HeadConfig(transform="nonlinear", bias=True))}
)
BOTH_WAYS = replace(
    NEXT,
    objectives={
        "next": NextItemConfig(
            head=HeadConfig(similarity="cosine", temperature=0.05, bias=True),
            predict="last",
            direction="bidirectional",
        )
    },
)
# Every kind of block, of positions and of head, and a table with attributes.
CASES: dict[str, tuple[dict[str, Any], StageConfig]] = {
    "next item": ({}, NEXT),
    "cloze": ({}, CLOZE),
    "attributes, LiGR, rotary": (
        {
            "items": ItemTableConfig(attributes=True),
            "encoder": replace(ENCODER, block=LiGR(), positions=Rotary()),
        },
        NEXT,
    ),
    "HSTU": ({"encoder": replace(ENCODER, block=HSTU())}, NEXT),
    "cosines, both ways": ({}, BOTH_WAYS),
    "Caser": ({"encoder": CaserConfig(length=ENCODER.length, width=8, newest=3)}, NEXT),
    "BSARec, relative positions": (
        {"encoder": replace(ENCODER, block=BSARec(), positions=RelativePositions())},
        CLOZE,
    ),
    "FMLP": ({"encoder": replace(ENCODER, block=FMLP())}, CLOZE),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("published"))


def run_in(folder: Path, corpus: Corpus, stage: StageConfig = NEXT, **changes: Any) -> Path:
    """Do a small run; returns its folder."""
    settings = {"encoder": ENCODER, **changes}
    settings["encoder"] = replace(settings["encoder"], init_std=0.4)
    config = RunConfig(corpus=str(corpus.folder), stages=(stage,), **settings)
    execute(config, folder, options=QUIET)
    return folder


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = ItemTableConfig(dropout=0.2)
    return run_in(tmp_path_factory.mktemp("runs") / "next", corpus, items=items)


@pytest.fixture(scope="module")
def both_ways(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("runs") / "both ways", corpus, BOTH_WAYS)


@pytest.mark.parametrize("ranked_by", ["run", "both_ways"])
def test_the_program_gives_the_runs_scores(
    corpus: Corpus, ranked_by: str, request: pytest.FixtureRequest
) -> None:
    source = open_source(request.getfixturevalue(ranked_by), data_root="data", allow=())
    program = RankerProgram(source.ranker, Answer())
    # Cosines need a table of unit vectors beside the encoder's.
    assert (program.table_VD is None) == (ranked_by == "run")
    rows = [[4], [1, 3, 5], [0, 2, 4, 6, 8]]
    table_BL = torch.tensor([[4, -1, -1, -1, -1], [1, 3, 5, -1, -1], [0, 2, 4, 6, 8], [-1] * 5])
    with torch.no_grad():
        scores_BV = program(table_BL)
    assert isinstance(scores_BV, Tensor)
    expected = scores_of_all(source.ranker, Packed.from_lists(rows))
    torch.testing.assert_close(scores_BV[:3], expected, rtol=0.0, atol=1e-5)
    # Of no history at all nothing is said.
    assert bool(scores_BV[3].isnan().all())


# No items; padding before or between them; a number that no item has, or that is no padding.
NO_HISTORIES = [[-1, -1, -1], [-1, -1, 5], [5, -1, 6], [5, 40, -1], [40, 5, 6], [5, -2, -1]]
HISTORIES = [[5, 6, 7], [5, 6, -1], [39, 0, 0]]


@pytest.mark.parametrize(
    "answer", [Answer(), Answer(k=3), Answer(k=3, keep_seen=True)], ids=["all", "k", "seen"]
)
def test_a_row_that_is_no_history_gets_no_scores(run: Path, answer: Answer) -> None:
    source = open_source(run, data_root="data", allow=())
    assert source.parts.corpus.num_items == 40
    check_refused(RankerProgram(source.ranker, answer))


def check_refused(program: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> None:
    """A row that is no history gets NaN and -1, and does not disturb the other rows."""
    with torch.no_grad():
        together = program(torch.tensor([*NO_HISTORIES, *HISTORIES]))
        alone = program(torch.tensor(HISTORIES))
    together = together if isinstance(together, tuple) else (together,)
    alone = alone if isinstance(alone, tuple) else (alone,)
    number = len(NO_HISTORIES)
    assert bool(together[0][:number].isnan().all())
    torch.testing.assert_close(together[0][number:], alone[0], rtol=0.0, atol=1e-6)
    assert not bool(alone[0].isnan().any())
    for best, best_alone in zip(together[1:], alone[1:], strict=True):
        assert best[:number].tolist() == [[-1, -1, -1]] * number
        assert best[number:].tolist() == best_alone.tolist()


@pytest.mark.parametrize("keep_seen", [True, False])
def test_the_best_items_leave_out_the_history(corpus: Corpus, run: Path, keep_seen: bool) -> None:
    source = open_source(run, data_root="data", allow=())
    program = RankerProgram(source.ranker, Answer(k=corpus.num_items, keep_seen=keep_seen))
    with torch.no_grad():
        scores_BK, items_BK = program(torch.tensor([[3, 7, -1]]))
    assert sorted(items_BK[0].tolist()) == list(range(corpus.num_items))
    last = {items_BK[0, -1].item(), items_BK[0, -2].item()}
    assert (last == {3, 7}) is not keep_seen
    assert bool(scores_BK[0, -1].isinf()) is not keep_seen


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus whose items have attributes."""
    return numbered_corpus(tmp_path_factory.mktemp("numbered") / "described")


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("k", [None, 4])
@pytest.mark.parametrize("kind", ["torch-export", "onnx"])
def test_a_program_ranks_as_the_run(
    tmp_path: Path, described: Corpus, name: str, k: int | None, kind: str
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    changes, stage = CASES[name]
    source = open_source(
        run_in(tmp_path / "run", described, stage, **changes), data_root="data", allow=()
    )
    lines = export_program(source, tmp_path / "model", kind, Answer(k=k))
    assert lines[-1].startswith(
        "parity on 7 histories of described: largest difference of a score "
    )
    assert "equal and in the same order for 7" in lines[-1]
    # The last rows are no histories.
    table_BL = torch.tensor([[3, 1, -1], [5, -1, -1], [-1, 5, -1], [3, 99, -1]])
    with torch.no_grad():
        expected = RankerProgram(source.ranker, Answer(k=k))(table_BL)
    if kind == "onnx":
        import onnxruntime  # type: ignore[import-not-found, unused-ignore]

        session = onnxruntime.InferenceSession(str(tmp_path / "model"))
        found = [torch.from_numpy(each) for each in session.run(None, {"items": table_BL.numpy()})]
        about = json.loads(session.get_modelmeta().custom_metadata_map["sixfold"])
        assert session.get_inputs()[0].shape == ["batch", "length"]
    else:
        extra = {"sixfold": ""}
        module = torch.export.load(tmp_path / "model", extra_files=extra).module()
        answer = module(table_BL)
        found = [answer] if isinstance(answer, Tensor) else list(answer)
        about = json.loads(extra["sixfold"])
    wanted = [expected] if isinstance(expected, Tensor) else list(expected)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-5, equal_nan=True)
    assert bool(found[0][2:].isnan().all())
    assert (about["padding"], about["padding_side"]) == (-1, "right")
    assert about["longest"] == (ENCODER.length - (stage is CLOZE))
    assert about["fingerprint"] == described.fingerprint
    assert about["items"] == "model.items.csv"


def test_the_items_file_says_which_item_each_number_is(
    capsys: Capture, tmp_path: Path, corpus: Corpus, run: Path
) -> None:
    out = tmp_path / "model.safetensors"
    answer = run_command(capsys, "export", run, "--format", "safetensors", "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert "parity on 84 histories of shop: scores are bit-equal" in answer.out
    text = (tmp_path / "model.safetensors.items.csv").read_text()
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["number", "item", "title"]
    assert corpus.item_titles is not None
    assert rows[1:] == [
        [str(number), corpus.item_names[number], corpus.item_titles[number]]
        for number in range(corpus.num_items)
    ]
    with safe_open(out, "pt") as file:
        about = json.loads(file.metadata()["sixfold"])
        assert "encoder.item_table.weight" in file.keys()  # noqa: SIM118
    assert about["config"]["class"] == "RunConfig"
    assert about["num_items"] == corpus.num_items


@pytest.mark.parametrize("wrong", ["one item", "one history"])
def test_a_program_that_ranks_otherwise_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Path, wrong: str
) -> None:
    source = open_source(run, data_root="data", allow=())
    of_torch = model_files._torch_export

    def off(*given: Any) -> Any:
        content, exported = of_torch(*given)

        def altered(table_BL: Tensor) -> tuple[Tensor, ...]:
            scores_BV = exported(table_BL)[0].clone()
            if wrong == "one item":
                scores_BV[:, 7] += 0.01
            elif len(scores_BV) > 1:
                # As a program that is right for a batch of one alone.
                scores_BV[4] = scores_BV[3]
            return (scores_BV,)

        return content, altered

    monkeypatch.setattr(model_files, "_torch_export", off)
    with pytest.raises(InputError, match=r"differs from the run by up to .*nothing is written"):
        export_program(source, tmp_path / "model.pt2", "torch-export", Answer())
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_wrong_for_one_row_of_one_item_alone_is_no_parity(run: Path) -> None:
    source = open_source(run, data_root="data", allow=())
    program = RankerProgram(source.ranker, Answer())

    def wrong(table_BL: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            scores_BV: Tensor = program(table_BL)
        return (scores_BV.flip(1) if table_BL.shape == (1, 1) else scores_BV,)

    with pytest.raises(InputError, match="differs from the run"):
        check_parity(wrong, source.ranker, source.parts, Answer(), ENCODER.length)


class Scored:
    """A ranker whose scores of every history are the same row of numbers."""

    def __init__(self, scores_V: Tensor, encoder: Any) -> None:
        self.scores_V, self.encoder = scores_V, encoder

    def encode(self, packed: Packed, users_S: Tensor) -> Scored:
        self.rows = packed.num_sequences
        return self

    def scores(self, first: int, last: int) -> Tensor:
        return self.scores_V[first:last].repeat(self.rows, 1)


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1000.0])
def test_what_all_scores_have_in_common_hides_no_other_order(run: Path, offset: float) -> None:
    source = open_source(run, data_root="data", allow=())
    scores_V = torch.linspace(0.0, 0.05, source.parts.corpus.num_items) + offset
    ranker: Any = Scored(scores_V, source.ranker.encoder)
    given = (ranker, source.parts, Answer(), ENCODER.length)
    assert "in the same order for 84" in check_parity(
        lambda table_BL: (scores_V.repeat(len(table_BL), 1),), *given
    )
    # The reverse order, whose scores differ by 0.05: less than a ten-thousandth of the offset.
    with pytest.raises(InputError, match=r"by up to 0\.05"):
        check_parity(lambda table_BL: (scores_V.flip(0).repeat(len(table_BL), 1),), *given)
    # An error of the last place is none: float32 has no finer scores there.
    last_place = scores_V * (1 + torch.finfo(torch.float32).eps)
    check_parity(lambda table_BL: (last_place.repeat(len(table_BL), 1),), *given)


def test_lists_that_differ_in_ties_are_counted_as_they_are(run: Path) -> None:
    source = open_source(run, data_root="data", allow=())
    scores_V = torch.arange(40.0)
    scores_V[38] = 39.0
    ranker: Any = Scored(scores_V, source.ranker.encoder)

    def swapped(table_BL: Tensor) -> tuple[Tensor, ...]:
        best = scores_V.topk(5)
        items_K = best.indices[[1, 0, 2, 3, 4]]
        return best.values.repeat(len(table_BL), 1), items_K.repeat(len(table_BL), 1)

    answer = Answer(k=5, keep_seen=True)
    found = check_parity(swapped, ranker, source.parts, answer, ENCODER.length)
    assert found.endswith(
        "best 5 items equal and in the same order for 0; the others differ in items whose scores "
        "tie"
    )


def answer_of(run: Path, table_BL: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best items, by the run's own scores."""
    _, ranker = load_run(run, "data", (), "cpu")
    rows = [[item for item in row if item >= 0] for row in table_BL.tolist()]
    best = scores_of_all(ranker, Packed.from_lists(rows)).topk(k)
    return best.values, best.indices


@pytest.mark.parametrize(("k", "begin"), [(5, 0), (5, 3), (30, 3), (30, 28)])
def test_best_items_in_another_order_or_twice_are_no_parity(run: Path, k: int, begin: int) -> None:
    source = open_source(run, data_root="data", allow=())
    given = (source.ranker, source.parts, Answer(k=k, keep_seen=True), ENCODER.length)

    def right(table_BL: Tensor) -> tuple[Tensor, ...]:
        return answer_of(run, table_BL, k)

    assert f"best {k} items equal and in the same order for 84" in check_parity(right, *given)
    for pair in ([begin + 1, begin], [begin, begin]):
        order = [*range(begin), *pair, *range(begin + 2, k)]

        def wrong(table_BL: Tensor, order: list[int] = order) -> tuple[Tensor, ...]:
            scores, items = answer_of(run, table_BL, k)
            return scores[:, order], items[:, order]

        with pytest.raises(InputError, match="differs from the run"):
            check_parity(wrong, *given)


def test_parity_is_asked_of_histories_of_many_lengths(corpus: Corpus) -> None:
    found = histories_of(corpus, 5)
    assert len(found) == corpus.num_users
    lengths = (found.stops - found.starts).tolist()
    assert lengths[0] == 1
    assert set(lengths) == {1, 2, 3, 4, 5}
    # Each ends at an item of its user.
    assert bool((found.starts >= corpus.offsets[found.users]).all())
    assert bool((found.stops <= corpus.offsets[found.users + 1]).all())


def test_the_first_history_is_a_piece_alone_and_pieces_are_bounded(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = histories_of(corpus, 5)
    sizes = [len(piece) for piece in pieces_of(found, corpus.num_items)]
    assert sizes == [1, len(found) - 1]
    monkeypatch.setattr(parity, "SCORES", 30 * corpus.num_items)
    pieces = list(pieces_of(found, corpus.num_items))
    assert [len(piece) for piece in pieces] == [1, 30, 30, 23]
    assert [user for piece in pieces for user in piece.users] == found.users.tolist()


def test_weights_of_an_encoder_that_reads_times_are_exported(
    capsys: Capture, tmp_path: Path, corpus: Corpus
) -> None:
    run = run_in(tmp_path / "run", corpus, encoder=replace(ENCODER, block=HSTU(times=True)))
    out = tmp_path / "model.safetensors"
    answer = run_command(capsys, "export", run, "--format", "safetensors", "--out", out)
    assert (answer.code, answer.err) == (0, "")
    assert "parity on 84 histories of shop: scores are bit-equal" in answer.out


def test_what_no_program_can_hold_is_refused(
    capsys: Capture, tmp_path: Path, corpus: Corpus, run: Path
) -> None:
    gru = run_in(tmp_path / "gru", corpus, encoder=GRUConfig(length=5, width=4, hidden_width=4))
    out = tmp_path / "model.pt2"

    def refused(folder: Path, *more: object) -> str:
        arguments = ("export", folder, "--format", "torch-export", "--out", out, *more)
        return command_error(capsys, *arguments)

    assert "encoder is a GRUConfig, which torch traces for one length" in refused(gru)
    hstu = replace(ENCODER, block=HSTU(times=True))
    times = run_in(tmp_path / "times", corpus, encoder=hstu)
    assert "its encoder reads the time of every event" in refused(times)
    assert "--k is 41; allowed: 1 to 40, the number of items" in refused(run, "--k", 41)
    assert not out.exists()
    out.write_text("mine")
    assert "exists and is not overwritten" in refused(run)
    assert out.read_text() == "mine"


def test_a_missing_package_is_named_at_once(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Path
) -> None:
    for package in ("onnxruntime", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, package, None)
    said = command_error(
        capsys, "export", run, "--format", "onnx", "--out", tmp_path / "model.onnx"
    )
    assert said == (
        "sixfold export: an export to ONNX needs onnxruntime, which is not installed; install the "
        "extra onnx: pip install '.[onnx]' in the checkout, or the wheel that was installed, once "
        "more, as 'FILE.whl[onnx]'\n"
    )
    said = command_error(
        capsys, "import", "hf://me/model", "--format", "hub", "--out", tmp_path / "run"
    )
    assert said == (
        "sixfold import: the Hugging Face Hub needs huggingface_hub, which is not installed; "
        "install the extra hub: pip install '.[hub]' in the checkout, or the wheel that was "
        "installed, once more, as 'FILE.whl[hub]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_counts_has_nothing_to_export(
    capsys: Capture, tmp_path: Path, corpus: Corpus
) -> None:
    target = "baselines.popularity.popularity"
    assert run_command(
        capsys, "run", target, f"corpus={corpus.folder}", "--out", tmp_path / "r", "--quiet"
    ).code == 0  # fmt: skip
    said = command_error(
        capsys, "export", tmp_path / "r", "--format", "hub", "--out", tmp_path / "hub"
    )
    assert "which has no weights; export a run that was trained" in said
    assert RunFolder(tmp_path / "r", writes=False).path.is_dir()

"""The worked examples of CONTRIBUTING.md are used as a reader would: in files of one's own.

Each is written into an empty folder and run there on a tiny corpus, by the command that stands
behind it or by `execute`, and is held to what the page says that its test should hold it to.
"""

from __future__ import annotations

import re
import runpy
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.model.backbone import BackboneConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.contrast import TwoViews
from research.overrides import replace_fields
from research.packed import Packed
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.storage.records import RunSummary
from research.studies.study import Study
from research.studies.target import load_target
from research.training.multi_objective import MultiObjectiveModel
from tests import ROOT
from tests.support.command_line import run_command
from tests.support.synthetic import (
    batch_of,
    catalogue_of,
    encoder_of,
    markov_histories,
    write_histories,
)

Capture = pytest.CaptureFixture[str]
# By the name of its file, the code of each example and the text behind it.
EXAMPLES = {
    name: (code, text)
    for name, code, text in re.findall(
        r"^```python (\w+)\.py\n(.*?)^```\n(.*?)(?=^#|^```|\Z)",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
}
ITEMS = 30
ROWS = [[0, 1, 2, 3, 4, 5], [7], [], [8, 0], [2, 2, 9]]


def command_of(name: str) -> list[str]:
    """The words of the command that stands behind an example."""
    said = re.search(r"`(python [^`]+)`", EXAMPLES[name][1])
    assert said is not None, name
    return shlex.split(said[1])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with every example in it; none stays imported after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name, (code, _) in EXAMPLES.items():
        assert name not in sys.modules, name
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    yield tmp_path
    for name in EXAMPLES.keys() & sys.modules.keys():
        del sys.modules[name]


@pytest.fixture
def corpus(here: Path) -> Corpus:
    """A corpus in the folder that the examples' commands call ml-100k."""
    histories = markov_histories(num_users=40, num_items=ITEMS, length=9, seed=3)
    return write_histories(here / "ml-100k", histories, num_items=ITEMS)


def module_of(name: str) -> Any:
    """An example, imported."""
    module: ModuleType = import_module(name)
    return module


def trained(name: str, here: Path, **sizes: object) -> tuple[RunConfig, RunSummary]:
    """The config of two steps of an example's recipe with a small encoder, and their summary."""
    small = {"encoder.length": 6, "encoder.width": 8, **sizes}
    limits = {"epochs": None, "steps": 2, "validation": None, "batches.sequences_per_batch": 32}
    stage = {f"stages.0.{field}": value for field, value in limits.items()}
    config = replace_fields(module_of(name).recipe(), {**small, **stage, "corpus": "ml-100k"})
    summary = execute(config, here / "run", options=RunOptions(quiet=True))
    assert summary.best["train"].steps == 2
    return config, summary


def model_of(config: RunConfig, catalogue: Catalogue) -> MultiObjectiveModel:
    """The encoder and the objectives of a run's stage, in float64 and without dropout."""
    shared = ModelComponents(config.encoder, catalogue, seed=0)
    parts = {key: each.build(shared, 0) for key, each in config.stages[0].objectives.items()}
    return MultiObjectiveModel(shared.encoder, parts, catalogue).double().eval()


def gradients_of(model: MultiObjectiveModel, rows: list[list[int]], key: str) -> dict[str, float]:
    """By name, the largest gradient of an objective's loss on each parameter it reaches."""
    model.zero_grad(set_to_none=True)
    model.losses(batch_of(rows, length=6))[key].total.backward()
    return {
        name: float(each.grad.abs().max())
        for name, each in model.named_parameters()
        if each.grad is not None
    }


def assert_packed_equals_one_by_one(config: BackboneConfig) -> None:
    encoder = encoder_of(config, ITEMS).double().eval()
    together_TD = encoder(Packed.from_lists(ROWS), causal=True)
    alone = [encoder(Packed.from_lists([row]), causal=True) for row in ROWS]
    # The same products in another order: a few units of the last place.
    torch.testing.assert_close(together_TD, torch.cat(alone), rtol=1e-12, atol=1e-12)


def assert_gradients_reach_all_parameters(config: BackboneConfig) -> None:
    """Some gradient from tokens, and one of zeros where there are none."""
    for rows, some in ((ROWS, True), ([[], []], False)):
        encoder = encoder_of(config, ITEMS)
        states_TD = encoder(Packed.from_lists(rows), causal=True)
        (states_TD * torch.arange(config.width)).sin().sum().backward()
        for name, parameter in encoder.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()) is some, name


def test_there_are_seven_examples_of_fewer_than_forty_lines() -> None:
    lengths = {name: len(code.splitlines()) for name, (code, _) in EXAMPLES.items()}
    assert len(lengths) == 7
    assert {name: length for name, length in lengths.items() if length >= 40} == {}
    long = [line for code, _ in EXAMPLES.values() for line in code.splitlines() if len(line) > 100]
    assert long == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_command_behind_an_example_names_what_it_holds(name: str) -> None:
    words = command_of(name)
    if words[1] == f"{name}.py":
        return
    assert words[:3] == ["python", "-m", "research"]
    kind = {"run": RunConfig, "study": Study}[words[3]]
    assert words[4].partition(":")[0] == name
    assert isinstance(load_target(words[4], kind), kind)


def test_the_objective_trains_and_its_gradient_reaches_all_parameters(
    here: Path, corpus: Corpus
) -> None:
    config, _ = trained("two_crops", here, **{"encoder.feed_forward": 8})
    model = model_of(config, catalogue_of(ROWS, ITEMS))
    reached = gradients_of(model, ROWS, "crops")
    own = {"objectives.crops.predictor.weight", "objectives.crops.predictor.bias"}
    assert own <= {name for name, largest in reached.items() if largest > 0.0}
    # A zero that the parameters of the head hang on, where no row has a target.
    assert {gradients_of(model, [[], []], "crops")[name] for name in own} == {0.0}


def test_the_objective_is_the_same_sum_in_pieces() -> None:
    config = module_of("two_crops").recipe()
    model = model_of(config, catalogue_of(ROWS, ITEMS))
    batch = batch_of(ROWS, length=6)
    whole = model.losses(batch)["crops"]
    pieces = [model(piece)["crops"] for piece in model.prepare_micro_batches(batch, 3)]
    # Two views of each of the four rows that have an item.
    assert whole.count.item() == sum(piece.count.item() for piece in pieces) == 8.0
    parts = torch.stack([piece.total for piece in pieces])
    torch.testing.assert_close(parts.sum(), whole.total, rtol=1e-12, atol=1e-12)


def test_the_corruption_trains_and_masks_one_stretch_of_each_row(
    here: Path, corpus: Corpus
) -> None:
    trained("mask_span", here, **{"encoder.feed_forward": 8, "encoder.heads": 2})
    corruption = module_of("mask_span").MaskSpan(share=0.5)
    catalogue = catalogue_of(ROWS, ITEMS)
    batch = batch_of([[*range(8)]] * 50 + ROWS, length=6)
    view = corruption.view(batch, catalogue)
    masked_T = view.packed.items_T == ITEMS
    assert masked_T.nonzero()[:, 0].tolist() == view.picked_P.tolist()
    spans = [view.items_P[view.row_P == row].tolist() for row in range(50)]
    # The newest 6 of 8 items are 2 to 7, and a stretch of three of them begins at one of four.
    assert {tuple(span) for span in spans} == {(2, 3, 4), (3, 4, 5), (4, 5, 6), (5, 6, 7)}
    # All rows but the empty one have a target.
    assert view.row_P.unique().tolist() == [*range(52), 53, 54]
    alone = corruption.view(
        batch_of([ROWS[0]], length=6, states=batch.random_states_S[50:51]), catalogue
    )
    assert alone.items_P.tolist() == view.items_P[view.row_P == 50].tolist()


def test_cloze_takes_no_corruption_but_a_masking() -> None:
    with pytest.raises(InputError, match=r"corruption is a TwoViews; allowed: MaskItems"):
        ClozeConfig(corruption=TwoViews())  # type: ignore[arg-type]


def test_the_backbone_trains_and_owes_nothing(here: Path, corpus: Corpus) -> None:
    config, summary = trained("convolution", here)
    encoder = encoder_of(config.encoder, ITEMS)
    numbers = sum(each.numel() for each in encoder.parameters())
    assert summary.cost.parameters == config.encoder.num_parameters(ITEMS) == numbers
    assert_packed_equals_one_by_one(config.encoder)
    assert_gradients_reach_all_parameters(config.encoder)
    before_TD = encoder(Packed.from_lists([[1, 2, 3]]), causal=True)
    after_TD = encoder(Packed.from_lists([[1, 2, 4]]), causal=True)
    assert torch.equal(before_TD[:2], after_TD[:2])
    with pytest.raises(InputError, match=r"encoder\.width is 0; it must be at least 1"):
        replace_fields(config.encoder, {"width": 0})


def test_the_block_trains_and_keeps_sequences_apart(here: Path, corpus: Corpus) -> None:
    config, _ = trained("parallel", here, **{"encoder.feed_forward": 8})
    assert isinstance(config.encoder, TransformerConfig)
    assert type(config.encoder.block).__name__ == "Parallel"
    assert_packed_equals_one_by_one(config.encoder)
    assert_gradients_reach_all_parameters(replace_fields(config.encoder, {"dropout": 0.0}))


def test_the_data_set_is_prepared_and_opened(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    events = [
        {"user": f"u{user}", "item": f"i{(user + step) % 8}", "time": step, "page": None}
        for user in range(8)
        for step in range(5)
    ]
    few = {"user": "once", "item": "i0", "time": 9}
    write_events(
        here / "events.db", [(each["user"], each["item"], each["time"]) for each in [*events, few]]
    )
    words = command_of("sqlite_events")
    monkeypatch.setattr(sys, "argv", words[1:])
    runpy.run_path(words[1], run_name="__main__")
    corpus = Corpus.open(here / words[3])
    assert capsys.readouterr().out.strip() == corpus.fingerprint
    assert (corpus.name, corpus.num_users, corpus.num_items) == ("shop", 8, 8)
    assert corpus.items[:5].tolist() == [0, 1, 2, 3, 4]
    assert corpus.timestamps is not None
    assert corpus.timestamps[:5].tolist() == [0, 1, 2, 3, 4]


def test_the_data_set_says_what_is_wrong_in_its_file(here: Path) -> None:
    example = module_of("sqlite_events")
    for row, message in {
        ("a", "b", None): "events.db, row 1, column 'time': the cell is empty",
        ("", "b", 1): "events.db, row 1, column 'user': the cell is empty",
        ("a", 1.5, 1): "events.db, row 1, column 'item': 1.5 is a float that has a fraction",
    }.items():
        (here / "events.db").unlink(missing_ok=True)
        write_events(here / "events.db", [row])
        with pytest.raises(InputError, match=re.escape(message)):
            example.read(here / "events.db", PrepareConfig(source="sqlite"))
    (here / "events.db").write_text("user,item\n")
    with pytest.raises(
        InputError, match=r"events\.db: not readable as SQLite \(file is not a data"
    ):
        example.read(here / "events.db", PrepareConfig(source="sqlite"))


def write_events(path: Path, rows: list[tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE TABLE events (user, item, time)")
        base.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)


def test_the_baseline_counts_what_is_recent(here: Path, capsys: Capture) -> None:
    # Each user's last two items are held out, so that item 3 is never counted.
    histories = [[0, 1, 3, 3], [0, 1, 3, 3], [2, 3, 3], [2, 3, 3]]
    times = [[0, 10, 20, 20], [0, 20, 20, 20], [20, 20, 20], [20, 20, 20]]
    corpus = write_histories(here / "ml-100k", histories, num_items=4, timestamps=times)
    ranker = module_of("decayed_popularity").DecayedPopularityConfig(half_life=10.0)
    counted = ranker.build(corpus, LeaveOneOut().split(corpus))
    assert counted.counts_V.tolist() == [0.25 + 0.25, 0.5 + 1.0, 2.0, 0.0]
    answer = run_command(capsys, *command_of("decayed_popularity")[3:], "--out", "run")
    assert (answer.code, answer.err) == (0, "")
    assert (here / "run" / "summary.json").is_file()


def test_the_study_does_one_tiny_cell(here: Path, corpus: Corpus, capsys: Capture) -> None:
    given = command_of("depth_or_dropout")[3:]
    tiny = ["--cells", "layers=1", "--seeds", "1", "--budget", "steps=2", "--no-probe"]
    answer = run_command(capsys, *given, *tiny)
    assert (answer.code, answer.err) == (0, "")
    assert "layers=1" in answer.out
    assert len(list((here / "runs" / "depth_or_dropout").rglob("summary.json"))) == 1

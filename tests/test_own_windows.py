"""Objectives with rows of their own in one stage: prefixes beside whole histories."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.loader import BatchConfig, Loader
from research.data.splits import LeaveOneOut
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.errors import InputError
from research.execute import RunOptions, execute
from research.model.encoder import EncoderConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import Shared
from research.objectives.cloze import ClozeConfig
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.run import RunConfig
from research.training.meter import Meter
from research.training.pretrainer import Pretrainer
from research.training.stage import StageConfig
from research.workbench import Workbench
from tests.saved import newest_of
from tests.synthetic import markov_histories, scatter_parameters, write_histories

SIZES = EncoderConfig(
    length=4, width=4, heads=2, layers=1, feed_forward=6,
    embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
PREFIXES = EveryPrefix()
STAGE = StageConfig(
    objectives={
        "next": NextItemConfig(),
        "aap": AAPConfig(),
        "mip": MIPConfig(),
        "sp": SPConfig(),
    },
    own_windows={"aap": PREFIXES, "mip": PREFIXES, "sp": Sliding(stride=2)},
    batches=BatchConfig(sequences_per_batch=6),
    epochs=3,
    normalise="sequences",
    log_every=2,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    histories = markov_histories(num_users=20, num_items=12, length=9, seed=1)
    return write_histories(tmp_path / "corpus", histories, num_items=12)


def loader_of(corpus: Corpus, rank: int = 0, world: int = 1) -> Loader:
    config = RunConfig(corpus=str(corpus.folder), encoder=SIZES, stages=(STAGE,))
    return Workbench.of(config, "data").loader(STAGE, rank, world)


def module_of(corpus: Corpus, keys: tuple[str, ...]) -> Pretrainer:
    catalogue = Catalogue.of(corpus, LeaveOneOut().split(corpus))
    shared = Shared(SIZES, catalogue, 0)
    built = {key: STAGE.objectives[key].build(shared, 0) for key in keys}
    module = Pretrainer(shared.encoder, built, catalogue, STAGE.own_windows).double()
    scatter_parameters(module, std=0.3)
    return module


def test_a_stream_is_one_epoch_after_another_from_any_step(corpus: Corpus) -> None:
    loader = loader_of(corpus).others[PREFIXES]
    epochs = [batch.rows_S.tolist() for epoch in range(3) for batch in loader.batches(epoch)]
    for step in (0, 1, len(loader.plan(0)), len(loader.plan(0)) + 2):
        found = [batch.rows_S.tolist() for batch in islice(loader.stream(step), 5)]
        assert found == epochs[step : step + 5]


def test_other_rules_go_on_where_the_last_epoch_left_them(corpus: Corpus) -> None:
    loader = loader_of(corpus)
    steps = len(loader.plan(0))
    assert steps == 4
    batches = [batch for epoch in range(4) for batch in loader.batches(epoch)]
    found = [batch.under(PREFIXES).rows_S.tolist() for batch in batches]
    stream = [
        batch.rows_S.tolist() for batch in islice(loader.others[PREFIXES].stream(0), 4 * steps)
    ]
    assert found == stream
    # So that every prefix is seen in turn: of 94 rows none twice before each once.
    rows = [row for batch in found for row in batch]
    total = len(loader.others[PREFIXES].windows)
    assert sorted(rows[:total]) == list(range(total))[: len(rows)]


def test_an_epoch_continues_with_the_same_rows_under_every_rule(corpus: Corpus) -> None:
    loader = loader_of(corpus)
    whole = [batch.under(PREFIXES).rows_S.tolist() for batch in loader.batches(2)]
    rest = [batch.under(PREFIXES).rows_S.tolist() for batch in loader.batches(2, first=1)]
    assert rest == whole[1:]


def test_ranks_share_out_the_rows_of_every_rule(corpus: Corpus) -> None:
    one = [batch.under(PREFIXES).rows_S.tolist() for batch in loader_of(corpus).batches(0)]
    shares = [
        [batch.under(PREFIXES).rows_S.tolist() for batch in loader_of(corpus, rank, 2).batches(0)]
        for rank in (0, 1)
    ]
    for whole, first, second in zip(one, *shares, strict=True):
        assert (first, second) == (whole[0::2], whole[1::2])


def test_rules_have_orders_of_their_own(corpus: Corpus) -> None:
    loader = loader_of(corpus)
    assert isinstance(STAGE.windows, LastItems)
    assert len({loader.seed, *(other.seed for other in loader.others.values())}) == 3


def test_each_objective_has_the_loss_of_its_own_rows(corpus: Corpus) -> None:
    batch = next(loader_of(corpus).batches(0))
    module = module_of(corpus, tuple(STAGE.objectives))
    losses = module.losses(batch)
    for key in STAGE.objectives:
        alone = module_of(corpus, (key,))
        with torch.no_grad():
            weights = dict(module.named_parameters())
            for name, parameter in alone.named_parameters():
                parameter.copy_(weights[name])
        own = batch.under(STAGE.own_windows.get(key))
        expected = Pretrainer(alone.encoder, dict(alone.objectives.items()), alone.catalogue).losses(own)  # type: ignore[arg-type]
        assert losses[key].total.item() == pytest.approx(expected[key].total.item(), abs=1e-10)
        assert losses[key].count.item() == expected[key].count.item()


def test_sums_are_divided_by_the_rows_that_the_objective_saw(corpus: Corpus) -> None:
    batch = list(loader_of(corpus).batches(0))[-1]
    # The stage's last batch is two users; the prefixes' is six rows as ever.
    assert (len(batch.rows_S), len(batch.under(PREFIXES).rows_S)) == (2, 6)
    module = module_of(corpus, ("next", "mip"))
    losses = module.losses(batch)
    terms = Meter(Accelerator(cpu=True), STAGE).terms(losses, {"next": 1.0, "mip": 1.0}, batch)
    assert terms["next"].item() == pytest.approx(losses["next"].total.item() / 2)
    assert terms["mip"].item() == pytest.approx(losses["mip"].total.item() / 6)


def test_items_of_all_rules_are_counted(corpus: Corpus) -> None:
    batch = next(loader_of(corpus).batches(0))
    rules = {PREFIXES, Sliding(stride=2)}
    others = sum(batch.under(rule).packed.num_tokens for rule in rules)
    assert batch.num_tokens == batch.packed.num_tokens + others


def test_an_interrupted_run_with_own_windows_continues_as_if_nothing_had_happened(
    corpus: Corpus, tmp_path: Path
) -> None:
    config = RunConfig(corpus=str(corpus.folder), encoder=SIZES, stages=(STAGE,))
    quiet = RunOptions(quiet=True)
    execute(config, tmp_path / "whole", options=quiet)
    execute(config, tmp_path / "cut", options=quiet)
    kept = tmp_path / "cut" / "stages" / "train"
    short = replace(config, stages=(replace(STAGE, epochs=2),))
    execute(short, tmp_path / "short", options=quiet)
    # Two epochs' checkpoint under three epochs' command.
    (tmp_path / "cut" / "summary.json").unlink()
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
        data = (newest_of(tmp_path / "short" / "stages" / "train") / file).read_bytes()
        (newest_of(kept) / file).write_bytes(data.replace(b'"finished": true', b'"finished": false'))
    execute(config, tmp_path / "cut", options=quiet)
    ours = (newest_of(kept) / "model.safetensors").read_bytes()
    theirs = (newest_of(tmp_path / "whole" / "stages" / "train") / "model.safetensors").read_bytes()
    assert ours == theirs


def test_a_rule_for_an_objective_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="own_windows names 'cloze'; objectives: next, aap, mip"):
        replace(STAGE, own_windows={"cloze": PREFIXES})


def test_equal_corruptions_on_other_rows_are_other_views(corpus: Corpus) -> None:
    # Cloze on whole windows and MIP on prefixes hide by the same rule, but not the same items.
    catalogue = Catalogue.of(corpus, LeaveOneOut().split(corpus))
    shared = Shared(SIZES, catalogue, 0)
    built = {
        "cloze": ClozeConfig().build(shared, 0),
        "mip": STAGE.objectives["mip"].build(shared, 0),
    }
    module = Pretrainer(shared.encoder, built, catalogue, {"mip": PREFIXES})
    batch = next(loader_of(corpus).batches(0))
    losses = module.losses(batch)
    alone = {
        "cloze": Pretrainer(shared.encoder, {"cloze": built["cloze"]}, catalogue).losses(batch),
        "mip": Pretrainer(shared.encoder, {"mip": built["mip"]}, catalogue).losses(batch.under(PREFIXES)),
    }
    assert all(losses[key].count.item() == alone[key][key].count.item() for key in built)


def test_the_stages_own_rule_is_no_rule_of_an_objectives_own() -> None:
    with pytest.raises(InputError, match=r"own_windows\.mip is the stage's own rule; leave it out"):
        replace(STAGE, own_windows={"mip": LastItems()})

"""Objectives with rows of their own in one stage: prefixes beside whole histories."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from research.checkpoint.files import checkpoints_by_step
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.loader import BatchConfig, Loader
from research.data.splits import LeaveOneOut
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.errors import InputError
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.parts import RunParts
from research.storage.run_folder import RunFolder
from research.training.config import StageConfig
from research.training.loop import train
from research.training.multi_objective import MultiObjectiveModel
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig
from research.training.stage_run import CheckpointPlan, StageRun
from research.training.step import count_targets, loss_factors
from tests.support.checkpoints import newest_checkpoint
from tests.support.synthetic import markov_histories, randomize_parameters, write_histories

SIZES = TransformerConfig(
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
    normalize="sequences",
    log_every=2,
)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    histories = markov_histories(num_users=20, num_items=12, length=9, seed=1)
    return write_histories(tmp_path / "corpus", histories, num_items=12)


def loader_of(
    corpus: Corpus, rank: int = 0, world: int = 1, sizes: BatchConfig = STAGE.batches
) -> Loader:
    stage = replace(STAGE, batches=sizes)
    config = RunConfig(corpus=str(corpus.folder), encoder=SIZES, stages=(stage,))
    return RunParts.of(config, "data").loader(stage, rank, world)


def module_of(corpus: Corpus, keys: tuple[str, ...]) -> MultiObjectiveModel:
    catalogue = Catalogue.of(corpus, LeaveOneOut().split(corpus))
    shared = ModelComponents(SIZES, catalogue, 0)
    built = {key: STAGE.objectives[key].build(shared, 0) for key in keys}
    module = MultiObjectiveModel(shared.encoder, built, catalogue, STAGE.own_windows).double()
    randomize_parameters(module, std=0.3)
    return module


BY_TOKENS = BatchConfig(sequences_per_batch=None, tokens_per_batch=15)
BY_ROWS = STAGE.batches
WARM = OptimizerConfig(schedule=ScheduleConfig(shape="linear", warmup_steps=3))


def four_epochs(loader: Loader) -> list[Batch]:
    """The batches of a stage's first epochs."""
    batches: list[Batch] = []
    for epoch in range(4):
        last = batches[-1] if batches else None
        reached = {rule: last.for_windows(rule).rows_done for rule in loader.others} if last else {}
        batches += loader.batches(epoch, 0, reached)
    return batches


@pytest.mark.parametrize("sizes", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
def test_other_rules_go_on_where_the_last_epoch_left_them(
    corpus: Corpus, sizes: BatchConfig
) -> None:
    loader = loader_of(corpus, sizes=sizes)
    batches = four_epochs(loader)
    found = [batch.for_windows(PREFIXES).rows_S.tolist() for batch in batches]
    stream = islice(loader.others[PREFIXES].stream(0), len(batches))
    assert found == [batch.rows_S.tolist() for batch in stream]
    # So that every prefix is seen in turn: of 94 rows none twice before each once.
    rows = [row for batch in found for row in batch]
    total = loader.others[PREFIXES].num_rows
    assert sorted(rows[:total]) == list(range(total))[: len(rows)]


@pytest.mark.parametrize("sizes", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
def test_from_where_a_batch_has_come_to_all_rules_continue_with_the_same_rows(
    corpus: Corpus, sizes: BatchConfig
) -> None:
    loader = loader_of(corpus, sizes=sizes)
    whole = four_epochs(loader)
    for number, batch in enumerate(whole[:-1]):
        epoch, place = divmod(batch.rows_done, loader.num_rows)
        reached = {rule: each.rows_done for rule, each in batch.others.items()}
        after = next(loader.batches(epoch, place, reached))
        for rule in (None, *loader.others):
            ours, theirs = after.for_windows(rule), whole[number + 1].for_windows(rule)
            assert torch.equal(ours.rows_S, theirs.rows_S)
            assert torch.equal(ours.random_states_S, theirs.random_states_S)
            assert ours.rows_done == theirs.rows_done
        assert after.step_tokens == whole[number + 1].step_tokens


def test_ranks_share_out_the_rows_of_every_rule(corpus: Corpus) -> None:
    one = [batch.for_windows(PREFIXES).rows_S.tolist() for batch in loader_of(corpus).batches(0)]
    shares = [
        [
            batch.for_windows(PREFIXES).rows_S.tolist()
            for batch in loader_of(corpus, rank, 2).batches(0)
        ]
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
        own = batch.for_windows(STAGE.own_windows.get(key))
        expected = MultiObjectiveModel(
            alone.encoder, dict(alone.objectives.items()), alone.catalogue
        ).losses(own)  # type: ignore[arg-type]
        assert losses[key].total.item() == pytest.approx(expected[key].total.item(), abs=1e-10)
        assert losses[key].count.item() == expected[key].count.item()


def test_sums_are_divided_by_the_rows_that_the_objective_saw(corpus: Corpus) -> None:
    batch = list(loader_of(corpus).batches(0))[-1]
    # The stage's last batch is two users; the prefixes' is six rows as ever.
    assert (len(batch.rows_S), len(batch.for_windows(PREFIXES).rows_S)) == (2, 6)
    module = module_of(corpus, ("next", "mip"))
    seen = module.prepare(batch)
    losses = module(seen)
    both = {key: STAGE.objectives[key] for key in ("next", "mip")}
    stage = replace(STAGE, objectives=both, own_windows={"mip": PREFIXES})
    counts_2K = count_targets([seen], ["next", "mip"])[:, :2].T.flatten()
    weights_K = torch.ones(2, dtype=torch.float64)
    factors_K = loss_factors(counts_2K, weights_K, stage.normalize, Accelerator(cpu=True))
    assert factors_K.tolist() == [1 / 2, 1 / 6]
    assert losses.keys() == {"next", "mip"}


def test_items_of_all_rules_are_counted(corpus: Corpus) -> None:
    batch = next(loader_of(corpus).batches(0))
    rules = {PREFIXES, Sliding(stride=2)}
    others = sum(batch.for_windows(rule).packed.num_tokens for rule in rules)
    assert batch.num_tokens == batch.packed.num_tokens + others
    shares = [next(loader_of(corpus, rank, 3).batches(0)) for rank in range(3)]
    assert {share.step_tokens for share in (batch, *shares)} == {batch.num_tokens}
    assert sum(share.num_tokens for share in shares) == batch.num_tokens


@pytest.mark.long
@pytest.mark.parametrize("sizes", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
def test_an_interrupted_run_with_own_windows_continues_as_if_nothing_had_happened(
    corpus: Corpus, tmp_path: Path, sizes: BatchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = replace(STAGE, batches=sizes, optimizer=WARM)
    config = RunConfig(corpus=str(corpus.folder), encoder=SIZES, stages=(stage,))
    options = RunOptions(quiet=True, checkpoints=CheckpointPlan(steps=1, keep=50))
    execute(config, tmp_path / "whole", options=options)
    whole = tmp_path / "whole" / "stages" / "train"
    steps = max(checkpoints_by_step(whole))
    assert list(checkpoints_by_step(whole)) == list(range(steps, 0, -1))
    # By rows an epoch is four steps: in the warm-up and in the middle of an epoch, before an
    # epoch's last step, and between two.
    for step in (2, 6, 7, 8, 11):
        cut = tmp_path / f"cut-{step}"
        shutil.copytree(tmp_path / "whole", cut)
        (cut / "summary.json").unlink()
        for number, path in checkpoints_by_step(cut / "stages" / "train").items():
            if number > step:
                shutil.rmtree(path)
        execute(config, cut, options=options)
        for file in ("model.safetensors", "optimizer.safetensors"):
            ours = (newest_checkpoint(cut / "stages" / "train") / file).read_bytes()
            assert ours == (newest_checkpoint(whole) / file).read_bytes(), (step, file)
        assert max(checkpoints_by_step(cut / "stages" / "train")) == steps
    # Each went on from the very checkpoint: none was passed for an earlier one.
    assert capsys.readouterr().err == ""


def test_cut_into_pieces_a_step_has_the_same_gradient_and_trains_the_same(
    corpus: Corpus, tmp_path: Path
) -> None:
    found = {}
    for number in (1, 4):
        rates = OptimizerConfig(method="sgd", lr=0.1, beta1=0.9, clip_norm=0.5)
        batches = replace(STAGE.batches, micro_batches=number)
        stage = replace(
            STAGE, batches=batches, optimizer=rates, validation=None, gradients_every=1, log_every=1
        )
        module, folder = (
            module_of(corpus, tuple(STAGE.objectives)),
            RunFolder(tmp_path / f"{number}"),
        )
        config = RunConfig(corpus=str(corpus.folder), encoder=SIZES, stages=(stage,))
        run = StageRun(accelerator=Accelerator(cpu=True), folder=folder, seed=0, quiet=True)
        train(module, RunParts.of(config, "data").loader(stage, 0, 1), stage, run)
        found[number] = module, folder.metrics()
    (whole, lines), (cut, others) = found[1], found[4]
    # Twelve steps in float64, whose sums are added up in another order.
    for ours, theirs in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert len(others) == 24
    for line, expected in zip(others, lines, strict=True):
        assert line.keys() == expected.keys()
        for name in line.keys() - {"stage", "train/items_per_second"}:
            assert line[name] == pytest.approx(expected[name], rel=1e-10, abs=1e-12), name


def test_a_rule_for_an_objective_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="own_windows names 'cloze'; objectives: next, aap, mip"):
        replace(STAGE, own_windows={"cloze": PREFIXES})


def test_equal_corruptions_on_other_rows_are_other_views(corpus: Corpus) -> None:
    # Cloze on whole windows and MIP on prefixes hide by the same rule, but not the same items.
    catalogue = Catalogue.of(corpus, LeaveOneOut().split(corpus))
    shared = ModelComponents(SIZES, catalogue, 0)
    built = {
        "cloze": ClozeConfig().build(shared, 0),
        "mip": STAGE.objectives["mip"].build(shared, 0),
    }
    module = MultiObjectiveModel(shared.encoder, built, catalogue, {"mip": PREFIXES})
    batch = next(loader_of(corpus).batches(0))
    losses = module.losses(batch)
    alone = {
        "cloze": MultiObjectiveModel(shared.encoder, {"cloze": built["cloze"]}, catalogue).losses(
            batch
        ),
        "mip": MultiObjectiveModel(shared.encoder, {"mip": built["mip"]}, catalogue).losses(
            batch.for_windows(PREFIXES)
        ),
    }
    assert all(losses[key].count.item() == alone[key][key].count.item() for key in built)


def test_the_stages_own_rule_is_no_rule_of_an_objectives_own() -> None:
    with pytest.raises(InputError, match=r"own_windows\.mip is the stage's own rule; leave it out"):
        replace(STAGE, own_windows={"mip": LastItems()})

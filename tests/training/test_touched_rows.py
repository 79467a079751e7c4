"""Adam that moves touched rows alone: against torch's Adam, a plain loop, and whole stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from research.data.corpus import Corpus
from research.data.negatives import NegativesConfig
from research.distributed import signals
from research.errors import InputError
from research.model.item_table import ItemTable
from research.objectives.cloze import ClozeConfig
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    ItemLossConfig,
    SampledSoftmax,
)
from research.objectives.next_item import NextItemConfig
from research.training.config import StageConfig
from research.training.optimizer import OptimizerConfig, build_optimizer, set_rate
from research.training.touched_rows import clip, coalesced_gradients, numbers_of
from tests.support.synthetic import write_histories
from tests.support.trainer import STAGE, Trainer, request_stop_at

ITEMS, WIDTH = 7, 3


class Model(nn.Module):
    """An item table and a dense layer, in float64."""

    def __init__(self, *, only_the_table: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = ItemTable(ITEMS, WIDTH, init_std=0.5, seed=0, masked=False)
        self.dense = nn.Linear(WIDTH, 1).requires_grad_(not only_the_table)
        self.double()

    def forward(self, ids_N: Tensor) -> Tensor:
        # Each row's gradient depends on its weight, and rows may come more than once.
        loss: Tensor = self.dense(self.table.lookup(ids_N).tanh()).square().sum()
        return loss


def trained(
    model: Model, config: OptimizerConfig, batches: list[list[int]], *, without: int | None = None
) -> Model:
    """The model after one step a batch at changing rates; the step `without` is left out."""
    optimizer = build_optimizer(config, model)
    for step, batch in enumerate(batches):
        set_rate(optimizer, config, config.lr * (1 + step % 3), step)
        model(torch.tensor(batch)).backward()
        coalesced_gradients(model.parameters())
        if step == without:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    numbers_of(parameter.grad)[0] = torch.nan
        optimizer.found_inf = torch.tensor(float(step == without))  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model


CONFIGS = [
    OptimizerConfig(lr=0.05),
    OptimizerConfig(lr=0.05, beta1=0.8, beta2=0.98, eps=1e-4, weight_decay=0.1),
    OptimizerConfig(method="adamw", lr=0.05, weight_decay=0.1),
    OptimizerConfig(lr=0.05, bias_correction=False),
    OptimizerConfig(method="adamw", lr=0.05, weight_decay=0.1, bias_correction=False),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("without", [None, 0, 3])
def test_where_all_rows_are_touched_it_is_dense_adam(
    config: OptimizerConfig, without: int | None
) -> None:
    order = torch.Generator().manual_seed(1)
    batches = [[*torch.randperm(ITEMS, generator=order).tolist(), 0, 3, 3] for _ in range(10)]
    dense = trained(Model(), config, batches, without=without)
    by_rows = trained(Model(), replace(config, item_rows="touched"), batches, without=without)
    for expected, found in zip(dense.parameters(), by_rows.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("config", CONFIGS)
def test_touched_rows_move_as_in_a_plain_loop_and_others_stay(config: OptimizerConfig) -> None:
    batches = [[0, 0, 2], [2, 5], [0], [5, 5, 5], [2, 0]]
    model = trained(Model(only_the_table=True), replace(config, item_rows="touched"), batches)
    twin = Model(only_the_table=True)
    table = twin.table.weight
    start, moments = table.detach().clone(), {}
    for step, batch in enumerate(batches):
        rate = config.lr * (1 + step % 3)
        twin.zero_grad()
        twin(torch.tensor(batch)).backward()
        assert table.grad is not None
        for row in set(batch):
            weight, slope = table.data[row].clone(), table.grad[row]
            if config.method == "adam":
                slope = slope + config.weight_decay * weight
            else:
                weight = weight - rate * config.weight_decay * weight
            mean, square = moments.get(row, (0.0, 0.0))
            mean = config.beta1 * mean + (1 - config.beta1) * slope
            square = config.beta2 * square + (1 - config.beta2) * slope**2
            moments[row] = mean, square
            if config.bias_correction:
                mean = mean / (1 - config.beta1 ** (step + 1))
                square = square / (1 - config.beta2 ** (step + 1))
            table.data[row] = weight - rate * mean / (square.sqrt() + config.eps)
    torch.testing.assert_close(model.table.weight, table, rtol=1e-10, atol=1e-12)
    untouched = [1, 3, 4, 6]
    assert torch.equal(model.table.weight[untouched], start[untouched])


def test_without_gradients_nothing_is_clipped() -> None:
    clip([], 1.0, torch.tensor(0.0))


def test_a_step_reads_nothing_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(only_the_table=True)
    optimizer = build_optimizer(OptimizerConfig(item_rows="touched"), model)
    model(torch.tensor([1, 2])).backward()
    coalesced_gradients(model.parameters())
    optimizer.found_inf = torch.zeros(())  # type: ignore[attr-defined]

    def read(tensor: Tensor) -> bool:
        raise AssertionError("an accelerator's host would wait")

    for name in ("__bool__", "__float__", "item"):
        monkeypatch.setattr(Tensor, name, read)
    optimizer.step()


def test_a_step_with_a_dense_gradient_moves_all_rows() -> None:
    config = OptimizerConfig(lr=0.05)
    outcomes = []
    for each in (config, replace(config, item_rows="touched")):
        model = Model()
        optimizer = build_optimizer(each, model)
        # Steps with a sparse gradient of all rows, then with a dense one, then with both.
        for step, (looked_up, whole) in enumerate([(True, False), (False, True), (True, True)]):
            set_rate(optimizer, each, each.lr, step)
            loss = model(torch.arange(ITEMS)) if looked_up else torch.zeros(())
            loss = loss + model.table.weight.square().sum() if whole else loss
            loss.backward()
            coalesced_gradients(model.parameters())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        outcomes.append(model.table.weight.detach())
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-10, atol=1e-12)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    draws = torch.Generator().manual_seed(0)
    histories = [torch.randint(0, 30, (9,), generator=draws).tolist() for _ in range(40)]
    return write_histories(tmp_path / "c", histories, num_items=30)


@pytest.fixture
def trainer(corpus: Corpus, tmp_path: Path) -> Trainer:
    return Trainer(corpus, tmp_path / "run", Accelerator(cpu=True))


def stage_of(loss: ItemLossConfig, item_rows: str = "touched") -> StageConfig:
    optimizer = replace(STAGE.optimizer, item_rows=item_rows)
    return replace(STAGE, objectives={"next": NextItemConfig(loss=loss)}, optimizer=optimizer)


LOSSES = [
    BinaryCrossEntropy(number=2),
    GeneralizedBCE(number=3),
    SampledSoftmax(number=4, log_q=True, negatives=NegativesConfig(distribution="popularity")),
    SampledSoftmax(number=4, share="sequence"),
    BayesianPersonalizedRanking(),
    FullSoftmax(),
]


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_sparse_gradient_is_the_dense_one(trainer: Trainer, loss: ItemLossConfig) -> None:
    gradients = []
    for item_rows in ("all", "touched"):
        stage = stage_of(loss, item_rows)
        stage = replace(stage, objectives={**stage.objectives, "cloze": ClozeConfig(loss=loss)})
        model = trainer.new_model(stage).eval()
        build_optimizer(stage.optimizer, model)
        batch = next(trainer.loader(stage).batches(0))
        torch.stack([each.total for each in model.losses(batch).values()]).sum().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    dense, by_rows = gradients
    sparse = by_rows["encoder.item_table.weight"]
    assert sparse is not None
    assert sparse.is_sparse is (not isinstance(loss, FullSoftmax))
    for name, expected in dense.items():
        found = by_rows[name]
        assert (found is None) is (expected is None), name
        if expected is not None and found is not None:
            torch.testing.assert_close(found.to_dense(), expected, rtol=1e-5, atol=1e-6)


def test_clipping_and_gradient_norms_are_those_of_the_dense_gradient(trainer: Trainer) -> None:
    lines = []
    for item_rows in ("all", "touched"):
        stage = replace(
            stage_of(BinaryCrossEntropy(number=2), item_rows), gradients_every=1, epochs=1
        )
        # The first step: later ones differ, as untouched rows stay.
        clipped = replace(stage.optimizer, clip_norm=0.01)
        folder = trainer.folder.path.parent / item_rows
        own = Trainer(trainer.corpus, folder, trainer.accelerator)
        own.train(replace(stage, optimizer=clipped, steps=1, epochs=None, log_every=1))
        lines.append(own.metrics_lines()[0])
    for name, expected in lines[0].items():
        if isinstance(expected, str):
            assert lines[1][name] == expected
        else:
            assert lines[1][name] == pytest.approx(expected, rel=1e-5), name


def test_an_interrupted_stage_goes_on_as_if_undisturbed(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(stage_of(BinaryCrossEntropy(number=2)), validation=None)
    whole = Trainer(trainer.corpus, tmp_path / "whole", trainer.accelerator)
    expected, model = whole.train(stage)
    with monkeypatch.context() as patch:
        request_stop_at(patch, 5)
        with pytest.raises(signals.Stopped):
            trainer.train(stage)
    state, continued = trainer.train(stage)
    assert state.step == expected.step
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert trainer.checkpoint_bytes("step", name) == whole.checkpoint_bytes("step", name)
    for first, second in zip(model.parameters(), continued.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_later_stage_may_move_all_rows_again(trainer: Trainer) -> None:
    stage = stage_of(BinaryCrossEntropy(number=2))
    model = trainer.new_model(stage)
    for item_rows, is_sparse in (("touched", True), ("all", False)):
        build_optimizer(replace(stage.optimizer, item_rows=item_rows), model)
        model.zero_grad()
        batch = next(trainer.loader(stage).batches(0))
        model.losses(batch)["next"].total.backward()
        gradient = model.encoder.item_table.weight.grad
        assert gradient is not None
        assert gradient.is_sparse is is_sparse


def test_sgd_cannot_move_touched_rows_alone() -> None:
    with pytest.raises(InputError, match="'touched', which adam and adamw know"):
        OptimizerConfig(method="sgd", item_rows="touched")

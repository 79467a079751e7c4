"""What a step asks of an accelerator, and that the pretended one waits where a GPU would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

import baselines.s3rec
from research.model.item_vectors import ItemVectors
from research.randomness import fold
from tests.support.accelerator_counts import (
    RANKING,
    WORKLOADS,
    PretendAccelerator,
    main,
    maxima,
    parts_of,
    tallies_of,
    train_stage,
)
from tests.support.low_precision import COUPLED, two_layer_model
from tests.support.objective_cases import CASES, LENGTH, ROWS
from tests.support.pretend_accelerator import OnDevice, device, pretended, unsupported_reason
from tests.support.synthetic import batch_of

pytestmark = pytest.mark.skipif(unsupported_reason() is not None, reason=str(unsupported_reason()))

# Operations, host reads and blocking copies, and unpinned copies of a step that does not log. A
# change that saves some lowers the number here: `python -m tests.support.accelerator_counts` prints
# all of them with their lines.
EXPECTED = {
    "W1 SASRec": (197, 0, 0),
    "W2 S3-Rec pretraining": (311, 0, 0),
    "W3 BERT4Rec": (217, 0, 0),
    "W5 SASRec, BCE": (193, 0, 0),
    "gSASRec": (212, 0, 0),
    "eSASRec": (251, 0, 0),
    "HSTU with times": (285, 0, 0),
    "GRU4Rec": (92, 0, 0),
    "six objectives": (515, 0, 0),
    "six objectives, two micro-batches": (1039, 0, 0),
    RANKING: (97, 1, 3),
}

Call = Callable[[Tensor], object]
# Each makes the host wait once; x is [3., 0., 2.].
WAITING: dict[str, Call] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 1).any()),
    "a list": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "as a tensor of the host": lambda x: torch.as_tensor(x, device="cpu"),
    "to an array": lambda x: x.cpu().numpy(),
    "nonzero": lambda x: x.nonzero(),
    "a mask as an index": lambda x: x[x > 1],
    "values under a mask": lambda x: x.index_put_((x > 1,), x.new_zeros(2)),
    "an index on the host": lambda x: x[torch.tensor([1])],
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: x.long().bincount(),
    "equal": lambda x: torch.equal(x, x),
    "an upload": lambda x: torch.zeros(3).to(device()),
    "a number": lambda x: torch.tensor(2.0, device=device()),
    "numbers": lambda x: torch.as_tensor([1, 2], device=device()),
    "a new tensor": lambda x: x.new_tensor(2.0),
    "a copy into memory": lambda x: torch.zeros(3).copy_(x),
}
# None of these does.
GOING_ON: dict[str, Call] = {
    "sums": lambda x: (x * 2 + 1).sum(),
    "shapes": lambda x: x.reshape(1, 3).shape[0] + len(x),
    "an index": lambda x: x[x.long() - 1],
    "a number under a mask": lambda x: x.masked_fill_(x > 1, 4.0).index_put_((x > 1,), x[0]),
    "a chosen number": lambda x: torch.where(x > 1, x, 0.0),
    "a number on the host": lambda x: x + torch.tensor(2.0),
    "repeat_interleave with a size": lambda x: x.repeat_interleave(x.long(), output_size=5),
    "a tensor made there": lambda x: torch.arange(3, device=device()) + x.new_zeros(3),
    "an upload from pinned memory": lambda x: uploaded(torch.zeros(3).pin_memory()),
    "an upload of pinned numbers": lambda x: uploaded(torch.tensor([1.0], pin_memory=True)),
    "a copy to pinned memory": lambda x: torch.empty(3, pin_memory=True).copy_(
        x, non_blocking=True
    ),
    "an event": lambda x: torch.Event(device=x.device).synchronize(),
}
MIXED: dict[str, Call] = {
    "a sum": lambda x: x + torch.zeros(3),
    "a product": lambda x: x @ torch.zeros(3),
    "a stack": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "rows": lambda x: x.index_select(0, torch.tensor([0])),
    "a table on the host": lambda x: torch.zeros(4)[x.long()],
    "values on the host": lambda x: x.index_put_((x.long() - 1,), torch.zeros(3)),
    "a result on the host": lambda x: torch.add(x, x, out=torch.zeros(3)),
}


def uploaded(host: Tensor) -> Tensor:
    return host.to(device(), non_blocking=True)


def three() -> Tensor:
    return torch.tensor([3.0, 0.0, 2.0]).to(device())


@pytest.mark.parametrize("name", WAITING)
def test_what_makes_the_host_wait_is_counted_once(name: str) -> None:
    with pretended() as tally:
        x = three()
        tally.taken()
        WAITING[name](x)
        assert tally.reads.total() == 1, tally.reads


@pytest.mark.parametrize("name", GOING_ON)
def test_what_lets_the_host_go_on_is_not_counted(name: str) -> None:
    with pretended() as tally:
        x = three()
        tally.taken()
        GOING_ON[name](x)
        assert (tally.reads.total(), tally.unpinned.total()) == (0, 0)


def test_a_non_blocking_copy_of_pageable_memory_is_no_read_and_counted_apart() -> None:
    with pretended() as tally:
        uploaded(torch.zeros(3))
        assert (tally.reads.total(), tally.unpinned.total()) == (0, 1)


@pytest.mark.parametrize("name", MIXED)
def test_host_and_device_tensors_in_one_operation_are_refused(name: str) -> None:
    with pretended():
        x = three()
        with pytest.raises(RuntimeError, match="mixes host and device tensors"):
            MIXED[name](x)


def test_operations_are_counted_and_views_are_not() -> None:
    with pretended() as tally:
        x = three()
        tally.taken()
        ((x.view(1, 3).T[1:] * 2).sum()).detach()
        assert tally.operations.total() == 2


def test_a_count_names_the_line_of_the_project() -> None:
    with pretended() as tally:
        x = three().long()
        tally.taken()
        fold(x, 1)
    assert {each.split(":")[0] for each in tally.operations} == {"research/randomness.py"}


def test_values_and_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    qkv = [torch.randn(2, 2, 5, 4, requires_grad=True) for _ in range(3)]
    theirs = F.scaled_dot_product_attention(*qkv, is_causal=True)
    theirs.square().sum().backward()
    with pretended() as tally:
        mine = [each.detach().to(device()).requires_grad_() for each in qkv]
        tally.taken()
        ours = F.scaled_dot_product_attention(*mine, is_causal=True)
        assert tally.operations.total() == 1
        ours.square().sum().backward()
        assert isinstance(ours, OnDevice)
        torch.testing.assert_close(ours.cpu(), theirs)
        for each, other in zip(mine, qkv):
            torch.testing.assert_close(each.grad.cpu(), other.grad)


def test_a_recurrent_layer_is_one_operation_and_computes_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    layer, x = torch.nn.GRU(4, 3), torch.randn(5, 2, 4)
    theirs, last = layer(x)
    theirs.square().sum().backward()
    gradients = {name: each.grad.clone() for name, each in layer.named_parameters()}
    layer.zero_grad()
    with pretended() as tally:
        layer.to(device())
        mine, first = x.to(device()), torch.zeros(1, 2, 3).to(device())
        tally.taken()
        ours, ours_last = layer(mine, first)
        assert tally.operations.total() == 1
        ours.square().sum().backward()
        assert not tally.reads
        torch.testing.assert_close(ours.cpu(), theirs)
        torch.testing.assert_close(ours_last.cpu(), last)
        for name, each in layer.named_parameters():
            torch.testing.assert_close(each.grad.cpu(), gradients[name])


@pytest.mark.parametrize("work", EXPECTED)
def test_a_step_asks_for_no_more_than_is_written_down(work: str) -> None:
    operations, reads, unpinned = maxima(tallies_of(work))
    limit, *waits = EXPECTED[work]
    assert [reads, unpinned] == waits
    # Another torch may take an operation or two apart.
    assert 0.95 * limit <= operations <= limit


def test_every_work_is_counted() -> None:
    assert set(EXPECTED) == {*WORKLOADS, RANKING}


@pytest.mark.parametrize("name", [*CASES, *COUPLED])
def test_every_objective_stays_on_the_device_and_waits_for_nothing(name: str) -> None:
    model = two_layer_model({"only": {**CASES, **COUPLED}[name]}).train()
    inputs = model.prepare(batch_of(ROWS, length=LENGTH))
    with pretended() as tally:
        model.to(device())
        inputs = inputs.to(device())
        # Vectors of items are brought to the device once.
        for part in model.modules():
            if isinstance(part, ItemVectors):
                part.table()
        tally.taken()
        loss = model(inputs)["only"]
        loss.total.backward()
        assert not tally.taken().reads
        assert loss.total.isfinite().item()


# The device has one rectangle for attention and its own forms of the losses.
def test_the_device_trains_as_the_cpu_does(tmp_path: Path) -> None:
    config = baselines.s3rec.joint()
    still = replace(
        config.encoder, embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0
    )
    config = replace(config, encoder=still)

    def losses(accelerator: Accelerator, folder: Path) -> list[dict[str, float]]:
        _, parts = parts_of(config, folder / "corpus")
        parts = replace(parts, config=replace(parts.config, log_every=1))
        parts.model.double().to(accelerator.device)
        lines = train_stage(parts, accelerator, folder / "run").metrics()
        return [
            {name: float(value) for name, value in line.items() if "/loss" in name}
            for line in lines
        ]

    theirs = losses(Accelerator(cpu=True), tmp_path / "cpu")
    with pretended():
        ours = losses(PretendAccelerator(cpu=True), tmp_path / "device")
    assert len(ours) == 4
    assert len(ours[0]) == 7
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-10)


def test_the_command_prints_counts_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    main([RANKING])
    out = capsys.readouterr().out
    assert "| ranking a test set |" in out
    assert "    1 research/evaluation/ranking.py:" in out

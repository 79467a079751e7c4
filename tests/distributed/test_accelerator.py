"""What an accelerator must do as a CPU does; skipped without one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from research.data.negatives import Negatives, NegativesConfig
from research.model.attention import attention
from research.model.compute import ComputeConfig, graphs_compiled
from research.model.kernels.cross_entropy import softmax_loss
from research.model.kernels.precision import product
from research.model.transformer_config import TransformerConfig
from research.objectives.masking import MaskItems
from research.packed import Packed
from research.randomness import below, fold, uniform
from research.rectangles import Rectangle
from tests.support.low_precision import (
    LOW_DTYPES,
    NEXT_AND_CLOZE,
    NO_DROPOUT,
    assert_near,
    loss_and_gradients,
    two_layer_model,
)
from tests.support.objective_cases import CASES
from tests.support.synthetic import batch_of, catalogue_of, encoder_of, randomize_parameters

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
ROWS = [[4], [], [0, 1, 2, 3, 4, 5, 6], [9, 10], [], [8, 8, 7, 1, 2, 3, 5, 6, 0]]


def test_draws_are_the_same_on_both_devices() -> None:
    states = torch.arange(-500, 500) * 2**53
    ours, theirs = fold(states.cuda(), 3), fold(states, 3)
    assert torch.equal(ours.cpu(), theirs)
    assert torch.equal(uniform(ours).cpu(), uniform(theirs))
    assert torch.equal(below(ours, 77).cpu(), below(theirs, 77))


def test_masks_are_the_same_on_both_devices() -> None:
    config = MaskItems(rate=0.4, random_share=0.2, keep_share=0.2, mask_last_share=0.5)
    catalogue = catalogue_of([list(range(11))], 11)
    batch = batch_of(ROWS * 50, length=6)
    theirs = config.view(batch, catalogue)
    ours = config.view(batch.to(torch.device("cuda")), catalogue)
    assert torch.equal(ours.packed.items_T.cpu(), theirs.packed.items_T)
    assert torch.equal(ours.picked_P.cpu(), theirs.picked_P)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_negatives_are_the_same_on_both_devices(distribution: str) -> None:
    catalogue = catalogue_of([[0, 1, 2, 1], [9, 8, 8], [0, 1, 2, 3, 4, 5, 6]], 10)
    negatives = Negatives(NegativesConfig(distribution=distribution), catalogue)
    states, users = fold(1, torch.arange(300)), torch.arange(300) % 3
    theirs = negatives.draw(states, users, 4)
    ours = negatives.cuda().draw(states.cuda(), users.cuda(), 4)
    assert torch.equal(ours.cpu(), theirs)


# float64 on both sides; kernels add in another order, which costs about 1e-13.
@pytest.mark.parametrize("causal", [False, True])
def test_one_rectangle_encodes_as_buckets_do(causal: bool) -> None:
    encoder = encoder_of(TransformerConfig(length=9, width=8, feed_forward=8), 11).double().eval()
    randomize_parameters(encoder)
    packed = Packed.from_lists(ROWS)
    theirs_TD = encoder(packed, causal=causal)
    ours_TD = encoder.cuda()(packed.to(torch.device("cuda")), causal=causal)
    torch.testing.assert_close(ours_TD.cpu(), theirs_TD, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("read", [None, [5, 0, 14, 14]], ids=["all", "some"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_same_on_both_devices(
    causal: bool, biased: bool, read: list[int] | None
) -> None:
    packed = Packed.from_lists(ROWS)
    shape = packed.num_tokens, 3, 2, 4
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def nearness(rectangle: Rectangle) -> Tensor:
        return 0.3 - 0.1 * rectangle.distances_BQL.double()[:, None]

    results = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        qkv = x.to(device).requires_grad_()
        read_P = None if read is None else torch.tensor(read).to(device)
        bias = nearness if biased else None
        output = attention(
            qkv, packed.to(device), causal=causal, dropout=0.0, read_P=read_P, bias=bias
        )
        output.square().sum().backward()
        results.append([output.detach().cpu(), qkv.grad.cpu()])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_attention_on_an_accelerator_waits_for_nothing() -> None:
    device = torch.device("cuda")
    packed = Packed.from_lists(ROWS).to(device)
    qkv = torch.randn(packed.num_tokens, 3, 2, 4, device=device, requires_grad=True)
    read_P = torch.tensor([5, 0, 14, 14]).to(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for causal in (False, True):
            attention(qkv, packed, causal=causal, dropout=0.1, read_P=read_P).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_softmax_loss_is_the_same_on_both_devices() -> None:
    parts = [torch.randn(37, 5), torch.randn(13, 5), torch.randn(13)]
    parts = [part.double() for part in parts]
    targets_P = torch.arange(37) % 13
    theirs = softmax_loss(*parts, targets_P)
    ours = softmax_loss(*(part.cuda() for part in parts), targets_P.cuda())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)


@pytest.mark.parametrize("low", LOW_DTYPES)
def test_a_product_in_low_precision_ends_in_fp32(low: str) -> None:
    left, right = (torch.randn(60, 40, device="cuda").to(LOW_DTYPES[low]) for _ in range(2))
    exact = left.double() @ right.double().T
    ours = product(left, right.T)
    assert ours.dtype == torch.float32
    # Sums of 40 exact products, kept in fp32.
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("low", LOW_DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_an_objective_in_low_precision_is_near_its_fp32_twin(name: str, low: str) -> None:
    model = two_layer_model({"only": CASES[name]}, **NO_DROPOUT).cuda()
    assert_near(loss_and_gradients(model, LOW_DTYPES[low]), loss_and_gradients(model), low)


@pytest.mark.parametrize("low", [None, "bf16", "fp16"])
def test_compiled_training_is_near_plain_training(low: str | None) -> None:
    model = two_layer_model(NEXT_AND_CLOZE, **NO_DROPOUT).cuda()
    plain = loss_and_gradients(model, LOW_DTYPES.get(low or ""))
    before = graphs_compiled()
    model.encoder.use_compute(ComputeConfig(compile=True))
    for rows in (ROWS, [], [[3]], ROWS * 2):
        loss_and_gradients(model, LOW_DTYPES.get(low or ""), rows)
    ours = loss_and_gradients(model, LOW_DTYPES.get(low or ""))
    assert graphs_compiled() - before == 2
    # Compiled code rounds less often than plain code, to fp32 in either case for one.
    tolerance = 1e-4 if low is None else 8 * torch.finfo(LOW_DTYPES[low]).eps
    torch.testing.assert_close(ours[0], plain[0], rtol=tolerance, atol=0.0)
    for name, grad in plain[1].items():
        close = tolerance * grad.abs().max().item()
        torch.testing.assert_close(ours[1][name], grad, rtol=tolerance, atol=close, msg=name)


# Rows of a table's gradient are added in any order there: a few units of the last place.
@pytest.mark.parametrize("built", [False, True])
def test_recomputing_draws_the_same_dropout(built: bool) -> None:
    model = two_layer_model(NEXT_AND_CLOZE).cuda()
    results = []
    for recompute in (False, True):
        model.encoder.use_compute(ComputeConfig(compile=built, recompute=recompute))
        results.append(loss_and_gradients(model))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)

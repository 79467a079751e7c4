"""Low precision, compilation and recomputation change what training costs, not what it learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from research.model.bsarec import BSARec
from research.model.compute import ComputeConfig, graphs_compiled
from research.model.fmlp import FMLP
from research.model.hstu import HSTU
from research.model.kernels import candidate_scores, logit_rows, multilabel
from research.model.kernels import cross_entropy as softmax
from research.model.kernels.cross_entropy import softmax_loss, top_one
from research.model.kernels.dropout import keep_scales
from research.model.kernels.precision import product, row_products
from research.model.ligr import LiGR
from research.model.transformer import TransformerEncoder
from research.model.transformer_block import BlockConfig, PostNorm, PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.next_item import NextItemConfig
from research.packed import Packed
from tests.support.low_precision import (
    COUPLED,
    LOW_DTYPES,
    NEXT_AND_CLOZE,
    NO_DROPOUT,
    assert_near,
    assert_same,
    loss_and_gradients,
    two_layer_model,
)
from tests.support.marks import long_case
from tests.support.objective_cases import CASES, ITEMS, LENGTH, ROWS
from tests.support.synthetic import batch_of, encoder_of


@pytest.mark.parametrize("low", LOW_DTYPES)
@pytest.mark.parametrize("name", [*CASES, *COUPLED])
def test_an_objective_in_low_precision_is_near_its_fp32_twin(name: str, low: str) -> None:
    model = two_layer_model({"only": {**CASES, **COUPLED}[name]}, **NO_DROPOUT)
    assert_near(loss_and_gradients(model, LOW_DTYPES[low]), loss_and_gradients(model), low)


@pytest.mark.parametrize("low", LOW_DTYPES)
def test_products_of_rows_are_fp32_of_rounded_factors(low: str) -> None:
    left_PD = torch.tensor([[1.0, 0.001], [2.0, 3.0]], requires_grad=True)
    right_QD = torch.tensor([[1.0, 1.0], [0.5, 1.0 + 2**-12], [0.0, 0.0]], requires_grad=True)
    with torch.autocast("cpu", LOW_DTYPES[low]):
        products_PQ = row_products(left_PD, right_QD)
    assert products_PQ.dtype == torch.float32
    # What the last place of 1 + 2^-12 adds is rounded away in the factor.
    assert products_PQ[1].tolist() == [5.0, 4.0, 0.0]
    products_PQ.sum().backward()
    assert left_PD.grad.tolist() == [[1.5, 2.0], [1.5, 2.0]]
    assert right_QD.grad.dtype == torch.float32
    exact_PQ = row_products(left_PD.double(), right_QD.double())
    torch.testing.assert_close(exact_PQ, left_PD.double() @ right_QD.double().T)


def objectives_for(block: BlockConfig) -> Mapping[str, ObjectiveConfig]:
    """Next item and cloze, or the one that the block has a direction for."""
    keys = {"causal": "next", "bidirectional": "cloze"}
    return {keys[each]: NEXT_AND_CLOZE[keys[each]] for each in block.directions}


@pytest.mark.parametrize("low", LOW_DTYPES)
@pytest.mark.parametrize("block", [PreNorm, QueryNorm, LiGR, HSTU, BSARec, FMLP])
def test_every_kind_of_block_in_low_precision_is_near_its_fp32_twin(
    block: type[BlockConfig], low: str
) -> None:
    model = two_layer_model(objectives_for(block()), block=block(), **NO_DROPOUT)
    assert_near(loss_and_gradients(model, LOW_DTYPES[low]), loss_and_gradients(model), low)


@pytest.mark.parametrize("low", LOW_DTYPES)
def test_dropped_attention_in_low_precision_is_near_its_fp32_twin(low: str) -> None:
    # The same seed drops the same weights in both.
    model = two_layer_model(NEXT_AND_CLOZE, **{**NO_DROPOUT, "attention_dropout": 0.3})
    assert_near(loss_and_gradients(model, LOW_DTYPES[low]), loss_and_gradients(model), low)


@pytest.mark.parametrize("low", LOW_DTYPES)
@pytest.mark.parametrize("rows", [[], [[]], [[4]]], ids=["no rows", "one empty", "one of one"])
def test_a_batch_with_next_to_nothing_has_zero_gradients_in_low_precision(
    rows: list[list[int]], low: str
) -> None:
    total, grads = loss_and_gradients(
        two_layer_model({"next": NextItemConfig()}, **NO_DROPOUT), LOW_DTYPES[low], rows
    )
    assert total.item() == 0.0
    assert len(grads) > 0
    assert not any(grad.any() for grad in grads.values())


@pytest.fixture
def double_by_default() -> Iterator[None]:
    """New tensors are float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_by_default")
@pytest.mark.parametrize("name", CASES)
def test_everything_is_float64_when_that_is_the_default(name: str) -> None:
    model = two_layer_model({"only": CASES[name]}, attention_dropout=0.3)
    total, grads = loss_and_gradients(model)
    assert total.dtype == torch.float64
    assert {grad.dtype for grad in grads.values()} == {torch.float64}
    # Autocast leaves float64 alone.
    assert_same(loss_and_gradients(model, torch.bfloat16), (total, grads))


def test_shares_of_a_large_catalogue_do_not_underflow() -> None:
    # A share is near 5e-6; fp16 as it stands has steps of 6e-8, which is 1 % of it.
    draws = torch.Generator().manual_seed(1)
    table_VD = torch.randn(200_000, 4, generator=draws) * 0.1
    hidden_PD = torch.randn(3, 4, generator=draws)
    targets_P = torch.tensor([0, 1, 2])
    grads = []
    for low in (torch.float16, None):
        # fp16 holds these values exactly, so that only shares are rounded.
        parts = [each.half().float().requires_grad_() for each in (hidden_PD, table_VD)]
        with torch.autocast("cpu", torch.float16, enabled=low is not None):
            softmax_loss(*parts, None, targets_P).backward()
        grads.append(parts[1].grad[3:])
    errors = (grads[0] - grads[1]).norm() / grads[1].norm()
    assert errors < 2**-11


def test_full_products_of_every_loss_have_low_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    def spied(left: Tensor, right: Tensor) -> Tensor:
        seen.extend([left.dtype, right.dtype])
        return product(left, right)

    for module in (softmax, logit_rows, multilabel, candidate_scores):
        monkeypatch.setattr(module, "product", spied)
    for name in ("next, full softmax", "next, BCE", "AAP"):
        seen.clear()
        loss_and_gradients(two_layer_model({"only": CASES[name]}, **NO_DROPOUT), torch.bfloat16)
        # Logits or scores, and the gradients of states and table.
        assert seen == [torch.bfloat16] * 6, name


def test_multiplying_the_loss_as_loss_scaling_does_multiplies_the_gradient_alone() -> None:
    model = two_layer_model({"next": NextItemConfig()}, **NO_DROPOUT)
    seen = model.prepare(batch_of(ROWS, length=LENGTH))
    grads = []
    for scale in (1.0, 2.0**16):
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.float16):
            total = model(seen)["next"].total
        (total / 20 * scale).backward()
        grads.append(model.encoder.item_table.weight.grad / scale)
    # Tiny gradients lose bits without the scale, none overflows with it.
    torch.testing.assert_close(grads[0], grads[1], rtol=2**-7, atol=1e-5)


def test_rounding_makes_no_ties_in_accuracies() -> None:
    # In bf16 the two items' scores are the same.
    table_VD = torch.tensor([[1.0, 0.0], [1.001, 0.0]])
    hidden_PD = torch.tensor([[1.0, 5.0]])
    with torch.autocast("cpu", torch.bfloat16):
        assert top_one(hidden_PD, table_VD, None, torch.tensor([1])).item() == 1
        assert top_one(hidden_PD, table_VD, None, torch.tensor([0])).item() == 0


def test_dropout_keeps_the_mean_in_low_precision() -> None:
    # bf16 would round 1.1111 to 1.109.
    scales = keep_scales(torch.ones(1000, dtype=torch.bfloat16), 0.1)
    assert scales.max().item() == pytest.approx(65536 / (65536 - 6554), abs=1e-7)


@pytest.mark.parametrize("low", [None, "bf16"])
@pytest.mark.parametrize("block", [PostNorm, PreNorm, QueryNorm, LiGR, HSTU, BSARec, FMLP])
def test_recomputing_changes_no_bit_of_loss_and_gradients(
    block: type[BlockConfig], low: str | None
) -> None:
    # All dropouts are on.
    model = two_layer_model(objectives_for(block()), block=block(), inner_dropout=0.2)
    plain = loss_and_gradients(model, LOW_DTYPES.get(low or ""))
    model.encoder.use_compute(ComputeConfig(recompute=True))
    assert_same(loss_and_gradients(model, LOW_DTYPES.get(low or "")), plain)


def test_recomputing_leaves_what_is_drawn_later_as_it_was() -> None:
    model = two_layer_model(NEXT_AND_CLOZE)
    loss_and_gradients(model)
    later = torch.rand(3)
    model.encoder.use_compute(ComputeConfig(recompute=True))
    loss_and_gradients(model)
    assert torch.equal(torch.rand(3), later)


def test_recomputing_serves_several_gradients_of_one_graph() -> None:
    model = two_layer_model(NEXT_AND_CLOZE)
    parameters = list(model.encoder.parameters())
    found = []
    for recompute in (False, True):
        model.encoder.use_compute(ComputeConfig(recompute=recompute))
        torch.manual_seed(3)
        losses = model.losses(batch_of(ROWS, length=LENGTH))
        found.append(
            [
                torch.autograd.grad(each.total, parameters, retain_graph=True, allow_unused=True)
                for each in losses.values()
            ]
        )
    for ours, theirs in zip(*found, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) is (other is None)
            assert one is None or torch.equal(one, other)


def bytes_kept(encoder: TransformerEncoder, packed: Packed) -> int:
    """Bytes of the distinct tensors, weights aside, that a forward pass keeps."""
    weights = {each.data_ptr() for each in encoder.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = encoder(packed, causal=True)
    assert states.requires_grad
    return sum(kept.values())


def test_recomputing_keeps_little_more_than_a_block_input() -> None:
    encoder = encoder_of(
        TransformerConfig(length=64, width=16, layers=4, feed_forward=64), 20
    ).train()
    packed = Packed.from_lists([[1] * 64] * 4)
    plain = bytes_kept(encoder, packed)
    encoder.use_compute(ComputeConfig(recompute=True))
    # A block's input is 64 * 4 rows of 16 floats, and there are four, beside the embedding's part.
    assert bytes_kept(encoder, packed) < 20 * 64 * 4 * 16 * 4 < plain / 4


@pytest.fixture
def compiler(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compilation by a backend that builds no machine code; what is compiled when is the same."""
    backend = getattr(request, "param", "aot_eager")
    with torch.compiler.set_stance(force_backend=backend):
        yield backend
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("block", "low"),
    [
        (PostNorm, None),
        (FMLP, "bf16"),
        *(
            long_case(block, low)
            for block in (PostNorm, PreNorm, QueryNorm, LiGR, HSTU, BSARec, FMLP)
            for low in (None, "bf16")
            if (block, low) not in ((PostNorm, None), (FMLP, "bf16"))
        ),
    ],
)
def test_compiled_training_has_the_same_loss_and_gradients(
    block: type[BlockConfig], low: str | None
) -> None:
    model = two_layer_model(objectives_for(block()), block=block(), **NO_DROPOUT)
    plain = loss_and_gradients(model, LOW_DTYPES.get(low or ""))
    names = [name for name, _ in model.named_parameters()]
    before = graphs_compiled()
    model.encoder.use_compute(ComputeConfig(compile=True))
    ours = loss_and_gradients(model, LOW_DTYPES.get(low or ""))
    # What precedes attention, where there is any, and what follows.
    assert graphs_compiled() - before == 1 + block().attends
    assert [name for name, _ in model.named_parameters()] == names
    assert sorted(model.state_dict()) == sorted(
        two_layer_model(objectives_for(block()), block=block()).state_dict()
    )
    # This backend runs the same kernels; what autocast casts twice may be rounded apart.
    tolerance = 1e-5 if low is None else 4 * torch.finfo(LOW_DTYPES[low]).eps
    torch.testing.assert_close(ours[0], plain[0], rtol=tolerance, atol=0.0)
    for name, grad in plain[1].items():
        torch.testing.assert_close(
            ours[1][name], grad, rtol=tolerance, atol=tolerance * grad.abs().max().item(), msg=name
        )


def rows_of(count: int, draws: torch.Generator) -> list[list[int]]:
    """Rows of 0 to L + 1 items."""
    lengths = torch.randint(LENGTH + 2, (count,), generator=draws).tolist()
    return [torch.randint(ITEMS, (length,), generator=draws).tolist() for length in lengths]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("compiler", ["eager"], indirect=True)
@pytest.mark.parametrize("recompute", [False, long_case(True)])
def test_nothing_is_compiled_again_whatever_the_batches_are(recompute: bool) -> None:
    model = two_layer_model(NEXT_AND_CLOZE)
    model.encoder.use_compute(ComputeConfig(compile=True, recompute=recompute))
    before = graphs_compiled()
    # As many tokens as the width, at first: no size may be taken for another.
    loss_and_gradients(model, rows=[[1] * 5, [2] * 5])
    assert graphs_compiled() - before == 2
    draws = torch.Generator().manual_seed(5)
    for rows in ([], [[]], [[3]], [[3], [4]], [[5, 6]]):
        loss_and_gradients(model, rows=rows)
    for number in range(50):
        loss_and_gradients(model, rows=rows_of(number % 7, draws))
    # Evaluation is not compiled at all.
    model.eval()
    with torch.no_grad():
        model.losses(batch_of(ROWS, length=LENGTH))
    assert graphs_compiled() - before == 2


@pytest.mark.long
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("compiler", ["eager"], indirect=True)
def test_a_process_compiles_more_shapes_than_torch_keeps() -> None:
    with torch._dynamo.config.patch(recompile_limit=2):
        for width in (4, 6, 8, 10):
            model = two_layer_model({"next": NextItemConfig()}, width=width)
            model.encoder.use_compute(ComputeConfig(compile=True))
            before = graphs_compiled()
            loss_and_gradients(model)
            assert graphs_compiled() - before == 2, width


@pytest.mark.long
@pytest.mark.usefixtures("compiler")
def test_compiled_dropout_is_drawn_again_when_recomputing() -> None:
    model = two_layer_model(NEXT_AND_CLOZE, inner_dropout=0.2)
    results = []
    for recompute in (False, True):
        model.encoder.use_compute(ComputeConfig(compile=True, recompute=recompute))
        results.append(loss_and_gradients(model))
    assert_same(results[1], results[0])


@pytest.mark.usefixtures("compiler")
def test_compiled_training_serves_several_gradients_of_one_graph() -> None:
    model = two_layer_model(NEXT_AND_CLOZE, **NO_DROPOUT)
    model.encoder.use_compute(ComputeConfig(compile=True))
    parameters = [model.encoder.item_table.weight]
    losses = model.losses(batch_of(ROWS, length=LENGTH))
    for each in losses.values():
        torch.autograd.grad(each.total, parameters, retain_graph=True)
    torch.stack([each.total for each in losses.values()]).sum().backward()
    assert parameters[0].grad is not None

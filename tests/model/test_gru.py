"""GRU4Rec's backbone equals a loop over tokens, on a CPU and in an accelerator's padded layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from research.errors import InputError
from research.model.gru import STEPS_A_CALL, GRUConfig, GRUEncoder, TimeMajor
from research.packed import Packed
from tests.support import reference
from tests.support.pretend_accelerator import device, pretended, unsupported_reason
from tests.support.synthetic import encoder_of, randomize_parameters

ITEMS = 11
LENGTH = 2 * STEPS_A_CALL + 1
# One, none, odd, a whole call, one more, the maximum, and none at the end; the mask (11) stands
# here too.
LENGTHS = [1, 0, 5, STEPS_A_CALL, 2, STEPS_A_CALL + 1, LENGTH, 5, 0]
ROWS = [[(7 * row + 3 * place) % 12 for place in range(n)] for row, n in enumerate(LENGTHS)]
BASE = GRUConfig(length=LENGTH, width=6, hidden_width=7, embedding_dropout=0.0)
VARIANTS = {
    "as in RecBole": BASE,
    "three layers": replace(BASE, layers=3),
    "biases": replace(BASE, gate_biases=True, layers=2),
    "no projection": replace(BASE, hidden_width=6, projection=False),
    "as the authors have it": replace(BASE, hidden_width=6, projection=False, gate_biases=True),
    "states of width one": replace(BASE, hidden_width=1, layers=2),
}


def build_encoder(config: GRUConfig) -> GRUEncoder:
    encoder: GRUEncoder = encoder_of(config, ITEMS).double().eval()
    randomize_parameters(encoder)
    return encoder


def loop(encoder: GRUEncoder, rows: list[list[int]]) -> Tensor:
    """The twin over every sequence, laid end to end."""
    return torch.cat([reference.recurrent_states(encoder, row) for row in rows])


def gradients(encoder: GRUEncoder, states_PD: Tensor) -> dict[str, Tensor]:
    """Of a fixed weighing of all states, with respect to every parameter."""
    weights = torch.sin(torch.arange(states_PD.numel(), dtype=torch.float64)).view(states_PD.shape)
    encoder.zero_grad(set_to_none=True)
    (states_PD * weights.to(states_PD.device)).sum().backward()
    grads = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    return {name: grad.cpu() for name, grad in grads.items() if grad is not None}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-10, msg=name)


# States are below 1 but for the projection's, gradients of order 10; float64 agrees to about 1e-13,
# a gate in another's place is off by 1e-3 or more.
@pytest.mark.parametrize("variant", VARIANTS)
def test_packed_states_and_gradients_equal_a_loop_over_tokens(variant: str) -> None:
    encoder = build_encoder(VARIANTS[variant])
    ours_TD = encoder(Packed.from_lists(ROWS), causal=True)
    theirs_TD = loop(encoder, ROWS)
    torch.testing.assert_close(ours_TD, theirs_TD, rtol=1e-10, atol=1e-10)
    assert_same(gradients(encoder, ours_TD), gradients(encoder, theirs_TD))


READ = torch.tensor([0, 1, 5, 6, 13, 25, sum(LENGTHS) - 1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_reading_some_tokens_gives_their_rows_and_the_same_gradients(variant: str) -> None:
    encoder = build_encoder(VARIANTS[variant])
    ours_PD = encoder(Packed.from_lists(ROWS), causal=True, read_P=READ)
    theirs_PD = loop(encoder, ROWS)[READ]
    torch.testing.assert_close(ours_PD, theirs_PD, rtol=1e-10, atol=1e-10)
    assert_same(gradients(encoder, ours_PD), gradients(encoder, theirs_PD))


@pytest.mark.skipif(unsupported_reason() is not None, reason=str(unsupported_reason()))
@pytest.mark.parametrize("read_P", [None, READ], ids=["all", "some"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_accelerator_gives_the_same_and_the_host_waits_for_nothing(
    variant: str, read_P: Tensor | None
) -> None:
    encoder, packed = build_encoder(VARIANTS[variant]), Packed.from_lists(ROWS)
    theirs_PD = encoder(packed, causal=True, read_P=read_P)
    theirs = gradients(encoder, theirs_PD)
    with pretended() as tally:
        encoder.to(device())
        moved, moved_P = packed.to(device()), None if read_P is None else read_P.to(device())
        tally.taken()
        ours_PD = encoder(moved, causal=True, read_P=moved_P)
        ours_PD.sum().backward()
        assert not tally.taken().reads
        ours_PD = encoder(moved, causal=True, read_P=moved_P)
        torch.testing.assert_close(ours_PD.cpu(), theirs_PD, rtol=1e-10, atol=1e-10)
        assert_same(gradients(encoder, ours_PD), theirs)


@pytest.mark.skipif(unsupported_reason() is not None, reason=str(unsupported_reason()))
def test_an_accelerator_need_not_know_how_long_the_longest_is() -> None:
    encoder, packed = build_encoder(BASE), Packed.from_lists([[1, 2, 3], [4]])
    theirs_TD = encoder(packed, causal=True)
    # More is allowed (`Packed.longest`), and only costs empty slots.
    packed = replace(packed, longest=LENGTH)
    assert torch.equal(encoder(packed, causal=True), theirs_TD)
    with pretended():
        ours_TD = encoder.to(device())(packed.to(device()), causal=True)
        torch.testing.assert_close(ours_TD.cpu(), theirs_TD, rtol=1e-12, atol=1e-12)


def test_a_cpu_has_no_empty_slot() -> None:
    layout = TimeMajor.of(Packed.from_lists([[4], [], [5, 6, 7], [8, 9]]))
    assert layout.step_sizes is not None
    # The longest sequence comes first: 5 8 4, then 6 9, then 7.
    assert layout.step_sizes.tolist() == [3, 2, 1]
    assert layout.slots_T.tolist() == [2, 0, 3, 5, 1, 4]
    assert layout.num_slots == 6


def test_places_are_counted_in_the_sequence_whatever_its_positions() -> None:
    encoder, packed = build_encoder(BASE), Packed.from_lists([[1, 2, 3], [4, 5]])
    moved = replace(packed, positions_T=packed.positions_T + 4)
    assert torch.equal(encoder(packed, causal=True), encoder(moved, causal=True))


def test_hidden_dropout_drops_what_a_layer_gives_and_not_what_it_hands_on_in_time() -> None:
    config = replace(VARIANTS["no projection"], hidden_dropout=0.5)
    encoder, packed = build_encoder(config), Packed.from_lists(ROWS)
    whole_TD = encoder(packed, causal=True)
    torch.manual_seed(0)
    dropped_TD = encoder.train()(packed, causal=True)
    kept_TD = dropped_TD != 0
    # 47 tokens of 6 numbers: five standard errors of their share are 0.15.
    assert 0.35 < kept_TD.double().mean() < 0.65
    torch.testing.assert_close(dropped_TD[kept_TD], 2 * whole_TD[kept_TD])


def test_each_dropout_is_drawn_in_training_alone_and_where_it_stands() -> None:
    packed = Packed.from_lists(ROWS)
    for config in (
        replace(BASE, embedding_dropout=0.5),
        replace(BASE, layers=2, hidden_dropout=0.5),
    ):
        encoder = build_encoder(config)
        whole_TD = encoder(packed, causal=True)
        assert torch.equal(encoder(packed, causal=True), whole_TD)
        assert not torch.equal(encoder.train()(packed, causal=True), whole_TD)
    still = build_encoder(BASE).train()
    assert torch.equal(still(packed, causal=True), still.eval()(packed, causal=True))


def test_in_bf16_states_and_gradients_are_near_those_of_fp32() -> None:
    encoder, packed = build_encoder(replace(BASE, layers=2)).float(), Packed.from_lists(ROWS)
    theirs_TD = encoder(packed, causal=True)
    theirs = gradients(encoder, theirs_TD.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours_TD = encoder(packed, causal=True)
    ours = gradients(encoder, ours_TD.double())
    # bf16 has 8 bits of mantissa: a few roundings of 2^-8 of the largest number.
    assert (ours_TD - theirs_TD).abs().max() < 0.05 * theirs_TD.abs().max()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).abs().max() < 0.1 * gradient.abs().max(), name


def test_the_spread_of_the_start_and_dropouts_may_differ_between_runs() -> None:
    learned = replace(BASE, init_std=0.1, embedding_dropout=0.5, hidden_dropout=0.2)
    assert learned.decisive == BASE.decisive
    for changed in (replace(BASE, gate_biases=True), replace(BASE, hidden_width=9)):
        assert changed.decisive != BASE.decisive


def test_weights_start_normal_and_biases_at_zero() -> None:
    encoder = encoder_of(GRUConfig(width=64, hidden_width=64, gate_biases=True, init_std=0.1), 5)
    for name, parameter in encoder.named_parameters():
        if "bias" in name:
            assert not parameter.any(), name
        elif name.startswith("layers"):
            # 12,288 numbers: five standard errors of their spread are 0.0032.
            assert parameter.std().item() == pytest.approx(0.1, abs=0.0032), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_width": 0}, "encoder.hidden_width is 0; it must be at least 1"),
        ({"layers": 1 << 21}, "encoder.layers is 2097152; at most 1048576"),
        ({"embedding_dropout": 1.0}, "encoder.embedding_dropout is 1.0; it must be in [0, 1)"),
        ({"hidden_dropout": -0.1}, "encoder.hidden_dropout is -0.1; it must be in [0, 1)"),
        ({"init_std": -0.1}, "encoder.init_std is -0.1; it must be 0 or more"),
        ({"layers": "2"}, "layers is '2'; allowed: int"),
        (
            {"projection": False},
            "encoder.hidden_width is 128 and encoder.width 64; make them equal or set "
            "encoder.projection to True",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        GRUConfig(**changes)
    assert message in str(caught.value)

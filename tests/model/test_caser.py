"""Caser's backbone equals loops over windows, heights, places and filters, as in the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from research.errors import InputError
from research.model.caser import CaserConfig, CaserEncoder
from research.packed import Packed
from tests.support.pretend_accelerator import device, pretended, unsupported_reason
from tests.support.synthetic import encoder_of, randomize_parameters

ITEMS = 11
# None, one, fewer than L, L, one more, the longest, none at the end; the mask (11) stands here too.
LENGTHS = [0, 1, 2, 3, 4, 9, 0]
ROWS = [[(7 * row + 3 * place) % 12 for place in range(n)] for row, n in enumerate(LENGTHS)]
BASE = CaserConfig(length=9, width=4, newest=3, horizontal=2, vertical=3, dropout=0.0)
VARIANTS = {
    "three items": BASE,
    "one item": replace(BASE, newest=1),
    "one filter of each kind": replace(BASE, horizontal=1, vertical=1, width=1),
    "all items": replace(BASE, newest=9),
}
READ = torch.tensor([0, 2, 5, 9, 10, sum(LENGTHS) - 1])


def build_encoder(config: CaserConfig) -> CaserEncoder:
    encoder: CaserEncoder = encoder_of(config, ITEMS).double().eval()
    randomize_parameters(encoder)
    with torch.no_grad():
        # So that states are above 0 at every width.
        encoder.dense.bias.add_(1.0)
    return encoder


def state(encoder: CaserEncoder, items: list[int]) -> Tensor:
    """Eq. 3 to 7 and 9 of Tang and Wang 2018 for the newest item's state [D], filter by filter."""
    config, zeros = encoder.config, torch.zeros(encoder.config.width, dtype=torch.float64)
    rows = [encoder.item_table.weight[item] for item in items[-config.newest :]]
    rows = [zeros] * (config.newest - len(rows)) + rows
    outputs = []
    for weights, bias in zip(encoder.vertical.weight, encoder.vertical.bias):
        total = bias.expand(config.width)
        for weight, row in zip(weights, rows):
            total = total + weight * row
        outputs.append(total)
    for height, filters in enumerate(encoder.horizontal, start=1):
        for weights, bias in zip(filters.weight, filters.bias):
            values = []
            for start in range(config.newest - height + 1):
                value = bias
                for place in range(height):
                    value = value + (weights[:, place] * rows[start + place]).sum()
                values.append(value.relu())
            outputs.append(torch.stack(values).amax().view(1))
    return (encoder.dense.weight @ torch.cat(outputs) + encoder.dense.bias).relu()


def loop(encoder: CaserEncoder, rows: list[list[int]]) -> Tensor:
    """The twin at every token of every sequence, laid end to end."""
    return torch.stack([state(encoder, row[: n + 1]) for row in rows for n in range(len(row))])


def gradients(encoder: CaserEncoder, states_PD: Tensor) -> dict[str, Tensor]:
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


@pytest.mark.parametrize("read_P", [None, READ], ids=["all", "some"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_states_and_gradients_equal_loops_over_windows(variant: str, read_P: Tensor | None) -> None:
    encoder = build_encoder(VARIANTS[variant])
    ours_PD = encoder(Packed.from_lists(ROWS), causal=True, read_P=read_P)
    theirs_TD = loop(encoder, ROWS)
    theirs_PD = theirs_TD if read_P is None else theirs_TD[read_P]
    assert theirs_PD.any()
    torch.testing.assert_close(ours_PD, theirs_PD, rtol=1e-10, atol=1e-10)
    assert_same(gradients(encoder, ours_PD), gradients(encoder, theirs_PD))


def test_filters_give_what_is_known_by_hand() -> None:
    config = CaserConfig(length=3, width=1, newest=2, horizontal=1, vertical=1, dropout=0.0)
    encoder: CaserEncoder = encoder_of(config, 3).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.item_table.weight[:3, 0] = torch.tensor([1.0, 2.0, 5.0])
        encoder.vertical.weight.copy_(torch.tensor([[10.0, 1.0]]))
        encoder.horizontal[0].weight.copy_(torch.tensor([[[1.0]]]))
        encoder.horizontal[1].weight.copy_(torch.tensor([[[1.0, -1.0]]]))
        encoder.dense.weight.copy_(torch.tensor([[1.0, 100.0, 1000.0]]))
    states_TD = encoder(Packed.from_lists([[2, 0, 1]]), causal=True)
    # Windows 0 5, 5 1 and 1 2: vertical 5, 51 and 12; the highest item 5, 5 and 2; older less
    # newer, at least 0: 0, 4 and 0.
    assert states_TD[:, 0].tolist() == [505.0, 51.0 + 500.0 + 4000.0, 212.0]


def test_an_item_older_than_the_newest_few_changes_no_state() -> None:
    encoder = build_encoder(BASE)
    short_TD, long_TD = (
        encoder(Packed.from_lists([items]), causal=True) for items in ([3, 4, 5], [9, 8, 3, 4, 5])
    )
    assert torch.equal(short_TD[2], long_TD[4])
    assert not torch.equal(short_TD[1], long_TD[3])


def test_places_are_counted_in_the_sequence_whatever_its_positions() -> None:
    encoder, packed = build_encoder(BASE), Packed.from_lists([[1, 2, 3], [4, 5]])
    moved = replace(packed, positions_T=packed.positions_T + 4)
    assert torch.equal(encoder(packed, causal=True), encoder(moved, causal=True))


def test_dropout_is_drawn_in_training_alone() -> None:
    packed = Packed.from_lists(ROWS)
    encoder = build_encoder(replace(BASE, dropout=0.5))
    first_TD, again_TD = (encoder(packed, causal=True) for _ in range(2))
    assert torch.equal(first_TD, again_TD)
    torch.manual_seed(0)
    assert not torch.equal(encoder.train()(packed, causal=True), first_TD)


@pytest.mark.skipif(unsupported_reason() is not None, reason=str(unsupported_reason()))
@pytest.mark.parametrize("read_P", [None, READ], ids=["all", "some"])
def test_an_accelerator_gives_the_same_and_the_host_waits_for_nothing(
    read_P: Tensor | None,
) -> None:
    encoder, packed = build_encoder(BASE), Packed.from_lists(ROWS)
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_without_the_model(variant: str) -> None:
    encoder = build_encoder(VARIANTS[variant])
    number = sum(parameter.numel() for parameter in encoder.parameters())
    assert VARIANTS[variant].num_parameters(ITEMS) == number


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("newest", 0, r"encoder.newest is 0; it must be at least 1"),
        ("newest", 10, r"encoder.newest is 10 and encoder.length 9; .* lower encoder.newest"),
        ("horizontal", 0, r"encoder.horizontal is 0; it must be at least 1"),
        ("vertical", 1 << 21, r"encoder.vertical is 2097152; at most 1048576"),
        ("dropout", 1.0, r"encoder.dropout is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(BASE, **{field: value})

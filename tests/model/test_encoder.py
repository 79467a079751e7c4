"""The packed encoder equals a loop over sequences; what one sequence holds moves no other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import research.rectangles as rectangles_module
from research.errors import InputError
from research.model.bsarec import BSARec
from research.model.fmlp import FMLP
from research.model.hstu import HSTU
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.positions import LearnedPositions, Positions, PositionsConfig
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.rotary_time import RotaryTime
from research.model.transformer import TransformerEncoder
from research.model.transformer_block import PostNorm, PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.components import ModelComponents
from research.packed import Packed
from research.rectangles import Rectangle
from tests.support import reference
from tests.support.synthetic import catalogue_of, encoder_of, randomize_parameters

ITEMS = 11
LENGTH = 9
# One, none, odd, even, the maximum, and none at the end; every item and the mask (11) stand here.
ROWS = [
    [4],
    [],
    [0, 1, 2, 3, 4, 5, 6],
    [11, 9, 10],
    [0, 11, 8, 8, 7, 1, 2, 3, 11],
    [5, 6],
    [10, 9, 8, 7, 6, 5, 4, 3, 2],
    [],
]
BASE = dict(length=LENGTH, width=8, layers=2, heads=2, feed_forward=12)
VARIANTS: dict[str, dict[str, object]] = {
    "post-norm as in BERT": dict(block=PostNorm()),
    "pre-norm as in the ports": dict(block=PreNorm(), activation="gelu_tanh", embedding_norm=False),
    "pre-norm with a final norm": dict(block=PreNorm(), final_norm=True, norm_eps=1e-5),
    "query-norm as in SASRec": dict(
        block=QueryNorm(),
        activation="relu",
        heads=1,
        feed_forward=8,
        output_projection=False,
        embedding_norm=False,
        embedding_scale=True,
        final_norm=True,
        norm_eps=1e-8,
    ),
    "query-norm with a projection": dict(block=QueryNorm(), activation="relu"),
    "post-norm without a projection": dict(output_projection=False, activation="gelu_tanh"),
    "a scale under an embedding norm": dict(embedding_scale=True),
    "positions from the oldest": dict(positions=LearnedPositions(count_from="oldest")),
    "rotary positions": dict(positions=Rotary()),
    "rotary positions of another base, heads of width two": dict(
        positions=Rotary(base=100.0), heads=4, block=PreNorm()
    ),
    "segments": dict(segments=3, positions=LearnedPositions(count_from="oldest")),
    "eight heads of width one": dict(heads=8, layers=1),
    "LiGR as in eSASRec": dict(block=LiGR(), embedding_norm=False, norm_eps=1e-5),
    "LiGR with RMSNorm, no projection, rotary positions": dict(
        block=LiGR(norm="rms"), output_projection=False, positions=Rotary(), final_norm=True
    ),
    "LiGR with two dense layers and bare norms": dict(
        block=LiGR(swiglu=False, norm="bare"), activation="relu"
    ),
    "HSTU": dict(
        block=HSTU(),
        embedding_norm=False,
        embedding_scale=True,
        positions=LearnedPositions(count_from="oldest"),
        norm_eps=1e-6,
    ),
    "HSTU with times": dict(block=HSTU(times=True), norm_eps=1e-6),
    "HSTU with few buckets, narrow heads, learned norms, divided by what is seen": dict(
        block=HSTU(times=True, time_buckets=20, head_width=2, norm="layer", divisor="visible"),
        heads=4,
    ),
    "HSTU with rotary positions and RMSNorm": dict(
        block=HSTU(norm="rms", head_width=6), positions=Rotary(), final_norm=True
    ),
    "BSARec": dict(block=BSARec(), heads=1),
    "BSARec of an even length, its highest frequency kept, rotary positions": dict(
        block=BSARec(alpha=0.3, c=10), length=10, positions=Rotary(), output_projection=False
    ),
    "BSARec of the constant alone": dict(block=BSARec(alpha=1.0, c=1), norm_eps=1e-6),
    "FMLP": dict(block=FMLP(), heads=1),
    "FMLP of an even length": dict(block=FMLP(), length=10, activation="relu", final_norm=True),
    "relative positions": dict(positions=RelativePositions(buckets=8, max_distance=6)),
    "relative positions with few buckets": dict(
        positions=RelativePositions(buckets=4, max_distance=4), block=LiGR(), heads=4
    ),
    "relative positions of older keys": dict(
        positions=RelativePositions(buckets=6, max_distance=8, sides="older"), block=PreNorm()
    ),
    "rotary positions in time": dict(positions=RotaryTime(unit_seconds=50_000.0)),
    "rotary positions in time alone": dict(
        positions=RotaryTime(angles="time", unit_seconds=1e5, base=10.0), block=QueryNorm()
    ),
    "rotary positions in time, summed, heads of width two": dict(
        positions=RotaryTime(angles="sum"), heads=4
    ),
    "HSTU with times and rotary positions in time": dict(
        block=HSTU(times=True, head_width=6), positions=RotaryTime(), norm_eps=1e-6
    ),
    "attributes on the input side": dict(attributes=True),
    "attributes under a scale": dict(attributes=True, embedding_scale=True),
}
# Each variant in each direction that it has.
ENCODINGS = [
    pytest.param(variant, direction == "causal", id=f"{variant}, {direction}")
    for variant, changes in VARIANTS.items()
    for direction in TransformerConfig(
        **{**BASE, **{name: each for name, each in changes.items() if name != "attributes"}}
    ).directions
]
# Item 3 has none, item 7 three; attribute 4 stands on no item.
ATTRIBUTES = [[0], [1, 2], [0], [], [3], [1], [2, 3], [0, 1, 2], [5], [0], [3]]


def build_encoder(*, attributes: bool = False, **changes: object) -> TransformerEncoder:
    config = TransformerConfig(**{**BASE, **changes})
    catalogue = catalogue_of([], ITEMS, attributes=ATTRIBUTES, num_attributes=6)
    items = ItemTableConfig(attributes=attributes)
    encoder = ModelComponents(config, catalogue, 0, items).encoder.double().eval()
    randomize_parameters(encoder)
    return encoder


def with_fields(packed: Packed, config: TransformerConfig) -> Packed:
    """The batch with the fields that are read: types, and times, that change from token to token.

    Times are up to a million seconds apart, some the same, and not in order.
    """
    numbers_T = torch.arange(packed.num_tokens)
    fields = {"time": numbers_T**4 * 7_919 % 1_000_003 + 1_600_000_000}
    fields["time"][3] = fields["time"][4]
    if config.segments:
        fields["segment"] = numbers_T % config.segments
    known = (*config.fields, *config.optional_fields)
    return replace(packed, fields={name: fields[name] for name in known})


def loop(encoder: TransformerEncoder, packed: Packed, causal: bool) -> Tensor:
    """The twin over every sequence, laid end to end."""
    hidden = []
    for begin, end in zip(packed.offsets[:-1].tolist(), packed.offsets[1:].tolist()):
        fields = {name: values_T[begin:end].tolist() for name, values_T in packed.fields.items()}
        items = packed.items_T[begin:end].tolist()
        attributes = () if encoder.item_table.attributes is None else ATTRIBUTES
        segments, times = fields.get("segment"), fields.get("time")
        hidden.append(reference.encode(encoder, items, causal, segments, attributes, times))
    return torch.cat(hidden)


def gradients(encoder: TransformerEncoder, hidden_TD: Tensor) -> dict[str, Tensor]:
    """Of a fixed weighing of all states, with respect to every parameter."""
    weights = torch.sin(torch.arange(hidden_TD.numel(), dtype=torch.float64)).view_as(hidden_TD)
    encoder.zero_grad(set_to_none=True)
    (hidden_TD * weights).sum().backward()
    grads = {name: each.grad for name, each in encoder.named_parameters()}
    assert all(grad is not None for grad in grads.values())
    return {name: grad.clone() for name, grad in grads.items()}


# Values are of order 10 and sums have under 100 terms, so float64 agrees to about 1e-13; a wrong
# mask, scale or position is off by 1e-3 or more. 1e-10 separates the two.
@pytest.mark.parametrize(("variant", "causal"), ENCODINGS)
def test_packed_states_and_gradients_equal_a_loop_over_sequences(
    variant: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build_encoder(**VARIANTS[variant])
    theirs_TD = loop(encoder, with_fields(Packed.from_lists(ROWS), encoder.config), causal)
    theirs = gradients(encoder, theirs_TD)
    for overhead, layout in ((0, "many rectangles"), (30_000, "one rectangle")):
        monkeypatch.setattr(rectangles_module, "RECTANGLE_COST", overhead)
        packed = with_fields(Packed.from_lists(ROWS), encoder.config)
        ours_TD = encoder(packed, causal=causal)
        torch.testing.assert_close(ours_TD, theirs_TD, rtol=1e-10, atol=1e-10)
        for name, ours in gradients(encoder, ours_TD).items():
            torch.testing.assert_close(
                ours, theirs[name], rtol=1e-10, atol=1e-10, msg=f"{layout}: {name}"
            )


@pytest.mark.parametrize(("variant", "causal"), ENCODINGS)
def test_reading_some_tokens_gives_their_rows_and_the_same_gradients(
    variant: str, causal: bool
) -> None:
    encoder = build_encoder(**VARIANTS[variant])
    packed = with_fields(Packed.from_lists(ROWS), encoder.config)
    read_P = torch.tensor([0, 1, 3, 7, 10, 11, packed.num_tokens - 1])
    ours_PD = encoder(packed, causal=causal, read_P=read_P)
    theirs_PD = encoder(packed, causal=causal)[read_P]
    # The same products in another order of rows: a few units of the last place.
    torch.testing.assert_close(ours_PD, theirs_PD, rtol=1e-12, atol=1e-12)
    ours, theirs = gradients(encoder, ours_PD), gradients(encoder, theirs_PD)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-10, msg=name)


def test_a_mask_has_no_attributes_and_an_item_has_its_own() -> None:
    encoder = build_encoder(attributes=True, layers=1)
    assert encoder.item_table.attributes is not None
    with torch.no_grad():
        encoder.item_table.attributes.attribute_table.weight.fill_(0.0)
        without_TD = encoder(Packed.from_lists([[ITEMS], [3], [5]]), causal=True)
        encoder.item_table.attributes.attribute_table.weight[1] = 2.0
        with_TD = encoder(Packed.from_lists([[ITEMS], [3], [5]]), causal=True)
    changed = (with_TD != without_TD).any(1)
    assert changed.tolist() == [False, False, True]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_nothing_to_encode_gives_no_states_and_zero_gradients(
    rows: list[list[int]], causal: bool
) -> None:
    encoder = build_encoder()
    hidden_TD = encoder(Packed.from_lists(rows), causal=causal)
    assert hidden_TD.shape == (0, 8)
    for grad in gradients(encoder, hidden_TD).values():
        assert not grad.any()


def test_positions_from_the_newest_give_the_newest_item_the_same_row() -> None:
    encoder = build_encoder(positions=LearnedPositions(count_from="newest"))
    encoder(Packed.from_lists([[1], [2, 3, 4]]), causal=True).sum().backward()
    touched = encoder.positions.weight.grad.abs().sum(1) > 0
    assert touched.tolist() == [True] * 3 + [False] * 6


def test_a_segment_is_of_type_zero_unless_said() -> None:
    encoder = build_encoder(segments=2)
    plain = Packed.from_lists([[1, 2]])
    said = replace(plain, fields={"segment": torch.zeros(2, dtype=torch.int64)})
    assert torch.equal(encoder(plain, causal=False), encoder(said, causal=False))


class Falling(Positions):
    """A bias alone, the same for every row: it has the fewest dimensions."""

    def bias(self, rectangle: Rectangle) -> Tensor:
        return -rectangle.distances_BQL[0].double()


@dataclass(frozen=True, kw_only=True)
class FallingConfig(PositionsConfig):
    said: bool = True

    @property
    def biases_scores(self) -> bool:
        return self.said

    def build(self, config: TransformerConfig) -> Positions:
        return Falling()


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_may_have_as_few_dimensions_as_it_needs(causal: bool, dropout: float) -> None:
    encoder = build_encoder(positions=FallingConfig(), attention_dropout=dropout).train()
    assert encoder(Packed.from_lists([[1, 2, 3], [4, 5, 6]]), causal=causal).isfinite().all()


def test_a_bias_that_the_config_does_not_tell_of_is_refused() -> None:
    with pytest.raises(InputError, match=r"Falling has a bias, but biases_scores of .* is False"):
        build_encoder(positions=FallingConfig(said=False))


def test_a_view_longer_than_the_encoder_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"encoder\.length"):
        build_encoder(length=2)(Packed.from_lists([[1, 2, 3]]), causal=True)


def test_no_row_is_dead_at_the_start() -> None:
    encoder = encoder_of(TransformerConfig(**BASE), ITEMS)
    for table in (encoder.item_table, encoder.positions):
        assert (table.weight.norm(dim=1) > 0).all()


def test_every_item_row_and_every_position_row_gets_a_gradient() -> None:
    encoder = build_encoder()
    encoder(Packed.from_lists(ROWS), causal=False).square().sum().backward()
    assert (encoder.item_table.weight.grad.abs().sum(1) > 0).all()
    assert (encoder.positions.weight.grad.abs().sum(1) > 0).all()


def test_weights_start_normal_biases_at_zero_and_norms_at_one() -> None:
    encoder = encoder_of(TransformerConfig(width=64, feed_forward=256, init_std=0.05), 500, seed=3)
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            # The spread of n normal draws has standard error 0.05 / sqrt(2n); n is 3200 or more.
            assert parameter.std().item() == pytest.approx(0.05, abs=0.003), name


def test_a_parameter_starts_the_same_whatever_else_is_built() -> None:
    small = encoder_of(TransformerConfig(**BASE), ITEMS, seed=1).state_dict()
    large = encoder_of(
        TransformerConfig(**{**BASE, "layers": 3}, final_norm=True), ITEMS, 1
    ).state_dict()
    other = encoder_of(TransformerConfig(**BASE), ITEMS, seed=2).state_dict()
    assert all(torch.equal(value, large[name]) for name, value in small.items())
    assert not torch.equal(small["item_table.weight"], other["item_table.weight"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "encoder.length is 0; it must be at least 1"),
        ({"width": -4}, "encoder.width is -4; it must be at least 1"),
        ({"layers": 0}, "encoder.layers is 0; it must be at least 1"),
        ({"heads": 0}, "encoder.heads is 0; it must be at least 1"),
        ({"feed_forward": 0}, "encoder.feed_forward is 0; it must be at least 1"),
        ({"length": 2**20 + 1}, "encoder.length is 1048577; at most 1048576"),
        ({"width": 2 * 10**12}, "encoder.width is 2000000000000; at most 1048576"),
        ({"segments": 2**20 + 1}, "encoder.segments is 1048577; at most 1048576"),
        ({"heads": 3}, "encoder.heads is 3, which does not divide encoder.width 8; choose a"),
        ({"embedding_dropout": 1.0}, "encoder.embedding_dropout is 1.0; it must be in [0, 1)"),
        ({"hidden_dropout": -0.1}, "encoder.hidden_dropout is -0.1; it must be in [0, 1)"),
        ({"attention_dropout": 2.0}, "encoder.attention_dropout is 2.0; it must be in [0, 1)"),
        ({"inner_dropout": 1.5}, "encoder.inner_dropout is 1.5; it must be in [0, 1)"),
        ({"segments": -1}, "encoder.segments is -1; it must be 0 or more"),
        ({"norm_eps": -1e-8}, "encoder.norm_eps is -1e-08; it must be 0 or more"),
        ({"init_std": -1.0}, "encoder.init_std is -1.0; it must be 0 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        TransformerConfig(**{**BASE, **changes})
    assert message in str(caught.value)

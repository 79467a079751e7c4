"""T5's positions: buckets by hand, a table for all layers, and the direction of one side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from research import rectangles as rectangles_module
from research.errors import InputError
from research.model.backbone import check_direction
from research.model.relative_positions import RelativePositions
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from research.rectangles import Rectangles, one_rectangle
from tests.support.synthetic import encoder_of, randomize_parameters

SIZES = TransformerConfig(length=6, width=8, heads=2, layers=1, embedding_norm=False, norm_eps=1e-6)
PACKED = Packed.from_lists([[], [4], [8, 9], [1, 2, 3], [], [5, 6, 7, 8, 9], []])


def buckets(config: RelativePositions, distances: list[int]) -> list[int]:
    found: list[int] = config.buckets_of(torch.tensor(distances)).tolist()
    return found


def test_buckets_of_both_sides_are_those_of_t5s_encoder() -> None:
    older = [0, 1, 7, 8, 11, 12, 15, 16, 31, 32, 63, 64, 127, 128, 5000]
    expected = [0, 1, 7, 8, 8, 9, 9, 10, 11, 12, 13, 14, 15, 15, 15]
    assert buckets(RelativePositions(), older) == expected
    newer = [-distance for distance in older[1:]]
    assert buckets(RelativePositions(), newer) == [16 + bucket for bucket in expected[1:]]


def test_buckets_of_the_older_side_are_those_of_t5s_decoder() -> None:
    config = RelativePositions(sides="older")
    assert buckets(config, [0, 15, 16, 17, 32, 64, 127, 128, 999]) == [
        0, 15, 16, 16, 21, 26, 31, 31, 31,
    ]  # fmt: skip


def test_all_layers_share_one_table_with_a_number_for_each_bucket_and_head() -> None:
    config = replace(SIZES, layers=3, positions=RelativePositions(buckets=10))
    names = [name for name, _ in encoder_of(config, 10).named_parameters() if "position" in name]
    assert names == ["positions.weights"]
    assert encoder_of(config, 10).positions.weights.shape == (10, 2)


def test_a_bias_of_a_side_moves_only_those_that_look_there() -> None:
    encoder = encoder_of(replace(SIZES, positions=RelativePositions(), init_std=0.5), 10).eval()
    before_TD = encoder(PACKED, causal=False)
    with torch.no_grad():
        # The nearest newer key's bucket, of one head.
        encoder.positions.weights[17, 1] += 3.0
        after_TD = encoder(PACKED, causal=False)
        assert torch.equal(encoder(PACKED, causal=True), encoder(PACKED, causal=True))
    moved_T = (after_TD - before_TD).abs().amax(1) > 1e-6
    # Of a sequence's tokens all but the newest have a newer neighbour.
    assert moved_T.tolist() == [False, True, False, True, True, False, *[True] * 4, False]


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("read", [None, [9, 0, 4, 3, 3]], ids=["all", "some more than once"])
def test_the_layout_of_an_accelerator_gives_the_same(
    read: list[int] | None, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unhosted(packed: Packed, read_P: Tensor | None) -> Rectangles:
        return replace(one_rectangle(packed), order=read_P)

    encoder = encoder_of(replace(SIZES, positions=RelativePositions()), 10).double().eval()
    randomize_parameters(encoder)
    read_P = None if read is None else torch.tensor(read)
    ours = encoder(PACKED, causal=causal, read_P=read_P)
    monkeypatch.setattr(rectangles_module, "by_length", unhosted)
    theirs = encoder(replace(PACKED), causal=causal, read_P=read_P)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_tensor_of_an_accelerator_is_read_by_the_host() -> None:
    device = torch.device("meta")
    encoder = encoder_of(replace(SIZES, positions=RelativePositions(), layers=2), 10).to(device)
    packed = Packed.from_lists([[1, 2, 3], [], [4]]).to(device)
    encoder(packed, causal=True, read_P=torch.tensor([3, 0]).to(device)).sum().backward()


def test_low_precision_is_near_fp32() -> None:
    config = replace(SIZES, positions=RelativePositions(), dropout=0.0)
    encoder = encoder_of(config, 10).train()
    randomize_parameters(encoder, std=0.3)
    states = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            states.append(encoder(PACKED, causal=False))
    # Rounded factors, in products of 8 terms: a few of bf16's epsilons of 2^-7.
    error = ((states[1] - states[0]).norm() / states[0].norm()).item()
    assert 0 < error < 4 * 2**-7


def test_without_buckets_for_newer_keys_bidirectional_states_are_refused() -> None:
    config = TransformerConfig(positions=RelativePositions(sides="older"))
    check_direction(config, causal=True, asker="stage train: next")
    with pytest.raises(InputError) as caught:
        check_direction(config, causal=False, asker="stage train: cloze")
    assert str(caught.value) == (
        "stage train: cloze needs bidirectional states, but encoder.positions is "
        "RelativePositions, whose are causal alone; choose another encoder.positions or another "
        "objective"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buckets": 5}, "buckets is 5 with sides 'both'; it must be an even number from 4 to 10"),
        ({"buckets": 2}, "buckets is 2 with sides 'both'; it must be an even number from 4 to 10"),
        ({"buckets": 1, "sides": "older"}, "buckets is 1 with sides 'older'; it must be from 2 to"),
        ({"buckets": 2**21}, "encoder.positions.buckets is 2097152 with"),
        ({"max_distance": 8}, "max_distance is 8; it must be above 8, the distances that have a"),
        ({"sides": "newer"}, "sides"),
    ],
)
def test_buckets_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        RelativePositions(**changes)
    assert message in str(caught.value)

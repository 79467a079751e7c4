"""HSTU's block: its buckets by hand, what times move, and the layout of an accelerator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from research import rectangles as rectangles_module
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.metrics import metrics
from research.model.backbone import check_fields
from research.model.hstu import HSTU, HSTUBlock, time_buckets
from research.model.positions import Positions, PositionsConfig
from research.model.rotary import Rotary
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from research.rectangles import Rectangle, Rectangles, one_rectangle
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.load import load_run
from tests.model.reference_blocks import run_hstu
from tests.support.s3rec_files import numbered_corpus
from tests.support.small_runs import FINETUNE, QUIET, corpus_in, input_error_of
from tests.support.synthetic import encoder_of, randomize_parameters

SIZES = TransformerConfig(length=6, width=8, heads=2, layers=1, embedding_norm=False, norm_eps=1e-6)
# Tokens:    4 | 8 9 | 1 2 3 | 5 6 7 8 9, numbers 0 to 10.
ROWS = [[], [4], [8, 9], [1, 2, 3], [], [5, 6, 7, 8, 9], []]
TIMES = [[], [50], [7, 9_000], [1, 1, 400], [], [3, 90, 90, 7_200, 2_000_000], []]
PACKED = Packed.from_lists(ROWS, {"time": TIMES})


def block_of(block: HSTU) -> Any:
    """One block in float64, no parameter at its start."""
    layer = block.build(SIZES).double().eval()
    randomize_parameters(layer)
    return layer


def states_of(block: HSTU, packed: Packed, causal: bool, **changes: Any) -> Tensor:
    """The states of an encoder of one block, in float64."""
    encoder = encoder_of(replace(SIZES, block=block, init_std=0.5, **changes), 10).double().eval()
    return encoder(packed, causal=causal)


def test_buckets_are_logarithms_of_seconds() -> None:
    times = [0, 1, 2, 3, 60, 86_400, 2**31]
    packed = Packed.from_lists([list(range(7))], {"time": [times]})
    (rectangle,) = packed.rectangles.blocks
    # ln 2 / 0.301 is 2.30, ln 3 3.65, ln 60 13.60, a day 37.76, the last 71.39.
    of_oldest = [0, 0, 2, 3, 13, 37, 71]
    assert time_buckets(rectangle, 128)[0, 0].tolist() == of_oldest
    assert time_buckets(rectangle, 128)[0, :, 0].tolist() == of_oldest
    assert time_buckets(rectangle, 20)[0, 0].tolist() == [0, 0, 2, 3, 13, 20, 20]


@pytest.mark.parametrize("read", [None, [9, 0, 4, 3, 3]], ids=["all", "some more than once"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("divisor", ["length", "visible"])
def test_the_layout_of_an_accelerator_equals_a_loop(
    divisor: Any, causal: bool, read: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unhosted(packed: Packed, read_P: Tensor | None) -> Rectangles:
        return replace(one_rectangle(packed), order=read_P)

    monkeypatch.setattr(rectangles_module, "by_length", unhosted)
    layer: HSTUBlock = block_of(HSTU(times=True, divisor=divisor))
    draws = torch.Generator().manual_seed(3)
    x_TD = torch.randn(11, 8, generator=draws, dtype=torch.float64).requires_grad_()
    read_P = None if read is None else torch.tensor(read)
    ours = layer(x_TD, PACKED, SIZES.positions.build(SIZES), causal=causal, read_P=read_P)
    ends = PACKED.offsets.tolist()
    theirs = torch.cat(
        [
            run_hstu(layer, x_TD[begin:end], causal, times)
            for begin, end, times in zip(ends, ends[1:], TIMES)
            if times
        ]
    )
    theirs = theirs if read is None else theirs[read]
    wanted = [x_TD, *layer.parameters()]
    weights = torch.sin(torch.arange(ours.numel(), dtype=torch.float64)).view_as(ours)
    grads = [torch.autograd.grad((states * weights).sum(), wanted) for states in (ours, theirs)]
    # Sums of at most 11 terms of order 10 in float64, in another order.
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_a_time_moves_its_own_sequence_and_under_causal_no_older_state(causal: bool) -> None:
    before_TD = states_of(HSTU(times=True), PACKED, causal)
    # The fourth of the last sequence's five, tokens 6 to 10.
    times_T = PACKED.fields["time"].clone()
    times_T[9] = 1_900_000
    after_TD = states_of(HSTU(times=True), replace(PACKED, fields={"time": times_T}), causal)
    moved_T = (after_TD - before_TD).abs().amax(1)
    assert not moved_T[:6].any()
    assert (moved_T[9:] > 1e-6).all()
    assert not moved_T[6:9].any() if causal else (moved_T[6:9] > 1e-6).all()


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_only_differences_of_times_count(causal: bool) -> None:
    later = replace(PACKED, fields={"time": PACKED.fields["time"] + 1_700_000_000})
    states = [states_of(HSTU(times=True), packed, causal) for packed in (PACKED, later)]
    assert torch.equal(*states)


def test_without_times_none_is_read() -> None:
    bare = replace(PACKED, fields={})
    assert torch.equal(states_of(HSTU(), bare, True), states_of(HSTU(), PACKED, True))
    assert HSTU().fields == ()
    with pytest.raises(KeyError):
        states_of(HSTU(times=True), bare, True)


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_the_norm_takes_the_divisor_away_again(causal: bool) -> None:
    # All but for its epsilon.
    states = [
        states_of(HSTU(divisor=divisor), PACKED, causal, norm_eps=0.0)
        for divisor in ("length", "visible")
    ]
    torch.testing.assert_close(*states, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("rows", [[], [[]], [[], []], [[1, 2]]])
def test_where_nothing_is_read_every_parameter_has_a_gradient_of_zeros(
    rows: list[list[int]], times: bool
) -> None:
    encoder = encoder_of(replace(SIZES, block=HSTU(times=times)), 10)
    packed = Packed.from_lists(rows, {"time": rows})
    states_PD = encoder(packed, causal=True, read_P=torch.tensor([], dtype=torch.int64))
    assert states_PD.shape == (0, 8)
    states_PD.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("read", [None, [3, 0, 3]])
@pytest.mark.parametrize("divisor", ["length", "visible"])
def test_no_tensor_of_an_accelerator_is_read_by_the_host(
    divisor: Any, read: list[int] | None, causal: bool
) -> None:
    # What is on this device has a shape and no values: reading one raises.
    device = torch.device("meta")
    config = replace(SIZES, block=HSTU(times=True, divisor=divisor), layers=2)
    encoder = encoder_of(config, 10).to(device)
    packed = Packed.from_lists([[1, 2, 3], [], [4]], {"time": [[5, 6, 7], [], [8]]}).to(device)
    read_P = None if read is None else torch.tensor(read).to(device)
    states = encoder(packed, causal=causal, read_P=read_P)
    assert states.shape == (4 if read is None else 3, 8)
    states.sum().backward()


def test_low_precision_with_times_is_near_fp32() -> None:
    encoder = encoder_of(replace(SIZES, block=HSTU(times=True), dropout=0.0), 10).train()
    randomize_parameters(encoder, std=0.3)
    states = []
    for low in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            states.append(encoder(PACKED, causal=True))
    # Rounded factors, in products of 8 terms: a few of bf16's epsilons of 2^-7.
    assert states[1].dtype == torch.float32
    error = ((states[1] - states[0]).norm() / states[0].norm()).item()
    assert 0 < error < 4 * 2**-7


def test_attention_weights_are_dropped_without_a_change_of_their_mean() -> None:
    torch.manual_seed(5)
    copies = 20_000
    config = replace(SIZES, block=HSTU(), dropout=0.0, attention_dropout=0.3)
    layer = HSTU().build(config)
    randomize_parameters(layer)
    mixed: list[Tensor] = []
    layer.mixed_norm.register_forward_pre_hook(lambda module, inputs: mixed.append(inputs[0]))
    positions = config.positions.build(config)
    x_TD = torch.randn(3, 8)
    with torch.no_grad():
        layer.eval()(x_TD, Packed.from_lists([[1, 2, 3]]), positions, causal=True)
        many = Packed.from_lists([[1, 2, 3]] * copies)
        layer.train()(x_TD.repeat(copies, 1), many, positions, causal=True)
    whole, dropped = mixed[0].flatten(), mixed[1].view(copies, -1)
    errors = dropped.std(0) / copies**0.5
    # 24 means at five standard errors each.
    assert ((dropped.mean(0) - whole).abs() <= 5 * errors).all()
    assert (errors > 0).all()


def test_tables_start_like_weights_and_are_decayed_like_them() -> None:
    (layer,) = encoder_of(replace(SIZES, length=500, block=HSTU(times=True)), 10).blocks
    assert layer.position_weights.shape == (999,)
    assert layer.time_weights.shape == (129,)
    # The spread of 999 normal draws has standard error 0.02 / sqrt(1998).
    assert layer.position_weights.std().item() == pytest.approx(0.02, abs=0.002)


def test_rotary_positions_turn_heads_of_the_width_that_the_block_has() -> None:
    config = TransformerConfig(width=6, heads=2, positions=Rotary(), block=HSTU(head_width=4))
    assert encoder_of(config, 5)(Packed.from_lists([[1, 2]]), causal=True).isfinite().all()
    with pytest.raises(InputError, match=r"a head has 3 \(encoder.width 8 over encoder.heads 2, u"):
        encoder_of(replace(SIZES, positions=Rotary(), block=HSTU(head_width=3)), 5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("time_buckets", 0, "encoder.block.time_buckets is 0; it must be at least 1 and at most 1"),
        ("head_width", 0, "encoder.block.head_width is 0; it must be at least 1 and at most 1048"),
        ("head_width", 2**21, "encoder.block.head_width is 2097152; it must be at least 1 and at"),
        ("divisor", "tokens", "divisor"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        HSTU(**{name: value})
    assert message in str(caught.value)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("data") / "first")


def run_of(corpus: Corpus) -> RunConfig:
    encoder = replace(SIZES, block=HSTU(times=True))
    return RunConfig(corpus=str(corpus.folder), encoder=encoder, stages=(FINETUNE,))


def test_a_run_over_times_trains_and_is_loaded_to_rank(corpus: Corpus, tmp_path: Path) -> None:
    summary = execute(run_of(corpus), tmp_path / "run", options=QUIET)
    run_parts, ranker = load_run(tmp_path / "run", "data")
    table = run_parts.tables(ranker, "test")["full"]
    assert metrics(table, ("mrr",))["mrr"] == summary.test["full"]["mrr"]


def test_a_corpus_without_times_is_refused_when_the_run_is_built(tmp_path: Path) -> None:
    config = TransformerConfig(block=HSTU(times=True))
    expected = (
        "encoder is a TransformerConfig that reads the time of every event, which corpus beauty "
        "does not have; prepare it from a source that does or choose another encoder"
    )
    with pytest.raises(InputError) as caught:
        check_fields(config, (), "beauty")
    assert str(caught.value) == expected
    # S3-Rec's files have no times.
    timeless = numbered_corpus(tmp_path / "timeless")
    assert input_error_of(run_of(timeless), tmp_path) == expected.replace("beauty", "timeless")


class Distance(Positions):
    """A bias alone, of the distance."""

    def bias(self, rectangle: Rectangle) -> Tensor:
        return -rectangle.distances_BQL[:, None].double()


@dataclass(frozen=True, kw_only=True)
class DistanceConfig(PositionsConfig):
    """See `Distance`."""

    @property
    def biases_scores(self) -> bool:
        return True

    def build(self, config: TransformerConfig) -> Positions:
        return Distance()


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_a_bias_of_positions_is_added_to_its_own(causal: bool) -> None:
    config = replace(SIZES, block=HSTU(), positions=DistanceConfig())
    layer, plain = (HSTU().build(config).double().eval() for _ in range(2))
    randomize_parameters(layer)
    plain.load_state_dict(layer.state_dict())
    with torch.no_grad():
        # Place length - 1 + d of the table is distance d.
        plain.position_weights -= torch.arange(-5, 6)
    x_TD = torch.randn(11, 8, dtype=torch.float64)
    plain.config = replace(config, positions=SIZES.positions)
    ours = layer(x_TD, PACKED, Distance(), causal=causal)
    theirs = plain(x_TD, PACKED, SIZES.positions.build(SIZES), causal=causal)
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-12)

"""The blocks that mix a row's frequencies, BSARec's and FMLP-Rec's: their filters by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import research.model.fmlp as fmlp_module
from research import rectangles as rectangles_module
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.metrics import metrics
from research.model.attention import mix_rows
from research.model.bsarec import BSARec, BSARecBlock
from research.model.fmlp import FMLP, FMLPBlock
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.transformer_block import BlockConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.packed import Packed
from research.rectangles import Rectangles, one_rectangle
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.load import load_run
from tests.support.small_runs import FINETUNE, QUIET, corpus_in, input_error_of
from tests.support.synthetic import encoder_of, randomize_parameters

SIZES = TransformerConfig(length=6, width=8, heads=2, layers=1, embedding_norm=False, norm_eps=1e-6)
# Tokens:    4 | 8 9 | 1 2 3 | 5 6 7 8 9, numbers 0 to 10.
PACKED = Packed.from_lists([[], [4], [8, 9], [1, 2, 3], [], [5, 6, 7, 8, 9], []])
READ = [None, [9, 0, 4, 3, 3]]
BLOCKS = pytest.mark.parametrize("block", [BSARec(c=3), FMLP()], ids=["BSARec", "FMLP"])


def block_of(block: BlockConfig, **changes: Any) -> Any:
    """One block in float64, no parameter at its start."""
    layer = block.build(replace(SIZES, **changes)).double().eval()
    randomize_parameters(layer)
    return layer


def states_of(layer: Any, x_TD: Tensor, packed: Packed, read: list[int] | None = None) -> Tensor:
    """A block's bidirectional states."""
    read_P = None if read is None else torch.tensor(read)
    positions = SIZES.positions.build(SIZES)
    states: Tensor = layer(x_TD, packed, positions, causal=False, read_P=read_P)
    return states


def inputs(tokens: int = 11) -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randn(tokens, 8, generator=draws, dtype=torch.float64).requires_grad_()


def low_of(c: int, length: int, row: list[float]) -> list[float]:
    """The low frequencies of a row of numbers."""
    layer: BSARecBlock = block_of(BSARec(c=c), length=length)
    x_T1 = torch.tensor(row, dtype=torch.float64)[:, None]
    packed = Packed.from_lists([[1] * len(row)])
    return mix_rows(layer.low_frequencies, x_T1, packed)[:, 0].tolist()


def test_the_constant_alone_is_the_mean_over_all_places() -> None:
    # (1 + 2 + 5) / 4, though there are only three items.
    assert low_of(1, 4, [1.0, 2.0, 5.0]) == pytest.approx([2.0, 2.0, 2.0], abs=1e-12)
    assert low_of(1, 4, [6.0]) == pytest.approx([1.5], abs=1e-12)
    # An even c has as many frequencies as the odd number above it: here, of 4, all but one.
    # What is left of (0, 0, 0, 4) is the alternation (-1, 1, -1, 1).
    assert low_of(2, 4, [4.0]) == pytest.approx([3.0], abs=1e-12)
    assert low_of(3, 4, [0.0, 4.0]) == pytest.approx([1.0, 3.0], abs=1e-12)


@pytest.mark.parametrize(("c", "length"), [(4, 4), (5, 5), (9, 4), (1, 1)])
def test_with_all_frequencies_nothing_is_high(c: int, length: int) -> None:
    assert low_of(c, length, [3.0]) == pytest.approx([3.0], abs=1e-12)


def filtered(weights: list[tuple[float, float]], row: list[float], length: int) -> list[float]:
    """A row of numbers under FMLP's filter of these real and imaginary parts."""
    layer: FMLPBlock = block_of(FMLP(), length=length, width=1, heads=1)
    with torch.no_grad():
        layer.filter_weights.copy_(torch.tensor(weights)[:, None])
    x_BLD = torch.tensor(row, dtype=torch.float64)[None, :, None]
    found = [each(x_BLD)[0, :, 0].tolist() for each in (layer.convolved, layer.filtered)]
    assert found[0] == pytest.approx(found[1], abs=1e-12)
    return found[0]


def test_a_filter_of_ones_changes_nothing_and_one_of_the_constant_is_the_mean() -> None:
    row = [1.0, 2.0, 5.0]
    assert filtered([(1, 0)] * 3, row, 4) == pytest.approx(row, abs=1e-12)
    assert filtered([(1, 0), (0, 0), (0, 0)], row, 4) == pytest.approx([2.0] * 3, abs=1e-12)
    assert filtered([(1, 0), (0, 0)], row, 3) == pytest.approx([8 / 3] * 3, abs=1e-12)


def test_a_filter_of_turned_frequencies_shifts_the_row_in_a_circle() -> None:
    # e^(-2 pi i k / 4) is 1, -i, -1: each item one place newer, and the newest where the oldest is.
    shift: list[tuple[float, float]] = [(1, 0), (0, -1), (-1, 0)]
    assert filtered(shift, [1.0, 2.0, 5.0, 7.0], 4) == pytest.approx([7, 1, 2, 5], abs=1e-12)
    # With room before the row, its oldest item gets the zero there.
    assert filtered(shift, [1.0, 2.0], 4) == pytest.approx([0.0, 1.0], abs=1e-12)


@pytest.mark.parametrize("read", READ, ids=["all", "some more than once"])
@pytest.mark.parametrize("length", [6, 7])
def test_long_rows_are_filtered_by_fourier_transforms_to_the_same_result(
    length: int, read: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x_TD = block_of(FMLP(), length=length), inputs()
    results = []
    for most in (64, 0):
        monkeypatch.setattr(fmlp_module, "MOST_CONVOLVED", most)
        states = states_of(layer, x_TD, PACKED, read)
        weights = torch.sin(torch.arange(states.numel(), dtype=torch.float64)).view_as(states)
        grads = torch.autograd.grad((states * weights).sum(), [x_TD, *layer.parameters()])
        results.append([states, *grads])
    for one, other in zip(*results, strict=True):
        # Sums of some ten terms of order 1, in another order.
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@BLOCKS
@pytest.mark.parametrize("read", READ, ids=["all", "some more than once"])
def test_the_layout_of_an_accelerator_gives_the_same(
    block: BlockConfig, read: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unhosted(packed: Packed, read_P: Tensor | None) -> Rectangles:
        return replace(one_rectangle(packed), order=read_P)

    layer, x_TD = block_of(block), inputs()
    results = []
    for patched in (False, True):
        if patched:
            monkeypatch.setattr(rectangles_module, "by_length", unhosted)
        states = states_of(layer, x_TD, replace(PACKED), read)
        weights = torch.sin(torch.arange(states.numel(), dtype=torch.float64)).view_as(states)
        grads = torch.autograd.grad((states * weights).sum(), [x_TD, *layer.parameters()])
        results.append([states, *grads])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@BLOCKS
@pytest.mark.parametrize("read", [None, [3, 0, 3]])
def test_no_tensor_of_an_accelerator_is_read_by_the_host(
    block: BlockConfig, read: list[int] | None
) -> None:
    # What is on this device has a shape and no values: reading one raises.
    device = torch.device("meta")
    encoder = encoder_of(replace(SIZES, block=block, layers=2), 10).to(device)
    packed = Packed.from_lists([[1, 2, 3], [], [4]]).to(device)
    read_P = None if read is None else torch.tensor(read).to(device)
    states = encoder(packed, causal=False, read_P=read_P)
    assert states.shape == (4 if read is None else 3, 8)
    states.sum().backward()


@BLOCKS
def test_a_row_is_encoded_alike_whatever_is_packed_beside_it(block: BlockConfig) -> None:
    layer, x_TD = block_of(block), inputs()
    alone_LD = states_of(layer, x_TD[3:6], Packed.from_lists([[1, 2, 3]]))
    torch.testing.assert_close(
        states_of(layer, x_TD, PACKED)[3:6], alone_LD, rtol=1e-12, atol=1e-12
    )


def test_attention_in_bsarec_is_causal_and_frequencies_are_not() -> None:
    packed = Packed.from_lists([[1, 2, 3]])
    x_TD = inputs(3).detach()
    other_TD = torch.cat([x_TD[:2], x_TD[2:] * 2.0])
    moved = []
    for alpha in (0.0, 1.0):
        layer = block_of(BSARec(alpha=alpha, c=1))
        states = [states_of(layer, each_TD, packed) for each_TD in (x_TD, other_TD)]
        moved.append(((states[1] - states[0]).abs().amax(1) > 1e-9).tolist())
    assert moved == [[False, False, True], [True, True, True]]


def test_filters_start_as_in_the_authors_code() -> None:
    sizes = TransformerConfig(length=100, width=2000, feed_forward=1, layers=1, heads=1)
    (bsarec,) = encoder_of(replace(sizes, block=BSARec()), 1).blocks
    # The spread of 2000 normal draws has standard error 1 / sqrt(4000).
    assert bsarec.sqrt_beta.std().item() == pytest.approx(1.0, abs=0.08)
    (fmlp,) = encoder_of(replace(sizes, block=FMLP()), 1).blocks
    assert fmlp.filter_weights.shape == (51, 2000, 2)
    assert fmlp.filter_weights.std().item() == pytest.approx(0.02, abs=0.001)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 1.5}, "encoder.block.alpha is 1.5; it must be from 0 to 1"),
        ({"c": 0}, "encoder.block.c is 0; it must be at least 1 and at most 1048576"),
        ({"c": 2.5}, "c"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        BSARec(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("positions", [Rotary(), RelativePositions()])
def test_positions_that_act_on_attention_are_refused_where_there_is_none(positions: Any) -> None:
    with pytest.raises(InputError) as caught:
        encoder_of(replace(SIZES, block=FMLP(), positions=positions), 10)
    assert str(caught.value) == (
        f"encoder.positions is {type(positions).__name__}, which acts on attention, but "
        "encoder.block FMLP has none; choose LearnedPositions"
    )


def test_a_block_and_positions_without_a_direction_in_common_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        replace(SIZES, block=BSARec(), positions=RelativePositions(sides="older"))
    assert str(caught.value) == (
        "encoder.block BSARec has bidirectional states alone, encoder.positions "
        "RelativePositions causal ones alone; choose another block or other positions"
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("data") / "first")


@BLOCKS
def test_a_run_with_a_cloze_stage_trains_and_is_loaded_to_rank(
    block: BlockConfig, corpus: Corpus, tmp_path: Path
) -> None:
    encoder = replace(SIZES, block=block)
    stage = replace(FINETUNE, objectives={"cloze": ClozeConfig()})
    config = RunConfig(corpus=str(corpus.folder), encoder=encoder, stages=(stage,))
    summary = execute(config, tmp_path / "run", options=QUIET)
    run_parts, ranker = load_run(tmp_path / "run", "data")
    assert summary.cost.parameters == encoder.num_parameters(10)
    table = run_parts.tables(ranker, "test")["full"]
    assert metrics(table, ("mrr",))["mrr"] == summary.test["full"]["mrr"]


@BLOCKS
def test_an_objective_that_needs_causal_states_is_refused(
    block: BlockConfig, corpus: Corpus, tmp_path: Path
) -> None:
    encoder = replace(SIZES, block=block)
    config = RunConfig(corpus=str(corpus.folder), encoder=encoder, stages=(FINETUNE,))
    assert input_error_of(config, tmp_path) == (
        "stage finetune: objective next needs causal states, but encoder.block is "
        f"{type(block).__name__}, whose are bidirectional alone; choose another encoder.block or "
        "another objective"
    )

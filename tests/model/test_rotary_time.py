"""Rotary positions in time: only times between events count, and times must be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from research.errors import InputError
from research.evaluation.metrics import metrics
from research.model.backbone import check_fields
from research.model.rotary_time import RotaryTime
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.runs.load import load_run
from tests.support.s3rec_files import numbered_corpus
from tests.support.small_runs import FINETUNE, QUIET, corpus_in, input_error_of
from tests.support.synthetic import encoder_of

SIZES = TransformerConfig(
    length=6, width=8, heads=2, layers=1, embedding_norm=False, norm_eps=1e-6, init_std=0.5
)
ROWS = [[], [4], [8, 9], [1, 2, 3], [], [5, 6, 7, 8, 9], []]
DAY = 86_400
TIMES = [[], [50], [7, 9_000], [1, 1, 4 * DAY], [], [3, 90, 90, 2 * DAY, 20 * DAY], []]
PACKED = Packed.from_lists(ROWS, {"time": TIMES})
ANGLES = pytest.mark.parametrize("angles", ["split", "sum", "time"])


def states_of(positions: RotaryTime, packed: Packed, causal: bool) -> Tensor:
    """The states of an encoder of one block, in float64."""
    encoder = encoder_of(replace(SIZES, positions=positions), 10).double().eval()
    states: Tensor = encoder(packed, causal=causal)
    return states


def test_a_unit_of_time_turns_a_pair_like_a_place() -> None:
    config = TransformerConfig(width=4, heads=1, positions=RotaryTime(unit_seconds=10.0))
    module = config.positions.build(config)
    qkv_T3HK = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(2, 3, 1, 4)
    packed = Packed.from_lists([[1, 2]], {"time": [[1_000_000_000, 1_000_000_005]]})
    turned_T3HK = module.apply_positions(qkv_T3HK, packed)
    # Pair 0 (numbers 0 and 2) by one place, a radian; pair 1 (1 and 3) by half a unit.
    expected = torch.tensor([0.5403023, 0.8775826, 0.8414710, 0.4794255])
    torch.testing.assert_close(turned_T3HK[1, :2, 0], expected.expand(2, 4), rtol=0.0, atol=1e-6)
    assert torch.equal(turned_T3HK[0], qkv_T3HK[0])
    assert torch.equal(turned_T3HK[1, 2], qkv_T3HK[1, 2])


@ANGLES
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_only_differences_of_times_count(angles: Any, causal: bool) -> None:
    later = replace(PACKED, fields={"time": PACKED.fields["time"] + 1_700_000_000})
    states = [states_of(RotaryTime(angles=angles), packed, causal) for packed in (PACKED, later)]
    assert torch.equal(*states)


@ANGLES
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_a_time_moves_its_own_sequence_and_under_causal_no_older_state(
    angles: Any, causal: bool
) -> None:
    before_TD = states_of(RotaryTime(angles=angles), PACKED, causal)
    # The fourth of the last sequence's five, tokens 6 to 10.
    times_T = PACKED.fields["time"].clone()
    times_T[9] = 9 * DAY
    after_TD = states_of(
        RotaryTime(angles=angles), replace(PACKED, fields={"time": times_T}), causal
    )
    moved_T = (after_TD - before_TD).abs().amax(1)
    assert not moved_T[:6].any()
    assert (moved_T[9:] > 1e-6).all()
    assert not moved_T[6:9].any() if causal else (moved_T[6:9] > 1e-6).all()


def test_times_alone_do_not_tell_the_order_of_events_at_the_same_time() -> None:
    rows = [Packed.from_lists([items], {"time": [[0, 5, 5]]}) for items in ([1, 2, 3], [1, 3, 2])]
    moved = {
        angles: states_of(RotaryTime(angles=angles), rows[0], False)[0]
        - states_of(RotaryTime(angles=angles), rows[1], False)[0]
        for angles in ("time", "split", "sum")
    }
    assert moved["time"].abs().max() < 1e-12
    assert moved["split"].abs().max() > 1e-6
    assert moved["sum"].abs().max() > 1e-6


def test_no_tensor_of_an_accelerator_is_read_by_the_host() -> None:
    device = torch.device("meta")
    encoder = encoder_of(replace(SIZES, positions=RotaryTime(), layers=2), 10).to(device)
    packed = Packed.from_lists([[1, 2, 3], [], [4]], {"time": [[5, 6, 7], [], [8]]}).to(device)
    encoder(packed, causal=True, read_P=torch.tensor([3, 0]).to(device)).sum().backward()


@pytest.mark.parametrize("rows", [[], [[]]])
def test_nothing_to_encode_gives_no_states(rows: list[list[int]]) -> None:
    states = states_of(RotaryTime(), Packed.from_lists(rows, {"time": rows}), True)
    assert states.shape == (0, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit_seconds": 0.0}, "positions.unit_seconds is 0.0; it must be above 0"),
        ({"base": 1.0}, "positions.base is 1.0; it must be above 1"),
        ({"angles": "log"}, "angles"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        RotaryTime(**changes)
    assert message in str(caught.value)


def test_heads_with_too_few_pairs_are_refused() -> None:
    with pytest.raises(InputError, match=r"angles is 'split', but a head has 2 numbers, a single"):
        encoder_of(TransformerConfig(width=8, heads=4, positions=RotaryTime()), 5)
    with pytest.raises(InputError, match=r"encoder.positions is RotaryTime, which turns pairs of"):
        encoder_of(TransformerConfig(width=6, heads=2, positions=RotaryTime()), 5)


def test_a_run_over_times_trains_and_is_loaded_to_rank(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "first")
    encoder = replace(SIZES, positions=RotaryTime(unit_seconds=2.0))
    config = RunConfig(corpus=str(corpus.folder), encoder=encoder, stages=(FINETUNE,))
    summary = execute(config, tmp_path / "run", options=QUIET)
    run_parts, ranker = load_run(tmp_path / "run", "data")
    table = run_parts.tables(ranker, "test")["full"]
    assert metrics(table, ("mrr",))["mrr"] == summary.test["full"]["mrr"]


def test_a_corpus_without_times_is_refused_when_the_run_is_built(tmp_path: Path) -> None:
    encoder = replace(SIZES, positions=RotaryTime())
    expected = (
        "encoder is a TransformerConfig that reads the time of every event, which corpus timeless "
        "does not have; prepare it from a source that does or choose another encoder"
    )
    with pytest.raises(InputError) as caught:
        check_fields(encoder, (), "timeless")
    assert str(caught.value) == expected
    # S3-Rec's files have no times.
    timeless = numbered_corpus(tmp_path / "timeless")
    config = RunConfig(corpus=str(timeless.folder), encoder=encoder, stages=(FINETUNE,))
    assert input_error_of(config, tmp_path) == expected

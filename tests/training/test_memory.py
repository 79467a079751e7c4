"""Memory that ran out: what counts as that, and what is advised."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from research.distributed.failures import is_out_of_memory
from research.model.backbone import BackboneConfig
from research.model.bsarec import BSARec
from research.model.caser import CaserConfig
from research.model.fmlp import FMLP
from research.model.gru import GRUConfig
from research.model.hstu import HSTU
from research.model.ligr import LiGR
from research.model.relative_positions import RelativePositions
from research.model.rotary_time import RotaryTime
from research.model.transformer_block import BlockConfig, PostNorm
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from research.training.memory_advice import Peak, StepSize, advice, largest_parts
from tests.support.synthetic import encoder_of

ENCODER = TransformerConfig(length=50, width=64, layers=2, heads=2, feed_forward=256)


def size_of(rows: int, tokens: int, longest: int, *, items: int, negatives: int = 0) -> StepSize:
    return StepSize(
        rows=rows, tokens=tokens, longest=longest, width=64, items=items, negatives=negatives,
        parameters=ENCODER.num_parameters(items),
        activations=ENCODER.activation_bytes(tokens, rows, longest),
    )  # fmt: skip


STEP = size_of(256, 12_800, 50, items=3_416, negatives=256)
ONE_LONG_ROW = size_of(1, 4_000, 4_000, items=3_416)


def test_what_torch_numpy_and_python_say_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 50)
    for error in (
        refused.value,
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        assert is_out_of_memory(error), error


def test_other_errors_are_no_lack_of_memory() -> None:
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError("shared memory is not supported"),
        OSError("out of memory"),
        KeyboardInterrupt(),
    ):
        assert not is_out_of_memory(error), error


@pytest.mark.parametrize(
    ("averages", "remedy"),
    [(1, "encoder.width 32 instead of 64"), (6, "a smaller averaging.last")],
)
def test_averages_of_weights_are_told_and_how_to_lower_them(averages: int, remedy: str) -> None:
    size = replace(size_of(256, 12_800, 50, items=300_000), averages=averages)
    (part,) = [part for part in largest_parts(size) if part.name == "averages of weights"]
    assert (part.bytes, part.remedies) == (averages * 4 * size.parameters, (remedy,))
    assert remedy in advice(size, MemoryError("out"))


def test_dropout_of_the_item_table_is_told_and_how_to_lower_it() -> None:
    size = replace(size_of(256, 12_800, 50, items=300_000), item_dropout=True)
    (part,) = [part for part in largest_parts(size) if part.name == "the item table's dropout"]
    assert part.bytes == 3 * 4 * 300_000 * 64
    assert "items.dropout 0" in advice(size, MemoryError("out"))


def test_the_largest_tensors_come_first() -> None:
    # 4 x 2 x (12800 x (8 x 64 + 2 x 256) + 256 x 50 x 3 x 64), 4 x 12800 x 257 x 3,
    # 16 x 321,984 parameters and 256 x 2 x 2 x 50^2.
    assert [(part.name, part.bytes) for part in largest_parts(STEP)] == [
        ("hidden states", 124_518_400),
        ("scores of candidates", 39_475_200),
        ("weights and their optimizer", 5_151_744),
        ("dropped attention weights", 2_560_000),
    ]


def test_tokens_that_are_compared_with_one_another_are_told() -> None:
    (first, *_) = largest_parts(replace(STEP, compared=100_000))
    assert first.name == "scores of a step's tokens with one another"
    # Four floats a pair.
    assert first.bytes == 16 * STEP.tokens * 100_000


@pytest.mark.parametrize(
    ("block", "changes"),
    [
        (PostNorm(), {}),
        (LiGR(), {}),
        (LiGR(norm="rms"), {"dropout": 0.0}),
        (LiGR(), {"dropout": 0.2, "inner_dropout": 0.2}),
        (LiGR(swiglu=False), {}),
        (HSTU(), {}),
        (HSTU(), {"attention_dropout": 0.0}),
        (HSTU(times=True, norm="rms"), {"dropout": 0.0}),
        (HSTU(times=True, norm="layer", head_width=4), {"dropout": 0.2}),
        (BSARec(), {}),
        (BSARec(c=9), {"dropout": 0.0}),
        (BSARec(), {"dropout": 0.2, "inner_dropout": 0.2}),
        (FMLP(), {}),
        (FMLP(), {"dropout": 0.0}),
        (PostNorm(), {"positions": RelativePositions()}),
        (PostNorm(), {"positions": RelativePositions(), "dropout": 0.0}),
        (PostNorm(), {"positions": RotaryTime()}),
    ],
    ids=str,
)
def test_activations_are_within_a_fifth_of_what_torch_keeps(
    block: BlockConfig, changes: dict[str, Any]
) -> None:
    assert 0.8 < estimated_share(replace(ENCODER, block=block, **changes)) < 1.2


@pytest.mark.parametrize(
    "sizes",
    [
        GRUConfig(),
        GRUConfig(layers=3, hidden_dropout=0.2),
        GRUConfig(width=100, hidden_width=100, projection=False, embedding_dropout=0.0),
    ],
    ids=["one layer", "three", "no projection"],
)
def test_recurrent_states_are_within_a_fifth_of_what_torch_keeps(sizes: GRUConfig) -> None:
    assert 0.8 < estimated_share(sizes) < 1.2


@pytest.mark.parametrize(
    "sizes",
    [CaserConfig(), CaserConfig(dropout=0.0, vertical=8), CaserConfig(newest=10, width=64)],
    ids=["as by default", "no dropout", "ten items"],
)
def test_convolutions_are_within_a_fifth_of_what_torch_keeps(sizes: CaserConfig) -> None:
    assert 0.8 < estimated_share(sizes) < 1.2


def estimated_share(sizes: BackboneConfig) -> float:
    """What the config estimates of 8 rows of 50 tokens, over what torch keeps."""
    encoder = encoder_of(sizes, 10).train()
    parameters = {each.untyped_storage().data_ptr() for each in encoder.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    rows = [[1] * 50] * 8
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(Packed.from_lists(rows, {"time": rows}), causal="causal" in sizes.directions)
    estimate = sum(sizes.activation_bytes(400, 8, 50).values())
    held = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return estimate / held


def test_an_accelerator_keeps_empty_slots_beside_recurrent_states() -> None:
    # 4 x (8 x 128 + 3 x 64) bytes a slot, of 100 tokens and of 8 x 50 - 100 empty ones.
    assert GRUConfig().activation_bytes(100, 8, 50) == {
        "recurrent states": 486_400,
        "empty slots of an accelerator": 1_459_200,
    }


def test_advice_without_figures_halves_the_step() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has")
    assert advice(STEP, error) == (
        "a step of 256 rows, 12,800 tokens (the longest row 50) did not fit into memory: CUDA out "
        "of memory. Tried to allocate 2.00 GiB; the largest tensors, by estimate: hidden states "
        "125 MB, scores of candidates 40 MB, weights and their optimizer 6 MB; "
        "batches.micro_batches 2 instead of 1 does not change the results (nor does another "
        "process); these change the results: a smaller batches.sequences_per_batch or "
        "tokens_per_batch, encoder.length 25 instead of 50, encoder.width 32 instead of 64, "
        "loss.number 64 instead of 256"
    )


def test_advice_with_the_peak_of_a_smaller_step_says_how_many_pieces_fit() -> None:
    # 6 GB x 12800 / 3200 = 24 GB, 3.75 times four fifths of 8 GB.
    known = Peak(available=8_000_000_000, used=6_000_000_000, tokens=3_200)
    said = advice(STEP, MemoryError(), known)
    assert (
        "fit into memory: MemoryError; 8.0 GB are available; 3,200 tokens fitted, with 6.0 GB"
        in said
    )
    assert "batches.micro_batches 4 instead of 1 does not change the results" in said


def test_a_step_whose_states_are_compared_is_not_cut() -> None:
    size = replace(size_of(256, 12_800, 50, items=3_416), can_be_cut=False)
    assert "micro_batches" not in advice(size, MemoryError("out"))


def test_a_single_row_is_not_cut_further() -> None:
    assert advice(ONE_LONG_ROW, MemoryError("no")) == (
        "a step of 1 row, 4,000 tokens (the longest row 4,000) did not fit into memory: no; the "
        "largest tensors, by estimate: dropped attention weights 64 MB, hidden states 39 MB, "
        "weights and their optimizer 6 MB; these change the results: encoder.length 2000 instead "
        "of 4000, encoder.width 32 instead of 64"
    )

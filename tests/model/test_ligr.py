"""LiGR's gates: shut they let the input through, open they leave a pre-norm block."""

from __future__ import annotations

import pytest
import torch

from research.errors import InputError
from research.model.ligr import LiGR, LiGRBlock
from research.model.transformer_block import BlockConfig, PreNorm
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from tests.support.synthetic import encoder_of

PACKED = Packed.from_lists([[1, 2, 3], [], [4]])


def states(block: BlockConfig, gates: float | None = None) -> torch.Tensor:
    """Those of one layer whose weights depend on their names alone, with gates' inputs fixed."""
    config = TransformerConfig(
        length=5,
        width=8,
        layers=1,
        feed_forward=12,
        embedding_norm=False,
        block=block,
        init_std=0.5,
    )
    encoder = encoder_of(config, 10).double().eval()
    (layer,) = encoder.blocks
    if gates is not None:
        assert isinstance(layer, LiGRBlock)
        with torch.no_grad():
            for gate in (layer.attention_gate, layer.feed_forward_gate):
                gate.weight.zero_()
                gate.bias.fill_(gates)
    return encoder(PACKED, causal=True)


def test_shut_gates_let_the_input_through() -> None:
    sizes = TransformerConfig(length=5, width=8, layers=1, embedding_norm=False, init_std=0.5)
    encoder = encoder_of(sizes, 10).double().eval()
    # sigmoid(-100) is 4e-44.
    assert torch.equal(states(LiGR(), gates=-100.0), encoder._embed(PACKED))


def test_open_gates_leave_a_pre_norm_block() -> None:
    # sigmoid(100) is 1 in float64; both blocks draw weights by the same names.
    torch.testing.assert_close(
        states(LiGR(swiglu=False), gates=100.0), states(PreNorm()), rtol=0.0, atol=1e-12
    )
    assert not torch.allclose(states(LiGR(swiglu=False)), states(PreNorm()))


def test_the_gates_of_a_new_block_are_half_open() -> None:
    config = TransformerConfig(width=8, heads=2, layers=1, block=LiGR(), init_std=0.0)
    (block,) = encoder_of(config, 10).blocks
    assert torch.sigmoid(block.attention_gate(torch.ones(2, 8))).unique().tolist() == [0.5]


def test_a_block_learns_gates_norms_and_a_wide_inner_matrix() -> None:
    encoder = encoder_of(TransformerConfig(block=LiGR(norm="rms"), layers=1), 10)
    names = [name for name, _ in encoder.named_parameters() if "blocks" in name]
    assert names == [
        f"blocks.0.{name}"
        for name in (
            "qkv.weight", "qkv.bias", "output.weight", "output.bias", "attention_norm.weight",
            "attention_gate.weight", "attention_gate.bias", "feed_forward_norm.weight",
            "feed_forward_gate.weight", "feed_forward_gate.bias", "inner.weight", "outer.weight",
        )
    ]  # fmt: skip
    assert (encoder.blocks[0].attention_norm.weight == 1).all()
    assert encoder.blocks[0].inner.weight.shape == (512, 64)


def test_a_norm_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="norm"):
        LiGR(norm="batch")  # type: ignore[arg-type]

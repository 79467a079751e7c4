"""A padded batch gives the states of the packed one, for every backbone that is traceable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from research.model.backbone import BackboneConfig
from research.model.bsarec import BSARec
from research.model.fmlp import FMLP
from research.model.hstu import HSTU
from research.model.item_table import ItemTable
from research.model.ligr import LiGR
from research.model.padded import Padded
from research.model.positions import LearnedPositions
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.transformer_block import PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.packed import Packed

NUM_ITEMS = 11
SMALL = TransformerConfig(length=7, width=8, layers=2, heads=2, feed_forward=12, norm_eps=1e-6)
ENCODERS: dict[str, BackboneConfig] = {
    "post-norm, from the newest": SMALL,
    "pre-norm, from the oldest": replace(
        SMALL, block=PreNorm(), positions=LearnedPositions(count_from="oldest"), final_norm=True
    ),
    "SASRec": replace(
        SMALL, block=QueryNorm(), output_projection=False, embedding_scale=True, activation="relu"
    ),
    "LiGR, rotary": replace(SMALL, block=LiGR(), positions=Rotary(), embedding_norm=False),
    "HSTU": replace(SMALL, block=HSTU(norm="layer")),
    "HSTU, by visible keys": replace(SMALL, block=HSTU(divisor="visible"), segments=2),
    "BSARec": replace(SMALL, block=BSARec(c=3)),
    "FMLP": replace(SMALL, block=FMLP()),
    "relative positions": replace(SMALL, positions=RelativePositions(buckets=8, max_distance=6)),
}
# Of one item, of an odd number, of all that the encoder reads.
ROWS = [[4], [1, 3, 5], [10, 0, 2, 2, 7, 9, 1]]


@pytest.mark.parametrize(
    ("name", "causal"),
    [(name, each == "causal") for name, config in ENCODERS.items() for each in config.directions],
)
@pytest.mark.parametrize("filler", [0, 9])
def test_padded_states_are_those_of_the_packed_batch(name: str, causal: bool, filler: int) -> None:
    config = ENCODERS[name]
    table = ItemTable(NUM_ITEMS, config.width, init_std=0.3, seed=1)
    encoder = replace(config, init_std=0.3).build(table, 2).eval()
    assert encoder.traceable
    table_BL = torch.full((len(ROWS), 7), filler)
    for row, items in enumerate(ROWS):
        table_BL[row, : len(items)] = torch.tensor(items)
    padded = Padded.of_table(table_BL, torch.tensor([len(items) for items in ROWS]))
    packed = Packed.from_lists(ROWS)
    with torch.no_grad():
        expected_TD = encoder(packed, causal=causal)
        found_BLD = encoder(padded, causal=causal).unflatten(0, table_BL.shape)
    for row, items in enumerate(ROWS):
        wanted_LD = expected_TD[packed.offsets[row] : packed.offsets[row + 1]]
        # Float32 sums of a few terms in another order.
        torch.testing.assert_close(found_BLD[row, : len(items)], wanted_LD, rtol=0.0, atol=2e-6)


def test_the_newest_token_of_a_padded_row_is_found() -> None:
    padded = Padded.of_table(torch.zeros(3, 4).long(), torch.tensor([1, 4, 2]))
    assert padded.last_S.tolist() == [0, 7, 9]
    assert padded.owner_T.tolist() == [0] * 4 + [1] * 4 + [2] * 4

"""Initial weights are drawn by (seed, purpose, name), all three written down: moves change none.

The values were computed by commit 323d726, whose modules and attributes had other names; those of
later modules by the commits that brought them.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import baselines.bert4rec
import baselines.caser
import baselines.gru4rec
import baselines.s3rec
import baselines.sasrec
import research.model.initialization as initial
from research.model.backbone import BackboneConfig
from research.model.bsarec import BSARec
from research.model.caser import CaserConfig
from research.model.fmlp import FMLP
from research.model.gru import GRUConfig
from research.model.relative_positions import RelativePositions
from research.model.transformer_config import TransformerConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.head import HeadConfig
from research.objectives.next_item import NextItemConfig
from research.randomness import generator
from research.runs.config import RunConfig
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel
from tests.support.synthetic import catalogue_of

OWN_TABLE = RunConfig(
    stages=(StageConfig(objectives={"next": NextItemConfig(head=HeadConfig(table="own"))}),)
)
CLOZE = (StageConfig(objectives={"cloze": ClozeConfig()}),)
RUNS = {
    "sasrec": baselines.sasrec.original,
    "a table of its own": lambda: OWN_TABLE,
    "bert4rec": baselines.bert4rec.original,
    "bert4rec, port": baselines.bert4rec.port,
    "s3rec": baselines.s3rec.published,
    "gru4rec": baselines.gru4rec.full_softmax,
    "caser": baselines.caser.full_softmax,
    "BSARec's block, relative positions": lambda: RunConfig(
        encoder=TransformerConfig(block=BSARec(), positions=RelativePositions()), stages=CLOZE
    ),
    "FMLP-Rec's block": lambda: RunConfig(encoder=TransformerConfig(block=FMLP()), stages=CLOZE),
}
# By parameter: (purpose, name) of its draw, its first value and its sum at the sizes below.
DRAWN: dict[str, tuple[tuple[str, str], float, float]] = {
    "encoder.item_table.weight": (("encoder", "item_table.weight"), 0.0377049334, 0.0432389439),
    "encoder.positions.weight": (("encoder", "position_table.weight"), 0.00546672428, 0.0204413161),
    "encoder.positions.weights": (("encoder", "positions.weights"), 0.0218006298, 0.0216556807),
    "encoder.blocks.0.sqrt_beta": (("encoder", "blocks.0.sqrt_beta"), -0.526273429, -5.13166171),
    "encoder.blocks.0.filter_weights": (
        ("encoder", "blocks.0.filter_weights"), 0.00745836878, -0.0164747339,
    ),
    "encoder.segment_table.weight": (
        ("encoder", "segment_table.weight"), -0.00827490818, -0.0517365403,
    ),
    "encoder.blocks.0.qkv.weight": (("encoder", "blocks.0.qkv.weight"), 0.00574456062, 0.741027495),
    "encoder.blocks.0.output.weight": (
        ("encoder", "blocks.0.output.weight"), -0.025614066, 0.0872855901,
    ),
    "encoder.blocks.0.inner.weight": (
        ("encoder", "blocks.0.inner.weight"), -0.0172681194, 0.147200724,
    ),
    "encoder.blocks.0.outer.weight": (
        ("encoder", "blocks.0.outer.weight"), 0.0237651635, 0.0507483302,
    ),
    "encoder.layers.0.weight_ih_l0": (
        ("encoder", "layers.0.weight_ih_l0"), -0.0255122185, -0.190938061,
    ),
    "encoder.layers.0.weight_hh_l0": (
        ("encoder", "layers.0.weight_hh_l0"), 0.00274016103, 0.199616429,
    ),
    "encoder.horizontal.0.weight": (
        ("encoder", "horizontal.0.weight"), -0.00590403378, -0.0293240208,
    ),
    "encoder.horizontal.1.weight": (
        ("encoder", "horizontal.1.weight"), -0.0156363249, -0.0266548951,
    ),
    "encoder.vertical.weight": (("encoder", "vertical.weight"), -0.0177148823, -0.000707664993),
    "encoder.dense.weight": (("encoder", "dense.weight"), -0.0253016949, -0.16578336),
    "encoder.projection.weight": (("encoder", "projection.weight"), -0.00430656271, 0.265363404),
    "shared.attributes.attribute_table.weight": (
        ("attributes", "attribute_table.weight"), -0.00463111978, -0.168632314,
    ),
    "shared.zero.row": (("zero attribute", "row"), -0.0139336986, -0.064063024),
    "objectives.cloze.head.dense.weight": (
        ("cloze head", "dense.weight"), -0.0400632285, -0.216364048,
    ),
    "objectives.cloze.head.item_table.weight": (
        ("cloze head", "item_table.weight"), -0.0248341039, -0.109730537,
    ),
    "objectives.next.head.item_table.weight": (
        ("next head", "item_table.weight"), 0.00540708285, -0.0774127471,
    ),
    "objectives.next.head.padding_row": (
        ("next head", "padding_row"), -0.0154196657, 0.00518879085,
    ),
    "objectives.aap.head.dense.weight": (("aap head", "weight"), 0.00492421119, 0.0931951208),
    "objectives.mip.head.dense.weight": (("mip head", "dense.weight"), -0.0134004848, 0.0618529961),
    "objectives.map.head.dense.weight": (("map head", "weight"), 0.00292431866, -0.165177381),
    "objectives.sp.dense.weight": (("sp head", "dense.weight"), 0.0295090284, 0.0631957622),
}  # fmt: skip


def small(encoder: BackboneConfig) -> BackboneConfig:
    """The encoder with one layer of width 8, and 6 inside."""
    if isinstance(encoder, GRUConfig):
        return replace(encoder, length=4, width=8, hidden_width=6, layers=1)
    if isinstance(encoder, CaserConfig):
        return replace(encoder, length=4, width=8, newest=2, horizontal=3, vertical=2)
    assert isinstance(encoder, TransformerConfig)
    return replace(encoder, length=4, width=8, feed_forward=6, layers=1)


def models(config: RunConfig) -> list[MultiObjectiveModel]:
    """The stages of a run at small sizes: seed 3 for what is shared, 5 for each objective."""
    attributes = [[0], [1], [0, 1], [2], [], [1], [2]]
    catalogue = catalogue_of([[0, 1, 2], [3, 4]], 7, attributes=attributes, num_attributes=3)
    shared = ModelComponents(small(config.encoder), catalogue, 3)
    return [
        MultiObjectiveModel(
            shared.encoder,
            {key: each.build(shared, 5) for key, each in stage.objectives.items()},
            catalogue,
        )
        for stage in config.stages
    ]


@pytest.mark.parametrize("name", RUNS)
def test_every_weight_starts_where_it_always_did(name: str) -> None:
    for model in models(RUNS[name]()):
        for path, parameter in model.named_parameters():
            if path in DRAWN:
                _, first, total = DRAWN[path]
                found = parameter.flatten()[0].item(), parameter.double().sum().item()
                # The generator's normal numbers may differ in the last place between processors.
                assert found == pytest.approx((first, total), rel=1e-5), path
            else:
                constant = 1.0 if "norm" in path and path.endswith("weight") else 0.0
                assert (parameter == constant).all(), path


def test_every_name_that_weights_are_drawn_by_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[object, ...]] = set()

    def noting(*key: str | int) -> torch.Generator:
        asked.add(key)
        return generator(*key)

    monkeypatch.setattr(initial, "generator", noting)
    for make in RUNS.values():
        models(make())
    shared = ("encoder", "attributes", "zero attribute")
    assert asked == {(3 if key[0] in shared else 5, *key) for key, _, _ in DRAWN.values()}

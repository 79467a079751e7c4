"""A second backbone is one file: it trains, ranks, is started from, advises and is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.metrics import metrics
from research.interop.import_export import export_stage
from research.model.backbone import BackboneConfig, check_direction, check_fields
from research.model.bsarec import BSARec
from research.model.caser import CaserConfig
from research.model.compute import ComputeConfig
from research.model.fmlp import FMLP
from research.model.gru import GRUConfig, GRUEncoder
from research.model.hstu import HSTU
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.transformer_block import PostNorm, PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.packed import Packed
from research.runs.config import RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.load import check_size, load_run
from tests.support.checkpoints import newest_checkpoint
from tests.support.small_runs import (
    FINETUNE,
    ITEM_TABLE,
    QUIET,
    corpus_in,
    frozen,
    input_error_of,
    weights_of,
)
from tests.support.synthetic import encoder_of

SMALL = GRUConfig(length=5, width=4, hidden_width=6, layers=2, embedding_dropout=0.1)
# What every backbone owes, by (config, causal); a new one is a row here.
OWED = [
    pytest.param(config, direction == "causal", id=f"{name}, {direction}")
    for name, config in {
        "transformer": TransformerConfig(length=5, width=8, feed_forward=12, init_std=0.5),
        "rotary": TransformerConfig(length=5, width=8, positions=Rotary(), init_std=0.5),
        "LiGR": TransformerConfig(length=5, width=8, block=LiGR(), init_std=0.5),
        "HSTU": TransformerConfig(length=5, width=8, block=HSTU(), init_std=0.5),
        "BSARec": TransformerConfig(length=5, width=8, block=BSARec(c=3), init_std=0.5),
        "FMLP": TransformerConfig(length=5, width=8, block=FMLP(), init_std=0.5),
        "relative positions": TransformerConfig(
            length=5, width=8, layers=1, positions=RelativePositions(), init_std=0.5
        ),
        "HSTU with relative positions": TransformerConfig(
            length=5, width=8, layers=1, block=HSTU(), positions=RelativePositions(), init_std=0.5
        ),
        "gru": replace(SMALL, init_std=0.5),
        "gru without a projection": GRUConfig(
            length=5, width=8, hidden_width=8, gate_biases=True, projection=False, init_std=0.5
        ),
        "Caser": CaserConfig(length=5, width=8, dropout=0.1, init_std=0.5),
    }.items()
    for direction in config.directions
]


@pytest.mark.parametrize(("config", "causal"), OWED)
def test_changing_one_sequence_moves_no_other(config: BackboneConfig, causal: bool) -> None:
    encoder = encoder_of(config, 10).eval()
    before_TD = encoder(Packed.from_lists([[1, 2], [3, 4, 5], [], [6]]), causal=causal)
    after_TD = encoder(Packed.from_lists([[1, 2], [7, 8, 9], [], [6]]), causal=causal)
    assert torch.equal(before_TD[:2], after_TD[:2])
    assert torch.equal(before_TD[5:], after_TD[5:])
    assert not torch.equal(before_TD[2:5], after_TD[2:5])


@pytest.mark.parametrize(("config", "causal"), OWED)
def test_a_newer_item_moves_no_causal_state_and_every_bidirectional_one(
    config: BackboneConfig, causal: bool
) -> None:
    encoder = encoder_of(config, 10).eval()
    before_TD = encoder(Packed.from_lists([[1, 2, 3, 4]]), causal=causal)
    for place in range(1, 4):
        items = [1, 2, 3, 4]
        items[place] = 9
        moved_T = (encoder(Packed.from_lists([items]), causal=causal) - before_TD).abs().amax(1)
        assert (moved_T[place:] > 1e-6).all()
        assert not moved_T[:place].any() if causal else (moved_T[:place] > 1e-6).all()


@pytest.mark.parametrize(("config", "causal"), OWED)
@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_nothing_to_encode_gives_no_states(
    rows: list[list[int]], config: BackboneConfig, causal: bool
) -> None:
    hidden_TD = encoder_of(config, 10)(Packed.from_lists(rows), causal=causal)
    assert hidden_TD.shape == (0, config.width)


@pytest.mark.parametrize(("config", "causal"), OWED)
@pytest.mark.parametrize("rows", [[], [[], []]])
def test_every_parameter_takes_part_where_there_is_nothing_to_encode(
    rows: list[list[int]], config: BackboneConfig, causal: bool
) -> None:
    # A process that has no rows waits for the others' gradients all the same.
    encoder = encoder_of(config, 10)
    encoder(Packed.from_lists(rows), causal=causal).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize(("config", "causal"), OWED)
def test_every_parameter_takes_part_where_nothing_is_read(
    config: BackboneConfig, causal: bool
) -> None:
    encoder = encoder_of(config, 10)
    read_P = torch.tensor([], dtype=torch.int64)
    states_PD = encoder(Packed.from_lists([[1, 2], []]), causal=causal, read_P=read_P)
    states_PD.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize(("config", "causal"), OWED)
def test_read_tokens_are_rows_of_all(config: BackboneConfig, causal: bool) -> None:
    encoder = encoder_of(config, 10).double().eval()
    packed = Packed.from_lists([[1, 2], [], [3, 4, 5], [6]])
    read_P = torch.tensor([0, 3, 4])
    all_TD = encoder(packed, causal=causal)
    read_PD = encoder(packed, causal=causal, read_P=read_P)
    # The same products in another order of rows: a few units of the last place.
    torch.testing.assert_close(read_PD, all_TD[read_P], rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("data") / "first")


def run_of(corpus: Corpus, **changes: Any) -> RunConfig:
    stages = changes.pop("stages", (FINETUNE,))
    return RunConfig(corpus=str(corpus.folder), encoder=SMALL, stages=stages, **changes)


def test_another_backbone_trains_and_is_loaded_to_rank(corpus: Corpus, tmp_path: Path) -> None:
    summary = execute(run_of(corpus), tmp_path / "run", options=QUIET)
    run_parts, ranker = load_run(tmp_path / "run", "data")
    assert summary.cost.parameters == SMALL.num_parameters(10)
    assert (
        metrics(run_parts.tables(ranker, "test")["full"], ("mrr",))["mrr"]
        == summary.test["full"]["mrr"]
    )


def test_another_backbone_is_started_from(corpus: Corpus, tmp_path: Path) -> None:
    execute(run_of(corpus), tmp_path / "first", options=QUIET)
    config = run_of(corpus, stages=(frozen(FINETUNE),), start_from=str(tmp_path / "first"))
    execute(config, tmp_path / "second", options=QUIET)
    given = weights_of(newest_checkpoint(tmp_path / "first" / "stages" / "finetune", "best"))
    after = weights_of(newest_checkpoint(tmp_path / "second" / "stages" / "finetune"))
    assert torch.equal(after[ITEM_TABLE], given[ITEM_TABLE])
    recurrent = "encoder.layers.1.weight_hh_l0"
    assert torch.equal(after[recurrent], given[recurrent])


def test_weights_of_another_kind_of_backbone_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    execute(run_of(corpus), tmp_path / "first", options=QUIET)
    transformer = TransformerConfig(length=5, width=4)
    config = run_of(corpus, start_from=str(tmp_path / "first"))
    message = input_error_of(replace(config, encoder=transformer), tmp_path)
    assert "encoder is 'GRUConfig' in that run and 'TransformerConfig' in this one" in message
    wider = replace(config, encoder=replace(SMALL, width=8))
    assert "encoder.width is 4 in that run and 8 in this one" in input_error_of(wider, tmp_path)
    reading = replace(config, items=ItemTableConfig(attributes=True))
    assert "items.attributes is False in that run and True in this one" in input_error_of(
        reading, tmp_path
    )


def test_a_backbone_of_another_package_is_read_where_that_is_trusted(
    corpus: Corpus, tmp_path: Path
) -> None:
    timed = replace(run_of(corpus), encoder=TimedConfig(length=5, width=4))
    execute(timed, tmp_path / "first", options=QUIET)
    config = run_of(corpus, start_from=str(tmp_path / "first"))
    message = input_error_of(config, tmp_path)
    assert "class is tests:TimedConfig, outside research, baselines; name its package" in message
    trusting = RunOptions(quiet=True, allow=("tests",))
    with pytest.raises(
        InputError, match="encoder is 'TimedConfig' in that run and 'GRUConfig' in this one"
    ):
        execute(config, tmp_path / "third", options=trusting)


def test_advice_on_memory_knows_another_backbone(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: GRUEncoder, packed: Packed, **rest: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GRUEncoder, "forward", full)
    with pytest.raises(MemoryError) as caught:
        execute(run_of(corpus), tmp_path, options=QUIET)
    assert "recurrent states 1 MB" in str(caught.value)
    assert "encoder.width 2 instead of 4" in str(caught.value)


@pytest.mark.parametrize("field", ["compile", "recompute"])
def test_what_another_backbone_cannot_compute_is_refused(
    field: str, corpus: Corpus, tmp_path: Path
) -> None:
    config = run_of(corpus, compute=ComputeConfig(**{field: True}))
    expected = f"compute.{field} is True, which GRUConfig cannot do; set it to False"
    assert input_error_of(config, tmp_path) == expected


def test_another_backbone_is_not_exported_as_a_transformer(corpus: Corpus, tmp_path: Path) -> None:
    execute(run_of(corpus), tmp_path / "run", options=QUIET)
    with pytest.raises(InputError, match="encoder is a GRUConfig; allowed: TransformerConfig alo"):
        export_stage(str(tmp_path / "run"), tmp_path / "file.pt", data_root="data")


def test_a_direction_that_a_backbone_lacks_is_refused() -> None:
    check_direction(TransformerConfig(), causal=False, asker="stage train: cloze")
    check_direction(GRUConfig(), causal=True, asker="stage train: next")
    with pytest.raises(InputError) as caught:
        check_direction(GRUConfig(), causal=False, asker="stage train: cloze")
    assert str(caught.value) == (
        "stage train: cloze needs bidirectional states, but encoder is a GRUConfig, whose are "
        "causal alone; choose another encoder or another objective"
    )


@dataclass(frozen=True, kw_only=True)
class TimedConfig(GRUConfig):
    """A backbone that reads times."""

    @property
    def fields(self) -> tuple[str, ...]:
        return ("time",)


def test_a_field_that_no_event_of_the_corpus_has_is_refused() -> None:
    check_fields(TimedConfig(), ("time",), "beauty")
    check_fields(TransformerConfig(segments=2), (), "beauty")
    with pytest.raises(InputError) as caught:
        check_fields(TimedConfig(), (), "beauty")
    assert str(caught.value) == (
        "encoder is a TimedConfig that reads the time of every event, which corpus beauty does not "
        "have; prepare it from a source that does or choose another encoder"
    )


@pytest.mark.parametrize(
    "config",
    [
        TransformerConfig(),
        TransformerConfig(width=6, heads=3, layers=3, feed_forward=5, length=7, block=PreNorm()),
        TransformerConfig(
            block=QueryNorm(), output_projection=False, embedding_norm=False, final_norm=True
        ),
        TransformerConfig(block=PostNorm(), segments=3, positions=Rotary(), final_norm=True),
        TransformerConfig(block=LiGR(), layers=3),
        TransformerConfig(block=HSTU(), layers=3),
        TransformerConfig(block=HSTU(times=True, time_buckets=9, head_width=5, norm="layer")),
        TransformerConfig(block=LiGR(swiglu=False, norm="rms"), output_projection=False),
        TransformerConfig(block=BSARec(), layers=3, output_projection=False),
        TransformerConfig(block=FMLP(), layers=3, length=7),
        TransformerConfig(block=FMLP(), length=8, width=6),
        TransformerConfig(positions=RelativePositions(buckets=10), heads=4),
        GRUConfig(),
        GRUConfig(width=6, hidden_width=6, layers=3, gate_biases=True, projection=False),
        GRUConfig(width=6, hidden_width=7, layers=2, gate_biases=True),
    ],
)
def test_a_config_counts_its_parameters_as_they_are(config: TransformerConfig | GRUConfig) -> None:
    numbers = sum(each.numel() for each in encoder_of(config, 13).parameters())
    assert config.num_parameters(13) == numbers


def test_a_model_of_endless_size_is_refused_before_memory_is_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1000))
    largest = TransformerConfig(
        length=1 << 20, width=1 << 20, layers=1 << 20, heads=1, feed_forward=1 << 20
    )
    with pytest.raises(InputError, match="is too small for a model of 6,9"):
        check_size(largest, 10, tmp_path / "weights")
    recurrent = GRUConfig(length=1 << 20, width=1 << 20, hidden_width=1 << 20, layers=1 << 20)
    with pytest.raises(InputError, match="is too small for a model of 6,9"):
        check_size(recurrent, 10, tmp_path / "weights")
    check_size(SMALL, 10, tmp_path / "weights")


def test_dropouts_and_the_spread_of_the_start_may_differ_between_runs() -> None:
    one = TransformerConfig(dropout=0.1, init_std=0.1, hidden_dropout=0.3)
    other = TransformerConfig(inner_dropout=0.2)
    assert one.decisive == other.decisive
    assert replace(one, positions=Rotary()).decisive != other.decisive
    assert replace(one, norm_eps=1e-5).decisive != other.decisive


def test_one_dropout_sets_all_that_are_not_set() -> None:
    used = TransformerConfig(dropout=0.1).dropouts
    assert (used.embedding, used.hidden, used.attention, used.attention_output) == (0.1,) * 4
    assert used.inner == 0.0
    used = TransformerConfig(dropout=0.1, hidden_dropout=0.3, attention_dropout=0.0).dropouts
    assert (used.embedding, used.hidden, used.attention) == (0.1, 0.3, 0.0)
    assert used.attention_output == 0.3
    used = TransformerConfig(hidden_dropout=0.3, attention_output_dropout=0.0).dropouts
    assert (used.embedding, used.attention_output) == (0.5, 0.0)


def test_rotary_states_do_not_change_when_all_a_row_moves() -> None:
    encoder = encoder_of(TransformerConfig(length=9, width=8, positions=Rotary()), 11).double()
    encoder.eval()
    packed = Packed.from_lists([[1, 2, 3], [4, 5]])
    moved = replace(packed, positions_T=packed.positions_T + 4)
    states = [encoder(each, causal=True) for each in (packed, moved)]
    torch.testing.assert_close(*states, rtol=0.0, atol=1e-13)
    swapped = encoder(Packed.from_lists([[2, 1, 3], [4, 5]]), causal=True)
    assert (swapped[2] - states[0][2]).abs().amax() > 1e-6


def test_rotary_positions_need_heads_of_even_width() -> None:
    with pytest.raises(InputError) as caught:
        encoder_of(TransformerConfig(width=6, heads=2, positions=Rotary()), 5)
    assert str(caught.value).startswith(
        "encoder.positions is Rotary, which turns pairs of a head's numbers, but a head has 3 (enc"
    )
    with pytest.raises(InputError, match=r"positions\.base is 1\.0; it must be above 1"):
        Rotary(base=1.0)

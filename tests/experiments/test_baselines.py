"""Published recipes: every number stands where its source has it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from baselines import (
    bert4rec,
    bsarec,
    caser,
    cl4srec,
    duorec,
    esasrec,
    fmlp,
    gru4rec,
    hstu,
    s3rec,
    sasrec,
)
from research.data.negatives import NegativesConfig
from research.data.splits import LeaveOneOut
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.model.bsarec import BSARec
from research.model.caser import CaserConfig
from research.model.fmlp import FMLP
from research.model.gru import GRUConfig
from research.model.hstu import HSTU
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm, PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.contrast import ContrastConfig, TwoViews
from research.objectives.dropout_views import DropoutViews
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    SampledSoftmax,
)
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import CutSegment, SPConfig
from research.runs.config import RunConfig
from research.training.config import StageConfig

POST, QUERY = PostNorm(), QueryNorm()
NEWEST = LearnedPositions(count_from="newest")
OLDEST = LearnedPositions(count_from="oldest")


def assert_fields(config: object, **expected: object) -> None:
    """Every named field has the value; the message names the one that has not."""
    names = {each.name for each in fields(config)}
    assert set(expected) <= names
    assert {name: getattr(config, name) for name in expected} == expected


def only_stage(config: RunConfig) -> StageConfig:
    assert len(config.stages) == 1
    return config.stages[0]


def next_of(config: RunConfig) -> NextItemConfig:
    (objective,) = only_stage(config).objectives.values()
    assert isinstance(objective, NextItemConfig)
    return objective


def cloze_of(config: RunConfig) -> ClozeConfig:
    (objective,) = only_stage(config).objectives.values()
    assert isinstance(objective, ClozeConfig)
    return objective


def dropouts(config: TransformerConfig) -> set[float]:
    used = config.dropouts
    return {used.embedding, used.hidden, used.attention}


def test_sasrec_original_has_the_authors_block() -> None:
    assert_fields(
        sasrec.original().encoder,
        width=50, heads=1, layers=2, length=200, feed_forward=50, activation="relu", block=QUERY,
        output_projection=False, embedding_norm=False, embedding_scale=True, final_norm=True,
        norm_eps=1e-8, segments=0, inner_dropout=0.2,
    )  # fmt: skip
    assert dropouts(sasrec.original().encoder) == {0.2}


def test_sasrec_original_is_trained_as_the_authors_do() -> None:
    stage = only_stage(sasrec.original())
    assert next_of(sasrec.original()).loss == BinaryCrossEntropy(number=1)
    assert next_of(sasrec.original()).loss.negatives.exclude == "training"
    assert next_of(sasrec.original()).head == HeadConfig()
    assert_fields(stage.optimizer, method="adam", lr=1e-3, beta1=0.9, beta2=0.98, weight_decay=0.0)
    assert_fields(stage.batches, sequences_per_batch=128, replacement=True)
    assert stage.windows == LastItems()


@pytest.mark.parametrize(
    ("config", "loss"),
    [(sasrec.full_softmax(), FullSoftmax()), (sasrec.bce(), BinaryCrossEntropy(number=1))],
)
def test_s3recs_block_is_that_of_its_fine_tuning(
    config: RunConfig, loss: FullSoftmax | BinaryCrossEntropy
) -> None:
    assert_fields(
        config.encoder,
        length=50, width=64, layers=2, heads=2, feed_forward=256, activation="gelu", block=POST,
        output_projection=True, embedding_norm=True, embedding_scale=False, final_norm=False,
        norm_eps=1e-12, positions=NEWEST, segments=0, inner_dropout=0.0, init_std=0.02,
    )  # fmt: skip
    assert dropouts(config.encoder) == {0.5}
    stage = only_stage(config)
    assert next_of(config).loss == loss
    assert_fields(stage.optimizer, method="adam", lr=1e-3, beta2=0.999, weight_decay=0.0)
    assert_fields(stage.batches, sequences_per_batch=256, replacement=False)
    assert_fields(stage.validation, metric="ndcg@20", patience=10)
    assert stage.epochs == 200


def test_gsasrec_draws_256_negatives_and_calibrates_at_three_quarters() -> None:
    loss = next_of(sasrec.gsasrec()).loss
    assert isinstance(loss, GeneralizedBCE)
    assert_fields(loss, number=256, calibration=0.75)
    assert_fields(sasrec.gsasrec().encoder, width=128, length=200, layers=2, block=QUERY)


def test_sasrec_plus_has_full_softmax_at_ml_1ms_sizes() -> None:
    assert_fields(sasrec.plus().encoder, width=64, heads=1, layers=2, length=200)
    assert dropouts(sasrec.plus().encoder) == {0.1}
    assert next_of(sasrec.plus()).loss == FullSoftmax()
    assert only_stage(sasrec.plus()).batches.sequences_per_batch == 128


def test_bert4rec_original_has_berts_encoder() -> None:
    assert_fields(
        bert4rec.original().encoder,
        length=200, width=64, layers=2, heads=2, feed_forward=256, activation="gelu", block=POST,
        output_projection=True, embedding_norm=True, embedding_scale=False, final_norm=False,
        norm_eps=1e-12, positions=OLDEST, segments=2, inner_dropout=0.0, init_std=0.02,
    )  # fmt: skip
    assert dropouts(bert4rec.original().encoder) == {0.2}
    assert cloze_of(bert4rec.original()).head == HeadConfig(
        table="tied", bias=True, transform="nonlinear"
    )


def test_bert4rec_original_masks_as_the_authors_do() -> None:
    assert cloze_of(bert4rec.original()).corruption == MaskItems(
        rate=0.2, count="rounded", max_picked=40, random_share=0.0, keep_share=0.0,
        mask_last_share=0.0, last_only_share=1 / 11,
    )  # fmt: skip
    assert cloze_of(bert4rec.original()).loss == FullSoftmax()


def test_bert4rec_original_is_trained_as_the_authors_do() -> None:
    config = bert4rec.original()
    stage = only_stage(config)
    assert_fields(
        stage.optimizer, method="adamw", lr=1e-4, beta1=0.9, beta2=0.999, eps=1e-6,
        weight_decay=0.01, bias_correction=False, clip_norm=5.0,
    )  # fmt: skip
    assert_fields(stage.optimizer.schedule, shape="linear", warmup_steps=100, final_factor=0.0)
    assert_fields(stage.batches, sequences_per_batch=256, replacement=False)
    assert stage.windows == Sliding(stride=100)
    assert stage.steps == 400_000
    assert config.split == LeaveOneOut(validation_in_training=True)
    # The validation item stands in training, so that nothing may be selected by it.
    assert stage.validation is None


def test_the_ports_have_a_pre_norm_encoder_without_outer_norms() -> None:
    assert_fields(
        bert4rec.port().encoder,
        length=100, width=256, layers=2, heads=4, feed_forward=1024, activation="gelu_tanh",
        block=PreNorm(), output_projection=True, embedding_norm=False, final_norm=False,
        embedding_scale=False, positions=NEWEST, segments=0, inner_dropout=0.1,
    )  # fmt: skip
    assert dropouts(bert4rec.port().encoder) == {0.1}


def test_the_ports_train_with_80_10_10_and_an_output_layer_of_their_own() -> None:
    stage = only_stage(bert4rec.port())
    objective = cloze_of(bert4rec.port())
    assert objective.corruption == MaskItems(
        rate=0.15, at_least_one=False, random_share=0.1, keep_share=0.1
    )
    assert objective.head == HeadConfig(table="own", bias=True, transform="none")
    assert_fields(stage.optimizer, method="adam", lr=1e-3)
    assert stage.optimizer.schedule.shape == "constant"
    assert stage.batches.sequences_per_batch == 128
    assert stage.windows == LastItems()


def test_the_ports_report_at_six_cutoffs_against_100_uniform_negatives() -> None:
    evaluation = bert4rec.port().evaluation
    assert "uniform-100" in evaluation.candidates
    for k in (1, 5, 10, 20, 50, 100):
        assert {f"hr@{k}", f"ndcg@{k}"} <= set(evaluation.metrics)


def test_the_ports_may_have_three_segment_types() -> None:
    assert TransformerConfig(segments=3).segments == 3


def test_nothing_but_a_named_quirk_is_on_by_default() -> None:
    assert_fields(LeaveOneOut(), validation_in_training=False)
    assert_fields(
        MaskItems(), at_least_one=True, random_share=0.0, keep_share=0.0, mask_last_share=0.0,
        last_only_share=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [bert4rec.cloze(), bert4rec.beauty(), bert4rec.ml_1m()],
    ids=["cloze", "beauty", "ml-1m"],
)
def test_our_cloze_recipes_select_on_validation(config: RunConfig) -> None:
    assert config.split == LeaveOneOut()
    assert only_stage(config).validation is not None


def test_our_cloze_recipes_never_stop_on_the_plateau_of_their_first_steps() -> None:
    for config in (bert4rec.cloze(), bert4rec.beauty()):
        stage = only_stage(config)
        assert stage.validation is not None
        assert stage.validation.patience is None
        assert (stage.optimizer.lr, stage.optimizer.schedule.shape) == (5e-3, "linear")
    validation = only_stage(bert4rec.ml_1m()).validation
    assert validation is not None
    assert (validation.min_steps, validation.patience_steps) == (3_000, 2_000)


def test_s3rec_pretrains_as_its_authors_do() -> None:
    config = s3rec.published()
    stage = config.stages[0]
    assert_fields(
        stage, name="pretrain", epochs=150, normalize="sequences", validation=None,
        windows=EveryPrefix(),
    )  # fmt: skip
    assert stage.batches.sequences_per_batch == 100
    assert (stage.optimizer.method, stage.optimizer.lr, stage.optimizer.weight_decay) == (
        "adam", 1e-3, 0.0,
    )  # fmt: skip
    weights = {key: objective.weight for key, objective in stage.objectives.items()}
    assert weights == {"aap": 0.2, "mip": 1.0, "map": 1.0, "sp": 0.5}
    assert_fields(
        config.encoder,
        width=64, heads=2, layers=2, length=50, feed_forward=256, activation="gelu", block=POST,
        norm_eps=1e-12, positions=NEWEST, embedding_norm=True, init_std=0.02,
    )  # fmt: skip
    assert dropouts(config.encoder) == {0.5}


def test_every_published_quirk_of_s3rec_is_on() -> None:
    config = s3rec.published()
    heads = config.stages[0].objectives
    masks = MaskItems(rate=0.2, mask_last_share=1.0)
    assert heads == {
        "aap": AAPConfig(weight=0.2, corruption=masks, count_bare_items=True, zero_attribute=True),
        "mip": MIPConfig(
            weight=1.0,
            corruption=masks,
            loss=BayesianPersonalizedRanking(
                inner_sigmoid=True,
                negatives=NegativesConfig(exclude="window", include_mask=True),
            ),
        ),
        "map": MAPConfig(weight=1.0, corruption=masks, count_bare_items=True, zero_attribute=True),
        "sp": SPConfig(
            weight=0.5,
            corruption=CutSegment(placement="among_masks", foreign="everything", short_rows=True),
            inner_sigmoid=True,
        ),
    }
    tune = config.stages[1].objectives
    assert tune == {
        "next": NextItemConfig(
            loss=BinaryCrossEntropy(
                number=1, negatives=NegativesConfig(exclude="history", include_mask=True)
            ),
            head=HeadConfig(special_classes=True),
        )
    }
    assert config.evaluation.seen == "zero"


def test_the_corrected_s3rec_has_no_quirk_but_its_masks_and_weights() -> None:
    heads = s3rec.corrected().stages[0].objectives
    masks = MaskItems(rate=0.2, mask_last_share=1.0)
    assert heads == {
        "aap": AAPConfig(weight=0.2, corruption=masks),
        "mip": MIPConfig(corruption=masks),
        "map": MAPConfig(corruption=masks),
        "sp": SPConfig(weight=0.5),
    }
    assert s3rec.corrected().evaluation.seen == "excluded"
    assert s3rec.corrected().stages[1].objectives == {"next": NextItemConfig()}


@pytest.mark.parametrize(
    "config", [s3rec.published(), s3rec.published_softmax(), s3rec.corrected()]
)
def test_s3rec_fine_tunes_whole_histories_and_selects_by_ndcg_at_20(config: RunConfig) -> None:
    stage = config.stages[1]
    assert_fields(stage, name="finetune", epochs=200, windows=LastItems(), normalize="terms")
    assert stage.batches.sequences_per_batch == 256
    assert stage.validation is not None
    assert (stage.validation.metric, stage.validation.patience) == ("ndcg@20", 10)


def test_the_joint_stage_holds_all_six_and_ranks_by_the_next_item() -> None:
    stage = only_stage(s3rec.joint())
    assert list(stage.objectives) == ["next", "cloze", "aap", "mip", "map", "sp"]
    assert stage.rank_by == "next"


def test_sasrec_f_differs_from_sasrec_by_its_input_alone() -> None:
    ours, plain = sasrec.with_attributes(), sasrec.full_softmax()
    assert ours == replace(plain, items=ItemTableConfig(attributes=True))
    assert ours.stages == plain.stages


@pytest.mark.parametrize(
    ("config", "corpus", "sizes", "dropout", "epochs"),
    [
        (esasrec.beauty(), "ml-100k", (50, 64, 1, 1, 256), 0.2, 200),
        (esasrec.ml_1m(), "ml-1m", (200, 64, 2, 1, 256), 0.1, 100),
        (esasrec.ml_20m(), "ml-20m", (200, 256, 4, 8, 1024), 0.2, 100),
    ],
)
def test_esasrec_has_the_numbers_of_its_readme(
    config: RunConfig, corpus: str, sizes: tuple[int, ...], dropout: float, epochs: int
) -> None:
    length, width, layers, heads, inner = sizes
    assert_fields(
        config.encoder,
        length=length, width=width, layers=layers, heads=heads, feed_forward=inner,
        block=LiGR(swiglu=True, norm="layer"), positions=NEWEST, output_projection=True,
        embedding_norm=False, embedding_scale=False, final_norm=False, norm_eps=1e-5,
        inner_dropout=dropout,
    )  # fmt: skip
    assert dropouts(config.encoder) == {dropout}
    assert config.items == ItemTableConfig(dropout=dropout)
    stage = only_stage(config)
    assert (config.corpus, stage.epochs, stage.windows) == (corpus, epochs, LastItems())
    assert next_of(config) == NextItemConfig(
        loss=SampledSoftmax(
            number=256, share="token", log_q=False, negatives=NegativesConfig(exclude="nothing")
        )
    )
    assert_fields(stage.optimizer, method="adam", lr=1e-3, beta2=0.98, weight_decay=0.0)
    assert_fields(stage.batches, sequences_per_batch=128, replacement=False)
    assert_fields(stage.validation, metric="recall@10", patience=50)


@pytest.mark.parametrize(
    ("config", "layers", "heads"), [(hstu.original(), 2, 1), (hstu.large(), 8, 2)]
)
def test_hstu_is_trained_as_its_authors_do(config: RunConfig, layers: int, heads: int) -> None:
    assert_fields(
        config.encoder,
        length=200, width=50, layers=layers, heads=heads, positions=OLDEST, embedding_norm=False,
        embedding_scale=True, final_norm=False, norm_eps=1e-6, init_std=0.02,
        block=HSTU(times=True, time_buckets=128, head_width=None, divisor="length", norm="bare"),
    )  # fmt: skip
    used = config.encoder.dropouts
    assert (used.embedding, used.hidden, used.attention) == (0.2, 0.2, 0.0)
    stage = only_stage(config)
    assert config.corpus == "ml-1m"
    assert config.split == LeaveOneOut(validation_in_training=True)
    assert_fields(stage, epochs=101, validation=None, windows=LastItems())
    loss = next_of(config).loss
    assert loss == SampledSoftmax(number=128, negatives=NegativesConfig(exclude="nothing"))
    assert_fields(stage.optimizer, method="adamw", lr=1e-3, beta2=0.98, weight_decay=0.0)
    assert_fields(stage.batches, sequences_per_batch=128)


def test_hstu_on_beauty_has_recboards_sizes() -> None:
    encoder, stage = hstu.beauty().encoder, only_stage(hstu.beauty())
    assert_fields(
        encoder,
        length=50, width=64, layers=4, heads=2, positions=NEWEST, embedding_norm=False,
        embedding_scale=True, block=HSTU(times=False, head_width=4, norm="layer"),
    )  # fmt: skip
    used = encoder.dropouts
    assert (used.embedding, used.hidden, used.attention) == (0.4, 0.2, 0.0)
    loss = next_of(hstu.beauty()).loss
    assert loss == SampledSoftmax(number=512, negatives=NegativesConfig(exclude="nothing"))
    assert_fields(stage.optimizer, method="adamw", lr=1e-3, beta2=0.98, weight_decay=1e-3)
    assert_fields(stage.batches, sequences_per_batch=256)
    assert_fields(stage, epochs=300)


def test_hstu_under_full_softmax_differs_from_sasrec_by_its_block_alone() -> None:
    ours, plain = hstu.full_softmax(), sasrec.full_softmax()
    encoder = replace(plain.encoder, block=HSTU(), attention_dropout=0.0)
    assert ours == replace(plain, encoder=encoder)


@pytest.mark.parametrize(
    ("config", "loss"),
    [(gru4rec.full_softmax(), FullSoftmax()), (gru4rec.bce(), BinaryCrossEntropy(number=1))],
    ids=["full softmax", "bce"],
)
def test_gru4rec_has_recboles_network_and_sasrecs_training(
    config: RunConfig, loss: FullSoftmax | BinaryCrossEntropy
) -> None:
    assert_fields(
        config.encoder,
        length=50, width=64, hidden_width=128, layers=1, gate_biases=False, projection=True,
        embedding_dropout=0.3, hidden_dropout=0.0, init_std=0.02,
    )  # fmt: skip
    assert next_of(config) == NextItemConfig(loss=loss)
    theirs = sasrec.s3rec_block(loss)
    assert replace(config, encoder=theirs.encoder) == theirs


@pytest.mark.parametrize(
    ("config", "alpha", "c", "heads", "lr"),
    [
        (bsarec.beauty(), 0.7, 5, 1, 5e-4),
        (bsarec.sports(), 0.3, 5, 4, 1e-3),
        (bsarec.toys(), 0.7, 3, 1, 1e-3),
        (bsarec.yelp(), 0.7, 3, 4, 1e-3),
        (bsarec.lastfm(), 0.9, 3, 1, 1e-3),
        (bsarec.ml_1m(), 0.3, 9, 4, 5e-4),
    ],
)
def test_bsarec_is_trained_as_its_authors_do(
    config: RunConfig, alpha: float, c: int, heads: int, lr: float
) -> None:
    assert_fields(
        config.encoder,
        length=50, width=64, layers=2, heads=heads, feed_forward=256, activation="gelu",
        block=BSARec(alpha=alpha, c=c), positions=NEWEST, output_projection=True,
        embedding_norm=True, embedding_scale=False, final_norm=False, norm_eps=1e-12,
        inner_dropout=0.0, init_std=0.02,
    )  # fmt: skip
    assert dropouts(config.encoder) == {0.5}
    stage = only_stage(config)
    assert_fields(stage, epochs=200, windows=EveryPrefix())
    assert next_of(config) == NextItemConfig(
        loss=FullSoftmax(), predict="last", direction="bidirectional"
    )
    assert_fields(stage.optimizer, method="adam", lr=lr, beta1=0.9, beta2=0.999, weight_decay=0.0)
    assert_fields(stage.batches, sequences_per_batch=256, replacement=False)
    assert_fields(stage.validation, metric="ndcg@20", patience=10)


def test_fmlp_differs_from_bsarec_by_block_and_loss_alone() -> None:
    theirs = bsarec.toys()
    encoder = replace(theirs.encoder, block=FMLP())
    assert fmlp.full_softmax() == replace(theirs, encoder=encoder)
    loss = BinaryCrossEntropy(number=1, negatives=NegativesConfig(exclude="window"))
    objective = replace(next_of(theirs), loss=loss)
    stage = replace(only_stage(theirs), objectives={"next": objective})
    assert fmlp.original() == replace(theirs, encoder=encoder, stages=(stage,))


def test_gru4recs_defaults_are_recboles() -> None:
    assert GRUConfig() == gru4rec.RECBOLE


def test_gru4rec_on_ml_1m_is_that_of_the_paper_on_sasrec_plus() -> None:
    config = gru4rec.ml_1m()
    assert_fields(
        config.encoder,
        length=200, width=64, hidden_width=64, layers=1, gate_biases=True, projection=False,
        embedding_dropout=0.0, hidden_dropout=0.0, init_std=0.02,
    )  # fmt: skip
    assert next_of(config) == NextItemConfig(loss=FullSoftmax())
    stage = only_stage(config)
    assert_fields(stage.optimizer, method="adam", lr=1e-3, weight_decay=0.0)
    assert_fields(stage.validation, metric="ndcg@10", patience=10)
    assert (stage.batches.sequences_per_batch, stage.epochs) == (128, 100)


def test_gru4rec_in_batch_has_the_network_of_the_authors_parameter_file() -> None:
    config = gru4rec.in_batch()
    assert_fields(
        config.encoder,
        width=100, hidden_width=100, layers=1, gate_biases=True, projection=False,
        embedding_dropout=0.0, hidden_dropout=0.4,
    )  # fmt: skip
    assert next_of(config) == NextItemConfig(
        loss=InBatchSoftmax(log_q=True), head=HeadConfig(table="tied", bias=True)
    )
    assert only_stage(config).batches.sequences_per_batch == 32


@pytest.mark.parametrize("name", ["bce", "full_softmax"])
def test_cl4srec_is_sasrec_with_a_contrast_beside_it(name: str) -> None:
    config, plain = getattr(cl4srec, name)(), getattr(sasrec, name)()
    (stage,), (plain_stage,) = config.stages, plain.stages
    assert replace(config, stages=plain.stages) == plain
    assert replace(stage, objectives=plain_stage.objectives) == plain_stage
    objectives = dict(stage.objectives)
    views = TwoViews(
        operators=("crop", "mask", "reorder"), crop_share=0.6, mask_share=0.3, reorder_share=0.6
    )
    assert objectives.pop("contrast") == ContrastConfig(
        weight=0.1, corruption=views, similarity="dot", temperature=1.0
    )
    assert objectives == plain_stage.objectives


def test_cl4srec_of_iclrec_has_that_codes_defaults() -> None:
    config, plain = cl4srec.iclrec(), cl4srec.bce()
    (stage,), (plain_stage,) = config.stages, plain.stages
    contrast = ContrastConfig(
        weight=0.1, corruption=TwoViews(crop_share=0.2, mask_share=0.7, reorder_share=0.2),
        states="all",
    )  # fmt: skip
    assert stage.objectives == {**plain_stage.objectives, "contrast": contrast}
    assert stage.epochs == 300
    assert_fields(stage.validation, metric="ndcg@20", patience=40)
    assert_fields(stage.batches, sequences_per_batch=256)
    assert_fields(stage.optimizer, method="adam", lr=1e-3, weight_decay=0.0)
    assert dropouts(config.encoder) == {0.5}


def test_duorec_has_the_authors_settings() -> None:
    config = duorec.published()
    assert_fields(
        config.encoder, length=50, width=64, layers=2, heads=2, feed_forward=256, block=POST,
        activation="gelu", norm_eps=1e-12, init_std=0.02,
    )  # fmt: skip
    assert dropouts(config.encoder) == {0.5}
    stage = only_stage(config)
    assert stage.windows == EveryPrefix()
    assert_fields(stage.batches, sequences_per_batch=256)
    assert_fields(stage.optimizer, method="adam", lr=1e-3, weight_decay=0.0)
    assert stage.epochs == 50
    assert_fields(stage.validation, metric="mrr@10", patience=10, every_epochs=1)
    assert stage.objectives == {
        "next": NextItemConfig(loss=FullSoftmax(), predict="last"),
        "contrast": ContrastConfig(
            weight=0.1, corruption=DropoutViews(positive="target"), similarity="dot",
            temperature=1.0,
        ),
    }  # fmt: skip


def test_duorecs_variants_change_the_contrast_alone() -> None:
    (stage,), whole = duorec.published().stages, duorec.published()
    own = ContrastConfig(weight=0.1, corruption=DropoutViews(positive="row"))
    for config, objectives in (
        (duorec.unsupervised(), {**stage.objectives, "contrast": own}),
        (duorec.without_contrast(), {"next": stage.objectives["next"]}),
    ):
        assert replace(whole, stages=(replace(stage, objectives=objectives),)) == config


def test_caser_has_its_authors_sizes_and_training() -> None:
    config = caser.original()
    assert_fields(
        config.encoder,
        width=50, newest=5, horizontal=16, vertical=4, dropout=0.5, init_std=1 / 50,
    )  # fmt: skip
    assert config.encoder == CaserConfig()
    assert next_of(config) == NextItemConfig(
        loss=BinaryCrossEntropy(number=3), head=HeadConfig(table="own", bias=True)
    )
    stage = only_stage(config)
    assert_fields(stage.optimizer, method="adam", lr=1e-3, weight_decay=1e-6)
    assert stage.epochs == 50


def test_caser_under_full_softmax_has_recboles_network_and_sasrecs_training() -> None:
    config = caser.full_softmax()
    assert_fields(
        config.encoder, length=50, width=64, newest=10, horizontal=16, vertical=8, dropout=0.4
    )
    theirs = sasrec.full_softmax()
    assert replace(config, encoder=theirs.encoder) == theirs

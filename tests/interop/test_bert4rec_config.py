"""`bert_config_*.json` of the original BERT4Rec becomes an encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.errors import InputError
from research.interop.bert4rec_config import read_bert_config
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm
from research.model.transformer_config import TransformerConfig
from tests.support.bert_configs import write_bert_config


def test_every_field_is_carried_over(tmp_path: Path) -> None:
    config = read_bert_config(write_bert_config(tmp_path))
    assert config == TransformerConfig(
        length=200, width=64, layers=3, heads=4, feed_forward=128, activation="gelu",
        block=PostNorm(),
        output_projection=True, embedding_norm=True, embedding_scale=False, final_norm=False,
        norm_eps=1e-12, positions=LearnedPositions(count_from="oldest"), segments=2, dropout=0.2,
        attention_dropout=0.3, inner_dropout=0.0, init_std=0.01,
    )  # fmt: skip


def test_relu_and_whole_numbers_for_probabilities_are_read(tmp_path: Path) -> None:
    config = read_bert_config(write_bert_config(tmp_path, hidden_act="relu", hidden_dropout_prob=0))
    assert (config.activation, config.dropouts.hidden) == ("relu", 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "absent"}, "has no field 'hidden_size'; needed: hidden_size, num_hidden"),
        ({"hidden_size": "64"}, "hidden_size is '64'; it must be of type int"),
        ({"hidden_size": 64.0}, "hidden_size is 64.0; it must be of type int"),
        ({"hidden_size": True}, "hidden_size is True; it must be of type int"),
        ({"type_vocab_size": False}, "type_vocab_size is False; it must be of type int"),
        ({"hidden_dropout_prob": None}, "hidden_dropout_prob is None; it must be of type float"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; allowed: gelu, relu"),
        ({"hiden_size": 3}, "unknown field 'hiden_size'; allowed: hidden_size"),
    ],
)
def test_a_wrong_field_is_named_with_the_file(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = write_bert_config(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_bert_config(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_heads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not give an encoder: encoder\.heads is 5"):
        read_bert_config(write_bert_config(tmp_path, num_attention_heads=5))


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json does not exist"):
        read_bert_config(tmp_path / "nowhere.json")
    (tmp_path / "text.json").write_text("hidden_size: 64")
    with pytest.raises(InputError, match=r"text\.json is not valid JSON"):
        read_bert_config(tmp_path / "text.json")

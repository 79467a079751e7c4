"""Reading a `bert_config_*.json` of the original BERT4Rec code (FeiSun/BERT4Rec).

It becomes the config of an encoder, which a run takes as `encoder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from research.errors import InputError
from research.model.positions import LearnedPositions
from research.model.transformer_block import PostNorm
from research.model.transformer_config import TransformerConfig
from research.storage.json_files import read_json

_NEEDED: dict[str, type] = {
    "hidden_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "intermediate_size": int,
    "hidden_act": str,
    "hidden_dropout_prob": float,
    "attention_probs_dropout_prob": float,
    "max_position_embeddings": int,
    "type_vocab_size": int,
    "initializer_range": float,
    "vocab_size": int,
}


def read_bert_config(path: Path) -> TransformerConfig:
    """The config of the encoder that the file describes.

    `vocab_size` is checked but not used: it counts that code's special tokens too, and here the
    corpus says how many items there are. `hidden_act` sets the encoder's activation; that code's
    head has the same. `InputError` names the file and the field that is missing, unknown, of a
    wrong type or not supported.
    """
    stored = read_json(path)
    fields: dict[str, int | float | str] = {}
    for name, kind in _NEEDED.items():
        if name not in stored:
            raise InputError(f"{path} has no field {name!r}; needed: {', '.join(_NEEDED)}")
        value = stored[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        # To Python True and False are ints; here they are of a wrong type.
        plain = value if isinstance(value, (int, float, str)) else None
        if plain is None or isinstance(plain, bool) or not isinstance(plain, kind):
            raise InputError(f"{path}: {name} is {value!r}; it must be of type {kind.__name__}")
        fields[name] = plain
    unknown = sorted(stored.keys() - _NEEDED.keys())
    if unknown:
        raise InputError(f"{path}: unknown field {unknown[0]!r}; allowed: {', '.join(_NEEDED)}")
    if fields["hidden_act"] not in ("gelu", "relu"):
        raise InputError(f"{path}: hidden_act is {fields['hidden_act']!r}; allowed: gelu, relu")
    try:
        return _encoder(fields)
    except InputError as error:
        raise InputError(f"{path} does not give an encoder: {error}") from error


def _encoder(fields: Mapping[str, int | float | str]) -> TransformerConfig:
    return TransformerConfig(
        length=int(fields["max_position_embeddings"]),
        width=int(fields["hidden_size"]),
        layers=int(fields["num_hidden_layers"]),
        heads=int(fields["num_attention_heads"]),
        feed_forward=int(fields["intermediate_size"]),
        activation="gelu" if fields["hidden_act"] == "gelu" else "relu",
        block=PostNorm(),
        output_projection=True,
        embedding_norm=True,
        embedding_scale=False,
        final_norm=False,
        norm_eps=1e-12,
        positions=LearnedPositions(count_from="oldest"),
        segments=int(fields["type_vocab_size"]),
        dropout=float(fields["hidden_dropout_prob"]),
        attention_dropout=float(fields["attention_probs_dropout_prob"]),
        init_std=float(fields["initializer_range"]),
    )

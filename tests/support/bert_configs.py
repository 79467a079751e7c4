"""Writes a bert_config.json in the format of BERT4Rec's published code."""

from __future__ import annotations

import json
from pathlib import Path

# The fields of the files in FeiSun/BERT4Rec. The values are made up, and no two are equal.
ORIGINAL: dict[str, object] = {
    "attention_probs_dropout_prob": 0.3,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.2,
    "hidden_size": 64,
    "initializer_range": 0.01,
    "intermediate_size": 128,
    "max_position_embeddings": 200,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "type_vocab_size": 2,
    "vocab_size": 3420,
}


def write_bert_config(folder: Path, **changes: object) -> Path:
    """Write the file with changed fields, without those that are "absent"; returns its path."""
    path = folder / "bert_config_ml-1m_64.json"
    values = {**ORIGINAL, **changes}
    path.write_text(json.dumps({name: each for name, each in values.items() if each != "absent"}))
    return path

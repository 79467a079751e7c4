"""Sixfold's mechanism: data, encoder, objectives, training, evaluation; nothing of one paper."""

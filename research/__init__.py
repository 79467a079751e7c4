"""The library: data, encoders, objectives, training, evaluation; papers are in `baselines`."""

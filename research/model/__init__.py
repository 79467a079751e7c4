"""The shared encoder: packed tokens in, one hidden state a token out."""

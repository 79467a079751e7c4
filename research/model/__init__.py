"""The encoders that objectives share: packed tokens in, one hidden state for each token out."""

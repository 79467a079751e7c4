"""Foreign weights in, ours out."""

"""A stage's checkpoints on the disk, and the transfer of their weights to other stages and runs."""

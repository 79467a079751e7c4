"""The training of a stage: the loop and its helpers, optimizers, combinations of objectives."""

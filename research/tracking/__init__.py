"""The mirror of a run on W&B (Weights & Biases); only this folder and `report/` use W&B."""

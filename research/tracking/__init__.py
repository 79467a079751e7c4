"""The mirror of a run on W&B; only this folder and `report/` know W&B."""

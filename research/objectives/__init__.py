"""Objectives: how the encoder's input is corrupted, and the losses on its hidden states."""

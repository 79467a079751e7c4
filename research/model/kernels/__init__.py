"""Numerics below the model: tiled losses and attention, precision, dropout, copies to a device."""

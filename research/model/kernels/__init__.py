"""Numerics that a reader of the model need not meet: tiles, precision, dropout, copies."""

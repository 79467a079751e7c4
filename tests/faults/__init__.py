"""Faults: real runs, what may happen to them, and what is lost by it (docs/faults.md)."""

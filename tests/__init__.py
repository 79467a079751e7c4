"""Tests: a folder a room of `research`, and what they share in `support`."""

from __future__ import annotations

from pathlib import Path

# The repository.
ROOT = Path(__file__).parent.parent

"""Marks of single cases of a parametrized test."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet


def long_case(*values: object) -> ParameterSet:
    """The values as a case that `make test-long` alone runs."""
    return pytest.param(*values, marks=pytest.mark.long)

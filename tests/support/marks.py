"""Marks of single cases of a parametrized test."""

from __future__ import annotations

import pytest
from _pytest.mark.structures import ParameterSet


def long_case(value: object) -> ParameterSet:
    """The value as a case that `make test-long` alone runs."""
    return pytest.param(value, marks=pytest.mark.long)

"""Ids that are one id written in two ways are found, and ids that are not are left alone."""

from __future__ import annotations

import pytest

from research.data.lookalikes import lookalike_ids
from research.data.names import Names


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["7", "8", "7.0", "007", "8.5"], [[0, 2, 3]]),
        (["B0A", "c", " b0a", "b0a ", "C"], [[0, 2, 3], [1, 4]]),
        (["a  b", "A B", "ab"], [[0, 1]]),
        (["0", "00", "0.0", "10", "1"], [[0, 1, 2]]),
        (["0.5", "5", ".5"], []),
        (["-3.00", "3", "-3"], [[0, 2]]),
        (["Größe", "GRÖSSE", "GRÖße"], [[0, 2]]),
        (["", " ", "x"], [[0, 1]]),
        (["u1", "u01", "1.50", "1.5", "a.0", "a"], []),
        (["one"], []),
        ([], []),
    ],
)
def test_ids_that_differ_in_form_alone_are_a_group(
    names: list[str], groups: list[list[int]]
) -> None:
    for given in (names, Names.from_strings(names)):
        assert [group.tolist() for group in lookalike_ids(given)] == groups

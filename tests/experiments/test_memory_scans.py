"""The memory experiment's table and figure, from given peaks, and one small setting measured."""

from __future__ import annotations

import pytest

from experiments.memory import (
    SCANS,
    Setting,
    expected_bytes,
    figure_of,
    peak_of,
    size_of,
    table_of,
)


def test_the_table_compares_growth_with_what_is_expected() -> None:
    peaks = {
        name: [int(5e8 + expected_bytes(setting)) for setting in settings]
        for name, settings in SCANS.items()
    }
    rows = table_of(peaks).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == list(SCANS)
    assert all(row.endswith("| 1.00 |") for row in rows)
    # Weights, two moments and three gradients of 990,000 items of 64 numbers of 4 bytes.
    assert "| 1,521 | 1,521 |" in rows[0]
    assert figure_of(peaks) == figure_of(peaks)


def test_each_scan_changes_one_size() -> None:
    for name, settings in SCANS.items():
        sizes = [size_of(name, setting) for setting in settings]
        assert sizes == sorted(set(sizes))
        assert len({(each.sampled,) for each in settings}) == 1


@pytest.mark.long
def test_a_setting_is_trained() -> None:
    for sampled in (False, True):
        assert peak_of(Setting(items=60, length=8, rows=4, sampled=sampled)) > 0

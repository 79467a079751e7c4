"""Two versions of a study's runs, compared by user from tables that are written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path

import numpy as np
import pytest

from experiments.before_and_after import change_of, common_cells, expected_ndcg, main
from research.errors import InputError

Capture = pytest.CaptureFixture[str]


def write_table(
    folder: Path,
    cell: str,
    seed: int,
    rank: Sequence[float],
    ties: Sequence[int] | None = None,
    user: Sequence[int] = (0, 1, 2),
    item: Sequence[int] = (7, 8, 9),
) -> None:
    """A table as an earlier version wrote it: no more columns than those that are read."""
    path = folder / cell / str(seed) / "ranks" / "test-full.npz"
    path.parent.mkdir(parents=True)
    others = [0] * len(rank) if ties is None else ties
    np.savez_compressed(
        path,
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        rank=np.array(rank),
        ties=np.array(others, np.int32),
    )


def test_a_rank_without_ties_has_the_discount_of_its_place() -> None:
    rank = np.array([1.0, 3.0, 10.0, 11.0, np.inf])
    values = expected_ndcg(rank, np.zeros(5, np.int32), 10)
    assert values.tolist() == [1.0, 0.5, 1 / log2(11), 0.0, 0.0]


def test_tied_candidates_share_the_discounts_of_their_places() -> None:
    # Places 1 and 2; places 9 to 12, of which two are among the first ten.
    values = expected_ndcg(np.array([1.5, 10.5]), np.array([1, 3], np.int32), 10)
    assert values[0] == pytest.approx((1 + 1 / log2(3)) / 2, rel=1e-15)
    assert values[1] == pytest.approx((1 / log2(10) + 1 / log2(11)) / 4, rel=1e-15)


def test_users_are_paired_after_the_mean_over_seeds(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    write_table(before, "sasrec", 0, [1.0, 3.0, 11.0])
    write_table(before, "sasrec", 1, [3.0, 3.0, 11.0])
    # The same users in another order.
    write_table(after, "sasrec", 0, [3.0, 1.0, 1.0], user=(2, 1, 0), item=(9, 8, 7))
    change = change_of(before, after, "sasrec")
    assert change.seeds == (2, 1)
    # By user .75, .5, 0 before and 1, 1, .5 after.
    assert change.before == pytest.approx(1.25 / 3, rel=1e-15)
    assert change.after == pytest.approx(2.5 / 3, rel=1e-15)
    # The differences are .25, .5, .5, so that no resample is outside these.
    low, high = change.interval
    assert 0.25 <= low < 1.25 / 3 < high <= 0.5


def test_users_without_a_change_give_an_interval_of_no_width(tmp_path: Path) -> None:
    for side in ("before", "after"):
        write_table(tmp_path / side, "sasrec", 0, [1.0, 3.0, np.inf])
    change = change_of(tmp_path / "before", tmp_path / "after", "sasrec")
    assert change.interval == (0.0, 0.0)


@pytest.mark.parametrize(
    ("user", "item", "message"),
    [
        ((0, 1, 3), (7, 8, 9), "other users or other held-out items"),
        ((0, 1, 2), (7, 8, 5), "other users or other held-out items"),
        ((0, 1, 1), (7, 8, 9), "several rows of a user"),
    ],
)
def test_tables_of_other_questions_are_refused(
    tmp_path: Path, user: Sequence[int], item: Sequence[int], message: str
) -> None:
    write_table(tmp_path / "before", "sasrec", 0, [1.0, 1.0, 1.0])
    write_table(tmp_path / "after", "sasrec", 0, [1.0, 1.0, 1.0], user=user, item=item)
    with pytest.raises(InputError, match=message):
        change_of(tmp_path / "before", tmp_path / "after", "sasrec")


def test_the_table_has_a_row_for_each_cell_of_both_folders(tmp_path: Path, capsys: Capture) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for cell in ("sasrec", "s3rec", "gone"):
        write_table(before, cell, 0, [3.0, 3.0, 3.0])
    for cell in ("sasrec", "s3rec", "new"):
        write_table(after, cell, 0, [1.0, 1.0, 1.0])
    assert common_cells(before, after) == ["s3rec", "sasrec"]
    assert main([str(before), str(after)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[2:] == [
        "| s3rec | 1, 1 | 0.5000 | 1.0000 | +0.5000 (+0.5000 to +0.5000) |",
        "| sasrec | 1, 1 | 0.5000 | 1.0000 | +0.5000 (+0.5000 to +0.5000) |",
        "", "only before: gone", "", "only after: new",
    ]  # fmt: skip
    assert main([str(before), str(after), "--cells", "sasrec"]) == 0
    assert "only" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["0-old", "-1", "x"])
def test_a_folder_that_is_named_by_no_seed_is_refused(tmp_path: Path, name: str) -> None:
    for side in ("before", "after"):
        write_table(tmp_path / side, "sasrec", 0, [1.0, 1.0, 1.0])
    (tmp_path / "after" / "sasrec" / "0").rename(tmp_path / "after" / "sasrec" / name)
    with pytest.raises(InputError, match=f"after/sasrec/{name} holds a table, but '{name}' is no "):
        change_of(tmp_path / "before", tmp_path / "after", "sasrec")


def test_a_folder_without_tables_is_refused(tmp_path: Path, capsys: Capture) -> None:
    assert main([str(tmp_path), str(tmp_path), "--cells", "sasrec"]) == 2
    assert "has no table" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path)]) == 2
    assert "no cell in common" in capsys.readouterr().err

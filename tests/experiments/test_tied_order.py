"""The order of one copy of a data set with the times of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.tied_order import main, with_times
from research.errors import InputError


def test_events_keep_the_order_of_the_histories_and_get_their_times(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 5 3 4\n2 3 5\n")
    (tmp_path / "a.csv").write_text(
        "user,item,timestamp\n1,3,100\n1,5,100\n1,4,200\n2,5,400\n2,3,300\n"
    )
    main([str(tmp_path / "a.txt"), str(tmp_path / "a.csv"), "--out", str(tmp_path / "b.csv")])
    assert (tmp_path / "b.csv").read_text() == (
        "user,item,timestamp\n1,5,100\n1,3,100\n1,4,200\n2,3,300\n2,5,400\n"
    )


@pytest.mark.parametrize(
    ("histories", "events", "refusal"),
    [
        ("1 5 3\n", "1,5,100\n", r"a\.csv has no event of user 1 with item 3"),
        ("1 5\n", "1,5,100\n1,3,100\n", r"a\.txt has no event of user 1 with item 3"),
        ("1 5 5\n", "1,5,100\n", r"a\.txt has user 1 with item 5 more than once"),
        ("1 5\n", "1,5,100\n1,5,200\n", r"a\.csv has user 1 with item 5 more than once"),
    ],
)
def test_two_files_of_other_events_are_refused(
    tmp_path: Path, histories: str, events: str, refusal: str
) -> None:
    (tmp_path / "a.txt").write_text(histories)
    (tmp_path / "a.csv").write_text("user,item,timestamp\n" + events)
    with pytest.raises(InputError, match=refusal):
        with_times(tmp_path / "a.txt", tmp_path / "a.csv")

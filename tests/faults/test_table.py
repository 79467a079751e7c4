"""docs/faults.md and the tests of faults tell of each other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def names_in(path: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_row_names_a_test_and_every_test_of_a_fault_has_a_row() -> None:
    table = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 20
    assert {len(row) for row in rows} == {5}
    named: list[str] = []
    for row in rows:
        found = re.fullmatch(r" (?:`(tests/[\w/]+\.py)`: )?`(test_\w+)` ", row[-1])
        assert found, row[-1]
        if found[1] is None:
            named.append(found[2])
        else:
            assert found[2] in names_in(ROOT / found[1])
    here = [
        name
        for path in sorted(Path(__file__).parent.glob("test_*.py"))
        if path != Path(__file__)
        for name in names_in(path)
    ]
    assert sorted(named) == sorted(here)

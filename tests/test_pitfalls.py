"""What the code cites of docs/pitfalls.md is a heading there; test_readme.py reads the page."""

from __future__ import annotations

import re

from tests import ROOT
from tests.support.source_code import SOURCES

PAGE = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")


def citations(text: str) -> list[str]:
    """The names behind the page's: docs/pitfalls.md, "one" and "another", also over several lines.

    A citation without a name in quotes gives "".
    """
    text = re.sub(r"\s*\n\s*(# ?)?", " ", text)
    lists = re.findall(r'docs/pitfalls\.md((?:(?:, | and |, and )"[^"]+")*)', text)
    return [name for names in lists for name in (re.findall(r'"([^"]+)"', names) or [""])]


def test_citations_are_found_over_lines_and_one_without_a_name_is_empty() -> None:
    text = '# (docs/pitfalls.md, "seen\n    # items" and "ties"); docs/pitfalls.md says "no"'
    assert citations(text) == ["seen items", "ties", ""]


def test_every_pitfall_that_the_code_cites_is_a_heading_of_the_page() -> None:
    headings = re.findall(r"^### (.+)$", PAGE, flags=re.MULTILINE)
    named = [name for path in SOURCES for name in citations(path.read_text(encoding="utf-8"))]
    assert named
    assert set(named) <= set(headings)

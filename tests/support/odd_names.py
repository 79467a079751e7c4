"""Raw ids that break what is read carelessly: separators, quotes, blanks, dashes, new lines."""

from __future__ import annotations

ODD_NAMES = [
    "Björk", '"Weird Al"', "Earth, Wind & Fire", "-1", "--k", "naïve ", "two\nlines", "tab\there",
    "NA", "[red]椎名[/red]",
]  # fmt: skip

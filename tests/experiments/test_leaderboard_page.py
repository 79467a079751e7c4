"""The leaderboard's page: what it has, that no name breaks out of it, and what its script does."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments.results.leaderboard_page import leaderboard_page, words_of
from experiments.results.lines import Value
from experiments.results.tables import Published, table_of, tables_of
from research.storage.records import Machine
from tests.support.result_lines import LINE, PUBLISHED, compared_table

CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """The elements of a page, the text of each table row, and what its scripts contain."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append("")
        if tag in ("script", "tr"):
            self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside == "tr":
            self.rows[-1] += f" {data.strip()}"


def test_the_page_has_every_figure_of_every_table_and_shows_the_best_first() -> None:
    better = replace(
        LINE,
        cell="ease",
        metrics={**LINE.metrics, "ndcg@10": Value(mean=0.06, standard_error=0.005)},
    )
    lines = [LINE, better, replace(LINE, study="ablation", tokens=None)]
    page = Page(leaderboard_page(tables_of(lines, [PUBLISHED])))
    heading, *rows = [" ".join(row.split()) for row in page.rows]
    assert heading.startswith("cell NDCG@10 validation seeds difference published seconds")
    ran = "seed 0 12 a CPU, 2 cores 50 1,000 2026-11-29 1234567 show"
    assert rows[0] == f"ease .0600 ±.0098 .0600 {ran}"
    assert rows[1].endswith("python -m research study board copy the command")
    assert rows[2].startswith(
        "sasrec .0500 ±.0098 .0600 seed 0 .0600 a log Other items. 12 a CPU, 2 cores"
    )
    first, second = json.loads(page.scripts[0])
    assert (first["study"], second["study"]) == ("board", "ablation")
    assert first["metrics"] == ["hr@10", "ndcg@10"]
    mean, half, text = first["rows"][1]["figures"]["hr@10"]
    assert (mean, half, text) == (0.1, 0.0196, ".1000 ±.0196")
    assert first["rows"][1]["published"][0]["figures"] == {
        "hr@10": [0.12, ".1200"],
        "ndcg@10": [0.06, ".0600"],
    }
    assert second["rows"][0]["keys"]["tokens"] is None


def test_the_page_has_the_differences_to_every_base() -> None:
    page = Page(leaderboard_page([compared_table()]))
    rows = [" ".join(row.split()) for row in page.rows[1::2]]
    assert "better .0700 ±.0098 .0600 seed 0 +.0200 ±.0100 NDCG@10 vs sasrec, p .012† 12" in rows[0]
    assert "sasrec .0500 ±.0098 .0600 seed 0 -.0200 ±.0100 NDCG@10 vs better, p .012† 12" in rows[1]
    (table,) = json.loads(page.scripts[0])
    # Rows are sorted by the difference to the first base alone.
    assert {row["cell"]: row["keys"]["difference"] for row in table["rows"]} == {
        "better": 0.02, "sasrec": None, "ease": 0.0
    }  # fmt: skip
    assert table["words"][-1].startswith("Differences are paired by user")


def test_the_page_says_by_which_command_each_seed_was_run() -> None:
    later = replace(LINE, seed=1, date="2026-11-30", clean=False, command="python other.py")
    page = Page(leaderboard_page([table_of([LINE, later, replace(LINE, seed=2)], [])]))
    row, runs = (" ".join(row.split()) for row in page.rows[1:])
    assert "2026-11-29, 2026-11-30 1234567, 1234567 with changes" in row
    assert runs.startswith("Seeds 0, 2: begun 2026-11-29, commit 1234567, on a CPU, 2 cores, Linux")
    assert "Seed 1: begun 2026-11-30, commit 1234567 with changes, on a CPU" in runs


def test_a_protocol_is_told_in_words_and_what_has_none_by_name() -> None:
    protocol = {
        "candidates": "full", "candidates_seed": 0, "corpus": "shop",
        "filters": {"user_core": 5, "min_rating": 3},
        "history": "whole", "part": "test", "seen": "excluded", "ties": "mean",
        "split": {"class": "TemporalCut", "target": "all"}, "novel": 3,
    }  # fmt: skip
    assert words_of(replace(LINE, protocol=protocol)) == [
        "Test, full ranking, seen items excluded, ties in expectation; items after a point in time "
        "are asked for (split TemporalCut(target=all)). 100 users; rankers read whole histories.",
        "Corpus shop, fingerprint abc, filtered by user_core=5, min_rating=3.",
        "novel: 3.",
    ]


HOSTILE = """</script></td><script>alert(1)</script><img src=x onerror="a('b')">"'&amp;\u2028<!--"""


def test_hostile_names_do_not_break_out_of_the_page() -> None:
    line = replace(
        LINE, dataset=HOSTILE, study=HOSTILE, cell=HOSTILE, command=HOSTILE, commit=HOSTILE,
        date=HOSTILE, machine=Machine(platform=HOSTILE, cpu=HOSTILE, cores=1),
        protocol={"split": {"class": HOSTILE}, HOSTILE: HOSTILE, "corpus": HOSTILE},
        metrics={HOSTILE: LINE.metrics["hr@10"]},
    )  # fmt: skip
    figure = Published(
        dataset=HOSTILE, cell=HOSTILE, figures={HOSTILE: 0.5}, source=HOSTILE, difference=HOSTILE
    )
    text = leaderboard_page([table_of([line], [figure])])
    page, plain = Page(text), Page(leaderboard_page([table_of([LINE], [PUBLISHED])]))
    assert set(page.tags) - {"wbr"} == set(plain.tags)
    assert page.tags.count("script") == 2
    assert {name for name, _ in page.attributes} == {name for name, _ in plain.attributes}
    (table,) = json.loads(page.scripts[0])
    assert table["rows"][0]["cell"].replace("\ufffd", "\u2028") == HOSTILE
    # The policy allows the script of the page, by its hash, and no other.
    assert re.findall(r"script-src ([^;]*)", text) == [hash_of_script(page.scripts[1])]


def hash_of_script(text: str) -> str:
    """A script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# What a reader does, and what the page shows after each step.
READER = """
const log = [];
const body = () => document.querySelector("tbody:not([hidden])");
const visible = (rows) => [...rows].filter((row) => !row.hidden);
const tell = () => log.push([
  visible(body().querySelectorAll("tr:not(.more)")).map((row) => row.cells[0].textContent).join(),
  document.getElementById("shown").textContent,
  location.hash,
]);
const set = (name, value) => {
  form.elements[name].value = value;
  form.dispatchEvent(new Event("input"));
  tell();
};
const click = (selector) => { document.querySelector(selector).click(); tell(); };
tell();
click("th[data-key=cell] button");
click("th[data-key=cell] button");
log.push(document.querySelector("th[data-key=cell]").ariaSort);
set("seeds", 2);
set("seeds", 1);
click("th[data-key=validation] button");
log.push([...body().querySelectorAll("td.validation")].map((value) => value.textContent));
click("th[data-key=tokens] button");
set("cell", "AS");
set("metric", "hr@10");
log.push([...body().querySelectorAll(".published div:not([hidden]) .value")].map(
  (value) => value.textContent));
log.push(body().querySelectorAll(".theirs").length);
click("input[name=published]");
log.push(body().querySelectorAll(".theirs").length);
set("dataset", "bikes");
click("tbody:not([hidden]) .button button");
log.push(visible(body().querySelectorAll(".more")).length);
location.hash = "#dataset=shop&study=none&metric=hr@10&sort=seconds,ascending";
setTimeout(() => {
  tell();
  const told = document.createElement("pre");
  told.id = "log";
  told.textContent = JSON.stringify(log);
  document.body.append(told);
}, 300);
"""


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed, which runs the script")
def test_a_reader_filters_sorts_and_shares_a_choice(tmp_path: Path) -> None:
    ease = replace(
        LINE,
        cell="ease",
        tokens=None,
        validation={},
        seconds=3.0,
        metrics={**LINE.metrics, "ndcg@10": Value(mean=0.06, standard_error=0.005)},
    )
    lines = [
        LINE,
        replace(LINE, seed=1),
        ease,
        replace(LINE, cell="gru", seconds=5.0, tokens=7, validation={"ndcg@10": 0.09}),
        replace(LINE, dataset="bikes", study="other"),
    ]
    text = leaderboard_page(tables_of(lines, [PUBLISHED]))
    text = text.replace("script-src ", f"script-src {hash_of_script(READER)} ")
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", f"<script>{READER}</script></body>"), encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/me",
         "--virtual-time-budget=5000", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    (log,) = re.findall(r'<pre id="log">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    board = "#dataset=shop&study=board&metric=ndcg%4010"
    tokens = "sort=tokens%2Cascending"
    assert json.loads(unescape(log)) == [
        ["ease,sasrec,gru", "3 of 3 cells", ""],
        ["ease,gru,sasrec", "3 of 3 cells", f"{board}&sort=cell%2Cascending"],
        ["sasrec,gru,ease", "3 of 3 cells", f"{board}&sort=cell%2Cdescending"],
        "descending",
        ["sasrec", "1 of 3 cells", f"{board}&seeds=2&sort=cell%2Cdescending"],
        ["sasrec,gru,ease", "3 of 3 cells", f"{board}&sort=cell%2Cdescending"],
        # EASE has no validation in these lines, so that it stands last.
        ["gru,sasrec,ease", "3 of 3 cells", f"{board}&sort=validation%2Cdescending"],
        [".0900", ".0600", ""],
        # EASE has no tokens, so that it stands last.
        ["gru,sasrec,ease", "3 of 3 cells", f"{board}&{tokens}"],
        ["sasrec,ease", "2 of 3 cells", f"{board}&cell=AS&{tokens}"],
        ["sasrec,ease", "2 of 3 cells", f"{board.replace('ndcg', 'hr')}&cell=AS&{tokens}"],
        [".1200"],
        1,
        ["sasrec,ease", "2 of 3 cells",
         f"{board.replace('ndcg', 'hr')}&cell=AS&published=no&{tokens}"],
        0,
        ["sasrec", "1 of 1 cells",
         f"#dataset=bikes&study=other&metric=hr%4010&cell=AS&published=no&{tokens}"],
        ["sasrec", "1 of 1 cells",
         f"#dataset=bikes&study=other&metric=hr%4010&cell=AS&published=no&{tokens}"],
        1,
        ["ease,gru,sasrec", "This page does not have study none. 3 of 3 cells",
         "#dataset=shop&study=none&metric=hr@10&sort=seconds,ascending"],
    ]  # fmt: skip

"""The page of a report: safe with any name, complete without a network, readable by machines."""

from __future__ import annotations

import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest

from research.report import plots
from research.report.build import report_of
from research.report.html import breakable, page_of
from research.report.schema import Cosines, Curve, Panel
from tests.support.study_folders import fail_run, write_run, write_study

# What a folder of a run may be called; slashes are refused.
NAMES = (
    "next", "<script>alert(1)<script>", "a_b%$&#{}~^", "$x_{1}$ $",
    '" onload="alert(2)', "x" * 120, "Größe 中文 🎉", "\x1b[31mred",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Page(HTMLParser):
    """Elements with their attributes, visible text, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        # What stands around a possible line break is one text.
        joined = self.texts.pop() if self.elements and self.elements[-1][0] == "wbr" else ""
        self.texts.append(joined + data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study whose names and texts are markup, where they may be."""
    marked = "</td></style><script>alert(3)</script>"
    folder = write_study(
        tmp_path_factory.mktemp("runs") / "<b>study<b>", NAMES, seeds=[0, 1, 2], question=marked,
        budget=marked, command=f"study '{marked}'",
        changes={cell: {f"a.{marked}": [marked, {"class": marked}]} for cell in NAMES[1:]},
    )  # fmt: skip
    for place, cell in enumerate(NAMES):
        for seed in (0, 1):
            lines: list[dict[str, float | str]] = [
                {
                    "stage": marked, "step": step, f"{marked}/loss/{marked}": 3.0 - seed / step,
                    f"{marked}/gradient_norm/{marked}": 1.0, f"{marked}/gradient_norm/b": 1.0,
                    f"{marked}/gradient_cosine/{marked}+b": 0.5, "val/mrr": step / 9,
                }
                for step in (1, 2, 3)
            ]  # fmt: skip
            ranks = [1 + (place + seed) % 3, 2, 4, 9, 1, 2]
            write_run(folder, cell, seed, ranks, lines=lines if place < 2 else ())
    fail_run(folder, "next", 2, marked)
    return page_of(report_of(folder))


@pytest.fixture(scope="module")
def page(hostile: str) -> Page:
    return Page(hostile)


# Safety


def test_a_name_that_is_markup_does_nothing(page: Page) -> None:
    assert page.named("script") == []
    assert len(page.named("style")) == 1 + len(page.named("svg")) - len(swatches(page))
    assert [name for _, each in page.elements for name in each if name.startswith("on")] == []
    # It is there as text.
    text = " ".join(page.texts)
    for name in (NAMES[1], NAMES[2], NAMES[4], "alert(3)", "�[31mred", "Größe 中文 🎉"):
        assert name in text


def swatches(page: Page) -> list[dict[str, str]]:
    """The little lines of the legends."""
    return [each for each in page.named("svg") if each.get("aria-hidden") == "true"]


def test_nothing_of_the_page_lies_elsewhere(hostile: str, page: Page) -> None:
    assert re.findall(r"https?:|//[a-z]", hostile) == []
    assert re.findall(r"@import|url\((?!#)", hostile) == []
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            where = attributes.get(name, "#")
            assert where.startswith("#") or (tag, where) == ("link", "data:,"), (tag, attributes)
    policy = [each for each in page.named("meta") if "http-equiv" in each]
    assert policy[0]["content"].startswith("default-src 'none';")


def test_the_same_model_gives_the_same_page(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next"], seeds=[0])
    write_run(folder, "next", 0, [1, 2, 3, 4, 5, 6])
    assert page_of(report_of(folder)) == page_of(report_of(folder))


# Structure


def test_ids_are_unique_and_what_is_pointed_at_exists(page: Page) -> None:
    ids = [each["id"] for _, each in page.elements if "id" in each]
    assert len(set(ids)) == len(ids)
    pointed = {each["xlink:href"] for _, each in page.elements if "xlink:href" in each}
    assert pointed
    assert {each.removeprefix("#") for each in pointed} <= set(ids)


def test_figures_have_text_alternatives_and_tables_have_scopes(page: Page) -> None:
    figures = [each for each in page.named("svg") if each not in swatches(page)]
    assert len(figures) == len(page.named("figure")) > 5
    for each in figures:
        assert each["role"] == "img"
        assert len(each["aria-label"]) > 10
    assert all(each.get("scope") in ("row", "col") for each in page.named("th"))
    assert len(page.named("h1")) == 1
    assert page.named("html") == [{"lang": "en"}]


def test_the_page_says_the_figures(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next", "better"], seeds=[0], metrics=["mrr"])
    write_run(folder, "next", 0, [1, 2, 4, 4, 1, 2])
    write_run(folder, "better", 0, [1, 1, 2, 2, 1, 1])
    text = " ".join(" ".join(Page(page_of(report_of(folder))).texts).split())
    # 3.5 / 6 and 5 / 6.
    for said in ("0.5833", "0.8333", "+0.2500", "Which head helps?", "6 users"):
        assert said in text
    assert "The study has one seed" in text
    assert "s/films/better/0" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("no-aap_and,rate=0.25", "no-|aap_|and,|rate=|0.25"),
        ("stages.0.objectives.mip", "stages.0.|objectives.|mip"),
        ("PopularityConfig", "Popularity|Config"),
        ("NDCG@10", "NDCG@10"),
        ("<b>a-b</b>", "&lt;b&gt;a-|b&lt;/|b&gt;"),
    ],
)
def test_names_break_where_their_words_meet(name: str, shown: str) -> None:
    assert str(breakable(name)).replace("<wbr>", "|") == shown


def test_curves_are_switched_between_axes_without_a_script(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next"], seeds=[0])
    lines: list[dict[str, float | str]] = [
        {
            "stage": "train", "step": step, "train/loss/next": 3.0, "train/lr": 0.1,
            "train/items": 100 * step, "train/items_per_second": 50.0,
        }
        for step in (1, 2)
    ]  # fmt: skip
    write_run(folder, "next", 0, [1, 2, 3, 4, 5, 6], lines=lines)
    page = Page(page_of(report_of(folder)))
    choices = page.named("input")
    assert [each["id"] for each in choices] == [
        f"{group}-1-{axis}"
        for group in ("curves", "more")
        for axis in ("steps", "tokens", "seconds")
    ]
    assert [each["id"] for each in choices if "checked" in each] == [
        "curves-1-steps",
        "more-1-steps",
    ]
    assert [each["for"] for each in page.named("label")] == [each["id"] for each in choices]
    shown = [each["class"] for each in page.named("div") if "over" in each.get("class", "").split()]
    assert shown == ["over over-1", "over over-2", "over over-3"] * 2


# Figures


STYLES = plots.styles_of(["a", "b"])


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    svg = plots.svg_of(
        plots.dots_figure([plots.Dot("$x_1$ <b>", 0.5, 0.4, 0.6, STYLES["a"])], "MRR $")
    )
    assert ">$x_1$ &lt;b&gt;</text>" in svg
    assert "MRR $" in svg


def test_a_letter_that_the_font_lacks_is_left_to_the_browser() -> None:
    svg = plots.svg_of(plots.dots_figure([plots.Dot("中文 🎉", 0.5, 0.4, 0.6, STYLES["a"])], "MRR"))
    assert "中文 🎉" in svg


def test_cells_are_told_apart_by_more_than_colour() -> None:
    styles = plots.styles_of([str(place) for place in range(30)])
    assert len({(each.dash, each.marker) for each in styles.values()}) == 30
    assert len({(each.colour, each.dash, each.marker) for each in styles.values()}) == 30


def test_curves_of_one_step_are_drawn_and_nothing_measured_is_a_gap() -> None:
    point = Curve("a", (5.0,), (1.0,), (1.0,), (1.0,), 1)
    panel = Panel(("train",), "loss/next", (point,))
    assert plots.svg_of(plots.panel_figure(panel, STYLES)).startswith("<svg")
    found = Cosines("a", "train", ("next", "mip"), ((1.0, None), (None, 1.0)), 1)
    assert plots.svg_of(plots.heat_figure(found)).startswith("<svg")


def test_ids_are_set_apart_but_texts_that_look_like_them_are_not() -> None:
    svg = '<svg><g id="a"><use xlink:href="#a" style="clip: url(#a)"/> id="a" </g></svg>'
    assert plots.with_id_prefix(svg, "f1") == (
        '<svg><g id="f1-a"><use xlink:href="#f1-a" style="clip: url(#f1-a)"/> id="a" </g></svg>'
    )


# In a browser


class Server(http.server.ThreadingHTTPServer):
    """Serves one page under every address and keeps what was asked for."""

    def __init__(self, page: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.page = page.encode()
        self.asked: list[str] = []


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.headers['Host']}{self.path}")
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def served(page: str) -> Iterator[Server]:
    with Server(page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def opened(page: str, folder: Path) -> tuple[list[str], list[str]]:
    """Chromium opens a page: (what it asked of any server, what it said on its console)."""
    assert CHROMIUM is not None
    with served(page) as server:
        port = server.server_address[1]
        command: Sequence[str] = (
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-features=NetworkTimeServiceQuerying",
            # Every name, whatever it is, leads to this server.
            f"--host-resolver-rules=MAP * 127.0.0.1:{port}", "--enable-logging=stderr",
            f"--user-data-dir={folder}", "--virtual-time-budget=3000", "--dump-dom",
            "http://page.test/",
        )  # fmt: skip
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        said = [line for line in answer.stderr.splitlines() if "CONSOLE" in line]
        return server.asked, said


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_asks_for_nothing_else_and_has_nothing_to_say(
    hostile: str, tmp_path: Path
) -> None:
    asked, said = opened(hostile, tmp_path / "profile")
    assert asked == ["page.test/"]
    assert said == []


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_page_that_asks_and_complains_would_be_noticed(tmp_path: Path) -> None:
    bad = '<img src="http://elsewhere.test/x.png"><script>console.error("no")</script>'
    asked, said = opened(bad, tmp_path / "profile")
    assert "elsewhere.test/x.png" in asked
    assert any("no" in line for line in said)

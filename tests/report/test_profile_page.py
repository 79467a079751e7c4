"""The profile of a corpus as sentences and a page, with hostile names and little to draw."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.profile import CorpusProfile, PopularItem, profile_of
from research.report.profile_page import profile_page_of
from research.report.profile_words import sentences_of
from tests.support.synthetic import write_histories

NEW_YEAR = 1_577_836_800
DAY = 86_400
VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = "</title></style><script>alert(1)</script>\x1b[31m$x_1$ " + "y" * 300


class Page(HTMLParser):
    """The tags of a page, with their attributes; every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    histories = [[0, 1, 0, 2, 0], [0, 3, 1], [0], [0]]
    times = [[0, 0, 1, 40, 61], [2, 3, 70], [5], [71]]
    return write_histories(
        tmp_path / "shop",
        histories,
        num_items=5,
        timestamps=[[NEW_YEAR + DAY * day for day in row] for row in times],
        attributes=[[0, 1], [1], [], [1, 2], []],
    )


@pytest.fixture
def profile(corpus: Corpus) -> CorpusProfile:
    return profile_of(corpus)


def test_a_profile_in_words(profile: CorpusProfile) -> None:
    assert sentences_of(profile) == [
        "History lengths: 2.5 in the mean; half of the users have at most 1, one in twenty at most "
        "1, one in twenty at least 5, the longest is 5.",
        "Popularity: of all interactions, 60.0 % are with the top 1 % of items and 60.0 % are with "
        "the top 10 % of items; Gini 0.52; items without any: 1; most popular: i0 (6), "
        "i1 (2), i2 (1).",
        "Repeats: 20.0 % of interactions are with an item that the user had before.",
        "Times: 2020-01 to 2020-03 (71 days), most events in 2020-01 (6); 20.0 % of interactions "
        "have the time of another one of the same user.",
        "Attributes: 3; 40.0 % of items have none; an item has 1.0 in the mean and 2 at most; most "
        "common, by items: a1 (3), a0 (1), a2 (1).",
    ]


def test_what_a_corpus_lacks_is_said(corpus: Corpus) -> None:
    untimed = profile_of(replace(corpus, timestamps=None))
    assert "Times: none; interactions are in the order of the file." in sentences_of(untimed)
    assert corpus.timestamps is not None
    ordered = profile_of(replace(corpus, timestamps=corpus.timestamps - NEW_YEAR))
    assert f"Times: from 0 to {71 * DAY}; 20.0 %" in sentences_of(ordered)[3]
    bare = replace(profile_of(corpus).attributes, attributes=0, most_common=())
    assert sentences_of(replace(untimed, attributes=bare))[-1] == "Attributes: none."


def test_a_page_has_a_figure_a_side_with_a_text_for_it(profile: CorpusProfile) -> None:
    page = Page(profile_page_of(profile, {"users": "4", "removed by min rating": "17"}))
    figures = page.named("svg")
    assert [each["aria-label"].split(".")[0] for each in figures] == [
        "Users by history length", "Popularity of items; dashed, if all were equal",
        "Events a month", "Most common attributes",
    ]  # fmt: skip
    assert all(each["role"] == "img" for each in figures)
    ids = [each["id"] for _, each in page.tags if "id" in each]
    assert len(set(ids)) == len(ids)
    assert all(each.get("scope") in ("row", "col") for each in page.named("th"))
    assert len(page.named("h1")) == 1


def test_a_page_says_its_sentences_and_what_preparation_removed(profile: CorpusProfile) -> None:
    text = profile_page_of(profile, {"removed by min rating": "17"})
    for sentence in sentences_of(profile):
        assert sentence in text
    assert "<dt>removed by min rating</dt><dd>17</dd>" in text
    assert text == profile_page_of(profile, {"removed by min rating": "17"})


def test_popular_items_stand_by_id_and_by_title_where_there_are_titles(
    profile: CorpusProfile,
) -> None:
    assert ">title<" not in profile_page_of(profile, {})
    items = (PopularItem("sku 1", "Cups, blue", 6), PopularItem("sku 2", "", 1))
    titled = replace(profile, most_popular=items)
    text = profile_page_of(titled, {})
    assert '<th scope="row">sku 1</th><td class="text">Cups, blue</td><td>6</td>' in text
    assert "most popular: Cups, blue (6), sku 2 (1)." in sentences_of(titled)[1]


def test_hostile_names_do_nothing_and_nothing_lies_elsewhere(profile: CorpusProfile) -> None:
    attributes = replace(profile.attributes, most_common=((HOSTILE, 3), ("$y$", 1)))
    item = PopularItem(HOSTILE, HOSTILE, 3)
    hostile = replace(profile, name=HOSTILE, attributes=attributes, most_popular=(item,))
    text = profile_page_of(hostile, {HOSTILE: HOSTILE})
    page = Page(text)
    assert page.named("script") == []
    assert [name for _, each in page.tags for name in each if name.startswith("on")] == []
    assert re.findall(r"https?:|//[a-z]|@import|url\((?!#)", text) == []
    policy = [each for each in page.named("meta") if "http-equiv" in each]
    assert policy[0]["content"].startswith("default-src 'none';")


def test_a_page_fits_a_phone_by_the_styles_of_the_report(profile: CorpusProfile) -> None:
    text = profile_page_of(profile, {})
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    # Figures shrink, tables scroll by themselves, and long words break.
    assert "figure svg { display: block; width: 100%; height: auto; }" in text
    body = text[text.index("<body>") :]
    assert body.count("<table>") == body.count('<div class="scroll"')
    assert re.findall(r'style="[^"]*(?<!stroke-)width', body) == []


def test_a_corpus_with_little_has_a_page(tmp_path: Path) -> None:
    corpus = write_histories(
        tmp_path / "one", [[0]], num_items=1, timestamps=[[NEW_YEAR]], attributes=[[]]
    )
    page = Page(profile_page_of(profile_of(corpus), {}))
    # One attribute is named although no item has it.
    assert len(page.named("figure")) == 4
    bare = profile_of(replace(corpus, timestamps=None))
    bare = replace(bare, attributes=replace(bare.attributes, attributes=0, most_common=()))
    assert len(Page(profile_page_of(bare, {})).named("figure")) == 2

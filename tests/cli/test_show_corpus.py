"""The verb `show` of a corpus: its profile in words, and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.data.corpus import Corpus
from tests.support.command_line import command_error, run_command
from tests.support.synthetic import write_histories

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_histories(tmp_path / "c", [[0, 1, 2], [2, 1, 0], [1, 1]], num_items=3)


def test_show_tells_a_corpus_in_words(capsys: Capture, corpus: Corpus) -> None:
    answer = run_command(capsys, "show", corpus.folder)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[-5].startswith("History lengths: 2.7 in the mean; half of the users")
    assert lines[-4].startswith("Popularity: ")
    assert lines[-3] == (
        "Repeats: 12.5 % of interactions are with an item that the user had before."
    )
    assert lines[-2].startswith("Times: from 0 to 2; 0.0 %")
    assert lines[-1].startswith("Attributes: 3; 0.0 % of items have none")


def test_show_writes_a_page_without_the_folders_name(
    capsys: Capture, corpus: Corpus, tmp_path: Path
) -> None:
    page = tmp_path / "pages" / "c.html"
    plain = run_command(capsys, "show", corpus.folder)
    answer = run_command(capsys, "show", corpus.folder, "--html", page)
    assert (answer.code, answer.out) == (0, f"{plain.out}{page}\n")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert corpus.fingerprint[:16] in text
    assert str(corpus.folder) not in text


def test_a_page_that_cannot_be_written_is_refused(
    capsys: Capture, corpus: Corpus, tmp_path: Path
) -> None:
    answer = run_command(capsys, "show", corpus.folder, "--html", tmp_path)
    assert answer.code == 2
    assert f"--html is {tmp_path}, which is a folder; name a file" in answer.err
    (tmp_path / "config.json").write_text("{}")
    message = command_error(capsys, "show", tmp_path, "--html", tmp_path / "p.html")
    assert "--html is for a corpus" in message

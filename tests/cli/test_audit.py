"""The verb `audit`: what it prints, as a person and as a script read it, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.cli.main import main
from research.data.corpus import Corpus
from tests.support.command_line import command_error, run_command
from tests.support.synthetic import write_histories

Capture = pytest.CaptureFixture[str]
USERS, LENGTH = 12, 5
HISTORIES = [[(user + place) % USERS for place in range(LENGTH)] for user in range(USERS)]
TIMES = [[1000 + 100 * place + user for place in range(LENGTH)] for user in range(USERS)]


def clean_corpus(folder: Path) -> Corpus:
    return write_histories(folder, HISTORIES, num_items=USERS, timestamps=TIMES)


def tied_corpus(folder: Path) -> Corpus:
    """A corpus in which every test item has the time of the item before it."""
    times = [[*row[:-1], row[-2]] for row in TIMES]
    return write_histories(folder, HISTORIES, num_items=USERS, timestamps=times)


def test_a_clean_corpus_gives_0_and_says_what_was_checked(capsys: Capture, tmp_path: Path) -> None:
    corpus = clean_corpus(tmp_path / "c")
    answer = run_command(capsys, "audit", corpus.folder)
    assert (answer.code, answer.err) == (0, "")
    lines = [line.rstrip() for line in answer.out.splitlines()]
    assert lines[0] == str(corpus.folder)
    assert lines[-1] == "problem: 0, warning: 0, fine: 16"
    assert all(line.startswith("fine ") for line in lines[1:-1])


def test_a_problem_gives_1_and_stands_first(capsys: Capture, tmp_path: Path) -> None:
    answer = run_command(capsys, "audit", tied_corpus(tmp_path / "c").folder)
    assert (answer.code, answer.err) == (1, "")
    first = answer.out.splitlines()[1]
    assert first.startswith("problem  ties in test")
    assert "100.0 % of the test's held-out items have the time of the item before them" in first


def test_warnings_alone_give_0(capsys: Capture, tmp_path: Path) -> None:
    times = [[time + 10**12 for time in row] for row in TIMES]
    corpus = write_histories(tmp_path / "c", HISTORIES, num_items=USERS, timestamps=times)
    answer = run_command(capsys, "audit", corpus.folder)
    assert answer.code == 0
    assert "problem: 0, warning: 1, fine: 15" in answer.out


def test_a_script_gets_one_json_object(capsys: Capture, tmp_path: Path) -> None:
    corpus = tied_corpus(tmp_path / "c")
    answer = run_command(capsys, "audit", corpus.folder, "--json")
    assert (answer.code, answer.err) == (1, "")
    told = json.loads(answer.out)
    assert (told["kind"], told["problems"], told["warnings"]) == ("corpus", 1, 0)
    assert told["folder"] == str(corpus.folder)
    by_check = {found["check"]: found for found in told["findings"]}
    assert by_check["ties in test"]["numbers"] == {"questions": 12, "tied": 12, "share": 1.0}
    assert by_check["ties in test"]["level"] == "problem"
    assert set(by_check["doubles"]) == {"check", "level", "numbers", "sentence"}


def test_a_corpus_is_found_by_its_name_below_the_data_root(capsys: Capture, tmp_path: Path) -> None:
    corpus = clean_corpus(tmp_path / "corpora" / "mine")
    answer = run_command(capsys, "audit", "mine", "--data-root", tmp_path)
    assert (answer.code, answer.out.splitlines()[0].rstrip()) == (0, str(corpus.folder))


def test_a_corpus_is_checked_under_the_split_that_is_named(capsys: Capture, tmp_path: Path) -> None:
    corpus = tied_corpus(tmp_path / "c")

    def checks_under(*words: str) -> dict[str, str]:
        answer = run_command(capsys, "audit", corpus.folder, "--json", *words)
        return {found["check"]: found["level"] for found in json.loads(answer.out)["findings"]}

    assert checks_under("--split", "LeaveOneOut") == checks_under()
    assert checks_under()["ties in test"] == "problem"
    # One user of twelve is held out for test.
    words = ("audit", corpus.folder, "--json", "--split", "UserHoldout")
    answer = json.loads(run_command(capsys, *words).out)
    numbers = {found["check"]: found["numbers"] for found in answer["findings"]}
    assert numbers["ties in test"] == {"questions": 1, "tied": 1, "share": 1.0}
    assert "ties in test" not in checks_under("--split", "GlobalTemporal")


def test_a_run_is_audited_with_its_corpus(capsys: Capture, tmp_path: Path) -> None:
    corpus, run = tied_corpus(tmp_path / "c"), tmp_path / "run"
    popularity = "baselines.popularity.popularity"
    assert main(["run", popularity, f"corpus={corpus.folder}", "--out", str(run), "--quiet"]) == 0
    answer = run_command(capsys, "audit", run, "--json")
    told = json.loads(answer.out)
    assert (answer.code, told["kind"]) == (1, "run")
    checks = {found["check"]: found["level"] for found in told["findings"]}
    assert checks["corpus"] == "fine"
    assert checks["ties in test"] == "problem"
    message = command_error(capsys, "audit", run, "--split", "GlobalTemporal")
    assert "is a run, which is checked under its own split; leave --split out" in message


def test_names_of_a_corpus_are_shown_without_control_characters(
    capsys: Capture, tmp_path: Path
) -> None:
    names = ["\x1b[31mred", "\x1b[31mRED", *(f"i{item}" for item in range(10))]
    corpus = write_histories(
        tmp_path / "c", HISTORIES, num_items=USERS, timestamps=TIMES, item_names=names
    )
    for further in ([], ["--json"]):
        answer = run_command(capsys, "audit", corpus.folder, *further)
        assert answer.code == 1
        assert "\x1b" not in answer.out
        assert "31mred" in answer.out


def test_what_is_neither_a_run_nor_a_corpus_is_refused(capsys: Capture, tmp_path: Path) -> None:
    message = command_error(capsys, "audit", tmp_path, "--data-root", tmp_path / "data")
    assert "is neither a run folder (config.json) nor a corpus folder (manifest.json)" in message

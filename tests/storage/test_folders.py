"""Runs and corpora below a folder, and what a message says of a path that is no run."""

from __future__ import annotations

from pathlib import Path

import pytest

from research.storage.folders import folders_below, kind_of, what_is_at


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A folder with three runs of a study, a corpus, and a config.json of another program."""
    for run in ("heads/films/next/0", "heads/films/next/10", "heads/films/next/2"):
        write(tmp_path / "runs" / run / "config.json", '{"hash": "abc"}')
    write(tmp_path / "runs" / "heads" / "study.json", "{}")
    write(tmp_path / "data" / "corpora" / "films-1234" / "manifest.json", "{}")
    write(tmp_path / "model" / "config.json", '{"hidden_size": 64}')
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_runs_are_found_in_the_order_of_their_seeds(house: Path) -> None:
    runs = [str(run.relative_to(house / "runs")) for run in folders_below(house, "run")]
    assert runs == ["heads/films/next/0", "heads/films/next/2", "heads/films/next/10"]
    assert list(folders_below(house, "corpus")) == [house / "data" / "corpora" / "films-1234"]


def test_a_config_of_another_program_is_no_run_and_a_damaged_one_is(house: Path) -> None:
    assert kind_of(house / "model") is None
    write(house / "damaged" / "config.json", "{")
    assert kind_of(house / "damaged") == "run"
    assert kind_of(house / "none") is None


def test_hidden_folders_and_the_inside_of_runs_are_left_out(house: Path) -> None:
    write(house / "runs" / ".partial" / "config.json", '{"hash": "abc"}')
    write(house / "runs/heads/films/next/0/earlier/config.json", '{"hash": "abc"}')
    assert len(list(folders_below(house, "run"))) == 3


def test_the_search_ends_at_its_depth(house: Path) -> None:
    assert list(folders_below(house, "run", depth=4)) == []
    assert len(list(folders_below(house, "run", depth=5))) == 3


def test_a_search_that_was_cut_short_says_at_least(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.storage.folders._SEARCHED", 5)
    # The folder of all runs, heads, films and next, then two of three runs.
    cell = house / "runs/heads/films/next"
    assert what_is_at(house / "runs").startswith(f"it holds at least 2 runs: {cell / '0'}, ")
    assert what_is_at(cell).startswith("it holds 3 runs: ")


def test_a_folder_of_runs_names_them(house: Path) -> None:
    runs = house / "runs"
    names = ", ".join(str(runs / f"heads/films/next/{seed}") for seed in (0, 2, 10))
    assert what_is_at(runs) == f"it holds 3 runs: {names}; name one of them"
    study = what_is_at(runs / "heads")
    assert study.endswith(f"; name one of them; `report {runs / 'heads'}` reads the whole study")
    assert "and 1 corpus: " in what_is_at(house)


def test_of_many_runs_eight_are_named(tmp_path: Path) -> None:
    for seed in range(11):
        write(tmp_path / str(seed) / "config.json", '{"hash": "abc"}')
    said = what_is_at(tmp_path)
    assert said.startswith("it holds 11 runs: ")
    assert f"{tmp_path / '7'} and 3 more; name one of them" in said


def test_a_misspelled_folder_gives_near_ones_with_what_follows(house: Path) -> None:
    runs = house / "runs"
    right = runs / "heads/films/next/2"
    assert what_is_at(runs / "haeds/films/next/2") == f"it does not exist; did you mean {right}?"
    near = what_is_at(runs / "haeds/books")
    assert near == f"it does not exist; did you mean {runs / 'heads'}?"


def test_where_no_folder_is_near_those_that_are_there_are_named(house: Path) -> None:
    cell = house / "runs/heads/films/next"
    assert what_is_at(cell / "7") == f"it does not exist; {cell} holds 0, 2, 10"
    assert what_is_at(cell / "0" / "x") == "it does not exist"


def test_what_lies_inside_of_a_run_names_the_run(house: Path) -> None:
    run = house / "runs/heads/films/next/0"
    write(run / "stages/only/step_1/state.json", "{}")
    for inside in (run / "config.json", run / "stages/only"):
        assert what_is_at(inside) == f"it lies inside of the run {run}; name that"


def test_a_file_a_corpus_and_an_empty_folder_are_called_so(house: Path) -> None:
    write(house / "notes.txt", "")
    assert what_is_at(house / "notes.txt") == "it is a file; name a folder"
    assert what_is_at(house / "data/corpora/films-1234").startswith("it is a corpus; ")
    assert what_is_at(house / "model") == "neither a run nor a corpus lies at or below it"

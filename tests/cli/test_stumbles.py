"""What a new user stumbles over: each message says what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import command_error

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of two runs; commands that should refuse it do not read more of a run than this."""
    for seed in (0, 1):
        folder = tmp_path / "runs" / "single" / "films" / "next" / str(seed)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"hash": "abc"}')
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "command",
    [
        "evaluate FOLDER",
        "recommend FOLDER --items 1",
        "export FOLDER --format s3rec --out f.pt",
        "show FOLDER",
        "show FOLDER --cost",
        "audit FOLDER",
    ],
)
def test_a_folder_of_runs_in_place_of_a_run_names_them(
    capsys: Capture, runs: Path, command: str
) -> None:
    below = ", ".join(str(runs / f"single/films/next/{seed}") for seed in (0, 1))
    message = command_error(capsys, *command.replace("FOLDER", str(runs / "single")).split())
    assert message.endswith(f": it holds 2 runs: {below}; name one of them\n")
    misspelled = str(runs / "singel" / "films" / "next" / "1")
    message = command_error(capsys, *command.replace("FOLDER", misspelled).split())
    assert message.endswith(f"did you mean {runs / 'single/films/next/1'}?\n")


def test_report_names_the_study_that_was_meant(capsys: Capture, runs: Path) -> None:
    (runs / "heads" / "films" / "next" / "0").mkdir(parents=True)
    (runs / "heads" / "study.json").write_text("{}")
    heads, ask = runs / "heads", ("--runs", runs)
    assert "; did you mean heads?; studies in" in command_error(capsys, "report", "haeds", *ask)
    inside = command_error(capsys, "report", heads / "films" / "next" / "0", *ask)
    assert f"it lies inside of the study {heads}, name that" in inside
    above = command_error(capsys, "report", runs, "--runs", "none")
    assert f"it holds the studies {heads}, name one of them" in above
    single = command_error(capsys, "report", runs / "single", *ask)
    assert "; it holds 2 runs: " in single
    assert "`show` prints one run" in single


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("run experiments.quickstart", "; type `sixfold study experiments.quickstart`; allowed: "),
        (
            "run experiments.lastfm",
            "; type `sixfold study` with experiments.lastfm.pretraining, experiments.lastfm or "
            "experiments.lastfm.bce\n",
        ),
        ("run experiments.losses:study", "; type `sixfold study experiments.losses:study`\n"),
        ("study baselines.transitions", "type `sixfold run baselines.transitions.transitions`\n"),
        ("study baselines.sasrec.bce", "; type `sixfold run baselines.sasrec.bce`\n"),
        ("run quickstart", "; did you mean `sixfold study experiments.quickstart`?"),
        ("study quikstart", "; did you mean `sixfold study experiments.quickstart`?"),
        ("run S3Rec", "`sixfold run` with baselines.s3rec.published, baselines.s3rec.published_"),
        ("run baselines/transitions.py", "mean `sixfold run baselines.transitions.transitions`?"),
        ("run baselines.sasrek.bce", "; did you mean `sixfold run` with baselines.sasrec.bce, "),
    ],
)
def test_a_wrong_verb_or_target_says_what_to_type(
    capsys: Capture, command: str, instead: str
) -> None:
    assert instead in command_error(capsys, *command.split())

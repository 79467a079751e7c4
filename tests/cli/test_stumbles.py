"""What a new user stumbles over: each message says what to type instead."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

import sixfold as sf
from baselines.popularity import popularity
from research.cli.commands import start_accelerator
from research.cli.main import OTHER_WORDS, STOPPED, main
from research.cli.verbs import VERBS, ListCommand, MachineOptions, TrainingOptions
from research.errors import InputError
from tests import ROOT
from tests.support.command_line import CommandResult, command_error, run_command
from tests.support.synthetic import write_histories

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train x", "sixfold: no verb 'train'; type `sixfold run`\n"),
        ("Show x", "sixfold: no verb 'Show'; did you mean show?\n"),
        ("--verison", "sixfold: no verb '--verison'; did you mean --version?\n"),
        (
            "experiments.losses",
            "sixfold: no verb 'experiments.losses'; type `sixfold study experiments.losses`\n",
        ),
        (
            "baselines.sasrec.bce",
            "sixfold: no verb 'baselines.sasrec.bce'; type `sixfold run baselines.sasrec.bce`\n",
        ),
    ],
)
def test_a_word_that_is_no_verb_says_which_is(capsys: Capture, words: str, message: str) -> None:
    assert run_command(capsys, *words.split()) == CommandResult(2, "", message)


def test_what_other_programs_call_our_verbs_are_no_verbs_of_ours() -> None:
    assert set(OTHER_WORDS.values()) <= set(VERBS)
    assert not set(OTHER_WORDS) & set(VERBS)


def test_the_version_has_the_commit_of_a_checkout(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.cli.version.code_version", lambda: ("a" * 40, False))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2")
    line = f"sixfold 1.2, commit {'a' * 40} (with changes)\n"
    for word in ("--version", "-V", "version"):
        assert run_command(capsys, word) == CommandResult(0, line, "")
    monkeypatch.setattr("research.cli.version.code_version", lambda: (None, None))
    assert run_command(capsys, "--version") == CommandResult(0, "sixfold 1.2\n", "")


class ClosedPipe:
    """Standard output or standard error into a pipe whose reader has gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        self.stream = os.fdopen(writer, "w", buffering=1 if name == "stderr" else -1)
        monkeypatch.setattr(sys, name, self.stream)

    def close(self) -> None:
        """Fails unless what was left to write could go nowhere without an error."""
        self.stream.close()


@pytest.mark.parametrize(
    "words",
    [*((verb, "--help") for verb in VERBS), ("--help",), ("--version",), ("list", "--json")],
)
def test_a_reader_that_closes_the_pipe_gets_no_traceback(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    pipe = ClosedPipe(monkeypatch, "stdout")
    assert main(words) == 1
    pipe.close()


@pytest.mark.parametrize("words", [("show", "none"), ("evalute",), ("run",)])
def test_messages_into_a_closed_pipe_give_no_traceback(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    pipe = ClosedPipe(monkeypatch, "stderr")
    assert main(words) in (1, 2)
    pipe.close()


def test_a_run_that_was_stopped_says_so_into_a_closed_pipe_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stops(*_: object) -> int:
        print("a line that is still buffered")
        raise KeyboardInterrupt

    monkeypatch.setattr(ListCommand, "execute", stops)
    pipe = ClosedPipe(monkeypatch, "stdout")
    assert main(["list"]) == STOPPED
    pipe.close()


def test_a_broken_pipe_that_is_not_the_output_is_told(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise BrokenPipeError(32, "Broken pipe", "fifo")

    monkeypatch.setattr(ListCommand, "execute", fails)
    answer = run_command(capsys, "list")
    assert (answer.code, answer.out) == (1, "")
    assert "Broken pipe: 'fifo'" in answer.err


def test_a_process_whose_reader_goes_away_ends_quietly() -> None:
    command = [sys.executable, "-m", "research", "list", "baselines", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 1


@pytest.fixture
def launched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment that `accelerate launch --cpu --num_processes 2` gives its one process."""
    words = ["--cpu", "--num_processes", "2", "-m", "research", "run"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
        _, environment = prepare_simple_launcher_cmd_env(arguments)
    for name in environment.keys() - os.environ.keys():
        monkeypatch.setenv(name, environment[name])


def start(expect_world: int | None = None) -> None:
    start_accelerator(MachineOptions(device="cpu"), TrainingOptions(expect_world=expect_world))


def test_a_launcher_that_starts_one_process_of_two_is_warned_of(
    capsys: Capture, launched_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    message = capsys.readouterr().err
    assert message.startswith("warning: `accelerate launch` was asked for several processes, but ")
    assert "type `accelerate launch --multi_gpu --num_machines 1 --num_processes 2 -m " in message
    start(expect_world=1)
    monkeypatch.delenv("MASTER_ADDR")
    start()
    assert capsys.readouterr().err == ""


def test_a_process_of_no_launcher_is_not_warned(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    start()
    assert capsys.readouterr().err == ""


def test_what_a_launcher_will_print_is_told_beforehand_by_one_process(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*_: object) -> int:
        raise KeyboardInterrupt("SIGINT")

    monkeypatch.setattr(ListCommand, "execute", stops)
    assert run_command(capsys, "list").err == "\nstopped by SIGINT\n"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("RANK", "0")
    answer = run_command(capsys, "list")
    line = "what `torchrun` prints below is its own way to report exit code 75, often by a long "
    assert answer.code == STOPPED
    assert answer.err == f"\nstopped by SIGINT\n{line}traceback; it means no other error\n"
    monkeypatch.setenv("RANK", "1")
    assert run_command(capsys, "list").err == "\nstopped by SIGINT\n"
    monkeypatch.setenv("RANK", "0")
    assert run_command(capsys, "--version").err == ""


def test_a_misspelled_corpus_gives_those_that_are_prepared(capsys: Capture, tmp_path: Path) -> None:
    write_histories(tmp_path / "corpora" / "films", [[0, 1, 2]], num_items=3)
    run = ("run", "baselines.popularity.popularity", "--data-root", tmp_path, "--corpus")
    message = command_error(capsys, *run, "film")
    assert message.endswith(
        f"corpus is 'film', which is neither in {tmp_path / 'corpora'} (there: films; "
        "--data-root names another root) nor a data set that `sixfold datasets` lists; "
        "did you mean films?\n"
    )
    message = command_error(capsys, *run, tmp_path / "corpora" / "film")
    assert f"did you mean {tmp_path / 'corpora' / 'films'}?; run `prepare` first" in message


def test_out_that_is_something_else_is_refused_before_any_work(
    capsys: Capture, tmp_path: Path, runs: Path
) -> None:
    (tmp_path / "p.txt").write_text("7 10\n7 11\n7 12\n")
    prepare = ("prepare", "pairs", "--raw", tmp_path / "p.txt", "--out")
    for folder in (runs, tmp_path / "p.txt"):
        message = command_error(capsys, *prepare, folder)
        assert f"{folder} exists and is no corpus; choose another folder by --out" in message
    (tmp_path / "empty").mkdir()
    assert run_command(capsys, *prepare, tmp_path / "empty").code == 0
    run = ("run", "baselines.popularity.popularity", "--corpus", tmp_path / "empty", "--out")
    for folder in (tmp_path / "p.txt", tmp_path / "p.txt" / "r"):
        assert f"{folder} cannot be a run folder" in command_error(capsys, *run, folder)


def test_a_corpus_is_called_what_its_folder_is_called(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("7 10\n7 11\n7 12\n")
    prepare = ("prepare", "pairs", "--raw", tmp_path / "p.txt", "--data-root", tmp_path)
    assert run_command(capsys, *prepare).out.split("\n")[0].strip() == "corpus p"
    mine = run_command(capsys, *prepare, "--out", tmp_path / "corpora" / "mine")
    assert mine.out.split("\n")[0].strip() == "corpus mine"
    shown = run_command(capsys, "show", "mine", "--data-root", tmp_path)
    assert shown.out == mine.out
    message = command_error(capsys, "show", "mien", "--data-root", tmp_path)
    assert f"nor a corpus in {tmp_path / 'corpora'}, where `prepare` makes one: " in message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("study own.py", "type `sixfold study own`"),
        ("study ./own.py:deep", "type `sixfold study own:deep`"),
        ("run folder/own.py", "type `sixfold run folder.own`"),
        ("run ../own.py:small", "type its module's name in the folder "),
    ],
)
def test_a_file_in_place_of_a_module_is_told_as_one(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    (tmp_path / "here" / "folder").mkdir(parents=True)
    for place in ("own.py", "here/own.py", "here/folder/own.py"):
        (tmp_path / place).write_text("")
    monkeypatch.chdir(tmp_path / "here")
    assert f" is a file; {told}" in command_error(capsys, *words.split())


def test_the_help_of_an_experiment_names_the_options_of_its_verb(capsys: Capture) -> None:
    said = run_command(capsys, "run", "baselines.sasrec.full_softmax", "--help").out
    assert "\nBeside these fields: --out, --cell and others, see `sixfold run --help`\n" in said
    said = run_command(capsys, "prepare", "csv", "--help").out
    assert "\nBeside these fields: --out and --data-root, see `sixfold prepare --help`\n" in said


def test_a_folder_is_not_both_a_run_and_a_study(capsys: Capture, tmp_path: Path) -> None:
    corpus = write_histories(tmp_path / "films", [[0, 1, 2], [2, 1, 0, 3]], num_items=4).folder
    both = tmp_path / "runs" / "transitions"
    run = ("run", "baselines.popularity.popularity", "--corpus", corpus, "--out", both)
    assert run_command(capsys, *run).code == 0
    with pytest.raises(InputError, match="is the folder of a run, which cannot be a study's too"):
        sf.study({"a": popularity}, corpus, name="transitions", out=tmp_path / "runs")
    sf.study({"a": popularity}, corpus, name="other", out=tmp_path / "runs")
    message = command_error(capsys, *run[:-1], tmp_path / "runs" / "other")
    assert "is the folder of a study, which cannot be a run's too; choose another" in message

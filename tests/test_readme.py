"""What README.md and docs/guide.md say can be typed: commands run, paths and targets exist.

The commands run in an empty folder on generated files and with tiny encoders: offline, in seconds.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import experiments.quickstart as quickstart
import research.cli.commands as commands
import research.data.preparation.prepare as preparation
import research.public.training as training
import research.studies.plan as plan
from research.cli.verbs import VERBS
from research.data.preparation.download import ARCHIVES
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.studies.cost_estimate import CostEstimate
from research.studies.study import Study
from research.studies.tuning import Tuning
from tests import ROOT
from tests.support.bert_configs import ORIGINAL
from tests.support.command_line import run_command
from tests.support.pages import shrunk
from tests.support.s3rec_files import ITEMS, NUM_ATTRIBUTES, published_state
from tests.support.synthetic import markov_histories

README = ROOT / "README.md"
GUIDE = ROOT / "docs" / "guide.md"
Capture = pytest.CaptureFixture[str]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, of both pages."""
    text = "".join(page.read_text(encoding="utf-8") for page in (README, GUIDE))
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def lines_of(block: str) -> list[str]:
    """Commands, without comments and with continued lines joined."""
    joined = block.replace("\\\n", " ").splitlines()
    return [" ".join(shlex.split(line, comments=True)) for line in joined if line.split("#")[0]]


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") for line in lines_of(block) if line]


def command_of(line: str) -> list[str] | None:
    """The arguments of `python -m research ...` or `sixfold ...`; None for other programs."""
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "research"]:
        return words[3:]
    return words[1:] if words[0] == "sixfold" else None


def commands_of_the_pages() -> list[list[str]]:
    found = [command_of(line) for line in shell_lines()]
    return [words for words in found if words is not None]


def test_every_line_of_a_shell_block_is_a_command_that_we_know() -> None:
    assert shell_lines()
    for line in shell_lines():
        assert command_of(line) is not None or line.split()[0] in ("make", "git", "cd", "pip"), line


def test_every_verb_of_the_command_line_is_shown() -> None:
    assert {words[0] for words in commands_of_the_pages()} == set(VERBS)


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][\w-]*)", "\n".join(shell_lines())))
    assert {"quickstart", "test"} <= named <= targets
    quickstart_line = re.search(r"^quickstart:.*\n\t(.*)$", makefile, flags=re.MULTILINE)
    assert quickstart_line is not None
    assert "python -m research study experiments.quickstart " in quickstart_line[1]


def paths_named_in(page: Path) -> list[str]:
    """Names in code quotes that look like a path of the project."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"`([^`\n]+)`", prose)
    top = (
        r"(research|baselines|experiments|tests|docs)/[\w./-]*|[A-Z]+\.(md|cff)|requirements\.lock"
    )
    return sorted({each for each in quoted if re.fullmatch(top, each)})


CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PITFALLS = ROOT / "docs" / "pitfalls.md"
RESULTS = ROOT / "docs" / "results.md"
PAGES = (README, GUIDE, RESULTS, CONTRIBUTING, PITFALLS)


@pytest.mark.parametrize("path", sorted({path for page in PAGES for path in paths_named_in(page)}))
def test_every_path_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_room_and_every_module_of_the_root_stands_in_the_map() -> None:
    named = paths_named_in(CONTRIBUTING)
    rooms = {path.parent for path in (ROOT / "research").rglob("*.py")} - {ROOT / "research"}
    wanted = {f"{path.relative_to(ROOT)}/" for path in rooms}
    wanted |= {f"research/{path.name}" for path in (ROOT / "research").glob("[a-z]*.py")}
    assert wanted <= set(named)


def test_every_file_that_the_map_names_stands_in_its_room() -> None:
    for room, files in re.findall(
        r"^\| `(research/[\w/]*/)` \|(.*)\|$", CONTRIBUTING.read_text(), re.M
    ):
        for name in re.findall(r"`(\w+\.py)`", files):
            assert (ROOT / room / name).is_file(), f"{room}{name}"


def pitfalls() -> dict[str, str]:
    """By the name of each pitfall, what its page says of it."""
    _, *entries = re.split(r"^### ", PITFALLS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    pairs = [entry.split("\n", 1) for entry in entries]
    assert len(dict(pairs)) == len(pairs), "two pitfalls have one name"
    return {name: re.split(r"^## ", text, flags=re.MULTILINE)[0] for name, text in pairs}


def named_tests(text: str) -> list[tuple[str, str]]:
    """(file, function) of every test: `tests/FILE.py`: `test_one`, `test_another`; ..."""
    file, named = "", []
    for quoted in re.findall(r"`(tests/[\w/]+\.py|test_\w+)`", text):
        if quoted.startswith("test_"):
            named.append((file, quoted))
        else:
            file = quoted
    return named


def test_tests_are_found_behind_the_file_that_they_stand_in() -> None:
    text = "`tests/test_a.py`: `test_one`,\n  `test_two`; `tests/b/test_c.py`: `test_three`, `d.py`"
    assert named_tests(text) == [
        ("tests/test_a.py", "test_one"),
        ("tests/test_a.py", "test_two"),
        ("tests/b/test_c.py", "test_three"),
    ]


@pytest.mark.parametrize("name", pitfalls())
def test_a_pitfall_is_told_with_its_source_its_answer_and_tests_that_exist(name: str) -> None:
    text = pitfalls()[name]
    labels = re.findall(r"^- (\w+):", text, flags=re.MULTILINE)
    assert labels == ["Seen", "Here", "Test"]
    told = text.split("- Test:")[1]
    named = named_tests(told)
    assert named or "no test" in told
    for file, function in named:
        source = (ROOT / file).read_text(encoding="utf-8") if file else ""
        assert re.search(rf"^def {function}\(", source, flags=re.MULTILINE), f"{file}: {function}"


def test_what_the_page_of_pitfalls_links_to_stands_in_it() -> None:
    links = re.findall(r"\]\(#([\w-]+)\)", PITFALLS.read_text(encoding="utf-8"))
    assert links
    anchors = {re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in pitfalls()}
    assert set(links) <= anchors


def test_the_data_sets_that_are_named_are_known() -> None:
    named = set(re.findall(r"`(ml-[\w-]+)`", GUIDE.read_text(encoding="utf-8")))
    assert named
    assert named <= set(ARCHIVES)


def histories() -> list[list[int]]:
    """Of 200 items, so that 100 can be drawn beside each history."""
    return markov_histories(num_users=60, num_items=200, length=12, seed=3)


def lay_files(folder: Path) -> None:
    """What the README's commands read: events.csv, ml-1m.zip, bert_config.json, LastFM's files, a
    corpus called ml-100k."""
    rows = [
        f"{user},{1 + item % 12},{place}"
        for user, history in enumerate(histories())
        for place, item in enumerate(history)
    ]
    (folder / "bert_config.json").write_text(json.dumps(ORIGINAL))
    (folder / "events.csv").write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    ratings = "".join(
        f"{user + 1}::{item + 1}::5::{place}\n"
        for user, history in enumerate(histories())
        for place, item in enumerate(history)
    )
    review = {"reviewerID": "A2", "asin": "B1", "overall": 5.0, "unixReviewTime": 1472688001}
    (folder / "All_Beauty_5.json.gz").write_bytes(gzip.compress(json.dumps(review).encode()))
    with zipfile.ZipFile(folder / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", ratings)
        movies = "".join(f"{item}::Film {item} (1990)::Drama\n" for item in range(1, 201))
        archive.writestr("ml-1m/movies.dat", movies)
    # Every item once more, so that all of them are in the catalogue.
    everyone = [*histories(), *(list(range(first, first + 20)) for first in range(0, 200, 20))]
    lines = [
        f"{user} {' '.join(str(item + 1) for item in items)}" for user, items in enumerate(everyone)
    ]
    (folder / "ml-100k.txt").write_text("\n".join(lines) + "\n")
    genres = {str(item): [1 + item % 5] for item in range(1, 201)}
    (folder / "ml-100k_item2attributes.json").write_text(json.dumps(genres))
    prepare(PrepareConfig(source="s3rec", raw=str(folder / "ml-100k.txt")), folder / "ml-100k")
    torch.save(published_state(), folder / "LastFM.pt")
    numbers = [f"{user} {' '.join(str(item) for item in ITEMS)}" for user in range(1, 4)]
    (folder / "LastFM.txt").write_text("\n".join(numbers) + "\n")
    described = {str(item): [1 + item % NUM_ATTRIBUTES] for item in ITEMS}
    (folder / "LastFM_item2attributes.json").write_text(json.dumps(described))


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_client: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The current folder, with the files; runs are tiny, nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    lay_files(tmp_path)

    def execute_tiny(config: RunConfig, *rest: object, **named: object) -> object:
        return execute(shrunk(config), *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(commands, "execute", execute_tiny)
    run_of = Study.run
    monkeypatch.setattr(Study, "run", lambda *given: shrunk(run_of(*given)))
    trial_of = Tuning.trial_run
    monkeypatch.setattr(Tuning, "trial_run", lambda *given: shrunk(trial_of(*given)))
    monkeypatch.setattr(plan, "estimate_cost", lambda *given: CostEstimate({}, 0.0))
    sized = quickstart.sized_for_ml_100k
    monkeypatch.setattr(quickstart, "sized_for_ml_100k", lambda *given: shrunk(sized(*given)))
    # The generated archive is not the pinned one.
    monkeypatch.setattr(preparation, "check_pinned", lambda *given: None)
    yield tmp_path
    for name in {"mine", "depth", "crossed", "rates"} & set(sys.modules):
        del sys.modules[name]


@pytest.mark.long
def test_the_commands_run_in_the_order_in_which_they_stand(capsys: Capture, here: Path) -> None:
    assert commands_of_the_pages()
    for words in commands_of_the_pages():
        answer = run_command(capsys, *words)
        if words[0] == "sync":
            # Nobody is logged in here; tests/tracking/test_sync.py uploads to a server of its own.
            assert answer.code == 2
            assert "wandb login" in answer.err
            continue
        if words[0] == "audit":
            # A tiny run may well not be above popularity, which is a problem to find.
            assert answer.code in (0, 1)
            assert answer.err == ""
            continue
        assert (answer.code, answer.err) == (0, ""), " ".join(words)
    assert len(list((here / "runs").rglob("summary.json"))) >= 3


@pytest.mark.long
def test_the_files_of_ones_own_run_as_their_first_line_says(capsys: Capture, here: Path) -> None:
    files = [block for block in blocks("python") if block.startswith("# ")]
    assert files
    for block in files:
        said = re.match(r"# (\w+\.py):\s+(python -m research .*)\n", block)
        assert said is not None, block
        (here / said[1]).write_text(block)
        words = command_of(said[2])
        assert words is not None
        answer = run_command(capsys, *words)
        assert (answer.code, answer.err) == (0, ""), said[2]


@pytest.mark.long
def test_the_lines_of_python_run_after_the_quickstart(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "execute", commands.execute)
    assert run_command(capsys, "study", "experiments.quickstart").code == 0
    sessions = [block for block in blocks("python") if block.startswith("import sixfold")]
    assert len(sessions) == 2
    for block in sessions:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "ndcg@10" in printed
    assert "similarity" in printed
    assert (here / "recommended.csv").is_file()


def test_the_run_folder_holds_what_is_promised(capsys: Capture, here: Path) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    given = ["run", "baselines.sasrec.full_softmax", "--corpus", "ml-100k", "--out", "r"]
    assert run_command(capsys, *given).code == 0
    for name in ("config.json", "metrics.jsonl", "summary.json"):
        assert f"`{name}`" in text
        assert (here / "r" / name).is_file()
    assert "`ranks/*.npz`" in text
    assert list((here / "r" / "ranks").glob("*.npz"))
    assert "`stages/<name>/step_*/` and `best_*/`" in " ".join(text.split())
    for kept in ("step_*", "best_*"):
        assert [path for path in (here / "r" / "stages" / "train").glob(kept) if path.is_dir()]
    assert not [path for path in (here / "r").rglob("*") if path.suffix in (".pt", ".pkl", ".bin")]


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    import research.cli.main as command_line

    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    said = "Exit codes: 0 done, 1 failed, 2 wrong usage or bad input, 75 stopped"
    assert said in text
    assert said in " ".join((command_line.__doc__ or "").split())
    assert command_line.STOPPED == 75


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_knows_the_targets_without_running_them() -> None:
    import subprocess

    for target in ("quickstart", "test", "lint", "types", "check"):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

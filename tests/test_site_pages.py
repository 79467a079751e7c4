"""What the pages of the site say can be typed, can be typed, in the order in which it stands.

docs/guide.md is executed by test_readme.py, docs/publish.md by test_publish_page.py, the pages that
are cut from CONTRIBUTING.md by test_contributing.py.
"""

from __future__ import annotations

import configparser
import importlib.util
import inspect
import json
import re
import shlex
import shutil
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import experiments.shop as shop
import research.cli.commands as commands
import research.data.preparation.prepare as preparation
import research.public.training as training
import research.studies.plan as plan
from research.cli.verbs import VERBS
from research.config_index import is_config_class
from research.public import names
from research.runs.config import RunConfig
from research.runs.execute import execute
from research.studies.cost_estimate import CostEstimate
from research.studies.study import Study
from research.studies.tuning import Tuning
from tests import ROOT
from tests.support.command_line import run_command
from tests.support.pages import blocks_of, lay_films, lay_shop, printed_by, shrunk

DOCS = ROOT / "docs"
# What `execute` does with a page that needs what the tutorial leaves behind.
PAGES = sorted(
    path
    for pattern in ("index.md", "faq.md", "glossary.md", "concepts/*.md", "howto/*.md")
    for path in DOCS.glob(pattern)
)
TUTORIAL = DOCS / "tutorial.md"
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def execute_tiny(config: RunConfig, *rest: object, **named: object) -> object:
    """`execute` with a config that takes a fraction of a second."""
    return execute(shrunk(config), *rest, **named)  # type: ignore[arg-type]


@pytest.fixture
def small(monkeypatch: Patch) -> Iterator[Patch]:
    """Runs are tiny, nothing is fetched, and W&B knows no account."""
    monkeypatch.setattr(commands, "execute", execute_tiny)
    monkeypatch.setattr(training, "execute", execute_tiny)
    run_of = Study.run
    monkeypatch.setattr(Study, "run", lambda *given: shrunk(run_of(*given)))
    trial_of = Tuning.trial_run
    monkeypatch.setattr(Tuning, "trial_run", lambda *given: shrunk(trial_of(*given)))
    monkeypatch.setattr(plan, "estimate_cost", lambda *given: CostEstimate({}, 0.0))
    # The generated archive is not the pinned one.
    monkeypatch.setattr(preparation, "check_pinned", lambda *given: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield monkeypatch
    sys.modules.pop("rates", None)


@pytest.fixture(scope="module")
def after_the_tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tutorial's file, corpus and run, and the corpora of other pages."""
    folder = tmp_path_factory.mktemp("tutorial")
    lay_shop(folder)
    lay_films(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(training, "execute", execute_tiny)
        training.train("sasrec.full_softmax", "data/corpora/shop", out="runs/shop/sasrec")
    return folder


@pytest.fixture
def here(small: Patch, wandb_client: Patch, after_the_tutorial: Path, tmp_path: Path) -> Path:
    """The current folder, with what the tutorial leaves behind."""
    folder = shutil.copytree(after_the_tutorial, tmp_path / "work")
    small.chdir(folder)
    return folder


def do_line(capsys: Capture, line: str) -> None:
    """Do a line of a shell block, or check what it names where it cannot be done in a test."""
    words = shlex.split(line, comments=True)
    if words[:3] == ["python", "-m", "experiments.shop"]:
        assert shop.main(words[3:]) == 0
        return
    if words[:2] == ["pip", "install"]:
        return
    assert words[0] == "sixfold", line
    answer = run_command(capsys, *words[1:])
    if words[1] == "sync":
        # Nobody is logged in here.
        assert (answer.code, "wandb login" in answer.err) == (2, True)
        return
    # What an audit or a doctor finds is no failure of the page.
    allowed = (0, 1) if words[1] in ("audit", "doctor") else (0,)
    assert answer.code in allowed, f"{line}: {answer.err}"
    assert answer.err == "", line


def do_page(capsys: Capture, path: Path) -> None:
    """Execute a page's blocks in order; its Python is one session, a titled block a file."""
    names: dict[str, object] = {}
    for language, title, content in blocks_of(path.read_text(encoding="utf-8")):
        if language == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                do_line(capsys, line)
        elif title:
            Path(title).write_text(content)
        elif language == "python":
            capsys.readouterr()
            exec(compile(content, str(path), "exec"), names)
            told = capsys.readouterr()
            assert told.err == ""
            if expected := printed_by(content):
                assert told.out.splitlines() == expected


@pytest.mark.long
def test_the_tutorial_runs_from_an_empty_folder(
    capsys: Capture, small: Patch, tmp_path: Path
) -> None:
    small.chdir(tmp_path)
    do_page(capsys, TUTORIAL)
    page = tmp_path / "runs" / "shop" / "report.html"
    assert "Who is ahead?" in page.read_text(encoding="utf-8")
    assert (tmp_path / "recommended.csv").is_file()


@pytest.mark.long
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_runs_after_the_tutorial(capsys: Capture, here: Path, path: Path) -> None:
    do_page(capsys, path)


def test_blocks_are_told_apart_by_language_and_title() -> None:
    page = '```sh\nls\n```\ntext\n```python title="a.py"\nx = 1\n```\n```text\nno\n```\n'
    assert blocks_of(page) == [
        ("sh", "", "ls\n"), ("python", "a.py", "x = 1\n"), ("text", "", "no\n"),
    ]  # fmt: skip
    assert printed_by("print(1)  # 1\nx = 2  # two\n# 3\n") == ["1", "3"]


def test_every_block_of_a_page_is_executed_or_says_that_it_is_text() -> None:
    for path in [*PAGES, TUTORIAL]:
        text = path.read_text(encoding="utf-8")
        blocks = blocks_of(text)
        assert len(blocks) * 2 == len(re.findall("^```", text, flags=re.MULTILINE)), path
        titled = [title for _, title, _ in blocks if title]
        assert titled == {"serving": ["serve.py"], "tuning": ["rates.py"]}.get(path.stem, []), path
        assert {language for language, _, _ in blocks} <= {"sh", "python", "text"}, path


def test_every_verb_and_every_extra_that_a_page_names_exists() -> None:
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    extras = set(options["options.extras_require"])
    for path in [*PAGES, TUTORIAL]:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"`sixfold (\w+)", text)) <= set(VERBS), path
        assert set(re.findall(r"'\.\[(\w+)\]'", text)) <= extras, path


def test_extras_are_installed_in_one_way_and_stand_in_one_table() -> None:
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    # `report` is the name that `workspaces` had.
    extras = set(options["options.extras_require"]) - {"report"}
    table = (DOCS / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == extras
    for path in DOCS.rglob("*.md"):
        assert "sixfold[" not in path.read_text(encoding="utf-8"), path


def test_the_server_answers_and_refuses(here: Path) -> None:
    ((_, _, code),) = (
        block
        for block in blocks_of((DOCS / "howto" / "serving.md").read_text(encoding="utf-8"))
        if block[1] == "serve.py"
    )
    names: dict[str, object] = {"__name__": "serve"}
    exec(compile(code, "serve.py", "exec"), names)
    server_of = names["server_of"]
    assert callable(server_of)
    server = server_of("runs/shop/sasrec", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        known = ask(address, {"history": ["i9", "i24", "none"], "k": 3})
        assert [each["ranked_by"] for each in known["items"]] == ["run"] * 3
        assert not {"i9", "i24"} & {each["item"] for each in known["items"]}
        assert known["unknown"] == 1
        nobody = ask(address, {"history": ["none"], "k": 2})
        assert [each["ranked_by"] for each in nobody["items"]] == ["popularity"] * 2
        for wrong in ({}, {"history": "i9"}, {"history": ["i9"], "k": 0}, [], None):
            with pytest.raises(urllib.error.HTTPError) as refused:
                ask(address, wrong)
            with refused.value as answer:
                assert answer.code == 400
                assert json.loads(answer.read())["error"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(address: str, asked: object) -> dict[str, list[dict[str, object]]]:
    """What the server answers to a JSON value."""
    request = urllib.request.Request(address, data=json.dumps(asked).encode())
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        told: dict[str, list[dict[str, object]]] = json.loads(answer.read())
        return told


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The module that writes the reference; it needs no MkDocs."""
    path = DOCS / "building" / "reference.py"
    spec = importlib.util.spec_from_file_location("site_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_link_within_the_reference_leads_to_a_heading(reference: ModuleType) -> None:
    python, configs = reference.python_page(), reference.configs_page()
    headings = {name.lower() for name in re.findall(r"^## (\w+)$", configs, flags=re.MULTILINE)}
    links = set(re.findall(r"\((?:configs\.md)?#([^)]*)\)", python + configs))
    assert {"tpe", "tunedcell", "runconfig"} <= links
    assert links <= headings


def test_every_public_name_has_an_entry_of_its_kind(reference: ModuleType) -> None:
    page = reference.python_page()
    headings = set(re.findall(r"^## sf\.(\w+)$", page, flags=re.MULTILINE))
    listed = set(re.findall(r"^- \[sf\.(\w+)\]", page, flags=re.MULTILINE))
    functions = {name for name in names.__all__ if inspect.isfunction(getattr(names, name))}
    assert {"tune", "export", "import_hub", "with_stage"} <= functions <= headings
    assert "sf.tune(\n" in page
    assert headings.isdisjoint(listed)
    assert headings | listed == set(names.__all__)
    assert {name for name in listed if not is_config_class(getattr(names, name))} == set()


def test_the_page_of_commands_shows_brackets_fields_and_single_percent_signs(
    reference: ModuleType,
) -> None:
    page = reference.command_line_page()
    assert "%%" not in page
    assert "'%d.%m.%Y %H:%M'" in page
    assert "usage: sixfold list [-h] [KIND ...] " in page
    assert "usage: sixfold datasets [-h] [NAME] " in page
    assert "usage: sixfold recommend [-h] [OPTIONS] RUN\n" in page
    assert "--user_column  str" in page


def test_every_path_that_a_page_names_exists() -> None:
    for path in [*PAGES, TUTORIAL]:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"`((?:research|baselines|experiments|tests|docs)/[\w./-]+)`", text)
        assert [name for name in named if not (ROOT / name).exists()] == [], path

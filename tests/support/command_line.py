"""Runs commands of `sixfold` in this process, and writes a small data set for them, the shop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from research.cli.main import main
from research.data.corpus import Corpus
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import prepare
from tests.support.synthetic import markov_histories

# Overrides that make any of our runs take a fraction of a second.
TINY = (
    "encoder.length=6", "encoder.width=8", "encoder.layers=1", "encoder.feed_forward=8",
    "stages.0.epochs=2", "stages.0.batches.sequences_per_batch=32", "stages.0.optimizer.lr=0.01",
)  # fmt: skip
NUM_ITEMS = 40


@dataclass(frozen=True)
class CommandResult:
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> CommandResult:
    """Run `sixfold ARGUMENTS`; its exit code may be returned or raised as SystemExit."""
    capsys.readouterr()
    try:
        code = main([str(each) for each in arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    return CommandResult(code, said.out, said.err)


def command_error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail as a user's mistake does, and return its error message.

    Such a command ends with exit code 2, prints one line on standard error and nothing else.
    """
    answer = run_command(capsys, *arguments)
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.startswith(f"sixfold {arguments[0]}: "), answer.err
    assert answer.err.count("\n") == 1, answer.err
    return answer.err


def raw_id(item: int) -> str:
    """Return the raw id, in the shop's files, of the item with a dense id."""
    return f"B{item + 100}"


def write_shop(folder: Path, *, num_users: int = 80, seed: int = 5) -> Path:
    """Write the shop as a pair of RecBole files, and return the path of its interactions.

    There are 40 items, `B100` to `B139`, with the titles `Film 0` to `Film 39`, and `num_users` + 4
    users.
    """
    folder.mkdir(parents=True, exist_ok=True)
    histories = markov_histories(num_users=num_users, num_items=NUM_ITEMS, length=10, seed=seed)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, history in enumerate(histories):
        lines += [f"u{user}\t{raw_id(item)}\t{place}" for place, item in enumerate(history)]
    # Four more users have ten items each, so that every item is in the catalogue.
    lines += [f"more{item // 10}\t{raw_id(item)}\t{item}" for item in range(NUM_ITEMS)]
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    titles = [f"{raw_id(item)}\tFilm {item}" for item in range(NUM_ITEMS)]
    (folder / "shop.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")
    return folder / "shop.inter"


def shop_corpus(folder: Path, *, seed: int = 5) -> Corpus:
    """Prepare the shop in `folder`/shop, and return its corpus."""
    raw = write_shop(folder / "raw", seed=seed)
    return prepare(PrepareConfig(source="atomic", raw=str(raw)), folder / "shop")


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Return the content of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def snapshot_of(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    """Return modification time (ns) and content of every file below a folder, by its path.

    Two snapshots are equal only if nothing was written in between: a run that trains or ranks again
    writes its files anew, even where it comes to the same bytes.
    """
    return {
        name: ((folder / name).stat().st_mtime_ns, content)
        for name, content in files_of(folder).items()
    }


def table_rows(out: str) -> list[list[str]]:
    """Return the cells of every row of the tables with vertical lines in an output."""
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]

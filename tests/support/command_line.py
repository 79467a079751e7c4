"""Calls of the command line within this process, and a small shop to call it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from research.cli.main import main
from research.data.corpus import Corpus
from research.data.preparation.filters import PrepareConfig
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
    """What a call gave."""

    code: int
    out: str
    err: str


def run_command(capsys: pytest.CaptureFixture[str], *arguments: object) -> CommandResult:
    """`sixfold ARGUMENTS`, whether it returns its exit code or raises it."""
    capsys.readouterr()
    try:
        code = main([str(each) for each in arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    return CommandResult(code, said.out, said.err)


def command_error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a call is refused, with exit code 2 and nothing on stdout."""
    answer = run_command(capsys, *arguments)
    assert (answer.code, answer.out) == (2, ""), answer
    assert answer.err.startswith(f"sixfold {arguments[0]}: "), answer.err
    assert answer.err.count("\n") == 1, answer.err
    return answer.err


def raw_id(item: int) -> str:
    """The raw id of the shop's item: not its dense id."""
    return f"B{item + 100}"


def write_shop(folder: Path, *, num_users: int = 80, seed: int = 5) -> Path:
    """A RecBole file pair: 40 items `B100` ... titled `Film 0` ..., 84 users."""
    folder.mkdir(parents=True, exist_ok=True)
    histories = markov_histories(num_users=num_users, num_items=NUM_ITEMS, length=10, seed=seed)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, history in enumerate(histories):
        lines += [f"u{user}\t{raw_id(item)}\t{place}" for place, item in enumerate(history)]
    # Every item occurs, so that each of them is in the catalogue.
    lines += [f"more{item // 10}\t{raw_id(item)}\t{item}" for item in range(NUM_ITEMS)]
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    titles = [f"{raw_id(item)}\tFilm {item}" for item in range(NUM_ITEMS)]
    (folder / "shop.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")
    return folder / "shop.inter"


def shop_corpus(folder: Path, *, seed: int = 5) -> Corpus:
    """The shop, prepared in `folder`/shop."""
    raw = write_shop(folder / "raw", seed=seed)
    return prepare(PrepareConfig(source="atomic", raw=str(raw)), folder / "shop")


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder and what is in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def snapshot_of(folder: Path) -> Mapping[str, tuple[int, bytes]]:
    """The modification time (ns) and the content of every file below a folder, by its path.

    Two snapshots are equal only if nothing was written in between: a run that trains or ranks again
    writes its files anew, even where it comes to the same bytes.
    """
    return {
        name: ((folder / name).stat().st_mtime_ns, content)
        for name, content in files_of(folder).items()
    }


def table_rows(out: str) -> list[list[str]]:
    """The rows of the tables with vertical lines in an output."""
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in row] for row in rows]

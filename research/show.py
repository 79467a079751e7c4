"""`show`: what a run or corpus folder holds, as a person would ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast, final

import numpy as np
from rich.console import Console, HighlighterType, JustifyMethod, OverflowMethod
from rich.style import Style
from rich.table import Table
from rich.text import Text

from research.data.corpus import Corpus
from research.errors import InputError
from research.foreign import plain
from research.tracking import RunFolder

Nested = Mapping[str, object]
# Wider than any table of ours.
WIDE = 1000


def show(path: str) -> int:
    """Print a run's figures or a corpus's facts; `InputError` for any other folder."""
    folder = Path(path)
    if (folder / "manifest.json").is_file():
        show_corpus(Corpus.open(folder))
    elif (folder / "config.json").is_file():
        show_run(folder)
    else:
        raise InputError(
            f"{path} is neither a run folder (config.json) nor a corpus folder (manifest.json)"
        )
    return 0


def show_corpus(corpus: Corpus) -> None:
    """Sizes, filters, ties, fingerprint; `InputError` when an array was changed."""
    corpus.verify()
    lengths = np.diff(corpus.offsets)
    table = Table(title=f"corpus {corpus.name}", show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", overflow="fold")
    rows: dict[str, object] = {
        "users": f"{corpus.num_users:,}",
        "items": f"{corpus.num_items:,}",
        "interactions": f"{corpus.num_interactions:,}",
        "attributes": f"{corpus.num_attributes:,}",
        "history length (mean / median / longest)": f"{lengths.mean():.1f} / "
        f"{np.median(lengths):.0f} / {lengths.max()}",
        "timestamps": "yes" if corpus.timestamps is not None else "no",
        "fingerprint": corpus.fingerprint[:16],
        "folder": corpus.folder,
    }
    rows |= flattened(cast(Nested, corpus.manifest["report"]))
    for name, value in rows.items():
        table.add_row(name, text_of(value))
    plain_console().print(table)


def show_run(folder: Path) -> None:
    """Status, figures, cost; `InputError` when the folder's files are not those of a run."""
    reader = RunFolder(folder, writes=False)
    # What was written by an earlier version is refused here.
    reader.read("config.json")
    try:
        _show_run(reader)
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: summary.json or metrics.jsonl is damaged or of another program ({error!r})"
        ) from error


def _show_run(reader: RunFolder) -> None:
    folder = reader.path
    summary = reader.read("summary.json")
    if summary is None:
        lines = reader.metrics()
        last = plain(f"{lines[-1]['stage']}, step {lines[-1]['step']}") if lines else ""
        state = last or "not begun"
        print(f"{folder}: not finished ({state}); the command that began it continues it")
        return
    table = Table()
    test = cast(Mapping[str, Mapping[str, float]], summary["test"])
    val = cast(Mapping[str, float], summary["val"])
    # A split may hold nothing out for validation.
    figures = {"validation, full": val} if val else {}
    figures |= {f"test, {candidates}": values for candidates, values in test.items()}
    table.add_column("metric")
    for part in figures:
        table.add_column(part, justify="right")
    for name in next(iter(test.values())):
        table.add_row(name, *(f"{values[name]:.4f}" for values in figures.values()))
    console = wide_console()
    # Not as the table's title, which would break the path into lines.
    console.print(str(folder))
    console.print(table)
    facts = flattened({name: summary[name] for name in ("best", "cost", "users", "missed_share")})
    facts |= flattened({"attributes": summary["attributes"]}) if "attributes" in summary else {}
    for stage, account in cast(Nested, summary.get("carried", {})).items():
        facts[f"carried into {stage}"] = carried_line(cast(Nested, account))
    facts["fingerprint"] = str(summary["fingerprint"])[:16]
    facts |= {"ties": summary["ties"]} if "ties" in summary else {}
    for name, value in facts.items():
        console.print(f"{name}: {value}")
    for note in cast(list[object], summary.get("notes", [])):
        console.print(f"note: {note}")


def carried_line(account: Nested) -> str:
    """How many parameters a stage got from where; their names stand in summary.json."""
    moved = cast(Mapping[str, list[str]], account["moved"])
    parts = [f"{len(names)} from {source}" for source, names in moved.items()]
    new, left = cast(list[str], account["new"]), cast(list[str], account["left"])
    parts += [f"{len(new)} newly made", f"{len(left)} left behind"]
    for kind, counts in cast(Mapping[str, Mapping[str, int]], account["rows"]).items():
        parts.append(f"{kind}: {text_of(counts)}")
    return ", ".join(parts)


@final
class PlainConsole(Console):
    """A console that takes text as it stands, and obeys nothing in it.

    Names of items, cells and corpora come from strangers, who may write to a terminal what it would
    carry out. Every text on its way to the screen, a table's too, passes `render_str`.
    """

    def render_str(
        self,
        text: str,
        *,
        style: str | Style = "",
        justify: JustifyMethod | None = None,
        overflow: OverflowMethod | None = None,
        emoji: bool | None = None,
        markup: bool | None = None,
        highlight: bool | None = None,
        highlighter: HighlighterType | None = None,
    ) -> Text:
        """As rich has it, of plain lines, without markup or highlights."""
        return Text(
            "\n".join(map(plain, text.split("\n"))),
            style=style,
            justify=justify,
            overflow=overflow,
        )


def plain_console() -> Console:
    """A console for text; without a terminal to fit it is as wide as needed."""
    console = PlainConsole()
    if not console.is_terminal:
        console.width = WIDE
    return console


def wide_console() -> Console:
    """As `plain_console`, but a narrow terminal wraps a table's lines rather than lose figures."""
    console = plain_console()
    console.width = WIDE
    return console


def text_of(value: object) -> str:
    """A value as a person reads it: a list has a line an entry."""
    if isinstance(value, list):
        return "\n".join(text_of(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text_of(each)}" for name, each in value.items())
    return f"{value:.4f}" if isinstance(value, float) else plain(str(value))


def flattened(values: Nested, prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, names joined by a space."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        label = plain(f"{prefix}{name.replace('_', ' ')}")
        if isinstance(value, Mapping):
            flat |= flattened(cast(Nested, value), f"{label} ")
        else:
            flat[label] = value
    return flat

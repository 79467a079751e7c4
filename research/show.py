"""`show`: what a run or corpus folder holds, as a person would ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from rich.console import Console
from rich.table import Table

from research.data.corpus import Corpus
from research.errors import InputError
from research.tracking import RunFolder

Nested = Mapping[str, object]


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
    """Sizes, filters, ties, fingerprint."""
    lengths = np.diff(corpus.offsets)
    table = Table(title=f"corpus {corpus.name}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
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
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)


def show_run(folder: Path) -> None:
    """Status, figures, cost."""
    reader = RunFolder(folder, writes=False)
    summary = reader.read("summary.json")
    if summary is None:
        lines = reader.metrics()
        state = f"{lines[-1]['stage']}, step {lines[-1]['step']}" if lines else "not begun"
        print(f"{folder}: not finished ({state}); the command that began it continues it")
        return
    table = Table(title=str(folder))
    test = cast(Mapping[str, Mapping[str, float]], summary["test"])
    val = cast(Mapping[str, float], summary["val"])
    columns = list(next(iter(test.values())))
    table.add_column("part")
    table.add_column("candidates")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_row("validation", "full", *(f"{val[name]:.4f}" for name in columns))
    for candidates, values in test.items():
        table.add_row("test", candidates, *(f"{values[name]:.4f}" for name in columns))
    console = Console()
    console.print(table)
    facts = flattened({name: summary[name] for name in ("best", "cost", "users", "missed_share")})
    facts["fingerprint"] = str(summary["fingerprint"])[:16]
    for name, value in facts.items():
        console.print(f"{name}: {value}", markup=False, highlight=False)


def flattened(values: Nested, prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, names joined by a space."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            flat |= flattened(cast(Nested, value), f"{label} ")
        else:
            flat[label] = value
    return flat

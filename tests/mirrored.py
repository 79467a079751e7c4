"""Run folders written by hand, and servers that answer nobody, for the tests of W&B mirrors."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from research.config import to_json
from research.run import RunConfig
from research.tracking import RunFolder, Tracking
from tests.configs import CONFIGS

KEY = "0123456789" * 4
SHORT = Tracking(init_seconds=1.0, finish_seconds=2.0)
DATASET = {"name": "shop", "users": 3, "items": 9}
SUMMARY: dict[str, Any] = {
    "status": "finished",
    "val": {"ndcg@10": 0.25},
    "test": {"full": {"hr@10": 0.5}, "uniform-100": {"hr@10": 0.75}},
    "best": {
        "first": {"epoch": None, "value": None, "epochs": 3, "steps": 6},
        "second": {"epoch": 2, "value": 0.25, "epochs": 4, "steps": 8},
    },
    "cost": {"parameters": 12, "seconds": 1.5},
    "versions": {"torch": "2"},
}
LINES = [("first", 1), ("first", 2), ("second", 1), ("second", 2), ("second", 3)]


def stored_of(config: RunConfig | None = None) -> dict[str, Any]:
    """config.json of a run on the shop; by default with the stages `first` and `second`."""
    told = to_json(config or CONFIGS["two stages"]())
    return {"hash": "00ff", "fingerprint": "f1", "dataset": DATASET, "start": {}, "config": told}


def write_run(
    path: Path,
    lines: Sequence[tuple[str, int]] = LINES,
    summary: Mapping[str, Any] | None = SUMMARY,
    config: RunConfig | None = None,
) -> Path:
    """A run folder with a line for each (stage, step), whose loss is half its step."""
    folder = RunFolder(path)
    folder.write("config.json", stored_of(config))
    for stage, step in lines:
        folder.log(stage, step, 0, {f"{stage}/loss": step / 2})
    if summary is not None:
        folder.write("summary.json", summary)
    return path


@contextmanager
def silent_server(kind: str) -> Iterator[str]:
    """The address of a port where nobody listens (`dead`), or that never answers (`hanging`)."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if kind == "hanging":
            listener.listen(64)
        else:
            listener.close()
        yield f"http://127.0.0.1:{port}"

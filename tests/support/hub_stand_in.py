"""A stand-in for the Hugging Face Hub, which keeps what is pushed in a folder."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest


class Hub:
    """The calls of the Hub's client that push and pull make."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, object]] = []

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        self.calls.append((name, private))
        assert exist_ok
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        assert commit_message
        for path in Path(folder_path).iterdir():
            target = self.folder / repo_id / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    def snapshot_download(
        self, name: str, *, revision: str | None, local_dir: Path, allow_patterns: list[str]
    ) -> None:
        self.calls.append((name, revision))
        if not (self.folder / name).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such place")
        local_dir.mkdir()
        for path in (self.folder / name).iterdir():
            assert path.name in allow_patterns
            (local_dir / path.name).write_bytes(path.read_bytes())


def stand_in_for_the_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Hub:
    """Put the stand-in in the place of the client, with a token."""
    hub = Hub(folder)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "stand-in")
    return hub

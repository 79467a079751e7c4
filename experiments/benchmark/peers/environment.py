"""Virtual environments for peers, made once from pinned requirements, outside the project."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
# The requirements and the script of each peer.
PEERS: Mapping[str, tuple[str, str]] = {
    "rectools": ("rectools.txt", "experiments.benchmark.peers.rectools_side"),
    "fast": ("rectools.txt", "experiments.benchmark.peers.fast_side"),
    "recbole": ("recbole.txt", "experiments.benchmark.peers.recbole_side"),
}
# What the table calls each side.
TITLES: Mapping[str, str] = {
    "ours": "ours",
    "rectools": "RecTools",
    "fast": "RecTools fast",
    "recbole": "RecBole",
}
# The line of a requirements file: a package and its exact version.
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.]*)")
DONE = "installed"


def pins_of(text: str) -> dict[str, str]:
    """The version of each package of a requirements file.

    Raises `ValueError` for a line that is no exact pin.
    """
    pins = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = PIN.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"line {number} is {line!r}; each line must be NAME==VERSION")
        pins[match[1].lower()] = match[2]
    return pins


def environment_folder(peer: str, root: Path) -> Path:
    """The folder of a peer's environment: its name has a hash of the pins and of the Python."""
    file = PEERS[peer][0]
    pins = sorted(pins_of((FOLDER / file).read_text(encoding="utf-8")).items())
    text = f"{pins} {sys.version_info[:2]}"
    return root / f"{Path(file).stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def python_of(peer: str, root: Path) -> Path:
    """The Python of a peer's environment, which is made first if it is not there.

    An environment whose installation was interrupted is made anew. `subprocess.CalledProcessError`
    when pip cannot install the pins.
    """
    folder = environment_folder(peer, root)
    python = folder / "bin" / "python"
    if (folder / DONE).is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"installing {peer} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    requirements = str(FOLDER / PEERS[peer][0])
    command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", requirements]
    subprocess.run([*command, "--disable-pip-version-check"], check=True)
    (folder / DONE).touch()
    return python

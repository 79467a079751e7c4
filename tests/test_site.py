"""The site is built without a warning, and what its pages link to is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from research.config_index import config_classes
from research.model.backbone import BackboneConfig
from research.public import names
from tests import ROOT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        find_spec("mkdocs") is None, reason="mkdocs is not installed; `make docs` installs it"
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


class Links(HTMLParser):
    """Collects what a page links to or loads, and the ids that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.loaded: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif value and (name == "src" or (name == "href" and tag in ("a", "link"))):
                self.targets.append(value)
                if name == "src" or tag == "link":
                    self.loaded.append(value)


def test_every_link_leads_to_a_page_and_a_place_that_exist(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    wrong = []
    for path, links in pages.items():
        for target in links.targets:
            address, place = urldefrag(unquote(target))
            if re.match(r"[a-z]+:", address):
                continue
            # The page for what is not found may be shown anywhere, so its links begin at the root.
            start = site if address.startswith("/") else path.parent
            file = (start / address.lstrip("/")).resolve() if address else path
            file = file / "index.html" if file.is_dir() else file
            there = file.is_file() and (
                not place or file.suffix != ".html" or place in pages[file].ids | {"__skip"}
            )
            wrong += [] if there else [f"{path.relative_to(site)}: {target}"]
    assert wrong == []


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        outside = [each for each in Links(path).loaded if re.match(r"(https?:)?//", each)]
        assert outside == [], path


def test_the_reference_has_every_public_name_and_every_field(site: Path) -> None:
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert [name for name in names.__all__ if f"sf.{name}" not in python] == []
    configs = (site / "reference" / "configs.html").read_text(encoding="utf-8")
    for kind in config_classes(BackboneConfig):
        assert f'id="{kind.__name__.lower()}"' in configs
    for field in ("norm_eps", "patience_steps", "mask_last_share", "user_core", "budget"):
        assert f"<code>{field}</code>" in configs, field


def test_drawings_are_set_into_their_pages(site: Path) -> None:
    for name in ("packed", "objectives", "stages", "protocols", "statistics"):
        page = (site / "concepts" / f"{name}.html").read_text(encoding="utf-8")
        assert page.count('<figure class="drawing"') == 1
        assert "drawings/" not in page

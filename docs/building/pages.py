"""What MkDocs calls while it builds the site (mkdocs.yml, `hooks`).

Pages that stand elsewhere are added (CONTRIBUTING.md, CHANGELOG.md, the reference), paths of the
project in code quotes become links, and drawings are set into their pages, so that they follow the
colours of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# What pages of docs/ show, or link to, by its path in the project.
SHOWN = (
    "experiments/report.png",
    "experiments/benchmark.svg",
    "experiments/results/LastFM-objectives-lastfm.svg",
    "experiments/results/LastFM-other-users.svg",
    "experiments/results/leaderboard.html",
    "experiments/results/objectives-lastfm.html",
)
# Pages of the site by the paths that the project's texts call them by.
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
EXAMPLES = "## Add something of your own\n"
# What a page that is cut from CONTRIBUTING.md says first, where other pages of the site have more.
FIRST = {
    "an-objective": """
First see whether [ContrastConfig](../concepts/objectives.md#contrast) does what you want:
operators, similarity and temperature are its fields. Cloze and the next item have
[losses and masks](../reference/configs.md) to choose from.
""",
    "a-study": """
Several factors at once are [a factorial study](../guide.md#factorial-studies). Values that are
searched, with as many trials for every cell, are [a tuning](../howto/tuning.md).
[Statistics](../concepts/statistics.md#how-many-seeds) says how many seeds to take.
""",
}
FENCE = re.compile(r"^```python (\w+\.py)$", flags=re.MULTILINE)
QUOTED = re.compile(r"(?<!\[)`(docs/[\w./-]+|CONTRIBUTING\.md|CHANGELOG\.md)`")
DRAWING = re.compile(r'<p><img alt="([^"]*)" src="(?:\.\./)*drawings/(\w+)\.svg" ?/?></p>')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and other files that are not in docs/."""
    pages = {
        "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        **contributing_pages((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")),
        "reference/python.md": reference.python_page(),
        "reference/configs.md": reference.configs_page(),
        "reference/command-line.md": reference.command_line_page(),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path in SHOWN:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def contributing_pages(text: str) -> dict[str, str]:
    """CONTRIBUTING.md cut into pages: one for each thing to add, and one for all else."""
    before, _, after = text.partition(EXAMPLES)
    examples, mark, rest = after.partition("\n## ")
    introduction, *sections = re.split(r"^### ", examples, flags=re.MULTILINE)
    pages = {"contributing.md": before + mark.lstrip("\n") + rest}
    for section in sections:
        heading, _, body = section.partition("\n")
        name = re.sub(r"\W+", "-", heading.lower()).strip("-")
        body = FENCE.sub(r'```python title="\1"', body)
        first = FIRST.get(name, "")
        pages[f"extending/{name}.md"] = f"# {heading} of your own\n{first}{introduction}\n{body}"
    return pages


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn paths of the project into links of the site."""
    here = posixpath.dirname(page.file.src_uri)

    def link(found: re.Match[str]) -> str:
        path = ELSEWHERE.get(found[1], found[1].removeprefix("docs/"))
        if files.get_file_from_path(path) is None:
            return found[0]
        return f"[{found[0]}]({posixpath.relpath(path, here or '.')})"

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    texts = [each if each.startswith("```") else QUOTED.sub(link, each) for each in blocks]
    return "".join(texts).replace("](../experiments/", "](experiments/")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set drawings into the page."""

    def drawing(found: re.Match[str]) -> str:
        svg = (ROOT / "docs" / "drawings" / f"{found[2]}.svg").read_text(encoding="utf-8")
        return f'<figure class="drawing" role="img" aria-label="{found[1]}">{svg}</figure>'

    return DRAWING.sub(drawing, html)

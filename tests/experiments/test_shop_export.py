"""A shop's own export goes from CSV to recommendations with titles, in the commands of its page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from experiments import shop_export
from research.data.corpus import Corpus
from tests.support.command_line import run_command


def commands_of(page: str) -> list[list[str]]:
    """The words of each command of an experiment's docstring, after `python -m MODULE`."""
    text = page[page.index("Command:") + len("Command:") :]
    joined = re.sub(r"\n(?! *python) +", " ", text)
    return [shlex.split(line)[3:] for line in joined.splitlines() if "python -m" in line]


@pytest.mark.long
def test_an_export_becomes_recommendations_with_titles_in_four_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write, prepare, run, recommend = commands_of(shop_export.__doc__ or "")
    assert shop_export.main([*write, "--users", "40", "--items", "30"]) == 0
    lines = Path("data/export/events.csv").read_text().splitlines()[1:]

    answer = run_command(capsys, *prepare)
    assert (answer.code, answer.err) == (0, "")
    corpus = Corpus.open(prepare[prepare.index("--out") + 1])
    report = corpus.manifest.report
    dropped, doubles = report["rows_dropped_as_missing"], report["duplicates"]
    assert isinstance(dropped, int)
    assert isinstance(doubles, dict)
    assert dropped > 0
    assert doubles["removed"] == doubles["exact_doubles_among_them"] > 0
    assert corpus.num_interactions + dropped + doubles["removed"] == len(lines)
    assert corpus.item_titles is not None
    assert corpus.item_titles[corpus.item_names.index("SKU-0003")].endswith('"No. 3", Beer Gardens')
    assert "category:Books, Maps" in corpus.attribute_names
    # Times with two zones and with none are those of the same clock, an hour apart.
    assert corpus.timestamps is not None
    first = corpus.timestamps[corpus.offsets[:-1]]
    assert set((first - shop_export.FIRST).tolist()) <= {0, 3600, 7200}

    short = ["stages.0.steps=2", "stages.1.steps=2", "--threads", "1", "--quiet"]
    kept = [word for word in run if not word.startswith("stages.")]
    answer = run_command(capsys, *kept, *short)
    assert (answer.code, answer.err) == (0, "")
    answer = run_command(capsys, *recommend)
    assert answer.code == 0
    assert '"No. ' in answer.out

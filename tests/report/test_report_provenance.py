"""What a report says of how its runs came about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from research.report.build import report_of
from research.report.html import page_of
from research.report.provenance import dataset_line
from research.storage.records import DatasetRecord, Machine, Provenance
from tests.support.configs import CONFIGS
from tests.support.records import run_record, write_as_json
from tests.support.study_folders import write_run, write_study

MACHINE = Machine(platform="Linux-6", cpu="A processor", cores=8)
ENTRY = Provenance(
    begun="2026-11-01T10:00:00Z", commit="c0ffee", clean=True, machine=MACHINE, processes=1,
    versions={"python": "3.11", "torch": "2.13"}, command="python -m research study mine",
)  # fmt: skip


def study_in(folder: Path, *entries: tuple[Provenance, ...]) -> Path:
    """A study of a cell for each tuple of entries, one seed each."""
    cells = [f"cell{number}" for number in range(len(entries))]
    write_study(folder, cells, seeds=[0])
    for cell, provenance in zip(cells, entries):
        path = write_run(folder, cell, 0, [1, 2, 3, 4, 5, 6])
        record = run_record(CONFIGS["sasrec, full softmax"]())
        write_as_json(path, replace(record, provenance=provenance))
    return folder


def test_what_all_runs_share_is_said_once(tmp_path: Path) -> None:
    (corpus,) = report_of(study_in(tmp_path / "s", (ENTRY,), (ENTRY,))).corpora
    facts = {fact.name: fact.values for fact in corpus.facts}
    assert facts["commit"] == ("c0ffee (as committed)",)
    assert facts["machine"] == ("Linux-6, A processor, 8 cores, no accelerator",)
    assert facts["versions"] == ("python 3.11, torch 2.13",)
    assert facts["command"] == ("python -m research study mine",)
    assert facts["begun"] == ("2026-11-01T10:00:00Z",)
    (fingerprint,) = facts["corpus fingerprint"]
    assert facts["corpus"][0].startswith("films: ")
    page = page_of(report_of(tmp_path / "s"))
    assert "c0ffee (as committed)" in page
    assert fingerprint in page


def test_what_differs_says_of_how_many_runs_it_is_true(tmp_path: Path) -> None:
    later = replace(ENTRY, begun="2026-11-02T10:00:00Z", commit="beef", clean=False)
    folder = study_in(tmp_path / "s", (ENTRY,), (ENTRY, later), (Provenance(),))
    facts = {fact.name: fact.values for fact in report_of(folder).corpora[0].facts}
    assert facts["commit"] == (
        "c0ffee (as committed) (2 of 3 runs)", "beef (with changes) (1 of 3 runs)",
        "unknown (1 of 3 runs)",
    )  # fmt: skip
    assert facts["begun"] == ("2026-11-01T10:00:00Z to 2026-11-02T10:00:00Z",)


def test_runs_of_a_version_that_kept_none_say_unknown(tmp_path: Path) -> None:
    facts = {
        fact.name: fact.values for fact in report_of(study_in(tmp_path / "s", ())).corpora[0].facts
    }
    assert (facts["commit"], facts["begun"], facts["machine"]) == (("unknown",),) * 3


def test_a_seed_of_ties_is_told_among_the_filters_though_it_is_0() -> None:
    filters = {"min_rating": None, "user_core": 0, "duplicates": "exact"}
    plain = DatasetRecord(
        name="shop", users=3, items=5, interactions=7, attributes=0, filters=filters
    )
    assert dataset_line(plain).endswith("; filters: duplicates exact")
    drawn = replace(plain, filters={**filters, "tie_seed": 0})
    assert dataset_line(drawn).endswith("; filters: duplicates exact, tie_seed 0")
    rated = replace(plain, filters={"min_rating": 0.0, "user_core": 0, "item_core": 5})
    assert dataset_line(rated).endswith("; filters: min_rating 0.0, item_core 5")

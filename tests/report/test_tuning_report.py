"""What a report says of a tuning: trials by cell, the budget curve, the winner, importances."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.console import wide_console
from research.errors import InputError
from research.report.build import report_of
from research.report.html import page_of
from research.report.terminal import print_report
from research.report.tuning import budget_curve, budget_words, row_of, tuning_of
from research.storage.records import write_record
from research.storage.tuning_records import (
    TrialRecord,
    TrialState,
    TunedCellRecord,
    TuningRecord,
)
from tests.support.study_folders import write_run, write_study

Capture = pytest.CaptureFixture[str]


def trial(number: int, state: TrialState, value: float | None = None) -> TrialRecord:
    return TrialRecord(
        number=number,
        state=state,
        value=value,
        parameters={"lr": 0.00123456, "loss": "sampled<b>"},
        error="FloatingPointError: nan" if state == "failed" else None,
    )


NEXT = TunedCellRecord(
    corpus="films",
    cell="next",
    trials=(
        trial(0, "failed"),
        trial(1, "complete", 0.2),
        trial(2, "pruned", 0.5),
        trial(3, "complete", 0.1),
        trial(4, "complete", 0.3),
        trial(5, "complete", 0.3),
    ),
    importances={"lr": 0.75, "loss": 0.25},
)
OTHER = TunedCellRecord(
    corpus="films", cell="other", trials=(trial(0, "failed"), trial(1, "running"))
)


def write_tuned(folder: Path) -> Path:
    """A study of two cells, and its tuning.json."""
    study = write_study(folder / "heads", ["next", "other"], seeds=[0, 1])
    for cell in ("next", "other"):
        for seed in (0, 1):
            write_run(study, cell, seed, [1, 2, 3, 4, 5, 99])
    record = TuningRecord(
        name="heads",
        metric="ndcg@10",
        trials=6,
        sampler="by TPE after 10 at random",
        pruner="none",
        seed=7,
        fresh_seeds=(0, 1),
        importance="PED-ANOVA",
        cells=(NEXT, OTHER),
        command="python -m research tune mine",
    )
    write_record(study, record)
    return study


def test_the_budget_curve_is_the_best_complete_value_so_far() -> None:
    assert list(budget_curve(NEXT)) == [(2, 0.2), (5, 0.3), (6, 0.3)]
    assert list(budget_curve(OTHER)) == []
    row = row_of(NEXT, 6)
    assert [row.best_after(number) for number in range(7)] == [
        None, None, 0.2, 0.2, 0.2, 0.3, 0.3
    ]  # fmt: skip
    assert budget_words(row, 6) == "0.2000 after 2, 0.2000 after 4, 0.3000 after 6"


def test_a_row_counts_trials_by_how_they_ended() -> None:
    row = row_of(NEXT, 6)
    assert (row.complete, row.pruned, row.failed, row.left) == (4, 1, 1, 0)
    # Of two equal ones the first.
    assert (row.best, row.winner) == (0.3, 4)
    assert row.values == (("lr", "0.001235"), ("loss", "sampled<b>"))
    other = row_of(OTHER, 6)
    assert (other.best, other.winner, other.failed, other.left) == (None, None, 1, 5)
    assert other.errors == ("trial 0: FloatingPointError: nan",)


def test_the_terminal_tells_the_trials_of_each_cell(tmp_path: Path, capsys: Capture) -> None:
    print_report(report_of(write_tuned(tmp_path), figures=False), wide_console())
    out = capsys.readouterr().out
    assert (
        "Each tuned cell had 6 trials on each corpus, drawn by TPE after 10 at random, with seed "
        "7; pruned: none."
    ) in " ".join(out.split())
    rows = [line.split() for line in out.splitlines() if line.startswith(("next ", "other "))]
    assert ["next", "6", "1", "1", "0", "0.3000", "4"] in rows
    assert ["other", "1", "0", "1", "5"] in rows
    assert "next: lr 0.001235, loss sampled<b>" in out
    assert "importance: lr 75 %, loss 25 %" in out
    assert "failed: trial 0: FloatingPointError: nan" in out


def test_the_page_shows_the_budget_curve_and_importances(tmp_path: Path) -> None:
    page = page_of(report_of(write_tuned(tmp_path)))
    assert "<h2>How the cells were tuned</h2>" in page
    assert "Best validation NDCG@10 after n trials" in page
    assert "next: 0.2000 after 2, 0.2000 after 4, 0.3000 after 6" in page
    assert "Importance of parameters, next" in page
    assert "lr 75 %, loss 25 %" in page
    assert "sampled&lt;b&gt;" in page
    assert "sampled<b>" not in page


def test_a_study_that_was_not_tuned_has_no_such_part(tmp_path: Path) -> None:
    study = write_tuned(tmp_path)
    (study / TuningRecord.FILE).unlink()
    report = report_of(study)
    assert report.tuning is None
    assert "How the cells were tuned" not in page_of(report)


def test_a_tuning_of_other_cells_is_refused(tmp_path: Path) -> None:
    study = write_tuned(tmp_path)
    with pytest.raises(InputError, match=r"has trials of cell other, which the study beside it"):
        tuning_of(study, ("next",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("trials", "6", "trials is '6'; allowed: int"), ("name", "../x", "cannot be the name")],
)
def test_a_damaged_record_is_refused_by_its_field(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    study = write_tuned(tmp_path)
    path = study / TuningRecord.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InputError) as caught:
        report_of(study)
    assert message in str(caught.value)
    assert "finished trials are not repeated" in str(caught.value)

"""The model of a report: what it reads of a study's folder, compares, and cannot say."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest

from baselines.popularity import popularity
from baselines.transitions import transitions
from research.errors import InputError
from research.evaluation.ties import TiePolicy
from research.report.build import report_of
from research.report.caveats import title_of
from research.report.learning_curves import cosines, mean_curve
from research.report.schema import ProtocolTable, Report, SharedStage
from research.runs.execute import RunOptions, execute
from research.storage.json_files import read_json
from research.storage.records import FailureRecord
from research.storage.untrusted import printable, short_text
from tests.support.command_line import shop_corpus
from tests.support.configs import CONFIGS
from tests.support.records import HASH, run_record, write_as_json
from tests.support.study_folders import begin_run, fail_run, table_of, write_run, write_study

# MRR 3.25 / 6, 3 / 6; and better for every user with either seed.
BASE = ([1, 2, 4, inf, 1, 2], [1, 2, 4, inf, 1, 4])
BETTER = ([1, 1, 2, 4, 1, 1], [1, 1, 2, 4, 1, 2])


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """`next` and `better` with two seeds each."""
    folder = write_study(tmp_path / "heads", ["next", "better"])
    for seed in (0, 1):
        write_run(folder, "next", seed, BASE[seed])
        write_run(folder, "better", seed, BETTER[seed])
    return folder


def only_table(report: Report) -> ProtocolTable:
    ((table,),) = (corpus.tables for corpus in report.corpora)
    return table


def tied_study(folder: Path, *policies: str) -> Path:
    """A cell of one seed for each policy, whose six answers share the places 1 and 2."""
    cells = [f"cell{place}" for place in range(len(policies))]
    write_study(folder, cells, seeds=[0])
    for cell, ties in zip(cells, policies):
        path = write_run(folder, cell, 0, [1.5] * 6)
        table = replace(table_of([1.5] * 6), ties=np.ones(6, np.int32))
        table.save(path / "ranks" / "test-full.npz")
        on_validation = replace(table, protocol={**table.protocol, "part": "validation"})
        on_validation.save(path / "ranks" / "validation-full.npz")
        config = CONFIGS["sasrec, full softmax"]()
        evaluation = replace(config.evaluation, ties=ties)
        write_as_json(path, run_record(replace(config, evaluation=evaluation)))
    return folder


# What becomes of ties


@pytest.mark.parametrize(
    ("ties", "hit", "words"),
    [("expected", 0.5, "ties in expectation"), ("mean", 0.0, "ties at their mean rank")],
)
def test_a_report_has_the_policy_of_its_runs_and_names_it(
    ties: TiePolicy, hit: float, words: str, tmp_path: Path
) -> None:
    report = report_of(tied_study(tmp_path / "s", ties, ties))
    table = only_table(report)
    assert report.ties == ties
    assert table.title == f"test, full ranking, seen items excluded, {words}"
    assert [figure.estimate.mean for figure in table.figures("hr@1").values()] == [hit, hit]
    # MRR of 1 and 1/2, or of 1.5.
    reciprocal = 0.75 if ties == "expected" else 1 / 1.5
    assert report.corpora[0].runs[0].value == pytest.approx(reciprocal, rel=1e-15)
    buckets = table.slicings[0].buckets
    assert buckets[0].estimates["cell0"].mean == pytest.approx(reciprocal, rel=1e-15)
    assert report.corpora[0].notes == ()


def test_runs_of_two_policies_are_reported_by_one_which_the_report_says(tmp_path: Path) -> None:
    folder = tied_study(tmp_path / "s", "mean", "expected", "mean")
    report = report_of(folder)
    figures = only_table(report).figures("hr@1")
    assert [figure.estimate.mean for figure in figures.values()] == [0.5, 0.5, 0.5]
    assert report.corpora[0].notes == (
        "Every figure of the tables is computed anew from ranks, ties in expectation; the "
        "summaries and learning curves of cell0, cell2 use the other policy (evaluation.ties).",
    )
    asked = report_of(folder, ties="mean")
    assert asked.ties == "mean"
    assert (
        "ties at their mean rank; the summaries and learning curves of cell1 use"
        in asked.corpora[0].notes[0]
    )


# What is compared


def test_a_figure_is_a_mean_over_users_and_seeds(study: Path) -> None:
    table = only_table(report_of(study))
    base, better = (table.figures("mrr")[cell] for cell in ("next", "better"))
    assert base.estimate.mean == pytest.approx((3.25 / 6 + 3.0 / 6) / 2, rel=1e-12)
    assert better.estimate.mean == pytest.approx((4.75 / 6 + 4.25 / 6) / 2, rel=1e-12)
    assert (base.estimate.seeds, base.estimate.users) == (2, 6)
    assert table.figures("hr@1")["next"].estimate.mean == pytest.approx(2 / 6, rel=1e-12)


def test_a_cell_is_compared_to_the_base_seed_by_seed(study: Path) -> None:
    figures = only_table(report_of(study)).figures("mrr")
    assert figures["next"].comparison is None
    comparison = figures["better"].comparison
    assert comparison is not None
    assert comparison.difference == pytest.approx((1.5 / 6 + 1.25 / 6) / 2, rel=1e-12)
    assert figures["better"].corrected == comparison.p
    assert (figures["better"].place, figures["next"].place) == (1, 2)


def test_every_metric_has_figures_and_comparisons_of_its_own(study: Path) -> None:
    figures = only_table(report_of(study)).figures("hr@1")
    comparison = figures["better"].comparison
    assert comparison is not None
    # Two of six users move to rank 1 with seed 0, one with seed 1.
    assert comparison.difference == pytest.approx((2 / 6 + 1 / 6) / 2, rel=1e-12)


def test_p_is_corrected_over_the_cells_of_the_table(tmp_path: Path) -> None:
    cells = ["base", "a", "b", "c"]
    folder = write_study(tmp_path / "s", cells, seeds=[0])
    draws = np.random.default_rng(0)
    base = draws.integers(1, 20, 200)
    for place, cell in enumerate(cells):
        write_run(folder, cell, 0, np.maximum(1, base - place * draws.integers(0, 2, 200)).tolist())
    figures = only_table(report_of(folder)).figures("mrr")
    found = [figures[cell].comparison for cell in "abc"]
    first, second, third = sorted(each.p for each in found if each is not None)
    corrected = sorted(figures[cell].corrected or 0.0 for cell in "abc")
    expected = [3 * first, max(3 * first, 2 * second), max(3 * first, 2 * second, third)]
    assert corrected == pytest.approx([min(1.0, each) for each in expected], rel=1e-12)
    assert figures["c"].significant
    assert figures["c"].mark == "†"


def test_equal_means_share_a_place(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["a", "b", "c"], seeds=[0])
    for cell, ranks in {"a": [1, 2, 3], "b": [3, 1, 2], "c": [4, 4, 4]}.items():
        write_run(folder, cell, 0, ranks)
    figures = only_table(report_of(folder)).figures("mrr")
    assert [figures[cell].place for cell in "abc"] == [1, 1, 3]


def test_seeds_that_one_side_lacks_are_not_compared_and_that_is_said(
    study: Path, tmp_path: Path
) -> None:
    write_study(study, ["next", "better", "half"])
    write_run(study, "half", 1, BASE[1])
    table = only_table(report_of(study))
    comparison = table.figures("mrr")["half"].comparison
    assert comparison is not None
    # Its only seed has the base's ranks with that seed, though not the base's mean.
    assert (comparison.difference, comparison.seeds) == (0.0, 1)
    assert table.rows[2].seeds == (1,)
    # A mean over its one seed is no better or worse than means over two.
    assert table.figures("mrr")["half"].place is None
    assert table.notes == (
        "One seed alone: half. The intervals there are over users alone and say nothing of how "
        "another seed would come out, unlike those of the other cells.",
        "half is compared on the seeds that both have: 1; over users alone, as one seed says "
        "nothing of others.",
        "Not ranked by validation, for want of one or of a seed: half.",
    )


def test_a_cell_without_a_seed_of_the_base_is_not_compared(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next", "other"])
    write_run(folder, "next", 0, BASE[0])
    write_run(folder, "other", 1, BASE[1])
    table = only_table(report_of(folder))
    assert table.figures("mrr")["other"].comparison is None
    assert "none, so there is no comparison" in table.notes[0]


@pytest.mark.parametrize("base", ["next", "popularity"])
def test_a_ranker_that_only_counts_stands_against_all_seeds(tmp_path: Path, base: str) -> None:
    cells = ["next", "popularity"] if base == "next" else ["popularity", "next"]
    folder = write_study(tmp_path / "s", cells)
    write_run(folder, "next", 0, BASE[0])
    write_run(folder, "next", 1, BASE[1])
    write_run(folder, "popularity", 0, [4, 4, 4, 4, 4, 4], counts=True)
    report = report_of(folder)
    comparison = only_table(report).figures("mrr")[cells[1]].comparison
    assert comparison is not None
    sign = 1 if base == "popularity" else -1
    assert comparison.difference == pytest.approx(sign * (6.25 / 12 - 0.25), rel=1e-12)
    assert comparison.seeds == 2
    # Nothing of it is missing.
    assert report.corpora[0].notes == ()
    assert report.corpora[0].costs[cells.index("popularity")].missing == ()


# Protocols


def test_rows_of_different_protocols_stand_in_different_tables(study: Path) -> None:
    write_study(study, ["next", "better", "kept"])
    for seed in (0, 1):
        write_run(study, "kept", seed, BETTER[seed], seen="kept")
    (corpus,) = report_of(study).corpora
    assert [[row.cell for row in table.rows] for table in corpus.tables] == [
        ["next", "better"],
        ["kept"],
    ]
    assert [table.has_base for table in corpus.tables] == [True, False]
    assert corpus.tables[1].figures("mrr")["kept"].comparison is None
    assert corpus.tables[1].figures("mrr")["kept"].corrected is None
    (note,) = corpus.notes
    assert "not compared (candidates full): seen is 'excluded' for next, better; 'kept'" in note
    assert corpus.tables[1].notes == ("The base, next, is not in this table: nothing is compared.",)


def test_the_table_of_the_base_comes_first(study: Path) -> None:
    write_study(study, ["next", "better"], base="better")
    write_run(study, "better", 0, BETTER[0], seen="kept")
    write_run(study, "better", 1, BETTER[1], seen="kept")
    assert [table.rows[0].cell for table in report_of(study).corpora[0].tables] == [
        "better", "next",
    ]  # fmt: skip


def test_other_candidates_have_a_table_of_their_own_without_slices(study: Path) -> None:
    for cell in ("next", "better"):
        for seed in (0, 1):
            table = table_of([1, 1, 1, 2, 1, 1], candidates="uniform-5")
            table.save(study / "films" / cell / str(seed) / "ranks" / "test-uniform-5.npz")
    full, sampled = report_of(study).corpora[0].tables
    assert (full.candidates, sampled.candidates) == ("full", "uniform-5")
    words = "test, ranked among uniform-5, seen items excluded, ties in expectation"
    assert sampled.title == words
    assert full.slicings
    assert sampled.slicings == ()


def test_a_table_of_held_out_items_alone_says_so() -> None:
    protocol = {"part": "test", "candidates": "cold", "seen": "excluded"}
    assert title_of(protocol, "expected") == (
        "test, ranked among the held-out items alone (cold), seen items excluded, ties in "
        "expectation"
    )


# What is not there


def test_failed_unfinished_and_missing_runs_are_told_apart(study: Path) -> None:
    write_study(study, ["next", "better", "worse"], seeds=[0, 1, 2])
    fail_run(study, "worse", 0, "ValueError: no room\nat line 3")
    begin_run(study, "worse", 1)
    (corpus,) = report_of(study).corpora
    cost = corpus.costs[2]
    assert (cost.done, cost.failed, cost.unfinished, cost.missing) == ((), (0,), (1,), (2,))
    assert (cost.seconds, cost.items, cost.parameters) == (None, None, None)
    lines = {(run.cell, run.seed): run for run in corpus.runs}
    assert lines["worse", 0].error == "ValueError: no room"
    assert lines["worse", 0].status == "failed"
    assert lines["next", 0].value == pytest.approx(3.25 / 6, rel=1e-12)
    assert lines["next", 0].folder == "heads/films/next/0"
    assert corpus.notes == (
        "1 of 9 runs failed: worse/0.",
        "1 of 9 runs have not finished: worse/1.",
        "3 of 9 runs have not begun: next/2, better/2, worse/2.",
    )


def test_cells_that_were_best_at_their_end_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next", "better", "counted"], seeds=[0, 1])
    for cell, seed, epoch in (("next", 0, 9), ("next", 1, 12), ("better", 0, 3), ("better", 1, 11)):
        results = {
            "pretrain": {"epoch": 5, "value": 0.1, "epochs": 5, "steps": 9, "skipped": 0},
            "finetune": {"epoch": epoch, "value": 0.1, "epochs": 12, "steps": 9, "skipped": 0},
        }
        write_run(folder, cell, seed, BASE[seed], summary={"best": results})
    write_run(folder, "counted", 0, BASE[0], counts=True)
    (corpus,) = report_of(folder).corpora
    (note,) = [note for note in corpus.notes if "best validation" in note]
    assert note == (
        "The best validation of the last stage is the one at its end in runs of next (1 of 2): "
        "with more epochs they may be better, and the comparison another."
    )


def test_a_failure_of_another_configuration_is_forgotten(study: Path) -> None:
    write_study(study, ["next", "better"], seeds=[0, 1, 2])
    begin_run(study, "next", 2)
    failure = FailureRecord(hash="old", error="gone", traceback="", when="")
    write_as_json(study / "films" / "next" / "2", failure)
    run = report_of(study).corpora[0].runs[2]
    assert (run.status, run.error) == ("unfinished", None)


def test_a_run_that_finished_after_it_failed_has_finished(study: Path) -> None:
    failure = FailureRecord(hash=HASH, error="gone", traceback="", when="")
    write_as_json(study / "films" / "next" / "0", failure)
    run = report_of(study).corpora[0].runs[0]
    assert (run.status, run.error) == ("finished", None)


def test_one_cell_and_one_seed_work_and_say_what_they_cannot(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next"], seeds=[0])
    write_run(folder, "next", 0, BASE[0])
    report = report_of(folder)
    assert report.notes[0] == "The study has one cell: there is nothing to compare it with."
    assert "say nothing of how another seed would come out" in report.notes[1]
    figure = only_table(report).figures("mrr")["next"]
    assert (figure.estimate.deviation, figure.comparison, figure.place) == (None, None, None)


def test_a_corpus_without_a_finished_run_has_no_table(study: Path) -> None:
    write_study(study, ["next", "better"], corpora=["films", "shoes"])
    films, shoes = report_of(study).corpora
    assert (len(films.tables), shoes.tables) == (1, ())
    assert shoes.notes[0].startswith("4 of 4 runs have not begun: next/0")


def test_cost_is_a_mean_over_finished_runs_and_says_what_another_run_spent(study: Path) -> None:
    shared = {"shared": {"pretrain": "../../next/1"}}
    cost = {"cost": {"parameters": 7, "seconds": 30.0, "shared_seconds": 20.0, "items": 10}}
    write_run(study, "better", 1, BETTER[1], summary={**shared, **cost})
    base, better = report_of(study).corpora[0].costs
    assert (base.seconds, base.items, base.parameters, base.shared) == (10.5, 5000.0, 1200, ())
    assert (better.seconds, better.shared_seconds) == (20.0, 10.0)
    assert better.shared == (SharedStage("pretrain", "next"),)


# Slices, curves, cosines


def test_slices_are_by_popularity_and_by_history_length(study: Path) -> None:
    popularity_slices, history_slices, *_ = only_table(report_of(study)).slicings
    assert [(each.label, each.questions) for each in popularity_slices.buckets] == [
        ("0 (cold)", 2), ("1–4", 2),
    ]  # fmt: skip
    # Users 4 and 5 are alone in 20-99 and 500+.
    assert popularity_slices.left_out == 2
    cold = popularity_slices.buckets[0].estimates
    # Users 0 and 1 have ranks 1 and 2 from the base, 1 and 1 from the other.
    assert (cold["next"].mean, cold["better"].mean) == (0.75, 1.0)
    assert [each.label for each in history_slices.buckets] == ["0–4", "5–9"]


def test_a_curve_is_a_mean_and_a_band_on_the_steps_that_all_seeds_have_reached() -> None:
    found = mean_curve("a", [{0.0: 4.0, 10.0: 2.0, 20.0: 1.0}, {5.0: 5.0, 15.0: 3.0}])
    assert found is not None
    # The first is 3, 2, 1.5 at steps 5, 10, 15; the second 5, 4, 3.
    assert found.progress == (5.0, 10.0, 15.0)
    assert found.mean == (4.0, 3.0, 2.25)
    assert found.low == (3.0, 2.0, 1.5)
    assert found.high == (5.0, 4.0, 3.0)
    assert found.seeds == 2


def test_seeds_without_a_common_step_have_no_curve() -> None:
    assert mean_curve("a", [{0.0: 1.0, 5.0: 1.0}, {6.0: 1.0, 9.0: 1.0}]) is None


def test_a_long_curve_is_thinned_but_keeps_its_ends() -> None:
    found = mean_curve("a", [{float(step): float(step) for step in range(1000)}])
    assert found is not None
    assert (len(found.progress), found.progress[0], found.progress[-1]) == (150, 0.0, 999.0)


def test_panels_are_losses_by_stage_and_the_compared_metric(study: Path) -> None:
    lines = [
        {"stage": "pretrain", "step": 5, "pretrain/loss/mip": 0.5, "pretrain/loss": 0.5},
        {"stage": "pretrain", "step": 6, "val/mrr": 0.0},
        {"stage": "train", "step": 5, "train/loss/next": 3.0, "train/lr": 0.1},
        {"stage": "train", "step": 10, "train/loss/next": inf},
        {"stage": "train", "step": 10, "val/mrr": 0.5, "val/hr@1": 0.25},
    ]
    write_run(study, "next", 0, BASE[0], lines=lines)
    panels = report_of(study).corpora[0].panels
    assert {(each.stages, each.quantity): each.curves[0].progress for each in panels} == {
        (("pretrain",), "val/mrr"): (6.0,),
        (("train",), "val/mrr"): (10.0,),
        (("pretrain",), "loss/mip"): (5.0,),
        # Infinite at step 10, which is no number in the log.
        (("train",), "loss/next"): (5.0,),
        (("train",), "lr"): (5.0,),
    }


def test_cosines_are_means_over_steps_and_seeds() -> None:
    def line(cosine: float | None) -> dict[str, float | str | int]:
        norms = {f"train/gradient_norm/{name}": 1.0 for name in ("next", "mip", "a+b")}
        pair = {} if cosine is None else {"train/gradient_cosine/next+mip": cosine}
        return {"stage": "train", "step": 1, **norms, **pair, "train/gradient_cosine/mip+a+b": -1.0}

    (found,) = cosines({("joint", 0): [line(0.5), line(None)], ("joint", 1): [line(0.25)]})
    assert (found.cell, found.stage, found.measurements) == ("joint", "train", 3)
    assert found.objectives == ("next", "mip", "a+b")
    assert found.matrix == ((1.0, 0.375, None), (0.375, 1.0, -1.0), (None, -1.0, 1.0))


def test_without_figures_there_are_neither_slices_nor_curves(study: Path) -> None:
    lines = [{"stage": "train", "step": 5, "train/loss/next": 3.0}]
    write_run(study, "next", 0, BASE[0], lines=lines)
    whole, short_one = report_of(study), report_of(study, figures=False)
    assert len(whole.corpora[0].panels) == 1
    assert short_one.corpora[0].panels == ()
    assert only_table(short_one).slicings == ()
    assert only_table(short_one) == replace(only_table(whole), slicings=(), gaps=())
    assert short_one.corpora[0].facts == ()


# Names and values


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\x1b[31mb\x07", "a\ufffd[31mb\ufffd"),
        ("two\nlines\u2028more", "two\ufffdlines\ufffdmore"),
        ("half \ud83d of a pair", "half \ufffd of a pair"),
        ("turned \u202eback", "turned \ufffdback"),
        ("Überraschung 中文 🎉 <b>&$", "Überraschung 中文 🎉 <b>&$"),
    ],
)
def test_names_keep_what_can_be_shown(given: str, shown: str) -> None:
    assert printable(given) == shown


def test_values_of_configs_are_written_shortly() -> None:
    value = {"class": "MaskItems", "rate": 0.2, "over": [1, None]}
    assert short_text(value) == "MaskItems(rate=0.2, over=[1, none])"
    assert short_text({"class": "mine:Own", "empty": {}}) == "Own(empty=none)"
    assert short_text(True) == "true"
    assert len(short_text("x" * 1000)) == 160


# Bad input


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        report_of(folder)
    return str(caught.value)


def test_a_folder_without_study_json_is_no_study(tmp_path: Path) -> None:
    assert "is no study's folder: it has no study.json, which" in refusal(tmp_path)


def test_a_study_without_a_finished_run_says_why_and_what_to_do(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", ["next"])
    fail_run(folder, "next", 0, "InputError: no room")
    said = refusal(folder)
    assert "no finished run among 2 (1 failed, the first with: InputError: no room)" in said
    assert said.endswith("continues it: python -m research study mine:heads")


@pytest.mark.parametrize(
    "changes",
    [
        {"cells": "next"}, {"cells": ["next", 3]}, {"seeds": ["a"]}, {"seeds": []},
        {"corpora": []}, {"corpora": ["../.."]}, {"cells": ["next", ".."]}, {"base": "nobody"},
        {"compared": "mpr"}, {"changes": {"next": {"a": [1]}}}, {"changes": []}, {"name": None},
    ],
)  # fmt: skip
def test_a_damaged_study_json_is_named(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = write_study(tmp_path / "s", ["next"], **changes)
    assert "study.json" in refusal(folder)


def test_a_study_json_without_a_field_is_named(study: Path) -> None:
    stored = json.loads((study / "study.json").read_text())
    del stored["metrics"]
    (study / "study.json").write_text(json.dumps(stored))
    said = refusal(study)
    assert "study.json is damaged or of another program or version (metrics is missing; all" in said


def test_a_damaged_summary_is_named(study: Path) -> None:
    path = study / "films" / "better" / "1" / "summary.json"
    path.write_text("{")
    assert f"{path} is not valid JSON" in refusal(study)
    path.write_text(json.dumps({"status": "finished"}))
    assert f"{path} is damaged or of another program or version (hash is missing" in refusal(study)


def test_a_damaged_rank_table_is_named(study: Path) -> None:
    path = study / "films" / "better" / "1" / "ranks" / "test-full.npz"
    path.write_bytes(path.read_bytes()[:100])
    assert f"{path} is not a rank table" in refusal(study)
    path.unlink()
    assert f"{path} does not exist" in refusal(study)


def test_what_a_run_says_of_itself_is_told(study: Path) -> None:
    write_run(study, "better", 1, BETTER[1], summary={"notes": ["stage train: nothing moved"]})
    assert report_of(study).corpora[0].notes == ("better/1: stage train: nothing moved",)
    write_run(study, "better", 1, BETTER[1], summary={"notes": 3})
    assert "summary.json is damaged or of another program or version (notes is 3" in refusal(study)


def floor_of(days: int | None, low: float) -> dict[str, object]:
    return {
        "newest_days": days, "test": {"full": {"mrr": 0.1}}, "candidates": "full", "metric": "mrr",
        "difference": low + 0.1, "low": low, "high": low + 0.2,
    }  # fmt: skip


def test_a_report_says_what_is_in_doubt_and_who_is_not_above_popularity(study: Path) -> None:
    questions = {
        "questions": 6, "tied": 3, "finer_times": False, "before_training_end": 6, "unseen": 0,
    }  # fmt: skip
    summary = {
        "questions": {"test": questions, "validation": {**questions, "unseen": 3}},
        "popularity": floor_of(None, 0.1),
        "recent_popularity": floor_of(7, -0.05),
    }
    for seed in (0, 1):
        write_run(study, "better", seed, BETTER[seed], summary=summary)
    doubts = (
        "6 held-out items; 50.0 % with the time of the item before them (the order of the file "
        "decides); 100.0 % older than the newest training event; "
    )
    notes = report_of(study).corpora[0].notes
    assert notes[-2:] == (
        f"The test: {doubts}0.0 % of items that no training event has.",
        "Runs of better (2 of 2) are not above popularity of the last 7 days on the test: they "
        "have not learned more from histories than which items are frequent.",
    )
    (note,) = report_of(study, part="validation").corpora[0].notes
    assert note == f"The validation: {doubts}50.0 % of items that no training event has."
    # Where cells differ, each count says whose it is.
    few = {**questions, "questions": 5, "tied": 0}
    for seed in (0, 1):
        write_run(study, "next", seed, BETTER[seed], summary={"questions": {"test": few}})
    said = [note for note in report_of(study).corpora[0].notes if "held-out items" in note]
    assert [note.partition(":")[0] for note in said] == ["The test of next", "The test of better"]


def test_damaged_lines_are_named(study: Path) -> None:
    path = study / "films" / "better" / "1" / "metrics.jsonl"
    path.write_text('{"stage": "train"}\n')
    said = refusal(study)
    assert f"{path}: line 1 has been damaged ({{'stage': 'train'}} has no stage and step)" in said
    path.write_text("7\n")
    assert f"{path}: line 1 has been damaged (7 has no stage and step)" in refusal(study)


def test_tables_that_ask_other_questions_under_one_protocol_are_refused(study: Path) -> None:
    write_run(study, "better", 0, [1, 1, 1])
    assert "films, better and its base next: the rank tables differ in users" in refusal(study)


# Real runs


def test_runs_as_they_are_executed_can_be_reported(tmp_path: Path) -> None:
    corpus = shop_corpus(tmp_path / "corpus")
    folder = write_study(
        tmp_path / "s", ["popularity", "transitions"], corpora=["shop"], metrics=["ndcg@10"],
        compared="ndcg@10",
    )  # fmt: skip
    values = {}
    for name, config in {"popularity": popularity(), "transitions": transitions()}.items():
        path = folder / "shop" / name / "0"
        given = replace(config, corpus=str(corpus.folder))
        summary = execute(given, path, options=RunOptions(quiet=True))
        values[name] = summary.test["full"]["ndcg@10"]
    runs = {
        name: {"0": read_json(folder / "shop" / name / "0" / "config.json")["hash"]}
        for name in values
    }
    write_study(
        folder, list(values), corpora=["shop"], metrics=["ndcg@10"], compared="ndcg@10",
        runs={"shop": runs},
    )  # fmt: skip
    table = only_table(report_of(folder))
    figures = table.figures("ndcg@10")
    assert {cell: figure.estimate.mean for cell, figure in figures.items()} == pytest.approx(values)
    assert figures["transitions"].significant
    assert table.title == "test, full ranking, seen items excluded, ties in expectation"
    assert sum(bucket.questions for bucket in table.slicings[0].buckets) <= table.users

"""`sf.study` and `sf.report`: cells compared, a table, a page, and each run again."""

from __future__ import annotations

from pathlib import Path

import pytest

import sixfold as sf
from research.report.build import report_of
from research.report.csv_table import frame_of


@pytest.fixture(scope="module")
def result(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> sf.StudyResult:
    cells = {
        "two": small_config,
        "one": sf.change(small_config, {"stages.0.epochs": 1}),
        "popularity": "popularity.popularity",
    }
    out = tmp_path_factory.mktemp("studies")
    return sf.study(
        cells, small_corpus, seeds=range(2), name="epochs", question="Does it?", out=out
    )


def test_a_study_gives_the_figures_of_its_report(result: sf.StudyResult) -> None:
    table = result.table()
    assert table.equals(frame_of(report_of(result.folder, figures=False)))
    summary = result.summary()
    assert list(summary["cell"]) == ["two", "one", "popularity"]
    assert set(summary["metric"]) == {"ndcg@10"}
    assert list(summary["seeds"]) == [2, 2, 1]
    assert summary["difference"].isna().tolist() == [True, False, False]
    assert summary["difference"][1] == pytest.approx(summary["mean"][1] - summary["mean"][0])


def test_its_cells_can_be_tested_within_a_margin(result: sf.StudyResult) -> None:
    table = result.table(margin=0.9)
    tested = table[table["margin"].notna()]
    assert list(tested["cell"]) == ["one", "popularity"]
    assert set(tested["metric"]) == {"ndcg@10"}
    assert (tested["p_no_worse"] <= tested["p_equivalent"]).all()
    with pytest.raises(sf.InputError, match="margin is -1; it must be above 0"):
        result.table(margin=-1)


def test_each_of_its_runs_can_be_loaded(result: sf.StudyResult) -> None:
    run = result.run("one", seed=1)
    assert (run.config.stages[0].epochs, run.config.seed) == (1, 1)
    assert result.run("two").config.seed == 0
    assert result.run("popularity").config.ranker is not None
    for cell, seed, corpus, message in (
        ("three", 0, None, "the study has no cell 'three'"),
        ("two", 5, None, r"cell two has no seed 5; it has \[0, 1\]"),
        ("two", 0, "smal", "the study has no corpus 'smal'; did you mean small"),
    ):
        with pytest.raises(sf.InputError, match=message):
            result.run(cell, seed=seed, corpus=corpus)


def test_a_study_of_a_grid_has_effects(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    cells = sf.grid(
        small_config,
        {
            "epochs": sf.levels("stages.0.epochs", (2, 1)),
            "rate": {"low": {}, "high": {"stages.0.optimizer.lr": 0.01}},
        },
    )
    beside = {"popularity": "popularity.popularity"}
    result = sf.study(cells | beside, small_corpus, out=tmp_path)  # type: ignore[operator]
    assert result.record.factors == {"epochs": ("2", "1"), "rate": ("low", "high")}
    assert result.record.levels["base"] == {"epochs": "2", "rate": "low"}
    effects = result.effects()
    assert effects["factors"].tolist()[:3] == ["epochs", "rate", "epochs × rate"]
    assert effects["obstacle"].eq("").all()
    # The main effect of the rate, from the means of the cells.
    summary = result.summary().set_index("cell")["mean"]
    high = summary["epochs=2,rate=high"] + summary["epochs=1,rate=high"]
    low = summary["base"] + summary["epochs=1,rate=low"]
    (row,) = effects[(effects["factors"] == "rate") & effects["compared"]].to_dict("records")
    assert row["difference"] == pytest.approx((high - low) / 2, abs=1e-12)
    assert "popularity" in list(result.table()["cell"])


@pytest.mark.long
def test_its_page_is_written(result: sf.StudyResult, tmp_path: Path) -> None:
    page = sf.report(result.folder, out=tmp_path / "page")
    assert page == tmp_path / "page" / "report.html"
    assert "Does it?" in page.read_text(encoding="utf-8")
    assert result.report() == result.folder / "report.html"
    assert result.report(part="validation") == result.folder / "report-validation.html"
    with pytest.raises(sf.InputError, match="part is 'train'; allowed: test, validation"):
        sf.report(result.folder, part="train")  # type: ignore[arg-type]


def test_a_study_is_shown_in_two_lines(result: sf.StudyResult) -> None:
    first, second = repr(result).splitlines()
    assert first == f"Study epochs: 3 cells on small, seeds 0, 1, in {result.folder}"
    assert second.startswith("  ndcg@10: two 0.")
    assert second.count(" to ") == 3
    page = result._repr_html_()
    assert page.startswith("<b>Study epochs: 3 cells")
    assert "<td>popularity</td>" in page


def test_a_study_without_a_finished_run_says_why(small_corpus: sf.Corpus, tmp_path: Path) -> None:
    wrong = sf.change(sf.config("popularity.popularity"), {"ranker.newest_days": 1e-9})
    result = sf.study({"wrong": wrong}, small_corpus, out=tmp_path)
    assert "(1 failed, the first with: InputError: ranker.newest_days is 1e-09" in repr(result)
    assert "has no finished run" in result._repr_html_()
    with pytest.raises(sf.InputError, match="has no finished run"):
        result.table()


def test_a_run_that_failed_beside_others_is_named(small_corpus: sf.Corpus, tmp_path: Path) -> None:
    popularity = sf.config("popularity.popularity")
    cells = {"right": popularity, "wrong": sf.change(popularity, {"ranker.newest_days": 1e-9})}
    result = sf.study(cells, small_corpus, out=tmp_path, metrics=["mrr"])
    *_, last = repr(result).splitlines()
    assert last.startswith(
        "  1 of its runs have not finished, first study/small/wrong/0: InputError: "
        "ranker.newest_days is 1e-09"
    )
    assert "have not finished" in result._repr_html_()
    assert len(result.unfinished()) == 1


def test_wrong_studies_are_refused(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    with pytest.raises(sf.InputError, match="cells is empty"):
        sf.study({}, small_corpus, out=tmp_path)
    with pytest.raises(sf.InputError, match="base is 'b'; cells: a"):
        sf.study({"a": small_config}, small_corpus, base="b", out=tmp_path)
    with pytest.raises(sf.InputError, match=r"no study\.json"):
        sf.report(tmp_path)

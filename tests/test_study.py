"""Studies: cells, seeds and corpora one after another, then a table; nothing is done twice."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import experiments.quickstart as quickstart
from baselines.bert4rec import cloze
from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.windows import LastItems, Sliding
from research.errors import InputError
from research.evaluation.compare import paired_difference
from research.evaluation.rank import RankTable
from research.execute import RunOptions, make_accelerator
from research.run import EvaluationConfig, RunConfig
from research.study import Study, print_tables, run_study
from research.training import checkpoint
from tests.calling import call, files_of, refused, shop_corpus
from tests.synthetic import markov_histories, write_histories

Capture = pytest.CaptureFixture[str]
QUIET = RunOptions(quiet=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus whose items have attributes, as films have genres."""
    histories = markov_histories(num_users=40, num_items=30, length=9, seed=5)
    return write_histories(tmp_path_factory.mktemp("films") / "films", histories, num_items=30)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Another corpus, of another name."""
    folder = tmp_path_factory.mktemp("other")
    corpus = shop_corpus(folder, seed=6)
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    manifest["name"] = "other"
    (corpus.folder / "manifest.json").write_text(json.dumps(manifest))
    return Corpus.open(corpus.folder)


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of the current folder that a test imports are gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def shrunk(config: RunConfig) -> RunConfig:
    """The config with a tiny encoder and one epoch; sliding windows slide by half a length."""
    if not config.stages:
        return config
    batches = BatchConfig(sequences_per_batch=32)
    stages = tuple(
        replace(
            stage,
            epochs=1,
            batches=batches,
            windows=Sliding(stride=3) if isinstance(stage.windows, Sliding) else stage.windows,
        )
        for stage in config.stages
    )
    encoder = replace(config.encoder, length=6, width=8, layers=1, feed_forward=8)
    return replace(config, encoder=encoder, stages=stages)


def study_of(corpus: Corpus, cells: Mapping[str, RunConfig], **changes: object) -> Study:
    fields: dict[str, object] = {
        "name": "mine", "question": "Which is best?", "cells": cells, "base": next(iter(cells)),
        "corpora": (str(corpus.folder),),
    }  # fmt: skip
    return Study(**{**fields, **changes})  # type: ignore[arg-type]


CELLS = {"popularity": popularity(), "transitions": transitions(), "sasrec": shrunk(full_softmax())}


def table_of(out: str) -> dict[str, list[str]]:
    """Rows of a study's table by cell: the entries after the cell's name."""
    lines = out.splitlines()
    after = max(place for place, line in enumerate(lines) if line.startswith("───"))
    rows: dict[str, list[str]] = {}
    for line in lines[after + 1 :]:
        if line.startswith("run folders: "):
            break
        cell, *entries = re.split(r"\s{2,}", line.strip())
        rows[cell] = entries
    return rows


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*arguments: object, **named: object) -> None:
        raise AssertionError("the study trains again")

    monkeypatch.setattr("research.execute.train", train)


# The code of a study


def test_a_study_runs_every_cell_with_every_seed(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    study = study_of(shop, CELLS, seeds=(0, 1))
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    done = [(run.cell, run.seed) for run in results["shop"]]
    # Counting draws nothing, so one seed says all.
    assert done == [("popularity", 0), ("transitions", 0), ("sasrec", 0), ("sasrec", 1)]
    for run in results["shop"]:
        assert run.folder == tmp_path / "mine" / "shop" / run.cell / str(run.seed)
        assert json.loads((run.folder / "summary.json").read_text()) == run.summary
    capsys.readouterr()
    print_tables(study, results)
    out = capsys.readouterr().out
    rows = table_of(out)
    assert list(rows) == ["popularity", "transitions", "sasrec"]
    sasrec = [run for run in results["shop"] if run.cell == "sasrec"]
    for column, name in enumerate(("hr@10", "ndcg@10", "mrr")):
        mean = (sasrec[0].test(name) + sasrec[1].test(name)) / 2
        assert rows["sasrec"][column] == f"{mean:.4f}"
    assert sasrec[0].test("ndcg@10") != sasrec[1].test("ndcg@10")
    assert [row[-1] for row in rows.values()] == ["1", "1", "2"]
    parameters = int(sasrec[0].cost("parameters"))
    assert rows["sasrec"][-2] == f"{parameters:,}"
    assert out.startswith(" ")
    assert "Which is best?" in out
    assert "shop, test, full ranking, seen items excluded" in out
    assert f"run folders: {tmp_path}/mine/shop/CELL/SEED\n" in out


def test_the_difference_is_paired_and_a_mean_over_seeds(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    study = study_of(shop, CELLS, seeds=(0, 1))
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    tables = {
        (run.cell, run.seed): RankTable.load(run.folder / "ranks" / "test-full.npz")
        for run in results["shop"]
    }
    pairs = [
        paired_difference(tables["sasrec", seed], tables["popularity", 0], "ndcg@10")
        for seed in (0, 1)
    ]
    mean, error = (sum(values) / 2 for values in zip(*pairs))
    capsys.readouterr()
    print_tables(study, results)
    out = capsys.readouterr().out
    assert table_of(out)["sasrec"][3] == f"{mean:+.4f} ±{2 * error:.4f}"
    head = " ".join(out.split("───")[0].split())
    assert "NDCG@10 vs popularity" in head
    assert "(2 s.e.)" in head


def test_a_second_call_repeats_nothing_and_shows_the_same_table(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(shop, CELLS)
    print_tables(study, run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator()))
    first, before = capsys.readouterr().out, files_of(tmp_path)
    forbid_training(monkeypatch)
    print_tables(study, run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator()))
    assert capsys.readouterr().out == first
    assert files_of(tmp_path) == before


def test_a_study_adds_seeds_to_what_is_there(shop: Corpus, tmp_path: Path) -> None:
    study = study_of(shop, CELLS)
    run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    before = files_of(tmp_path)
    more = replace(study, seeds=(0, 1))
    run_study(more, tmp_path, options=QUIET, accelerator=make_accelerator())
    after = files_of(tmp_path)
    assert {name: after[name] for name in before} == before
    added = {name.split("/")[3] for name in after.keys() - before.keys()}
    assert added == {"1"}


def test_an_interrupted_study_goes_on_where_it_stopped(
    shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(shop, {**CELLS, "bert4rec": shrunk(cloze())})
    done: list[Path] = []

    def save(folder: Path, *rest: object) -> None:
        done.append(folder)
        if "bert4rec" in str(folder):
            raise KeyboardInterrupt
        real(folder, *rest)  # type: ignore[arg-type]

    real = checkpoint.save
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    before = files_of(tmp_path / "mine" / "shop" / "sasrec")
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    assert [run.cell for run in results["shop"]] == [*CELLS, "bert4rec"]
    assert files_of(tmp_path / "mine" / "shop" / "sasrec") == before


def test_every_cell_is_given_the_metrics_and_the_full_ranking_of_the_table(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    sparse = replace(
        popularity(), evaluation=EvaluationConfig(metrics=("hr@3",), candidates=("uniform-5",))
    )
    study = study_of(shop, {"popularity": popularity(), "sparse": sparse}, metrics=("mrr", "map@7"))
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    test = results["shop"][1].summary["test"]
    assert isinstance(test, dict)
    assert set(test) == {"uniform-5", "full"}
    assert set(test["full"]) == {"hr@3", "mrr", "map@7"}
    print_tables(study, results)
    rows = table_of(capsys.readouterr().out)
    assert rows["sparse"][:2] == rows["popularity"][:2]
    assert rows["sparse"][2] == "+0.0000 ±0.0000"


def test_a_table_says_when_seen_items_compete(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    kept = replace(popularity(), evaluation=EvaluationConfig(seen="kept"))
    study = study_of(shop, {"popularity": kept})
    print_tables(study, run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator()))
    assert "full ranking, seen items kept" in capsys.readouterr().out


def test_cells_that_are_evaluated_differently_are_not_compared(
    shop: Corpus, tmp_path: Path
) -> None:
    kept = replace(popularity(), evaluation=EvaluationConfig(seen="kept"))
    study = study_of(shop, {"popularity": popularity(), "kept": kept})
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    with pytest.raises(InputError, match=r"differ in protocol: seen is 'kept' and 'excluded'"):
        print_tables(study, results)


def test_each_corpus_has_a_table(
    capsys: Capture, shop: Corpus, other: Corpus, tmp_path: Path
) -> None:
    corpora = (str(shop.folder), str(other.folder))
    study = study_of(shop, {"popularity": popularity()}, corpora=corpora)
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    print_tables(study, results)
    out = capsys.readouterr().out
    assert list(results) == ["shop", "other"]
    assert re.findall(r"^ *(\w+), test, full ranking", out, flags=re.MULTILINE) == ["shop", "other"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "best"}, "study mine: base is 'best'; cells: popularity, transitions, sasrec"),
        ({"metrics": ("hr@ten",)}, "metric 'hr@ten' does not exist"),
        ({"seeds": ()}, "study mine: corpora, seeds and metrics need at least one entry each"),
        ({"corpora": ()}, "study mine: corpora, seeds and metrics need at least one entry each"),
        ({"metrics": ()}, "study mine: corpora, seeds and metrics need at least one entry each"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(
    shop: Corpus, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        study_of(shop, CELLS, **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["../up", "a/b", "", "."])
def test_a_name_that_leads_out_of_the_runs_folder_is_refused(
    shop: Corpus, tmp_path: Path, name: str
) -> None:
    cells = {"popularity": popularity()}
    for study in (study_of(shop, cells, name=name), study_of(shop, {name: popularity()})):
        with pytest.raises(InputError, match="cannot be the name of a folder"):
            run_study(study, tmp_path / "runs", options=QUIET, accelerator=make_accelerator())
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_corpus_does_not_choose_where_runs_lie(capsys: Capture, tmp_path: Path) -> None:
    corpus = shop_corpus(tmp_path)
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    manifest["name"] = "../../../elsewhere"
    (corpus.folder / "manifest.json").write_text(json.dumps(manifest))
    given = [f"corpus={corpus.folder}", "--runs", tmp_path / "a" / "b" / "runs"]
    message = refused(capsys, "run", "baselines.popularity.popularity", *given)
    assert "corpus is named '../../../elsewhere', which cannot be the name of a folder" in message
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "shop"}


# From the command line


OWN = '''"""Is one better than the other?"""
from dataclasses import replace

from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from baselines.transitions import transitions
from research.data.loader import BatchConfig
from research.data.windows import Sliding
from research.study import Study


def small():
    config = full_softmax()
    stage = replace(config.stages[0], epochs=1, batches=BatchConfig(sequences_per_batch=32))
    encoder = replace(config.encoder, length=6, width=8, layers=1, feed_forward=8)
    return replace(config, encoder=encoder, stages=(stage,))


def study() -> Study:
    return Study(
        name="own",
        question="Is one better than the other?",
        cells={"popularity": popularity(), "transitions": transitions(), "small": small()},
        base="popularity",
        corpora=("CORPUS",),
    )


THE_STUDY = study()
'''


@pytest.fixture
def here(shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a study of the reader's own in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_study.py").write_text(OWN.replace("CORPUS", str(shop.folder)))
    return tmp_path


@pytest.mark.parametrize(
    "target", ["own_study.study", "own_study:study", "own_study", "own_study:THE_STUDY"]
)
def test_a_study_of_ones_own_in_the_current_folder(
    capsys: Capture, here: Path, target: str
) -> None:
    answer = call(capsys, "study", target, "--cells", "popularity", "transitions")
    assert (answer.code, answer.err) == (0, "")
    assert list(table_of(answer.out)) == ["popularity", "transitions"]
    assert (here / "runs" / "own" / "shop" / "transitions" / "0" / "summary.json").is_file()


def test_a_study_prints_its_runs_and_one_table_and_repeats_nothing(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = call(capsys, "study", "own_study", "--seeds", "2")
    assert (first.code, first.err) == (0, "")
    runs = [line for line in first.out.splitlines() if line.startswith("— ")]
    assert runs == [
        "— shop / popularity / seed 0",
        "— shop / transitions / seed 0",
        "— shop / small / seed 0",
        "— shop / small / seed 1",
    ]
    assert len(re.findall(r"^train: epoch 1  val/ndcg@20 ", first.out, flags=re.MULTILINE)) == 2
    assert list(table_of(first.out)) == ["popularity", "transitions", "small"]
    forbid_training(monkeypatch)
    again = call(capsys, "study", "own_study", "--seeds", "2")
    assert again.code == 0
    assert table_of(again.out) == table_of(first.out)
    quiet = call(capsys, "study", "own_study", "--seeds", "2", "--quiet")
    assert "— shop" not in quiet.out
    assert table_of(quiet.out) == table_of(first.out)


def test_chosen_cells_stand_in_the_order_given_and_the_first_is_the_base(
    capsys: Capture, here: Path
) -> None:
    answer = call(capsys, "study", "own_study", "--cells", "small", "transitions")
    rows = table_of(answer.out)
    assert list(rows) == ["small", "transitions"]
    # The base itself has no difference, hence one entry less.
    assert len(rows["small"]) == len(rows["transitions"]) - 1
    head = " ".join(answer.out.split("───")[0].split())
    assert " small time " in head


def test_a_study_takes_other_corpora(
    capsys: Capture, here: Path, other: Corpus, shop: Corpus
) -> None:
    given = ["--cells", "popularity", "--corpora", other.folder, shop.folder]
    answer = call(capsys, "study", "own_study", *given)
    assert answer.code == 0
    tables = re.findall(r"^ *(\w+), test, full ranking", answer.out, flags=re.MULTILINE)
    assert tables == ["other", "shop"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["own_study", "--cells", "populrity"], "no cell 'populrity'; did you mean popularity?"),
        (["own_study", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["own_study", "--seeds", "-1"], "--seeds is -1; it must be at least 1"),
        (["own_study", "--corpora", "no/where"], "corpus no/where is not a prepared corpus folder"),
        (["own_study", "--corpora", "ml-1k"], "unknown source 'ml-1k'; known: ml-100k"),
        (["own_study.studdy"], "own_study has no 'studdy'; did you mean study?"),
        (["own_study:small"], "own_study:small gives a RunConfig, not a Study"),
        (["baselines.sasrec"], "baselines.sasrec is a module; nothing in it gives a Study"),
        (["own_nowhere"], "own_nowhere: there is no module 'own_nowhere'; write package.module"),
    ],
)
def test_a_mistake_about_a_study_is_refused(
    capsys: Capture, here: Path, given: list[str], message: str
) -> None:
    assert message in refused(capsys, "study", *given)
    assert not (here / "runs").exists()


# The quickstart


def test_the_quickstart_compares_its_cells_with_popularity() -> None:
    study = quickstart.study()
    assert list(study.cells) == ["popularity", "transitions", "sasrec", "bert4rec", "s3rec"]
    assert study.base == "popularity"
    assert study.metrics == ("hr@10", "ndcg@10", "mrr")
    assert study.corpora == ("ml-100k",)
    assert list(study.cells["sasrec"].stages[0].objectives) == ["next"]
    assert list(study.cells["bert4rec"].stages[0].objectives) == ["cloze"]
    pretrain, finetune = study.cells["s3rec"].stages
    assert list(pretrain.objectives) == ["aap", "mip", "map", "sp"]
    assert isinstance(pretrain.windows, LastItems)
    assert finetune == replace(study.cells["sasrec"].stages[0], name="finetune")
    for config in study.cells.values():
        assert config.evaluation.seen == "excluded"
        assert "full" in config.evaluation.candidates


def test_the_quickstart_runs_from_end_to_end(
    capsys: Capture, films: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small() -> Study:
        study = whole()
        cells = {name: shrunk(config) for name, config in study.cells.items()}
        return replace(study, cells=cells, corpora=(str(films.folder),))

    whole = quickstart.study
    monkeypatch.setattr(quickstart, "study", small)
    answer = call(capsys, "study", "experiments.quickstart", "--runs", tmp_path)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("train: epoch 1  val/ndcg@10 ") == 2
    assert answer.out.count("finetune: epoch 1  val/ndcg@10 ") == 1
    rows = table_of(answer.out)
    assert list(rows) == ["popularity", "transitions", "sasrec", "bert4rec", "s3rec"]
    for cell, entries in rows.items():
        figures = [float(each) for each in entries[:3]]
        assert all(0.0 <= each <= 1.0 for each in figures)
        folder = tmp_path / "quickstart" / "films" / cell / "0"
        assert (folder / "config.json").is_file()
        assert (folder / "ranks" / "test-full.npz").is_file()
        assert (folder / "stages" / "train" / "best").is_dir() == (cell in ("sasrec", "bert4rec"))
    assert f"run folders: {tmp_path}/quickstart/films/CELL/SEED" in answer.out


def test_the_quickstarts_table_fits_into_eighty_columns(
    capsys: Capture, films: Corpus, tmp_path: Path
) -> None:
    study = quickstart.study()
    cells = {name: shrunk(config) for name, config in study.cells.items()}
    study = replace(study, cells=cells, corpora=(str(films.folder),))
    results = run_study(study, tmp_path, options=QUIET, accelerator=make_accelerator())
    for run in results["films"]:
        cost = run.summary["cost"]
        assert isinstance(cost, dict)
        # As much as the real quickstart costs at most.
        cost.update(seconds=999.9, parameters=9_999_999)
    capsys.readouterr()
    print_tables(study, results)
    table = capsys.readouterr().out.split("run folders")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "…" not in table

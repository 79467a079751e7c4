"""`sf.train` and `sf.load`: a run in a notebook, its figures, and what it leaves behind."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import sixfold as sf
from baselines.sasrec import full_softmax
from research.evaluation.metrics import metrics
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import estimate
from research.public import training as run_module
from research.runs.execute import RunOptions
from research.storage.records import RunSummary


@pytest.mark.parametrize(
    "recipe",
    [
        "baselines.sasrec.full_softmax", "baselines.sasrec:full_softmax", "sasrec.full_softmax",
        "sasrec:full_softmax", full_softmax, full_softmax(),
    ],
)  # fmt: skip
def test_a_config_by_name_by_function_or_itself(recipe: sf.RunConfig | str) -> None:
    assert sf.config(recipe) == full_softmax()
    if isinstance(recipe, str):
        assert sf.change(recipe, {"seed": 3}) == replace(full_softmax(), seed=3)


def test_what_names_no_config_is_refused() -> None:
    with pytest.raises(sf.InputError, match="did you mean full_softmax"):
        sf.config("sasrec.full_softmx")
    with pytest.raises(sf.InputError, match="there is no module 'nothing'"):
        sf.config("nothing.at_all")
    with pytest.raises(sf.InputError, match="the function returns a int; give one that"):
        sf.config(lambda: 3)  # type: ignore[arg-type, return-value]


def test_what_is_no_corpus_and_no_config_is_refused(small_corpus: sf.Corpus) -> None:
    frame = pd.DataFrame({"user": ["secret"] * 9})
    with pytest.raises(sf.InputError, match=r"^the corpus is of type DataFrame; give what sf\."):
        sf.train(full_softmax, frame)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"^the corpus is of type DataFrame; give what sf\."):
        sf.study({"a": full_softmax}, frame, name="s")  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"^the config is of type dict; give a RunConfig"):
        sf.train({}, small_corpus)  # type: ignore[arg-type]
    for argument in ("out", "seed", "device"):
        with pytest.raises(sf.InputError, match=rf"^{argument} is 1\.5; allowed: .* \| None"):
            sf.train(full_softmax, small_corpus, **{argument: 1.5})  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"^cells is \[\]; allowed: Mapping"):
        sf.study([], small_corpus)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"^seeds is 3; give a list of whole numbers"):
        sf.study({"a": full_softmax}, small_corpus, seeds=3)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"^folder is 3; allowed: "):
        sf.load(3)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match=r"^changes is 3; allowed: Mapping"):
        sf.change(full_softmax(), 3)  # type: ignore[arg-type]


def test_change_replaces_fields_and_leaves_the_config_given() -> None:
    config = full_softmax()
    changed = sf.change(config, {"stages.0.epochs": 3, "encoder.positions": "Rotary"})
    assert (changed.stages[0].epochs, config.stages[0].epochs) == (3, 200)
    assert changed.encoder.positions == sf.Rotary()
    with pytest.raises(sf.InputError, match="did you mean epochs"):
        sf.change(config, {"stages.0.epoch": 3})


def test_figures_are_those_of_the_stored_rank_tables(small_run: sf.Run) -> None:
    table = RankTable.load(small_run.folder / "ranks" / "test-full.npz")
    frame = small_run.metrics()
    assert list(frame.columns) == ["candidates", "metric", "mean", "low", "high", "users"]
    assert tuple(frame["metric"]) == small_run.config.evaluation.metrics
    assert set(frame["candidates"]) == {"full"}
    row = frame.set_index("metric").loc["ndcg@5"]
    expected = estimate([table], "ndcg@5")
    assert (row["mean"], row["low"], row["high"]) == (expected.mean, expected.low, expected.high)
    assert row["mean"] == metrics(table, ["ndcg@5"])["ndcg@5"]
    assert small_run.summary.test["full"]["ndcg@5"] == row["mean"]
    validation = small_run.metrics("validation").set_index("metric")["mean"]
    assert validation["mrr"] == pytest.approx(small_run.summary.val["mrr"], abs=1e-12)


def test_evaluating_again_gives_the_stored_figures_and_others(small_run: sf.Run) -> None:
    pd.testing.assert_frame_equal(small_run.evaluate(), small_run.metrics())
    pd.testing.assert_frame_equal(small_run.evaluate("validation"), small_run.metrics("validation"))
    frame = small_run.evaluate(metrics=["hr@4"], candidates=["full", "uniform-3"])
    assert list(frame["candidates"]) == ["full", "uniform-3"]
    # A held-out item and three negatives are four candidates; a miss is an item seen before.
    assert frame["mean"].iloc[1] == 1.0 - small_run.summary.missed_share
    kept = small_run.evaluate(metrics=["mrr"], seen="kept")["mean"].iloc[0]
    assert kept < small_run.evaluate(metrics=["mrr"])["mean"].iloc[0]


def test_wrong_rules_are_refused(small_run: sf.Run) -> None:
    with pytest.raises(sf.InputError, match="metric 'hit@10' does not exist"):
        small_run.evaluate(metrics=["hit@10"])
    with pytest.raises(sf.InputError, match="part is 'tests'; allowed: test, validation"):
        small_run.evaluate("tests")  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="part is 'train'"):
        small_run.metrics("train")  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="seen"):
        small_run.evaluate(seen="hidden")  # type: ignore[arg-type]


def test_a_finished_run_is_loaded_and_not_repeated(
    small_run: sf.Run, small_corpus: sf.Corpus, small_config: sf.RunConfig
) -> None:
    before = (small_run.folder / RunSummary.FILE).stat()
    again = sf.train(small_config, small_corpus.folder, out=small_run.folder)
    assert (small_run.folder / RunSummary.FILE).stat() == before
    assert again.config == small_run.config
    with pytest.raises(sf.InputError, match="holds another run"):
        sf.train(small_config, small_corpus, out=small_run.folder, seed=1)
    loaded = sf.load(str(small_run.folder))
    assert loaded.summary == small_run.summary
    assert loaded.corpus.fingerprint == small_corpus.fingerprint


def test_every_config_and_corpus_has_a_folder_of_its_own(
    small_corpus: sf.Corpus,
    small_config: sf.RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    other = sf.change(small_config, {"stages.0.epochs": 1})
    runs = [
        sf.train(small_config, small_corpus, seed=1),
        sf.train(small_config, small_corpus, seed=2),
        sf.train(other, small_corpus),
    ]
    one, two, three = (run.folder for run in runs)
    assert one.parent == two.parent
    assert three.parent != one.parent
    assert {folder.parents[1] for folder in (one, two, three)} == {Path("runs/python/small")}
    assert (one.name, two.name, three.name) == ("1", "2", "0")


def test_training_leaves_no_signal_handler_and_no_process_group(
    small_corpus: sf.Corpus,
    small_config: sf.RunConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    capsys.readouterr()
    sf.train(small_config, small_corpus, out=tmp_path / "quiet")
    assert capsys.readouterr().out == ""
    sf.train(small_config, small_corpus, out=tmp_path / "run", quiet=False)
    assert [signal.getsignal(number) for number in numbers] == before
    assert not torch.distributed.is_initialized()
    said = capsys.readouterr()
    # A line of steps, and one for each of two validations.
    assert said.out.count("\n") <= 3
    assert said.err == ""


def test_another_thread_trains_the_same_and_one_at_a_time(
    small_run: sf.Run,
    small_corpus: sf.Corpus,
    small_config: sf.RunConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trains, may_end = threading.Event(), threading.Event()
    runs: list[sf.Run] = []
    execute = run_module.execute

    def slow(config: sf.RunConfig, path: Path, *, options: RunOptions) -> RunSummary:
        trains.set()
        assert may_end.wait(60)
        return execute(config, path, options=options)

    monkeypatch.setattr(run_module, "execute", slow)
    thread = threading.Thread(
        target=lambda: runs.append(sf.train(small_config, small_corpus, out=tmp_path / "thread"))
    )
    thread.start()
    assert trains.wait(60)
    with pytest.raises(sf.InputError, match="another thread of this process is training"):
        sf.train(small_config, small_corpus, out=tmp_path / "main")
    may_end.set()
    thread.join(60)
    assert runs[0].summary.test == small_run.summary.test


def test_a_run_is_shown_in_two_lines(small_run: sf.Run) -> None:
    first, second = repr(small_run).splitlines()
    assert first == (f"Run of Transformer: finetune (next) on small, seed 0, in {small_run.folder}")
    assert second.startswith("  test, full ranking of 15 users: hr@5 0.")
    page = small_run._repr_html_()
    assert page.startswith("<b>Run</b><table>")
    assert "finetune (next)" in page


def test_a_run_is_pickled_as_its_folder(small_run: sf.Run) -> None:
    small_run.evaluate(metrics=["mrr"])
    copy = pickle.loads(pickle.dumps(small_run))
    assert type(copy) is sf.Run
    assert repr(copy) == repr(small_run)
    assert len(pickle.dumps(small_run)) < 1_000


def test_what_is_no_finished_run_is_refused(tmp_path: Path, small_run: sf.Run) -> None:
    with pytest.raises(sf.InputError, match="not a run folder"):
        sf.load(tmp_path)
    (tmp_path / "config.json").write_bytes((small_run.folder / "config.json").read_bytes())
    with pytest.raises(sf.InputError, match="has not finished"):
        sf.load(tmp_path)


def test_a_counting_ranker_is_trained_and_shown_too(
    small_corpus: sf.Corpus, tmp_path: Path
) -> None:
    run = sf.train("popularity.popularity", small_corpus, out=tmp_path / "run")
    assert repr(run).startswith("Run of Popularity on small, seed 0")
    assert np.isfinite(run.metrics()["mean"]).all()
    assert replace(run, device="cpu").corpus.num_items == 10


def test_a_finished_run_goes_on_with_more_epochs(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    sf.train(small_config, small_corpus, out=tmp_path / "run")
    more = sf.change(small_config, {"stages.0.epochs": 3})
    run = sf.train(more, small_corpus, out=tmp_path / "run")
    assert run.summary.best["finetune"].epochs == 3


def test_a_cell_that_is_stopped_is_run_again(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    config = sf.change(small_config, {"stages.0.epochs": 150, "stages.0.validation": None})
    out, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)

    def stop_it() -> None:
        while not (out / "metrics.jsonl").is_file():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop_it)
    thread.start()
    with pytest.raises(KeyboardInterrupt, match="SIGINT"):
        sf.train(config, small_corpus, out=out)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is handler
    assert list((out / "stages" / "finetune").glob("step_*"))
    with pytest.raises(sf.InputError, match="has not finished"):
        sf.load(out)
    run = sf.train(config, small_corpus, out=out)
    assert run.summary.best["finetune"].epochs == 150

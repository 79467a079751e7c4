"""Archives of runs: what comes back, that studies go on with it, and what is refused."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

import sixfold as sf
from baselines.popularity import popularity
from experiments.results.archive import keep, main, restore
from experiments.results.collect import line_of
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.runs.config import RunConfig
from research.storage.records import RunSummary
from tests.support.small_runs import FINETUNE, config_of, corpus_in
from tests.support.tunings import done, trials_in, tuning_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_in(tmp_path_factory.mktemp("corpora") / "films")


def cells_of(corpus: Corpus) -> dict[str, RunConfig]:
    return {"popularity": popularity(), "next": config_of(corpus, FINETUNE)}


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    sf.study(cells_of(corpus), corpus, seeds=(0, 1), name="mine", out=out)
    return out


def test_runs_come_back_with_all_but_their_weights(runs: Path, tmp_path: Path) -> None:
    keep(runs / "mine", tmp_path)
    restored = restore("mine", tmp_path / "runs", tmp_path)
    assert [run.relative_to(tmp_path / "runs/mine").as_posix() for run in restored] == [
        "films/next/0", "films/next/1", "films/popularity/0",
    ]  # fmt: skip
    for run in restored:
        before = runs / run.relative_to(tmp_path / "runs")
        (line, _), (expected, _) = line_of(run) or (None, None), line_of(before) or (None, None)
        assert line == expected
        for name in ("config.json", "summary.json", "metrics.jsonl"):
            assert not (before / name).exists() or (
                (run / name).read_bytes() == (before / name).read_bytes()
            )
        tables = [RankTable.load(each / "ranks/test-full.npz") for each in (before, run)]
        assert (tables[0].rank == tables[1].rank).all()
        assert tables[0].protocol == tables[1].protocol
        assert not (run / "stages").exists()


def test_a_study_goes_on_with_restored_runs_and_compares_them(
    runs: Path, corpus: Corpus, tmp_path: Path
) -> None:
    keep(runs / "mine", tmp_path)
    restored = restore("mine", tmp_path / "runs", tmp_path)
    written = [(run / RunSummary.FILE).stat().st_mtime_ns for run in restored]
    result = sf.study(cells_of(corpus), corpus, seeds=(0, 1), name="mine", out=tmp_path / "runs")
    assert [(run / RunSummary.FILE).stat().st_mtime_ns for run in restored] == written
    again = sf.study(cells_of(corpus), corpus, seeds=(0, 1), name="mine", out=runs)
    assert result.table().equals(again.table())


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    first = keep(runs / "mine", tmp_path).read_bytes()
    restore("mine", tmp_path / "runs", tmp_path)
    assert keep(tmp_path / "runs/mine", tmp_path / "again").read_bytes() == first


def test_what_is_there_stays_and_runs_that_have_not_ended_are_left_out(
    runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(runs / "mine", tmp_path / "runs/mine")
    (tmp_path / "runs/mine/films/next/1" / RunSummary.FILE).unlink()
    main(["keep", str(tmp_path / "runs/mine")], tmp_path)
    shutil.rmtree(tmp_path / "runs/mine/films/next/0")
    main(["restore", "mine", "--runs", str(tmp_path / "runs")], tmp_path)
    assert capsys.readouterr().out.endswith(f"mine: 1 run restored into {tmp_path / 'runs'}\n")
    assert (tmp_path / "runs/mine/films/next/0" / RunSummary.FILE).is_file()
    assert (tmp_path / "runs/mine/films/next/1/stages").is_dir()


@pytest.mark.long
def test_a_tuning_goes_on_with_restored_trials(corpus: Corpus, tmp_path: Path) -> None:
    whole = tuning_of(corpus)
    done(whole, tmp_path / "whole")
    # As it is before the last trial: no winner has been tested.
    done(tuning_of(corpus, trials=2), tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun/mine/films")
    keep(tmp_path / "begun/mine", tmp_path)
    restore("mine", tmp_path / "other", tmp_path)
    done(whole, tmp_path / "other")
    assert trials_in(tmp_path / "other") == trials_in(tmp_path / "whole")


def test_an_archive_that_is_damaged_or_missing_is_refused(runs: Path, tmp_path: Path) -> None:
    archive = keep(runs / "mine", tmp_path)
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"mine\.tar\.xz is damaged"):
        restore("mine", tmp_path / "runs", tmp_path)
    with pytest.raises(InputError, match=r"no archive .*there are: mine"):
        restore("yours", tmp_path / "runs", tmp_path)
    with pytest.raises(InputError, match="has no run that has ended"):
        keep(tmp_path, tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["../mine/config.json", "/mine/config.json", "yours/config.json"])
def test_files_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "mine.tar.xz", "w:xz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InputError, match="which is of no run of mine"):
        restore("mine", tmp_path / "runs", tmp_path)
    assert not (tmp_path / "runs").exists()

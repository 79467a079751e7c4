"""Archives of runs: what comes back, that studies go on with it, and what is refused."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

import sixfold as sf
from baselines.popularity import popularity
from experiments.results.archive import contents_of, keep, main, restore
from research.data.corpus import Corpus
from research.errors import InputError
from research.evaluation.rank_table import RankTable
from research.runs.config import RunConfig
from research.storage.records import RunSummary
from research.studies.optuna_studies import JOURNAL
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
    restored, left = restore("mine", tmp_path / "runs", tmp_path)
    assert [run.relative_to(tmp_path / "runs/mine").as_posix() for run in restored] == [
        "films/next/0", "films/next/1", "films/popularity/0",
    ]  # fmt: skip
    assert left == []
    assert sorted(path.name for path in (tmp_path / "runs/mine/films/next/0").rglob("*")) == [
        "config.json", "metrics.jsonl", "ranks", "summary.json", "test-full.npz",
        "validation-full.npz",
    ]  # fmt: skip
    for run in restored:
        trained = runs / run.relative_to(tmp_path / "runs")
        for name in ("config.json", "summary.json", "metrics.jsonl"):
            assert (run / name).exists() == (trained / name).exists()
            if (run / name).exists():
                assert (run / name).read_bytes() == (trained / name).read_bytes()
        tables = [RankTable.load(folder / "ranks/test-full.npz") for folder in (trained, run)]
        assert (tables[0].rank == tables[1].rank).all()
        assert tables[0].protocol == tables[1].protocol


def test_a_study_goes_on_with_restored_runs_and_compares_them(
    runs: Path, corpus: Corpus, tmp_path: Path
) -> None:
    keep(runs / "mine", tmp_path)
    restored, _ = restore("mine", tmp_path / "runs", tmp_path)
    written = [(run / RunSummary.FILE).stat().st_mtime_ns for run in restored]
    result = sf.study(cells_of(corpus), corpus, seeds=(0, 1), name="mine", out=tmp_path / "runs")
    assert [(run / RunSummary.FILE).stat().st_mtime_ns for run in restored] == written
    again = sf.study(cells_of(corpus), corpus, seeds=(0, 1), name="mine", out=runs)
    assert result.table().equals(again.table())


def test_a_part_has_what_is_new_since_the_last(
    runs: Path, corpus: Corpus, tmp_path: Path, capsys: Capture
) -> None:
    study = tmp_path / "runs/mine"
    shutil.copytree(runs / "mine", study)
    (study / "films/next/1" / RunSummary.FILE).unlink()
    main(["keep", str(study)], tmp_path)
    shutil.copy(runs / "mine/films/next/1" / RunSummary.FILE, study / "films/next/1")
    part = keep(study, tmp_path)
    assert part == tmp_path / "mine/02.tar.xz"
    assert {path.parts[:4] for path in contents_of([part])} == {("mine", "films", "next", "1")}
    main(["keep", str(study)], tmp_path)
    assert capsys.readouterr().out.endswith(f"{study}: nothing new\n")
    # A folder without the first runs adds nothing and loses nothing.
    shutil.rmtree(study / "films/next/0")
    assert keep(study, tmp_path) is None
    restored, left = restore("mine", tmp_path / "other", tmp_path)
    assert (len(restored), left) == (3, [])


def test_what_is_there_stays_and_runs_that_have_not_ended_are_left_out(
    runs: Path, tmp_path: Path, capsys: Capture
) -> None:
    study = tmp_path / "runs/mine"
    shutil.copytree(runs / "mine", study)
    (study / "films/next/1" / RunSummary.FILE).unlink()
    (study / "films/next/1/failed.json").write_text("{}")
    (study / "report.html").write_text("made again at any time")
    main(["keep", str(study)], tmp_path)
    shutil.rmtree(study / "films/next/0")
    (study / "films/next/0").mkdir()
    (study / "study.json").write_text("mine")
    main(["restore", "mine", "--runs", str(tmp_path / "runs")], tmp_path)
    assert "runs: 1; there already, and left as they are: 1\n" in capsys.readouterr().out
    assert (study / "films/next/0" / RunSummary.FILE).is_file()
    assert (study / "films/next/1/stages").is_dir()
    assert (study / "study.json").read_text() == "mine"
    restore("mine", tmp_path / "other", tmp_path)
    assert sorted(path.name for path in (tmp_path / "other/mine/films/next").iterdir()) == ["0"]
    assert [path.name for path in (tmp_path / "other/mine").glob("*.*")] == ["study.json"]


@pytest.mark.long
def test_a_tuning_goes_on_with_restored_trials(corpus: Corpus, tmp_path: Path) -> None:
    whole = tuning_of(corpus)
    done(whole, tmp_path / "whole")
    # As it is before the last trial: no winner has been tested.
    done(tuning_of(corpus, trials=2), tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun/mine/films")
    keep(tmp_path / "begun/mine", tmp_path)
    restored, _ = restore("mine", tmp_path / "other", tmp_path)
    assert len(restored) == 2
    journal = tmp_path / "other/mine-trials" / JOURNAL
    assert journal.read_bytes() == (tmp_path / "begun/mine-trials" / JOURNAL).read_bytes()
    written = [(run / RunSummary.FILE).stat().st_mtime_ns for run in restored]
    done(whole, tmp_path / "other")
    assert [(run / RunSummary.FILE).stat().st_mtime_ns for run in restored] == written
    assert trials_in(tmp_path / "other") == trials_in(tmp_path / "whole")
    shutil.rmtree(restored[0])
    with pytest.raises(InputError, match="of another course of this tuning"):
        restore("mine", tmp_path / "other", tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_a_damaged_archive_is_refused(runs: Path, tmp_path: Path, cut: int) -> None:
    part = keep(runs / "mine", tmp_path)
    assert part is not None
    part.write_bytes(part.read_bytes()[:-cut])
    with pytest.raises(InputError, match=r"mine/01\.tar\.xz is damaged"):
        restore("mine", tmp_path / "runs", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_changed_bit_is_found(runs: Path, tmp_path: Path) -> None:
    part = keep(runs / "mine", tmp_path)
    assert part is not None
    content = bytearray(part.read_bytes())
    for place in range(0, len(content), len(content) // 60):
        content[place] ^= 1 << place % 8
        part.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            contents_of([part])
        content[place] ^= 1 << place % 8


def test_a_name_without_an_archive_and_a_folder_without_a_run_are_refused(
    runs: Path, tmp_path: Path
) -> None:
    keep(runs / "mine", tmp_path)
    with pytest.raises(InputError, match=r"no archive .*there are: mine"):
        restore("yours", tmp_path / "runs", tmp_path)
    for folder in (runs, runs / "mine/films"):
        with pytest.raises(InputError, match="has no run that has finished"):
            keep(folder, tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../mine/study.json", "/mine/study.json", "mine/../yours/study.json", "yours/study.json",
     "mine/other.json", "mine/films/next/0/failed.json"],
)  # fmt: skip
def test_files_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    with tarfile.open(tmp_path / "mine/01.tar.xz", "w:xz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(InputError, match="which is of no run of mine"):
        restore("mine", tmp_path / "runs", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    link = tarfile.TarInfo("mine/study.json")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    with tarfile.open(tmp_path / "mine/01.tar.xz", "w:xz") as tar:
        tar.addfile(link)
    with pytest.raises(InputError, match="which is not a file"):
        restore("mine", tmp_path / "runs", tmp_path)

"""The verb `datasets`, and `prepare` of a data set by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research.data.corpus import Corpus
from research.data.preparation.datasets import DATASETS
from tests.support.command_line import command_error, run_command

Capture = pytest.CaptureFixture[str]
REVIEWS = (
    '{"overall": 5.0, "reviewerID": "A2", "asin": "B1", "unixReviewTime": 1472688001}\n'
    '{"overall": 4.0, "reviewerID": "A2", "asin": "B0", "unixReviewTime": 1472688000}\n'
)


def test_the_list_names_every_data_set_or_how_to_list_it(capsys: Capture, tmp_path: Path) -> None:
    answer = run_command(capsys, "datasets", "--data-root", tmp_path)
    assert answer.code == 0
    for name in DATASETS:
        assert name[: len("amazon-2014")] in answer.out if "amazon" in name else name in answer.out
    assert "list them with `sixfold datasets amazon-2018`" in answer.out
    answer = run_command(capsys, "datasets", "amazon-2018-v", "--data-root", tmp_path)
    assert "amazon-2018-video-games-ratings" in answer.out
    assert "amazon-2018-books" not in answer.out


def test_one_data_set_is_told_in_full(capsys: Capture, tmp_path: Path) -> None:
    answer = run_command(capsys, "datasets", "gowalla", "--data-root", tmp_path)
    assert answer.code == 0
    for text in (
        *("6,442,892", "https://snap.stanford.edu/data/loc-gowalla.html", "sha256:c1c3e19effba"),
        "none that is read",
        *("not known; see the page", str(tmp_path / "raw" / "gowalla"), "--raw FILE"),
        "sixfold prepare csv --user-column 1 --item-column 5 --timestamp-column 2 --delimiter "
        r"$'\t' --header False --raw FILE",
    ):
        assert text in answer.out
    answer = run_command(capsys, "datasets", "ml-1m", "--data-root", tmp_path)
    assert "`sixfold prepare ml-1m` downloads it." in answer.out
    assert "--raw FILE" not in answer.out


def test_json_tells_what_is_here(capsys: Capture, tmp_path: Path) -> None:
    name = "amazon-2018-all-beauty"
    (tmp_path / "Beauty_5.json").write_text(REVIEWS)
    arguments = ("prepare", name, "--raw", tmp_path / "Beauty_5.json", "--data-root", tmp_path)
    assert run_command(capsys, *arguments).code == 0
    answer = run_command(capsys, "datasets", name, "--json", "--data-root", tmp_path)
    (facts,) = json.loads(answer.out)
    (folder,) = facts["corpora"]
    assert list(Corpus.open(folder).item_names) == ["B1", "B0"]
    assert (facts["name"], facts["raw"], facts["size"]) == (name, None, None)
    assert facts["place"] == str(tmp_path / "raw" / name / "All_Beauty_5.json.gz")
    raw = tmp_path / "raw" / name / "All_Beauty_5.json"
    raw.parent.mkdir(parents=True)
    raw.write_text(REVIEWS)
    answer = run_command(capsys, "datasets", name, "--json", "--data-root", tmp_path)
    assert json.loads(answer.out)[0]["raw"] == str(raw)
    assert (
        "raw file, corpus"
        in run_command(capsys, "datasets", "amazon-2018-all", "--data-root", tmp_path).out
    )
    everything = json.loads(run_command(capsys, "datasets", "--json", "--data-root", tmp_path).out)
    assert [facts["name"] for facts in everything] == list(DATASETS)


def test_a_data_set_whose_file_is_not_here_is_refused(capsys: Capture, tmp_path: Path) -> None:
    error = command_error(capsys, "prepare", "yelp", "--data-root", tmp_path)
    assert "Get yelp_academic_dataset_review.json from https://www.yelp.com/dataset (Yelp" in error
    assert str(tmp_path / "raw" / "yelp" / "yelp_academic_dataset_review.json") in error
    error = command_error(capsys, "datasets", "steem", "--data-root", tmp_path)
    assert "no data set has a name that begins with 'steem'" in error
    assert "did you mean steam?" in error

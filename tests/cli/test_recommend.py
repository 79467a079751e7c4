"""`recommend`, `similar` and `embeddings` on runs whose raw ids are odd, as a person calls them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.popularity import popularity
from research.runs.execute import execute
from tests.support.command_line import command_error, run_command, table_rows
from tests.support.odd_names import ODD_NAMES
from tests.support.small_runs import FINETUNE, PRETRAIN, QUIET, config_of, corpus_in

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `trained`, a run of two stages, and `counted`, both on items with odd raw ids."""
    folder = tmp_path_factory.mktemp("odd")
    corpus = corpus_in(folder / "corpus", names=ODD_NAMES)
    execute(config_of(corpus, PRETRAIN, FINETUNE), folder / "trained", options=QUIET)
    counting = replace(popularity(), corpus=str(corpus.folder))
    execute(counting, folder / "counted", options=QUIET)
    return folder


def test_all_users_are_written_to_a_file(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    answer = run_command(
        capsys, "recommend", folder / "trained", "--users", "all", "--k", "3", "--out", out
    )
    frame = pd.read_parquet(out)
    assert (answer.code, answer.err) == (0, "")
    num_short = 15 - int((frame["rank"] == 3).sum())
    said = [f"{out}: {len(frame)} rows for 15 requests"]
    said += [f"{num_short} of them have fewer than 3 items left"] if num_short else []
    assert answer.out.splitlines() == said
    assert frame["user"].unique().tolist() == [f"u{user}" for user in range(15)]


def test_a_few_users_are_printed_each_below_the_history(capsys: Capture, folder: Path) -> None:
    answer = run_command(
        capsys, "recommend", folder / "trained", "--users", "u3", "u0", "--users=u1", "--k", "2"
    )
    assert answer.code == 0
    headings = [line for line in answer.out.splitlines() if line.startswith("user")]
    assert [heading.split(",")[0] for heading in headings] == [
        "user 'u3'",
        "user 'u0'",
        "user 'u1'",
    ]
    assert all(" after " in heading for heading in headings)
    assert [row[0] for row in table_rows(answer.out)] == ["1", "2"] * 3


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_odd_id_can_be_recommended_from(capsys: Capture, folder: Path, name: str) -> None:
    given = ["recommend", folder / "trained", f"--items={name}", "--k", "9"]
    answer = run_command(capsys, *given)
    assert (answer.code, answer.err) == (0, "")
    again = run_command(capsys, *given, "--keep-seen", "--k", "10")
    assert len(table_rows(again.out)) >= 10


def test_values_are_cut_at_commas_unless_they_are_ids(capsys: Capture, folder: Path) -> None:
    run = folder / "trained"
    apart = run_command(capsys, "recommend", run, "--items", "NA", "--items=-1", "Björk")
    joined = run_command(capsys, "recommend", run, "--items", "NA, -1,Björk")
    assert apart.code == 0
    assert apart.out == joined.out
    assert apart.out.startswith("after NA, -1, Björk\n")
    whole = run_command(capsys, "recommend", run, "--items", "Earth, Wind & Fire")
    assert whole.out.startswith("after Earth, Wind & Fire\n")
    mixed = run_command(capsys, "recommend", run, "--items", "NA,-1", "Björk")
    assert mixed.out == apart.out
    message = command_error(capsys, "recommend", run, "--items", "NA,nobody", "Björk")
    assert "histories: 'nobody' is not among the 10 names" in message


def test_histories_and_candidates_come_from_files(
    capsys: Capture, folder: Path, tmp_path: Path
) -> None:
    events = pd.DataFrame({"user": ["x, y", "x, y", "z"], "item": ["-1", "two\nlines", "nobody's"]})
    events.to_csv(tmp_path / "new.csv", index=False)
    pd.DataFrame({"item": ["NA", "Björk", "--k"]}).to_csv(tmp_path / "only.csv", index=False)
    (tmp_path / "not.txt").write_text("NA\nnobody's\n")
    out = tmp_path / "lists.jsonl"
    answer = run_command(
        capsys, "recommend", folder / "trained", "--histories", tmp_path / "new.csv",
        "--candidates", tmp_path / "only.csv", "--exclude", tmp_path / "not.txt",
        "--unknown", "skip", "--out", out,
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"{tmp_path / 'new.csv'}: events are read as they stand, oldest first",
        f"{out}: 4 rows for 2 requests",
        "2 of them have fewer than 10 items left",
        "2 of 10 items may be recommended",
        "1 events have an unknown item, and are left out of histories",
        "1 candidates, exclusions or attributes are unknown, and left out",
        "1 of 2 histories have no event, and get the items that are most popular in the training "
        "part",
    ]  # fmt: skip
    frame = pd.read_json(out, lines=True)
    assert frame["user"].tolist() == ["x, y"] * 2 + ["z"] * 2
    assert frame["ranked_by"].tolist() == ["run"] * 2 + ["popularity"] * 2
    assert set(frame["item"]) == {"Björk", "--k"}


def test_histories_are_read_in_the_order_of_their_times(
    capsys: Capture, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "new.txt"
    path.write_text("user,item,bought_at\nu,NA,2\nu,-1,1\n")
    given = ["recommend", folder / "trained", "--histories", path, "--timestamp-column"]
    answer = run_command(capsys, *given, "bought_at")
    assert answer.out.startswith(
        f"{path}: events are read in the order of their times (column bought_at)\n"
        "user 'u', after -1, NA\n"
    )
    assert "there is no column 'bougth_at'" in command_error(capsys, *given, "bougth_at")


def test_items_of_an_attribute(capsys: Capture, folder: Path) -> None:
    # Item v has the attribute v % 3.
    answer = run_command(
        capsys, "recommend", folder / "counted", "--users", "u0", "--attributes", "a2",
        "--keep-seen",
    )  # fmt: skip
    assert sorted(row[1] for row in table_rows(answer.out)) == sorted(
        name.strip() for name in ODD_NAMES[2::3]
    )


def test_neighbors_are_printed_or_written(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    run, out = folder / "trained", tmp_path / "near.csv"
    shown = run_command(capsys, "similar", run, "--items=-1", "--k", "2")
    assert shown.code == 0
    rows = table_rows(shown.out)
    assert [(row[0], row[3]) for row in rows] == [("-1", "1"), ("-1", "2")]
    written = run_command(capsys, "similar", run, "--items", "all", "--k", "2", "--out", out)
    assert written.out == f"{out}: 20 rows\n"
    frame = pd.read_csv(out, keep_default_na=False)
    nearest = frame[frame["item"] == "-1"]["neighbor"].tolist()
    assert [row[1] for row in rows] == [name.strip() for name in nearest]
    attributes = run_command(capsys, "similar", run, "--attributes", "a0", "--by", "dot")
    assert {row[1] for row in table_rows(attributes.out)} == {"a1", "a2"}


def test_embeddings_are_written(capsys: Capture, folder: Path, tmp_path: Path) -> None:
    run = folder / "trained"
    for of, number in (("items", 10), ("users", 15), ("attributes", 3)):
        out = tmp_path / f"{of}.npz"
        answer = run_command(capsys, "embeddings", run, "--of", of, "--out", out)
        assert answer.out == f"{out}: {number} embeddings\n"
        with np.load(out) as stored:
            assert stored["vectors"].shape == (number, 4)
            assert len(stored["ids"]) == number
    out = tmp_path / "two.parquet"
    given = ["--of", "users", "--users", "u9", "u2", "--out", out]
    assert run_command(capsys, "embeddings", run, *given).code == 0
    assert pd.read_parquet(out)["user"].tolist() == ["u9", "u2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["recommend", "trained"], "for whom? Give --users all, --users ID ..., --users-file FILE"),
        (
            ["recommend", "trained", "--users", "u0", "--items", "NA"],
            "--users and --items are given; give one of them",
        ),
        (
            ["recommend", "trained", "--items", "NA", "--history", "test"],
            "--history is for users of the corpus; leave it out",
        ),
        (
            ["recommend", "trained", "--users", "u0", "--user-column", "who"],
            "--user-column is for histories and files of users that have columns; leave it out",
        ),
        (
            ["recommend", "trained", "--users", "u0", "--exclude", "x.txt", "--item-column", "x"],
            "--item-column is for histories and files of items that have columns; leave it out",
        ),
        (
            ["embeddings", "trained", "--of", "users", "--timestamp-column", "x", "--out", "x.npz"],
            "--timestamp-column is for --histories; leave it out",
        ),
        (["recommend", "trained", "--users"], "--users has no value; give one or more, or leave"),
        (["recommend", "trained", "--users", "u99"], "users: 'u99' is not among the 15 names"),
        (
            ["recommend", "trained", "--users", "all", "--out", "x.xls"],
            "x.xls: a table is written as .csv, .parquet, .jsonl",
        ),
        (["recommend", "trained", "--users-file", "no.csv"], "no.csv is not a file"),
        (
            ["recommend", "trained", "--users", "all", "--attributes", "b"],
            "attributes: 'b' is not among the 3 names",
        ),
        (["similar", "trained"], "give either --items or --attributes, with raw ids or all"),
        (["similar", "counted", "--items", "NA"], "the run ranks by counts (Popularity)"),
        (
            ["embeddings", "trained", "--of", "items", "--out", "x.csv"],
            "x.csv: embeddings are written as .parquet or .npz",
        ),
        (
            ["embeddings", "trained", "--of", "items", "--users", "all", "--out", "x.npz"],
            "options that name users are for --of users, not for items",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    capsys: Capture, folder: Path, given: list[str], message: str
) -> None:
    verb, run, *more = given
    assert message in command_error(capsys, verb, folder / run, *more)


def test_many_lists_are_not_printed(
    capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.cli.recommend.MOST_PRINTED", 14)
    for given in (["recommend", folder / "trained", "--users", "all"],):
        message = command_error(capsys, *given)
        assert "15 lists are too many to print; write them with --out FILE" in message


ORDERS = """client;sku;bought;kind
c1;A;03.01.2025 05:00;tea
c1;B;02.02.2025 05:00;mug
c1;C;01.03.2025 05:00;mug
c2;B;03.01.2025 05:00;mug
c2;D;04.01.2025 05:00;pot
c2;A;05.01.2025 05:00;tea
"""


def test_new_histories_are_read_as_the_corpus_was(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(ORDERS)
    columns = ("--user-column", "client", "--item-column", "sku", "--timestamp-column", "bought")
    dates = ("--time-format", "%d.%m.%Y %H:%M")
    prepare = ("prepare", "csv", "--raw", tmp_path / "orders.csv", "--out", tmp_path / "orders")
    more = ("--attribute-columns", "kind")
    assert run_command(capsys, *prepare, *columns, *dates, *more).code == 0
    counts = ("run", "baselines.popularity.popularity", "--out", tmp_path / "run")
    assert run_command(capsys, *counts, "--corpus", tmp_path / "orders").code == 0
    new = tmp_path / "new.csv"
    new.write_text("client;sku;bought\nnew;B;11.01.2025 05:00\nnew;A;02.03.2024 05:00\n")
    asked = ("recommend", tmp_path / "run", "--histories", new)
    answer = run_command(capsys, *asked)
    assert answer.out.startswith(
        f"{new}: events are read in the order of their times (column bought)\n"
        "user 'new', after A, B\n"
    )
    assert run_command(capsys, *asked, *columns, *dates).out == answer.out
    # Other columns are named, and times are then of a form of their own.
    new.write_text("user,item,when\nnew,B,2025/11/01\nnew,A,2024/12/02\n")
    named = run_command(capsys, *asked, "--timestamp-column", "when", "--time-format", "%Y/%m/%d")
    assert "\nuser 'new', after A, B\n" in named.out
    without = (*asked[:2], "--users", "c1", "--keep-seen", "--exclude-attributes")
    left = run_command(capsys, *without, "kind:mug", "kind:pot")
    assert [row[1] for row in table_rows(left.out)] == ["A"]
    assert left.out.endswith("1 of 4 items may be recommended\n")
    message = command_error(capsys, *without, "kind:mgu")
    assert "exclude_attributes: 'kind:mgu' is not among the 3 names" in message

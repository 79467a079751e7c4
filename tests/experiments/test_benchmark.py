"""The benchmark's table, figure and pins, from measurements that are written down here."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.benchmark.__main__ import main, parser, write_results
from experiments.benchmark.figure import seconds_svg
from experiments.benchmark.measure import gflop_of
from experiments.benchmark.peers.environment import (
    FOLDER,
    PEERS,
    TITLES,
    environment_folder,
    pins_of,
    python_of,
)
from experiments.benchmark.peers.known import KNOWN, LEFT_OUT
from experiments.benchmark.peers.task import Histories, StepTimer, Task
from experiments.benchmark.results import (
    OURS,
    Ceilings,
    Failure,
    Measured,
    digits,
    unexplained,
)
from experiments.benchmark.rounds import Rounds, in_process, turns
from experiments.benchmark.table import markdown
from experiments.benchmark.works import WORKS, task_of, write_arrays
from research.data.splits import LeaveOneOut
from research.model.kernels.cross_entropy import softmax_loss
from tests.support.command_line import shop_corpus

OWN = Measured(
    work="W1",
    side=OURS,
    seconds=10.0,
    cpu=20.0,
    steps=88,
    steps_in_epoch=88,
    timed_share=1.0,
    peak_megabytes=500.0,
    gflop=700.0,
    facts={"rows": 22363, "targets": 128031, "items": 12101, "length": 50, "loss": "full softmax"},
)
THEIRS = replace(
    OWN,
    side="rectools",
    seconds=300.0,
    steps=20,
    timed_share=0.23,
    gflop=5900.0,
    facts={**OWN.facts, "items": 12066},
)


def rounds(*measured: Measured) -> Rounds:
    return Rounds(measured=list(measured), ceilings=[Ceilings(100.0, 30.0)])


def rows_of(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_where_targets_differ_the_ratio_is_given_for_each_too() -> None:
    theirs = replace(OWN, side="recbole", seconds=300.0, facts={**OWN.facts, "targets": 2 * 128031})
    (_, recbole) = rows_of(markdown(rounds(OWN, theirs), ["W1"], "c", "m"))
    assert recbole[3] == "**30.0** (30.0 to 30.0); 15.0 a target"


def test_the_table_has_medians_spreads_ratios_and_shares() -> None:
    again = [replace(OWN, seconds=seconds) for seconds in (8.0, 12.5)]
    theirs = [replace(THEIRS, seconds=seconds) for seconds in (200.0, 500.0)]
    text = markdown(rounds(OWN, THEIRS, *again, *theirs), ["W1"], "the command", "A machine.")
    own, their = rows_of(text)
    assert "Left out:" not in text
    assert own == [
        "W1 SASRec, full softmax, Beauty", "ours", "10.0 (8.00 to 12.5)", "", "500", "700", "70%",
        "1",
    ]  # fmt: skip
    assert their == [
        "", "RecTools", "300 (200 to 500)", "**30.0** (25.0 to 40.0)", "500", "5,900", "20%", "2, 3"
    ]  # fmt: skip
    assert "2. It projects every padded position onto the catalogue." in text
    assert "items: 12,101 here, 12,066 there (its catalogue has only the items" in text
    assert "3. 20 of 88 steps were timed, and scaled." in text
    assert "Command: `the command`. A machine." in text


@pytest.mark.parametrize("fails", ["ours", "rectools"])
def test_the_ratio_is_over_the_rounds_that_both_measured(fails: str) -> None:
    # The side that failed in the third round has two measurements.
    own = [replace(OWN, seconds=seconds) for seconds in (10.0, 20.0, 1000.0)]
    theirs = [replace(THEIRS, seconds=seconds) for seconds in (100.0, 300.0, 9000.0)]
    both = own[:2] + theirs if fails == "ours" else own + theirs[:2]
    text = markdown(rounds(*both), ["W1"], "", "")
    assert rows_of(text)[1][3] == "**13.3** (10.0 to 15.0)"
    assert "The ratio is over the 2 rounds that both measured, of 3." in text


@pytest.mark.parametrize("words", [["--runs", "0"], ["--pairs", "-1"], ["--steps", "x"]])
def test_counts_are_1_or_more(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert f"argument {words[0]}: '{words[1]}' given; allowed: 1, 2, ..." in capsys.readouterr().err


def test_works_that_differ_get_no_ratio() -> None:
    other = replace(THEIRS, facts={**OWN.facts, "length": 200, "targets": 7})
    (_, their) = rows_of(markdown(rounds(OWN, other), ["W1"], "", ""))
    assert their[3] == "none: targets: 128,031 here, 7 there; length: 50 here, 200 there"


def test_a_fact_that_one_side_does_not_report_differs() -> None:
    facts = {name: fact for name, fact in OWN.facts.items() if name != "loss"}
    said = ["loss: full softmax here, not reported there"]
    assert unexplained(OWN.facts, facts, {"items"}) == said
    assert unexplained({"rows": 1}, {"rows": 1, "items": 2}, {"items"}) == []


def test_a_side_that_failed_is_named_and_the_others_stand() -> None:
    measured = rounds(THEIRS)
    measured.failures.append(Failure("W1", OURS, "exit code 1: MemoryError"))
    text = markdown(measured, ["W1"], "", "")
    assert [row[3] for row in rows_of(text)] == ["none: ours failed"]
    assert "ours failed in W1: exit code 1: MemoryError" in text


def test_it_is_said_which_peers_cannot_do_a_work() -> None:
    pretraining = replace(OWN, work="W2", facts={})
    text = markdown(rounds(OWN, THEIRS, pretraining), ["W1", "W2"], "", "")
    assert "Left out: RecTools in W2 (RecTools has no S3-Rec).\n" in text


def test_numbers_have_three_digits_that_count() -> None:
    assert [digits(value) for value in (0.123, 9.876, 98.76, 1234.5)] == [
        "0.12", "9.88", "98.8", "1,234"
    ]  # fmt: skip


def test_the_figure_is_the_same_for_the_same_seconds() -> None:
    seconds = {"W1": {OURS: 10.0, "rectools": 300.0}, "W8": {OURS: 13.0}}
    svg = seconds_svg(seconds)
    assert svg == seconds_svg(seconds)
    assert svg.startswith("<?xml")
    assert "300 s RecTools" in svg
    assert "dc:date" not in svg
    assert ">100</text>" in svg
    assert "mathdefault" not in svg
    assert svg != seconds_svg({**seconds, "W8": {OURS: 14.0}})


def test_all_results_are_written(tmp_path: Path) -> None:
    write_results(rounds(OWN, THEIRS), ["W1", "W8"], "the table\n", tmp_path / "new")
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {"table.md", "figure.svg", "results.json"}


def test_a_measurement_survives_json() -> None:
    assert Measured.from_json(THEIRS.to_json()) == THEIRS


@pytest.mark.parametrize("peer", PEERS)
def test_every_requirement_is_an_exact_pin(peer: str) -> None:
    file, module = PEERS[peer]
    pins = pins_of((FOLDER / file).read_text())
    assert pins["torch"] == "2.13.0"
    assert {"rectools.txt": "rectools", "recbole.txt": "recbole"}[file] in pins
    assert (FOLDER / f"{module.rpartition('.')[2]}.py").is_file()


def test_pins_are_read_and_anything_else_is_refused() -> None:
    assert pins_of("RecTools==0.19.0\ntorch==2.13.0\n") == {"rectools": "0.19.0", "torch": "2.13.0"}
    with pytest.raises(ValueError, match=r"line 2 is 'torch>=2'; each line must be NAME==VERSION"):
        pins_of("numpy==1.26.4\ntorch>=2")


def test_an_environment_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    folder = environment_folder("recbole", tmp_path)
    assert re.fullmatch(r"recbole-[0-9a-f]{12}", folder.name)
    assert environment_folder("fast", tmp_path) == environment_folder("rectools", tmp_path)
    folder.mkdir()
    (folder / "installed").touch()
    assert python_of("recbole", tmp_path) == folder / "bin" / "python"


def test_ours_runs_first_and_a_peer_only_where_it_can() -> None:
    assert list(turns(["W2", "W8"], ["rectools", "recbole"])) == [
        ("W2", OURS), ("W2", "recbole"), ("W8", OURS)
    ]  # fmt: skip


def test_each_work_is_done_by_a_peer_or_it_is_said_why_not() -> None:
    assert set(TITLES) == {OURS, *PEERS}
    for name, work in WORKS.items():
        for peer in PEERS if work.config is not None else ():
            does = peer in work.peers
            assert does == ((peer, name) in KNOWN)
            assert does != ((peer, name) in LEFT_OUT)


def test_a_task_has_the_sizes_of_our_own_run(tmp_path: Path) -> None:
    task = task_of("W4", "recbole", tmp_path, steps=3, threads=1, device="cpu")
    assert (task.length, task.batch, task.loss, task.mask_rate) == (200, 128, "full softmax", 0.0)
    pretraining = task_of("W2", "recbole", tmp_path, steps=3, threads=1, device="cpu")
    assert (pretraining.model, pretraining.batch, pretraining.mask_rate) == ("s3rec", 100, 0.2)
    task.write(tmp_path / "task.json")
    assert Task.read(str(tmp_path / "task.json")) == task


def test_peers_hold_out_the_interactions_that_we_hold_out(tmp_path: Path) -> None:
    corpus = shop_corpus(tmp_path)
    training = LeaveOneOut().split(corpus).training
    write_arrays(corpus, tmp_path / "shop.npz")
    histories = Histories.read(str(tmp_path / "shop.npz"))
    assert histories.items.tolist() == corpus.items.tolist()
    kept = np.flatnonzero(histories.ages >= 2)
    ranges = zip(training.starts, training.stops)
    assert kept.tolist() == [place for start, stop in ranges for place in range(start, stop)]


def test_only_the_steps_after_the_warm_ones_are_timed(tmp_path: Path) -> None:
    timer = StepTimer(task_of("W1", "fast", tmp_path, steps=2, threads=1, device="cpu"))
    for rows in (1, 2, 4, 8, 16, 32, 64):
        assert not timer.enough
        timer.after(rows)
    assert timer.enough
    timer.stop()
    assert (timer.steps, timer.rows) == (2, 96)
    assert timer.duration.seconds >= 0.0


@pytest.mark.long  # torch's counter imports for a second at its first use
def test_products_are_counted_forward_and_backward() -> None:
    x = torch.ones(10, 20)
    weight = torch.ones(20, 30, requires_grad=True)
    # x @ weight, and its gradient with respect to weight alone.
    assert gflop_of(lambda: (x @ weight).sum().backward()) == 2 * 2 * 10 * 20 * 30 / 1e9


@pytest.mark.long
@pytest.mark.parametrize(("items", "products"), [(1_000, 3), (1 << 16, 4)])
def test_products_in_place_are_counted(items: int, products: int) -> None:
    """The softmax by rows does three products, that by columns computes the scores twice."""
    states = torch.randn(512, 8, requires_grad=True)
    table = torch.randn(items, 8, requires_grad=True)
    targets = torch.zeros(512, dtype=torch.int64)
    counted = gflop_of(lambda: softmax_loss(states, table, None, targets).backward())
    assert counted == pytest.approx(products * 2 * 512 * items * 8 / 1e9)


def test_a_process_that_fails_gives_its_last_line() -> None:
    assert in_process([sys.executable, "-c", "print(1); print(2)"]) == "2"
    with pytest.raises(RuntimeError, match=r"exit code 1: ValueError: too large"):
        in_process([sys.executable, "-c", "raise ValueError('too large')"])


def test_a_work_without_its_corpus_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def measure(works: list[str], *rest: object) -> Rounds:
        asked.append(works)
        return rounds(OWN)

    monkeypatch.setattr("experiments.benchmark.__main__.measure", measure)
    assert main(["--work", "W7", "W8", "--corpora", str(tmp_path)]) == 0
    assert asked == [["W8"]]
    assert f"W1: left out, {tmp_path / 'Beauty'} is absent" in capsys.readouterr().out

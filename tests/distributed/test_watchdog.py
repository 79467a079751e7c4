"""A rank that dies, hangs or fails ends the job within a bound, and what it was comes first."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest

from research.distributed import collectives as processes
from research.distributed.failures import STOPPED, is_consequence
from research.distributed.heartbeat import Heartbeat, JobFailure, Peers, TimeLimits
from research.distributed.liveness import WAITING_MODULES, current_code, machine_id
from research.distributed.signals import Stopped, handle_signals
from research.distributed.watchdog import Watchdog
from research.errors import InputError
from tests.support.launching import Ranks, joined_ranks, launched

pytestmark = pytest.mark.long

# Trains for ever, or until something of its first argument happens; the second bounds a stall.
WORKER = """
import os, signal, sys, time
from research.errors import InputError
from research.distributed.activity import ACTIVITY
from research.distributed.watchdog import Watchdog

case, stall, rank = sys.argv[1], float(sys.argv[2]), int(os.environ["RANK"])
signal.signal(signal.SIGTERM, lambda *_: None)

def say(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

def tick():
    while True:
        time.sleep(0.1)

def step_of(step):
    if case == "same" and step == 5:
        raise InputError("no such corpus")
    if case == "one" and step == 5 and rank == 1:
        raise InputError("no such corpus")
    if case == "bug" and step == 5 and rank == 1:
        raise ValueError("rank one is wrong")
    if case == "hang" and step == 5 and rank == 1:
        tick()
    if case == "stop" and step == 5 and rank == 1:
        raise KeyboardInterrupt

def work(watch):
    if case == "early":
        raise KeyboardInterrupt
    import torch
    from torch import distributed
    distributed.init_process_group("gloo")
    ACTIVITY.begin("training toys")
    for step in range(1, 10_000):
        step_of(step)
        if case == "late" and step == 5:
            time.sleep(3 * rank)
            return
        distributed.all_reduce(torch.ones(1))
        time.sleep(0.02)
        ACTIVITY.progress(step)
        if step % 5 == 0:
            say(f"rank {rank} pid {os.getpid()} step {step}.")

try:
    with Watchdog("toys", stall) as watch:
        work(watch)
    say(f"rank {rank} has ended")
except KeyboardInterrupt:
    say(f"rank {rank} was stopped")
    sys.exit(75)
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
]  # fmt: skip


@pytest.fixture
def worker(tmp_path: Path) -> str:
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return str(path)


def pids(ranks: Ranks) -> dict[str, int]:
    """Process by rank, once all of them train and have heard of each other."""
    ranks.wait_for("rank 0 pid", "rank 1 pid", "step 50.")
    return {rank: int(pid) for rank, pid in re.findall(r"rank (\d) pid (\d+) step 5\.", ranks.text)}


def of_watch(text: str) -> str:
    """An output from the first word of the watch on."""
    return text[text.index("toys: ") :]


def test_a_killed_rank_ends_all_at_once_and_is_named(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "run", "30"], tmp_path / "out") as ranks:
        os.kill(pids(ranks)["0"], signal.SIGKILL)
        codes, seconds = ranks.wait_for_exit()
    assert codes == [-signal.SIGKILL, 1]
    assert seconds < 10
    said = of_watch(ranks.text)
    assert re.match(r"toys: rank 0 of 2 on \S+ \(pid \d+\) is gone: its process no longer", said)
    assert "The same command continues from the last checkpoint." in said


def test_a_killed_rank_is_named_before_torchrun_says_anything_of_it(
    worker: str, tmp_path: Path
) -> None:
    command = [sys.executable, *TORCHRUN, worker, "run", "30"]
    with launched([command], [{}], tmp_path / "out") as ranks:
        os.kill(pids(ranks)["1"], signal.SIGKILL)
        codes, seconds = ranks.wait_for_exit()
    assert codes == [1]
    assert seconds < 20
    assert re.match(r"toys: rank 1 of 2 on \S+ \(pid \d+\) is gone", of_watch(ranks.text))
    assert ranks.text.index("toys: ") < ranks.text.index("ChildFailedError")


def test_an_error_of_one_rank_comes_first_with_its_traceback(worker: str, tmp_path: Path) -> None:
    command = [sys.executable, *ACCELERATE, worker, "bug", "30"]
    with launched([command], [{}], tmp_path / "out") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [1]
    mine, others = of_watch(ranks.text).split("The same command continues", 1)
    assert re.match(r"toys: rank 1 of 2 on \S+ \(pid \d+\) failed \(training toys, step 4\):", mine)
    assert mine.endswith("ValueError: rank one is wrong\n")
    assert re.search(r"toys: rank 0 of 2 on \S+ \(pid \d+\) ends: rank 1 of 2 on", others)
    assert ranks.text.index("ValueError") < ranks.text.index("ChildFailedError")


def test_a_stop_within_the_bound_is_none_and_beyond_it_ends_the_others(
    worker: str, tmp_path: Path
) -> None:
    with joined_ranks([worker, "run", "5"], tmp_path / "out") as ranks:
        stopped = pids(ranks)["1"]
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(AssertionError, match="no end"):
            ranks.wait_for_exit(timeout=2)
        os.kill(stopped, signal.SIGCONT)
        done = max(int(step) for step in re.findall(r"step (\d+)\.", ranks.text))
        ranks.wait_for(f"step {done + 100}.")
        os.kill(stopped, signal.SIGSTOP)
        codes, seconds = ranks.wait_for_exit(only=[0])
        assert codes == [1]
        assert 3 < seconds < 15
        said = of_watch(ranks.text)
        assert re.match(r"toys: rank 1 of 2 on \S+ \(pid \d+\) has fallen silent", said)
        assert re.search(r"Last heard of [4-9] s ago, at \S+: training toys, step \d+, in", said)
        os.kill(stopped, signal.SIGCONT)
        codes, _ = ranks.wait_for_exit()
    assert codes == [1, 1]


def test_a_stopped_store_is_named_by_those_who_need_it(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "run", "4"], tmp_path / "out") as ranks:
        os.kill(pids(ranks)["0"], signal.SIGSTOP)
        codes, seconds = ranks.wait_for_exit(only=[1])
    assert codes == [1]
    assert 2 < seconds < 15
    assert re.match(r"toys: rank 0 at 127.0.0.1:\d+ has not answered for 4 s", of_watch(ranks.text))


def test_a_rank_that_hangs_is_named_and_all_show_what_they_execute(
    worker: str, tmp_path: Path
) -> None:
    with joined_ranks([worker, "hang", "4"], tmp_path / "out") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [1, 1]
    said = of_watch(ranks.text)
    # The other rank shows its stack as soon as it hears of this, so either may be first.
    assert re.search(
        r"^toys: no rank has made progress for 4 s; rank 1 of 2 on \S+ \(pid \d+\) hangs\n"
        r"  rank 1 .*: training toys, step 4, in tick \(worker.py:\d+\)\n"
        r"  rank 0 .*waits: training toys, step 4, in work \(worker.py:\d+\) -> all_reduce",
        said,
        re.M,
    )
    assert len(re.findall(r"rank \d of 2 on \S+ \(pid \d+\) executes:", said)) == 2
    assert "--stall-seconds" in said


def test_an_input_error_of_all_ranks_is_told_once(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "same", "30"], tmp_path / "out") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [2, 2]
    assert ranks.text == "toys: no such corpus\n"


def test_an_input_error_of_one_rank_ends_the_others_too(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "one", "30"], tmp_path / "out") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [1, 2]
    first, second = of_watch(ranks.text).splitlines()
    assert re.fullmatch(r"toys: rank 1 of 2 .*\(training toys, step 4\): no such corpus", first)
    assert re.fullmatch(r"toys: rank 0 .* ends: rank 1 .*InputError: no such corpus\)", second)


def test_a_rank_that_ends_later_alarms_nobody(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "late", "30"], tmp_path / "out") as ranks:
        codes, _ = ranks.wait_for_exit()
    assert codes == [0, 0]
    assert sorted(ranks.text.splitlines()) == ["rank 0 has ended", "rank 1 has ended"]


def test_all_stop_when_one_alone_was_asked_to(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "stop", "30"], tmp_path / "out") as ranks:
        codes, seconds = ranks.wait_for_exit()
    assert codes == [75, 75]
    assert seconds < 20
    # Either process may write its line first.
    assert re.search(
        r"^toys: rank 1 of 2 on \S+ \(pid \d+\) was stopped, so all stop\.", ranks.text, re.M
    )
    assert "rank 1 was stopped\n" in ranks.text


def test_ranks_that_stop_before_they_are_joined_do_not_wait(worker: str, tmp_path: Path) -> None:
    with joined_ranks([worker, "early", "30"], tmp_path / "out") as ranks:
        codes, seconds = ranks.wait_for_exit()
    assert codes == [75, 75]
    assert seconds < 20
    assert sorted(ranks.text.splitlines()) == ["rank 0 was stopped", "rank 1 was stopped"]


# One process, and what a rank makes of what it hears.


def test_an_import_that_a_signal_cut_short_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in C that is interrupted while it is imported raises an error of its own."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    watchdog = Watchdog("sixfold run", 60.0)
    ended: list[int | str] = []
    monkeypatch.setattr(watchdog, "_wait_for_others", ended.append)
    monkeypatch.setattr(watchdog, "_fail", lambda error: ended.append(str(error)))
    error = ImportError("initialization failed")
    with handle_signals():
        watchdog.__exit__(ImportError, error, None)
        with contextlib.suppress(Stopped):
            signal.raise_signal(signal.SIGTERM)
        watchdog.__exit__(ImportError, error, None)
    assert ended == ["initialization failed", STOPPED]


def test_one_process_is_not_watched() -> None:
    before = threading.active_count()
    watch = Watchdog("toys", 4)
    with pytest.raises(ValueError, match="as it is"), watch:
        raise ValueError("as it is")
    assert threading.active_count() == before


@pytest.mark.parametrize("seconds", [0, 2.9, -1, float("nan")])
def test_a_bound_too_short_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match=r"--stall-seconds is .*; it must be at least 3"):
        Watchdog("toys", seconds)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE is 2, but MASTER_ADDR is not set; begin"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; it must be a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1'; it must be a whole number"),
    ],
)
def test_an_environment_that_no_launcher_makes_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=re.escape(message)):
        Watchdog("toys", 4)


def beat(number: int, moves: int, *, pid: int = 0, **changes: object) -> Heartbeat:
    values = {"step": moves, "phase": "training", "where": "loop", "waits": False, "host": "here"}
    values |= {"machine": machine_id(), "pid": pid or os.getpid(), **changes}
    return Heartbeat(number, moves, **values)  # type: ignore[arg-type]


def peers(world: int = 3) -> Peers:
    return Peers(0, world, TimeLimits(stall=100, silence=20, start=200), "toys")


def said(failure: JobFailure | None) -> str:
    assert failure is not None
    return failure.line


def test_a_beat_and_a_failure_come_back_from_the_store() -> None:
    sent = beat(3, 2, ended=75, error="ValueError: ü")
    assert Heartbeat.of(sent.packed()) == sent
    failure = JobFailure("a\nb", "a", 75, True, 3)
    assert JobFailure.of(failure.packed()) == failure


def test_nothing_is_wrong_as_long_as_somebody_moves() -> None:
    statuses = peers()
    for now in range(0, 1000, 10):
        statuses.receive({0: beat(now, 0), 1: beat(now, now), 2: beat(now, 0)}, now)
        assert statuses.failure(now) is None


def test_silence_counts_from_the_last_new_beat() -> None:
    statuses = peers(2)
    statuses.receive({0: beat(0, 0), 1: beat(0, 0)}, 0)
    statuses.receive({0: beat(1, 1), 1: beat(1, 0)}, 10)
    statuses.receive({0: beat(2, 2), 1: beat(1, 0)}, 29)
    assert statuses.failure(30) is None
    assert "rank 1 of 2 on here" in said(statuses.failure(31))
    assert "has fallen silent" in said(statuses.failure(14.5, broken=True))


def test_a_silent_rank_that_has_ended_is_not_missed() -> None:
    statuses = peers(2)
    statuses.receive({0: beat(0, 0), 1: beat(0, 0, ended=0, pid=2**22 + 1)}, 0)
    statuses.receive({0: beat(1, 1), 1: beat(0, 0, ended=0, pid=2**22 + 1)}, 90)
    assert statuses.failure(95) is None


def test_a_process_that_is_gone_is_missed_at_once_where_it_can_be_seen() -> None:
    statuses = peers(2)
    # Above the largest number that Linux gives a process.
    statuses.receive({0: beat(0, 0), 1: beat(0, 0, pid=2**22 + 1)}, 0)
    assert "is gone" in said(statuses.failure(0))
    statuses = peers(2)
    statuses.receive({0: beat(0, 0), 1: beat(0, 0, pid=2**22 + 1, machine="elsewhere")}, 0)
    assert statuses.failure(0) is None


def test_ranks_that_were_never_heard_of_are_missed_after_the_longest_bound() -> None:
    statuses = peers(4)
    for now in (0, 150, 199, 201):
        statuses.receive({0: beat(now, now), 2: beat(now, now)}, now)
    assert statuses.failure(200) is None
    assert said(statuses.failure(201)) == "ranks 1, 3 of 4 never began"


def test_the_ranks_that_do_not_wait_hang_and_all_do_if_that_tells_nothing() -> None:
    statuses = peers()
    for now in (0, 101):
        beats = {rank: beat(now, 0, waits=rank != 1) for rank in range(3)}
        statuses.receive(beats, now)
    found = statuses.failure(101)
    assert "rank 1 of 3 on here" in said(found)
    assert "rank 0" not in said(found)
    statuses.receive({rank: beat(102, 0, waits=True) for rank in range(3)}, 102)
    found = statuses.failure(102)
    assert said(found) == "no rank has made progress for 102 s"
    assert found is not None
    assert all(f"\n  rank {rank} of 3" in found.text for rank in range(3))


def test_a_rank_waits_in_vain_for_one_that_has_ended() -> None:
    statuses = peers(2)
    ended = beat(0, 0, ended=STOPPED)
    statuses.receive({0: beat(0, 0, waits=True), 1: ended}, 0)
    statuses.receive({0: beat(1, 1, waits=True), 1: ended}, 10)
    assert statuses.failure(14) is None
    found = statuses.failure(14.5)
    assert found is not None
    assert found.code == STOPPED
    statuses.receive({0: beat(2, 1, waits=False), 1: ended}, 15)
    assert statuses.failure(15) is None


def test_a_place_is_the_own_line_and_where_it_leads() -> None:
    here, waits = current_code(sys._getframe())
    assert re.fullmatch(r"test_a_place_is\w+ \(test_watchdog.py:\d+\)", here)
    assert not waits
    assert current_code(None) == ("nothing", False)


def test_a_module_in_which_ranks_wait_may_be_called_anything() -> None:
    source = Path(processes.__file__)
    spec = importlib.util.spec_from_file_location("moved.elsewhere", source)
    assert spec is not None
    assert spec.loader is not None
    moved = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(moved)
        exec("import sys\ndef here(): return sys._getframe()", vars(moved))
        assert current_code(moved.here())[1]
    finally:
        WAITING_MODULES.discard("moved.elsewhere")
    assert not current_code(moved.here())[1]
    assert {"torch.distributed", "torch.autograd", processes.__name__} == WAITING_MODULES


@pytest.mark.parametrize(
    ("error", "consequence"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:552] Connection closed by peer [::1]:1"), True),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ConnectionResetError("Connection reset by peer"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_broken_connection_between_ranks_is_no_cause(error: Exception, consequence: bool) -> None:
    assert is_consequence(error) is consequence


def test_the_first_error_of_a_chain_is_what_counts() -> None:
    broken = RuntimeError("Connection closed by peer")
    cleared = ValueError("while it was cleared up")
    cleared.__context__ = broken
    assert is_consequence(cleared)
    broken.__context__, cleared.__context__ = cleared, None
    assert not is_consequence(broken)
    broken.__context__ = KeyboardInterrupt()
    assert is_consequence(broken)

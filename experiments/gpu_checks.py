"""Does a GPU do what the CPU does, and how fast? All that no machine without one can tell.

Corpus: data/corpora/Beauty, made as experiments/beauty.py says.
Command: python -m experiments.gpu_checks --out gpu_checks.json [--data-root data] [--only NAME ...]
Hardware: one large GPU (written for an H200), about 15 minutes.
Expected: every line says PASS, or gives a figure; exit code 0. A check that fails or raises stops
no other, and 1 is the exit code then. The file holds every figure and is rewritten after each
check. `python -m experiments.gpu_checks --device cpu --tiny` tries this script without a GPU on a
generated corpus, compares the CPU with itself, and leaves out what only a GPU can do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from baselines.s3rec import joint
from baselines.sasrec import full_softmax
from research.config import changed
from research.data.negatives import Negatives, NegativesConfig
from research.data.prepare import PrepareConfig, prepare
from research.evaluation.candidates import AllItems
from research.evaluation.rank import RankTable
from research.evaluation.statistics import compare
from research.execute import RunOptions, execute
from research.model.compute import graphs_compiled
from research.model.precision import product
from research.objectives.base import Corruption
from research.objectives.masking import MaskItems
from research.objectives.next_item import NextItemShift
from research.objectives.ranker import TrainedRanker
from research.objectives.sp import CutSegment
from research.randomness import fold
from research.run import RunConfig
from research.training.pretrainer import MultiObjectiveModel
from research.workbench import Workbench, ranking_objective

LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
CPU = torch.device("cpu")
CORRUPTIONS: dict[str, Corruption] = {
    "next": NextItemShift(),
    "masks": MaskItems(rate=0.3, random_share=0.2, keep_share=0.2, mask_last_share=0.5),
    "masks, rounded": MaskItems(count="rounded", rate=0.15, max_picked=5, last_only_share=0.1),
    "segments among masks": CutSegment(),
    "segments alone": CutSegment(placement="alone", short_rows=True),
    "segments as published": CutSegment(foreign="everything", short_rows=True),
}
RATE = "train/items_per_second"
STILL = {f"encoder.{name}_dropout": 0.0 for name in ("embedding", "hidden", "attention")}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and on what the checks work."""

    device: torch.device
    """What is compared with the CPU."""
    tiny: bool
    """Whether only the script is tried."""
    corpus: str
    """The folder of a prepared corpus that has attributes."""
    data_root: str
    """Where corpora lie."""
    scratch: Path
    """Where runs are written; removed at the end."""

    @property
    def gpu(self) -> bool:
        """Whether this is the real thing."""
        return self.device.type == "cuda"

    def config(self, config: RunConfig, changes: Mapping[str, object]) -> RunConfig:
        """A recipe on the checks' corpus; tiny ones for the script's own test."""
        small: dict[str, object] = {}
        if self.tiny:
            small = {"encoder.width": 8, "encoder.length": 8, "encoder.feed_forward": 8}
            small["stages.0.batches.sequences_per_batch"] = 16
        return changed(replace(config, corpus=self.corpus), {**small, **changes})

    def run(self, name: str, changes: Mapping[str, object]) -> Run:
        """A run of SASRec with full softmax; what it left behind and what it took."""
        folder = self.scratch / name
        if self.gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        graphs, started = graphs_compiled(), time.perf_counter()
        options = RunOptions(quiet=True, data_root=self.data_root)
        execute(self.config(full_softmax(), changes), folder, options=options)
        seconds = time.perf_counter() - started
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return Run(
            table=RankTable.load(folder / "ranks" / "test-full.npz"),
            losses=[line["train/loss"] for line in lines if "train/loss" in line],
            rates=[line[RATE] for line in lines if RATE in line],
            graphs=graphs_compiled() - graphs,
            seconds=seconds,
            megabytes=torch.cuda.max_memory_allocated() / 2**20 if self.gpu else 0.0,
        )

    def short(self, name: str, changes: Mapping[str, object]) -> Run:
        """A run without dropout and validation, ten steps a line of metrics, in three epochs."""
        fixed = {"stages.0.validation": None, "stages.0.epochs": 3, "stages.0.log_every": 10}
        return self.run(name, {**STILL, **fixed, **changes})

    def pretrainer(self, changes: Mapping[str, object]) -> tuple[Workbench, MultiObjectiveModel]:
        """All six objectives on one encoder, in training, on the CPU."""
        bench = Workbench.of(self.config(joint(), {**STILL, **changes}), self.data_root)
        return bench, bench.pretrainer(bench.config.stages[0], bench.shared()).train()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has ended."""

    table: RankTable
    """Test ranks."""
    losses: list[float]
    """One a line of metrics."""
    rates: list[float]
    """Items a second, one a line of metrics."""
    graphs: int
    """Compiled during it."""
    seconds: float
    """With preparation, validation and test."""
    megabytes: float
    """Peak on the GPU."""

    @property
    def rate(self) -> float:
        """The median of all lines but the first, which holds what is done once."""
        rates = sorted(self.rates[1:] or self.rates)
        return rates[len(rates) // 2]

    def distance(self, other: Run) -> float:
        """The largest relative difference of two losses."""
        pairs = zip(self.losses, other.losses, strict=True)
        return max(abs(one - two) / abs(two) for one, two in pairs)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a check found."""

    passed: bool | None
    """None: a figure, which nothing is demanded of."""
    line: str
    """What the terminal shows."""
    figures: Mapping[str, float]
    """What the file holds."""


class LeftOut(Exception):
    """A check that needs a GPU."""


def draws(setting: Setting) -> Outcome:
    """Masks, segments and negatives are the same on both devices."""
    bench, _ = setting.pretrainer({})
    catalogue = bench.catalogue
    batch = next(bench.loader(bench.config.stages[0], 0, 1).batches(0))
    wrong = []
    for name, corruption in CORRUPTIONS.items():
        one = corruption.view(batch, catalogue)
        two = corruption.view(batch.to(setting.device), catalogue.to(setting.device))
        for part in ("items_T", "positions_T", "offsets"):
            if not torch.equal(vars(one.packed)[part], vars(two.packed)[part].cpu()):
                wrong.append(f"{name} {part}")
        if not torch.equal(one.picked_P, two.picked_P.cpu()):
            wrong.append(f"{name} picked")
        if not torch.equal(one.items_P, two.items_P.cpu()):
            wrong.append(f"{name} targets")
    states = fold(7, torch.arange(len(batch.users_S)))
    for config in (
        NegativesConfig(),
        NegativesConfig(distribution="popularity"),
        NegativesConfig(exclude="nothing", distribution="popularity"),
        NegativesConfig(exclude="history", include_mask=True),
    ):
        negatives = Negatives(config, catalogue)
        here = negatives.draw(states, batch.users_S, 5)
        given = states.to(setting.device), batch.users_S.to(setting.device)
        if not torch.equal(here, negatives.to(setting.device).draw(*given, 5).cpu()):
            wrong.append(f"negatives {config}")
    line = f"{len(CORRUPTIONS)} corruptions, 4 kinds of negatives; differ: {wrong or 'none'}"
    return Outcome(passed=not wrong, line=line, figures={"wrong": len(wrong)})


def gradient(
    pretrainer: MultiObjectiveModel,
    bench: Workbench,
    device: torch.device,
    low: torch.dtype | None = None,
) -> Tensor:
    """The loss of a batch and its gradient with respect to everything, end to end, on the CPU."""
    pretrainer = pretrainer.to(device)
    pretrainer.zero_grad(set_to_none=True)
    batch = next(bench.loader(bench.config.stages[0], 0, 1).batches(0)).to(device)
    seen = pretrainer.prepare(batch)
    with torch.autocast(device.type, low or torch.bfloat16, enabled=low is not None):
        losses = pretrainer(seen)
    means = [each.total / each.count.clamp(min=1).to(each.total) for each in losses.values()]
    total = torch.stack(means).sum()
    total.backward()
    grads = [each.grad.flatten() for each in pretrainer.parameters() if each.grad is not None]
    return torch.cat([total.detach()[None], *grads]).double().cpu()


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The relative difference of two gradients; infinite when one is not finite."""
    found = ((ours - theirs)[1:].norm() / theirs[1:].norm()).item()
    return found if ours.isfinite().all() else float("inf")


def one_step(setting: Setting) -> Outcome:
    """A step of all six objectives has the CPU's loss and gradient, in fp32 and float64."""
    bench, pretrainer = setting.pretrainer({})
    figures = {}
    for name in ("fp32", "float64"):
        pretrainer = pretrainer.to(torch.float32 if name == "fp32" else torch.float64)
        theirs = gradient(pretrainer, bench, CPU)
        figures[name] = distance(gradient(pretrainer, bench, setting.device), theirs)
    # Rounding of sums of some thousand terms; a wrong mask or position is off by 1e-2 or more.
    passed = figures["fp32"] < 1e-4 and figures["float64"] < 1e-10
    line = f"gradients differ by {figures['fp32']:.1e} in fp32, {figures['float64']:.1e} in float64"
    return Outcome(passed=passed, line=line, figures=figures)


def low_step(setting: Setting) -> Outcome:
    """A step of all six objectives in low precision is near the fp32 one; products end in fp32."""
    figures = {}
    for name, low in LOW.items():
        left, right = (torch.randn(300, 200, device=setting.device).to(low) for _ in range(2))
        exact = left.double() @ right.double().T
        result = product(left, right.T)
        assert result.dtype == torch.float32, "a product in low precision ends in fp32"
        figures[f"product {name}"] = ((result.double() - exact).norm() / exact.norm()).item()
        bench, pretrainer = setting.pretrainer({})
        theirs = gradient(pretrainer, bench, setting.device)
        figures[name] = distance(gradient(pretrainer, bench, setting.device, low), theirs)
    passed = all(figures[name] < 16 * torch.finfo(low).eps for name, low in LOW.items())
    # A CPU rounds bf16 products; a GPU none.
    passed = passed and (not setting.gpu or all(figures[f"product {name}"] < 1e-5 for name in LOW))
    line = ", ".join(f"{name} {value:.1e}" for name, value in figures.items())
    return Outcome(passed=passed, line=f"relative differences: {line}", figures=figures)


def bf16_figures(setting: Setting) -> Outcome:
    """Whole runs in bf16 rank as well as in fp32, by the paired statistics over three seeds."""
    short: dict[str, object] = {"stages.0.epochs": 2} if setting.tiny else {}
    tables: dict[str, list[RankTable]] = {"fp32": [], "bf16": []}
    seconds = dict.fromkeys(tables, 0.0)
    for precision in tables:
        for seed in range(2 if setting.tiny else 3):
            changes = {"compute.precision": precision, "seed": seed, **short}
            run = setting.run(f"{precision}-{seed}", changes)
            tables[precision].append(run.table)
            seconds[precision] += run.seconds
    found = compare(tables["bf16"], tables["fp32"], "ndcg@10")
    figures = {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "p": found.p,
        **{f"{name} seconds": value for name, value in seconds.items()},
    }
    line = (
        f"bf16 - fp32 in NDCG@10: {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}], "
        f"p {found.p:.2f}; {seconds['fp32']:.0f} s and {seconds['bf16']:.0f} s"
    )
    return Outcome(passed=not found.significant(found.p), line=line, figures=figures)


def fp16_run(setting: Setting) -> Outcome:
    """A short fp16 run under loss scaling learns what an fp32 one does."""
    if not setting.gpu:
        raise LeftOut
    plain = setting.short("fp16-plain", {})
    scaled = setting.short("fp16", {"compute.precision": "fp16"})
    # The first steps may be left out until the scale fits, so only the last loss is compared.
    apart = abs(scaled.losses[-1] - plain.losses[-1]) / plain.losses[-1]
    line = f"last losses {scaled.losses[-1]:.4f} and {plain.losses[-1]:.4f}, {apart:.1%} apart"
    return Outcome(passed=apart < 0.05, line=line, figures={"apart": apart})


def compilation(setting: Setting) -> Outcome:
    """Compiled runs lose as plain ones do, and compile two parts once, whatever a batch's size."""
    batches = {"sequences_per_batch": None, "tokens_per_batch": 100 if setting.tiny else 4096}
    tokens = {f"stages.0.batches.{name}": size for name, size in batches.items()}
    figures: dict[str, float] = {}
    passed = True
    # Machine code for a CPU takes long to build, and is no concern here.
    with torch.compiler.set_stance(force_backend=None if setting.gpu else "eager"):
        for precision, most in (("fp32", 1e-2), ("bf16", 3e-2)):
            changes = {**tokens, "compute.precision": precision}
            plain = setting.short(f"plain-{precision}", changes)
            built = setting.short(f"built-{precision}", {**changes, "compute.compile": True})
            figures[f"{precision} apart"] = built.distance(plain)
            figures[f"{precision} graphs"] = built.graphs
            figures[f"{precision} plain rate"] = plain.rate
            figures[f"{precision} compiled rate"] = built.rate
            # Sums in another order, over three epochs of steps that build on one another.
            passed &= built.graphs == 2 and built.distance(plain) < most
    line = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
    return Outcome(passed=passed, line=line, figures=figures)


def recomputation(setting: Setting) -> Outcome:
    """Recomputing blocks saves memory, at what cost of time, and loses as without."""
    deep = {"encoder.layers": 4, "stages.0.steps": 30, "stages.0.epochs": None}
    if not setting.tiny:
        deep |= {"encoder.width": 256, "encoder.feed_forward": 1024, "encoder.heads": 4}
        deep["stages.0.batches.sequences_per_batch"] = 4096
    plain = setting.short("kept", deep)
    saved = setting.short("recomputed", {**deep, "compute.recompute": True})
    apart = saved.distance(plain)
    figures = {
        "apart": apart,
        "plain MB": plain.megabytes,
        "recomputed MB": saved.megabytes,
        "plain rate": plain.rate,
        "recomputed rate": saved.rate,
    }
    line = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    # A GPU adds the gradients of a table's rows in any order.
    return Outcome(passed=apart < 1e-3, line=line, figures=figures)


def evaluation(setting: Setting) -> Outcome:
    """Seconds to rank every test item among all items: the first time, and the best of three."""
    bench = Workbench.of(setting.config(full_softmax(), {}), setting.data_root)
    shared = bench.shared()
    pretrainer = bench.pretrainer(bench.config.stages[0], shared).to(setting.device)
    objective = ranking_objective(bench.config.stages[0], pretrainer)
    assert objective is not None, "the next item ranks"
    ranker = TrainedRanker(shared.encoder, objective)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        bench.tables(ranker, "test", [AllItems()])
        taken.append(time.perf_counter() - started)
    line = f"{min(taken):.3f} s for {len(bench.split.test)} questions"
    return Outcome(passed=None, line=line, figures={"seconds": min(taken), "first": taken[0]})


def training(setting: Setting) -> Outcome:
    """Items a second and peak memory of SASRec with full softmax and with all dropouts."""
    figures: dict[str, float] = {}
    for precision in ("fp32", "bf16"):
        changes = {"stages.0.epochs": 3, "stages.0.log_every": 10, "stages.0.validation": None}
        run = setting.run(f"speed-{precision}", {**changes, "compute.precision": precision})
        figures |= {f"{precision} items/s": run.rate, f"{precision} MB": run.megabytes}
    line = ", ".join(f"{name} {value:,.0f}" for name, value in figures.items())
    return Outcome(passed=None, line=line, figures=figures)


def launched(setting: Setting) -> Outcome:
    """The launcher, NCCL and a run of one process get along."""
    if not setting.gpu:
        raise LeftOut
    arguments = ["--standalone", "--nproc_per_node", "1", "-m", "research", "run"]
    run = ["baselines.sasrec:full_softmax", "--out", str(setting.scratch / "launched")]
    fields = [
        "--corpus",
        setting.corpus,
        "--stages.0.epochs",
        "1",
        "--data-root",
        setting.data_root,
    ]
    command = [sys.executable, "-m", "torch.distributed.run", *arguments, *run, *fields]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    line = f"exit code {done.returncode}" + (done.stderr[-300:] if done.returncode else "")
    return Outcome(passed=done.returncode == 0, line=line, figures={"code": done.returncode})


CHECKS: dict[str, Callable[[Setting], Outcome]] = {
    "draws": draws,
    "one step": one_step,
    "one step in low precision": low_step,
    "launcher": launched,
    "evaluation": evaluation,
    "training": training,
    "compilation": compilation,
    "recomputation": recomputation,
    "fp16": fp16_run,
    "bf16 against fp32": bf16_figures,
}


def tiny_corpus(folder: Path) -> str:
    """60 users, 20 items in a circle, two attributes an item; generated."""
    rows = []
    for user in range(60):
        items = [(user + step * (1 + user % 3)) % 20 for step in range(5 + user % 7)]
        rows.append(" ".join(str(each) for each in [user, *items]))
    (folder / "Tiny.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    attributes = {str(item): [item % 3, 3 + item % 2] for item in range(20)}
    path = folder / "Tiny_item2attributes.json"
    path.write_text(json.dumps(attributes), encoding="utf-8")
    config = PrepareConfig(source="s3rec", raw=str(folder / "Tiny.txt"))
    return str(prepare(config, folder / "corpus").folder)


def tried(check: Callable[[Setting], Outcome], setting: Setting) -> dict[str, object]:
    """A check's entry in the file; whatever it raises is its result."""
    started = time.perf_counter()
    try:
        found = check(setting)
    except LeftOut:
        return {"result": "LEFT OUT", "line": "needs a GPU"}
    except Exception as error:
        found = Outcome(passed=False, line=f"{type(error).__name__}: {error}", figures={})
    result = {None: "FIGURE", True: "PASS", False: "FAIL"}[found.passed]
    seconds = round(time.perf_counter() - started, 2)
    return {"result": result, "line": found.line, "seconds": seconds, "figures": found.figures}


def main(arguments: list[str]) -> int:
    """Every check, one line each; 0 when none failed."""
    parser = argparse.ArgumentParser(prog="experiments.gpu_checks", allow_abbrev=False)
    parser.add_argument("--out", type=Path, help="JSON file of all figures")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="on a generated corpus")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    known = parser.parse_args(arguments)
    if known.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here; --device cpu --tiny tries the script itself", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        corpus = f"{known.data_root}/corpora/Beauty"
        if known.tiny:
            corpus = tiny_corpus(Path(scratch))
        elif not Path(corpus, "manifest.json").is_file():
            print(f"{corpus} is absent; prepare it (experiments/beauty.py)", file=sys.stderr)
            return 2
        setting = Setting(
            device=torch.device(known.device),
            tiny=known.tiny,
            corpus=corpus,
            data_root=known.data_root,
            scratch=Path(scratch),
        )
        device = torch.cuda.get_device_name() if setting.gpu else "cpu"
        results: dict[str, dict[str, object]] = {}
        for name in known.only:
            results[name] = tried(CHECKS[name], setting)
            print(f"{results[name]['result']:8} {name}: {results[name]['line']}", flush=True)
            if known.out is not None:
                stored = {"device": device, "torch": torch.__version__, "checks": results}
                known.out.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return int(any(each["result"] == "FAIL" for each in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

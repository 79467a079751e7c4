"""Does the same runs in one process and in several, for tests/distributed/test_collectives.py.

    python -m tests.support.rank_worker FOLDER 1=pretrain:10 3=finetune:7 2=never

does every case on the corpus FOLDER/corpus in one process, then in three, then in two. The
processes are forked, so that torch is imported once, and use GPUs if there are any. Each
WORLD=STOP_AT also does a part of the run FOLDER/resumed: it stops before a stage's step, counted
from where these processes began the stage, or ends with the run ("never").

A case's run folder is FOLDER/<world>/<case>. Two files are added to it: gradients.safetensors has
the gradients of the first step of each stage, and num_ranked.json the number of held-out items that
each process ranked. FOLDER/<world>/mismatch_errors.json has the errors of processes that were given
different configs or corpora.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from research.config import record_to_json
from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.data.windows import EveryPrefix, Sliding
from research.distributed.accelerator import make_accelerator
from research.errors import InputError
from research.model.gru import GRUConfig
from research.model.item_table import ItemTableConfig
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.base import ObjectiveConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.components import ModelComponents
from research.objectives.contrast import ContrastConfig
from research.objectives.dropout_views import DropoutViews
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    SampledSoftmax,
)
from research.objectives.map import MAPConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.mixed_softmax import MixedSoftmax
from research.objectives.next_item import NextItemConfig
from research.objectives.ranker import EncodedStates, TrainedRanker
from research.objectives.sp import SPConfig
from research.packed import Packed
from research.runs.config import EvaluationConfig, RunConfig
from research.runs.execute import RunOptions, execute
from research.runs.parts import RunParts
from research.storage.json_files import write_json
from research.storage.records import RunSummary
from research.training.averaging import CheckpointAverage, ExponentialMovingAverage
from research.training.config import StageConfig, ValidationConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.one_objective import OneObjective
from research.training.optimizer import OptimizerConfig
from research.training.pcgrad import PCGrad
from research.training.schedule import ScheduleConfig
from research.training.stage_run import CheckpointPlan
from research.training.uncertainty import UncertaintyWeights
from tests.support.launching import free_port

SIZES = TransformerConfig(
    length=6, width=8, layers=2, heads=2, feed_forward=12, init_std=0.3,
    embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
RECURRENT = GRUConfig(
    length=6, width=8, hidden_width=5, layers=2, gate_biases=True, init_std=0.3,
    embedding_dropout=0.0,
)  # fmt: skip
MASKS = MaskItems(rate=0.4, random_share=0.2, mask_last_share=0.3)
SIX: dict[str, ObjectiveConfig] = {
    "cloze": ClozeConfig(corruption=MASKS),
    "next": NextItemConfig(weight=0.7),
    "aap": AAPConfig(weight=0.5),
    "mip": MIPConfig(),
    "map": MAPConfig(corruption=MASKS),
    "sp": SPConfig(weight=2.0),
}
FOUR = {key: SIX[key] for key in ("aap", "mip", "map", "sp")}


def stage(name: str, objectives: dict[str, ObjectiveConfig], **changes: Any) -> StageConfig:
    """Return a stage of 20 steps with five rows each; the last step of an epoch has fewer."""
    fields: dict[str, Any] = {
        "batches": BatchConfig(sequences_per_batch=5),
        "epochs": None,
        "steps": 20,
        "optimizer": OptimizerConfig(lr=0.01),
        "rank_by": "next" if "next" in objectives else None,
        "validation": None,
        "log_every": 1,
    }
    return StageConfig(name=name, objectives=objectives, **{**fields, **changes})


RANKS = stage("ranks", {"next": NextItemConfig()}, steps=2)
VALIDATED = ValidationConfig(metric="mrr", patience=3)
PREFIXES = EveryPrefix()
EMA = ExponentialMovingAverage(decay=0.8)
ALL_SIX = stage("train", SIX, epochs=4, steps=None, validation=VALIDATED)
TWO_STAGES = (
    stage(
        "pretrain", FOUR, windows=PREFIXES, normalize="sequences", epochs=1, steps=None,
        batches=BatchConfig(sequences_per_batch=8), log_every=4,
        optimizer=OptimizerConfig(lr=0.01, clip_norm=0.5),
    ),
    stage(
        "finetune", {"next": NextItemConfig()}, epochs=4, steps=None, validation=VALIDATED,
        optimizer=OptimizerConfig(
            method="adamw", lr=0.01, weight_decay=0.01, bias_correction=False,
            schedule=ScheduleConfig(shape="cosine", warmup_steps=5),
        ),
        gradients_every=5, log_every=2,
    ),
)  # fmt: skip
STAGES: dict[str, tuple[StageConfig, ...]] = {
    **{
        key: (stage(key, {key: objective}), *([RANKS] if key in FOUR else []))
        for key, objective in SIX.items()
    },
    "all six": (ALL_SIX,),
    "two stages": TWO_STAGES,
    "sampled": (
        stage(
            "train",
            {
                "next": NextItemConfig(loss=SampledSoftmax(number=4, log_q=True)),
                "cloze": ClozeConfig(
                    loss=BinaryCrossEntropy(
                        number=2, share="sequence",
                        negatives=NegativesConfig(distribution="popularity"),
                    )
                ),
                "mip": MIPConfig(loss=FullSoftmax()),
            },
        ),
    ),
    "sampled otherwise": (
        stage(
            "train",
            {
                "next": NextItemConfig(loss=GeneralizedBCE(number=3)),
                "cloze": ClozeConfig(
                    loss=BayesianPersonalizedRanking(
                        number=2, negatives=NegativesConfig(exclude="window")
                    )
                ),
            },
        ),
    ),
    "own windows": (
        stage(
            "train", SIX, normalize="sequences",
            own_windows={"aap": PREFIXES, "mip": PREFIXES, "sp": Sliding(stride=2)},
        ),
    ),
    "one row": (stage("train", SIX, batches=BatchConfig(sequences_per_batch=1), steps=25),),
    "by tokens": (
        stage(
            "train", SIX,
            batches=BatchConfig(sequences_per_batch=None, tokens_per_batch=12),
        ),
    ),
    "rows coupled by items": (
        stage(
            "train",
            {"next": NextItemConfig(loss=InBatchSoftmax(log_q=True)), "mip": SIX["mip"]},
        ),
    ),
    "negatives shared by the step": (
        stage(
            "train",
            {
                "next": NextItemConfig(
                    loss=MixedSoftmax(number=5), head=HeadConfig(similarity="cosine")
                ),
                "cloze": ClozeConfig(
                    loss=InBatchSoftmax(log_q=True, q_from="training", corrected=True)
                ),
                "mip": MIPConfig(loss=FullSoftmax(label_smoothing=0.1)),
            },
        ),
    ),
    "the last item, both ways": (
        stage(
            "train", {"next": NextItemConfig(predict="last", direction="bidirectional")},
            windows=PREFIXES,
        ),
    ),
    "rows coupled by states": (
        stage(
            "train", {"next": SIX["next"], "contrast": ContrastConfig(temperature=0.5), **FOUR},
            batches=BatchConfig(sequences_per_batch=4),
        ),
    ),
    "rows coupled by all states": (
        stage(
            "train", {"next": SIX["next"], "contrast": ContrastConfig(states="all")},
            batches=BatchConfig(sequences_per_batch=4),
        ),
    ),
    "rows coupled by same targets": (
        stage(
            "train",
            {"next": SIX["next"], "contrast": ContrastConfig(corruption=DropoutViews())},
            windows=PREFIXES, batches=BatchConfig(sequences_per_batch=4),
        ),
    ),
    "weights learned": (stage("train", SIX, combination=UncertaintyWeights()),),
    "gradients projected": (stage("train", SIX, combination=PCGrad(), gradients_every=7),),
    "one objective a step": (stage("train", SIX, combination=OneObjective()),),
    # With two rows a batch, one of three processes has none.
    "recurrent": (
        stage(
            "train", {"next": NextItemConfig()}, batches=BatchConfig(sequences_per_batch=2),
            steps=40,
        ),
    ),
    "averaged": (
        stage("pretrain", FOUR, averaging=CheckpointAverage(last=None)),
        stage(
            "finetune", {"next": SIX["next"]}, steps=None, epochs=3, validation=VALIDATED,
            averaging=EMA,
        ),
    ),
    "attributes read": (
        stage("train", {key: SIX[key] for key in ("next", "mip", "map")}),
    ),
    # Two rows a batch have fewer tokens than the catalogue has items, five rows may have more.
    "vectors beside ids": (
        stage("train", {key: SIX[key] for key in ("cloze", "next")}, rank_by="next"),
    ),
    "vectors alone": (
        stage(
            "train", {"next": NextItemConfig(loss=SampledSoftmax(number=4))}, steps=40,
            batches=BatchConfig(sequences_per_batch=2),
        ),
    ),
}  # fmt: skip
ITEMS = {
    "attributes read": ItemTableConfig(attributes=True),
    "vectors beside ids": ItemTableConfig(vectors="beside"),
    "vectors alone": ItemTableConfig(vectors="alone", projection_width=6),
}
# Cases with four micro-batches, by the case that they repeat; with five rows some are empty.
CUT = {
    "all six, cut": "all six",
    "own windows, cut": "own windows",
    "rows coupled by items, cut": "rows coupled by items",
    "negatives shared by the step, cut": "negatives shared by the step",
    "weights learned, cut": "weights learned",
    "gradients projected, cut": "gradients projected",
    "one objective a step, cut": "one objective a step",
}
for cut, whole in CUT.items():
    STAGES[cut] = tuple(
        replace(each, batches=BatchConfig(sequences_per_batch=5, micro_batches=4))
        for each in STAGES[whole]
    )


def configs(corpus: Path) -> dict[str, RunConfig]:
    """Return the run config of every case on this corpus."""
    made = {
        name: RunConfig(
            corpus=str(corpus),
            encoder=RECURRENT if name == "recurrent" else SIZES,
            items=ITEMS.get(name, ItemTableConfig()),
            stages=stages,
            evaluation=EvaluationConfig(candidates=("full", "uniform-3", "popularity-3")),
        )
        for name, stages in STAGES.items()
    }
    return {**made, "fp32": made["all six"]}


QUIET = RunOptions(quiet=True)
# Checkpoints in the middle of epochs.
OFTEN = RunOptions(quiet=True, checkpoints=CheckpointPlan(steps=3))


class Stopped(Exception):
    """Raised to leave a run as a killed process would."""


class Recording:
    """What is recorded of runs, and the step before which they stop.

    Recorded are the gradients of each stage's first step, and the number of held-out items ranked.
    """

    def __init__(self) -> None:
        self.built: list[tuple[str, MultiObjectiveModel]] = []
        self.gradients: dict[str, torch.Tensor] = {}
        self.steps: dict[str, int] = {}
        self.num_ranked = 0
        self.stop_at = "never"

    def step(self, optimizer: torch.optim.Optimizer, *rest: object) -> None:
        """Record a step; every parameter must have a gradient. Each optimizer calls it first."""
        given = {id(each) for group in optimizer.param_groups for each in group["params"]}
        (found,) = (
            (name, module)
            for name, module in self.built
            if {id(each) for each in module.parameters() if each.requires_grad} == given
        )
        name, module = found
        number = self.steps.get(name, 0)
        if self.stop_at == f"{name}:{number}":
            raise Stopped
        for key, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, f"{name}, step {number}: {key} takes no part"
            if number == 0:
                self.gradients[f"{name}/{key}"] = parameter.grad.detach().cpu().clone()
        self.steps[name] = number + 1


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the runs that are done within this context."""
    recorded = Recording()
    build, encode = RunParts.model, TrainedRanker.encode

    def model(
        run_parts: RunParts, config: StageConfig, shared: ModelComponents
    ) -> MultiObjectiveModel:
        made = build(run_parts, config, shared)
        recorded.built.append((config.name, made))
        return made

    def counted(ranker: TrainedRanker, histories: Packed, users_S: torch.Tensor) -> EncodedStates:
        recorded.num_ranked += len(users_S)
        return encode(ranker, histories, users_S)

    RunParts.model = model  # type: ignore[assignment, method-assign]
    TrainedRanker.encode = counted  # type: ignore[assignment, method-assign]
    hook = register_optimizer_step_pre_hook(recorded.step)
    try:
        yield recorded
    finally:
        hook.remove()
        RunParts.model = build  # type: ignore[method-assign]
        TrainedRanker.encode = encode  # type: ignore[method-assign]


def assert_same_in_all_processes(summary: RunSummary, module: MultiObjectiveModel) -> None:
    """Fail if processes differ in the weights or in the figures of the summary."""
    sums = [parameter.double().sum().item() for parameter in module.parameters()]
    figures = [record_to_json(summary.best), summary.val, summary.test]
    own = json.dumps([sums, figures], sort_keys=True)
    assert set(gather_object([own])) == {own}, "processes differ"


def run_case(config: RunConfig, path: Path, accelerator: Accelerator) -> None:
    """Do the run of one case, and write what was recorded of it."""
    with recording() as recorded:
        summary = execute(config, path, options=QUIET, accelerator=accelerator)
    assert_same_in_all_processes(summary, recorded.built[-1][1])
    num_ranked = gather_object([recorded.num_ranked])
    if accelerator.is_main_process:
        save_file(recorded.gradients, path / "gradients.safetensors")
        write_json(path / "num_ranked.json", {"by rank": num_ranked})


def mismatch_errors(folder: Path, accelerator: Accelerator) -> dict[str, list[str]]:
    """Return the errors of all processes when the last one has another seed, or another corpus;
    and when the second stage would move touched rows alone."""
    odd = accelerator.is_last_process
    given = configs(folder / "corpus")["next"]
    first, second = TWO_STAGES
    touching = replace(second, optimizer=replace(second.optimizer, item_rows="touched"))
    touched = replace(given, stages=(first, touching))
    said = {}
    for name, config in (
        ("seed", replace(given, seed=1) if odd else given),
        ("corpus", replace(given, corpus=str(folder / "other")) if odd else given),
        ("touched", touched),
    ):
        try:
            execute(config, folder / "refused", options=QUIET, accelerator=accelerator)
        except InputError as error:
            said[name] = gather_object([str(error)])
    return said


def run_cases(folder: Path, stop_at: str) -> None:
    """Do all cases, "fp32" in float32 and the others in float64, and a part of FOLDER/resumed."""
    accelerator = make_accelerator()
    own = folder / str(accelerator.num_processes)
    for name, config in configs(folder / "corpus").items():
        torch.set_default_dtype(torch.float32 if name == "fp32" else torch.float64)
        run_case(config, own / name, accelerator)
        # Each run ends with a garbage collection, which is quick if most objects are frozen.
        gc.freeze()
    torch.set_default_dtype(torch.float64)
    if accelerator.num_processes > 1:
        said = mismatch_errors(folder, accelerator)
        if accelerator.is_main_process:
            write_json(own / "mismatch_errors.json", said)
    with recording() as recorded:
        recorded.stop_at = stop_at
        try:
            config = configs(folder / "corpus")["two stages"]
            execute(config, folder / "resumed", options=OFTEN, accelerator=accelerator)
        except Stopped:
            assert stop_at != "never"
    accelerator.end_training()


def fork(environment: dict[str, str], folder: Path, stop_at: str) -> int:
    """Fork a process that does all cases, and return its id; it prints a traceback if it fails."""
    process = os.fork()
    if process:
        return process
    try:
        os.environ.update(environment)
        run_cases(folder, stop_at)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def main(folder: Path, parts: list[str]) -> None:
    """Do each part in turn; the first process that fails ends them all."""
    # The first optimizer imports a large part of torch, which is done once, before the forks.
    torch.optim.Adam([torch.zeros(1)])
    gc.freeze()
    for part in parts:
        world, stop_at = part.split("=")
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        running = {
            fork(
                {**shared, "WORLD_SIZE": world, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                if world != "1"
                else {},
                folder,
                stop_at,
            )
            for rank in range(int(world))
        }
        while running:
            ended, status = os.wait()
            running.remove(ended)
            if status:
                for each in running:
                    os.kill(each, signal.SIGKILL)
                sys.exit(f"a process of {world} failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

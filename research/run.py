"""A run: corpus -> split -> stages -> evaluation -> run folder.

`execute` reads top to bottom. A finished run is recognised by the hash of its config and the
corpus's fingerprint, an interrupted one continues. The test split is touched once, at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from research.config import from_json, hash_of, to_json
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.loader import Loader
from research.data.prepare import PrepareConfig, prepare
from research.data.splits import HeldOut, LeaveOneOut, Split, SplitConfig
from research.errors import InputError
from research.evaluation.candidates import AllItems, CandidateSet, from_file, md5_of, sampled
from research.evaluation.metrics import metrics, missed_share, parse
from research.evaluation.rank import Ranker, RankerConfig, RankTable, rank_tables
from research.model.encoder import Encoder, EncoderConfig
from research.objectives.base import Objective, RankingObjective
from research.tracking import RunFolder
from research.training import checkpoint
from research.training.loop import StageConfig, train
from research.training.pretrainer import Pretrainer, TrainedRanker


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Which figures a run reports."""

    metrics: tuple[str, ...] = ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr")
    """hr@K, ndcg@K, recall@K, precision@K, map@K, mrr@K or mrr."""
    candidates: tuple[str, ...] = ("full",)
    """Candidate sets of the test: full, uniform-N, popularity-N."""
    negatives_file: str | None = None
    """A `user item item ...` file of raw ids to rank against in addition."""
    candidates_seed: int = 0
    """Seed of sampled candidates, apart from the run's so that seeds share them."""
    exclude_seen: bool = True
    """Whether items of the history are out of the ranking."""

    def __post_init__(self) -> None:
        for name in self.metrics:
            parse(name)
        for name in self.candidates:
            kind, _, number = name.partition("-")
            sampled_set = kind in ("uniform", "popularity") and number.isdecimal() and int(number)
            if name != "full" and not sampled_set:
                raise InputError(
                    f"evaluation.candidates has {name!r}; allowed: full, uniform-N, popularity-N"
                )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's result."""

    corpus: str = "ml-100k"
    """A corpus folder, or the name of a data set that `prepare` knows."""
    split: SplitConfig = LeaveOneOut()
    """What is held out."""
    encoder: EncoderConfig = EncoderConfig()
    """The shared encoder."""
    stages: tuple[StageConfig, ...] = ()
    """Stages of training, the encoder carried from one to the next; none for a counting ranker."""
    ranker: RankerConfig | None = None
    """A ranker that only counts; None: the last stage ranks."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is reported."""
    seed: int = 0
    """Seed of initial weights, order, masks, negatives and dropout."""

    def __post_init__(self) -> None:
        if bool(self.stages) == (self.ranker is not None):
            raise InputError("a run has either stages or a counting ranker, and not both")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise InputError(f"stages are named {', '.join(names)}; names must differ")
        for stage in self.stages:
            if stage.validation is not None:
                parse(stage.validation.metric)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change a run's result."""

    data_root: str = "data"
    """Where raw files and prepared corpora lie."""
    quiet: bool = False
    """Print nothing but errors."""


def open_corpus(name: str, data_root: str) -> Corpus:
    """A corpus folder, or a known data set, prepared at first use with nothing filtered."""
    if (Path(name) / "manifest.json").is_file():
        return Corpus.open(Path(name))
    if "/" in name or Path(name).exists():
        raise InputError(f"corpus {name} is not a prepared corpus folder; run `prepare` first")
    return prepare(PrepareConfig(source=name), data_root=data_root)


def identity(config: RunConfig, corpus: Corpus) -> str:
    """The hash that recognises a run; files take part by their content, not by their paths."""
    evaluation, contents = config.evaluation, [corpus.fingerprint]
    if evaluation.negatives_file is not None:
        contents.append(md5_of(Path(evaluation.negatives_file)))
        evaluation = replace(evaluation, negatives_file="")
    return hash_of(replace(config, corpus="", evaluation=evaluation), *contents)


def protocol_of(config: RunConfig, corpus: Corpus, split: str) -> dict[str, object]:
    """What two results must share to stand in one table, beside the candidate set."""
    return {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "split": to_json(config.split),
        "part": split,
        "candidates_seed": config.evaluation.candidates_seed,
    }


@dataclass(frozen=True, eq=False)
class Workbench:
    """A run's fixed parts, from its config: what training and evaluation both need."""

    config: RunConfig
    corpus: Corpus
    split: Split
    catalogue: Catalogue

    @staticmethod
    def of(config: RunConfig, data_root: str) -> Workbench:
        """Open the corpus, split it, count it."""
        corpus = open_corpus(config.corpus, data_root)
        split = config.split.split(corpus)
        return Workbench(config, corpus, split, Catalogue.of(corpus, split))

    def candidate_sets(self, held_out: HeldOut, part: str) -> list[CandidateSet]:
        """The candidate sets of the test."""
        config = self.config.evaluation
        sets: list[CandidateSet] = []
        for name in config.candidates:
            kind, _, number = name.partition("-")
            if kind == "full":
                sets.append(AllItems())
                continue
            sets.append(
                sampled(
                    self.corpus,
                    held_out,
                    "uniform" if kind == "uniform" else "popularity",
                    int(number),
                    self.catalogue.counts_V,
                    config.candidates_seed,
                    part,
                )
            )
        if config.negatives_file is not None:
            sets.append(from_file(Path(config.negatives_file), self.corpus, held_out))
        return sets

    def tables(
        self, ranker: Ranker, part: str, sets: Sequence[CandidateSet] | None = None
    ) -> dict[str, RankTable]:
        """Rank tables of the validation or the test part."""
        held_out = self.split.test if part == "test" else self.split.validation
        return rank_tables(
            ranker,
            self.corpus,
            held_out,
            self.candidate_sets(held_out, part) if sets is None else sets,
            exclude_seen=self.config.evaluation.exclude_seen,
            protocol=protocol_of(self.config, self.corpus, part),
        )

    def pretrainer(self, stage: StageConfig, encoder: Encoder) -> Pretrainer:
        """An encoder under a stage's objectives, freshly built."""
        objectives: dict[str, Objective] = {
            key: objective.build(self.config.encoder, self.catalogue, self.config.seed)
            for key, objective in stage.objectives.items()
        }
        return Pretrainer(encoder, objectives, self.catalogue)


def ranking_objective(stage: StageConfig, pretrainer: Pretrainer) -> RankingObjective | None:
    """The objective that a stage ranks by; None when it has none that can."""
    able = {
        key: part
        for key, part in pretrainer.objectives.items()
        if isinstance(part, RankingObjective)
    }
    if stage.rank_by is not None:
        if stage.rank_by not in able:
            raise InputError(
                f"stage {stage.name}: rank_by is {stage.rank_by!r}; objectives that can rank here: "
                f"{', '.join(able) or 'none'}"
            )
        return able[stage.rank_by]
    if len(able) > 1:
        raise InputError(
            f"stage {stage.name}: {' and '.join(able)} can both rank; say which with rank_by"
        )
    return next(iter(able.values()), None)


def execute(
    config: RunConfig,
    path: Path,
    *,
    options: RunOptions = RunOptions(),
    accelerator: Accelerator | None = None,
) -> dict[str, object]:
    """Do the run in folder `path`, or what is left of it; returns its summary."""
    accelerator = accelerator or make_accelerator()
    bench = Workbench.of(config, options.data_root)
    mark = identity(config, bench.corpus)
    folder = RunFolder(path, writes=accelerator.is_main_process)
    stored = folder.read("config.json")
    if stored is not None and stored.get("hash") != mark:
        raise InputError(
            f"{path} holds another run (hash {stored.get('hash')}, this one is {mark}); choose "
            "another folder or remove that one"
        )
    summary = folder.read("summary.json")
    if summary is not None and summary.get("status") == "finished":
        return summary
    # What cannot work is refused here, before anything is trained or written.
    sets = bench.candidate_sets(bench.split.test, "test")
    started = time.monotonic()
    ranker: Ranker | None = None
    stages: list[StageParts] = []
    if config.ranker is not None:
        ranker = config.ranker.build(bench.corpus, bench.split)
    else:
        stages = stage_parts(bench, accelerator)
    cost: dict[str, object] = {"parameters": 0, "seconds": time.monotonic() - started}
    best: dict[str, object] = {}
    folder.write(
        "config.json",
        {"hash": mark, "fingerprint": bench.corpus.fingerprint, "config": to_json(config)},
    )
    if ranker is None:
        ranker, best, cost = _train_stages(bench, stages, folder, accelerator, options)
    validated: dict[str, RankTable] = {}
    if len(bench.split.validation):
        validated = bench.tables(ranker, "validation", [AllItems()])
    tables = bench.tables(ranker, "test", sets)
    if accelerator.is_main_process:
        for part, each in (("validation", validated), ("test", tables)):
            for name, table in each.items():
                table.save(path / "ranks" / f"{part}-{name}.npz")
    summary = {
        "status": "finished",
        "hash": mark,
        "fingerprint": bench.corpus.fingerprint,
        "protocol": dict(tables[next(iter(tables))].protocol),
        "users": {
            "evaluated": len(np.unique(bench.split.test.histories.users)),
            "not_evaluated": bench.split.not_evaluated,
        },
        "best": best,
        "val": metrics(validated["full"], config.evaluation.metrics) if validated else {},
        "test": {name: metrics(each, config.evaluation.metrics) for name, each in tables.items()},
        "missed_share": missed_share(next(iter(tables.values()))),
        "cost": cost,
        "versions": {"torch": torch.__version__},
    }
    folder.write("summary.json", summary)
    return summary


def validation_of(
    bench: Workbench, ranker: Ranker, names: Sequence[str]
) -> Callable[[], Mapping[str, float]]:
    """A function that ranks the validation items and gives `val/...` metrics."""

    def validate() -> Mapping[str, float]:
        table = bench.tables(ranker, "validation", [AllItems()])["full"]
        return {f"val/{name}": value for name, value in metrics(table, names).items()}

    return validate


@dataclass(frozen=True, eq=False)
class StageParts:
    """A stage that is ready to train."""

    config: StageConfig
    pretrainer: Pretrainer
    loader: Loader
    ranker: TrainedRanker | None
    """None when no objective of the stage ranks."""


def stage_parts(bench: Workbench, accelerator: Accelerator) -> list[StageParts]:
    """Every stage of a run, all on one encoder; `InputError` for one that cannot work."""
    config = bench.config
    encoder = Encoder(config.encoder, bench.corpus.num_items, config.seed)
    parts: list[StageParts] = []
    for stage in config.stages:
        pretrainer = bench.pretrainer(stage, encoder)
        objective = ranking_objective(stage, pretrainer)
        ranker = None if objective is None else TrainedRanker(encoder, objective)
        if stage.validation is not None and ranker is None:
            raise InputError(
                f"stage {stage.name} has validation but no objective that ranks; set "
                "validation to None or add next or cloze"
            )
        if stage.validation is not None and len(bench.split.validation) == 0:
            raise InputError(
                f"stage {stage.name} has validation but the split holds nothing out for it; set "
                "validation to None or choose another split"
            )
        loader = Loader(
            bench.corpus,
            stage.windows.windows(bench.split.training, config.encoder.length),
            stage.batches,
            length=config.encoder.length,
            seed=config.seed,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        parts.append(StageParts(stage, pretrainer, loader, ranker))
    if parts[-1].ranker is None:
        raise InputError(
            f"the last stage, {parts[-1].config.name}, cannot rank; add next or cloze to it"
        )
    return parts


def _train_stages(
    bench: Workbench,
    stages: Sequence[StageParts],
    folder: RunFolder,
    accelerator: Accelerator,
    options: RunOptions,
) -> tuple[Ranker, dict[str, object], dict[str, object]]:
    """Train every stage; the ranker, the best validation values, and what it cost."""
    best: dict[str, object] = {}
    seconds, items = 0.0, 0
    for stage in stages:
        names = dict.fromkeys(bench.config.evaluation.metrics)
        if stage.config.validation is not None:
            names[stage.config.validation.metric] = None
        validate = None
        if stage.ranker is not None:
            validate = validation_of(bench, stage.ranker, tuple(names))
        state = train(
            stage.pretrainer,
            stage.loader,
            stage.config,
            accelerator=accelerator,
            folder=folder,
            seed=bench.config.seed,
            validate=validate,
            quiet=options.quiet or not accelerator.is_main_process,
        )
        seconds, items = seconds + state.seconds, items + state.items
        best[stage.config.name] = {
            "epoch": state.best_epoch,
            "value": state.best_value,
            "epochs": state.epoch,
            "steps": state.step,
        }
    last = stages[-1]
    assert last.ranker is not None, "stage_parts has checked it"
    parameters = sum(each.numel() for each in last.pretrainer.parameters())
    return last.ranker, best, {"parameters": parameters, "seconds": seconds, "items": items}


def make_accelerator() -> Accelerator:
    """Accelerate's view of this process; on a machine without GPUs it means the CPU."""
    return Accelerator(cpu=not torch.cuda.is_available())


def load_run(path: Path, data_root: str, allow: Sequence[str] = ()) -> tuple[Workbench, Ranker]:
    """A finished run's parts, ready to rank; `InputError` for another corpus or a damaged run."""
    reader = RunFolder(path, writes=False)
    stored, summary = reader.read("config.json"), reader.read("summary.json")
    if stored is None:
        raise InputError(f"{path} has no config.json: it is not a run folder")
    if summary is None or summary.get("status") != "finished":
        raise InputError(
            f"{path} holds a run that has not finished; the command that began it continues it"
        )
    config = from_json(stored.get("config"), RunConfig, allow=allow)
    bench = Workbench.of(config, data_root)
    if stored.get("fingerprint") != bench.corpus.fingerprint:
        raise InputError(
            f"{path} was made on a corpus with fingerprint {stored.get('fingerprint')}, but "
            f"{bench.corpus.folder} has {bench.corpus.fingerprint}; ids would not mean the same"
        )
    if config.ranker is not None:
        return bench, config.ranker.build(bench.corpus, bench.split)
    stage = config.stages[-1]
    encoder = Encoder(config.encoder, bench.corpus.num_items, config.seed)
    pretrainer = bench.pretrainer(stage, encoder)
    kept = "last" if stage.validation is None else "best"
    checkpoint.load_weights(checkpoint.existing(reader.stage(stage.name) / kept), pretrainer)
    objective = ranking_objective(stage, pretrainer)
    assert objective is not None, "a run's last stage ranks"
    return bench, TrainedRanker(encoder, objective)

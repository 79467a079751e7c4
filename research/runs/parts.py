"""A run's parts, built and checked before anything is trained: corpus, split, stages, rankers.

`execute.py` builds them for a run to be trained, `load.py` for a finished one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from torch import Tensor

from research.config import hash_of
from research.data.batch import fields_of
from research.data.catalogue import Catalogue
from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.data.loader import Loader
from research.data.question_counts import questions_record
from research.data.split_config import split_corpus
from research.data.splits import HeldOut, Ranges, Split, training_counts
from research.data.windows import WindowsConfig
from research.distributed.activity import ACTIVITY
from research.errors import InputError
from research.evaluation.candidates import (
    AllItems,
    CandidateSet,
    read_candidates,
)
from research.evaluation.cold_candidates import ColdCandidates
from research.evaluation.list_metrics import OF_ATTRIBUTES
from research.evaluation.list_table import ListTable
from research.evaluation.lists import list_table
from research.evaluation.metrics import metrics, missed_share, of_lists, of_ranks, parse_metric
from research.evaluation.rank_table import RankTable
from research.evaluation.ranker import Ranker
from research.evaluation.ranking import RankingShard, rank_tables
from research.evaluation.sampled_candidates import sample_candidates
from research.model.backbone import check_fields
from research.objectives.base import Objective, RankingObjective, able_to_rank
from research.objectives.components import ModelComponents
from research.objectives.ranker import TrainedRanker
from research.randomness import seed_of
from research.runs.config import RunConfig
from research.runs.corpus import open_corpus
from research.runs.run_hash import protocol_of
from research.storage.evaluation_records import QuestionsRecord
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel
from research.training.stage_checks import check_objectives


@dataclass(frozen=True, eq=False)
class RunParts:
    """The parts of a run that do not change, built from its config, for training and evaluation."""

    config: RunConfig
    corpus: Corpus
    split: Split
    catalogue: Catalogue
    shard: RankingShard = RankingShard()
    """Which share of the questions this process ranks; by default all of them."""
    arranged: Corpus | None = None
    """The corpus in the order that the split's ranges are of; None: `corpus` itself."""
    all_users: Split | None = None
    """See `protocol_split`; None: it is `split`."""

    @staticmethod
    def of(config: RunConfig, data_root: str) -> RunParts:
        """Open the corpus, check its files against its fingerprint, split it and count its items.

        `InputError` when there is no such corpus, its files have changed, it cannot be split so, or
        it cannot give the metrics of the config.
        """
        corpus = open_corpus(config.corpus, data_root)
        corpus.verify()
        check_metrics(config.evaluation.metrics, corpus)
        arranged, whole = split_corpus(config.split, corpus)
        split = config.trained_users.split(whole)
        catalogue = Catalogue.of(arranged, split)
        all_users = None if split is whole else whole
        return RunParts(config, corpus, split, catalogue, arranged=arranged, all_users=all_users)

    @property
    def protocol_split(self) -> Split:
        """The split with the training rows of all users, whichever of them are trained on.

        Sampled candidates, slices and metrics of lists go by its counts of items, so that they are
        the same for all runs of a protocol.
        """
        return self.split if self.all_users is None else self.all_users

    @cached_property
    def protocol_counts_V(self) -> Tensor:
        """int64 [V]: interactions with each item in the training part of `protocol_split`."""
        if self.all_users is None:
            return self.catalogue.training.counts_V
        return training_counts(self.events, self.all_users)

    @property
    def events(self) -> Corpus:
        """The corpus as the ranges of the split mean it."""
        return self.corpus if self.arranged is None else self.arranged

    @property
    def num_test_users(self) -> int:
        """Number of users who have a held-out item in the test part."""
        return len(np.unique(self.split.test.histories.users))

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields of events that the encoder reads.

        They are all that it requires, and those of its optional ones that the corpus has.
        """
        encoder, available = self.config.encoder, fields_of(self.corpus)
        optional = [name for name in encoder.optional_fields if name in available]
        return tuple(dict.fromkeys((*encoder.fields, *optional)))

    def candidate_sets(self, held_out: HeldOut, part: str) -> list[CandidateSet]:
        """The candidate sets of the config for the items `held_out` of `part`.

        `part` is "test" or "validation"; each has its own sampled negatives. `InputError` as for
        `sample_candidates` and `read_candidates`.
        """
        config = self.config.evaluation
        sets: list[CandidateSet] = []
        for name in config.candidates:
            kind, _, number = name.partition("-")
            if kind == "full":
                sets.append(AllItems())
                continue
            if kind == "cold":
                sets.append(self._cold_candidates(part))
                continue
            sets.append(
                sample_candidates(
                    self.events,
                    held_out,
                    "uniform" if kind == "uniform" else "popularity",
                    int(number),
                    self.protocol_counts_V,
                    config.candidates_seed,
                    part,
                )
            )
        if config.negatives_file is not None:
            path = Path(os.path.expanduser(config.negatives_file))
            sets.append(read_candidates(path, self.events, held_out, config.seen))
        return sets

    def _cold_candidates(self, part: str) -> ColdCandidates:
        assert isinstance(self.config.split, ColdItems), "RunConfig has checked it"
        if part != "test":
            raise InputError(
                "evaluation.candidates has cold, but the validation part asks for items that are "
                "trained on; rank it with --candidates full"
            )
        return ColdCandidates(self.config.split.items(self.corpus))

    def test_candidate_sets(self) -> list[CandidateSet]:
        """The candidate sets of the test part; none if the config leaves it alone.

        `InputError` where nothing at all would be ranked then.
        """
        if self.config.evaluation.test:
            return self.candidate_sets(self.split.test, "test")
        if len(self.split.validation) == 0:
            raise InputError(
                "evaluation.test is off, and the split holds nothing out for validation: nothing "
                "would be ranked; choose another split, or leave evaluation.test on"
            )
        return []

    def tables(
        self, ranker: Ranker, part: str, sets: Sequence[CandidateSet] | None = None
    ) -> dict[str, RankTable]:
        """Rank the "validation" or "test" part; returns a rank table by candidate set.

        `sets` None means the candidate sets of the config. Errors are those of `rank_tables`, and
        an `InputError` for the test part of a run that leaves it alone.
        """
        self.check_may_rank(part)
        held_out = self.split.test if part == "test" else self.split.validation
        return rank_tables(
            ranker,
            self.events,
            held_out,
            self.candidate_sets(held_out, part) if sets is None else sets,
            seen=self.config.evaluation.seen,
            protocol=protocol_of(self.config, self.corpus, part),
            counts_V=self.protocol_counts_V,
            shard=self.shard,
            fields=self.fields if self.config.stages else (),
        )

    def questions(self, part: str) -> QuestionsRecord:
        """How many held-out items of the "validation" or "test" part are asked for in doubt."""
        held_out = self.split.test if part == "test" else self.split.validation
        counts_V = self.catalogue.training.counts_V.cpu().numpy()
        return questions_record(self.events, held_out, self.split.training, counts_V)

    def check_may_rank(self, part: str) -> None:
        """`InputError` for the test part of a run that leaves it alone."""
        if part == "test" and not self.config.evaluation.test:
            raise InputError(
                "evaluation.test of this run is off, as of a tuning's trials, so that its test "
                "part is never ranked; rank the validation part, or name a run of the tuning's "
                "winner"
            )

    def list_table(self, ranker: Ranker, part: str) -> ListTable | None:
        """The recommended lists of the "validation" or "test" part, as long as the config needs.

        None: the config has no metric of lists. Errors are those of `lists.list_table`, and an
        `InputError` for the test part of a run that leaves it alone.
        """
        names = of_lists(self.config.evaluation.metrics)
        if not names:
            return None
        self.check_may_rank(part)
        check_attributes(names, self.corpus)
        held_out = self.split.test if part == "test" else self.split.validation
        return list_table(
            ranker,
            self.events,
            held_out,
            int(max(parse_metric(name)[1] for name in names)),
            seen=self.config.evaluation.seen,
            protocol=protocol_of(self.config, self.corpus, part),
            training=self.protocol_split.training,
            counts_V=self.protocol_counts_V,
            shard=self.shard,
            fields=self.fields if self.config.stages else (),
        )

    def components(self) -> ModelComponents:
        """The components that all stages of the run share, with initial weights.

        `InputError` when the encoder reads a field of events that the corpus does not have.
        """
        config = self.config
        check_fields(config.encoder, fields_of(self.corpus), self.corpus.name)
        return ModelComponents(config.encoder, self.catalogue, config.seed, config.items)

    def model(self, stage: StageConfig, components: ModelComponents) -> MultiObjectiveModel:
        """The model of a stage: the shared encoder, and the stage's objectives, newly built.

        Objectives know the histories of the stage's users alone.
        """
        catalogue = self.catalogue.trained_on(self.training_rows(stage))
        shared = components.with_catalogue(catalogue)
        objectives: dict[str, Objective] = {
            key: objective.build(shared, seed_of(self.config.seed, stage.name, key))
            for key, objective in stage.objectives.items()
        }
        weights = {key: objective.weight for key, objective in stage.objectives.items()}
        combination = stage.combination.build(weights)
        return MultiObjectiveModel(
            components.encoder, objectives, catalogue, stage.own_windows, combination
        )

    def training_rows(self, stage: StageConfig) -> Ranges:
        """The training part of each user whom a stage is trained on, in the order of the split."""
        whole = self.protocol_split.training
        return self.config.trained_users.of_stage(whole, stage.users)

    def loader(self, stage: StageConfig, rank: int, world: int) -> Loader:
        """The loader of a stage's rows, and of the rows of its objectives' own window rules.

        `rank` and `world` say which of how many processes it loads for.
        """
        length, seed = self.config.encoder.length, seed_of(self.config.seed, stage.name)
        training = self.training_rows(stage)

        def loader_for(
            rule: WindowsConfig, seed: int, others: Mapping[WindowsConfig, Loader]
        ) -> Loader:
            windows = rule.windows(training, length)
            return Loader(
                self.events,
                windows,
                stage.batches,
                length=length,
                seed=seed,
                rank=rank,
                world=world,
                others=others,
                fields=self.fields,
            )

        other_rules = dict.fromkeys(stage.own_windows.values())
        others = {rule: loader_for(rule, seed_of(seed, hash_of(rule)), {}) for rule in other_rules}
        return loader_for(stage.windows, seed, others)


def check_metrics(names: Sequence[str], corpus: Corpus) -> None:
    """Raise `InputError` for metrics that a run on the corpus cannot have or be compared by."""
    check_attributes(names, corpus)
    if names and not of_ranks(names):
        raise InputError(
            f"evaluation.metrics has only metrics of recommended lists, {', '.join(names)}; add "
            "one of ranks, such as ndcg@10"
        )


def check_attributes(names: Sequence[str], corpus: Corpus) -> None:
    """Raise `InputError` for a metric of attributes if the items of the corpus have none."""
    of_attributes = [name for name in names if parse_metric(name)[0] in OF_ATTRIBUTES]
    if of_attributes and corpus.num_attributes == 0:
        raise InputError(
            f"evaluation.metrics has {of_attributes[0]}, a metric of attributes, and corpus "
            f"{corpus.name} has none; prepare it with attributes, or leave the metric out"
        )


def ranking_objective(stage: StageConfig, model: MultiObjectiveModel) -> RankingObjective | None:
    """The objective by which a stage ranks; None: the stage has none that can rank.

    `InputError` when `rank_by` names one that cannot, or is not set although several can.
    """
    candidates = able_to_rank(dict(model.objectives.items()))
    if stage.rank_by is not None:
        if stage.rank_by not in candidates:
            raise InputError(
                f"stage {stage.name}: rank_by is {stage.rank_by!r}; objectives that can rank here: "
                f"{', '.join(candidates) or 'none'}"
            )
        return candidates[stage.rank_by]
    if len(candidates) > 1:
        raise InputError(
            f"stage {stage.name}: {' and '.join(candidates)} can both rank; choose one with rank_by"
        )
    return next(iter(candidates.values()), None)


@dataclass(frozen=True, eq=False)
class StageParts:
    """A stage that is ready to train."""

    config: StageConfig
    model: MultiObjectiveModel
    loader: Loader
    ranker: TrainedRanker | None
    """None: the stage neither selects by validation nor is the last, or no objective can rank."""


def validation_of(
    run_parts: RunParts, stage: StageParts
) -> Callable[[], Mapping[str, float]] | None:
    """A function that ranks the validation items, in full ranking; None: the stage cannot rank.

    It returns `{"val/METRIC": value}` with the metrics of the config and the one that the stage
    selects by. If some held-out items are excluded as seen, it adds `val/missed_share`.
    """
    if stage.ranker is None:
        return None
    ranker = stage.ranker
    names, ties = (
        dict.fromkeys(of_ranks(run_parts.config.evaluation.metrics)),
        run_parts.config.evaluation.ties,
    )
    if stage.config.validation is not None:
        names[stage.config.validation.metric] = None

    def validate() -> Mapping[str, float]:
        with ACTIVITY.during(f"validating {stage.config.name}"):
            table = run_parts.tables(ranker, "validation", [AllItems()])["full"]
        values, missed = metrics(table, tuple(names), ties), missed_share(table)
        values |= {"missed_share": missed} if missed else {}
        return {f"val/{name}": value for name, value in values.items()}

    return validate


def stage_parts(run_parts: RunParts, accelerator: Accelerator) -> list[StageParts]:
    """Build every stage of a run on one shared encoder, in order.

    `InputError` for objectives that do not fit the corpus, for a stage that has validation but
    nothing to rank by or nothing held out, and for a last stage that cannot rank.
    """
    config = run_parts.config
    components = run_parts.components()
    parts: list[StageParts] = []
    for stage in config.stages:
        model = run_parts.model(stage, components)
        check_objectives(stage, model)
        # A stage that neither selects by validation nor ranks the test need not say what it ranks
        # by.
        ranks = stage.validation is not None or stage is config.stages[-1]
        objective = ranking_objective(stage, model) if ranks else None
        ranker = None if objective is None else TrainedRanker(components.encoder, objective)
        if stage.validation is not None and ranker is None:
            raise InputError(
                f"stage {stage.name} has validation but no objective that ranks; set "
                "validation to None or add next or cloze"
            )
        if stage.validation is not None and len(run_parts.split.validation) == 0:
            raise InputError(
                f"stage {stage.name} has validation but the split holds nothing out for it; set "
                "validation to None or choose another split"
            )
        loader = run_parts.loader(stage, accelerator.process_index, accelerator.num_processes)
        parts.append(StageParts(stage, model, loader, ranker))
    if config.compute.compile or config.compute.recompute:
        components.encoder.use_compute(config.compute)
    if parts[-1].ranker is None:
        raise InputError(
            f"the last stage, {parts[-1].config.name}, cannot rank; add next or cloze to it"
        )
    return parts

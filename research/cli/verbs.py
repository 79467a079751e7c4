"""The verbs of the command line: a frozen dataclass each, whose fields are its arguments.

tyro reads them from the words of a command line; a field's docstring is its help. `execute` does
the work. It imports what it needs, so that `--help` answers without importing torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from research.cli.doctor_verb import DoctorCommand
from research.cli.exchange_verbs import ExportCommand, ImportCommand
from research.cli.recommend_verbs import EmbeddingsCommand, RecommendCommand, SimilarCommand
from research.cli.verb import (
    Allowed,
    DataRoot,
    Flag,
    Machine,
    MachineOptions,
    OverridingVerb,
    Reading,
    ReadingOptions,
    Verb,
    option,
)
from research.distributed.watchdog import Watchdog
from research.errors import InputError
from research.storage.untrusted import without_keys
from research.tracking.config import Tracking
from research.tracking.options import needing_wandb

Ties = Literal["expected", "mean"]
SplitName = Literal[
    "LeaveOneOut",
    "UserHoldout",
    "GlobalTemporal",
    "TemporalCut",
    "TimepointLeaveOneOut",
    "ColdItems",
]
WandbMode = Literal["auto", "online", "offline"]
ListedKind = Literal["baselines", "experiments", "corpora", "runs"]


@dataclass(frozen=True, kw_only=True)
class WandbOptions:
    """Mirroring to Weights & Biases."""

    wandb: Annotated[WandbMode | None, option("auto|online|offline")] = None
    """mirror to W&B; auto (the default mode): online if a key is configured, else offline"""
    wandb_project: Annotated[str | None, option("NAME", "sixfold")] = None
    """W&B project"""
    wandb_entity: Annotated[str | None, option("NAME", "the key's own")] = None
    """W&B user or team"""
    wandb_artifacts: Flag = False
    """upload the best checkpoint and the rank tables of a finished run as artifacts"""
    wandb_silent: Flag = False
    """send no git commit, machine, system metrics and package versions"""

    def tracking(self) -> Tracking | None:
        """The config of the W&B mirror; None: --wandb was not given.

        Raises `InputError` for another option without --wandb.
        """
        if self.wandb is not None:
            return Tracking(
                mode=self.wandb,
                project=self.wandb_project,
                entity=self.wandb_entity,
                artifacts=self.wandb_artifacts,
                silent=self.wandb_silent,
            )
        if self != WandbOptions():
            raise InputError("the --wandb-... options need --wandb; add --wandb, or leave them out")
        return None


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What `run` and `study` share; none of it changes a result."""

    runs: Annotated[str, arg(metavar="FOLDER")] = "runs"
    """folder of all runs"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""
    quiet: Flag = False
    """print results and errors only"""
    checkpoint_seconds: Annotated[float, arg(metavar="S")] = 300.0
    """save a checkpoint when this many seconds have passed since the last one"""
    checkpoint_steps: Annotated[int | None, option("N")] = None
    """save a checkpoint every N steps as well"""
    keep_checkpoints: Annotated[int, arg(metavar="K")] = 2
    """keep the newest K checkpoints, beside the best one"""
    allow: Allowed = ()
    """a package whose classes you trust in the config of a run that start_from names"""
    expect_world: Annotated[int | None, option("N")] = None
    """raise an error unless the job has N processes"""
    stall_seconds: Annotated[float, arg(metavar="S")] = 300.0
    """with several processes: end the job when none has made progress for this many seconds"""


Wandb = Annotated[WandbOptions, arg(name="")]
Training = Annotated[TrainingOptions, arg(name="")]


@dataclass(frozen=True, kw_only=True)
class PrepareCommand(OverridingVerb):
    """Read raw events, filter them as asked, and write a corpus folder.

    SOURCE is a data set (ml-100k, ml-1m, steam, amazon-2018-all-beauty, ...: `sixfold datasets`
    lists them) or a format (movielens, s3rec, pairs, atomic, csv, parquet, jsonl).

    All filters: prepare SOURCE --help
    """

    LINE = "SOURCE [--raw FILE_OR_FOLDER] [--out CORPUS] [filters]: make a corpus"
    source: Positional[str]
    """a data set or a format"""
    out: Annotated[str | None, option("CORPUS", "under the data root")] = None
    """folder to write"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Prepare the corpus and print what it holds."""
        from research.cli.commands import prepare

        return prepare(self, overrides)


@dataclass(frozen=True, kw_only=True)
class DatasetsCommand(Verb):
    """List the public data sets that `prepare` knows by name.

    With a name: all that is known of it, and how to place its file. With the beginning of some
    names, such as amazon-2018: those data sets.
    """

    LINE = "[NAME] [--json]: list the public data sets that prepare knows"
    name: Annotated[Positional[str | None], option("NAME")] = None
    """a data set, or how names begin"""
    json: Flag = False
    """print a list of JSON objects"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Print what is known."""
        from research.cli.datasets import datasets

        return datasets(self)


@dataclass(frozen=True, kw_only=True)
class ListCommand(Verb):
    """List the baselines, experiments, corpora and runs that there are."""

    LINE = "[KIND ...] [--json]: list the baselines, experiments, corpora and runs that there are"
    kinds: Annotated[Positional[tuple[ListedKind, ...]], option("KIND ...", "all")] = ()
    """baselines, experiments, corpora, runs"""
    json: Flag = False
    """print one JSON object: by kind a list of objects"""
    runs: Annotated[str, arg(metavar="FOLDER")] = "runs"
    """folder of all runs"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Print the lists."""
        from research.cli.listing import list_all

        return list_all(self)


@dataclass(frozen=True, kw_only=True)
class RunCommand(OverridingVerb):
    """Do a run, or continue an unfinished one.

    Overrides follow as --a.b 1, --a.b=1 or a.b=1. All fields: run EXPERIMENT --help

    A run that has ended goes on when --more-epochs or a higher limit is given.
    """

    LINE = "EXPERIMENT [--out RUN] [--field.name value ...]: do a run, or continue it"
    experiment: Positional[str]
    """dotted path or module:name of a function that returns a RunConfig"""
    out: Annotated[str | None, option("RUN", "RUNS/STUDY/CORPUS/CELL/SEED")] = None
    """the run's folder"""
    cell: Annotated[str | None, option("NAME", "from the experiment")] = None
    """name of the folder of this run's seeds"""
    study: Annotated[str, arg(metavar="NAME")] = "single"
    """name of the folder of all cells"""
    more_epochs: Annotated[int | None, option("N")] = None
    """let the last stage of a run that has ended go on for N epochs"""
    encoder_from: Annotated[str | None, option("FILE")] = None
    """use the encoder of a bert_config.json of BERT4Rec's code; overrides are applied to it"""
    machine: Machine = MachineOptions()
    """--threads and --device"""
    wandb: Wandb = WandbOptions()
    """--wandb and what goes with it"""
    training: Training = TrainingOptions()
    """options of runs and studies"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Do the run and print its figures."""
        with Watchdog("sixfold run", self.training.stall_seconds):
            from research.cli.commands import run

            return run(self, overrides)


@dataclass(frozen=True, kw_only=True)
class StudyCommand(Verb):
    """Do the missing runs of a study, and print its tables."""

    LINE = (
        "STUDY [--cells C ...] [--seeds N] [--workers N]: do a study's missing runs; print tables"
    )
    study: Positional[str]
    """a module with a function `study`, or a function that returns a Study"""
    cells: Annotated[tuple[str, ...] | None, option("CELL ...")] = None
    """only these cells"""
    seeds: Annotated[int | None, option("N")] = None
    """use seeds 0 to N-1 instead of the study's"""
    corpora: Annotated[
        tuple[str, ...] | None, option("CORPUS ..."), arg(aliases=("--datasets",))
    ] = None
    """corpora to use instead of the study's"""
    workers: Annotated[int, arg(metavar="N")] = 1
    """number of runs at a time, each in its own process, and on its own GPU if there are GPUs"""
    plan: Flag = False
    """only print which runs are missing and how long they would take"""
    budget: Annotated[str | None, option("OF=AMOUNT")] = None
    """steps=N, tokens=N or seconds=N for every run"""
    retry: Flag = False
    """do failed runs again"""
    no_probe: Flag = False
    """do not estimate beforehand how long runs will take"""
    machine: Machine = MachineOptions()
    """--threads and --device"""
    wandb: Wandb = WandbOptions()
    """--wandb and what goes with it"""
    training: Training = TrainingOptions()
    """options of runs and studies"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Do the missing runs, and print the tables."""
        command = without_keys(["python", "-m", "research", "study", *words])
        with Watchdog("sixfold study", self.training.stall_seconds):
            from research.cli.commands import study

            return study(self, command)


@dataclass(frozen=True, kw_only=True)
class TuneCommand(Verb):
    """Tune the cells of a study by their validation figures, then run and test the winners.

    Every cell has as many trials. What has ended is not repeated, and what was interrupted goes on.
    """

    LINE = "TUNING [--trials N] [--workers N]: tune a study's cells, then run and test the winners"
    tuning: Positional[str]
    """a module with a function `tuning`, or a function that returns a Tuning"""
    trials: Annotated[int | None, option("N", "the tuning's")] = None
    """trials of every cell"""
    corpora: Annotated[
        tuple[str, ...] | None, option("CORPUS ..."), arg(aliases=("--datasets",))
    ] = None
    """corpora to use instead of the tuning's"""
    workers: Annotated[int, arg(metavar="N")] = 1
    """number of trials or runs at a time, each in its own process, and on its own GPU if there are
    GPUs; it changes no trial"""
    plan: Flag = False
    """only print how many trials are missing, or then which runs of winners"""
    retry: Flag = False
    """do failed runs of winners again; trials are never done again, as later ones are drawn by them
    """
    no_probe: Flag = False
    """do not estimate beforehand how long the winners' runs will take"""
    machine: Machine = MachineOptions()
    """--threads and --device"""
    wandb: Wandb = WandbOptions()
    """--wandb and what goes with it"""
    training: Training = TrainingOptions()
    """options of runs and studies"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Do the trials and runs that are missing, and print the tables."""
        command = without_keys(["python", "-m", "research", "tune", *words])
        with Watchdog("sixfold tune", self.training.stall_seconds):
            from research.cli.tune import tune

            return tune(self, command)


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(Verb):
    """Rank a run's held-out items again, with other candidates, metrics or rules."""

    LINE = "RUN [--candidates ...] [--metrics ...]: rank a run's held-out items again"
    run: Positional[str]
    """a run folder"""
    metrics: Annotated[tuple[str, ...] | None, option("METRIC ...", "the run's")] = None
    """hr@K ndcg@K mrr recall@K precision@K map@K (over min(R, K), R a user's held-out items)
    map-r@K (over R, as in trec_eval); of the recommended lists: coverage@K gini@K novelty@K arp@K
    lift@K diversity@K, and with --seen kept repeat@K explore@K"""
    candidates: Annotated[tuple[str, ...] | None, option("SET ...", "the run's")] = None
    """full, uniform-N, popularity-N, cold"""
    negatives_file: Annotated[str | None, option("FILE")] = None
    """a file of candidates: in every line the raw ids of a user and of items to rank"""
    part: Literal["test", "validation"] = "test"
    """which held-out items are ranked"""
    seen: Annotated[
        Literal["excluded", "kept", "zero"] | None, option("excluded|kept|zero", "the run's")
    ] = None
    """items of the history: excluded, kept (with their scores) or zero (kept, with score 0)"""
    ties: Annotated[Ties | None, option("expected|mean", "the run's")] = None
    """metrics where scores tie: expected (the mean over all orders) or mean (at the mean rank)"""
    save_lists: Flag = False
    """keep the recommended lists in the run's folder, where `report` finds them"""
    reading: Reading = ReadingOptions()
    """--data-root, --allow, --threads and --device"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Rank, and print the figures."""
        from research.cli.commands import evaluate

        return evaluate(self)


@dataclass(frozen=True, kw_only=True)
class ShowCommand(Verb):
    """Print what a run folder or a corpus folder holds; of a corpus, a profile in words too."""

    LINE = "RUN_OR_CORPUS [--cost] [--html FILE]: print what a folder holds"
    folder: Positional[str]
    """a run folder, a corpus folder, or the name of a corpus below the data root"""
    html: Annotated[str | None, option("FILE")] = None
    """write the profile of a corpus as a page, with figures, to this file"""
    cost: Flag = False
    """print what a run cost: seconds, memory and where they went"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Print what the folder holds."""
        from research.cli.show import show
        from research.storage.folders import run_or_corpus_at

        folder = run_or_corpus_at(self.folder, self.data_root)
        return show(folder, self.html, cost=self.cost)


@dataclass(frozen=True, kw_only=True)
class AuditCommand(Verb):
    """Print what a reviewer would ask of a corpus, or of a finished run and its corpus.

    A corpus is checked under --split, with that split's default shares; a run under its own split
    and evaluation. The exit code is 1 if a finding is a problem, and 0 if none is: warnings alone
    give 0.
    """

    LINE = "RUN_OR_CORPUS [--split SPLIT] [--json]: print what a reviewer would ask of data and run"
    target: Positional[str]
    """a run folder, a corpus folder, or the name of a corpus below the data root"""
    json: Flag = False
    """print one JSON object, with the numbers of each finding"""
    split: Annotated[SplitName | None, option("|".join(get_args(SplitName)), "LeaveOneOut")] = None
    """the split under which a corpus is checked"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""
    allow: Allowed = ()
    """a package whose classes you trust in the run's config"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Check, and print the findings."""
        from research.cli.audit import audit

        return audit(self)


@dataclass(frozen=True, kw_only=True)
class ReportCommand(Verb):
    """Print a study's report, and write it as a page with figures, as CSV and as LaTeX.

    With --figure or --table only that is written, for a paper: report STUDY --figure metric --out
    fig.pdf, or --table main --out table.tex. An unknown name lists those that there are.
    """

    LINE = "STUDY [--part validation] [--figure NAME --out FILE]: a study's tables, page, figures"
    study: Positional[str]
    """a study's folder, or its name; runs of `run --study NAME --cell CELL` are one too"""
    out: Annotated[str | None, option("FOLDER_OR_FILE", "the study's folder")] = None
    """where to write: a folder, or the file of one figure (pdf, svg, png) or table (tex, md)"""
    part: Literal["test", "validation"] = "test"
    """the held-out items that the figures are about; choose among cells on validation"""
    figure: Annotated[str | None, option("NAME")] = None
    """write one figure alone: metric, difference, gap, curve-..., or CORPUS/metric"""
    table: Annotated[str | None, option("NAME")] = None
    """write one table alone: main, main-2, or CORPUS/main"""
    runs: Annotated[str, arg(metavar="FOLDER")] = "runs"
    """folder of all runs"""
    ties: Annotated[Ties | None, option("expected|mean", "as the runs have it")] = None
    """metrics where scores tie: expected (the mean over all orders) or mean (at the mean rank)"""
    slices: Flag = False
    """also print the compared metric by popularity, history length, time and attribute"""
    base: Annotated[str | None, option("CELL", "the study's")] = None
    """the cell that the others are compared with"""
    margin: Annotated[float | None, option("X")] = None
    """also test whether cells are no worse than the base by more than X, such as 0.002"""
    wandb: Wandb = WandbOptions()
    """--wandb and what goes with it"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Print and write the report."""
        from research.cli.report import report

        return report(self)


@dataclass(frozen=True, kw_only=True)
class SyncCommand(Verb):
    """Upload run folders to W&B, whether they were mirrored before or not.

    Only what W&B does not have yet is uploaded. Needs a key (`wandb login`).
    """

    LINE = "RUN_OR_FOLDER ...: upload runs to W&B, unfinished ones too"
    folders: Annotated[Positional[tuple[Path, ...]], option("RUN_OR_FOLDER ...")] = ()
    """run folders, or folders that contain runs"""
    wandb_project: Annotated[str | None, option("NAME", "the mirror's")] = None
    """another project"""
    wandb_entity: Annotated[str | None, option("NAME", "the mirror's")] = None
    """another user or team"""
    wandb_artifacts: Flag = False
    """upload the best checkpoint and the rank tables of finished runs as artifacts"""
    wandb_silent: Flag = False
    """send no git commit, machine and package versions"""

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Upload; `InputError` when no folder is named."""
        if not self.folders:
            raise InputError(
                "no folder is given; name one or more run folders, or folders that contain runs"
            )
        with needing_wandb():
            from research.tracking.sync import SYNCING, sync

        tracking = replace(
            SYNCING,
            project=self.wandb_project,
            entity=self.wandb_entity,
            artifacts=self.wandb_artifacts,
            silent=self.wandb_silent,
        )
        return sync(list(self.folders), tracking)


VERBS: dict[str, type[Verb]] = {
    "prepare": PrepareCommand,
    "datasets": DatasetsCommand,
    "list": ListCommand,
    "run": RunCommand,
    "study": StudyCommand,
    "tune": TuneCommand,
    "evaluate": EvaluateCommand,
    "recommend": RecommendCommand,
    "similar": SimilarCommand,
    "embeddings": EmbeddingsCommand,
    "import": ImportCommand,
    "export": ExportCommand,
    "show": ShowCommand,
    "audit": AuditCommand,
    "report": ReportCommand,
    "sync": SyncCommand,
    "doctor": DoctorCommand,
}

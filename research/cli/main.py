"""The command line: `python -m research VERB ...`, also installed as `sixfold`.

This file parses arguments; `commands` does the work. Only what a verb needs is imported, so
`--help` answers at once. The docstring of a verb is its line in the list that `--help` prints. Exit
codes: 0 done, 1 failed, 2 wrong usage or bad input, 75 stopped early and can be continued.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from research.distributed.failures import STOPPED
from research.distributed.signals import handle_signals
from research.distributed.watchdog import Watchdog
from research.errors import InputError, disk_error_message
from research.storage.untrusted import plain, without_keys
from research.tracking.options import add_wandb_options, needing_wandb, spelled

Verb = Callable[[Sequence[str]], int]
TIES = ("expected", "mean")
TIES_HELP = "equal scores: figures are expected over all orders, or those of the mean rank"


def prepare_verb(arguments: Sequence[str]) -> int:
    """prepare NAME_OR_FORMAT [--raw FILE_OR_FOLDER] [--out CORPUS] [filters]: make a corpus"""
    parser = argparse.ArgumentParser(
        prog="sixfold prepare",
        description="Read raw events, filter them as asked, and write a corpus folder. "
        "NAME_OR_FORMAT is a data set (ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m, ml-latest, "
        "ml-latest-small) or a format (movielens, s3rec, pairs, atomic, csv, parquet).",
        epilog="All filters: prepare NAME_OR_FORMAT --help",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="NAME_OR_FORMAT")
    parser.add_argument("--out", metavar="CORPUS", help="folder to write (default: under the root)")
    parser.add_argument("--data-root", default="data", help="where raw files and corpora lie")
    known, rest = parse_first(parser, arguments)
    from research.cli.commands import prepare

    return prepare(known.source, known.out, known.data_root, rest)


def run_verb(arguments: Sequence[str]) -> int:
    """run EXPERIMENT [--out RUN] [--field.name value ...]: one run, or what is left of it"""
    parser = run_parser("run", "EXPERIMENT", "a function that returns a RunConfig")
    parser.add_argument("--cell", help="name of the run's folder (default: from the experiment)")
    parser.add_argument("--study", default="single", help="folder above it")
    parser.add_argument(
        "--encoder-from",
        metavar="FILE",
        help="take the encoder from a bert_config.json of BERT4Rec's code; overrides come after",
    )
    parser.add_argument("--out", metavar="RUN", help="the run's folder, instead of all that")
    parser.add_argument(
        "--more-epochs",
        type=int,
        metavar="N",
        help="let the last stage of a run that has ended go on for N epochs (so does a higher "
        "limit, as stages.0.steps=N)",
    )
    known, rest = parse_first(parser, spelled(arguments))
    with Watchdog("sixfold run", known.stall_seconds):
        from research.cli.commands import run

        return run(known, rest)


def study_verb(arguments: Sequence[str]) -> int:
    """study STUDY [--cells C ...] [--seeds N] [--workers N]: what is missing, and the tables"""
    parser = run_parser("study", "STUDY", "a module or function that gives a Study")
    parser.add_argument("--seeds", type=int, help="use seeds 0..N-1 instead of the study's")
    parser.add_argument("--cells", nargs="+", metavar="CELL", help="only these cells")
    parser.add_argument(
        "--corpora", "--datasets", nargs="+", metavar="CORPUS", help="instead of the study's"
    )
    parser.add_argument(
        "--budget", metavar="OF=AMOUNT", help="steps=N, tokens=N or seconds=N for every run"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes at a time, one a GPU where there are some"
    )
    parser.add_argument("--retry", action="store_true", help="do failed runs again")
    parser.add_argument("--plan", action="store_true", help="say what would be done, and cost")
    parser.add_argument("--no-probe", action="store_true", help="do not try what runs will take")
    known = parser.parse_args(spelled(arguments))
    known.command = without_keys(["python", "-m", "research", "study", *arguments])
    with Watchdog("sixfold study", known.stall_seconds):
        from research.cli.commands import study

        return study(known)


def evaluate_verb(arguments: Sequence[str]) -> int:
    """evaluate RUN [--candidates ...] [--metrics ...]: rank a run's held-out items anew"""
    parser = argparse.ArgumentParser(prog="sixfold evaluate", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--candidates", nargs="+", help="full, uniform-N, popularity-N")
    parser.add_argument("--negatives-file", help="user item item ... lines of raw ids")
    parser.add_argument("--metrics", nargs="+", help="hr@K ndcg@K mrr recall@K precision@K map@K")
    parser.add_argument(
        "--seen",
        choices=["excluded", "kept", "zero"],
        help="items of the history: out of the ranking, competing, or at score 0 (as published)",
    )
    parser.add_argument("--ties", choices=TIES, help=TIES_HELP)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--allow", nargs="+", default=[], help="packages whose configs you trust")
    add_machine_options(parser)
    known = parser.parse_args(list(arguments))
    from research.cli.commands import evaluate

    return evaluate(known)


def recommend_verb(arguments: Sequence[str]) -> int:
    """recommend RUN --items id,id,... [--k 10]: raw ids in, raw ids and titles out"""
    parser = argparse.ArgumentParser(prog="sixfold recommend", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--items", required=True, help="the history's raw ids, oldest first")
    parser.add_argument("--k", type=int, default=10, help="how many items")
    parser.add_argument("--keep-seen", action="store_true", help="recommend known items too")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--allow", nargs="+", default=[], help="packages whose configs you trust")
    add_machine_options(parser)
    known = parser.parse_args(list(arguments))
    from research.cli.commands import recommend

    return recommend(known)


def import_verb(arguments: Sequence[str]) -> int:
    """import FILE --format s3rec --corpus CORPUS --out RUN --heads H: foreign weights as a run"""
    parser = argparse.ArgumentParser(
        prog="sixfold import",
        description="Read a plain state dict of S3-Rec's code into a run folder; evaluate, "
        "recommend, show and `run ... start_from=RUN` work on it as on any. The corpus is that of "
        "S3-Rec's text file and its item2attributes.json, whose ids are rows of the tables.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="what torch.save(model.state_dict()) wrote")
    parser.add_argument("--format", choices=["s3rec"], required=True)
    parser.add_argument("--corpus", required=True, help="a corpus folder, or a known data set")
    parser.add_argument("--out", metavar="RUN", required=True, help="the run folder to make")
    parser.add_argument(
        "--heads", type=int, required=True, help="attention heads, which the file does not say"
    )
    parser.add_argument(
        "--keep-zero-rows",
        action="store_true",
        help="keep rows 0 of the item and attribute tables, which nothing here reads, for export",
    )
    parser.add_argument(
        "--special-classes",
        action="store_true",
        help="let padding (row 0 of the item table) and the mask compete with the items, as in "
        "S3-Rec's own full ranking, where seen items score 0: evaluate RUN --seen zero",
    )
    parser.add_argument("--data-root", default="data")
    add_machine_options(parser)
    known = parser.parse_args(list(arguments))
    from research.cli.commands import import_file

    return import_file(known)


def export_verb(arguments: Sequence[str]) -> int:
    """export RUN --format s3rec --out FILE: a run's weights as a foreign file"""
    parser = argparse.ArgumentParser(
        prog="sixfold export",
        description="Write a stage of a run as a plain state dict of S3-Rec's code. What the stage "
        "lacks comes from the nearest earlier one that has it, else it is zeros, and the report "
        "says so.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, or RUN/stages/NAME")
    parser.add_argument("--format", choices=["s3rec"], required=True)
    parser.add_argument("--out", metavar="FILE", required=True, help="the file; not overwritten")
    parser.add_argument("--allow", nargs="+", default=[], help="packages whose configs you trust")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    known = parser.parse_args(list(arguments))
    from research.cli.commands import export

    return export(known)


def show_verb(arguments: Sequence[str]) -> int:
    """show RUN|CORPUS: what a folder holds"""
    parser = argparse.ArgumentParser(prog="sixfold show", allow_abbrev=False)
    parser.add_argument("folder", metavar="RUN|CORPUS")
    known = parser.parse_args(list(arguments))
    from research.cli.show import show

    return show(known.folder)


def report_verb(arguments: Sequence[str]) -> int:
    """report STUDY [--out FOLDER] [--wandb]: what a study found; a page, CSV and LaTeX of it"""
    parser = argparse.ArgumentParser(prog="sixfold report", allow_abbrev=False)
    parser.add_argument("study", metavar="STUDY", help="a study's folder, or its name")
    parser.add_argument("--runs", default="runs", help="folder of all runs")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: the study's)")
    parser.add_argument("--ties", choices=TIES, help=f"{TIES_HELP} (default: as the runs have it)")
    add_wandb_options(parser)
    known = parser.parse_args(spelled(arguments))
    from research.cli.report import report

    return report(known)


def sync_verb(arguments: Sequence[str]) -> int:
    """sync RUN_OR_FOLDER ...: upload to W&B what it lacks of runs, unfinished ones too"""
    parser = argparse.ArgumentParser(
        prog="sixfold sync",
        description="Upload run folders, whether they were mirrored before or not. W&B is asked "
        "how far it is, so nothing is uploaded twice. Needs a key (`wandb login`).",
        allow_abbrev=False,
    )
    parser.add_argument("folders", metavar="RUN_OR_FOLDER", nargs="+", help="runs, or above runs")
    parser.add_argument("--wandb-project", metavar="NAME", help="instead of the one of the mirror")
    parser.add_argument("--wandb-entity", metavar="NAME", help="instead of the one of the mirror")
    known = parser.parse_args(list(arguments))
    with needing_wandb():
        from research.tracking.sync import SYNCING, sync

    tracking = replace(SYNCING, project=known.wandb_project, entity=known.wandb_entity)
    return sync([Path(folder) for folder in known.folders], tracking)


VERBS: dict[str, Verb] = {
    "prepare": prepare_verb,
    "run": run_verb,
    "study": study_verb,
    "evaluate": evaluate_verb,
    "recommend": recommend_verb,
    "import": import_verb,
    "export": export_verb,
    "show": show_verb,
    "report": report_verb,
    "sync": sync_verb,
}


def run_parser(verb: str, metavar: str, meaning: str) -> argparse.ArgumentParser:
    """A parser with the options that `run` and `study` share."""
    parser = argparse.ArgumentParser(
        prog=f"sixfold {verb}",
        description="Dotted overrides follow as --a.b 1, --a.b=1 or a.b=1."
        if verb == "run"
        else "",
        epilog=f"All fields: run {metavar} --help" if verb == "run" else "",
        allow_abbrev=False,
    )
    parser.add_argument("target", metavar=metavar, help=f"dotted path or module:name of {meaning}")
    parser.add_argument("--runs", default="runs", help="folder of all runs")
    parser.add_argument("--data-root", default="data", help="where raw files and corpora lie")
    add_machine_options(parser)
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose classes you trust in a run that start_from names; may be repeated",
    )
    parser.add_argument("--expect-world", type=int, help="fail unless so many processes run")
    parser.add_argument(
        "--stall-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="with several processes: end the job when none gets on for so long",
    )
    parser.add_argument(
        "--checkpoint-steps", type=int, metavar="N", help="save a stage every N steps as well"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="save a stage when so much time has passed since the last time",
    )
    parser.add_argument(
        "--keep-checkpoints", type=int, default=2, metavar="K", help="beside the best: the newest K"
    )
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")
    add_wandb_options(parser)
    return parser


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Add `--threads` and `--device` to a parser."""
    parser.add_argument("--threads", type=int, help="CPU threads of torch")
    parser.add_argument(
        "--device", help="cpu, cuda or cuda:N (default: a GPU if there is one, else the CPU)"
    )


def parse_first(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Parse the options that `parser` knows; returns them, and the other words in order.

    When the first word is no option, `--help` is among the other words: it then asks for the fields
    of that target, not for the parser's options.
    """
    given = list(arguments)
    wants_fields = bool(given) and not given[0].startswith("-")
    asked = [word for word in given if word in ("-h", "--help")] if wants_fields else []
    known, rest = parser.parse_known_args([word for word in given if word not in asked])
    return known, rest + asked


def usage() -> str:
    """The text of `--help`: the list of verbs."""
    lines = "\n".join(f"  {verb.__doc__}" for verb in VERBS.values())
    return (
        "usage: sixfold VERB ...   (or: python -m research VERB ...)\n\n"
        f"{lines}\n\n`VERB --help` tells more."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the verb that `arguments` name (None: those of this process); returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    wants_help = not given or given[0] in ("-h", "--help", "help")
    if not wants_help and given[0] not in VERBS:
        from research.annotations import near

        print(f"sixfold: no verb {given[0]!r}{near(given[0], set(VERBS))}", file=sys.stderr)
        return 2
    try:
        if wants_help:
            print(usage(), flush=True)
            return 0 if given else 2
        with handle_signals():
            return VERBS[given[0]](given[1:])
    except InputError as error:
        print(f"sixfold {given[0]}: {plain(str(error))}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"sixfold {given[0]}: {plain(str(error))}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        from research.distributed.failures import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        said = f"{error or 'out of memory'}"
        print(f"sixfold {given[0]}: out of memory: {said}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of the pipe (`| head`) has closed it. Without this the interpreter would write
        # to the pipe again when it exits, and print another error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"sixfold {given[0]}: {disk_error_message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        by = f" by {error}" if str(error) else ""
        more = "; the same command continues from the last checkpoint"
        print(f"\nstopped{by}" + more * (given[0] in ("run", "study")), file=sys.stderr)
        return STOPPED

"""The verb `list`: prints the baselines, experiments, corpora and runs that there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import shorten

from rich.table import Table

from research.cli import verbs
from research.console import wide_console
from research.data.corpus import Corpus
from research.errors import InputError
from research.storage.folders import folders_below
from research.storage.records import FailureRecord, RunRecord, RunSummary
from research.storage.run_folder import RunFolder
from research.storage.tuning_records import PrunedRecord
from research.studies.known_targets import known_targets

Facts = dict[str, object]


def list_all(arguments: verbs.ListCommand) -> int:
    """Print what there is of the kinds that are asked for; of all where none is."""
    corpora, runs = Path(arguments.data_root) / "corpora", Path(arguments.runs)
    kinds: dict[verbs.ListedKind, tuple[str, Callable[[], Iterator[Facts]]]] = {
        "baselines": ("`sixfold run TARGET` does one", lambda: targets_of("baselines")),
        "experiments": (
            "`sixfold study TARGET` does a study, `sixfold run TARGET` a run, "
            "`sixfold tune TARGET` a tuning",
            lambda: targets_of("experiments"),
        ),
        "corpora": (
            f"in {corpora}, where `sixfold prepare` makes them",
            lambda: of_corpora(corpora),
        ),
        "runs": (f"in {runs}; `sixfold show RUN` tells one in full", lambda: of_runs(runs)),
    }
    chosen = {kind: kinds[kind] for kind in arguments.kinds or kinds}
    if arguments.json:
        print(json.dumps({kind: list(facts()) for kind, (_, facts) in chosen.items()}, indent=2))
        return 0
    console = wide_console()
    for kind, (remark, facts) in chosen.items():
        rows = list(facts())
        console.print(f"{kind}: {len(rows) or 'none'} ({remark})")
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row("", *LINES[kind](row))
        console.print(table)
    return 0


def targets_of(package: str) -> Iterator[Facts]:
    """The runs and studies of a package: what to type, the verb and first lines of docstrings."""
    for known in known_targets():
        if known.module.partition(".")[0] == package:
            yield {
                "target": known.target,
                "verb": known.verb,
                "about": known.about,
                "module": known.module,
                "module_about": known.module_about,
            }


def of_corpora(folder: Path) -> Iterator[Facts]:
    """Name, sizes and fingerprint of every corpus; of one that cannot be read, why not."""
    for path in folders_below(folder, "corpus"):
        facts: Facts = {"name": str(path.relative_to(folder)), "folder": str(path)}
        try:
            corpus = Corpus.open(path)
        except InputError as error:
            yield facts | {"problem": str(error)}
            continue
        yield facts | {
            "users": corpus.num_users,
            "items": corpus.num_items,
            "interactions": corpus.num_interactions,
            "attributes": corpus.num_attributes,
            "fingerprint": corpus.fingerprint,
            "problem": None,
        }


def of_runs(folder: Path) -> Iterator[Facts]:
    """Folder, state and main metric of every run; of one that cannot be read, why not.

    The states are finished, pruned, failed, unfinished and unreadable. The metric is that by which
    the run is compared with popularity; of one that is not compared ndcg@10, or the first that
    there is.
    """
    for path in folders_below(folder, "run"):
        facts: Facts = {"folder": str(path), "state": "unreadable", "metric": None, "value": None}
        facts |= {"candidates": None, "corpus": None, "seed": None, "problem": None}
        reader = RunFolder(path, writes=False)
        try:
            record, summary = reader.read(RunRecord), reader.read(RunSummary)
            failure, pruned = reader.read(FailureRecord), reader.read(PrunedRecord)
            lines = reader.metrics() if summary is None else []
        except InputError as error:
            yield facts | {"problem": str(error)}
            continue
        assert record is not None, "folders_below has seen its file"
        facts |= {"corpus": record.dataset.name, "seed": record.outline.seed}
        if summary is not None:
            yield facts | {"state": "finished"} | main_metric(summary)
        elif pruned is not None and pruned.hash == record.hash:
            yield facts | {"state": "pruned", "problem": f"after epoch {pruned.epoch}"}
        elif failure is not None and failure.hash == record.hash:
            yield facts | {"state": "failed", "problem": failure.error.partition("\n")[0]}
        else:
            place = f"{lines[-1]['stage']}, step {lines[-1]['step']}" if lines else "not begun"
            yield facts | {"state": "unfinished", "problem": place}


def main_metric(summary: RunSummary) -> Facts:
    """A run's main metric on the test part, with its name and its candidate set.

    Of a run that leaves the test part alone it is on the validation part, and the set says so.
    """
    floor = summary.popularity
    part, candidates, figures = summary.first_figures
    if floor is not None:
        candidates, figures = floor.candidates, summary.test[floor.candidates]
    elif part != "test":
        candidates = f"{candidates}, {part}"
    metric = floor.metric if floor else "ndcg@10"
    metric = metric if metric in figures else next(iter(figures))
    return {"metric": metric, "value": figures[metric], "candidates": candidates}


def target_line(facts: Facts) -> list[str]:
    """The cells of a run or study in the printed list."""
    # A module that stands for its study begins with the question that the study answers.
    is_module = facts["target"] == facts["module"] or not facts["about"]
    about = facts["module_about" if is_module else "about"]
    return [str(facts["verb"]), str(facts["target"]), str(about)]


def corpus_line(facts: Facts) -> list[str]:
    """The cells of a corpus in the printed list."""
    if facts["problem"] is not None:
        return [str(facts["name"]), f"unreadable: {_short(facts['problem'])}"]
    sizes = ("users", "items", "interactions", "attributes")
    counts = ", ".join(f"{facts[name]:,} {name}" for name in sizes)
    return [str(facts["name"]), f"{counts}; fingerprint {str(facts['fingerprint'])[:12]}"]


def run_line(facts: Facts) -> list[str]:
    """The cells of a run in the printed list."""
    remark = "" if facts["problem"] is None else _short(facts["problem"])
    if facts["metric"] is not None:
        remark = f"{facts['metric']} {facts['value']:.4f} ({facts['candidates']})"
    return [str(facts["folder"]), str(facts["state"]), remark]


def _short(problem: object) -> str:
    return shorten(str(problem), 120, placeholder=" ...")


LINES: dict[verbs.ListedKind, Callable[[Facts], list[str]]] = {
    "baselines": target_line,
    "experiments": target_line,
    "corpora": corpus_line,
    "runs": run_line,
}

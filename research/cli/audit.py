"""The verb `audit`: prints what a reviewer would ask of a corpus or of a finished run."""

from __future__ import annotations

from typing import get_args

from research.cli import verbs
from research.cli.findings import tell
from research.data.audit import audit_corpus
from research.data.corpus import Corpus
from research.data.split_config import AnySplit
from research.data.splits import LeaveOneOut
from research.errors import InputError
from research.runs.audit import audit_run
from research.storage.folders import run_or_corpus_at


def audit(arguments: verbs.AuditCommand) -> int:
    """Print the findings; returns 1 if one of them is a problem, else 0.

    Raises `InputError` for a folder that is neither a run nor a corpus, for a damaged one, and for
    a run with --split.
    """
    folder = run_or_corpus_at(arguments.target, arguments.data_root)
    if (folder / "config.json").is_file():
        if arguments.split is not None:
            raise InputError(
                f"--split {arguments.split}: {folder} is a run, which is checked under its own "
                "split; leave --split out, or name the folder of its corpus"
            )
        kind, findings = "run", audit_run(folder, arguments.data_root, arguments.allow)
    else:
        kind, findings = "corpus", audit_corpus(Corpus.open(folder), split_named(arguments.split))
    facts = {"folder": str(folder), "kind": kind} if arguments.json else None
    return tell(findings, heading=str(folder), facts=facts)


def split_named(name: verbs.SplitName | None) -> AnySplit:
    """The split of that name, with its defaults; None is leave-one-out."""
    kinds: dict[str | None, type[AnySplit]] = {kind.__name__: kind for kind in get_args(AnySplit)}
    return kinds.get(name, LeaveOneOut)()

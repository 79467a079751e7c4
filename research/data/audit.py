"""The audit of a corpus under a split: what a reviewer would ask of the data.

`research/runs/audit.py` adds what a reviewer would ask of a run; the verb `audit` prints both.
"""

from __future__ import annotations

from research.data.corpus import Corpus
from research.data.corpus_checks import corpus_checks
from research.data.findings import Finding
from research.data.repeats import Repeats
from research.data.split_checks import Audited, Seen, split_checks
from research.data.split_config import AnySplit, split_corpus
from research.data.splits import LeaveOneOut
from research.data.user_range import TrainedUsers
from research.errors import InputError


def audit_corpus(
    corpus: Corpus,
    config: AnySplit = LeaveOneOut(),
    seen: Seen = "excluded",
    trained: TrainedUsers = TrainedUsers(),
) -> list[Finding]:
    """The findings of all checks of a corpus, and of it under a split.

    `seen` says how items of the history are ranked: see `EvaluationConfig.seen`; `trained`
    are the users whom a run is trained on. `InputError` when the corpus is damaged or has changed
    since it was prepared.
    """
    corpus.verify()
    repeats = Repeats.of(corpus)
    findings = corpus_checks(corpus, repeats)
    try:
        arranged, split = split_corpus(config, corpus)
        split = trained.split(split)
    except InputError as error:
        return [*findings, Finding(check="split", level="problem", numbers={}, sentence=str(error))]
    if arranged is not corpus:
        repeats = Repeats.of(arranged)
    return findings + split_checks(Audited(arranged, config, split, repeats, seen))

"""What a folder already holds of a requested run, by the run hash.

It may hold nothing, the run itself, the run with an earlier limit (which is then extended, see
`extension.py`), or another run, which is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from research.data.corpus import Corpus
from research.distributed.collectives import Processes
from research.errors import InputError
from research.runs.config import RunConfig
from research.runs.differences import other_run
from research.runs.extension import extension_of, with_extensions
from research.runs.parts import RunParts
from research.storage.records import ExtensionRecord, RunRecord, RunSummary
from research.storage.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ExistingRun:
    """What a folder already holds of the requested run."""

    summary: RunSummary | None
    """The run's summary; None: it has not finished, or is to be extended now."""
    extensions: tuple[ExtensionRecord, ...] = ()
    """The extensions of the run so far, in order, and the one that is requested now."""


def existing_run(
    folder: RunFolder, record: RunRecord, config: RunConfig, corpus: Corpus
) -> ExistingRun:
    """What a folder holds of the requested run, whose `record` and `config` are given.

    If the folder holds the same run with an earlier limit, the run is to be extended. `InputError`
    when it holds another run, or a run that cannot be extended so.
    """
    stored = folder.read(RunRecord)
    if stored is None:
        return ExistingRun(summary=folder.read(RunSummary))
    if stored.hash == with_extensions(record, stored.extensions).hash:
        return ExistingRun(summary=folder.read(RunSummary), extensions=stored.extensions)
    extension = extension_of(stored, record, config, corpus, folder)
    if extension is None:
        why = other_run(stored, record, config)
        raise InputError(
            f"{folder.path} holds another run ({why}); choose another folder or remove that one"
        )
    return ExistingRun(summary=None, extensions=(*stored.extensions, extension))


def share_existing_run(
    folder: RunFolder,
    record: RunRecord,
    config: RunConfig,
    run_parts: RunParts,
    processes: Processes,
) -> ExistingRun:
    """`existing_run` in every process; only the main process reads the folder.

    All of them raise its `InputError`.
    """
    read = partial(existing_run, folder, record, config, run_parts.corpus)
    return processes.from_main(read)

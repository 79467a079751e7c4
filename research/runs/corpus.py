"""A run's corpus: opened, and first prepared if it is not yet, by one process of each machine."""

from __future__ import annotations

import os
from pathlib import Path

from accelerate import PartialState

from research.annotations import did_you_mean
from research.data.corpus import Corpus
from research.data.preparation.datasets import DATASETS
from research.data.preparation.download import ARCHIVES
from research.data.preparation.options import PrepareConfig
from research.data.preparation.prepare import FORMATS, prepare
from research.distributed.collectives import Processes
from research.errors import InputError
from research.storage.folders import folders_below, what_is_at


def prepare_and_open_corpus(name: str, data_root: str, processes: Processes) -> Corpus:
    """Open a corpus (see `open_corpus`), which one process of each machine prepares if needed."""
    prepare_once(name, data_root, processes)
    return open_corpus(name, data_root)


def prepare_once(name: str, data_root: str, processes: Processes) -> None:
    """Let one process of each machine prepare the corpus, if it is not prepared yet.

    With a single process this does nothing: `open_corpus` prepares it. An `InputError` of the main
    process is raised by all.
    """
    if processes.world > 1:
        processes.from_main(lambda: open_corpus(name, data_root).fingerprint)
        # Machines that do not share a disk each prepare their own copy.
        with PartialState().local_main_process_first():
            open_corpus(name, data_root)


def open_corpus(name: str, data_root: str) -> Corpus:
    """Open the corpus `name`: a folder, a folder below `data_root/corpora`, or a known data set.

    A known data set is prepared at first use, with nothing filtered; its files are downloaded
    (MovieLens), or looked for in `data_root/raw`. `InputError` when there is no such corpus, or it
    is damaged.
    """
    name = os.path.expanduser(name)
    for folder in (Path(name), Path(data_root) / "corpora" / name):
        if (folder / "manifest.json").is_file():
            return Corpus.open(folder)
    if name in DATASETS:
        return prepare(PrepareConfig(source=name), data_root=data_root)
    if "/" in name or Path(name).exists():
        raise InputError(
            f"corpus {name} is not a prepared corpus folder: {what_is_at(Path(name))}; run "
            "`prepare` first"
        )
    if name not in FORMATS and name not in ARCHIVES:
        corpora = Path(data_root) / "corpora"
        prepared = [str(path.relative_to(corpora)) for path in folders_below(corpora, "corpus")]
        known = (*prepared, *ARCHIVES, *DATASETS)
        raise InputError(
            f"corpus is {name!r}, which is neither in {corpora} (there: "
            f"{', '.join(prepared) or 'nothing'}; --data-root names another root) nor a data set "
            f"that `sixfold datasets` lists{did_you_mean(name, known)}"
        )
    return prepare(PrepareConfig(source=name), data_root=data_root)


def check_fingerprint(corpus: Corpus, fingerprint: str, source: object, remedy: str) -> None:
    """Raise `InputError` where `source` was trained on another corpus than this one.

    `fingerprint` is of the corpus that it was trained on; `remedy` ends the message.
    """
    if corpus.fingerprint != fingerprint:
        raise InputError(
            f"{source} was trained on a corpus with fingerprint {fingerprint}, but "
            f"{corpus.folder} has {corpus.fingerprint}; {remedy}"
        )

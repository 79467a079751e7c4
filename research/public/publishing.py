"""`sf.export` and `sf.import_hub`: a run's model for others, and one that others have published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from research.errors import InputError
from research.interop.exporting import ModelFormat, export_model
from research.interop.hub import import_hub as import_folder
from research.interop.hub_client import local_folder
from research.interop.model_card import check_license
from research.interop.model_files import open_source
from research.interop.program import Answer
from research.public.messages import check_argument
from research.public.preparing import corpus_name
from research.public.run import Run, load
from research.public.training import CorpusLike


def export(
    run: Run,
    out: Path | str,
    *,
    format: ModelFormat = "hub",
    k: int | None = None,
    keep_seen: bool = False,
    license: str | None = None,
) -> list[str]:
    """Write a run's model for other programs or other people; docs/publish.md tells the formats.

    It is checked before it is written; the lines returned say what was written and how it was
    checked. `sixfold export --push` also uploads a Hub folder.

        >>> sf.export(run, "mine.onnx", format="onnx", k=10)

    Args:
        run: a run with stages.
        out: the file to write, or for "hub" the folder; an existing one is not overwritten.
        format: "hub", "safetensors", "onnx" or "torch-export".
        k: of a program: how many of the best items it returns. None: the scores of all.
        keep_seen: of a program with `k`: whether items of the history are among the best.
        license: of a Hub folder: the licence of the weights, for its model card.

    Raises:
        InputError: where `out` exists, the format cannot hold this run, or a check fails.
    """
    check_argument("run", run, Run)
    check_argument("out", out, str | Path)
    if format not in get_args(ModelFormat):
        raise InputError(f"format is {format!r}; allowed: {', '.join(get_args(ModelFormat))}")
    is_program = format in ("onnx", "torch-export")
    check_argument("k", k, int | None)
    if (k is not None or keep_seen) and not is_program:
        raise InputError("k and keep_seen are for onnx and torch-export alone; leave them out")
    if keep_seen and k is None:
        raise InputError("keep_seen needs k; add that, or leave it out")
    if license is not None and format != "hub":
        raise InputError("license is for hub alone; leave it out")
    check_license(license)
    source = open_source(run.folder, data_root=run.data_root, allow=run.allow)
    answer = Answer(k=k, keep_seen=keep_seen)
    return export_model(source, Path(out), format, answer=answer, license=license)


def import_hub(
    source: Path | str,
    corpus: CorpusLike,
    *,
    out: Path | str,
    negatives_file: Path | str | None = None,
    device: str | None = None,
    allow: Sequence[str] = (),
    data_root: Path | str = "data",
) -> Run:
    """The run that a Hub folder holds, in a run folder of its own, ranked anew.

        >>> run = sf.import_hub("hf://OWNER/NAME", corpus, out="runs/theirs")

    Args:
        source: a folder that `sf.export` wrote, or `hf://OWNER/NAME` on the Hugging Face Hub, with
            `@REVISION` or without.
        corpus: the corpus that it was trained on, as for `sf.train`; its fingerprint is compared.
        out: the run folder to make; an existing one is not overwritten.
        negatives_file: the run's file of negatives. None: nothing is ranked by one.
        device: as for `sf.train`.
        allow: packages whose classes you trust in the run's config.
        data_root: the folder of prepared corpora.

    Raises:
        InputError: for a damaged folder, another corpus, an `out` that exists, and where the Hub
            refuses or cannot be reached.
    """
    check_argument("source", source, str | Path)
    check_argument("out", out, str | Path)
    with local_folder(source) as folder:
        import_folder(
            folder,
            Path(out),
            corpus=corpus_name(corpus),
            negatives_file=None if negatives_file is None else str(negatives_file),
            data_root=str(data_root),
            allow=tuple(allow),
            device=device,
        )
    return load(out, device=device, allow=allow, data_root=data_root)

"""The verbs `import` and `export`: models of other programs, and ours for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from research.cli.verb import Allowed, DataRoot, Flag, Machine, MachineOptions, Verb, option
from research.errors import InputError

# Formats whose item table is read in an order that the user may give.
ROW_FORMATS = ("recbole-sasrec", "recbole-bert4rec", "gsasrec")


def check_options(
    command: ImportCommand | ExportCommand, formats: Mapping[str, Sequence[str]]
) -> None:
    """Raise `InputError` for an option that was given, but not for one of its formats.

    `formats` has them by the name of the field.
    """
    for name, allowed in formats.items():
        if getattr(command, name) not in (None, False, ()) and command.format not in allowed:
            option_name = name.replace("_", "-")
            raise InputError(
                f"--{option_name} is an option of --format {', '.join(allowed)} alone; leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class ImportCommand(Verb):
    """Read a model of another program, or a folder of the Hub, into a run folder.

    evaluate, recommend, show and `run ... start_from=RUN` work on it as on any other run.

    s3rec, recbole-sasrec, recbole-bert4rec, gsasrec: a plain state dict of that code. The corpus
    must be the one that it was trained on. Raw item ids of the corpus are rows of the file's tables
    (s3rec), or row n is the corpus's n-th item or the n-th line of --item-ids (the others).

    hub: a folder that `export --format hub` wrote, or hf://OWNER/NAME on the Hugging Face Hub.
    """

    LINE = "FILE --format FORMAT --out RUN [--corpus CORPUS] [--heads H]: import weights as a run"
    file: Positional[str]
    """what torch.save(model.state_dict()) wrote; of hub: a folder or hf://OWNER/NAME"""
    format: Literal["s3rec", "recbole-sasrec", "recbole-bert4rec", "gsasrec", "hub"]
    """the code that wrote the file"""
    out: Annotated[str, arg(metavar="RUN")]
    """the run folder to make"""
    corpus: Annotated[str | None, option("CORPUS", "of hub alone: where the run had it")] = None
    """a corpus folder, or a known data set"""
    negatives_file: Annotated[str | None, option("FILE")] = None
    """of hub: the negatives file of the run; without it, nothing is ranked by such a file"""
    heads: Annotated[int | None, option("H")] = None
    """number of attention heads, which the file of a state dict does not say"""
    item_ids: Annotated[str | None, option("FILE", "the corpus's order")] = None
    """of recbole-* and gsasrec: a line for each row of the item table, with the item's raw id"""
    special_classes: Flag = False
    """of s3rec: rank padding and mask too, as S3-Rec's full ranking (evaluate RUN --seen zero)"""
    keep_zero_rows: Flag = False
    """of s3rec: keep rows 0 of the tables, which nothing here reads, for export"""
    allow: Allowed = ()
    """of hub: a package whose classes you trust in the run's config"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""
    machine: Machine = MachineOptions()
    """--threads and --device"""

    def check(self) -> None:
        """Raise `InputError` for an option that the format needs, or does not know."""
        super().check()
        foreign = ("s3rec", *ROW_FORMATS)
        check_options(
            self,
            {
                "heads": foreign,
                "item_ids": ROW_FORMATS,
                "special_classes": ("s3rec",),
                "keep_zero_rows": ("s3rec",),
                "allow": ("hub",),
                "negatives_file": ("hub",),
            },
        )
        for name in ("corpus", "heads"):
            if self.format in foreign and getattr(self, name) is None:
                raise InputError(
                    f"--{name} is missing, which --format {self.format} needs, as the file does "
                    "not say it; add it"
                )

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Write the run folder; print what became of each key, and the figures."""
        from research.cli.exchange import import_file

        return import_file(self)


@dataclass(frozen=True, kw_only=True)
class ExportCommand(Verb):
    """Write a run's model for other programs, or for other people.

    onnx and torch-export: a program that takes histories and gives scores, or with --k the best
    items. safetensors: the weights. A file of the items is written beside each; all three are
    checked on histories of the corpus before anything is written.

    hub: a folder as the Hugging Face Hub has them, with a model card. Its weights are compared with
    the run's byte by byte; an import ranks the test again.

    s3rec: a plain state dict of S3-Rec's code, of the run's last stage or of RUN/stages/NAME. A
    parameter that the stage lacks is taken from the nearest earlier stage that has it; if none has
    it, zeros are written. The printed table says which.
    """

    LINE = "RUN --format FORMAT --out FILE: write a run's model for others: ONNX, Hub folder, ..."
    run: Positional[str]
    """a run folder; for s3rec also RUN/stages/NAME"""
    format: Literal["onnx", "torch-export", "safetensors", "hub", "s3rec"]
    """what is written"""
    out: Annotated[str, arg(metavar="FILE")]
    """the file to write (hub: the folder); an existing one is not overwritten"""
    k: Annotated[int | None, option("K")] = None
    """of onnx and torch-export: give the K best items, not the scores of all"""
    keep_seen: Flag = False
    """with --k: items of the history may be among the best, which are left out otherwise"""
    license: Annotated[str | None, option("NAME", "unknown")] = None
    """of hub: the weights' licence in the model card, such as mit or cc-by-4.0"""
    push: Annotated[str | None, option("OWNER/NAME")] = None
    """of hub: also upload the folder to this repository of the Hub; one of this run that exists is
    uploaded as it is"""
    private: Flag = False
    """with --push: make the repository private if it is new"""
    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""
    allow: Allowed = ()
    """a package whose classes you trust in the run's config"""
    threads: Annotated[int | None, option("N")] = None
    """CPU threads of torch"""

    def check(self) -> None:
        """Raise `InputError` for an option that the format does not know."""
        super().check()
        programs, hub = ("onnx", "torch-export"), ("hub",)
        options = {"k": programs, "keep_seen": programs, "license": hub, "push": hub}
        check_options(self, {**options, "private": hub})
        for name, needed in (("keep_seen", "k"), ("private", "push")):
            if getattr(self, name) and getattr(self, needed) is None:
                raise InputError(
                    f"--{name.replace('_', '-')} needs --{needed}; add that, or leave it out"
                )

    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Write the file, and print what it holds and how it was checked."""
        from research.cli.exchange import export

        return export(self)

"""The verbs `import` and `export`: models of other programs, and ours for other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rich.table import Table
from torch import Tensor

from research.cli.commands import use_threads
from research.cli.exchange_verbs import ExportCommand, ImportCommand
from research.cli.show import show
from research.console import plain_console
from research.interop.exporting import export_model
from research.interop.foreign import ForeignModel
from research.interop.hub import import_hub, is_of_run
from research.interop.hub_client import check_can_push, local_folder, push
from research.interop.import_export import Account, export_stage, import_run
from research.interop.model_card import check_license
from research.interop.model_files import open_source
from research.interop.program import Answer
from research.interop.row_formats import ROW_FORMATS
from research.interop.row_model import RowModel
from research.interop.s3rec_import import S3RecModel
from research.studies.target import import_from_working_folder


def import_file(arguments: ImportCommand) -> int:
    """Import another program's weights, or a Hub folder, as a run folder; print its figures."""
    use_threads(arguments.machine.threads)
    if arguments.format == "hub":
        return _import_hub(arguments)
    assert arguments.corpus is not None, "the verb has checked it"
    account = import_run(
        Path(arguments.file),
        Path(arguments.out),
        _reader_of(arguments),
        corpus=arguments.corpus,
        data_root=arguments.data_root,
        device=arguments.machine.device,
    )
    print_account(account, f"{arguments.file} -> {arguments.out}", "went to")
    return show(Path(arguments.out))


def _reader_of(
    arguments: ImportCommand,
) -> Callable[[Mapping[str, Tensor], Path], ForeignModel]:
    """What reads a state dict of the format that the arguments name."""
    assert arguments.heads is not None, "the verb has checked it"
    if arguments.format == "s3rec":
        return partial(
            S3RecModel.of,
            heads=arguments.heads,
            special_classes=arguments.special_classes,
            keep_zero_rows=arguments.keep_zero_rows,
        )
    return partial(
        RowModel.of,
        row_format=ROW_FORMATS[arguments.format],
        heads=arguments.heads,
        item_ids=None if arguments.item_ids is None else Path(arguments.item_ids),
    )


def _import_hub(arguments: ImportCommand) -> int:
    if arguments.allow:
        import_from_working_folder()
    with local_folder(arguments.file) as folder:
        lines = import_hub(
            folder,
            Path(arguments.out),
            corpus=arguments.corpus,
            negatives_file=arguments.negatives_file,
            data_root=arguments.data_root,
            allow=arguments.allow,
            device=arguments.machine.device,
        )
    _print_lines(f"{arguments.file} -> {arguments.out}", lines)
    return show(Path(arguments.out))


def export(arguments: ExportCommand) -> int:
    """Export a run's model, and print what was written, where it came from, how it was checked."""
    use_threads(arguments.threads)
    if arguments.allow:
        import_from_working_folder()
    out, heading = Path(arguments.out), f"{arguments.run} -> {arguments.out}"
    if arguments.format == "s3rec":
        account = export_stage(
            arguments.run, out, data_root=arguments.data_root, allow=arguments.allow
        )
        print_account(account, heading, "came from")
        return 0
    check_license(arguments.license)
    if arguments.push is not None:
        check_can_push(arguments.push)
    run = Path(arguments.run)
    source = open_source(run, data_root=arguments.data_root, allow=arguments.allow)
    if arguments.push is not None and is_of_run(out, source):
        # An upload that failed is tried again.
        lines = [f"{out} holds this run already and is uploaded as it is"]
    else:
        answer = Answer(k=arguments.k, keep_seen=arguments.keep_seen)
        lines = export_model(
            source, out, arguments.format, answer=answer, license=arguments.license
        )
    if arguments.push is not None:
        lines.append(f"pushed to {push(out, arguments.push, private=arguments.private)}")
    _print_lines(heading, lines)
    return 0


def _print_lines(heading: str, lines: list[str]) -> None:
    console = plain_console()
    for line in (heading, *lines):
        console.print(line)


def print_account(account: Account, heading: str, column: str) -> None:
    """Print an import's or export's keys as a table, and its remarks below."""
    table = Table("key", "shape", column)
    for row in account.keys:
        table.add_row(row.key, str(row.shape), row.place)
    console = plain_console()
    console.print(heading)
    console.print(table)
    for remark in account.remarks:
        console.print(remark)

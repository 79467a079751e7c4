"""The report as a W&B Report: its specification, which is what W&B's client would send.

Prose becomes plain text blocks, and names in tables become code spans, so that no name is read as
markup. Panels are queries: they show the runs that were mirrored or synced to the report's project,
selected by group (the study) and tag (the corpus), as one line or bar for each cell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import cast

from research.report.formatting import (
    best_of,
    effect_signs_of,
    legend_of,
    margin_words,
    smallest_of,
)
from research.report.markdown import (
    changes_table,
    cost_table,
    effects_table,
    figures_table,
    lists_table,
    runs_table,
)
from research.report.schema import CorpusPart, ProtocolTable, Report
from research.report.wandb_client import reports_module
from research.report.wandb_panels import chosen_by, columns_of, panel_builders
from research.tracking.wandb_fields import MAX_NAME_LENGTH, MAX_TAG_LENGTH

MAX_TITLE_LENGTH = 128
# Of a panel; a panel grid has 24 columns, so two panels fit in a row.
WIDTH, HEIGHT = 12, 8
Block = object


def specification(report: Report) -> dict[str, object]:
    """Title, description and `spec` of the W&B report; equal reports give equal specifications.

    It names no entity and no project; `wandb_client.save` adds them. Raises `InputError` when the
    extra `workspaces` is not installed.
    """
    wr = reports_module()
    written = wr.Report(
        project="unset", entity="unset", title=title_of(report), blocks=blocks_of(report),
        description=f"Study {report.name}, written by sixfold.", width="fluid",
    )  # fmt: skip
    # A private method, but it gives exactly what the client's `save` sends.
    model = written._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    with_filters(spec, [filters_of(report, [corpus]) for corpus in report.corpora])
    return {
        "title": written.title,
        "description": written.description,
        "spec": with_stable_names(spec, report.name),
    }


def title_of(report: Report) -> str:
    """`name: question`, cut to W&B's longest title."""
    title = f"{report.name}: {report.question}"
    return title if len(title) <= MAX_TITLE_LENGTH else f"{title[: MAX_TITLE_LENGTH - 1]}…"


def blocks_of(report: Report) -> list[Block]:
    """The blocks of the whole report, from the question to the commands."""
    wr = reports_module()
    seeds = ", ".join(map(str, report.seeds))
    budget = report.budget or "none; each cell ran as configured"
    head = [
        f"Base cell: {report.base}. Seeds: {seeds}. Compared by {report.part} "
        f"{report.compared.upper()}.",
        f"Equal budget: {budget}.",
    ]
    blocks: list[Block] = [wr.H1("Question"), wr.P(report.question), *map(wr.P, head)]
    blocks += [wr.P(note) for note in report.notes]
    blocks += [wr.TableOfContents(), wr.H1("Cells"), wr.MarkdownBlock(changes_table(report))]
    for corpus in report.corpora:
        blocks += corpus_blocks(report, corpus)
    return [
        *blocks,
        wr.H1("Commands and folders"),
        wr.P("This command runs the study, or continues it; the next one makes this report again:"),
        wr.CodeBlock(code=report.command),
        wr.CodeBlock(
            code=f"python -m research report {report.folder} --part {report.part} --wandb"
        ),
        *(wr.MarkdownBlock(runs_table(report, corpus)) for corpus in report.corpora),
    ]


def corpus_blocks(report: Report, corpus: CorpusPart) -> list[Block]:
    """The blocks of one corpus: notes, tables with their legend, protocol, cost and panels."""
    wr = reports_module()
    blocks: list[Block] = [wr.H1(f"Results on {corpus.name}"), *map(wr.P, corpus.notes)]
    for table in corpus.tables:
        blocks += [
            wr.H2(f"{table.title}, {table.users:,} users"),
            wr.MarkdownBlock(figures_table(report, table)),
            *map(wr.P, sentences_of(report, table)),
        ]
        if table.factorial is not None:
            blocks += [
                wr.H2("Effects of the factors"),
                wr.MarkdownBlock(effects_table(report, table.factorial)),
                *map(wr.P, (*effect_signs_of(report), *table.factorial.notes)),
            ]
    for lists in corpus.lists:
        blocks += [
            wr.H2(f"{lists.title}, {lists.users:,} users"),
            wr.MarkdownBlock(lists_table(lists)),
            *map(wr.P, lists.notes),
        ]
    return [
        *blocks,
        *map(wr.P, legend_of(report)),
        wr.H2("Protocol"),
        *(wr.P(protocol_text(table)) for table in corpus.tables),
        wr.H2("Cost of a run"),
        wr.MarkdownBlock(cost_table(corpus)),
        wr.H2("Runs on W&B"),
        wr.P(
            "Lines are means over seeds, bands and whiskers one standard deviation: judge by the "
            "intervals above. A stage that runs share is drawn for the run that trained it."
        ),
        panel_grid(report, corpus),
    ]


def sentences_of(report: Report, table: ProtocolTable) -> list[str]:
    """The sentences below a table: its best cell, what its tests say, and its notes."""
    sentences = (
        best_of(report, table),
        *margin_words(report, table),
        smallest_of(table, report.compared),
        *table.notes,
    )
    return [sentence for sentence in sentences if sentence]


def panel_grid(report: Report, corpus: CorpusPart) -> Block:
    """The panels of a corpus: learning curves, metrics by cell, and the runs side by side."""
    wr = reports_module()
    panels = [
        build(wr.Layout(x=index % 2 * WIDTH, y=index // 2 * HEIGHT, w=WIDTH, h=HEIGHT))
        for index, build in enumerate(panel_builders(report, [corpus]).values())
    ]
    below = wr.Layout(x=0, y=(len(panels) + 1) // 2 * HEIGHT, w=2 * WIDTH, h=2 * HEIGHT)
    runs = wr.Runset(
        name=corpus.name, groupby=["config.ablation.cell"], pinned_columns=columns_of(report),
        order=[wr.OrderBy(wr.SummaryMetric(chosen_by(report)), ascending=False)],
    )  # fmt: skip
    return wr.PanelGrid(
        runsets=[runs], panels=[*panels, wr.RunComparer(diff_only="split", layout=below)]
    )


def filters_of(report: Report, corpora: Sequence[CorpusPart]) -> dict[str, object]:
    """The filter that selects the project's runs of this study and corpora, in W&B's JSON form."""

    def equal(name: str, op: str, value: object) -> dict[str, object]:
        key = {"section": "run", "name": name}
        return {"key": key, "op": op, "value": value, "disabled": False}

    group = equal("group", "=", report.name[:MAX_NAME_LENGTH])
    tags = [f"dataset:{corpus.name}"[:MAX_TAG_LENGTH] for corpus in corpora]
    tag = equal("tags", "IN", tags)
    return {"filterFormat": "filterV2", "filters": [group, {**tag, "connector": "AND"}]}


def with_filters(spec: Mapping[str, object], filters: Sequence[Mapping[str, object]]) -> None:
    """Set the filters of the panel grids' run sets in place, one filter for each grid in order.

    W&B's client builds filters from an expression in a string, where a study's name could inject
    code of its own.
    """
    blocks = cast(Sequence[Mapping[str, object]], spec["blocks"])
    grids = [block for block in blocks if block["type"] == "panel-grid"]
    for grid, grid_filter in zip(grids, filters, strict=True):
        metadata = cast(Mapping[str, list[dict[str, object]]], grid["metadata"])
        for runs in metadata["runSets"]:
            runs["filters"] = grid_filter


def with_stable_names(spec: object, name: str) -> object:
    """The specification with the client's random ids replaced by ids made from the study's name."""
    stable_ids: dict[str, str] = {}

    def renamed(value: object) -> object:
        if isinstance(value, list):
            return [renamed(entry) for entry in value]
        if not isinstance(value, dict):
            return value
        return {
            key: stable(entry) if is_id(key, entry) else renamed(entry)
            for key, entry in value.items()
        }

    def is_id(key: str, value: object) -> bool:
        return key in ("id", "__id__") and isinstance(value, str) and value != ""

    def stable(value: str) -> str:
        number = f"{name} {len(stable_ids)}".encode()
        return stable_ids.setdefault(value, hashlib.sha256(number).hexdigest()[:11])

    return renamed(spec)


def protocol_text(table: ProtocolTable) -> str:
    """A table's protocol as a sentence: what two figures must share to be compared."""
    fields = (f"{key}: {json.dumps(value)}" for key, value in table.protocol.items())
    return f"{table.title}: {'; '.join(fields)}."

"""The panels and columns that a study's W&B report and its workspace view share.

Panels are queries: they show the runs that were mirrored or synced to the project, as one line or
bar for each cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from research.report.schema import CorpusPart, Report
from research.report.wandb_client import reports_module

Panel = object
# Makes a panel at a place (`wr.Layout`).
Builder = Callable[[object], Panel]


def panel_builders(report: Report, corpora: Iterable[CorpusPart]) -> dict[str, Builder]:
    """By title, what makes the panels: learning curves, then the metrics of the report's part."""
    wr = reports_module()
    cell = wr.Config("ablation.cell")

    def line(title: str, metric: str, axis: str) -> Builder:
        return lambda layout: wr.LinePlot(
            title=title, x=axis, y=[metric], groupby=cell, groupby_aggfunc="mean",
            groupby_rangefunc="stddev", smoothing_factor=0, layout=layout,
        )  # fmt: skip

    def bar(title: str, metric: str, groups: str = "ablation.cell") -> Builder:
        return lambda layout: wr.BarPlot(
            title=title, metrics=[metric], groupby=wr.Config(groups), layout=layout,
            groupby_aggfunc="mean", groupby_rangefunc="stddev",
        )  # fmt: skip

    builders: dict[str, Builder] = {}
    for corpus in corpora:
        for panel in corpus.panels:
            # W&B draws a metric over the axis that the mirror names, and over others on request.
            if panel.axis != "steps":
                continue
            if panel.quantity.startswith("val/"):
                title = f"{panel.quantity} (validation)"
                builders[title] = line(title, panel.quantity, "epoch")
                continue
            # A stage's metrics bear its name.
            for stage in panel.stages:
                name = f"{stage}/{panel.quantity}"
                builders[name] = line(name, name, f"{stage}/step")
        for name in summary_names(report, corpus):
            title = f"{name} ({report.part})"
            builders[title] = bar(title, name)
    compared = f"test/{report.compared}" if report.part == "test" else chosen_by(report)
    for factor in report.factors:
        title = f"{compared} by {factor}"
        builders[title] = bar(title, compared, f"ablation.factors.{factor}")
    return builders


def summary_names(report: Report, corpus: CorpusPart) -> list[str]:
    """The names that the metrics of the report's part have in the summaries of runs on W&B."""
    if report.part == "validation":
        return [f"best/val/{metric}" for metric in report.metrics]
    names = []
    for candidates in dict.fromkeys(table.candidates for table in corpus.tables):
        within = "" if candidates == "full" else f"{candidates}/"
        names += [f"test/{within}{metric}" for metric in report.metrics]
    return names


def chosen_by(report: Report) -> str:
    """The summary metric that runs are ordered by: the compared one, on validation."""
    return f"best/val/{report.compared}"


def columns_of(report: Report) -> list[str]:
    """The columns of runs that are shown beside panels."""
    columns = ["run:displayName", "config:ablation.value.cell", "config:seed.value"]
    columns += [f"config:ablation.value.factors.{factor}" for factor in report.factors]
    columns.append(f"summary:{chosen_by(report)}")
    if report.part == "test":
        columns.append(f"summary:test/{report.compared}")
    return columns

"""A study's saved view of its W&B project: its runs by cell, its curves and its metrics.

It is what W&B's client would send. W&B shows it in the list of the project's saved views.
"""

from __future__ import annotations

import hashlib
import json
from typing import cast

from research.report.schema import Report
from research.report.wandb_client import reports_module, workspaces_module
from research.report.wandb_panels import chosen_by, columns_of, panel_builders
from research.report.wandb_report import filters_of, with_stable_names

MAX_TITLE_LENGTH = 128


def workspace_of(report: Report) -> dict[str, object]:
    """Title, name and `spec` of the view; equal reports give equal views.

    The name is made from the study's, so that the same view is replaced when it is saved again.
    Raises `InputError` when the extra `workspaces` is not installed.
    """
    ws, wr = workspaces_module(), reports_module()
    panels = [build(wr.Layout()) for build in panel_builders(report, report.corpora).values()]
    workspace = ws.Workspace(
        entity="unset", project="unset", name="unset",
        sections=[
            ws.Section(name="Cells", panels=panels, is_open=True),
            ws.Section(name="Runs side by side", panels=[wr.RunComparer(diff_only="split")]),
        ],
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config("dataset.name"), ws.Config("ablation.cell")],
            order=[ws.Ordering(ws.Summary(chosen_by(report)), ascending=False)],
            pinned_columns=columns_of(report),
        ),
    )  # fmt: skip
    # A private method, but it gives exactly what the client's `save` sends.
    model = workspace._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    (runs,) = cast(list[dict[str, object]], spec["section"]["runSets"])
    # Not by the client's own filters, into whose text a study's name could inject code.
    runs["filters"] = filters_of(report, report.corpora)
    digest = hashlib.sha256(f"workspace {report.name}".encode()).hexdigest()[:11]
    return {
        "title": f"Study {report.name}"[:MAX_TITLE_LENGTH],
        "name": f"nw-{digest}-v",
        "spec": with_stable_names(spec, f"workspace {report.name}"),
    }

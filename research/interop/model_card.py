"""The model card of a published run: README.md as the Hugging Face Hub shows it.

Everything in it is read from the run's records and rank tables. The front matter is JSON, which is
YAML too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from research.data.question_counts import questions_line
from research.errors import InputError
from research.evaluation.list_table import ListTable, Table, lists_file
from research.evaluation.rank_table import RankTable
from research.evaluation.statistics import estimate
from research.storage.records import RunRecord, RunSummary
from research.storage.untrusted import file_inside, printable, short_text

UNKNOWN = "unknown"


def model_card(run: Path, record: RunRecord, summary: RunSummary, license_name: str | None) -> str:
    """The text of the card; intervals are left out where the run has no rank tables."""
    outline, data = record.outline, record.dataset
    name = printable(" ".join(run.resolve().parts[-2:]))
    objectives = ", ".join(objective for stage in outline.stages for objective in stage.objectives)
    chosen = license_name or UNKNOWN
    parts = [
        "---",
        json.dumps(_front_matter(name, record, summary, chosen), indent=1, ensure_ascii=False),
        "---",
        "",
        f"# {name}",
        "",
        f"A sequential recommender: from the items of a user's history it scores every item of "
        f"{printable(data.name)}. It was trained with Sixfold, on the objectives {objectives}.",
        "",
        "## Encoder",
        "",
        f"`{short_text(outline.encoder, 1000)}`",
        "",
        "## Data",
        "",
        f"- {printable(data.name)}: {data.users:,} users, {data.items:,} items, "
        f"{data.interactions:,} events, {data.attributes:,} attributes",
        f"- fingerprint `{record.fingerprint}`",
        *_fields("prepared with", data.options),
        "- `items.csv` names the item of each row of the item table.",
        "",
        "## Protocol",
        "",
        # The protocol says how rank tables store ties, the summary how its figures treat them.
        *_fields("", {**summary.protocol, "ties": summary.ties}),
        f"- {summary.users.evaluated:,} users evaluated, {summary.users.not_evaluated:,} not",
        f"- seed {outline.seed}",
        "",
        f"## Metrics on the {'test' if figures_of(summary) else 'validation'} part",
        "",
        *_metric_lines(run, summary),
        "",
        "## Cost",
        "",
        *_cost_lines(record, summary),
        "",
        "## Licence",
        "",
        f"Of the weights: {printable(chosen)}. The data have a licence of their own.",
        "",
        "## How to load",
        "",
        "Prepare the corpus with the options above, by `sixfold prepare`; its fingerprint must be "
        "the one above. Then:",
        "",
        "```sh",
        "sixfold import FOLDER --format hub --corpus CORPUS --out RUN",
        "sixfold recommend RUN --items ID,ID,...",
        "```",
        "",
        "FOLDER is this folder, or hf://OWNER/NAME on the Hub. The weights alone are in "
        "`model.safetensors`, by Sixfold's names.",
        "",
    ]
    return "\n".join(parts)


def _front_matter(
    name: str, record: RunRecord, summary: RunSummary, license_name: str
) -> dict[str, object]:
    results = [
        {
            "task": {"type": "sequential-recommendation"},
            "dataset": {"name": printable(record.dataset.name), "type": record.fingerprint},
            "metrics": [
                {"type": metric, "value": value, "name": f"{metric}, {candidates}"}
                for metric, value in values.items()
            ],
        }
        for candidates, values in figures_of(summary).items()
    ]
    return {
        "library_name": "sixfold",
        "license": license_name,
        "tags": ["recommendation", "sequential-recommendation"],
        "model-index": [{"name": name, "results": results}],
    }


def _fields(prefix: str, fields: Mapping[str, object]) -> list[str]:
    start = f"{prefix} " if prefix else ""
    return [f"- {start}{printable(name)}: {short_text(value)}" for name, value in fields.items()]


def _metric_lines(run: Path, summary: RunSummary) -> list[str]:
    """A table with the 95 % bootstrap interval over users of each figure, and the floor below."""
    lines = ["| candidates | metric | value | 95 % interval over users |", "|---|---|---|---|"]
    part, figures = "test", figures_of(summary)
    if not figures:
        part, figures = "validation", {"full": summary.val}
        lines = [
            "The test part of this run is never ranked (evaluation.test is off, as of a tuning's "
            "trials). Trials are chosen by their validation figures, so these are higher than what "
            "to expect of new data.",
            "",
            *lines,
        ]
    for candidates, values in figures.items():
        table = _table_of(run, candidates, summary, part)
        for metric, value in values.items():
            interval = "not known"
            if table is not None and summary.users.evaluated > 1:
                found = estimate([table], metric, ties=summary.ties)
                interval = f"{found.low:.4f} to {found.high:.4f}"
            lines.append(f"| {printable(candidates)} | {metric} | {value:.4f} | {interval} |")
    for floor in summary.floors:
        figure = floor.test[floor.candidates][floor.metric]
        lines += [
            "",
            f"{floor.name.capitalize()} has {floor.metric} {figure:.4f} under "
            f"{printable(floor.candidates)} candidates; the run is {floor.difference:+.4f} from it "
            f"(95 % interval {floor.low:+.4f} to {floor.high:+.4f}).",
        ]
    if "test" in summary.questions:
        lines.append(f"\nThe test: {questions_line(summary.questions['test'])}.")
    return lines + [f"\n{printable(note)}" for note in summary.notes]


def figures_of(summary: RunSummary) -> dict[str, Mapping[str, float]]:
    """The metrics of the test by candidate set, and those of recommended lists as `lists`."""
    return {**summary.test, **({"lists": summary.lists} if summary.lists else {})}


def _table_of(run: Path, candidates: str, summary: RunSummary, part: str) -> Table | None:
    """The rank table of a candidate set, or the list table; None: the run does not have it."""
    if candidates == "lists":
        path = file_inside(run, lists_file("test", str(summary.protocol.get("seen"))))
        return ListTable.load(path) if path.is_file() else None
    path = file_inside(run, f"ranks/{part}-{candidates}.npz")
    return RankTable.load(path) if path.is_file() else None


def _cost_lines(record: RunRecord, summary: RunSummary) -> list[str]:
    cost = summary.cost
    lines = [
        f"- {cost.parameters:,} parameters",
        f"- {cost.seconds:,.0f} seconds of training and validation",
    ]
    if cost.items is not None:
        lines.append(f"- {cost.items:,} tokens trained on")
    for provenance in record.provenance[-1:]:
        if provenance.machine is not None:
            machine = provenance.machine
            device = machine.accelerator or f"{machine.cpu}, {machine.cores} cores"
            lines.append(f"- on {printable(device)}, {provenance.processes} process(es)")
    versions = ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    return [*lines, f"- versions: {printable(versions)}"]


def check_license(name: str | None) -> None:
    """Raise `InputError` for a licence that is no identifier, as the Hub's are."""
    if name is not None and not all(part.isalnum() for part in name.replace(".", "-").split("-")):
        raise InputError(
            f"--license is {name!r:.60}; allowed: an identifier of the Hub's list of licences, "
            "such as mit, apache-2.0, cc-by-4.0 or other"
        )

"""The tables of recommended lists: which runs, which metrics, and what is said of them.

They have the same intervals and tests as those of ranks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from research.errors import InputError
from research.evaluation.list_metrics import check_given_by
from research.evaluation.list_table import ListTable
from research.evaluation.metrics import of_lists, parse_metric
from research.report.caveats import table_notes
from research.report.columns import metric_column
from research.report.records import StudyRun
from research.report.schema import ListsTable, Part, Row
from research.storage.records import StudyRecord
from research.storage.untrusted import printable

# The cutoff of the metrics that are shown where the study names none, or less if lists are shorter.
CUTOFF = 10
# What each metric says, for a reader who has only the table.
MEANINGS = {
    "coverage": "share of all items that stand in any list",
    "gini": "how unevenly items are recommended, from 0 (all equally often) to near 1 (a few only)",
    "novelty": "self-information of a listed item in bits; higher: fewer users know it",
    "arp": "average recommendation popularity: training interactions of a listed item",
    "lift": "popularity of lists over that of histories, minus 1; above 0: lists are more popular",
    "diversity": "Jaccard distance between the attributes of two items of a list, from 0 to 1",
    "repeat": "share of a list that stands in the user's history",
    "explore": "share of a list that does not stand in the user's history",
}


def list_tables(
    study: StudyRecord, runs: Sequence[StudyRun], corpus: str
) -> tuple[ListsTable, ...]:
    """The tables of the lists that a corpus's runs have stored, one for each protocol."""
    counting = {run.cell for run in runs if run.counts_only}
    groups = list_groups(runs, study.base)
    return tuple(lists_table(study, group, counting, corpus) for group in groups)


def absent_lists_notes(study: StudyRecord, runs: Sequence[StudyRun], part: Part) -> list[str]:
    """A note where runs should have lists of the part and none has: why, and what would store them.

    They should where the study's metrics ask for lists, and where runs have stored those of the
    test.
    """
    asked = of_lists(study.metrics)
    on_test = any(any(run.path.glob("ranks/lists-test-*.npz")) for run in runs)
    if not runs or any(run.lists for run in runs) or not (asked or on_test):
        return []
    names = ", ".join(name.upper() for name in asked) or "Metrics of recommended lists"
    why = ": a run stores those of its test alone" if part == "validation" else ""
    example = asked[0] if asked else "coverage@10"
    return [
        f"{names}: left out, as no run has stored lists of its {part} part{why}. `evaluate RUN "
        f"--part {part} --metrics {example} --save-lists` stores those of a run."
    ]


def list_groups(runs: Sequence[StudyRun], base: str) -> list[dict[str, dict[int, ListTable]]]:
    """The list tables of runs by cell and seed, for each protocol; those with the base first."""
    groups: dict[str, dict[str, dict[int, ListTable]]] = {}
    for run in runs:
        for table in run.lists.values():
            key = json.dumps(dict(table.protocol), sort_keys=True)
            groups.setdefault(key, {}).setdefault(run.cell, {})[run.seed] = table
    return sorted(groups.values(), key=lambda group: base not in group)


def lists_table(
    study: StudyRecord,
    group: Mapping[str, Mapping[int, ListTable]],
    counting: set[str],
    corpus: str,
) -> ListsTable:
    """The table of recommended lists of one protocol: means, and comparisons to the base."""
    cells = [cell for cell in study.cells if cell in group]
    tables = [table for cell in cells for table in group[cell].values()]
    names, notes = shown_metrics(study.metrics, tables)
    # Lists have an order where scores tie, so the policy for ties changes nothing.
    columns = {
        name: metric_column(study, group, {}, counting, name, corpus, ties="expected", margin=None)
        for name in names
    }
    return ListsTable(
        title=lists_title(tables[0].protocol),
        protocol=tables[0].protocol,
        users=len(tables[0]),
        metrics=names,
        rows=tuple(
            Row(
                cell=printable(cell),
                seeds=tuple(group[cell]),
                figures={name: column[cell] for name, column in columns.items()},
            )
            for cell in cells
        ),
        has_base=study.base in group,
        notes=(
            *table_notes(study, group, counting),
            *notes,
            *lists_notes(names, [cell for cell in study.cells if cell not in group]),
        ),
    )


def shown_metrics(
    asked: Sequence[str], tables: Sequence[ListTable]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(metrics, notes): the metrics of lists that all these tables can give, and why not others.

    They are those of the study's metrics, `asked`; where it has none, all that the tables can give,
    at one cutoff, without a note on those that they cannot.
    """
    cutoff = min(CUTOFF, *(table.place.shape[1] for table in tables))
    names = of_lists(asked) or tuple(f"{kind}@{cutoff}" for kind in MEANINGS)
    shown, notes = [], []
    for name in names:
        try:
            for table in tables:
                check_given_by(table, *parse_metric(name))
            shown.append(name)
        except InputError as error:
            notes.append(f"{name.upper()} is left out: {error}.")
    return tuple(shown), tuple(notes if of_lists(asked) else ())


def lists_title(protocol: Mapping[str, object]) -> str:
    """A table's title: part, and what is done with seen items."""
    return printable(
        f"{protocol.get('part')}, recommended lists, seen items {protocol.get('seen')}"
    )


def lists_notes(names: Sequence[str], without: Sequence[str]) -> list[str]:
    """Notes on what the metrics mean, and on absent cells.

    `without` are the cells that have stored no such lists.
    """
    notes = []
    if without:
        notes.append(
            f"No such lists are stored for {', '.join(map(printable, without))}; `evaluate RUN "
            "--metrics coverage@10 --save-lists` stores those of a run."
        )
    kinds = dict.fromkeys(parse_metric(name)[0] for name in names)
    if kinds:
        meanings = "; ".join(f"{kind.upper()}, {MEANINGS[kind]}" for kind in kinds)
        notes.append(f"{meanings}. They do not say what is right, so none of them decides.")
    return notes

"""The sentences of a report: what was ranked, what cannot be compared, which runs are missing.

`build` puts them into the notes of the `Report`, of its corpora and of its tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from research.data.findings import span
from research.data.question_counts import questions_line
from research.evaluation.protocol import differing_fields
from research.evaluation.rank_table import RankTable
from research.evaluation.ties import TiePolicy
from research.report.records import StudyRun
from research.report.schema import Part, Status
from research.storage.evaluation_records import QuestionsRecord
from research.storage.records import StudyRecord
from research.storage.untrusted import printable, short_text

# By cell and seed, the rank tables of one protocol.
Group = Mapping[str, Mapping[int, RankTable]]

TIES: Mapping[TiePolicy, str] = {
    "expected": "ties in expectation",
    "mean": "ties at their mean rank",
}
# Most runs that a sentence names; it counts the others.
MAX_NAMED_RUNS = 6


def study_notes(study: StudyRecord) -> list[str]:
    """Notes on what the study as a whole cannot show: it has one cell, or one seed."""
    notes = []
    if len(study.cells) == 1:
        notes.append("The study has one cell: there is nothing to compare it with.")
    if len(study.seeds) == 1:
        notes.append(
            "The study has one seed: intervals and tests are over users alone and say nothing of "
            "how another seed would come out."
        )
    return notes


def tie_notes(runs: Sequence[StudyRun], ties: TiePolicy) -> list[str]:
    """A note on the runs whose own summaries follow another tie policy than the report, if any."""
    differing_runs = [f"{printable(run.cell)}/{run.seed}" for run in runs if run.ties != ties]
    if not differing_runs:
        return []
    return [
        f"Every figure of the tables is computed anew from ranks, {TIES[ties]}; the summaries and "
        f"learning curves of {_cell_names(differing_runs)} use the other policy (evaluation.ties)."
    ]


def title_of(protocol: Mapping[str, object], ties: TiePolicy) -> str:
    """A table's title: part, candidates, what is done with seen items, and how ties count."""
    candidates, seen = str(protocol.get("candidates")), str(protocol.get("seen"))
    whole_sets = {"full": "full ranking", "cold": "ranked among the held-out items alone (cold)"}
    ranking = whole_sets.get(candidates, f"ranked among {candidates}")
    scored = "at score 0" if seen == "zero" else seen
    return printable(f"{protocol.get('part')}, {ranking}, seen items {scored}, {TIES[ties]}")


def table_notes(
    study: StudyRecord, group: Mapping[str, Mapping[int, object]], counting: set[str]
) -> list[str]:
    """Notes on a table without comparison, on cells of one seed beside others of more, and on cells
    compared on only some of their seeds."""
    base, notes = group.get(study.base), lone_seed_notes(group, counting)
    if base is None:
        text = f"The base, {printable(study.base)}, is not in this table: nothing is compared."
        return [text, *notes]
    if len(group) == 1 and len(study.cells) > 1:
        notes.append(f"Only {printable(study.base)} is in this table: nothing is compared.")
    for cell, tables in group.items():
        if cell == study.base or counting & {cell, study.base}:
            continue
        common = [seed for seed in tables if seed in base]
        if len(common) < max(len(tables), len(base)):
            seeds = ", ".join(map(str, common)) or "none, so there is no comparison"
            alone = "; over users alone, as one seed says nothing of others" * (len(common) == 1)
            notes.append(
                f"{printable(cell)} is compared on the seeds that both have: {seeds}{alone}."
            )
    return notes


def lone_seed_notes(
    group: Mapping[str, Mapping[int, object]], counting: Collection[str]
) -> list[str]:
    """A note on the cells of one seed in a table where another has more, if there are any.

    Counting rankers have no seeds, so that their intervals lack nothing.
    """
    seeds = {cell: len(tables) for cell, tables in group.items() if cell not in counting}
    lone = [printable(cell) for cell, number in seeds.items() if number == 1]
    if not lone or max(seeds.values()) == 1:
        return []
    return [
        f"One seed alone: {', '.join(lone)}. The intervals there are over users alone and say "
        "nothing of how another seed would come out, unlike those of the other cells."
    ]


def protocol_notes(runs: Sequence[StudyRun]) -> list[str]:
    """Notes on each protocol field that differs between runs: its values, and their cells."""
    notes = []
    for name in dict.fromkeys(name for run in runs for name in run.tables):
        protocols = {
            f"{printable(run.cell)}/{run.seed}": run.tables[name].protocol
            for run in runs
            if name in run.tables
        }
        for field, values in differing_fields(protocols).items():
            texts = [f"{short_text(value)} for {_cell_names(on)}" for value, on in values.items()]
            notes.append(
                "Rows that were evaluated differently stand in different tables and are not "
                f"compared (candidates {printable(name)}): {printable(field)} is "
                f"{'; '.join(texts)}."
            )
    return notes


def budget_notes(runs: Sequence[StudyRun]) -> list[str]:
    """A note on the runs whose last stage had its best validation at its end, if there are any."""
    ended: dict[str, list[bool]] = {}
    for run in runs:
        results = [] if run.summary is None else list(run.summary.best.values())
        if results and results[-1].epoch is not None:
            ended.setdefault(run.cell, []).append(results[-1].epoch == results[-1].epochs)
    cells = [
        f"{printable(name)} ({sum(at_end)} of {len(at_end)})"
        for name, at_end in ended.items()
        if any(at_end)
    ]
    if not cells:
        return []
    return [
        f"The best validation of the last stage is the one at its end in runs of {', '.join(cells)}"
        ": with more epochs they may be better, and the comparison another."
    ]


def missed_notes(runs: Sequence[StudyRun]) -> list[str]:
    """A note on held-out items that no cell can hit, as the history has them, if there are any."""
    shares = [run.summary.missed_share for run in runs if run.summary is not None]
    if not any(shares):
        return []
    share = span(shares, "{:.1%}".format)
    return [
        f"{share} of the test's held-out items stand in their users' histories and are excluded as "
        "seen: no cell can hit them (evaluation.seen)."
    ]


def question_notes(runs: Sequence[StudyRun], part: Part) -> list[str]:
    """A note on how many held-out items of a part are asked for in doubt.

    There is one for all cells, or one for each set of cells where their numbers differ, as where
    they train on different users; of a cell's seeds it tells the least and the greatest.
    """
    of_cells: dict[str, list[QuestionsRecord]] = {}
    for run in runs:
        if run.summary is not None and part in run.summary.questions:
            of_cells.setdefault(run.cell, []).append(run.summary.questions[part])
    cells: dict[str, list[str]] = {}
    for cell, records in of_cells.items():
        cells.setdefault(questions_line(*records), []).append(printable(cell))
    if len(cells) == 1:
        return [f"The {part}: {text}." for text in cells]
    return [f"The {part} of {', '.join(names)}: {text}." for text, names in cells.items()]


def floor_notes(runs: Sequence[StudyRun]) -> list[str]:
    """A note on the runs that are not above popularity, one for each kind of it, if there are any.

    A run is above it where the 95 % interval of its own difference is above 0.
    """
    floors: dict[str, dict[str, list[bool]]] = {}
    for run in runs:
        for floor in () if run.summary is None else run.summary.floors:
            above = floors.setdefault(floor.name, {}).setdefault(run.cell, [])
            above.append(floor.low > 0.0)
    notes = []
    for name, of_cells in floors.items():
        cells = [
            f"{printable(cell)} ({above.count(False)} of {len(above)})"
            for cell, above in of_cells.items()
            if not all(above)
        ]
        if cells:
            notes.append(
                f"Runs of {', '.join(cells)} are not above {name} on the test: they have not "
                "learned more from histories than which items are frequent."
            )
    return notes


def _cell_names(runs: Sequence[str]) -> str:
    """The cells in names `cell/seed`, each once, joined by commas."""
    return ", ".join(dict.fromkeys(name.rpartition("/")[0] for name in runs))


def _shortened(names: Sequence[str]) -> str:
    """The names joined by commas; the first ones and the number of the others if they are many."""
    shown = [*names[:MAX_NAMED_RUNS]]
    if len(names) > MAX_NAMED_RUNS:
        shown.append(f"and {len(names) - MAX_NAMED_RUNS} more")
    return ", ".join(shown)


def run_notes(runs: Sequence[StudyRun]) -> list[str]:
    """The notes in the runs' summaries, and a note on runs that failed or have not finished."""
    notes = [
        f"{printable(run.cell)}/{run.seed}: {printable(note)}"
        for run in runs
        if run.summary is not None
        for note in run.summary.notes
    ]
    without_table = [
        f"{printable(run.cell)}/{run.seed}"
        for run in runs
        if run.summary is not None and run.summary.val and run.validation is None
    ]
    if without_table:
        notes.append(
            f"{_shortened(without_table)} lost ranks/validation-full.npz and count as runs without "
            "validation; remove the run's summary.json and call the study's command, which ranks "
            "again."
        )
    words_of_status: dict[Status, str] = {
        "failed": "failed",
        "unfinished": "have not finished",
        "missing": "have not begun",
    }
    for status, words in words_of_status.items():
        runs_of_status = [run for run in runs if run.status == status]
        if runs_of_status:
            names = _shortened([f"{printable(run.cell)}/{run.seed}" for run in runs_of_status])
            notes.append(f"{len(runs_of_status)} of {len(runs)} runs {words}: {names}.")
    return notes

"""Learning curves and gradient cosines, read from the runs' metrics.jsonl and joined over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from research.report.records import StudyRun
from research.report.schema import Cosines, Curve, Panel
from research.storage.run_folder import RunFolder, Scalar
from research.storage.untrusted import printable

Lines = Sequence[Mapping[str, Scalar]]
# Most points of a curve: more cannot be seen, and a page holds many curves.
POINTS = 150


def read_lines(runs: Sequence[StudyRun]) -> dict[tuple[str, int], Lines]:
    """The lines of metrics.jsonl by cell and seed; raises `InputError` for a damaged file."""
    return {(run.cell, run.seed): RunFolder(run.path, writes=False).metrics() for run in runs}


def panels(lines: Mapping[tuple[str, int], Lines], compared: str) -> tuple[Panel, ...]:
    """One panel for the validation metric `compared` of each stage, then one for each loss.

    `lines` has the log lines by cell and seed. The cells' last stages share a validation panel.
    """
    series: dict[tuple[str, str], dict[str, list[dict[float, float]]]] = {}
    for (cell, _), run_lines in lines.items():
        for (stage, quantity), points in _run_series(run_lines, compared).items():
            # Last stages with different names share a panel, as all cells are judged by their last.
            is_last = quantity.startswith("val/") and stage == run_lines[-1]["stage"]
            key = ("" if is_last else stage, quantity)
            series.setdefault(key, {}).setdefault(cell, []).append(points)
    ordered = sorted(series, key=lambda key: not key[1].startswith("val/"))
    all_panels = []
    for stage, quantity in ordered:
        curves = [mean_curve(cell, seeds) for cell, seeds in series[stage, quantity].items()]
        drawable = tuple(curve for curve in curves if curve is not None)
        if drawable:
            all_panels.append(Panel(printable(stage), printable(quantity), drawable))
    return tuple(all_panels)


def mean_curve(cell: str, seeds: Sequence[Mapping[float, float]]) -> Curve | None:
    """The mean, lowest and highest value over seeds; `seeds` has {step: value} of each.

    The curve covers the steps that all seeds have reached, with values between two logged steps
    interpolated. None: the seeds have no step in common.
    """
    first = max(min(points) for points in seeds)
    last = min(max(points) for points in seeds)
    steps = np.unique([step for points in seeds for step in points if first <= step <= last])
    if len(steps) == 0:
        return None
    if len(steps) > POINTS:
        steps = steps[np.unique(np.linspace(0, len(steps) - 1, POINTS).round().astype(np.int64))]
    values = np.stack(
        [
            np.interp(steps, sorted(points), [points[step] for step in sorted(points)])
            for points in seeds
        ]
    )
    return Curve(
        cell=cell,
        steps=tuple(steps.tolist()),
        mean=tuple(values.mean(0).tolist()),
        low=tuple(values.min(0).tolist()),
        high=tuple(values.max(0).tolist()),
        seeds=len(seeds),
    )


def cosines(lines: Mapping[tuple[str, int], Lines]) -> tuple[Cosines, ...]:
    """For each cell and stage, the mean gradient cosine of every pair of objectives.

    The mean is over all measured steps of all seeds. Stages without measurements have no entry.
    """
    measured: dict[tuple[str, str], list[Mapping[str, Scalar]]] = {}
    for (cell, _), run_lines in lines.items():
        for line in run_lines:
            if any(name.startswith(f"{line['stage']}/gradient_norm/") for name in line):
                measured.setdefault((cell, str(line["stage"])), []).append(line)
    return tuple(_cosines(cell, stage, run_lines) for (cell, stage), run_lines in measured.items())


def _cosines(cell: str, stage: str, lines: Lines) -> Cosines:
    prefix = f"{stage}/gradient_norm/"
    names = list(
        dict.fromkeys(
            name.removeprefix(prefix) for line in lines for name in line if name.startswith(prefix)
        )
    )
    matrix: list[list[float | None]] = [
        [1.0 if row == column else None for column in names] for row in names
    ]
    for first, second in combinations(range(len(names)), 2):
        key = f"{stage}/gradient_cosine/{names[first]}+{names[second]}"
        values = [value for line in lines if isinstance(value := line.get(key), (int, float))]
        if values:
            matrix[first][second] = matrix[second][first] = sum(values) / len(values)
    return Cosines(
        cell=cell,
        stage=printable(stage),
        objectives=tuple(map(printable, names)),
        matrix=tuple(map(tuple, matrix)),
        measurements=len(lines),
    )


def _run_series(lines: Lines, compared: str) -> dict[tuple[str, str], dict[float, float]]:
    """{step: value} of one run, by stage and quantity (`loss/...` and `val/COMPARED`).

    A value that is not finite was logged as text, and is left out.
    """
    series: dict[tuple[str, str], dict[float, float]] = {}
    for line in lines:
        stage, step = str(line["stage"]), float(line["step"])
        for name, value in line.items():
            quantity = name.removeprefix(f"{stage}/")
            is_shown = quantity.startswith("loss/") or name == f"val/{compared}"
            if is_shown and isinstance(value, (int, float)):
                series.setdefault((stage, quantity), {})[step] = float(value)
    return series

"""Learning curves and gradient cosines, read from the runs' metrics.jsonl and joined over seeds.

A curve is drawn over optimizer steps, over the tokens trained on and over the seconds of training,
as far as the runs' logs tell these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from research.report.records import StudyRun
from research.report.schema import Axis, Cosines, Curve, Panel
from research.storage.run_folder import RunFolder, Scalar
from research.storage.untrusted import printable

Lines = Sequence[Mapping[str, Scalar]]
# What is drawn, in this order; `val/METRIC` of the compared metric comes first.
QUANTITIES = ("val/", "loss/", "accuracy/", "lr")
AXES: tuple[Axis, ...] = ("steps", "tokens", "seconds")
# Most points of a curve: more cannot be seen, and a page holds many curves.
POINTS = 150


def read_lines(runs: Sequence[StudyRun]) -> dict[tuple[str, int], Lines]:
    """The lines of metrics.jsonl by cell and seed; raises `InputError` for a damaged file."""
    return {(run.cell, run.seed): RunFolder(run.path, writes=False).metrics() for run in runs}


def panels(lines: Mapping[tuple[str, int], Lines], compared: str) -> tuple[Panel, ...]:
    """A panel for each axis, stage and quantity: validation, losses, accuracies, learning rate.

    `lines` has the log lines by cell and seed, `compared` is the validation metric. The last stages
    of the cells share panels whatever their names, as what a cell ends with is compared. A run
    whose log does not tell an axis has no curve over it.
    """
    # By axis, stage (None: the last one) and quantity: the curves' seeds by cell, as {x: value}.
    series: dict[tuple[Axis, str | None, str], dict[str, list[dict[float, float]]]] = {}
    stages: dict[tuple[str | None, str], dict[str, None]] = {}
    for (cell, _), run_lines in lines.items():
        progress = {stage: progress_of(run_lines, stage) for stage in _stages(run_lines)}
        for (stage, quantity), points in _run_series(run_lines, compared).items():
            key = None if stage == run_lines[-1]["stage"] else stage
            stages.setdefault((key, quantity), {})[stage] = None
            for axis, at_step in progress[stage].items():
                values = {at_step[step]: value for step, value in points.items() if step in at_step}
                if values:
                    cells = series.setdefault((axis, key, quantity), {})
                    cells.setdefault(cell, []).append(values)
    ordered = sorted(series, key=lambda key: (AXES.index(key[0]), _kind(key[2])))
    all_panels = []
    for axis, key, quantity in ordered:
        curves = [mean_curve(cell, seeds) for cell, seeds in series[axis, key, quantity].items()]
        drawable = tuple(curve for curve in curves if curve is not None)
        if drawable:
            names = tuple(map(printable, stages[key, quantity]))
            all_panels.append(Panel(names, printable(quantity), drawable, axis))
    return tuple(all_panels)


def progress_of(lines: Lines, stage: str) -> dict[Axis, dict[float, float]]:
    """By axis, where on it each logged step of a stage lies.

    Tokens are logged (STAGE/items). Seconds are those of training alone: each line adds its new
    tokens over its tokens per second. An axis that the log does not tell, as one of an earlier
    version, is left out.
    """
    steps = [float(line["step"]) for line in lines if line["stage"] == stage]
    progress: dict[Axis, dict[float, float]] = {"steps": dict(zip(steps, steps))}
    tokens: dict[float, float] = {}
    seconds: dict[float, float] = {}
    last_tokens = last_seconds = 0.0
    for line in lines:
        items, rate = line.get(f"{stage}/items"), line.get(f"{stage}/items_per_second")
        if not isinstance(items, (int, float)) or not isinstance(rate, (int, float)):
            continue
        last_seconds += max(items - last_tokens, 0.0) / rate if rate > 0.0 else 0.0
        last_tokens = float(items)
        tokens[float(line["step"])] = last_tokens
        seconds[float(line["step"])] = last_seconds
    return {**progress, "tokens": tokens, "seconds": seconds} if tokens else progress


def mean_curve(cell: str, seeds: Sequence[Mapping[float, float]]) -> Curve | None:
    """The mean, lowest and highest value over seeds; `seeds` has {place on axis: value} of each.

    The curve covers what all seeds have reached, with values between two logged points
    interpolated. None: the seeds have no point in common.
    """
    first = max(min(points) for points in seeds)
    last = min(max(points) for points in seeds)
    places = np.unique([place for points in seeds for place in points if first <= place <= last])
    if len(places) == 0:
        return None
    if len(places) > POINTS:
        places = places[np.unique(np.linspace(0, len(places) - 1, POINTS).round().astype(np.int64))]
    values = np.stack(
        [
            np.interp(places, sorted(points), [points[place] for place in sorted(points)])
            for points in seeds
        ]
    )
    return Curve(
        cell=cell,
        progress=tuple(places.tolist()),
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


def _stages(lines: Lines) -> list[str]:
    return list(dict.fromkeys(str(line["stage"]) for line in lines))


def _kind(quantity: str) -> int:
    """The place of a quantity among `QUANTITIES`; their number: it is not drawn."""
    kinds = [place for place, name in enumerate(QUANTITIES) if quantity.startswith(name)]
    return kinds[0] if kinds else len(QUANTITIES)


def _run_series(lines: Lines, compared: str) -> dict[tuple[str, str], dict[float, float]]:
    """{step: value} of one run, by stage and quantity.

    A value that is not finite was logged as text, and is left out.
    """
    series: dict[tuple[str, str], dict[float, float]] = {}
    for line in lines:
        stage, step = str(line["stage"]), float(line["step"])
        for name, value in line.items():
            quantity = name.removeprefix(f"{stage}/")
            is_shown = name == f"val/{compared}" or (
                name != quantity and (quantity == "lr" or _kind(quantity) in (1, 2))
            )
            if is_shown and isinstance(value, (int, float)):
                series.setdefault((stage, quantity), {})[step] = float(value)
    return series

"""Learning curves over steps, tokens and seconds, and panels that stages share."""

from __future__ import annotations

import pytest

from research.report.learning_curves import panels, progress_of
from research.report.schema import Panel

Line = dict[str, float | str]


def line(stage: str, step: int, **values: float) -> Line:
    named = {name.replace("__", "/"): value for name, value in values.items()}
    return {
        "stage": stage,
        "step": step,
        **{f"{stage}/{name}": each for name, each in named.items()},
    }


# 100 tokens at 50 a second, then 300 at 100 a second.
LOG = [
    line("train", 1, loss__next=4.0, items=100, items_per_second=50.0, lr=0.1),
    line("train", 3, loss__next=2.0, items=400, items_per_second=100.0, lr=0.05),
    {"stage": "train", "step": 3, "val/mrr": 0.5},
]


def found(made: tuple[Panel, ...]) -> dict[tuple[str, str, tuple[str, ...]], list[str]]:
    return {
        (panel.axis, panel.quantity, panel.stages): [curve.cell for curve in panel.curves]
        for panel in made
    }


def test_tokens_are_logged_and_seconds_are_tokens_over_speed() -> None:
    assert progress_of(LOG, "train") == {
        "steps": {1.0: 1.0, 3.0: 3.0},
        "tokens": {1.0: 100.0, 3.0: 400.0},
        "seconds": {1.0: 2.0, 3.0: 5.0},
    }
    assert progress_of(LOG, "other") == {"steps": {}}


def test_a_log_without_tokens_has_steps_alone() -> None:
    old = [{name: value for name, value in each.items() if "items" not in name} for each in LOG]
    assert list(progress_of(old, "train")) == ["steps"]
    assert {panel.axis for panel in panels({("a", 0): old}, "mrr")} == {"steps"}


def test_every_quantity_is_drawn_over_every_axis() -> None:
    made = panels({("a", 0): LOG}, "mrr")
    assert [(panel.axis, panel.quantity) for panel in made] == [
        (axis, quantity)
        for axis in ("steps", "tokens", "seconds")
        for quantity in ("val/mrr", "loss/next", "lr")
    ]
    over_tokens = {panel.quantity: panel.curves[0] for panel in made if panel.axis == "tokens"}
    assert over_tokens["loss/next"].progress == (100.0, 400.0)
    assert over_tokens["loss/next"].mean == (4.0, 2.0)
    # A validation stands where the line of losses of its step does.
    assert over_tokens["val/mrr"].progress == (400.0,)


def test_last_stages_of_other_names_share_a_panel_and_earlier_ones_do_not() -> None:
    two_stages = [
        line("pretrain", 1, loss__mip=1.0, lr=0.1),
        line("finetune", 1, loss__next=3.0, lr=0.2, accuracy__next=0.25),
    ]
    made = found(panels({("one", 0): LOG, ("two", 0): two_stages}, "mrr"))
    assert made["steps", "loss/next", ("train", "finetune")] == ["one", "two"]
    assert made["steps", "lr", ("train", "finetune")] == ["one", "two"]
    assert made["steps", "lr", ("pretrain",)] == ["two"]
    assert made["steps", "loss/mip", ("pretrain",)] == ["two"]
    assert made["steps", "accuracy/next", ("finetune",)] == ["two"]
    # Only one of the two says how many tokens it had seen.
    assert made["tokens", "loss/next", ("train", "finetune")] == ["one"]


def test_seeds_of_other_speed_meet_in_seconds() -> None:
    fast = [
        line("train", 1, loss__next=4.0, items=100, items_per_second=100.0),
        line("train", 3, loss__next=2.0, items=400, items_per_second=100.0),
    ]
    slow = [
        line("train", 1, loss__next=4.0, items=100, items_per_second=50.0),
        line("train", 3, loss__next=2.0, items=400, items_per_second=50.0),
    ]
    made = panels({("a", 0): fast, ("a", 1): slow}, "mrr")
    (curve,) = next(panel for panel in made if panel.axis == "seconds").curves
    # The fast one is at 1 and 4 seconds, the slow one at 2 and 8.
    assert curve.progress == (2.0, 4.0)
    assert curve.low == pytest.approx((4.0 - 2 / 3, 2.0))
    assert curve.high == pytest.approx((4.0, 4.0 - 2 / 3))

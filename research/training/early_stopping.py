"""When a stage validates, and what its validations decide: the best state, and early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from research.training.config import StageConfig, ValidationConfig
from research.training.limits import Limits
from research.training.state import StageState


def validates(config: StageConfig, state: StageState) -> bool:
    """Whether a stage validates after the epoch that has just ended."""
    if config.validation is None:
        return False
    return state.finished or state.epoch % config.validation.every_epochs == 0


def after_validation(
    state: StageState, values: Mapping[str, float], config: StageConfig
) -> StageState:
    """Return the state after a validation: with a new best value, or with one more failure.

    `values` holds the metric as `val/METRIC`. A new best exceeds the old one by more than
    `min_delta`. Up to `min_epochs` or `min_steps` a validation without a new best changes nothing.
    Otherwise it counts towards patience, and a stage that is out of patience is finished.
    """
    rule = config.validation
    assert rule is not None, "only a stage with validation is validated"
    value = values[f"val/{rule.metric}"]
    if state.best_value is None or value > state.best_value + rule.min_delta:
        return replace(
            state, best_value=value, best_epoch=state.epoch, best_step=state.step, stale=0
        )
    if is_before_patience(state, rule):
        return state
    state = replace(state, stale=state.stale + 1)
    return replace(state, finished=state.finished or is_out_of_patience(state, rule))


def is_before_patience(state: StageState, rule: ValidationConfig) -> bool:
    """Whether it is too early for the stage's validations to count towards patience."""
    return state.epoch <= rule.min_epochs or state.step <= rule.min_steps


def is_out_of_patience(state: StageState, rule: ValidationConfig) -> bool:
    """Whether the stage has gone without improvement for all the validations and steps it may."""
    steps = state.step - max(state.best_step or 0, rule.min_steps)
    return (
        rule.patience is not None and state.stale >= rule.patience and steps >= rule.patience_steps
    )


def resume_extended(
    state: StageState, config: StageConfig, num_rows: int, extended_after: int | None
) -> StageState:
    """Return the state from which an extended stage continues after step `extended_after`.

    Any other state is returned unchanged. `config` has the later limit, and an epoch has `num_rows`
    rows. Patience starts again if it has run out or would not have begun by now. An epoch that the
    earlier limit cut short is finished first. If another limit is reached already, the stage stays
    finished.
    """
    if not state.finished or state.step != extended_after:
        return state
    final, state = state, replace(state, finished=False, epoch=state.rows // num_rows)
    if Limits.of(config, num_rows).reached(state):
        return final
    rule = config.validation
    if rule is not None and (is_before_patience(state, rule) or is_out_of_patience(state, rule)):
        state = replace(state, stale=0)
    return state

"""fp16's loss scale: kept in checkpoints, restored from them, and checked for a collapse."""

from __future__ import annotations

from dataclasses import replace

from accelerate import Accelerator

from research.training.state import StageState

# A scale below this means that gradients overflow at any scale.
MIN_SCALE = 2.0**-14
# The scale at which torch begins.
INITIAL_SCALE = 2.0**16


def restore_scale(accelerator: Accelerator, state: StageState) -> None:
    """Set fp16's loss scale to the one in `state`, or to `INITIAL_SCALE` if it has none.

    Other precisions have no loss scale, and nothing is done.
    """
    scaler = accelerator.scaler
    if scaler is not None:
        # The scaler may still hold the scale of an earlier stage of this process.
        restored = {"scale": state.scale or INITIAL_SCALE, "_growth_tracker": state.scale_steps}
        scaler.load_state_dict({**scaler.state_dict(), **restored})


def with_scale(state: StageState, accelerator: Accelerator, stage: str) -> StageState:
    """Return the state with the current loss scale; unchanged without fp16.

    `FloatingPointError` when the scale has fallen so low that gradients overflow at any scale.
    """
    if accelerator.scaler is None:
        return state
    stored = accelerator.scaler.state_dict()
    if stored["scale"] < MIN_SCALE:
        raise FloatingPointError(
            f"stage {stage}, step {state.step}: gradients overflow fp16 at any loss scale (now "
            f"{stored['scale']}); lower the learning rate, clip the gradient, or set "
            "compute.precision to bf16"
        )
    return replace(state, scale=stored["scale"], scale_steps=stored["_growth_tracker"])

"""fp16's loss scale, which a checkpoint keeps: where it stands, and that it does not sink away."""

from __future__ import annotations

from dataclasses import replace

from accelerate import Accelerator

from research.training.state import StageState

# A scale below this means that gradients overflow whatever it is.
LEAST_SCALE = 2.0**-14
# Where torch begins.
FIRST_SCALE = 2.0**16


def restore_scale(accelerator: Accelerator, state: StageState) -> None:
    """Go on from a checkpoint's scale, or begin; another precision than fp16 has none."""
    scaler = accelerator.scaler
    if scaler is not None:
        # Another stage of this process may have left its own there.
        given = {"scale": state.scale or FIRST_SCALE, "_growth_tracker": state.scale_steps}
        scaler.load_state_dict({**scaler.state_dict(), **given})


def with_scale(state: StageState, accelerator: Accelerator, stage: str) -> StageState:
    """The state with the scale; `FloatingPointError` where gradients overflow at any."""
    if accelerator.scaler is None:
        return state
    stored = accelerator.scaler.state_dict()
    if stored["scale"] < LEAST_SCALE:
        raise FloatingPointError(
            f"stage {stage}, step {state.step}: gradients overflow fp16 at any loss scale (now "
            f"{stored['scale']}); lower the learning rate, clip the gradient, or set "
            "compute.precision to bf16"
        )
    return replace(state, scale=stored["scale"], scale_steps=stored["_growth_tracker"])

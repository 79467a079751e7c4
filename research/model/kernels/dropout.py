"""Dropout that is cheap on a CPU.

torch's own dropout costs about 11 ns an element on a CPU; cutting 64 random bits into four 16-bit
draws costs under 2. The probability is rounded to a multiple of 1/65536, and the scale uses the
rounded value, so that the expectation is exact. On other devices and in compiled code torch's own
dropout is used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from research.randomness import seed_of

_LEVELS = 1 << 16


def seed_dropout(seed: int, stage: str, step: int, rank: int, micro_batch: int) -> None:
    """Seed torch's global generators, from which all dropout is drawn, for one micro-batch.

    `seed` is the run's. A process draws other masks than the others, and a run that was interrupted
    and continued draws the same as one that was not.
    """
    parts = [micro_batch] if micro_batch else []
    torch.manual_seed(seed_of(seed, stage, "dropout", step, rank, *parts))


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """x with each element set to 0 with `probability` and the others scaled up; same shape.

    It draws from torch's global generator of x's device. Outside training it returns x.
    """
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu" or probability >= 1.0 or torch.compiler.is_compiling():
        return F.dropout(x, probability, training=True)
    return x * keep_scales(x, probability)


def keep_scales(x: Tensor, probability: float) -> Tensor:
    """A tensor of x's shape whose elements are 0 with `probability`, else 1 / (1 - probability).

    It is fp32 if x is in low precision, which would round the scale and so bias the expectation.
    """
    draws, scale = _draw_mask(x.shape, probability)
    return draws.to(torch.promote_types(x.dtype, torch.float32)).mul_(scale)


def fill_keep_mask(mask: Tensor, probability: float) -> float:
    """Fill a contiguous uint8 tensor with 0 (with `probability`) or 1; return the scale of a 1."""
    draws, scale = _draw_mask(mask.shape, probability)
    mask.copy_(draws)
    return scale


def _draw_mask(shape: torch.Size, probability: float) -> tuple[Tensor, float]:
    """An int16 tensor of 0 (with `probability`) and 1, and the scale of a 1, 1 / (1 - probability).

    It never goes through bool, as torch's casts from and to bool cost a CPU five times as much.
    """
    dropped = min(max(1, round(probability * _LEVELS)), _LEVELS - 1)
    words = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64)
    words.random_(-(2**63), None)
    draws = words.view(torch.int16)[: shape.numel()].view(shape)
    # `draws` are uniform over -32768..32767.
    return draws.ge_(dropped - _LEVELS // 2), _LEVELS / (_LEVELS - dropped)

"""Memory that ran out: how it is recognised, and what of a training step to make smaller.

Ranking lowers its own chunks (`research/evaluation/chunks.py`); a training step must not change by
itself, so the loop stops with this advice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

# The share of the memory that a step is fitted into; the rest is left to fragmentation.
FILLED = 0.8
FLOAT = 4
# Scores that a loss holds at once until its backward pass: raw, weighed, scattered, and a gradient.
COPIES = 4


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """What one process computes at once: its share of a step, or of a micro-batch."""

    rows: int
    """Sequences."""
    tokens: int
    """Tokens of clean windows, of all window rules."""
    longest: int
    """Tokens of the longest sequence."""
    width: int
    """Width D of the hidden states."""
    items: int
    """V."""
    parameters: int
    """Numbers that the encoder learns."""
    activations: Mapping[str, int]
    """Bytes that the encoder keeps for the backward pass, by what keeps them."""
    negatives: int = 0
    """Most negatives a token of any objective; 0: none draws any."""
    compared: int = 0
    """Most tokens that each token of a piece is compared with, of the whole step; 0: none are."""
    micro_batches: int = 1
    """Pieces that a process's share of a step is cut into; `rows` and `tokens` are of one."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What is known of the memory."""

    available: int
    """Bytes that the process may use in all."""
    used: int | None = None
    """Peak of bytes in use during the largest step that worked; None: none has."""
    tokens: int | None = None
    """Tokens of that step or micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A group of tensors of a step."""

    name: str
    """For people."""
    bytes: int
    """An estimate."""
    remedies: Sequence[str] = field(default_factory=tuple)
    """What makes it smaller at a price, in words."""


def largest_parts(size: StepSize) -> list[Part]:
    """Estimates of what a step holds until its backward pass, in fp32, largest first.

    The encoder tells its own. Candidates: D floats each where they are few (at most one item in
    512), else 3. Tokens compared with one another: `COPIES` floats a pair. Weights: four times
    (value, gradient, two moments).
    """
    drawn = size.negatives + 1
    shorter = f"encoder.length {max(1, size.longest // 2)} instead of {size.longest}"
    narrower = f"encoder.width {max(1, size.width // 2)} instead of {size.width}"
    parts = [
        Part(name=name, bytes=number, remedies=(shorter, narrower))
        for name, number in size.activations.items()
    ]
    weights = 4 * FLOAT * size.parameters
    parts.append(Part(name="weights and their optimizer", bytes=weights, remedies=(narrower,)))
    if size.negatives:
        gathered = size.items > 512 * drawn
        parts.append(
            Part(
                name="scores of candidates",
                bytes=FLOAT * size.tokens * drawn * (size.width if gathered else 3),
                remedies=(
                    f"loss.number {max(1, size.negatives // 4)} instead of {size.negatives}",
                ),
            )
        )
    if size.compared:
        parts.append(
            Part(
                name="scores of a step's tokens with one another",
                bytes=COPIES * FLOAT * size.tokens * size.compared,
                remedies=("batches.sequences_per_batch at half of what it is",),
            )
        )
    return sorted(parts, key=lambda part: -part.bytes)


def pieces(size: StepSize, peak: Peak | None) -> int | None:
    """micro_batches that would do, a power of two times the present; None: no cut is left.

    Where a smaller step worked, memory is taken to grow with the tokens; else the half is tried.
    """
    if size.rows < 2:
        return None
    factor = 2
    if peak is not None and peak.used and peak.tokens:
        needed = peak.used * size.tokens / peak.tokens / (FILLED * peak.available)
        while factor < min(needed, size.rows):
            factor *= 2
    return size.micro_batches * min(factor, size.rows)


def advice(size: StepSize, error: BaseException, peak: Peak | None = None) -> str:
    """What a training step that ran out of memory was, where its memory goes, and what to lower."""
    said = str(error).strip().split("\n")[0]
    rows = "1 row" if size.rows == 1 else f"{size.rows:,} rows"
    lines = [
        f"a step of {rows}, {size.tokens:,} tokens (the longest row {size.longest:,}) did not fit "
        f"into memory: {said.rstrip('.') or type(error).__name__}"
    ]
    if peak is not None:
        known = f"{gigabytes(peak.available)} are there"
        if peak.used is not None and peak.tokens is not None:
            known += f"; {peak.tokens:,} tokens worked, with {gigabytes(peak.used)}"
        lines.append(known)
    parts = [part for part in largest_parts(size) if part.bytes]
    shown = ", ".join(f"{part.name} {gigabytes(part.bytes)}" for part in parts[:3])
    lines.append(f"the largest tensors, by estimate: {shown}")
    cut = pieces(size, peak)
    if cut is not None:
        lines.append(
            f"batches.micro_batches {cut} instead of {size.micro_batches} keeps the results the "
            "same (as does a further process)"
        )
    remedies = list(dict.fromkeys(each for part in parts[:3] for each in part.remedies))
    if size.rows > 1:
        remedies.insert(0, "a smaller batches.sequences_per_batch or tokens_per_batch")
    lines.append(f"what changes the results: {', '.join(remedies)}")
    return "; ".join(lines)


def gigabytes(number: int) -> str:
    """Bytes for people: 1.5 GB, 12 MB."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{ceil(number / 1e6)} MB"

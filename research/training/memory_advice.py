"""Advice for a training step that ran out of memory: what fills it, and what to make smaller.

Ranking lowers its own chunks (`research/evaluation/chunks.py`). A training step must not change by
itself, so the loop stops with this advice (`research/training/step_memory.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

# Share of the memory that a step may fill; the rest is left to fragmentation.
MEMORY_SHARE = 0.8
FLOAT = 4
# Matrices of scores that a loss over pairs of tokens holds at once until its backward pass: raw,
# weighted, scattered, and a gradient.
COPIES = 4


@dataclass(frozen=True, kw_only=True)
class StepSize:
    """What one process computes at once: its share of a step, or of a micro-batch."""

    rows: int
    """Sequences."""
    tokens: int
    """Tokens of clean windows, over all window rules."""
    longest: int
    """Tokens of the longest sequence."""
    width: int
    """Width D of the hidden states."""
    items: int
    """V: items of the catalogue."""
    parameters: int
    """Numbers that the encoder learns, the item table included."""
    activations: Mapping[str, int]
    """Bytes that the encoder keeps for the backward pass, by name of what is kept."""
    negatives: int = 0
    """Most negatives that any objective scores for a token; 0: none does."""
    compared: int = 0
    """Tokens of the whole step, and items drawn for it, with which each token may be compared; 0:
    tokens are not compared."""
    micro_batches: int = 1
    """Micro-batches that a process's share of a step is cut into; `rows` and `tokens` are of
    one."""
    can_be_cut: bool = True
    """Whether more micro-batches give the same results: not where states of rows are compared."""
    averages: int = 0
    """Copies of the weights that are held for their average."""
    item_dropout: bool = False
    """Whether the item table has dropout, for which it is held thrice more: scales, rows and their
    gradient."""


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What is known of the device's memory."""

    available: int
    """Bytes that the process may use in all."""
    used: int | None = None
    """Bytes in use at the peak, taken as that of the largest step that fitted; None: none has
    fitted."""
    tokens: int | None = None
    """Tokens of that step or micro-batch; None: none has fitted."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A group of tensors of a step, and how large it is."""

    name: str
    """Name for people."""
    bytes: int
    """Estimated size in bytes."""
    remedies: Sequence[str] = field(default_factory=tuple)
    """Changes of the config, in words, that make it smaller and also change the results."""


def largest_parts(size: StepSize) -> list[Part]:
    """Return estimates of what a step in fp32 holds until its backward pass, largest first.

    The encoder estimates its own activations. Scores of candidates take D floats a candidate where
    candidates are few (at most one item in 512), else 3. Tokens compared with one another take
    `COPIES` floats a pair. Weights are held four times (value, gradient, two moments).
    """
    num_candidates = size.negatives + 1
    shorter = f"encoder.length {max(1, size.longest // 2)} instead of {size.longest}"
    narrower = f"encoder.width {max(1, size.width // 2)} instead of {size.width}"
    parts = [
        Part(name=name, bytes=number, remedies=(shorter, narrower))
        for name, number in size.activations.items()
    ]
    weights = 4 * FLOAT * size.parameters
    parts.append(Part(name="weights and their optimizer", bytes=weights, remedies=(narrower,)))
    if size.averages:
        fewer = ("a smaller averaging.last",) if size.averages > 2 else (narrower,)
        averages = size.averages * FLOAT * size.parameters
        parts.append(Part(name="averages of weights", bytes=averages, remedies=fewer))
    if size.item_dropout:
        dropped = 3 * FLOAT * size.items * size.width
        remedies = (narrower, "items.dropout 0")
        parts.append(Part(name="the item table's dropout", bytes=dropped, remedies=remedies))
    if size.negatives:
        gathered = size.items > 512 * num_candidates
        parts.append(
            Part(
                name="scores of candidates",
                bytes=FLOAT * size.tokens * num_candidates * (size.width if gathered else 3),
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


def micro_batches_that_fit(size: StepSize, peak: Peak | None) -> int | None:
    """Return a number of micro-batches that should fit; None: the rows cannot be cut further.

    It is the current number times a power of two, or times the rows where that is less. Where a
    smaller step fitted, memory is taken to grow in proportion to tokens; otherwise the number is
    doubled.
    """
    if size.rows < 2 or not size.can_be_cut:
        return None
    factor = 2
    if peak is not None and peak.used and peak.tokens:
        needed = peak.used * size.tokens / peak.tokens / (MEMORY_SHARE * peak.available)
        while factor < min(needed, size.rows):
            factor *= 2
    return size.micro_batches * min(factor, size.rows)


def advice(size: StepSize, error: BaseException, peak: Peak | None = None) -> str:
    """Return text on a step that ran out of memory: its size, what fills it, what to lower."""
    reason = str(error).strip().split("\n")[0]
    rows = "1 row" if size.rows == 1 else f"{size.rows:,} rows"
    lines = [
        f"a step of {rows}, {size.tokens:,} tokens (the longest row {size.longest:,}) did not fit "
        f"into memory: {reason.rstrip('.') or type(error).__name__}"
    ]
    if peak is not None:
        memory = f"{gigabytes(peak.available)} are available"
        if peak.used is not None and peak.tokens is not None:
            memory += f"; {peak.tokens:,} tokens fitted, with {gigabytes(peak.used)}"
        lines.append(memory)
    parts = [part for part in largest_parts(size) if part.bytes]
    largest = ", ".join(f"{part.name} {gigabytes(part.bytes)}" for part in parts[:3])
    lines.append(f"the largest tensors, by estimate: {largest}")
    micro_batches = micro_batches_that_fit(size, peak)
    if micro_batches is not None:
        lines.append(
            f"batches.micro_batches {micro_batches} instead of {size.micro_batches} does not "
            "change the results (nor does another process)"
        )
    remedies = list(dict.fromkeys(remedy for part in parts[:3] for remedy in part.remedies))
    if size.rows > 1:
        remedies.insert(0, "a smaller batches.sequences_per_batch or tokens_per_batch")
    lines.append(f"these change the results: {', '.join(remedies)}")
    return "; ".join(lines)


def gigabytes(number: int) -> str:
    """Return bytes as text for people: 1.5 GB, 12 MB."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{ceil(number / 1e6)} MB"

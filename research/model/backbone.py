"""Backbones: what turns a packed batch of items into hidden states, under every objective.

A backbone is one file: a config and the module that it builds. Whoever needs to know its geometry
(loading, memory advice, sharding, warm start, import and export) asks here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from research.errors import InputError
from research.model.compute import ComputeConfig
from research.model.item_table import ItemTable
from research.packed import Packed

Direction = Literal["causal", "bidirectional"]
BOTH: tuple[Direction, ...] = ("causal", "bidirectional")
# No size of a config may be larger; a stranger's config cannot ask for endless memory by one field.
LARGEST = 1 << 20


def check_numbers(config: BackboneConfig, sizes: Sequence[str], dropouts: Sequence[str]) -> None:
    """`InputError` for a size of a config that is out of range, or a dropout; None is as good."""
    values = vars(config)
    for name in sizes:
        if values[name] < 1:
            raise InputError(f"encoder.{name} is {values[name]}; it must be at least 1")
        if values[name] > LARGEST:
            raise InputError(f"encoder.{name} is {values[name]}; at most {LARGEST}")
    for name in dropouts:
        if not 0.0 <= (values[name] or 0.0) < 1.0:
            raise InputError(f"encoder.{name} is {values[name]}; it must be in [0, 1)")
    if not config.init_std >= 0:
        raise InputError(f"encoder.init_std is {config.init_std}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(ABC):
    """Abstract: the sizes of a backbone, and what it computes."""

    length: int
    """Longest history that the backbone reads, in items."""
    width: int
    """Width D of the hidden states and of the item embeddings."""
    init_std: float
    """Standard deviation of normal initial weights; biases start at 0."""

    @property
    @abstractmethod
    def directions(self) -> Collection[Direction]:
        """In which directions states may be asked for."""

    @property
    def fields(self) -> Collection[str]:
        """The fields of a `Packed` that the backbone cannot do without; none unless said."""
        return ()

    @property
    def optional_fields(self) -> Collection[str]:
        """Fields of a `Packed` that the backbone reads where tokens have them."""
        return ()

    @property
    def learning_fields(self) -> Collection[str]:
        """Fields of this config that shape how weights are learned, not what they compute then."""
        return ("init_std",)

    @abstractmethod
    def build(self, item_table: ItemTable, seed: int) -> Backbone:
        """The module around an item table, its initial weights a function of the seed alone."""

    @abstractmethod
    def num_parameters(self, num_items: int) -> int:
        """How many numbers the backbone learns, the item table with its mask's row included."""

    @abstractmethod
    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """Estimates, by name, of what a step in fp32 keeps for its backward pass, in bytes.

        Of `rows` sequences of `tokens` tokens in all, the longest of `longest`.
        """

    @property
    def decisive(self) -> Mapping[str, object]:
        """The fields, with their values, that decide what given weights compute."""
        return {
            each.name: vars(self)[each.name]
            for each in fields(self)
            if each.name not in self.learning_fields
        }


class Backbone(nn.Module, ABC):
    """Abstract: `Packed` in, hidden states out. It holds the item table, which heads share."""

    compiles = False
    """Whether parts of it are compiled while it trains."""

    def __init__(self, config: BackboneConfig, item_table: ItemTable) -> None:
        super().__init__()
        self.config = config
        self.item_table = item_table

    @abstractmethod
    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """Hidden states [T, D] of every token, each sequence by itself; with `read_P` [P, D].

        Under `causal` no state knows a newer item.
        """

    @property
    def num_items(self) -> int:
        """V."""
        return self.item_table.num_items

    def parts_to_shard(self) -> Sequence[nn.Module]:
        """Modules that nobody calls from outside `forward`, to split over processes one by one."""
        return ()

    def use(self, compute: ComputeConfig) -> None:
        """Train as `compute` says from now on; `InputError` for what the backbone cannot do."""
        for name, asked in (("compile", compute.compile), ("recompute", compute.recompute)):
            if asked:
                raise InputError(
                    f"compute.{name} is True, which {type(self.config).__name__} cannot do; "
                    "set it to False"
                )


def check_direction(config: BackboneConfig, *, causal: bool, asker: str) -> None:
    """`InputError` where `asker`, a stage's objective, needs a direction that is not there."""
    needed: Direction = "causal" if causal else "bidirectional"
    if needed not in config.directions:
        raise InputError(
            f"{asker} needs {needed} states, but encoder is a {type(config).__name__}, whose are "
            f"{' or '.join(config.directions)} alone; choose another encoder or another objective"
        )


def check_fields(config: BackboneConfig, available: Collection[str], corpus: str) -> None:
    """`InputError` where the backbone reads a field that no token of the corpus has."""
    for name in config.fields:
        if name not in available:
            raise InputError(
                f"encoder is a {type(config).__name__} that reads the {name} of every event, which "
                f"corpus {corpus} does not have; prepare it from a source that does or choose "
                "another encoder"
            )


def count_parameters(make: Callable[[], nn.Module]) -> int:
    """How many numbers the module that `make` builds learns; no memory is asked for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())

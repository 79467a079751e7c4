"""The interface of backbones: encoders that turn a packed batch of items into hidden states.

Objectives compute their losses from these states. A backbone is one file: a config and the module
that it builds. Code that needs to know its geometry (loading, memory advice, sharding, warm start,
import and export) asks through this interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from research.config import check_types
from research.errors import InputError
from research.model.compute import ComputeConfig
from research.model.item_table import ItemTable
from research.packed import Packed

Direction = Literal["causal", "bidirectional"]
BOTH_DIRECTIONS: tuple[Direction, ...] = ("causal", "bidirectional")
# No size in a config may be larger, so that no single field of an untrusted config can ask for
# endless memory.
MAX_SIZE = 1 << 20


def check_numbers(config: BackboneConfig, sizes: Sequence[str], dropouts: Sequence[str]) -> None:
    """Check the fields of a config that are named in `sizes` and `dropouts`, and its `init_std`.

    `InputError` for a size outside 1..`MAX_SIZE`, a dropout outside [0, 1), where None is allowed
    too, or a negative `init_std`.
    """
    values = vars(config)
    for name in sizes:
        if values[name] < 1:
            raise InputError(f"encoder.{name} is {values[name]}; it must be at least 1")
        if values[name] > MAX_SIZE:
            raise InputError(f"encoder.{name} is {values[name]}; at most {MAX_SIZE}")
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

    def __post_init__(self) -> None:
        check_types(self)
        check_numbers(self, ("length", "width"), ())

    @property
    @abstractmethod
    def directions(self) -> Collection[Direction]:
        """The directions in which the backbone can encode."""

    @property
    def choice_of_directions(self) -> tuple[str, str]:
        """What is chosen in the config that decides its directions, and the field to change it."""
        return f"encoder is a {type(self).__name__}", "encoder"

    @property
    def fields(self) -> Collection[str]:
        """The fields of a `Packed` that the backbone needs; by default none."""
        return ()

    @property
    def optional_fields(self) -> Collection[str]:
        """The fields of a `Packed` that the backbone reads if tokens have them; by default none."""
        return ()

    @property
    def learning_fields(self) -> Collection[str]:
        """Fields of this config that affect how weights are learned, but not what they compute."""
        return ("init_std",)

    @abstractmethod
    def build(self, item_table: ItemTable, seed: int) -> Backbone:
        """The module around an item table; its initial weights depend on the seed alone."""

    @abstractmethod
    def num_parameters(self, num_items: int) -> int:
        """The number of learned numbers, including the item table and its row for the mask.

        The model is not built for it, as an untrusted config may ask for a huge one.
        """

    @abstractmethod
    def activation_bytes(self, tokens: int, rows: int, longest: int) -> Mapping[str, int]:
        """Estimates, by name, of the bytes that a step in fp32 keeps for its backward pass.

        The batch has `rows` sequences with `tokens` tokens in all; the longest has `longest`.
        """

    @property
    def decisive(self) -> Mapping[str, object]:
        """The fields that decide what given weights compute, with their values.

        A warm start requires them to be equal.
        """
        return {
            config_field.name: vars(self)[config_field.name]
            for config_field in fields(self)
            if config_field.name not in self.learning_fields
        }


class Backbone(nn.Module, ABC):
    """Abstract: `Packed` in, hidden states out. It holds the item table, which heads share."""

    compiles = False
    """Whether torch.compile compiles parts of it while it trains."""
    traceable = False
    """Whether `forward` reads a `Padded` batch by operations that fit any number and length of
    sequences, so that it can be written as a program (ONNX, torch.export)."""

    def __init__(self, config: BackboneConfig, item_table: ItemTable) -> None:
        super().__init__()
        self.config = config
        self.item_table = item_table

    @abstractmethod
    def forward(self, packed: Packed, *, causal: bool, read_P: Tensor | None = None) -> Tensor:
        """Hidden states [T, D] of all tokens, or [P, D] of the tokens with the indices `read_P`.

        No state depends on another sequence; with `causal`, none depends on a newer token. Where
        there is no token, every parameter still gets a gradient of zeros, as processes wait for
        each other's.
        """

    @property
    def num_items(self) -> int:
        """V, the number of items."""
        return self.item_table.num_items

    def parts_to_shard(self) -> Sequence[nn.Module]:
        """Submodules whose weights may be sharded over processes (FSDP), one unit each.

        Nothing but `forward` may call them. By default there are none.
        """
        return ()

    def use_compute(self, compute: ComputeConfig) -> None:
        """Apply `compute` to all training from now on; `InputError` for what is not supported.

        By default neither compilation nor recomputation is.
        """
        for name, requested in (("compile", compute.compile), ("recompute", compute.recompute)):
            if requested:
                raise InputError(
                    f"compute.{name} is True, which {type(self.config).__name__} cannot do; "
                    "set it to False"
                )


def check_direction(config: BackboneConfig, *, causal: bool, asker: str) -> None:
    """`InputError` if the backbone cannot encode in the direction that `asker` needs.

    `asker` names an objective of a stage in the message.
    """
    needed: Direction = "causal" if causal else "bidirectional"
    if needed not in config.directions:
        choice, field_name = config.choice_of_directions
        raise InputError(
            f"{asker} needs {needed} states, but {choice}, whose are "
            f"{' or '.join(config.directions)} alone; choose another {field_name} or another "
            "objective"
        )


def check_fields(config: BackboneConfig, available: Collection[str], corpus: str) -> None:
    """`InputError` if the backbone needs a field that is not in `available`, the corpus's fields.

    `corpus` names the corpus in the message.
    """
    for name in config.fields:
        if name not in available:
            raise InputError(
                f"encoder is a {type(config).__name__} that reads the {name} of every event, which "
                f"corpus {corpus} does not have; prepare it from a source that does or choose "
                "another encoder"
            )


def count_parameters(make: Callable[[], nn.Module]) -> int:
    """The number of parameters of the module that `make` builds, without allocating them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make().parameters())

"""What a verb of the command line is, and the options that many verbs share.

A verb is a frozen dataclass, whose fields are its arguments; tyro reads them from the words of a
command line, and a field's docstring is its help.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import UseAppendAction, arg

from research.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def option(metavar: str, default: str = "") -> Any:
    """How an option's value is written in `--help`, and what the help says of its default."""
    return arg(metavar=metavar, help_behavior_hint=f"(default: {default})" if default else "")


Flag = Annotated[bool, arg(help_behavior_hint="")]
Allowed = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="PACKAGE")]
# The values of an option that takes one or more and may be repeated. A value that begins with a
# dash is given as --option=VALUE.
Repeated = UseAppendAction[tuple[tuple[str, ...], ...]]
DataRoot = Annotated[str, arg(metavar="FOLDER")]


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """The device and the threads that compute."""

    threads: Annotated[int | None, option("N")] = None
    """CPU threads of torch"""
    device: Annotated[str | None, option("DEVICE", "a GPU if there is one, else the CPU")] = None
    """cpu, cuda or cuda:N"""


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(MachineOptions):
    """How a finished run is read again."""

    data_root: DataRoot = "data"
    """folder of raw files and prepared corpora"""
    allow: Allowed = ()
    """a package whose classes you trust in the run's config"""


Machine = Annotated[MachineOptions, arg(name="")]
Reading = Annotated[ReadingOptions, arg(name="")]


def _check_values(options: DataclassInstance) -> None:
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value) and not isinstance(value, type):
            _check_values(value)
        if (each.default is None and value == ()) or (isinstance(value, tuple) and () in value):
            name = each.name.replace("_", "-")
            raise InputError(f"--{name} has no value; give one or more, or leave --{name} out")


@dataclass(frozen=True, kw_only=True)
class Verb(ABC):
    """What one command does."""

    LINE: ClassVar[str]
    """The verb's line in the list that `sixfold --help` prints: its arguments and its purpose."""

    def check(self) -> None:
        """Raise `InputError` for an option that takes one value or more and was given none."""
        _check_values(self)

    @abstractmethod
    def execute(self, words: Sequence[str], overrides: Sequence[str]) -> int:
        """Do the work, and return the exit code.

        `words` are the words after the verb, `overrides` those of them that are no arguments of
        the verb itself; there are none unless it is an `OverridingVerb`.
        """


class OverridingVerb(Verb):
    """A verb whose command line also changes the fields of a config, by their dotted names."""

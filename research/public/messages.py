"""Words what is wrong for Python: by the arguments of its functions.

Preparation names the options of the command line, which somebody in a notebook does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

from research.annotations import has_type, type_name
from research.data.preparation.options import PrepareConfig
from research.errors import InputError

# The arguments of `sf.prepare`, by the names of options.
ARGUMENTS = {
    "user_column": "user",
    "item_column": "item",
    "timestamp_column": "time",
    "rating_column": "rating",
    "title_column": "title",
    "attribute_columns": "attributes",
    "raw": "data",
    **{name: name for name in ("min_rating", "user_core", "item_core", "duplicates", "out")},
}
_OPTION = re.compile(
    r"(?<![\w./-])--(?P<name>[a-z]+(?:-[a-z]+)*)"
    r"(?: (?P<value>True|False|None|drop|exact|first|ms|us|ns|s|'[^']*')(?![\w]))?"
)


def check_argument(name: str, value: object, hint: object) -> None:
    """`InputError` unless the value of the argument `name` has the type that `hint` annotates."""
    if not has_type(value, hint):
        raise InputError(f"{name} is {value!r:.60}; allowed: {type_name(hint)}")


@contextmanager
def named_by_arguments() -> Iterator[None]:
    """Put arguments in place of options into the message of an `InputError` from within."""
    try:
        yield
    except InputError as error:
        error.args = (_in_python(str(error)),)
        raise


def _in_python(message: str) -> str:
    # No times are None on the command line, where False would be the name of a column.
    message = message.replace("--timestamp-column (None:", "--timestamp-column (False:")
    return _OPTION.sub(_argument, message)


def _argument(option: re.Match[str]) -> str:
    name, value = option["name"].replace("-", "_"), option["value"]
    if value is not None and value[0].islower():
        value = f'"{value}"'
    if name in ARGUMENTS:
        value = "False" if (name, value) == ("timestamp_column", "None") else value
        return f"{ARGUMENTS[name]}={value or ''}"
    if name in {field.name for field in fields(PrepareConfig)}:
        return f'options={{"{name}": {value or "..."}}}'
    return option[0]

"""Columns of values from JSON: checks that a field has values of one type, and makes them Arrow's.

The slow pass of `json_lines.py` fills one column for each field that is wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

if TYPE_CHECKING:
    import pyarrow as pa

FieldKind = Literal["id", "time", "number", "events", "any"]


@final
class Number(str):
    """A number with a point or an exponent, as it is written."""

    __slots__ = ()


_FAMILIES: dict[type, str] = {
    str: "text",
    int: "a number",
    Number: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_ALLOWED: dict[FieldKind, tuple[type, ...]] = {
    "id": (str, int),
    "time": (str, int, Number),
    "number": (str, int, Number),
    "events": (str, int, Number, list),
    "any": (str, int, Number, bool, list),
}
_EXPECTED: dict[FieldKind, str] = {
    "id": "text or a whole number",
    "time": "text or a number",
    "number": "a number",
    "events": "text, a number, or a list of these, with a value for each event of a user",
    "any": "text, a number, a boolean, or a list of these; a field in an object has a dotted name",
}


@final
class WrongValue(ValueError):
    """A value that does not fit; `row` is its position among the values that were added."""

    def __init__(self, row: int, fault: str) -> None:
        super().__init__(fault)
        self.row = row


@final
class JsonColumn:
    """The values of one field, added chunk by chunk."""

    def __init__(self, kind: FieldKind) -> None:
        self._kind = kind
        self._family: str | None = None
        self._chunks: list[pa.Array] = []

    def add(self, values: list[object]) -> None:
        """Add values in the order of the lines; raises `WrongValue` for the first that is wrong."""
        present = set(map(type, values)) - {type(None)}
        families = {_FAMILIES[kind] for kind in present} | {self._family or ""} - {""}
        if len(families) > 1 or not present <= set(_ALLOWED[self._kind]):
            self._raise_wrong(values)
        if families:
            self._family = families.pop()
        self._chunks.append(_to_arrow(values, self._family, complete=self._kind == "events"))

    def cells(self) -> pa.ChunkedArray:
        """All values: integers, text, or lists of text; of type null if there was none."""
        import pyarrow as pa

        types = {chunk.type for chunk in self._chunks} - {pa.null()}
        if not types:
            return pa.chunked_array(self._chunks, type=pa.null())
        kind = types.pop() if len(types) == 1 else pa.string()
        return pa.chunked_array([chunk.cast(kind) for chunk in self._chunks], type=kind)

    def _raise_wrong(self, values: list[object]) -> None:
        family = self._family
        for row, value in enumerate(values):
            if value is None:
                continue
            if type(value) not in _ALLOWED[self._kind]:
                shown = value if type(value) in (Number, str) else repr(value)
                raise WrongValue(row, f"{shown!s:.60}; expected {_EXPECTED[self._kind]}")
            found = _FAMILIES[type(value)]
            if family is not None and found != family:
                raise WrongValue(
                    row, f"{value!r:.60} is {found}, but the lines before have {family} there"
                )
            family = found


def _to_arrow(values: list[object], family: str | None, *, complete: bool) -> pa.Array:
    import pyarrow as pa

    if family is None:
        return pa.nulls(len(values))
    if family == "a list":
        lists = [_flat(row, value, complete=complete) for row, value in enumerate(values)]
        return _text(lists, pa.list_(pa.string()))
    if family == "text":
        return _text(values, pa.string())
    if family == "a number" and not any(type(value) is Number for value in values):
        try:
            return pa.array(values, pa.int64())
        except OverflowError:
            pass
    return pa.array([None if value is None else _written(value) for value in values], pa.string())


def _written(value: object) -> str:
    """A scalar as JSON has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flat(row: int, value: object, *, complete: bool) -> list[str] | None:
    """The scalars of a list, and of lists in it, as text; nulls are left out.

    Raises `WrongValue` for an object, and where the list must be `complete` for null and a list.
    """
    if value is None:
        return None
    assert isinstance(value, list)
    if complete and any(entry is None or isinstance(entry, list) for entry in value):
        raise WrongValue(row, f"a list with null or a list, {value!r:.60}; expected a value each")
    entries: list[str] = []
    waiting = list(reversed(value))
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting.extend(reversed(entry))
        elif isinstance(entry, dict):
            raise WrongValue(row, f"a list with an object, {entry!r:.60}; expected text or numbers")
        elif entry is not None:
            entries.append(_written(entry))
    return entries


def _text(values: list[object] | list[list[str] | None], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        for row, value in enumerate(values):
            entries = value if isinstance(value, list) else [value]
            if any(str(entry) != str(entry).encode(errors="ignore").decode() for entry in entries):
                raise WrongValue(
                    row, f"{value!r:.60} has half of a surrogate pair; text must be valid Unicode"
                ) from None
        raise

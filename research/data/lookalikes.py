"""Raw ids that look like one id written in two ways: they differ only in form.

A file that was read twice, once as text and once as numbers, has item 7 as "7", "7.0" and "007".
The audit of a corpus looks for such ids, and preparation may before it writes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from research.data.names import Names

if TYPE_CHECKING:
    import pyarrow as pa

# A whole number that was read as a decimal one: its decimals are zeros.
_DECIMALS = r"^([+-]?[0-9]+)\.0+$"
# Zeros at the beginning, but not the only digit of 0 itself.
_LEADING_ZEROS = r"^0+([^.].*)$"
_BLANKS = r"\s+"


def lookalike_ids(names: Names | Sequence[str]) -> list[NDArray[np.int64]]:
    """Groups of names that are equal but for case, blanks, leading zeros and a trailing ".0".

    Blanks are those at either end, and how many stand between two words. Each group has the
    positions of its names, ascending, at least two; groups are in the order of their first name.
    The time is linear in the length of all names together.
    """
    import pyarrow.compute as pc

    forms = pc.utf8_lower(pc.utf8_trim_whitespace(_text_of(names)))
    for pattern, replacement in ((_BLANKS, " "), (_DECIMALS, r"\1"), (_LEADING_ZEROS, r"\1")):
        forms = pc.replace_substring_regex(forms, pattern=pattern, replacement=replacement)
    # Forms are numbered by their first occurrence.
    codes = forms.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    alike = np.flatnonzero(np.bincount(codes)[codes] > 1) if len(codes) else codes
    alike = alike[np.argsort(codes[alike], kind="stable")]
    starts = np.flatnonzero(np.diff(codes[alike])) + 1
    return np.split(alike, starts) if len(alike) else []


def words_on_lookalikes(
    kind: str, names: Names | Sequence[str], groups: Sequence[NDArray[np.int64]], examples: int
) -> str:
    """The beginning of a sentence that counts the names in `groups`, not none, and shows some.

    `kind` is "users" or "items"; `examples` is how many groups are shown.
    """
    shown = [
        " and ".join(repr(names[position]) for position in group[:2].tolist())
        for group in groups[:examples]
    ]
    count = sum(len(group) for group in groups)
    return (
        f"{count:,} of {len(names):,} ids of {kind} differ from another one only by case, blanks, "
        f"leading zeros or a trailing .0 ({', '.join(shown)})"
    )


def _text_of(names: Names | Sequence[str]) -> pa.LargeStringArray:
    import pyarrow as pa

    if not isinstance(names, Names):
        return pa.array(names, type=pa.large_string())
    offsets, blob = np.ascontiguousarray(names.offsets), np.ascontiguousarray(names.blob)
    return pa.LargeStringArray.from_buffers(len(names), pa.py_buffer(offsets), pa.py_buffer(blob))

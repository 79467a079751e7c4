"""The protocol guard: which figures may be compared in one table.

A rank table carries its protocol: corpus and fingerprint, filters, split and part, candidates, the
policies for seen items and ties, and how much of the history rankers are given. Figures of two
protocols answer two different questions (sampled and full ranking, other negatives, another tie
policy, the validation item in the history or not): reports and `statistics.py` refuse to mix them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from research.errors import InputError
from research.evaluation.list_table import Table
from research.evaluation.rank_table import RankTable


def differing_fields(
    protocols: Mapping[str, Mapping[str, object]],
) -> dict[str, dict[str, list[str]]]:
    """The fields in which protocols differ: {field: {value as text: [names with that value]}}.

    `protocols` maps the name of a cell or a run to its protocol. The corpus's name is left out, as
    the fingerprint tells whether it is the same. Fields are in alphabetical order, values and names
    in the order of `protocols`; a missing field counts as None.
    """
    differences: dict[str, dict[str, list[str]]] = {}
    fields = {field for protocol in protocols.values() for field in protocol}
    for field in sorted(fields - {"corpus"}):
        values: dict[str, list[str]] = {}
        for name, protocol in protocols.items():
            values.setdefault(_text(protocol.get(field)), []).append(name)
        if len(values) > 1:
            differences[field] = values
    return differences


def check_comparable(table_a: Table, table_b: Table) -> None:
    """Raise `InputError` unless protocols, users and held-out items of two tables are the same.

    What is compared otherwise means nothing (docs/pitfalls.md, "metric without its protocol").
    The order of rows does not matter. A table that has a question (user, held-out item) twice after
    the same history is refused as well.
    """
    fields = differing_fields({"first": table_a.protocol, "second": table_b.protocol})
    if fields:
        differences = "; ".join(
            f"{field} is {' and '.join(values)}" for field, values in fields.items()
        )
        raise InputError(
            f"the rank tables differ in protocol: {differences}; compare runs with the same "
            "evaluation settings"
        )
    questions_a, questions_b = _questions(table_a), _questions(table_b)
    if np.array_equal(questions_a, questions_b):
        return
    only_a = np.setdiff1d(table_a.user, table_b.user)
    only_b = np.setdiff1d(table_b.user, table_a.user)
    if len(only_a) or len(only_b):
        raise InputError(
            f"the rank tables differ in users: {len(only_a)} are only in the first and "
            f"{len(only_b)} only in the second (dense id {np.r_[only_a, only_b][0]}, for example)"
        )
    raise InputError("the rank tables differ in the held-out items of some users")


def _text(value: object) -> str:
    """A text of a JSON value, the same whether the value comes from memory or from a file."""
    return repr(json.loads(json.dumps(value, sort_keys=True)))


def _questions(table: Table) -> NDArray[np.int64]:
    """A table's questions as user * 2^32 + item, int64 [Q] ascending.

    Of a list table they are the users, without an item. `InputError` for a question that is asked
    twice after the same history.
    """
    lengths = np.zeros(len(table), dtype=np.int32)
    questions = table.user.astype(np.int64) << 32
    if isinstance(table, RankTable):
        questions, lengths = questions + table.item, table.history_length
    order = np.lexsort((lengths, questions))
    questions, lengths = questions[order], lengths[order]
    is_repeat = (questions[1:] == questions[:-1]) & (lengths[1:] == lengths[:-1])
    repeated = questions[1:][is_repeat]
    if len(repeated):
        user, item = divmod(int(repeated[0]), 1 << 32)
        raise InputError(
            f"a rank table has {len(repeated)} questions more than once (dense ids: item {item} "
            f"of user {user}, for example), and a user counts once; evaluate the run again"
        )
    return questions

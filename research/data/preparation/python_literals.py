"""Turns a line that Python wrote with `repr` into JSON; the reader of JSON lines uses it.

Steam's reviews and the metadata of Amazon 2014 are dictionaries as Python prints them, such as
`{u'username': u'al', 'early_access': False}`. Nothing is evaluated: quotes, escapes and words are
replaced, and numbers are copied as they are written.
"""

from __future__ import annotations

import functools
import re

# Strings come first, so that nothing within one is taken for a word.
_TOKEN = re.compile(
    r"[uU]?'(?P<single>(?:[^'\\]|\\.)*)'"
    r'|[uU]?"(?P<double>(?:[^"\\]|\\.)*)"'
    r"|(?P<word>[A-Za-z_]+)"
)
_WORD = re.compile("[A-Za-z_]+")
_ESCAPE = re.compile(r'"|\\(?:x[0-9a-fA-F]{2}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)')
# The letter of an exponent stays; Python 2 ends large integers with an L.
_WORDS = {"True": "true", "False": "false", "None": "null", "nan": "NaN"}
_WORDS |= {"e": "e", "E": "E", "L": ""}
_SAME_IN_JSON = frozenset('bfnrtu\\"')


def json_of_literal(line: str) -> str:
    """The JSON of a line with a Python dictionary of text, numbers, True, False, None and lists.

    Raises `ValueError` for other words and escapes. Anything else that is no such dictionary
    becomes text that is no JSON.
    """
    if '"' in line or "\\" in line:
        return _TOKEN.sub(_json_of_token, line)
    # Here quotes stand only around strings.
    parts = line.split("'")
    parts[::2] = map(_json_of_outside, parts[::2])
    return '"'.join(parts)


@functools.lru_cache(maxsize=4096)
def _json_of_outside(text: str) -> str:
    """The JSON of what stands between two strings."""
    if text[-1:] in ("u", "U"):
        text = text[:-1]
    return _WORD.sub(lambda match: _json_of_word(match[0]), text)


def _json_of_word(word: str) -> str:
    if word not in _WORDS:
        raise ValueError(f"{word!r:.60} is no value; expected text, a number, True, False or None")
    return _WORDS[word]


def _json_of_token(match: re.Match[str]) -> str:
    word, content = match["word"], match["single"]
    if word is not None:
        return _json_of_word(word)
    if content is None:
        content = match["double"]
    if "\\" in content or '"' in content:
        content = _ESCAPE.sub(_json_of_escape, content)
    return f'"{content}"'


def _json_of_escape(match: re.Match[str]) -> str:
    escape = match[0]
    if escape == '"':
        return '\\"'
    kind = escape[1]
    if kind in _SAME_IN_JSON:
        return escape
    if kind == "'":
        return kind
    if len(escape) > 2 or kind.isdigit():
        code = int(escape[1:], 8) if kind.isdigit() else int(escape[2:], 16)
        if code > 0x10FFFF:
            raise ValueError(f"{escape} is no character")
        return f"\\u{code:04x}" if code < 0x10000 else chr(code)
    if kind in "av":
        return "\\u0007" if kind == "a" else "\\u000b"
    raise ValueError(f"{escape} is no escape of Python")

"""Untrusted input: JSON within limits, paths that stay inside their folder, text safe to show.

Run, study and corpus folders are copied between people, so whatever is read from them goes through
these functions. A symbolic link inside a folder may point to another file of the folder and nowhere
else; the folder itself may be a link. Also here: keys and the home folder's name are removed from
what is written.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from research.errors import InputError

# Limits on nesting, digits of a whole number, and bytes of a file. Files that this code writes are
# far within them.
MAX_DEPTH = 100
MAX_DIGITS = 20
MAX_BYTES = 1 << 24
# Most bytes in the name of a file.
MAX_NAME_BYTES = 255
_SECRET_NAMES = re.compile(
    r"(?:^|[^a-z])(?:(?:api)?keys?|token|secrets?|passwords?|passwd|passphrase|credentials?)(?![a-z])",
    re.IGNORECASE,
)
# Keys of well-known services, by their prefixes; and long words of hexadecimal digits, or of digits
# and letters of both cases.
_KEY_PATTERN = re.compile(
    r"\b(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-|xox[abps]-|AKIA|ASIA|AIza|eyJ|wandb_v1_)[\w.-]{16,}"
    r"|\b[0-9a-fA-F]{32,}\b"
    r"|\b(?=\w*[0-9])(?=\w*[a-z])(?=\w*[A-Z])[0-9a-zA-Z]{32,}\b"
)
_URL_USER_PATTERN = re.compile(r"://[^/@\s]+@")


def parse_json(text: str, *, names_may_repeat: bool = True) -> object:
    """Parse JSON; `ValueError` for text that is not JSON or exceeds the limits.

    The value is nested at most 100 levels deep, whole numbers have at most 20 characters, and no
    number is NaN or infinite, so that code which walks through it needs no checks of its own. Of a
    name that an object has twice, the last value counts, or it is a `ValueError` too.
    """
    try:
        value: object = json.loads(
            text,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
            object_pairs_hook=None if names_may_repeat else _object_of_distinct_names,
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return value


def read_bytes(path: Path) -> bytes:
    """The content of a file; `InputError` when it is missing, no file, or larger than 16 MiB."""
    if not path.is_file():
        problem = "is no file" if path.exists() or path.is_symlink() else "does not exist"
        raise InputError(f"{path} {problem}; is {path.parent} a folder of Sixfold's?")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES:,} bytes, which none of our files has")
    return content


def file_inside(folder: Path, name: str) -> Path:
    """The path `folder/name`; `InputError` when `name` or a link in it leads out of the folder."""
    path = folder / name
    real_folder = os.path.realpath(folder)
    if os.path.commonpath([real_folder, os.path.realpath(path)]) != real_folder:
        raise InputError(
            f"{path} is a link that leads out of {folder}; copy the file to its place, or remove it"
        )
    return path


def is_file_name(name: str) -> bool:
    """Whether `name` can name a file or folder: no separator, no `.` or `..`, at most 255 bytes."""
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        return False
    try:
        return len(name.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def printable(text: str) -> str:
    """Text without characters that are unsafe to show; it is not escaped for HTML or LaTeX.

    Control characters, unpaired surrogates and marks that change the direction of writing become
    U+FFFD: a terminal would obey them, and unpaired surrogates cannot be written to a file.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join("\ufffd" if _is_unsafe(character) else character for character in text)


def short_text(value: object, length: int = 160) -> str:
    """A JSON value of a config as text for a message, at most `length` characters, cut with "…".

    A config is shown as CLASS(field=value, ...), without the name of its module.
    """
    text = printable(_text_of(value))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _text_of(value: object) -> str:
    if isinstance(value, Mapping):
        kind = str(value.get("class", "")).rpartition(":")[2]
        fields = ", ".join(
            f"{name}={_text_of(part)}" for name, part in value.items() if name != "class"
        )
        return f"{kind}({fields})" if kind else f"{{{fields}}}" if fields else "none"
    if isinstance(value, list):
        return f"[{', '.join(_text_of(part) for part in value)}]"
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def without_home(value: object) -> object:
    """A JSON value in which the home folder is replaced by `~`, in every path, names of fields too.

    Files that are written are passed on to others, and the home folder's name is private;
    `os.path.expanduser` restores it.
    """
    home = os.path.expanduser("~").rstrip("/")
    if not home.startswith("/"):
        return value
    homes = "|".join(map(re.escape, dict.fromkeys((home, os.path.realpath(home)))))
    pattern = re.compile(rf"(?<![\w./~-])(?:{homes})(?=/|[^\w.-]|\Z)")

    def replace_home(part: object) -> object:
        if isinstance(part, str):
            return pattern.sub("~", part)
        if isinstance(part, Mapping):
            return {replace_home(name): replace_home(entry) for name, entry in part.items()}
        return [replace_home(entry) for entry in part] if isinstance(part, (list, tuple)) else part

    return replace_home(value)


def without_keys(words: Sequence[str]) -> str:
    """The command line of `words`, with `***` in place of whatever looks like a key or a password.

    These are the values of options and fields with such names, the values of environment variables
    with such names, text that has the form of a key, and the user and password in a URL.
    """
    secrets = [value for name, value in os.environ.items() if _is_secret(name) and len(value) > 5]
    safe_words, hide = [], False
    for word in words:
        name, _, value = word.partition("=")
        hide_next = not value and word.startswith("-") and _is_secret(word)
        if hide and not word.startswith("-"):
            word = "***"
        elif value and _is_secret(name):
            word = f"{name}=***"
        for secret in secrets:
            word = word.replace(secret, "***")
        safe_words.append(_KEY_PATTERN.sub("***", _URL_USER_PATTERN.sub("://***@", word)))
        hide = hide_next
    return shlex.join(safe_words).replace("'***'", "***")


def _is_secret(name: str) -> bool:
    """Whether something of this name is a secret: API_KEY, --token, a.password; but not tokens."""
    return _SECRET_NAMES.search(name) is not None


def _is_unsafe(character: str) -> bool:
    changes_direction = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return (
        changes_direction
        or unicodedata.category(character) in ("Cc", "Cs")
        or character in "\u2028\u2029"
    )


def _parse_int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number has {len(digits)} digits")
    return int(digits)


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is too large for a number")
    return number


def _object_of_distinct_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries: dict[str, object] = {}
    for name, value in pairs:
        if name in entries:
            raise ValueError(f"the name {name!r:.60} occurs twice in one object")
        entries[name] = value
    return entries


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _depth_exceeds(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        inner: list[object] = []
        for entry in level:
            if isinstance(entry, dict):
                inner.extend(entry.values())
            elif isinstance(entry, list):
                inner.extend(entry)
        level = inner
    return bool(level)

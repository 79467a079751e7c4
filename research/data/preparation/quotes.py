"""Quotes in delimited text: a check beside the parser, and a slow parser that says what is right.

A field is quoted if a double quote is its first character. It ends with the next quote that is not
doubled, after which the field must end too; within it, two quotes are one. A quote elsewhere stands
for itself. Parsers read other text as well, each in its own way, and often take a stray quote for
the beginning of a field of many lines, so that lines are lost; here such text is refused.
"""

from __future__ import annotations

import codecs
from typing import BinaryIO, final

import numpy as np
from numpy.typing import NDArray

_QUOTE, _NEWLINE, _RETURN = ord('"'), ord("\n"), ord("\r")
_LONGEST_LINE = 1 << 26


@final
class QuoteFault(Exception):
    """A quote that breaks the rules; the message begins with the number of its line."""


@final
class UnclosedQuote(Exception):
    """A quoted field does not end on its line."""


def split_fields(line: str, delimiter: str, *, quoted: bool) -> list[str]:
    """The fields of a line without its line end.

    Raises `QuoteFault` (whose message here has no line number) where text follows a closing quote,
    and `UnclosedQuote` where a quoted field does not end.
    """
    if not quoted or '"' not in line:
        return line.split(delimiter)
    fields = []
    start = 0
    while True:
        if line[start : start + 1] != '"':
            field, found, _ = line[start:].partition(delimiter)
            fields.append(field)
            stop = start + len(field)
        else:
            stop = start + 1
            while (stop := line.find('"', stop)) >= 0 and line[stop + 1 : stop + 2] == '"':
                stop += 2
            if stop < 0:
                raise UnclosedQuote
            fields.append(line[start + 1 : stop].replace('""', '"'))
            stop += 1
            found = line[stop : stop + len(delimiter)]
            if found not in ("", delimiter):
                after = line[stop:].partition(delimiter)[0]
                raise QuoteFault(
                    f"field {len(fields)}: {after!r:.40} follows the closing quote of "
                    f"{line[start:stop]!r:.40}. Double the quotes within a quoted field, or read "
                    "quotes as plain text with --quotes False."
                )
        if not found:
            return fields
        start = stop + len(delimiter)


@final
class QuoteCheck:
    """A binary file that is checked while a parser reads it; `QuoteFault` ends the reading.

    After the last byte has been read, `lines`, `blank_lines` and `irregular` describe the text.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        delimiter: str,
        quoted: bool,
        newlines: bool,
        replacement: str | None,
    ) -> None:
        """`replacement`, a single character, takes the place of the delimiter where it is given."""
        self._file = file
        self._delimiter = delimiter
        self._quoted = quoted
        self._newlines = newlines
        self._replacement = replacement
        self._held_back = b""
        self._line = b""
        self._quotes_before = 0
        self._ended = False
        self.closed = False
        self.lines = 0
        """Number of lines; a line end within a quoted field counts too."""
        self.blank_lines = 0
        """Number of lines without a character."""
        self.irregular = False
        """Whether, with fields that may run over lines, only the slow parser can tell what is
        right."""

    def close(self) -> None:
        """The file itself is closed by who opened it."""
        self.closed = True

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most about `size`; empty at the end."""
        while not self._ended:
            block = self._file.read(size if size > 0 else 1 << 20)
            self._ended = not block
            self._take(block)
            if self._replacement is not None:
                block = self._replaced(block)
            if block or self._ended:
                return block
        return b""

    def _replaced(self, block: bytes) -> bytes:
        delimiter = self._delimiter.encode()
        block = self._held_back + block
        self._held_back = b""
        # A delimiter may begin at the end of this block and end in the next.
        if not self._ended and block.endswith(delimiter[:1]) and not block.endswith(delimiter):
            self._held_back, block = block[-1:], block[:-1]
        assert self._replacement is not None
        return block.replace(delimiter, self._replacement.encode())

    def _take(self, block: bytes) -> None:
        """Check the lines that end in this block; at the end of the file also the last one."""
        text = self._line + block
        # A line end of two characters may begin at the end of this block and end in the next.
        stop = len(text) if self._ended else max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        self._line = text[stop:]
        if len(self._line) > _LONGEST_LINE:
            raise QuoteFault(
                f"line {self.lines + 1}: more than {_LONGEST_LINE:,} bytes without a line end."
            )
        if stop:
            self._check(text[:stop] if self.lines else text[:stop].removeprefix(codecs.BOM_UTF8))
        if self._ended and self._quotes_before % 2:
            self.irregular = True

    def _check(self, text: bytes) -> None:
        """Count and check whole lines."""
        ends = text.count(b"\n")
        if b"\r" in text:
            ends += text.count(b"\r") - text.count(b"\r\n")
        if text[-1:] not in (b"\n", b"\r"):
            ends += 1
        if text[:1] in (b"\n", b"\r") or any(two in text for two in (b"\n\n", b"\n\r", b"\r\r")):
            self.blank_lines += sum(not line for line in text.splitlines())
        if self._quoted and b'"' in text:
            if self._newlines:
                self._check_across_lines(text)
            else:
                self._check_lines(text)
        self.lines += ends

    def _neighbours(
        self, text: bytes
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Line ends, quotes, and whether a quote may open, and may close, a field where it is."""
        data = np.frombuffer(text, dtype=np.uint8)
        quotes = np.flatnonzero(data == _QUOTE)
        ends = np.flatnonzero((data == _NEWLINE) | (data == _RETURN))
        edged = np.concatenate(([_NEWLINE], data, [_NEWLINE]))
        before, after = edged[quotes], edged[quotes + 2]
        breaks = (ord(self._delimiter), _NEWLINE, _RETURN)
        return ends, quotes, np.isin(before, breaks), np.isin(after, (*breaks, _QUOTE))

    def _check_lines(self, text: bytes) -> None:
        ends, quotes, opens, closes = self._neighbours(text)
        lines = np.searchsorted(ends, quotes)
        # Only in lines where a field begins with a quote does any quote mean something.
        with_field = np.zeros(len(ends) + 1, dtype=np.bool_)
        with_field[lines[opens]] = True
        chosen = with_field[lines]
        quotes, lines, opens, closes = quotes[chosen], lines[chosen], opens[chosen], closes[chosen]
        if not len(quotes):
            return
        number = np.arange(len(quotes)) - np.searchsorted(lines, lines)
        doubled = np.zeros(len(quotes), dtype=np.bool_)
        doubled[1:] = np.diff(quotes) == 1
        fits = np.where(number % 2 == 0, opens | (doubled & (number > 0)), closes)
        suspect = set(lines[~fits].tolist())
        suspect |= set(np.flatnonzero(np.bincount(lines) % 2).tolist())
        if suspect:
            self._scan(text, ends, sorted(suspect))

    def _scan(self, text: bytes, ends: NDArray[np.int64], suspect: list[int]) -> None:
        bounds = np.concatenate(([-1], ends, [len(text)]))
        for line in suspect:
            content = text[bounds[line] + 1 : bounds[line + 1]].decode("utf-8", "surrogateescape")
            # A line end of two characters is two ends in `ends`, and an empty line between them.
            before = text[: bounds[line] + 1]
            number = self.lines + 1 + len(before.splitlines())
            try:
                split_fields(content.removeprefix("\ufeff"), self._delimiter, quoted=True)
            except QuoteFault as fault:
                raise QuoteFault(f"line {number}, {fault}") from fault
            except UnclosedQuote as fault:
                raise QuoteFault(f"line {number}: {UNCLOSED}") from fault

    def _check_across_lines(self, text: bytes) -> None:
        _, quotes, opens, closes = self._neighbours(text)
        number = np.arange(len(quotes)) + self._quotes_before
        doubled = np.zeros(len(quotes), dtype=np.bool_)
        doubled[1:] = np.diff(quotes) == 1
        self._quotes_before += len(quotes)
        if not np.where(number % 2 == 0, opens | doubled, closes).all():
            self.irregular = True


UNCLOSED = (
    "a quote opens a field that does not end on this line. If fields of this file run over several "
    "lines, say --quoted-newlines True; if quotes in it are plain text, say --quotes False."
)

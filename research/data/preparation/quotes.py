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

LONGEST_LINE = 1 << 26
"""A line of more bytes is refused, as it would have to be held in memory as a whole."""
_QUOTE, _NEWLINE, _RETURN = ord('"'), ord("\n"), ord("\r")


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
    if not quoted:
        return line.split(delimiter)
    fields, is_open = split_part(line, delimiter)
    if is_open:
        raise UnclosedQuote
    return fields


def split_part(line: str, delimiter: str, *, within_quotes: bool = False) -> tuple[list[str], bool]:
    """The fields of one line of a row, and whether the last of them goes on in the next line.

    `line` has no line end. With `within_quotes` its first field goes on from the line before.
    Raises `QuoteFault` as `split_fields` does.
    """
    if not within_quotes and '"' not in line:
        return line.split(delimiter), False
    fields = []
    start = 0
    while True:
        if not within_quotes and line[start : start + 1] != '"':
            stop = line.find(delimiter, start)
            stop = len(line) if stop < 0 else stop
            fields.append(line[start:stop])
            found = line[stop : stop + len(delimiter)]
        else:
            opened = start if within_quotes else start + 1
            within_quotes = False
            stop = opened
            while (stop := line.find('"', stop)) >= 0 and line[stop + 1 : stop + 2] == '"':
                stop += 2
            if stop < 0:
                fields.append(line[opened:].replace('""', '"'))
                return fields, True
            fields.append(line[opened:stop].replace('""', '"'))
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
            return fields, False
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
        """`replacement`, a single character, takes the place of the delimiter where it is given.

        The delimiter is then one character repeated, and may not stand between quotes; a line with
        the replacement in it raises `QuoteFault`.
        """
        assert replacement is None or (len(set(delimiter)) == 1 and not quoted)
        self._file = file
        self._delimiter = delimiter
        self._quoted = quoted
        self._newlines = newlines
        self._replacement = replacement
        self._held_back = b""
        self._line = b""
        self._quotes_before = 0
        self.closed = False
        self.ended = False
        """Whether the last byte has been read."""
        self.lines = 0
        """Number of lines; a line end within a quoted field counts too."""
        self.blank_lines = 0
        """Number of lines without a character."""
        self.irregular = False
        """Whether, with fields that may run over lines, only the slow parser can tell what is
        right."""
        self.has_hexadecimal = False
        """Whether a field begins with `0x`, which to Arrow is a whole number in base 16."""

    def close(self) -> None:
        """The file itself is closed by who opened it."""
        self.closed = True

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most about `size`; empty at the end."""
        while not self.ended:
            size = size if size > 0 else 1 << 20
            block = self._file.read(max(size - len(self._held_back), size // 2, 1))
            self.ended = not block
            self._take(block)
            block = self._unbroken(block)
            if block or self.ended:
                return block
        return b""

    def _unbroken(self, block: bytes) -> bytes:
        """The block and what the one before held back, without what the next may go on with."""
        block = self._held_back + block
        whole = block
        if not self.ended:
            # Arrow drops a line feed at the beginning of a block if a carriage return ends the one
            # before, also within quotes.
            whole = block[:-1] if block.endswith(b"\r") else block
            if self._replacement is not None:
                # Which of a row of colons are delimiters is told by where the row begins.
                whole = whole.rstrip(self._delimiter[:1].encode())
        self._held_back = block[len(whole) :]
        if self._replacement is None:
            return whole
        return whole.replace(self._delimiter.encode(), self._replacement.encode())

    def _take(self, block: bytes) -> None:
        """Check the lines that end in this block; at the end of the file also the last one."""
        text = self._line + block
        # A line end of two characters may begin at the end of this block and end in the next.
        stop = len(text) if self.ended else max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        self._line = text[stop:]
        if len(self._line) > LONGEST_LINE:
            raise QuoteFault(f"line {self.lines + 1}: {TOO_LONG}")
        if stop:
            self._check(text[:stop] if self.lines else text[:stop].removeprefix(codecs.BOM_UTF8))
        if self.ended and self._quotes_before % 2:
            self.irregular = True

    def _check(self, text: bytes) -> None:
        """Count and check whole lines."""
        is_newline = np.frombuffer(text, dtype=np.uint8) == _NEWLINE
        ends = int(np.count_nonzero(is_newline))
        has_blank = text[:1] in (b"\n", b"\r") or bool((is_newline[1:] & is_newline[:-1]).any())
        if b"\r" in text:
            ends += text.count(b"\r") - text.count(b"\r\n")
            has_blank = has_blank or b"\n\r" in text or b"\r\r" in text
        if text[-1:] not in (b"\n", b"\r"):
            ends += 1
        if has_blank:
            self.blank_lines += sum(not line for line in text.splitlines())
        self.has_hexadecimal = self.has_hexadecimal or _has_hexadecimal(text, self._delimiter)
        if self._replacement is not None and self._replacement.encode() in text:
            before = text.partition(self._replacement.encode())[0]
            number = self.lines + max(len((before + b".").splitlines()), 1)
            raise QuoteFault(
                f"line {number}: the character {self._replacement!r}, which is not read in files "
                f"whose fields {self._delimiter!r} separates."
            )
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
                split_fields(content, self._delimiter, quoted=True)
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


def _has_hexadecimal(text: bytes, delimiter: str) -> bool:
    if b"x" not in text and b"X" not in text:
        return False
    data = np.frombuffer(text, dtype=np.uint8)
    # Both cases of a letter differ by one bit.
    pairs = (data[:-1] == ord("0")) & (data[1:] | 0x20 == ord("x"))
    if not pairs.any():
        return False
    places = np.flatnonzero(pairs)
    breaks = [ord(letter) for letter in (delimiter[-1], *'\n\r" \t')]
    return bool(places[0] == 0 or np.isin(data[places - 1], breaks).any())


TOO_LONG = f"more than {LONGEST_LINE:,} bytes without a line end."
UNCLOSED = (
    "a quote opens a field that does not end on this line. If fields of this file run over several "
    "lines, say --quoted-newlines True; if quotes in it are plain text, say --quotes False."
)

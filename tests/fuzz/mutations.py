"""Valid inputs made wrong: of bytes, of lines of text, of JSON values, of arrays and tensors.

Every function takes a `random.Random` and nothing else that varies, so that a case is known by the
seed of its generator. Those that know a format keep what a reader checks first (a length, a
checksum of an archive) right, so that what lies behind is reached too.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

# Whole numbers at which something ends: bytes, signs, mantissas, 64 bits.
EDGES = (0, 1, -1, 2, 3, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
EDGES += (2**53, 2**60, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63), -(2**63) - 1)
# Spaces and line ends of Unicode and of old terminals, of which a reader may know some.
SPACES = ("\t", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\xa0", "\u2003")
SPACES += ("\u2028", "\u2029", "\u3000", "  ", "\n\n", "")
WORDS = (
    *("", " ", "0", "-1", "1.5", "1e5", "1e400", "-0", "+3", "1_0", "0x10", "nan", "NaN", "inf"),
    *("-inf", "null", "None", "true", '"', '""', '"a', "'", ",", "::", "|", "\\", "\x00", "\ufeff"),
    *(
        "99999999999999999999",
        "9" * 19,
        "9" * 400,
        "9" * 5000,
        "\u0663",
        "\xb2",
        "\u00e9",
        "\u4e2d",
    ),
    *(
        "a" * 300,
        "x" * 70_000,
        "..",
        "../../x",
        "/etc/passwd",
        "\x1b[31m",
        "<b>",
        "$(x)",
        "%s",
        "{0}",
    ),
    *("\U0001f600", "\u202e", "\ud800", "(1995)", "genre:x", "item_id:token", "user:float"),
)
DEEP = (3, 40, 90, 200, 400, 900, 1100, 5000, 100_000)
_DEEP_MARK = "\x00deep\x00"


def number_of(random: Random) -> int:
    """A whole number, often at an edge."""
    if random.random() < 0.7:
        return random.choice(EDGES) + random.choice((0, 0, 0, 1, -1))
    return random.getrandbits(random.choice((3, 8, 31, 64, 200)))


def string_of(random: Random) -> str:
    """A string, often an odd one."""
    if random.random() < 0.7:
        return random.choice(WORDS)
    letters = [
        chr(random.choice((random.randrange(128), random.randrange(0x3000)))) for _ in "12345"
    ]
    return "".join(letters[: random.randrange(6)])


def altered(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bytes after one to four changes: flipped, set, cut, moved, repeated, or spliced."""
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        place = random.randrange(len(made) + 1)
        size = min(random.choice((1, 1, 2, 4, 8, 30, 200)), max(0, len(made) - place))
        change = random.randrange(9)
        if change == 0 and size:
            made[place] ^= 1 << random.randrange(8)
        elif change == 1 and size:
            made[place] = random.choice((0, 10, 34, 44, 127, 128, 255, random.randrange(256)))
        elif change == 2:
            made[place:place] = random.randbytes(random.choice((1, 2, 8, 40)))
        elif change == 3:
            del made[place : place + size]
        elif change == 4:
            made[place:place] = made[place : place + size] * random.choice((1, 2, 50))
        elif change == 5:
            del made[place:]
        elif change == 6:
            wide = random.choice((1, 2, 4, 8))
            value = number_of(random) % (1 << 8 * wide)
            made[place : place + wide] = value.to_bytes(wide, random.choice(("little", "big")))
        elif change == 7 and others:
            other = random.choice(others)
            made[place:] = other[random.randrange(len(other) + 1) :]
        elif change == 8:
            other_place = random.randrange(len(made) + 1)
            made[place:place] = made[other_place : other_place + size]
    return bytes(made)


def text_altered(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Lines with wrong fields, odd separators, numbers too large, or other bytes altogether."""
    if random.random() < 0.3:
        return altered(random, data, others)
    lines = data.decode("latin-1").split("\n")
    for _ in range(random.choice((1, 1, 2, 3))):
        if not lines:
            break
        place = random.randrange(len(lines))
        separator = next((each for each in ("::", "\t", ",", "|") if each in lines[place]), " ")
        fields = lines[place].split(separator)
        field = random.randrange(len(fields))
        change = random.randrange(12)
        if change <= 2:
            fields[field] = _bytewise(string_of(random))
        elif change == 3:
            fields[field] = str(number_of(random))
        elif change == 4:
            del fields[field]
        elif change == 5:
            fields.insert(field, fields[random.randrange(len(fields))])
        elif change == 6:
            separator = _bytewise(random.choice(SPACES))
        elif change == 7:
            fields[field] = _bytewise(random.choice(SPACES)) + fields[field]
        lines[place] = separator.join(fields)
        if change == 8:
            del lines[place]
        elif change == 9:
            lines[place:place] = [lines[place]] * random.choice((1, 2, 100))
        elif change == 10:
            lines[place] = f'"{lines[place]}'
        elif change == 11 and random.random() < 0.3:
            lines = random.choice(([], [""], ["\ufeff".encode().decode("latin-1"), *lines], [" "]))
    return random.choice(("\n", "\n", "\n", "\n", "\r\n", "\r")).join(lines).encode("latin-1")


def _bytewise(text: str) -> str:
    """Text as the letters that its bytes are in latin-1."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def value_of(random: Random, like: object = None) -> Any:
    """A JSON value, at times one of the kind that stood there."""
    if random.random() < 0.3:
        if isinstance(like, bool):
            return not like
        if isinstance(like, (int, float)):
            return random.choice((like + 1, -like, like * 10**6, 10**400))
        if isinstance(like, str):
            return like + string_of(random)
    change = random.randrange(9)
    if change == 0:
        return number_of(random)
    if change == 1:
        wide = (0.0, -0.0, 0.5, 1.0, 1e-320, 1e300, float("inf"), float("nan"), float("-inf"))
        return random.choice(wide)
    if change in (2, 3):
        return string_of(random)
    if change == 4:
        return random.choice((None, True, False))
    if change == 5:
        return [value_of(random) for _ in range(random.randrange(3))]
    if change == 6:
        return {string_of(random): value_of(random) for _ in range(random.randrange(3))}
    if change == 7:
        return _DEEP_MARK
    return 10 ** random.choice((19, 30, 309, 400, 4290))


def value_altered(random: Random, value: Any) -> Any:
    """A JSON value in which one to three parts are replaced, left out, added or exchanged."""
    value = json.loads(json.dumps(value))
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places or random.random() < 0.02:
            return value_of(random, value)
        owner, key = random.choice(places)
        change = random.randrange(8)
        if change <= 3:
            owner[key] = value_of(random, owner[key])
        elif change == 4:
            del owner[key]
        elif change == 5 and isinstance(owner, dict):
            owner[string_of(random)] = value_of(random, owner[key])
        elif change == 6:
            other, place = random.choice(places)
            owner[key] = json.loads(json.dumps(other[place])) if place in _keys(other) else None
        elif change == 7 and isinstance(owner, list):
            owner.insert(key, value_of(random, owner[key]))
    return value


def _keys(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, dict) else range(len(value))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(owner, key) of every part of a JSON value."""
    found = []
    left = [value]
    while left:
        owner = left.pop()
        if isinstance(owner, (dict, list)):
            for key in _keys(owner):
                found.append((owner, key))
                left.append(owner[key])
    return found


def spelled(random: Random, value: Any) -> bytes:
    """A JSON value as text, in one of several ways to write it."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.7, indent=random.choice((None, 1)))
    # Halves of surrogate pairs come as escapes, or as bytes that are not UTF-8.
    written = text.encode("utf-8", "surrogatepass")
    mark = json.dumps(_DEEP_MARK).encode()
    if mark in written:
        depth = random.choice(DEEP)
        opening, closing = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        inner = b"" if opening == b"[" else b"1"
        written = written.replace(mark, opening * depth + inner + closing * depth)
    return written


def json_altered(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """JSON with other values in it; at times no JSON any more."""
    if random.random() < 0.15:
        return altered(random, data, others)
    return spelled(random, value_altered(random, json.loads(data)))


def lines_altered(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """JSON lines, one of them with other values in it; at times other bytes."""
    if random.random() < 0.2:
        return text_altered(random, data, others)
    lines = data.rstrip(b"\n").split(b"\n")
    place = random.randrange(len(lines))
    lines[place] = spelled(random, value_altered(random, json.loads(lines[place]))).replace(
        b"\n", b""
    )
    if random.random() < 0.1:
        lines.insert(place, random.choice((b"", b"[]", b"1", b"null", b"{}")))
    return b"\n".join(lines) + random.choice((b"\n", b"\n", b""))


HEADERS = (
    "{'descr': '<i4', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '<i8', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '<f8', 'fortran_order': True, 'shape': (%d, 2), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (%dL,), }",
    "{'descr': '<U%d', 'fortran_order': False, 'shape': (), }",
    "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (%d,), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (%d, 0), }",
    "{'descr': '|V%d', 'fortran_order': False, 'shape': (3,), }",
    "((((%d", "-" * 3000 + "%d", "[" * 150 + "%d" + "]" * 150, "{'descr': %d}", "\n  %d\n x", "'%d",
)  # fmt: skip


def array_altered(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A .npy file with another header, of the right length, or with other bytes."""
    if random.random() < 0.4 or data[:6] != b"\x93NUMPY":
        return altered(random, data, others)
    size = struct.unpack("<H", data[8:10])[0]
    header, values = data[10 : 10 + size], data[10 + size :]
    if random.random() < 0.5:
        written = (random.choice(HEADERS) % number_of(random)).encode()
    else:
        written = text_altered(random, header.rstrip(), others)
    written = written[:60_000]
    written += b" " * (-(len(written) + 11) % 64) + b"\n"
    version = random.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
    length = struct.pack("<H" if version[0] == 1 else "<I", len(written))
    if random.random() < 0.2:
        values = altered(random, values)
    return data[:6] + version + length + written + values


Alter = Callable[[Random, bytes, Sequence[bytes]], bytes]


def archive_altered(
    random: Random, data: bytes, others: Sequence[bytes] = (), inner: Alter = altered
) -> bytes:
    """A zip archive with another member, name, size or kind, checksums right; or other bytes."""
    if random.random() < 0.35:
        return altered(random, data, others)
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        members = [(each, given.read(each)) for each in given.infolist()]
    target = io.BytesIO()
    chosen = random.randrange(len(members))
    change = random.randrange(8)
    kind = random.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(target, "w") as made:
        for place, (member, content) in enumerate(members):
            info = zipfile.ZipInfo(member.filename)
            info.compress_type = member.compress_type
            info.external_attr = member.external_attr
            if place == chosen:
                if change <= 3:
                    content = inner(random, content, [each for _, each in members])
                elif change == 4:
                    name = string_of(random)[:5000].encode("utf-8", "replace").decode()
                    info.filename = name or "x"
                elif change == 5:
                    info.filename = random.choice(("../", "/", "a/../../", "a/b/", "C:\\")) + (
                        info.filename
                    )
                elif change == 6:
                    info.external_attr = random.choice((0o120777, 0o060000, 0o040755)) << 16
                else:
                    info.compress_type = kind
                    content = content * random.choice((1, 1, 3000))
            if not (place == chosen and change == 4 and random.random() < 0.5):
                made.writestr(info, content)
    written = target.getvalue()
    return altered(random, written, others) if random.random() < 0.1 else written


def packed_altered(
    random: Random, data: bytes, others: Sequence[bytes] = (), *, packing: str
) -> bytes:
    """A compressed text with other lines in it, in one part or two; or with other bytes."""
    if random.random() < 0.3:
        return altered(random, data, others)
    pack, unpack = PACKINGS[packing]
    text = text_altered(random, unpack(data))
    stop = random.choice((len(text), random.randrange(len(text) + 1)))
    packed = pack(text[:stop]) + (pack(text[stop:]) if stop < len(text) else b"")
    return altered(random, packed) if random.random() < 0.1 else packed


def _packed_zstd(data: bytes) -> bytes:
    import pyarrow as pa

    target = pa.BufferOutputStream()
    with pa.CompressedOutputStream(target, "zstd") as stream:
        stream.write(data)
    return bytes(target.getvalue().to_pybytes())


def _unpacked_zstd(data: bytes) -> bytes:
    import pyarrow as pa

    with pa.input_stream(pa.BufferReader(data), compression="zstd") as stream:
        return bytes(stream.read())


PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    ".gz": (lambda data: gzip.compress(data, mtime=0), gzip.decompress),
    ".bz2": (bz2.compress, bz2.decompress),
    ".zst": (_packed_zstd, _unpacked_zstd),
}


def tensors_altered(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A safetensors file with another header, of the right length or a huge one; or other bytes."""
    if random.random() < 0.4:
        return altered(random, data, others)
    size = struct.unpack("<Q", data[:8])[0]
    header, values = json.loads(data[8 : 8 + size]), data[8 + size :]
    written = spelled(random, value_altered(random, header))
    length = len(written) if random.random() < 0.8 else number_of(random) % (1 << 64)
    return struct.pack("<Q", length) + written + values


BY_SUFFIX: dict[str, Alter] = {
    ".json": json_altered,
    ".jsonl": lines_altered,
    ".log": lines_altered,
    ".npy": array_altered,
    ".safetensors": tensors_altered,
    ".npz": lambda random, data, others: archive_altered(random, data, others, array_altered),
    ".zip": lambda random, data, others: archive_altered(random, data, others, text_altered),
    ".pt": archive_altered,
    ".parquet": altered,
    **{suffix: partial(packed_altered, packing=suffix) for suffix in PACKINGS},
}


def alteration_of(name: str) -> Alter:
    """How a file is altered, by what its name says it is; text where nothing is said."""
    return BY_SUFFIX.get(name[name.rfind(".") :], text_altered)

"""Recognizes the encoding of a text file from its first bytes."""

from __future__ import annotations

import codecs

from redis_fastbatch.cli.common import CliError

# The marks of UTF-32 come first: the little-endian one begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# Which of the first four bytes are zero if they are ASCII characters.
_ZEROS = {b"\0\1\0\1": "UTF-16LE", b"\1\0\1\0": "UTF-16BE", b"\0\1\1\1": "UTF-32LE", b"\1\1\1\0": "UTF-32BE"}


def encoding_other_than_utf8(head: bytes) -> str | None:
    """Return the name of the encoding that iconv needs, where it is clearly not UTF-8; else None.

    Args:
        head: the file's first bytes, at best four. Without a byte order mark the first characters must be ASCII,
            as they are in JSON and nearly always in CSV.
    """
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    zeros = bytes(byte == 0 for byte in head[:4])
    if len(zeros) < 2 or 1 not in zeros:
        return None
    return next((name for pattern, name in _ZEROS.items() if pattern.startswith(zeros)), None)


def refuse_other_encodings(head: bytes, file: str, format_name: str) -> None:
    """Refuse a file that is not UTF-8, and say how to convert it.

    Args:
        head: the file's first bytes, decompressed.
        file: the file's name, or "-".
        format_name: what --format calls the file's format.

    Raises:
        CliError: the file is in UTF-16 or UTF-32.
    """
    name = encoding_other_than_utf8(head)
    if name is not None:
        raise CliError(
            f"{file}: expected UTF-8, found {name}: convert it first, such as with "
            f"iconv -f {name} -t UTF-8 < FILE | redis-fastbatch load - --format {format_name}"
        )

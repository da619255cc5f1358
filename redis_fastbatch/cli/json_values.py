"""Reads the values of a JSON file in bounded memory: lines, elements of an array, or objects over many lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from redis_fastbatch.cli.common import CliError
from redis_fastbatch.cli.encoding import refuse_other_encodings
from redis_fastbatch.errors import EncodeError

LONGEST_VALUE = 512 * 1024 * 1024
"""The largest size of a value in bytes, which is also that of Redis."""

PIECE = 1024 * 1024
"""Bytes read at a time if values are not lines."""

_BLANKS = re.compile(r"[ \t\r\n]*")


class ByteSource(Protocol):
    """The bytes of a file."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""

    def readline(self, size: int, /) -> bytes:
        """Return a line with its end, or the first `size` bytes of it; none at the end."""


JsonValue: TypeAlias = tuple[int, Any, EncodeError | None]
"""The line where a value begins, from 1; the value, or its line as text if there is an error; and that error."""


def json_values(file: str, source: ByteSource) -> Iterator[JsonValue]:
    """Yield the values of a file.

    A file that begins with "[" is one array; its elements are the values. If the first line is the beginning of an
    object, values may extend over several lines. In every other file each line that is not blank is a value, and a
    line that cannot be read is yielded with its error.

    Args:
        file: the file's name, for messages.
        source: its bytes.

    Raises:
        CliError: the file is not UTF-8, or a value over several lines cannot be read. The start of the next value
        is
            then unknown.
    """
    loads = line_reader()
    number, line = 0, source.readline(max(PIECE, 4))
    refuse_other_encodings(line[:4], file, "ndjson")
    line = line.removeprefix(codecs.BOM_UTF8)
    while line and not line.strip():
        # A piece without a line end is the beginning of a line of blanks.
        number += line.endswith(b"\n")
        line = source.readline(PIECE)
    number += 1
    if line.lstrip().startswith(b"["):
        yield from _Document(file, source, line, number).elements()
        return
    if not line.endswith(b"\n"):
        line += source.readline(LONGEST_VALUE)
    if _is_beginning_of_object(line):
        yield from _Document(file, source, line, number).values()
        return
    while line:
        if len(line) > LONGEST_VALUE and not line.endswith(b"\n"):
            yield number, excerpt(line), EncodeError(f"the line is longer than {LONGEST_VALUE:,} bytes")
            while line and not line.endswith(b"\n"):
                line = source.readline(PIECE)
        else:
            try:
                value = loads(line)
            except (EncodeError, ValueError, RecursionError) as error:
                if line.strip():
                    yield number, _text(line), _reason(error)
            else:
                yield number, value, None
        number += 1
        line = source.readline(LONGEST_VALUE + 1)


def _reason(error: Exception) -> EncodeError:
    if isinstance(error, EncodeError):
        return error
    if isinstance(error, json.JSONDecodeError):
        return EncodeError(f"not JSON: {error.msg} (column {error.pos + 1})")
    return EncodeError(f"not JSON that can be read: {error}")


def _is_beginning_of_object(line: bytes) -> bool:
    """Return whether a line is the beginning of an object that continues on the next line."""
    text = line.decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return False
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        # A line end within a string is an error of its own.
        return error.pos >= len(text) and not error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError):
        pass
    return False


class _Decoder:
    """Python's JSON decoder, which also records what it had to change.

    Attributes:
        changed: why the value read last differs from the text; None if it does not.
    """

    def __init__(self) -> None:
        self.changed: str | None = None
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_float=self._float)

    def decode(self, text: str) -> Any:
        """Return the one value of a text."""
        self.changed = None
        return self._decoder.decode(text)

    def decode_at(self, text: str, start: int) -> tuple[Any, int]:
        """Return the value that begins at `start`, and the place after it."""
        self.changed = None
        return self._decoder.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self.changed = f"an object has the name {twice!r:.100} twice: only one of the values can be kept"
        return made

    def _float(self, text: str) -> float:
        number = float(text)
        if number - number != 0:
            self.changed = f"the number {text:.100} is too large for a float of 64 bits, which ends at 1.8e308"
        return number


def line_reader() -> Callable[[bytes], Any]:
    """Return a function that reads the value of a line. It uses msgspec if that is installed, which is faster.

    The result does not depend on it. The function raises json.JSONDecodeError if the line is not JSON, and
    EncodeError if it is not UTF-8 or a value would change.
    """
    decoder = _Decoder()

    def loads(line: bytes) -> Any:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise EncodeError(f"expected UTF-8, found the byte 0x{byte:02x} at byte {error.start + 1}") from None
        value = decoder.decode(text.removeprefix("\ufeff"))
        if decoder.changed is not None:
            raise EncodeError(decoder.changed)
        return value

    try:
        import msgspec
    except ImportError:
        return loads
    decode, encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    def fast_loads(line: bytes) -> Any:
        try:
            value = decode(line)
            # msgspec keeps the last of equal names, without an error. Every name has a colon after it. If the
            # value as JSON has as many colons as the line, it lost no name. But "\u003a" in the line is one too.
            if type(value) is dict:
                colons = line.count(b":")
                if colons != len(value) and (
                    encode(value).count(b":") != colons or (b"\\" in line and b"\\u003" in line)
                ):
                    return loads(line)
        except (ValueError, RecursionError, OverflowError):
            # msgspec refuses NaN, infinities and a byte order mark.
            return loads(line)
        return value

    return fast_loads


class _Document:
    """A text whose values may extend over several lines.

    Args:
        file: the file's name, for messages.
        source: its bytes.
        head: bytes that were already read from it.
        line: the line where they begin.
    """

    def __init__(self, file: str, source: ByteSource, head: bytes, line: int) -> None:
        self._file = file
        self._source = source
        self._decoder = _Decoder()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._at = 0
        self._line = line
        self._ended = False
        self._text = ""
        self._text = self._decoded(head)

    def elements(self) -> Iterator[JsonValue]:
        """Yield the elements of the array."""
        first = self._line
        self._next()
        self._at += 1
        follows = self._next()
        while follows != "]":
            yield self._value()
            follows = self._next()
            if not follows:
                raise CliError(f"{self._file}: the file ends within the array that begins in line {first}")
            if follows == ",":
                self._at += 1
                if self._next() == "]":
                    raise self._broken("expected an element after the comma, found the array's end")
            elif follows != "]":
                raise self._broken(f"expected a comma or the array's end, found {follows!r}")
        self._at += 1
        if self._next():
            raise self._broken(
                "expected nothing after the array's end: a file is one array, or has one object a line"
            )

    def values(self) -> Iterator[JsonValue]:
        """Yield the values, which have only blanks between them."""
        while self._next():
            yield self._value()

    def _value(self) -> JsonValue:
        """Read the value that begins here."""
        while True:
            try:
                value, end = self._decoder.decode_at(self._text, self._at)
            except json.JSONDecodeError as error:
                # A value that continues beyond the text fails near its end, or within a string.
                cut = error.pos >= len(self._text) - 16 or error.msg.startswith("Unterminated string")
                if cut and self._more():
                    continue
                line = self._line + self._text.count("\n", self._at, error.pos)
                raise self._broken(f"not JSON: {error.msg}", line) from None
            except (ValueError, RecursionError) as error:
                raise self._broken(f"not JSON that can be read: {error}") from None
            # A number may continue.
            if end < len(self._text) or not self._more():
                break
        line, text = self._line, self._text[self._at : end]
        self._line += text.count("\n")
        self._at = end
        if self._decoder.changed is not None:
            return line, text, EncodeError(self._decoder.changed)
        return line, value, None

    def _next(self) -> str:
        """Skip blanks; return the next character, or "" at the end."""
        while True:
            blanks: Any = _BLANKS.match(self._text, self._at)
            self._line += self._text.count("\n", self._at, blanks.end())
            self._at = blanks.end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _more(self) -> bool:
        """Read more of the text, twice as much if a value has not ended; return whether there was more."""
        if self._ended:
            return False
        self._text = self._text[self._at :]
        self._at = 0
        if len(self._text) > LONGEST_VALUE:
            raise self._broken(f"the value is longer than {LONGEST_VALUE:,} bytes")
        self._text += self._decoded(self._source.read(max(PIECE, len(self._text))))
        return True

    def _decoded(self, piece: bytes) -> str:
        self._ended = not piece
        try:
            return self._utf8.decode(piece, final=self._ended)
        except UnicodeDecodeError as error:
            text: bytes = error.object
            # Count the lines of the text that were not passed yet, and those of the new piece.
            line = self._line + self._text.count("\n") + text.count(b"\n", 0, error.start)
            raise self._broken(f"expected UTF-8, found the byte 0x{text[error.start]:02x}", line) from None

    def _broken(self, reason: str, line: int | None = None) -> CliError:
        return CliError(f"{self._file}: line {self._line if line is None else line}: {reason}")


def excerpt(text: bytes | str) -> str:
    """Return the beginning of a text, for a message."""
    return f"{_text(text[:100])}..." if len(text) > 100 else _text(text)


def _text(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "backslashreplace").strip()

"""Commands as tuples: their bytes are those that redis-py packs, in Python and by hiredis."""

from __future__ import annotations

import enum
from typing import Any

import hiredis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis._parsers.encoders import Encoder
from redis.connection import PythonRespSerializer

from labels import label
from redis_fastbatch import EncodeError
from redis_fastbatch._core.resp.commands import CommandEncoder
from redis_fastbatch._core.runtime.buffer import OutputBuffer


def theirs(command: Any, encoding: str = "utf-8", errors: str = "strict") -> bytes:
    """What redis-py sends for a command."""
    packer = PythonRespSerializer(6000, Encoder(encoding, errors, False).encode)
    return b"".join(map(bytes, packer.pack(*command)))


class Text(str):
    """A str of a subclass."""


class Data(bytes):
    """Bytes of a subclass."""


class Number(int):
    """An int of a subclass."""


class Name(str, enum.Enum):
    BOARD = "board"


class Color(enum.IntEnum):
    RED = 1


ARGUMENTS = st.one_of(
    st.text(st.characters(codec="utf-8")),
    st.binary(),
    st.integers(),
    st.integers(-(2**66), 2**66),
    st.floats(),
    st.binary().map(bytearray),
    st.binary().map(memoryview),
    st.text(st.characters(codec="utf-8")).map(Text),
    st.binary().map(Data),
    st.integers().map(Number),
)
NAMES = st.sampled_from(["ZADD", b"ZADD", "CONFIG SET", b"XGROUP CREATE", " A  B ", "a\tb", b"a\tb", "é", "zadd"])


@given(NAMES, st.lists(ARGUMENTS, max_size=5))
def test_as_redis_py_packs(name: Any, arguments: list[Any]) -> None:
    encoder = CommandEncoder()
    command = (name, *arguments)
    assert encoder.pack(*command) == theirs(command)
    # Once more, with the name that is known now.
    assert encoder.pack(*command) == theirs(command)


@given(st.lists(st.text(st.characters(codec="utf-8")) | st.binary() | st.integers() | st.floats(), max_size=5))
def test_as_hiredis_packs(arguments: list[Any]) -> None:
    assert CommandEncoder().pack("SET", *arguments) == hiredis.pack_command(("SET", *arguments))


@pytest.mark.parametrize(
    "argument",
    [0, -1, 10, 99, 2**63 - 1, -(2**63), 2**63, 10**40, 0.1, -0.0, 1e16, 1e-5, float("inf"), float("nan"), ""],
    ids=label,
)
def test_numbers_at_the_limits(argument: Any) -> None:
    assert CommandEncoder().pack("SET", argument) == theirs(("SET", argument))


@pytest.mark.parametrize("size", [0, 9, 10, 99, 100, 999, 1000, 70_000])
def test_lengths(size: int) -> None:
    command = ("SET", "x" * size, b"y" * size, "é" * size, bytearray(size), *range(size // 7))
    assert CommandEncoder().pack(*command) == theirs(command)


@pytest.mark.parametrize(
    ("argument", "sent"),
    [(Name.BOARD, b"board"), (Color.RED, b"1"), (np.float64(1.5), b"1.5"), (memoryview(b"abcdef")[::2], b"ace")],
    ids=label,
)
def test_subclasses_are_sent_as_what_they_are(argument: Any, sent: bytes) -> None:
    """redis-py sends "<Color.RED: 1>" and "np.float64(1.5)" where it does not refuse them."""
    assert CommandEncoder().pack("SET", argument) == b"*2\r\n$3\r\nSET\r\n$%d\r\n%b\r\n" % (len(sent), sent)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig", "cp1252", "UTF8"])
def test_other_encodings(encoding: str) -> None:
    command = ("SET", "plain", "é", b"\xff", 5)
    assert CommandEncoder(encoding).pack(*command) == theirs(command, encoding)


def test_error_handlers() -> None:
    command = ("SET", "\ud800", "é")
    assert CommandEncoder("ascii", "replace").pack(*command) == theirs(command, "ascii", "replace")
    assert CommandEncoder("utf-8", "surrogatepass").pack(*command) == theirs(command, "utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("SET", True), r"argument 1 must be str, bytes, int or float, found bool True"),
        (("SET", "a", None), r"argument 2 must be .* found NoneType None; convert it"),
        (("SET", ["a"]), r"argument 1 must be .* found list \['a'\]"),
        (("SET", "\ud800"), r"argument 1 cannot be encoded: .*surrogates not allowed"),
        (("\ud800",), r"the name of the command cannot be encoded"),
        ((5, "a"), r"the name of a command must be str or bytes, found int 5"),
        ((None,), r"the name of a command must be str or bytes, found NoneType"),
        (("",), r"a command must have a name, found ''"),
        ((b"  ", "a"), r"a command must have a name, found b'  '"),
        ((), r"a command must have a name, found an empty one"),
        ("GET a", r"a command must be a tuple or list of its name and arguments, found str 'GET a'"),
        ({"GET": "a"}, r"a command must be a tuple or list .* found dict"),
    ],
    ids=label,
)
def test_what_cannot_be_encoded_leaves_the_buffer_as_it_was(command: Any, reason: str) -> None:
    encoder, out = CommandEncoder(), OutputBuffer()
    encoder.append(out, ["PING"])
    with pytest.raises(EncodeError, match=reason):
        encoder.append(out, command)
    encoder.append(out, ("GET", "b"))
    assert bytes(memoryview(out)) == theirs(("PING",)) + theirs(("GET", "b"))


def test_a_list_is_a_command_too() -> None:
    out = OutputBuffer()
    CommandEncoder().append(out, ["SET", "a", 1])
    assert bytes(memoryview(out)) == theirs(("SET", "a", 1))


def test_many_names_are_not_kept() -> None:
    encoder = CommandEncoder()
    for number in range(3000):
        for name in (f"name{number}", b"name%d" % number):
            assert encoder.pack(name, "x") == theirs((name, "x"))


def test_an_int_of_more_digits_than_python_writes() -> None:
    with pytest.raises(EncodeError, match="argument 1 is an int of 16610 bits"):
        CommandEncoder().pack("SET", 10**5000)

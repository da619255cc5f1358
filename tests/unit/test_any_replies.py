"""Replies to any commands: skipped, and made into Python objects, in whatever pieces they arrive."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse

from labels import label
from redis_fastbatch import DecodeError
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyFormat, ReplyReader
from redis_fastbatch._transports.parsed_replies import ParsedReplies
from redis_fastbatch._transports.redispy import reply_reader

PUSH = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n"
ATTRIBUTE = b"|1\r\n+ttl\r\n:5\r\n"
NESTED = b"*3\r\n:1\r\n*2\r\n$3\r\n+a\r\r\n%1\r\n+k\r\n~2\r\n:1\r\n:2\r\n*0\r\n"

EXAMPLES = [
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b":0\r\n", 0),
    (b":-5\r\n", -5),
    (b":9223372036854775807\r\n", 2**63 - 1),
    (b":-9223372036854775808\r\n", -(2**63)),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"_\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$9\r\n+OK\r\n:1\r\n\r\n", b"+OK\r\n:1\r\n"),
    (b"=7\r\ntxt:abc\r\n", b"abc"),
    (b"#t\r\n", True),
    (b"#f\r\n", False),
    (b",1.5\r\n", 1.5),
    (b",-inf\r\n", -math.inf),
    (b"(123456789012345678901234567890\r\n", 123456789012345678901234567890),
    (b"*0\r\n", []),
    (b"%1\r\n$1\r\na\r\n*1\r\n_\r\n", {b"a": [None]}),
    (b"~2\r\n:1\r\n:1\r\n", [1, 1]),
    (b"*2\r\n=7\r\ntxt:abc\r\n*-1\r\n", [b"abc", None]),
    (NESTED, [1, [b"+a\r", {b"k": [1, 2]}], []]),
]
STREAM = b"".join(data for data, _ in EXAMPLES)


def bytes_form() -> ReplyFormat:
    return ReplyFormat(lambda reply: reply)


def parts_of(data: bytes) -> list[list[bytes]]:
    """The data whole, byte by byte, and cut in two at every place."""
    cuts = [[data[:cut], data[cut:]] for cut in range(1, len(data))]
    return [[data], [data[i : i + 1] for i in range(len(data))], *cuts]


def read(parts: list[bytes], form: ReplyFormat | None = None, **options: Any) -> tuple[list[Any], list[int], Any]:
    reader, out, errors = reply_reader(**options), [], []
    for part in parts:
        reader.feed(part)
        first, some = len(out), []
        reader.replies(1000, out, some, form or bytes_form())
        errors += [first + i for i in some]
    return out, errors, reader


def skipped(parts: list[bytes], limit: int = 1000) -> tuple[int, list[tuple[int, str]], ReplyReader]:
    reader, done = reply_reader(), 0
    errors: list[tuple[int, Any]] = []
    for part in parts:
        reader.feed(part)
        done += reader.skip(limit - done, done, errors)
    return done, [(i, str(error)) for i, error in errors], reader


@pytest.mark.parametrize(("data", "value"), EXAMPLES, ids=label)
def test_each_kind_of_reply_in_any_pieces(data: bytes, value: Any) -> None:
    for parts in parts_of(PUSH + data + ATTRIBUTE + PUSH + b":7\r\n"):
        out, errors, reader = read(parts)
        assert repr(out) == repr([value, 7])
        assert (errors, len(reader), len(reader.pushes)) == ([], 0, 2)
        done, refused, reader = skipped(parts)
        assert (done, refused, len(reader), len(reader.pushes)) == (2, [], 0, 2)


def test_all_of_them_one_after_the_other() -> None:
    for size in (1, 7, 50, 10_000):
        parts = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
        assert repr(read(parts)[0]) == repr([value for _, value in EXAMPLES])
        assert skipped(parts)[0] == len(EXAMPLES)


@pytest.mark.parametrize("error", [b"-ERR no \xff\r\n", b"!8\r\nERR no \xff\r\n"])
def test_errors_are_found_where_they_stand(error: bytes) -> None:
    nested = b"*2\r\n:1\r\n" + error
    for parts in parts_of(b"+OK\r\n" + error + nested + PUSH + error + b":1\r\n"):
        assert skipped(parts)[:2] == (5, [(1, "ERR no \ufffd"), (3, "ERR no \ufffd")])
        out, errors, _ = read(parts)
        assert errors == [1, 3]
        assert [str(out[i]) for i in errors] == ["ERR no \ufffd"] * 2
        assert isinstance(out[2][1], ErrorReply)


def test_errors_are_explained_at_every_depth() -> None:
    form = ReplyFormat(lambda reply: ValueError(str(reply)))
    out, _, _ = read([b"-ERR a\r\n*1\r\n*1\r\n-ERR b\r\n"], form)
    assert repr(out) == repr([ValueError("ERR a"), [[ValueError("ERR b")]]])


def test_strings_are_decoded() -> None:
    stream = b"$2\r\n\xc3\xa9\r\n+a\r\n%1\r\n+k\r\n=5\r\ntxt:\xe9\r\n$1\r\n\xe9\r\n:1\r\n"
    out, errors, _ = read([stream], ReplyFormat(lambda reply: reply, "utf-8"))
    assert [out[0], out[1], out[4]] == ["é", "a", 1]
    assert errors == [2, 3]
    assert all(isinstance(out[i], UnicodeDecodeError) for i in errors)
    out, errors, _ = read([stream], ReplyFormat(lambda reply: reply, "latin-1"))
    assert (out, errors) == (["Ã©", "a", {"k": "é"}, "é", 1], [])
    out, _, _ = read([stream], ReplyFormat(lambda reply: reply, "UTF-8", "replace"))
    assert out == ["é", "a", {"k": "\ufffd"}, "\ufffd", 1]


def test_the_bytes_of_a_large_reply_are_dropped_as_they_arrive() -> None:
    reader, done = reply_reader(), 0
    piece = b"x" * 100_000
    stream = [b"*2\r\n$10000000\r\n", *[piece] * 100, b"\r\n:1\r\n+OK\r\n"]
    for part in stream:
        reader.feed(part)
        done += reader.skip(2 - done, done, [])
        assert len(reader) < 100
    assert (done, len(reader)) == (2, 0)
    assert len(memoryview(reader)) < 1_000_000


def test_no_more_than_were_asked_for() -> None:
    reader = reply_reader()
    reader.feed(b":1\r\n+OK\r\n$1\r\na\r\n:4\r\n")
    out: list[Any] = []
    assert (reader.skip(1, 0, []), reader.replies(1, out, [], bytes_form()), reader.skip(9, 0, [])) == (1, 1, 2)
    assert out == [b"OK"]
    assert reader.finished()


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"$x\r\n",
        b"$3\r\nabcd\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n>1\r\n:1\r\n",
        b"*9\r\n" * 70 + b"*999999999999999999\r\n" * 9,
        b"\r\n",
    ],
    ids=label,
)
def test_what_is_not_resp_is_refused(data: bytes) -> None:
    for parts in parts_of(data)[:2]:
        with pytest.raises(InvalidResponse):
            skipped(parts)
        with pytest.raises(InvalidResponse):
            read(parts)


@pytest.mark.parametrize(
    "data",
    [b":x\r\n", b",x\r\n", b"(x\r\n", b"(1_0\r\n", b"#x\r\n", b"_x\r\n", b"=3\r\nabc\r\n", b"%1\r\n*0\r\n:1\r\n"],
    ids=label,
)
def test_values_that_are_not_what_they_say(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        read([data])


def test_nested_too_deeply() -> None:
    assert read([b"*1\r\n" * 128 + b":1\r\n"])[0] != []
    with pytest.raises(InvalidResponse, match="nested more than 128 levels deep"):
        read([b"*1\r\n" * 129 + b":1\r\n"])


def test_a_longer_string_than_allowed() -> None:
    assert read([b"*1\r\n$10\r\n0123456789\r\n"], max_value_size=10)[0] == [[b"0123456789"]]
    with pytest.raises(DecodeError, match="a value of 11 bytes: max_value_size is 10"):
        read([b"*1\r\n$11\r\n"], max_value_size=10)


@given(st.lists(st.sampled_from(EXAMPLES), max_size=8), st.lists(st.integers(0, 300), max_size=5))
@settings(deadline=None)
def test_any_of_them_in_any_pieces(some: list[tuple[bytes, Any]], cuts: list[int]) -> None:
    stream = b"".join(data for data, _ in some)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parts = [stream[start:stop] for start, stop in itertools.pairwise(places)]
    assert repr(read(parts)[0]) == repr([value for _, value in some])
    assert skipped(parts)[0] == len(some)


def test_replies_that_redis_py_has_parsed() -> None:
    parsed = ParsedReplies(5)
    for reply in (b"OK", ValueError("no"), 5, [b"a", {b"k": {b"v"}}, ValueError("in")], None):
        parsed.feed(reply)
    errors: list[tuple[int, Any]] = []
    assert parsed.skip(3, 10, errors) == 3
    assert [(i, str(error)) for i, error in errors] == [(11, "no")]
    out: list[Any] = []
    form = ReplyFormat(lambda reply: reply, "utf-8")
    assert parsed.replies(9, out, [], form) == 2
    assert repr(out) == repr([["a", {"k": ["v"]}, ValueError("in")], None])
    parsed.feed([b"123456"])
    with pytest.raises(DecodeError, match="a value of 6 bytes: max_value_size is 5"):
        parsed.replies(9, out, [], form)


def test_parsed_errors_and_strings_that_cannot_be_decoded() -> None:
    parsed = ParsedReplies()
    for reply in (b"\xff", ValueError("no"), 1):
        parsed.feed(reply)
    out: list[Any] = []
    errors: list[int] = []
    assert parsed.replies(9, out, errors, ReplyFormat(lambda reply: ValueError(str(reply)), "utf-8")) == 3
    assert errors == [0, 1]
    assert isinstance(out[0], UnicodeDecodeError)
    assert repr(out[1]) == "ValueError('no')"

"""ObjectReader: whatever pieces replies arrive in, they become the objects that hiredis makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse

from redis_fastbatch._core.resp.objects import ObjectReader
from redis_fastbatch._core.resp.replies import ErrorReply
from tiers import examples

LIMIT = 2**63


class Explained(Exception):
    """What an error reply becomes."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Explained) and self.args == other.args

    __hash__ = Exception.__hash__


def explain(reply: ErrorReply) -> Explained:
    return Explained(str(reply))


def theirs(data: bytes, encoding: str | None = None, errors: str = "strict") -> list[Any]:
    nothing = object()
    options = {} if encoding is None else {"encoding": encoding, "errors": errors}
    reader = hiredis.Reader(replyError=Explained, notEnoughData=nothing, **options)
    reader.feed(data)
    found = []
    while (reply := reader.gets()) is not nothing:
        found.append(reply)
    return found


def object_reader(encoding: str | None = None, errors: str = "strict") -> ObjectReader:
    reader = ObjectReader(make_parser=hiredis.Reader, protocol_error=InvalidResponse)
    reader.restart(encoding, errors)
    return reader


def ours(reader: ObjectReader, pieces: Iterator[bytes], wanted: int, **options: Any) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        reader.feed(piece)
        reader.objects(found, wanted, explain, **options)
    return found


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    for start, end in itertools.pairwise([0, *sorted(place % (len(data) + 1) for place in places), len(data)]):
        yield data[start:end]


def bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8).map(str.encode)
scalars = st.one_of(
    st.binary(max_size=70).map(bulk),
    line.map(lambda text: b"+%b\r\n" % text),
    line.map(lambda text: b"-ERR %b\r\n" % text),
    st.integers(-LIMIT, LIMIT - 1).map(lambda number: b":%d\r\n" % number),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n"]),
    st.sampled_from([b",inf\r\n", b",-inf\r\n", b",-1.5e7\r\n"]),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: b",%b\r\n" % repr(number).encode()),
    st.integers().map(lambda number: b"(%d\r\n" % number),
)


def aggregates(elements: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    few = st.lists(elements, max_size=5)
    # hiredis loses a value where a key comes twice, which no server sends.
    pairs = st.lists(elements, max_size=4).map(
        lambda some: [b"+%d\r\n" % i + element for i, element in enumerate(some)]
    )
    return st.one_of(
        few.map(lambda some: b"*%d\r\n" % len(some) + b"".join(some)),
        few.map(lambda some: b"~%d\r\n" % len(some) + b"".join(some)),
        pairs.map(lambda some: b"%%%d\r\n" % len(some) + b"".join(some)),
    )


replies = st.recursive(scalars, aggregates, max_leaves=12)


@given(st.lists(replies, min_size=1, max_size=5), st.lists(st.integers(0, 10**6), max_size=6))
@settings(max_examples=examples(500), deadline=None)
def test_bytes_as_hiredis(some: list[bytes], places: list[int]) -> None:
    data = b"".join(some)
    assert repr(ours(object_reader(), cut(data, places), len(some))) == repr(theirs(data))


@given(st.lists(replies, min_size=1, max_size=5), st.lists(st.integers(0, 10**6), max_size=6))
@settings(max_examples=examples(500), deadline=None)
@pytest.mark.parametrize(
    ("encoding", "errors"), [("utf-8", "replace"), ("latin-1", "strict"), ("ascii", "ignore")]
)
def test_text_as_hiredis(encoding: str, errors: str, some: list[bytes], places: list[int]) -> None:
    data = b"".join(some)
    reader = object_reader(encoding, errors)
    assert repr(ours(reader, cut(data, places), len(some))) == repr(theirs(data, encoding, errors))


def test_byte_by_byte() -> None:
    data = b"*3\r\n%1\r\n+a\r\n*2\r\n:1\r\n$-1\r\n~0\r\n$5\r\na\r\nbc\r\n+OK\r\n"
    pieces = (data[i : i + 1] for i in range(len(data)))
    assert ours(object_reader(), pieces, 2) == [[{b"a": [1, None]}, [], b"a\r\nbc"], b"OK"]


def test_a_verbatim_string_is_its_text() -> None:
    data = b"=7\r\ntxt:abc\r\n*1\r\n=4\r\nmkd:\r\n"
    assert ours(object_reader(), iter([data]), 2) == [b"abc", [b""]]
    assert ours(object_reader("utf-8"), iter([data]), 2) == ["abc", [""]]


def test_some_replies_are_not_decoded() -> None:
    data = b"+a\r\n*1\r\n$1\r\n\xff\r\n+c\r\n"
    assert ours(object_reader("utf-8"), iter([data]), 3, undecoded={1}) == ["a", [b"\xff"], "c"]


def test_what_cannot_be_decoded() -> None:
    reader = object_reader("utf-8")
    with pytest.raises(UnicodeDecodeError):
        ours(reader, iter([b"*2\r\n+a\r\n$1\r\n\xff\r\n"]), 1)
    reader.restart(None, "strict")
    assert ours(reader, iter([b"+new\r\n"]), 1) == [b"new"]


def test_no_more_than_wanted_is_read() -> None:
    reader = object_reader()
    assert ours(reader, iter([b"+a\r\n+b\r\n"]), 1) == [b"a"]
    with pytest.raises(InvalidResponse, match="not asked for"):
        reader.finished()


def test_push_messages_are_kept_apart() -> None:
    data = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n+a\r\n|1\r\n+ttl\r\n:3\r\n+b\r\n>1\r\n+late\r\n"
    for encoding, wanted in ((None, b"late"), ("utf-8", "late")):
        reader = object_reader(encoding)
        found = ours(reader, (data[i : i + 1] for i in range(len(data))), 2)
        assert found == ([b"a", b"b"] if encoding is None else ["a", "b"])
        assert reader.finished()
        assert [message[0] for message in reader.pushes][1] == wanted


def test_errors_are_counted_and_checked() -> None:
    reader = object_reader()
    seen: list[Any] = []
    found = ours(reader, iter([b"-ERR a\r\n*2\r\n:1\r\n-ERR b\r\n+c\r\n"]), 3, check=seen.append)
    assert found == [Explained("ERR a"), [1, Explained("ERR b")], b"c"]
    assert seen == found[:2]
    assert reader.errors == 2


@pytest.mark.parametrize(
    "data",
    [
        b"?\r\n",
        b"!5\r\nERR x\r\n",
        b":\r\n",
        b":x\r\n",
        b":9223372036854775808\r\n",
        b":-9223372036854775809\r\n",
        b":123456789012345678901234\r\n",
        b"$-2\r\n",
        b"$3\r\nabcde",
        b"*-2\r\n",
        b"*x\r\n",
        b"#x\r\n",
        b"_x\r\n",
        b",\r\n",
        b",x\r\n",
        b",1.5x\r\n",
        b"(x\r\n",
        b"=3\r\nabc\r\n",
        b"*1\r\n>1\r\n+a\r\n",
        b"*1\r\n" * 200,
    ],
)
def test_what_is_not_resp(data: bytes) -> None:
    with pytest.raises(InvalidResponse):
        ours(object_reader(), iter([data]), 1)


def test_a_key_that_cannot_be_one() -> None:
    with pytest.raises(TypeError, match=r"unhashable|cannot use"):
        ours(object_reader(), iter([b"%1\r\n*0\r\n:1\r\n"]), 1)


def test_a_long_reply_is_read_once() -> None:
    """A reader that began again with each piece would take minutes."""
    element = bulk(b"x" * 20)
    count = 100_000
    data = b"*%d\r\n" % count + element * count
    pieces = (data[i : i + 100] for i in range(0, len(data), 100))
    (found,) = ours(object_reader(), pieces, 1)
    assert len(found) == count
    assert set(found) == {b"x" * 20}


def test_a_reader_gives_memory_back() -> None:
    reader = object_reader()
    ours(reader, iter([bulk(b"x" * 5_000_000)]), 1)
    reader.clear()
    with reader.free_space() as free:
        assert len(free) <= 1024 * 1024

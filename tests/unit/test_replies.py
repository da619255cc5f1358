"""ReplyReader reads replies as hiredis does, in whatever pieces they arrive."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse

from redis_fastbatch import DecodeError, MsgpackCodec, RawCodec
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyReader
from redis_fastbatch._transports.redispy import reply_reader
from redis_fastbatch.codecs import ValueCodec, resolve

BIG = 12345678901234567890
PUSH = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
ANOTHER_PUSH = b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n"


def theirs(data: bytes) -> list[Any]:
    """Return the replies that hiredis reads."""
    nothing = object()
    reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=nothing)
    reader.feed(data)
    found = []
    while (reply := reader.gets()) is not nothing:
        found.append(reply)
    return found


def pieces(data: bytes, cuts: tuple[int, ...]) -> Iterator[bytes]:
    places = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(places):
        yield data[start:end]


def all_splits(data: bytes) -> Iterator[list[bytes]]:
    """Yield the data in one piece, byte by byte, and cut in two at every place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield list(pieces(data, (cut,)))


def feed(reader: ReplyReader, piece: bytes) -> None:
    while piece:
        with reader.free_space() as free:
            size = min(len(piece), len(free))
            free[:size] = piece[:size]
        reader.received(size)
        piece = piece[size:]


def as_text(non_ok_replies: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    return [(i, plain(one)) for i, one in non_ok_replies]


def plain(reply: Any) -> Any:
    if isinstance(reply, list):
        return [plain(one) for one in reply]
    return str(reply) if isinstance(reply, ErrorReply) else reply


# -- statuses ------------------------------------------------------------------------------------


def read_statuses(parts: list[bytes], count: int) -> tuple[list[tuple[int, Any]], ReplyReader, int]:
    reader = reply_reader()
    non_ok_replies: list[tuple[int, Any]] = []
    done = 0
    for piece in parts:
        feed(reader, piece)
        done += reader.statuses(count - done, done, non_ok_replies)
    return as_text(non_ok_replies), reader, done


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"+OK\r\n+OK\r\n+OK\r\n", []),
        (b"+QUEUED\r\n+OK\r\n+QUEUED\r\n", []),
        (b"+OK\r\n$-1\r\n+OK\r\n", [(1, None)]),
        (b"+OK\r\n_\r\n+OK\r\n", [(1, None)]),
        (b"*-1\r\n+OK\r\n+OK\r\n", [(0, None)]),
        (b"-OOM no room\r\n+OK\r\n-ERR x\r\n", [(0, "OOM no room"), (2, "ERR x")]),
        (b":1\r\n:0\r\n:-5\r\n", [(0, 1), (1, 0), (2, -5)]),
        (b"+OK \r\n+ok\r\n+O\r\n", [(0, b"OK "), (1, b"ok"), (2, b"O")]),
        (b"$2\r\nOK\r\n+\r\n$0\r\n\r\n", [(0, b"OK"), (1, b""), (2, b"")]),
        (b"*2\r\n+OK\r\n$-1\r\n+OK\r\n*0\r\n", [(0, [b"OK", None]), (2, [])]),
        (b"*2\r\n-ERR in\r\n:1\r\n+OK\r\n#t\r\n", [(0, ["ERR in", 1]), (2, True)]),
        (b"+OK\r\n$7\r\n+OK\r\n+O\r\n+OK\r\n", [(1, b"+OK\r\n+O")]),
        (PUSH + b"+OK\r\n" + PUSH + ANOTHER_PUSH + b"+OK\r\n+OK\r\n", []),
        (b"+OK\r\n" + PUSH + b"-ERR x\r\n" + PUSH + b"+OK\r\n", [(1, "ERR x")]),
        (
            b",1.5\r\n(%d\r\n%%1\r\n+a\r\n:1\r\n" % BIG,
            [(0, 1.5), (1, b"%d" % BIG), (2, theirs(b"%1\r\n+a\r\n:1\r\n")[0])],
        ),
    ],
    ids=repr,
)
def test_statuses_are_read_in_any_pieces(data: bytes, expected: list[tuple[int, Any]]) -> None:
    for parts in all_splits(data):
        non_ok_replies, reader, done = read_statuses(parts, 3)
        assert done == 3
        assert len(reader) == 0
        assert non_ok_replies == expected
        assert len(reader.pushes) == data.count(b">3") + data.count(b">2")


def test_statuses_stop_at_the_limit() -> None:
    reader = reply_reader()
    reader.feed(b"+OK\r\n" * 5)
    non_ok_replies: list[tuple[int, Any]] = []
    assert reader.statuses(3, 0, non_ok_replies) == 3
    assert len(reader) == 10
    assert reader.statuses(9, 3, non_ok_replies) == 2
    assert non_ok_replies == []


def test_statuses_are_numbered_from_a_given_index() -> None:
    reader = reply_reader()
    non_ok_replies: list[tuple[int, Any]] = []
    reader.feed(b"+OK\r\n-ERR a\r\n")
    assert reader.statuses(10, 100, non_ok_replies) == 2
    reader.feed(b"-ERR b\r\n")
    assert reader.statuses(8, 102, non_ok_replies) == 1
    assert as_text(non_ok_replies) == [(101, "ERR a"), (102, "ERR b")]


def test_without_bytes_there_is_nothing_to_read() -> None:
    reader = reply_reader()
    assert reader.statuses(5, 0, []) == 0
    assert reader.reply() is None
    assert reader.array(1) is False
    assert reader.values([b"k"], 0, RawCodec(), None, {}, []) == 0


def test_a_hundred_thousand_statuses_are_counted() -> None:
    non_ok_replies, reader, done = read_statuses([b"+OK\r\n" * 60_000, b"+OK\r\n" * 40_000], 100_000)
    assert (non_ok_replies, len(reader), done) == ([], 0, 100_000)


# -- any reply, as hiredis reads it --------------------------------------------------------------

line = st.text("abc 1", max_size=8).map(str.encode)
number = st.integers(-(2**62), 2**62)


def bulk(data: bytes, mark: bytes = b"$") -> bytes:
    return mark + b"%d\r\n%b\r\n" % (len(data), data)


def aggregate(mark: bytes, parts: list[bytes], width: int = 1) -> bytes:
    count = len(parts) // width
    return mark + b"%d\r\n" % count + b"".join(parts[: count * width])


simple = (
    line.map(lambda s: b"+" + s + b"\r\n")
    | line.map(lambda s: b"-ERR " + s + b"\r\n")
    | number.map(lambda n: b":%d\r\n" % n)
    | st.binary(max_size=30).map(bulk)
    | st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n", b",1.5\r\n", b",inf\r\n"])
    | st.integers().map(lambda n: b"(%d\r\n" % n)
)
verbatim = st.binary(max_size=9).map(lambda s: bulk(b"txt:" + s, b"="))
replies = st.recursive(
    simple,
    lambda inner: (
        st.lists(inner, max_size=5).map(lambda parts: aggregate(b"*", parts))
        | st.lists(number.map(lambda n: b":%d\r\n" % n) | inner, max_size=6).map(
            lambda parts: aggregate(b"%", [p if i % 2 else b"+k%d\r\n" % i for i, p in enumerate(parts)], 2)
        )
    ),
    max_leaves=8,
)


@given(some=st.lists(replies | verbatim, min_size=1, max_size=6), data=st.data())
@settings(deadline=None)
def test_replies_of_any_kind_are_read_in_any_pieces(some: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(some)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    pushes_at = data.draw(st.lists(st.integers(0, len(some) - 1), max_size=2))
    with_pushes = b"".join((PUSH if i in pushes_at else b"") + one for i, one in enumerate(some))
    for raw in (stream, with_pushes):
        reader = reply_reader()
        found = []
        for piece in pieces(raw, tuple(min(cut, len(raw)) for cut in cuts)):
            feed(reader, piece)
            while (whole := reader.reply()) is not None:
                found.append(whole[0])
        assert repr(found) == repr(theirs(stream))
        assert len(reader) == 0
    assert len(reader.pushes) == len(set(pushes_at))


def test_a_reply_may_be_larger_than_the_buffer() -> None:
    reader = reply_reader()
    body = bytes(range(256)) * 8000
    stream = bulk(body) + b"+OK\r\n"
    for start in range(0, len(stream), 50_000):
        assert reader.reply() is None
        feed(reader, stream[start : start + 50_000])
    assert reader.reply() == (body,)
    assert reader.reply() == (b"OK",)


# -- arrays of values ----------------------------------------------------------------------------

KEYS = ["a", "b", "c", "d"]


def read_values(
    parts: list[bytes],
    keys: list[Any] | None = None,
    codec: ValueCodec | None = None,
    out: Callable[[], Any] = dict,
    **options: Any,
) -> tuple[Any, list[Any], ReplyReader]:
    """Read an array as a flight does. Return an error reply that comes instead of the array."""
    keys = KEYS if keys is None else keys
    reader = reply_reader(**options)
    found = out()
    failures: list[Any] = []
    begun: Any = False
    done = 0
    for piece in parts:
        feed(reader, piece)
        if begun is False:
            begun = reader.array(len(keys))
        if begun is True:
            done = reader.values(keys, done, codec or RawCodec(), "default", found, failures)
    if isinstance(begun, ErrorReply):
        return begun, failures, reader
    assert done == len(keys)
    assert reader.elements == 0
    return found, failures, reader


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"$1\r\n1\r\n$0\r\n\r\n$5\r\n\r\n$1\n\r\n$2\r\nxx\r\n", [b"1", b"", b"\r\n$1\n", b"xx"]),
        (b"$1\r\n1\r\n$-1\r\n$-1\r\n$2\r\nxx\r\n", [b"1", "default", "default", b"xx"]),
        (b"_\r\n$1\r\n1\r\n_\r\n_\r\n", ["default", b"1", "default", "default"]),
        (
            bulk(b"x" * 9) + bulk(b"y" * 10) + bulk(b"z" * 99) + bulk(b"w" * 100),
            [b"x" * 9, b"y" * 10, b"z" * 99, b"w" * 100],
        ),
    ],
    ids=["bulk", "RESP2 null", "RESP3 null", "lengths"],
)
@pytest.mark.parametrize("before", [b"", PUSH, PUSH + ANOTHER_PUSH], ids=["", "push", "two pushes"])
def test_values_are_read_in_any_pieces(data: bytes, expected: list[Any], before: bytes) -> None:
    stream = before + b"*4\r\n" + data + b"+next\r\n"
    for parts in all_splits(stream):
        found, failures, reader = read_values(parts)
        assert list(found.items()) == list(zip(KEYS, expected, strict=True))
        assert failures == []
        assert reader.reply() == (b"next",)
        assert len(reader.pushes) == before.count(b">")


def test_a_list_gets_values_as_pairs_with_their_keys() -> None:
    found, _, _ = read_values([b"*3\r\n$1\r\n1\r\n_\r\n$1\r\n3\r\n"], ["a", "a", "b"], out=list)
    assert found == [("a", b"1"), ("a", "default"), ("b", b"3")]


def test_a_dict_has_a_repeated_key_once() -> None:
    found, _, _ = read_values([b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n"], ["a", "a"])
    assert found == {"a": b"2"}


def test_values_are_read_without_an_array() -> None:
    # The replies to a pipeline of GETs: no array, and an error for one of them.
    reader = reply_reader()
    found: dict[str, Any] = {}
    failures: list[Any] = []
    done = 0
    stream = b"$1\r\n1\r\n" + PUSH + b"-WRONGTYPE no string\r\n-ERR odd\r\n" + PUSH + b"_\r\n"
    for i in range(len(stream)):
        feed(reader, stream[i : i + 1])
        done = reader.values(KEYS, done, RawCodec(), None, found, failures)
    assert done == 4
    assert found == {"a": b"1", "b": None, "c": None, "d": None}
    assert [(key, data, str(error)) for key, data, error in failures] == [("c", None, "ERR odd")]
    assert len(reader.pushes) == 2


def test_an_empty_array_is_read() -> None:
    found, _, _ = read_values([b"*0\r\n"], [])
    assert found == {}


@pytest.mark.parametrize("error", [b"-ERR no\r\n", b"-NOPERM x\r\n"])
def test_an_error_instead_of_the_array_is_returned(error: bytes) -> None:
    for parts in all_splits(PUSH + error):
        refusal, failures, reader = read_values(parts)
        assert isinstance(refusal, ErrorReply)
        assert str(refusal) == error[1:-2].decode()
        assert failures == []
        assert len(reader) == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"*3\r\n",
        b"*5\r\n",
        b"*-1\r\n",
        b"*x\r\n",
        b"*\r\n",
        b"+OK\r\n",
        b":4\r\n",
        b"$2\r\nab\r\n",
        b"_\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n",
        b"*99999999999999999999\r\n",
    ],
)
def test_another_reply_than_the_array_is_an_error(answer: bytes) -> None:
    reader = reply_reader()
    reader.feed(answer)
    with pytest.raises(InvalidResponse):
        reader.array(4)


@pytest.mark.parametrize(
    "value",
    [
        b"$3\r\nabXY$",
        b"$1\r\nabc\r\n",
        b"$x\r\n",
        b"$\r\n\r\n",
        b"$--1\r\n",
        b"$1x\r\nab",
        b":5\r\n",
        b"+OK\r\n",
        b"*1\r\n+a\r\n",
        b"*-1\r\n",
        b"$-7\r\n",
        b"!garbage\r\n",
        b"garbage\r\n",
        b"\x00\r\n",
        b"$" + b"1" * 40,
    ],
)
def test_another_reply_than_a_value_is_an_error(value: bytes) -> None:
    reader = reply_reader()
    reader.feed(b"*1\r\n" + value + b"\r\n" * 5)
    assert reader.array(1) is True
    with pytest.raises(InvalidResponse):
        reader.values(["k"], 0, RawCodec(), None, {}, [])


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n",
        b"\x00\x01\r\n",
        b"OK\r\n",
        b":1x\r\n",
        b"$1\r\nabcd\r\n",
        b"*x\r\n",
        b"$5x\r\n",
        b"=-x\r\n",
        b">x\r\n",
        b"<html>\r\n",
        b"\r\n",
        b"\r\n+OK\r\n",
    ],
    ids=repr,
)
def test_garbage_is_an_invalid_response(garbage: bytes) -> None:
    for parts in all_splits(garbage + b"+OK\r\n" * 3):
        reader = reply_reader()
        with pytest.raises(InvalidResponse):  # noqa: PT012
            for piece in parts:
                feed(reader, piece)
                reader.statuses(100, 0, [])
            assert reader.statuses(100, 0, []) == 0


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (
        lambda reader: reader.reply(),
        lambda reader: reader.statuses(50, 0, []),
        lambda reader: reader.array(2),
        lambda reader: reader.values(KEYS, 0, MsgpackCodec(), None, {}, []),
    ):
        reader = reply_reader()
        reader.feed(data)
        try:
            read(reader)
        except InvalidResponse:
            continue
        assert 0 <= len(reader) <= len(data)


def test_endlessly_nested_replies_are_refused() -> None:
    reader = reply_reader()
    reader.feed(b"*1\r\n" * 10_000)
    with pytest.raises(InvalidResponse, match="nested"):
        reader.reply()


def test_false_lengths_take_no_memory() -> None:
    for header in (
        b"$99999999999999\r\n",
        b"*99999999999999\r\n",
        b"%99999999999999\r\n",
        b"=99999999999999\r\n",
    ):
        reader = reply_reader()
        reader.feed(header)
        assert reader.reply() is None
        with reader.free_space() as free:
            assert len(free) < 1_000_000


# -- values that cannot be decoded ---------------------------------------------------------------


def test_values_that_cannot_be_decoded_are_failures_with_key_and_offset() -> None:
    stream = b"*4\r\n" + bulk(b"\x01") + bulk(b"\x92\x01\xc1") + bulk(b"\xa1x") + bulk(b"")
    for parts in all_splits(stream + b"+next\r\n"):
        found, failures, reader = read_values(parts, codec=MsgpackCodec())
        assert found == {"a": 1, "b": "default", "c": "x", "d": "default"}
        assert [(key, data, error.key, error.offset) for key, data, error in failures] == [
            ("b", b"\x92\x01\xc1", "b", 2),
            ("d", b"", "d", 0),
        ]
        assert all(isinstance(error, DecodeError) for _, _, error in failures)
        assert reader.reply() == (b"next",)


def test_an_error_of_the_codec_is_a_failure() -> None:
    found, failures, _ = read_values(
        [b"*4\r\n" + bulk(b"1") + bulk(b"{") + bulk(b"\xff") + bulk(b'"x"')], codec=resolve("json")
    )
    assert found == {"a": 1, "b": "default", "c": "default", "d": "x"}
    assert [key for key, _, _ in failures] == ["b", "c"]


def test_a_keyboard_interrupt_in_a_hook_is_raised_unchanged() -> None:
    def hook(code: int, data: bytes) -> Any:
        raise KeyboardInterrupt

    reader = reply_reader()
    reader.feed(b"*1\r\n" + bulk(b"\xd4\x01x"))
    assert reader.array(1) is True
    with pytest.raises(KeyboardInterrupt):
        reader.values(["k"], 0, MsgpackCodec(ext_hook=hook), None, {}, [])


def test_a_value_that_is_too_long_is_refused_by_its_header() -> None:
    reader = reply_reader(max_value_size=10)
    reader.feed(b"*2\r\n" + bulk(b"x" * 10) + b"$11\r\n")
    assert reader.array(2) is True
    found: dict[str, Any] = {}
    with pytest.raises(DecodeError, match="11 bytes: max_value_size is 10") as caught:
        reader.values(["a", "b"], 0, RawCodec(), None, found, [])
    assert caught.value.key == "b"
    assert found == {"a": b"x" * 10}


# -- the receive buffer --------------------------------------------------------------------------


def test_received_refuses_more_bytes_than_had_room() -> None:
    reader = reply_reader()
    room = len(reader.free_space())
    for wrong in (room + 1, -1):
        with pytest.raises(ValueError, match=r"received\(\) takes 0 to"):
            reader.received(wrong)


def test_the_buffer_does_not_move_while_it_is_filled() -> None:
    reader = reply_reader()
    view = reader.free_space()
    reader.received(len(view))
    with pytest.raises(BufferError):
        reader.free_space()
    view.release()
    assert len(reader.free_space()) > 0


@pytest.mark.parametrize(
    ("received", "expected", "whole"),
    [
        (b"+OK\r\n", b"+OK\r\n", True),
        (b"+OK\r\n" * 3, b"+OK\r\n" * 3, True),
        (b"", b"+OK\r\n", False),
        (b"+OK\r", b"+OK\r\n", False),
        (b"+OK\r\n+OK\r\n", b"+OK\r\n", False),
        (b"-OOM\r\n", b":1234\r\n", False),
    ],
)
def test_the_usual_reply_is_read_only_if_nothing_else_has_arrived(
    received: bytes, expected: bytes, whole: bool
) -> None:
    reader = reply_reader()
    reader.feed(received)
    assert reader.is_all(expected) is whole
    assert len(reader) == (0 if whole else len(received))


ANY = b"+OK\r\n:12\r\n*2\r\n$1\r\na\r\n*1\r\n_\r\n"


def test_replies_of_any_kind_are_counted_at_once() -> None:
    reader = reply_reader()
    reader.feed(ANY)
    assert reader.skip_all(3)
    assert reader.finished()


@pytest.mark.parametrize(
    "received",
    [
        *(ANY[:cut] for cut in range(len(ANY))),
        ANY + b"+",
        ANY.replace(b"+OK", b"-NO"),
        ANY.replace(b"*2", b"*3"),
        ANY.replace(b"$1", b"$2"),
        ANY.replace(b":12", b"?12"),
        b">2\r\n+a\r\n+b\r\n" + ANY,
        ANY + b">2\r\n+a\r\n+b\r\n",
    ],
)
def test_anything_else_than_replies_without_errors_is_read_again(received: bytes) -> None:
    reader, other = reply_reader(), reply_reader()
    for each in (reader, other):
        each.feed(received)
    assert not reader.skip_all(3)
    assert (len(reader), reader.pushes) == (len(received), [])
    found = []
    for each in (reader, other):
        errors: list[tuple[int, object]] = []
        try:
            read: object = each.skip(3, 0, errors)
        except Exception as error:
            read = str(error)
        found.append((read, [(i, str(error)) for i, error in errors], each.pushes, len(each)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("received", "number"),
    [
        (b":0\r\n", 0),
        (b":12\r\n", 12),
        (b":12\r", -1),
        (b":13\r\n", -1),
        (b":-1\r\n", -1),
        (b":12\r\n+", -1),
        (b":" + b"9" * 25 + b"\r\n", -1),
        (b"-OOM\r\n", -1),
        (b"", -1),
    ],
)
def test_a_number_is_read_only_if_nothing_else_has_arrived(received: bytes, number: int) -> None:
    reader = reply_reader()
    reader.feed(received)
    assert reader.only_number(12) == number
    assert len(reader) == (0 if number >= 0 else len(received))


NAMES = ["a", "b", "c"]
WHOLE = b"*3\r\n$1\r\n\x01\r\n$-1\r\n$4\r\n\xa3xyz\r\n"


def test_an_array_of_values_is_read_at_once() -> None:
    reader = reply_reader()
    reader.feed(WHOLE)
    found: dict[str, object] = {}
    assert reader.all_values(NAMES, MsgpackCodec(), "none", found) == len(WHOLE)
    assert found == {"a": 1, "b": "none", "c": "xyz"}
    assert reader.finished()


@pytest.mark.parametrize(
    "received",
    [
        *(WHOLE[:cut] for cut in range(len(WHOLE))),
        WHOLE + b"+",
        b"*2\r\n" + WHOLE[4:],
        b"*4\r\n" + WHOLE[4:],
        WHOLE.replace(b"\xa3xyz", b"\xc1xyz"),
        WHOLE.replace(b"$-1", b"$-2"),
        b">2\r\n+a\r\n+b\r\n" + WHOLE,
        b"-OOM no\r\n",
        b"$3\r\nabc\r\n",
    ],
)
def test_anything_else_leaves_all_of_it_to_be_read_again(received: bytes) -> None:
    reader = reply_reader()
    reader.feed(received)
    found: dict[str, object] = {}
    assert reader.all_values(NAMES, MsgpackCodec(), None, found) == 0
    assert (len(reader), reader.elements, found) == (len(received), 0, {})


def test_a_value_above_the_limit_is_left_to_be_read_again() -> None:
    reader = reply_reader(3)
    reader.feed(WHOLE)
    assert reader.all_values(NAMES, MsgpackCodec(), None, {}) == 0
    assert len(reader) == len(WHOLE)

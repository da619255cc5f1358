"""ParsedReplies and ReplyReader give a flight the same results for the same replies."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from redis.exceptions import InvalidResponse, ResponseError

from redis_fastbatch._core.msgpack.codec import MsgpackCodec
from redis_fastbatch._core.resp.replies import ErrorReply
from redis_fastbatch._transports.parsed_replies import ParsedReplies, explain
from redis_fastbatch._transports.redispy import reply_reader
from redis_fastbatch.errors import DecodeError

CODEC = MsgpackCodec()
WRONG_TYPE = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def both(data: bytes, max_value_size: int = 0) -> tuple[Any, Any]:
    """Return a ReplyReader and a ParsedReplies that have received the same bytes."""
    reader, parsed = reply_reader(max_value_size), ParsedReplies(max_value_size)
    reader.feed(data)
    parser = hiredis.Reader(replyError=ResponseError)
    parser.feed(data)
    while (reply := parser.gets()) is not False:
        parsed.feed(reply)
    return reader, parsed


def plain(reply: Any) -> Any:
    """Return a reply in a form that compares errors by their text."""
    return ("error", str(reply)) if isinstance(reply, Exception) else reply


@pytest.mark.parametrize("queued", [True, False])
@pytest.mark.parametrize("limit", [0, 3, 9])
def test_both_read_the_same_statuses(queued: bool, limit: int) -> None:
    data = b"+OK\r\n-ERR no\r\n+QUEUED\r\n:1\r\n$-1\r\n*2\r\n+OK\r\n:1\r\n+OK\r\n"
    outcomes = []
    for replies in both(data):
        non_ok_replies: list[tuple[int, Any]] = []
        read = replies.statuses(limit, 10, non_ok_replies, queued)
        outcomes.append((read, [(index, plain(reply)) for index, reply in non_ok_replies]))
        assert all(isinstance(reply, ErrorReply) for _, reply in non_ok_replies if isinstance(reply, Exception))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == min(limit, 7)


@pytest.mark.parametrize("most", [1, 2, 100])
@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("in_array", [True, False])
def test_both_read_the_same_values(most: int, pairs: bool, in_array: bool) -> None:
    values = [bulk(CODEC.dumps({"n": 1})), bulk(None), WRONG_TYPE, bulk(b"\xc1"), b"-ERR no\r\n", bulk(b"\x01")]
    keys = [f"k{i}" for i in range(len(values))]
    header = b"*%d\r\n" % len(values) if in_array else b""
    outcomes = []
    for replies in both(header + b"".join(values)):
        out: Any = [] if pairs else {}
        failures: list[tuple[Any, bytes | None, Exception]] = []
        assert not in_array or replies.array(len(keys)) is True
        assert len(replies) > 0
        done = 0
        while done < len(keys):
            before, done = done, replies.values(keys, done, CODEC, "default", out, failures, most)
            assert before < done <= before + most
        assert len(replies) == 0
        assert replies.finished()
        outcomes.append((out, [(key, data, type(error), plain(error)) for key, data, error in failures]))
    assert [failure[:2] for failure in outcomes[0][1]] == [failure[:2] for failure in outcomes[1][1]]
    # The types of errors may differ: a ReplyReader leaves it to explain() to make redis-py's exceptions.
    assert [failure[3] for failure in outcomes[0][1]] == [failure[3] for failure in outcomes[1][1]]
    assert outcomes[0][0] == outcomes[1][0]
    assert [failure[0] for failure in outcomes[1][1]] == ["k3", "k4"]


def test_explain_returns_the_exception_that_redis_py_made() -> None:
    error = ResponseError("no")
    parsed = ParsedReplies()
    parsed.feed(error)
    refusal = parsed.array(3)
    assert isinstance(refusal, ErrorReply)
    assert explain(refusal) is error


def test_without_replies_there_is_nothing_to_read() -> None:
    parsed = ParsedReplies()
    assert parsed.array(1) is False
    assert parsed.reply() is None
    assert parsed.statuses(5, 0, []) == 0
    assert parsed.values(["k"], 0, CODEC, None, {}, [], 5) == 0
    assert parsed.finished()


@pytest.mark.parametrize("data", [b":1\r\n", b"*1\r\n:1\r\n", b"$-1\r\n"])
def test_another_reply_than_the_expected_array_is_an_error(data: bytes) -> None:
    for replies in both(data):
        with pytest.raises(InvalidResponse, match="an array"):
            replies.array(2)


@pytest.mark.parametrize("data", [b"*1\r\n:1\r\n", b":1\r\n", b"*1\r\n*0\r\n"])
def test_another_reply_than_a_value_is_an_error(data: bytes) -> None:
    for replies in both(data):
        if data.startswith(b"*"):
            replies.array(1)
        with pytest.raises(InvalidResponse, match="expected"):
            replies.values(["k"], 0, CODEC, None, {}, [], 5)


def test_a_value_longer_than_max_value_size_is_refused() -> None:
    for replies in both(b"*1\r\n" + bulk(b"x" * 11), max_value_size=10):
        replies.array(1)
        with pytest.raises(DecodeError, match="a value of 11 bytes: max_value_size is 10") as caught:
            replies.values(["k"], 0, CODEC, None, {}, [], 5)
        assert caught.value.key == "k"

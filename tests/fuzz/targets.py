"""Targets of the fuzzers. Each compares the result for an input with that of other code."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hiredis
import msgpack
from redis.exceptions import InvalidResponse

from fuzz.values import Values
from msgpack_reference import their_value
from redis_fastbatch import CompressedCodec, DecodeError, EncodeError, JsonCodec, MsgpackCodec
from redis_fastbatch._core.arrow.builder import ColumnBuilder
from redis_fastbatch._core.arrow.hash_columns import HashColumns
from redis_fastbatch._core.arrow.rows_builder import RowsBuilder
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._core.resp.hash_rows import HashRows
from redis_fastbatch._core.resp.hashes import counts
from redis_fastbatch._core.resp.replies import ErrorReply, ReplyFormat, ReplyReader
from redis_fastbatch._core.toolkit import plain as plain
from redis_fastbatch._core.toolkit.codec import ToolkitCodec, ToolkitMsgpackCodec
from redis_fastbatch._transports.redispy import reply_reader

CORPUS = Path(__file__).parent / "corpus"
REFUSED = "refused"
NOTHING = object()
# The codecs are shared by all inputs, because what they remember must not affect later values.
msgpack_codec, toolkit_codec, toolkit_msgpack_codec = MsgpackCodec(), ToolkitCodec(), ToolkitMsgpackCodec()
COMPRESSED_LIMIT = 10_000
compressed_codec = CompressedCodec("raw", "zlib", min_size=20, max_value_size=COMPRESSED_LIMIT)
json_codec, lenient_json_codec = JsonCodec(), JsonCodec(allow_nan=True)


@dataclass(frozen=True)
class Target:
    """Something to fuzz.

    Attributes:
        check: takes an input, and raises AssertionError for a wrong result.
        tokens: pieces to insert into inputs.
        seeds: the first inputs.
    """

    check: Callable[[bytes], None]
    tokens: tuple[bytes, ...]
    seeds: tuple[bytes, ...]


# -- decoding MessagePack ------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """Return a value as text, in which NaN equals NaN, and 1 differs from True and 1.0."""
    return repr(value)


def loaded(loads: Callable[[bytes], Any], data: bytes, *errors: type[Exception]) -> str:
    """Return the value read as text, or REFUSED."""
    try:
        return as_text(loads(data))
    except errors:
        return REFUSED


def check_msgpack_loads(data: bytes) -> None:
    ours = loaded(msgpack_codec.loads, data, DecodeError)
    theirs = loaded(
        their_value, data, ValueError, TypeError, OverflowError, msgpack.UnpackException, RecursionError
    )
    assert ours == theirs


# -- reading replies -----------------------------------------------------------------------------


def fed(data: bytes, step: int) -> list[Any]:
    """Return the replies and push messages of a stream that arrives in pieces of `step` bytes."""
    reader, found = reply_reader(), []
    try:
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
            while (whole := reader.reply()) is not None:
                found.append(whole[0])
    except InvalidResponse:
        found.append(REFUSED)
    return [found, reader.pushes]


def hiredis_found(data: bytes) -> list[Any]:
    """Return the replies that hiredis reads from a stream without push messages and attributes."""
    reader, found = hiredis.Reader(replyError=ErrorReply, notEnoughData=NOTHING), []
    reader.feed(data)
    try:
        while (reply := reader.gets()) is not NOTHING:
            found.append(reply)
    except (hiredis.HiredisError, TypeError):
        found.append(REFUSED)
    return found


def check_replies(data: bytes) -> None:
    if not data:
        return
    step, data = data[0] % 32 + 1, data[1:]
    whole = fed(data, max(1, len(data)))
    assert as_text(fed(data, step)) == as_text(whole), "the replies differ if the stream arrives in pieces"
    # hiredis allocates memory for declared lengths, reads past verbatim strings, and takes push messages and
    # attributes for replies.
    if not re.search(rb"[>|=]|\d{6}", data):
        check_against_hiredis(whole[0], hiredis_found(data))
    read_as(data, step, values_of)
    read_as(data, step, statuses_of)
    read_as(data, step, counts_of)
    check_hash_rows(data, step, whole[0])
    check_any_replies(data, step, whole[0])


def any_replies(data: bytes, step: int) -> tuple[list[Any], int, list[int]]:
    """Return the replies of a stream, how many can be skipped, and the indices of skipped error replies."""
    reading, skipping, found, errors = reply_reader(), reply_reader(), [], []
    skipped = 0
    form = ReplyFormat(lambda reply: reply)
    for start in range(0, len(data), step):
        reading.feed(data[start : start + step])
        skipping.feed(data[start : start + step])
        # Each has to read what it can before the other may refuse it.
        with contextlib.suppress(InvalidResponse):
            reading.replies(1000, found, [], form)
            skipped += skipping.skip(1000, skipped, errors)
            continue
        found.append(REFUSED)
        break
    return found, skipped, [index for index, _ in errors]


def check_any_replies(data: bytes, step: int, by_hiredis: list[Any]) -> None:
    """Replies are the same in pieces, and those that hiredis finds. As many of them are skipped."""
    found, skipped, errors = any_replies(data, max(1, len(data)))
    in_pieces = any_replies(data, step)
    if found and found[-1] is REFUSED:
        return
    assert as_text(in_pieces) == as_text((found, skipped, errors)), "read differently in pieces"
    assert skipped == len(found)
    assert errors == [index for index, reply in enumerate(found) if isinstance(reply, ErrorReply)]
    if REFUSED not in by_hiredis and b"(" not in data:
        assert as_text(found) == as_text(by_hiredis)


def check_against_hiredis(ours: list[Any], theirs: list[Any]) -> None:
    """Check that hiredis finds the same replies. ReplyReader may refuse garbage earlier."""
    refused = bool(ours) and ours[-1] is REFUSED
    found = ours[:-1] if refused else ours
    assert as_text(found) == as_text(theirs[: len(found)])
    if not refused:
        assert len(theirs) - (bool(theirs) and theirs[-1] is REFUSED) == len(found)


def values_of(reader: ReplyReader, out: dict[str, Any]) -> None:
    keys = [f"k{i}" for i in range(3)]
    if not reader.elements and not out and reader.array(3) is not True:
        return
    reader.values(keys, len(out), msgpack_codec, None, out, [])


def statuses_of(reader: ReplyReader, out: dict[str, Any]) -> None:
    non_ok_replies: list[tuple[int, Any]] = []
    reader.statuses(100, 0, non_ok_replies)


def counts_of(reader: ReplyReader, out: dict[str, Any]) -> None:
    others: list[tuple[int, Any]] = []
    done = counts(reader, 100, 0, others, 3)
    assert len(others) <= done


def hash_rows(data: bytes, step: int, rows: HashRows | HashColumns) -> tuple[list[Any], list[str]]:
    """Return the hashes of a stream that arrives in pieces, and what cannot be read."""
    reader, out, failures, done = reply_reader(1000), list[Any](), list[Any](), 0
    keys = [str(i) for i in range(100)]
    try:
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
            done = rows.read(reader, keys, done, "missing", out, failures)
            assert done == len(out)
    except (InvalidResponse, DecodeError):
        out.append(("", REFUSED))
    return [row for _, row in out], [str(failure) for failure in failures]


def check_hash_rows(data: bytes, step: int, replies: list[Any]) -> None:
    """Hashes are the same in pieces, and those that hiredis' lists and dicts have."""
    for types, codec in ((None, None), ({"a": int, "b": float}, None), (None, msgpack_codec)):
        found, failed = hash_rows(data, max(1, len(data)), HashRows(types, codec))
        in_pieces, failed_in_pieces = hash_rows(data, step, HashRows(types, codec))
        if REFUSED not in (*found, *in_pieces):
            assert as_text((found, failed)) == as_text((in_pieces, failed_in_pieces))
        if types is None and codec is None and not failed:
            for row, reply in zip(found, replies, strict=False):
                if isinstance(row, dict) and reply is not REFUSED:
                    items = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
                    assert row == dict(items)
        hash_rows(data, step, HashRows(types, codec, [("a", b"a"), ("b", b"b")]))
    for shapes in (None, ("int", "float64"), ("bool", "text"), ("uint", "binary")):
        names = None if shapes is None else list(map(ColumnBuilder, "ab", shapes))
        hash_rows(data, step, HashColumns(RowsBuilder(names), wanted=shapes is not None))


def read_as(data: bytes, step: int, read: Callable[[ReplyReader, dict[str, Any]], None]) -> None:
    """Read a stream in pieces as another kind of replies."""
    reader, out = reply_reader(1000), {}
    try:
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
            read(reader, out)
        reader.finished()
    except (InvalidResponse, DecodeError):
        return


# -- encoding ------------------------------------------------------------------------------------


def written(dumps: Callable[[Any], bytes], value: Any, *errors: type[Exception]) -> bytes | str:
    """Return the encoded bytes, or REFUSED."""
    try:
        return dumps(value)
    except errors:
        return REFUSED


def check_msgpack_dumps(data: bytes) -> None:
    value = Values(data).value()
    ours = written(msgpack_codec.dumps, value, EncodeError)
    reference = partial(msgpack.packb, use_bin_type=True, datetime=True)
    assert ours == written(reference, value, ValueError, TypeError, OverflowError, RecursionError)
    check_chunk(data, value, ours)


def check_chunk(data: bytes, value: Any, expected: bytes | str) -> None:
    """Check the bytes of a command that has the value between two others."""
    before = b"x" * (len(data) % 120)
    writer = BatchWriter(
        [("a", before), ("b", value), ("c", 1)],
        Command(b"MSET", many=True),
        msgpack_codec,
        max_items=9,
        max_bytes=2**30,
    )
    chunk = writer.blank()
    writer.fill(chunk)
    written = [b"b", expected] if isinstance(expected, bytes) else []
    arguments = [b"MSET", b"a", msgpack.packb(before), *written, b"c", b"\x01"]
    parts = [b"*%d\r\n" % len(arguments), *(b"$%d\r\n%b\r\n" % (len(part), part) for part in arguments)]
    assert bytes(memoryview(chunk)) == b"".join(parts)


# -- the toolkit's format ------------------------------------------------------------------------


def check_toolkit_loads(data: bytes) -> None:
    ours = loaded(toolkit_codec.loads, data, DecodeError)
    assert ours == loaded(plain.loads, data, Exception)
    tagged = b"\xc1" + data
    assert loaded(toolkit_msgpack_codec.loads, tagged, DecodeError) == loaded(
        msgpack_codec.loads, data, DecodeError
    )


def check_toolkit_dumps(data: bytes) -> None:
    value = Values(data).value()
    ours = written(toolkit_codec.dumps, value, EncodeError)
    assert ours == written(plain.dumps, value, Exception)
    if ours is not REFUSED:
        assert loaded(toolkit_codec.loads, ours, DecodeError) == loaded(plain.loads, ours, Exception)


# -- JSON ----------------------------------------------------------------------------------------


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def check_json_loads(data: bytes) -> None:
    errors = (ValueError, RecursionError)
    assert loaded(json_codec.loads, data, DecodeError) == loaded(
        partial(json.loads, parse_constant=refuse_constant), data, *errors
    )
    assert loaded(lenient_json_codec.loads, data, DecodeError) == loaded(json.loads, data, *errors)


def check_compressed_loads(data: bytes) -> None:
    """Compare with gzip itself. Frames of zstd and LZ4 need only be read or refused, and never be too long."""
    if data.startswith((b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")):
        with contextlib.suppress(DecodeError):
            assert len(compressed_codec.loads(data)) <= COMPRESSED_LIMIT
    else:
        is_frame = data.startswith(b"\x1f\x8b\x08")
        expected = loaded(gunzip, data, ValueError, zlib.error) if is_frame else as_text(data)
        assert loaded(compressed_codec.loads, data, DecodeError) == expected
    assert compressed_codec.loads(compressed_codec.dumps(data)) == data or len(data) > COMPRESSED_LIMIT


def gunzip(data: bytes) -> bytes:
    one = zlib.decompressobj(31)
    found = one.decompress(data)
    if not one.eof or one.unused_data or len(found) > COMPRESSED_LIMIT:
        raise ValueError("not one frame of an allowed size")
    return found


def json_bytes(value: Any, allow_nan: bool = True) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=allow_nan).encode()


def check_json_dumps(data: bytes) -> None:
    value = Values(data).value()
    errors = (ValueError, TypeError, RecursionError)
    ours = written(json_codec.dumps, value, EncodeError)
    assert ours == written(partial(json_bytes, allow_nan=False), value, *errors)
    assert written(lenient_json_codec.dumps, value, EncodeError) == written(json_bytes, value, *errors)
    if isinstance(ours, bytes):
        check_json_loads(ours)


# -- all of them ---------------------------------------------------------------------------------

MSGPACK_SEEDS = tuple(
    msgpack.packb(value)
    for value in (
        {"id": 1, "name": "é", "tags": ["a", 1.5, None], "n": {"deep": [True, False]}},
        [{"a": i, "b": "x" * i} for i in range(6)],
        [-1, -33, 200, 70_000, 2**40, -(2**40), b"bytes", msgpack.ExtType(1, b"x"), msgpack.Timestamp(1, 2)],
    )
)
PACKED: tuple[Any, ...] = ({"a": 1}, {"a": 1, "b": 2}, ["a"], "a", "__class__", "é", 1.5, float("nan"))
MSGPACK_TOKENS = (
    *(bytes([marker]) for marker in range(0xC0, 0xE0)),
    *(struct.pack(">BI", marker, size) for marker in b"\xdb\xdd\xdf\xc6\xc9" for size in (0, 1, 2**32 - 1)),
    *(struct.pack(">BH", marker, size) for marker in b"\xda\xdc\xde\xc5\xc8" for size in (0, 3, 65535)),
    *(msgpack.packb(value) for value in PACKED),
    *(msgpack.packb({"id": value, "name": "n"}) for value in (1, "x", [1], {}, None, 2.5)),
    *(b"\xd6\xff\0\0\0\1", b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\0" * 12),
)
REPLY_TOKENS = (
    *(bytes([mark]) for mark in b"+-:_,#($=!*~>%|019\r\n"),
    *(
        b"\r\n",
        b"-1",
        b"$1\r\n\xc0\r\n",
        b"$3\r\n\x81\xa1a\r\n",
        b"$0\r\n\r\n",
        b"-ERR x\r\n",
        b"-WRONGTYPE x\r\n",
    ),
    *(b"$1\r\na\r\n", b"$1\r\nb\r\n", b"$4\r\n-1.5\r\n", b"*2\r\n$1\r\na\r\n$1\r\n7\r\n"),
    *(b">1\r\n+a\r\n", b"|1\r\n+a\r\n+b\r\n", b"=5\r\ntxt:a\r\n", b"+QUEUED\r\n"),
    *(
        line + b"\r\n"
        for line in b"+OK :1 $-1 _ *3 *2 *0 *-1 %1 ~1 #t #f (1 ,1.5 $1001 $99999999999999999999 *999999999".split()
    ),
)
REPLY_SEEDS = (
    b"\x05+OK\r\n+OK\r\n:1\r\n-ERR no\r\n$-1\r\n",
    b"\x01*3\r\n$1\r\n\x05\r\n$-1\r\n$6\r\n\x81\xa1a\x91\x01\x02\r\n",
    b"\x0b>2\r\n+a\r\n:1\r\n*2\r\n%1\r\n+a\r\n#t\r\n_\r\n",
    b"\x03" + 6 * b"*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$3\r\n2.5\r\n" + b"%1\r\n$1\r\nb\r\n$2\r\n-1\r\n*0\r\n",
)
JSON_TOKENS = (
    *(
        b'{"__type__": "',
        b'", "__data__": ',
        b'"a": 1',
        b'"b": [1]',
        b'"a":1',
        b',"b":',
        b", ",
        b": ",
        b" ",
        b"\n",
        b"\\",
        b"\xed\xa0\x80",
    ),
    *b"dict list tuple str int float bool bytes bytearray __NONE__ true false null NaN Infinity -Infinity".split(),
    *b'" { } [ ] , : - 0 1 1.5 1e5 -0.0 AAAA AA== A \\u00e9 \\ud800 \\n \xc3\xa9 \xe8\xaf\xad \xff'.split(),
    *(b"1" * 20, b"9" * 25),
)
JSON_VALUES: tuple[Any, ...] = (
    {"a": 1, "b": [1.5, None, "é\n"], "c": b"bytes"},
    [1, 2, {"x": {}}],
    (1, 2),
    "text",
)
JSON_SEEDS = tuple(plain.dumps(value) for value in (*JSON_VALUES, b"raw", 5, 2.5, True, None))
PLAIN_JSON_SEEDS = tuple(
    json.dumps(value, **spelling).encode()
    for value in ([{"id": i, "name": "é\n", "tags": [i, 1.5]} for i in range(6)], "😀", [-1, 1e300, None, True])
    for spelling in ({}, {"indent": 1}, {"separators": (",", ":"), "ensure_ascii": False})
)
FRAMES = tuple(gzip.compress(bytes(range(256)) * n + b"a" * n, mtime=0) for n in (0, 1, 3, 20, 50))
COMPRESSED_SEEDS = (
    *FRAMES,
    *(frame * 2 for frame in FRAMES),
    *(frame[:-3] for frame in FRAMES),
    *(frame[3:] for frame in FRAMES),
    *(b"", b"\x1f", b"\x1f\x8b", b"plain text"),
)
COMPRESSED_TOKENS = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\x00" * 8, b"a" * 300)
VALUE_TOKENS = tuple(bytes([kind, size]) for kind in range(24) for size in (0, 1, 2, 5, 40))
VALUE_SEEDS = (bytes(range(64)), bytes(reversed(range(200))), b"\x0d\x05" * 30)

TARGETS = {
    "msgpack-loads": Target(check_msgpack_loads, MSGPACK_TOKENS, MSGPACK_SEEDS),
    "replies": Target(check_replies, REPLY_TOKENS, REPLY_SEEDS),
    "msgpack-dumps": Target(check_msgpack_dumps, VALUE_TOKENS, VALUE_SEEDS),
    "json-loads": Target(check_json_loads, JSON_TOKENS, (*JSON_SEEDS, *PLAIN_JSON_SEEDS)),
    "json-dumps": Target(check_json_dumps, VALUE_TOKENS, VALUE_SEEDS),
    "compressed-loads": Target(check_compressed_loads, COMPRESSED_TOKENS, COMPRESSED_SEEDS),
    "toolkit-loads": Target(check_toolkit_loads, JSON_TOKENS, JSON_SEEDS),
    "toolkit-dumps": Target(check_toolkit_dumps, VALUE_TOKENS, VALUE_SEEDS),
}


def corpus_of(name: str) -> list[bytes]:
    """Return the first inputs of a target: its seeds and those in the corpus."""
    kept = CORPUS / f"{name}.hex"
    lines = kept.read_text().split() if kept.exists() else []
    return [*TARGETS[name].seeds, *map(bytes.fromhex, lines)]

"""Uses the whole public API, for type checkers alone: `mypy --strict tests/typing`, `pyright tests/typing`.

It is never run. assert_type() states the type that an expression must have.
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import redis
import redis.asyncio
from typing_extensions import assert_type

import redis_fastbatch
from redis_fastbatch import (
    AsyncFastBatch,
    BatchError,
    BatchReport,
    ChunkStats,
    Codec,
    CompressedCodec,
    DecodeError,
    EncodeError,
    FastBatch,
    FastBatchError,
    MsgpackCodec,
    RawCodec,
    RedisToolkit,
    col,
    row,
)
from redis_fastbatch._tables.write import arrow_default
from redis_fastbatch.codecs import ValueCodec, common_types
from redis_fastbatch.server import EmbeddedServer

assert_type(redis_fastbatch.__version__, str)


class Text:
    """A custom codec, which needs no base class."""

    def dumps(self, value: Any, /) -> bytes:
        return str(value).encode()

    def loads(self, data: bytes, /) -> str:
        return data.decode()


class Frame:
    """A DataFrame of any library."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def compressing() -> None:
    FastBatch(redis.Redis(), CompressedCodec("json", "lz4", level=3, min_size=100, max_value_size=1000))
    FastBatch(redis.Redis(), CompressedCodec(Text()))
    FastBatch(redis.Redis(), CompressedCodec(MsgpackCodec(type=Frame)))


def making() -> FastBatch:
    codec: Codec = Text()
    FastBatch(redis.Redis(), codec)
    FastBatch(redis.Redis(), Text(), max_value_size=10_000, pause_gc=False)
    FastBatch(redis.Redis(decode_responses=True), "json")
    FastBatch(redis.Redis(), RawCodec())
    FastBatch(redis.Redis(), MsgpackCodec(default=common_types, ext_hook=lambda code, data: (code, data)))
    FastBatch(redis.Redis(), MsgpackCodec(default=arrow_default))
    FastBatch(redis.RedisCluster(host="localhost"))
    FastBatch.from_url("redis://localhost", cluster=True)
    with FastBatch.from_url("redis://localhost", "msgpack", max_value_size=1, socket_timeout=1.0) as fb:
        assert_type(fb, FastBatch)
        assert_type(fb.client, redis.Redis)
        fb.close()
    return fb


def writing(fb: FastBatch) -> None:
    frame = Frame()

    def pairs() -> Iterator[tuple[str, int]]:
        yield "a", 1

    def progress(done: int, total: int | None) -> None: ...

    def dead(key: Any, value: Any, error: Exception) -> None: ...

    def measured(stats: ChunkStats) -> None:
        assert_type(stats.items, int)
        assert_type(stats.bytes, int)
        assert_type(stats.seconds, float)
        assert_type(stats.in_flight, int)

    report = fb.batch_set({"a": 1, "b": None, "c": [1, {"x": 2.5}]})
    mixed: dict[str | bytes | int, Any] = {"a": 1, b"b": None, 3: "c"}
    fb.batch_set(mixed)
    fb.batch_set(mixed.items())
    fb.batch_set([("a", 1), (b"b", 2), [3, 4]])
    fb.batch_hset({"a": {"x": 1}})
    fb.batch_hset([(7, {b"x": 1})])
    assert_type(report, BatchReport)
    fb.batch_set(pairs(), ex=60, progress=True, on_error="report", on_chunk=measured, workers=2)
    fb.batch_set([("a", 1)], px=datetime.timedelta(seconds=1), progress=progress, on_error=dead, chunk_size=100)
    fb.batch_set({}, exat=datetime.datetime.now(tz=datetime.timezone.utc), nx=True)
    fb.batch_set({}, pxat=1_900_000_000_000, xx=True)
    fb.batch_set({}, keepttl=True, atomic=True, on_error="raise")
    assert_type(fb.batch_set_table(frame, key="id", prefix="row:", ex=60), BatchReport)
    fb.batch_set_table(frame, key="row:{id}", as_="hash", columns=["id"], on_error="report")
    assert_type(fb.batch_delete(["a", b"b", 3]), int)
    assert_type(fb.batch_execute([("ZADD", "board", 5, "amina"), ["INCR", b"n"]]), BatchReport)
    commands = (("INCR", f"n:{i}") for i in range(3))
    fb.batch_execute(commands, chunk_size=10, progress=True, on_error=dead, on_chunk=measured, repeatable=True)
    at = col("at", times="seconds", null="skip_pair")
    assert_type(fb.batch_execute_table(frame, ["XADD", "{s}", 5, "at", at, row("json", ["a"])]), BatchReport)
    assert_type(fb.batch_execute_iter([("GET", "a")], raise_on_error=False), Iterator[Any])


def reading(fb: FastBatch) -> None:
    assert_type(fb.batch_get(["a", "b"], default=0, on_error="report", workers=2), dict[str, Any])
    assert_type(fb.batch_get({1: "a"}), dict[int, Any])
    assert_type(fb.batch_get(n for n in range(3)), dict[int, Any])
    mixed: list[str | bytes] = ["a", b"b"]
    assert_type(fb.batch_get(mixed), dict[str | bytes, Any])
    some: Iterable[bytes] = [b"a"]
    assert_type(fb.batch_get(some), dict[bytes, Any])
    pairs = fb.batch_get_iter(iter(["a"]), default=None, chunk_size=10, on_error=print)
    assert_type(pairs, Iterator[tuple[str, Any]])
    assert_type(fb.batch_hgetall(["a"], types=int), dict[str, Any])
    assert_type(fb.batch_hmget([b"a"], ["x"]), dict[bytes, Any])
    assert_type(fb.batch_hgetall_iter([1]), Iterator[tuple[int, Any]])
    print(fb.batch_get_table(["a", b"b", 3], schema=None, key="id").num_rows)
    assert_type(fb.scan("user:*", count=10), Iterator[Any])


def reported(report: BatchReport) -> None:
    assert_type(report.written, int)
    assert_type(report.skipped, int)
    assert_type(report.failed, int)
    assert_type(report.failures, dict[Any, Exception])
    assert_type(report.skipped_keys, list[Any])
    assert_type(report.confirmed_prefix, int)
    assert_type(report.bytes_sent, int)
    assert_type(report.seconds, float)
    assert_type(report.total, int)
    assert_type(report.items_per_second, float)
    assert_type(report.summary(), str)
    assert_type(report.first_failure(), str)


def failing(fb: FastBatch) -> None:
    try:
        fb.batch_set({"a": object()})
    except BatchError as error:
        assert_type(error.report, BatchReport)
    except EncodeError as error:
        assert_type(error.reason, str)
    except DecodeError as error:
        assert_type(error.offset, int)
        assert_type(error.reason, str)
    except FastBatchError:
        pass


async def asynchronously() -> None:
    async def pairs() -> AsyncIterator[tuple[str, int]]:
        yield "a", 1

    async def keys() -> AsyncIterator[str]:
        yield "a"

    AsyncFastBatch(redis.asyncio.RedisCluster(host="localhost"))
    AsyncFastBatch(redis.asyncio.Redis(), Text(), max_value_size=1, pause_gc=False)
    async with AsyncFastBatch.from_url("redis://localhost", "json", socket_timeout=1.0) as fb:
        assert_type(fb, AsyncFastBatch)
        assert_type(fb.client, redis.asyncio.Redis)
        assert_type(await fb.batch_set(pairs(), ex=60, on_error=print), BatchReport)
        assert_type(await fb.batch_set({"a": 1}, nx=True, atomic=True, progress=True), BatchReport)
        assert_type(await fb.batch_get(keys(), default=0), dict[str, Any])
        assert_type(await fb.batch_get([b"a"]), dict[bytes, Any])
        assert_type(await fb.batch_hgetall(keys()), dict[str, Any])
        assert_type(await fb.batch_set_table(Frame(), key="id", ex=5, nx=True), BatchReport)
        async for key, value in fb.batch_get_iter(["a", "b"], chunk_size=10):
            print(key, value)
        async for found in fb.scan("user:*"):
            print(found)
        assert_type(await fb.batch_delete(keys()), int)
        assert_type(await fb.batch_execute([("INCR", "n")], on_error="report"), BatchReport)
        async for reply in fb.batch_execute_iter([["GET", "a"]]):
            print(reply)
        await fb.aclose()


def codecs() -> None:
    codec: ValueCodec = MsgpackCodec()
    assert_type(codec.dumps({"a": 1}), bytes)
    codec.loads(memoryview(b"\x01"))


def embedded() -> None:
    with EmbeddedServer(maxmemory="10mb", appendonly=True) as server:
        assert_type(server.url, str)
        assert_type(server.port, int)
        assert_type(server.client(), redis.Redis)


def toolkit() -> None:
    with RedisToolkit() as kit:
        kit.setter("a", {"b": 1})
        kit.getter("a")
        kit.batch_set({"a": 1})
        kit.batch_get(["a", "b"])

"""Mistakes that type checkers find. Each line with one says which error it is; without the error the check fails.

It is never run: `mypy --strict tests/typing`, `pyright tests/typing`.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import redis

from redis_fastbatch import AsyncFastBatch, CompressedCodec, FastBatch, JsonCodec

fb = FastBatch(redis.Redis())

FastBatch(redis.Redis(), codec="pickle")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
FastBatch(redis.Redis(), codec=JsonCodec)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
FastBatch.from_url("redis://localhost", codec="msgpck")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
CompressedCodec("msgpack", "brotli")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
FastBatch("redis://localhost")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

fb.batch_set({1.5: 2})  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
fb.batch_set({None: 2})  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
fb.batch_set([(1.5, 2)])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
fb.batch_set(["a", "b"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
fb.batch_set("ab")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fb.batch_set({"a": 1}, on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fb.batch_set({"a": 1}, ex="60")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fb.batch_hset({"a": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
fb.batch_hset({1.5: {"a": 1}})  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]

# A text is an iterable of texts. The call passes, but its result is of no use.
fb.batch_get("abc")["abc"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
fb.batch_get(b"abc").values()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
found: dict[str, int] = fb.batch_get("abc")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
fb.batch_get([1.5])  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
fb.batch_get(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
fb.batch_get_iter([None])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
fb.batch_hgetall([1.5])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
fb.batch_delete([1.5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]

fb.batch_set_table({"id": [1, 2]}, key="id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fb.batch_set_table([{"id": 1}], key="id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fb.batch_execute_table({"id": [1]}, ["GET"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fb.batch_get_table(["a"], as_="rows")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def asynchronously(fb: AsyncFastBatch) -> None:
    await fb.batch_set({1.5: 2})  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    (await fb.batch_get("abc"))["abc"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    await fb.batch_get([1.5])  # type: ignore[type-var]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await fb.batch_set_table({"id": [1]}, key="id")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await fb.batch_set_table([], key="id", exx=5)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]

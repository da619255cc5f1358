"""A FastBatch can be pickled for worker processes, and errors can be pickled back."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import zlib
from decimal import Decimal
from typing import Any

import pytest
import redis

from redis_fastbatch import BatchError, BatchReport, DecodeError, EncodeError, FastBatch, MsgpackCodec
from redis_fastbatch.codecs import RawCodec, ToolkitCodec, ToolkitMsgpackCodec, common_types
from redis_fastbatch.server import EmbeddedServer


def pair(code: int, data: bytes) -> tuple[int, bytes]:
    return code, data


class Compressed(MsgpackCodec):
    def dumps(self, value: Any) -> bytes:
        return zlib.compress(super().dumps(value))

    def loads(self, data: Any) -> Any:
        return super().loads(zlib.decompress(data))


class WithNote(MsgpackCodec):
    """A codec whose __init__() takes other arguments than its base's."""

    note = ""

    def __init__(self) -> None:
        super().__init__(default=common_types, ext_hook=pair)


def test_a_client_made_from_a_url_can_be_copied_and_pickled(server: EmbeddedServer) -> None:
    with FastBatch.from_url(server.url) as fast:
        fast.batch_set({"a": [1]})
        for copied in (pickle.loads(pickle.dumps(fast)), copy.copy(fast), copy.deepcopy(fast)):
            assert type(copied) is FastBatch
            assert copied.client is not fast.client
            assert copied.batch_get(["a"]) == {"a": [1]}
            copied.close()


def test_a_copy_has_the_same_settings(valkey: EmbeddedServer) -> None:
    fast = FastBatch.from_url(
        valkey.url, "json", max_value_size=100, pause_gc=False, decode_responses=True, client_name="worker"
    )
    copied = pickle.loads(pickle.dumps(fast))
    copied.batch_set({"a": {"b": 1}})
    assert copied.client.get("a") == '{"b":1}'
    assert copied.client.client_getname() == "worker"
    copied.client.set("long", "x" * 101)
    with pytest.raises(DecodeError, match="max_value_size is 100"):
        copied.batch_get(["long"])
    assert copied._pause_gc is False
    for one in (fast, copied):
        one.close()


@pytest.mark.parametrize(
    "codec", [MsgpackCodec(default=common_types, ext_hook=pair), RawCodec(), ToolkitCodec(), Compressed()]
)
def test_a_copy_has_the_same_codec(valkey: EmbeddedServer, codec: Any) -> None:
    codec.dumps("a codec that was used")
    value = "text" if isinstance(codec, RawCodec) else ["text", 1, None]
    with FastBatch.from_url(valkey.url, codec) as fast:
        for copied in (pickle.loads(pickle.dumps(fast)), copy.copy(fast), copy.deepcopy(fast)):
            copied.batch_set({"k": value})
            assert fast.client.get("k") == codec.dumps(value)
            assert copied.batch_get(["k"]) == fast.batch_get(["k"])
            copied.close()


def test_a_copied_codec_has_the_same_hooks_and_attributes() -> None:
    codec = WithNote()
    codec.note = "mine"
    for again in (pickle.loads(pickle.dumps(codec)), copy.copy(codec), copy.deepcopy(codec)):
        assert (type(again), again.note) == (WithNote, "mine")
        assert again.loads(again.dumps([Decimal(1)])) == ["1"]
        assert again.loads(b"\xd4\x03x") == (3, b"x")
    toolkit = pickle.loads(pickle.dumps(ToolkitMsgpackCodec(preserve_int=True)))
    assert toolkit.preserve_int is True


def test_a_copied_codec_has_a_buffer_of_its_own() -> None:
    codec = MsgpackCodec(default=lambda value: copied.dumps("inner text"))
    codec.dumps("used once")
    copied = copy.copy(codec)
    assert codec.loads(codec.dumps(["outer", object(), "tail"])) == ["outer", copied.dumps("inner text"), "tail"]


def test_a_client_made_from_a_redis_client_cannot_be_pickled(valkey_client: redis.Redis) -> None:
    with pytest.raises(TypeError, match="from_url"):
        pickle.dumps(FastBatch(valkey_client))


def test_a_copy_of_a_subclass_has_the_same_class(valkey: EmbeddedServer) -> None:
    with Own.from_url(valkey.url) as own, pickle.loads(pickle.dumps(own)) as copied:
        assert type(copied) is Own


class Own(FastBatch):
    """A class at the module's level, because pickle finds classes by name."""


def work(fast: FastBatch, number: int) -> int:
    return fast.batch_set({f"worker:{number}:{i}": i for i in range(500)}, ex=100).written


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_worker_processes_may_use_a_pickled_client(
    valkey: EmbeddedServer, valkey_client: redis.Redis, method: str
) -> None:
    with FastBatch.from_url(valkey.url) as fast:
        fast.batch_set({"before": 1})
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.starmap(work, [(fast, number) for number in range(4)]) == [500] * 4
        assert valkey_client.dbsize() == 2001
        assert fast.batch_get(["before", "worker:3:499"]) == {"before": 1, "worker:3:499": 499}


@pytest.mark.parametrize(
    "error",
    [
        EncodeError("reason", "key"),
        EncodeError("reason"),
        DecodeError("reason", 7, b"key"),
        BatchError("message", BatchReport(written=3, failed=1, failures={"k": EncodeError("r", "k")})),
    ],
    ids=repr,
)
def test_errors_can_be_pickled(error: Any) -> None:
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    for name in ("reason", "key", "offset"):
        assert getattr(copied, name, None) == getattr(error, name, None)
    if isinstance(error, BatchError):
        assert copied.report.written == 3
        assert str(copied.report.failures["k"]) == "key 'k': r"


def test_reports_can_be_pickled(valkey_client: redis.Redis) -> None:
    report = FastBatch(valkey_client).batch_set({"a": 1, "b": object()}, on_error="report")
    copied = pickle.loads(pickle.dumps(report))
    assert (copied.written, copied.failed, copied.summary()) == (1, 1, report.summary())
    assert list(copied.failures) == ["b"]

"""An item that cannot be encoded fails alone: the error names its key, and none of its bytes are sent."""

from __future__ import annotations

import datetime
import html
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import redis

from checks import commands, in_use, proxied
from faults.streams import Direction
from labels import label
from redis_fastbatch import BatchError, DecodeError, EncodeError, FastBatch, FastBatchError, MsgpackCodec
from redis_fastbatch.server import EmbeddedServer

MARK = "MARK-OF-THE-BAD-ITEM"


def cycle() -> Any:
    items: list[Any] = [MARK]
    items.append({"again": items})
    return items


def deep() -> Any:
    value: Any = MARK
    for i in range(100_000):
        value = [value] if i % 2 else {"k": value}
    return value


BAD_VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "object": (lambda: [MARK, object()], r"for object\b"),
    "set": (lambda: {MARK: {1, 2}}, r"for set\b"),
    "complex": (lambda: [MARK, 1j], r"for complex\b"),
    "date": (lambda: [MARK, datetime.date(2024, 1, 1)], r"for datetime\.date\b"),
    "naive datetime": (lambda: [MARK, datetime.datetime(2024, 1, 1)], "a datetime must have a time zone"),
    "large int": (lambda: {"a": [MARK, 2**64]}, "found 18446744073709551616"),
    "large negative int": (lambda: {"a": [MARK, -(2**63) - 1]}, "found -9223372036854775809"),
    "surrogate": (lambda: [MARK, "ok\ud83d"], r"the surrogate '\\ud83d' at index 2"),
    "surrogate in a field name": (lambda: {MARK: 1, "\udc00": 2}, "surrogate"),
    "cycle": (cycle, "holds itself"),
    "ten thousand levels": (deep, "nested more than"),
    "released view": (lambda: [MARK, released()], "released"),
    "view with gaps": (lambda: [MARK, memoryview(b"abcdef")[::2]], "contiguous"),
}


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


@pytest.fixture(params=BAD_VALUES, ids=str)
def bad_value(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """Return a value that MessagePack cannot hold, and a pattern for the error message."""
    make, message = BAD_VALUES[request.param]
    return make(), message


@pytest.mark.parametrize("options", [{}, {"ex": 60}, {"nx": True}], ids=str)
def test_a_bad_value_fails_alone(
    valkey: EmbeddedServer, bad_value: tuple[Any, str], options: dict[str, Any]
) -> None:
    value, message = bad_value
    good = {f"k{i}": {"n": i} for i in range(300)}
    items = [*good.items()]
    items.insert(150, ("the bad key", value))
    with proxied(valkey, record=True) as (proxy, client):
        with pytest.raises(BatchError, match=message) as caught:
            FastBatch(client).batch_set(items, **options)
        report = caught.value.report
        assert (report.written, report.failed) == (300, 1)
        assert list(report.failures) == ["the bad key"]
        assert isinstance(report.failures["the bad key"], EncodeError)
        assert "'the bad key'" in str(caught.value)
        assert "1 of 301" in str(caught.value)
        assert report.confirmed_prefix == 301

        sent = proxy.recorded(Direction.TO_SERVER)
        assert MARK.encode() not in sent
        assert b"the bad key" not in sent
        assert all(b"{" not in command[0] for command in commands(sent))
        assert report.bytes_sent <= len(sent)
        assert in_use(client) == 0
        assert client.dbsize() == 300
        assert FastBatch(client).batch_get(good) == good


def test_an_atomic_batch_with_a_bad_value_sends_nothing(
    valkey: EmbeddedServer, bad_value: tuple[Any, str]
) -> None:
    value, message = bad_value
    for place in (0, 1, 2):
        items = [("a", 1), ("b", 2)]
        items.insert(place, ("bad", value))
        with proxied(valkey, record=True) as (proxy, client):
            for options in ({}, {"ex": 9}, {"nx": True}):
                with pytest.raises(BatchError, match=message) as caught:
                    FastBatch(client).batch_set(items, atomic=True, **options)
                report = caught.value.report
                assert (report.written, report.failed) == (0, 3)
                assert set(report.failures) == {"a", "b", "bad"}
                assert isinstance(report.failures["bad"], EncodeError)
                assert "another item of the atomic batch" in str(report.failures["a"])
            assert client.dbsize() == 0
            sent = proxy.recorded(Direction.TO_SERVER)
            assert b"MULTI" not in sent
            assert b"MSET\r\n" not in sent


@pytest.mark.parametrize("key", [None, True, 1j, ("a", "b"), object(), frozenset()], ids=label)
def test_a_key_of_a_wrong_type_fails_alone(client: redis.Redis, key: Any) -> None:
    for options in ({}, {"ex": 60}, {"xx": True}):
        client.mset({"a": "old", "b": "old"})
        with pytest.raises(BatchError, match=type(key).__name__) as caught:
            FastBatch(client).batch_set({"a": 1, key: 2, "b": 3}, **options)
        assert (caught.value.report.written, caught.value.report.failed) == (2, 1)
        assert list(caught.value.report.failures) == [key]
        assert FastBatch(client).batch_get(["a", "b"]) == {"a": 1, "b": 3}


class NoReprNoHash:
    """An object whose repr() and hash() raise."""

    def __repr__(self) -> str:
        raise LookupError("no repr")

    def __hash__(self) -> int:
        raise LookupError("no hash")


class NoRepr:
    """An object whose repr() raises."""

    def __repr__(self) -> str:
        raise LookupError("no repr")


@pytest.mark.parametrize(
    ("key", "name", "reason"),
    [
        (10**4400, "<int whose repr() raises ValueError>", "an int of 14617 bits"),
        (NoRepr(), "<NoRepr whose repr() raises LookupError>", "found NoRepr"),
        (NoReprNoHash(), "<NoReprNoHash whose repr() raises LookupError>", "found NoReprNoHash"),
    ],
    ids=["int", "no repr", "no hash"],
)
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"ex": 60}], ids=str)
def test_a_key_whose_repr_raises_fails_alone(
    client: redis.Redis, key: Any, name: str, reason: str, options: dict[str, Any]
) -> None:
    with pytest.raises(BatchError, match=re.escape(f"key {name}: ") + f".*{reason}") as caught:
        FastBatch(client).batch_set([("a", 1), (key, 2), ("b", 3)], **options)
    report = caught.value.report
    assert (report.written, report.failed, len(report.failures)) == (2, 1, 1)
    assert all(isinstance(error, EncodeError) for error in report.failures.values())
    assert html.escape(name) in report._repr_html_()
    assert sorted(client.keys()) == [b"a", b"b"]


def test_a_key_with_a_surrogate_fails_alone(client: redis.Redis) -> None:
    with pytest.raises(BatchError, match="cannot be encoded") as caught:
        FastBatch(client).batch_set({"a": 1, "b\ud800": 2})
    assert list(caught.value.report.failures) == ["b\ud800"]
    assert client.dbsize() == 1


def test_a_batch_of_bad_values_fails_without_sending(client: redis.Redis) -> None:
    with pytest.raises(BatchError, match="5,000 of 5,000 items") as caught:
        FastBatch(client).batch_set({f"k{i}": object() for i in range(5000)})
    report = caught.value.report
    assert (report.written, report.failed, report.bytes_sent) == (0, 5000, 0)
    assert len(report.failures) == 1000, "the report keeps at most 1000 failures"
    assert report.confirmed_prefix == 5000
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    "change", [lambda d: d.clear(), lambda d: d.update(new=1), lambda d: d.popitem()], ids=["clear", "add", "pop"]
)
def test_a_value_that_changes_size_while_it_is_encoded_fails_alone(
    valkey: EmbeddedServer, change: Callable[[dict[str, Any]], object]
) -> None:
    value = {"first": MARK, "second": {1}, "third": 3}

    def default(_: Any) -> Any:
        change(value)
        return "x"

    with proxied(valkey, record=True) as (proxy, client):
        with pytest.raises(BatchError, match="key 'bad': a dict changed size") as caught:
            FastBatch(client, MsgpackCodec(default=default)).batch_set({"a": 1, "bad": value, "b": 2})
        assert caught.value.report.written == 2
        assert MARK.encode() not in proxy.recorded(Direction.TO_SERVER)
        assert len(commands(proxy.recorded(Direction.TO_SERVER))) > 0


def test_a_dict_of_items_that_changes_size_ends_the_batch(client: redis.Redis) -> None:
    items: dict[str, Any] = {f"k{i}": i for i in range(5000)}
    items["k2500"] = {1}

    def default(_: Any) -> Any:
        items["new"] = 1
        return "x"

    with pytest.raises(RuntimeError, match="changed size") as caught:
        FastBatch(client, MsgpackCodec(default=default)).batch_set(items)
    report = caught.value.report  # type: ignore[attr-defined]
    assert (report.written, report.failed, report.confirmed_prefix) == (2501, 0, 2501)
    assert client.dbsize() == 2501
    assert client.ping()


@pytest.mark.parametrize("options", [{}, {"ex": 60}, {"nx": True}], ids=str)
@pytest.mark.parametrize("good", [0, 1, 999, 1000, 1001, 5000])
def test_items_before_an_error_of_the_generator_are_written(
    valkey_client: redis.Redis, good: int, options: dict[str, Any]
) -> None:
    def source() -> Iterator[tuple[str, int]]:
        for i in range(good):
            yield f"k{i}", i
        raise LookupError("the source ends early")

    with pytest.raises(LookupError, match="the source ends early") as caught:
        FastBatch(valkey_client).batch_set(source(), **options)
    report = caught.value.report  # type: ignore[attr-defined]
    assert (report.written, report.failed, report.confirmed_prefix) == (good, 0, good)
    assert valkey_client.dbsize() == good
    assert in_use(valkey_client) == 0
    assert valkey_client.ping()


def test_an_atomic_batch_whose_generator_raises_writes_nothing(client: redis.Redis) -> None:
    def source() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise LookupError("the source ends early")

    with pytest.raises(LookupError) as caught:
        FastBatch(client).batch_set(source(), atomic=True)
    report = caught.value.report  # type: ignore[attr-defined]
    assert (report.written, report.failed) == (0, 1)
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    "item",
    ["abc", "ab", b"ab", ("a",), ("a", 1, 2), ["a"], {1, 2}, {"id": 1, "n": 2}, range(2), 5, None],
    ids=str,
)
def test_an_item_that_is_not_a_pair_ends_the_batch(client: redis.Redis, item: Any) -> None:
    with pytest.raises(TypeError, match=r"^expected \(key, value\) as a tuple or list of two, got ") as caught:
        FastBatch(client).batch_set([("good", 1), item, ("later", 2)])
    assert caught.value.report.written == 1  # type: ignore[attr-defined]
    assert client.keys() == [b"good"]


@pytest.mark.parametrize("items", ["text", b"bytes", 5, None, object()], ids=label)
def test_other_types_are_refused_as_items(valkey_client: redis.Redis, items: Any) -> None:
    with pytest.raises(TypeError):
        FastBatch(valkey_client).batch_set(items)
    assert in_use(valkey_client) == 0
    assert valkey_client.ping()


def test_ctrl_c_in_the_source_ends_the_batch(client: redis.Redis) -> None:
    def source() -> Iterator[tuple[str, int]]:
        for i in range(3000):
            yield f"k{i}", i
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        FastBatch(client).batch_set(source())
    report = caught.value.report  # type: ignore[attr-defined]
    assert report.written <= client.dbsize() <= 3000
    assert report.confirmed_prefix <= client.dbsize()
    assert in_use(client) == 0
    assert client.get("k0") == msgpack.packb(0)


def test_on_error_report_returns_the_report(client: redis.Redis) -> None:
    report = FastBatch(client).batch_set({"a": 1, "bad": object(), "b": 2}, on_error="report")
    assert (report.written, report.failed, list(report.failures)) == (2, 1, ["bad"])


def test_on_error_callable_gets_key_value_and_error(client: redis.Redis) -> None:
    failures: list[tuple[Any, Any, Exception]] = []
    value = {"x": object()}
    report = FastBatch(client).batch_set(
        {"a": 1, "bad": value, None: 2}, on_error=lambda *failure: failures.append(failure)
    )
    assert (report.written, report.failed) == (1, 2)
    assert [(key, one) for key, one, _ in failures] == [("bad", value), (None, 2)]
    assert all(isinstance(error, EncodeError) for _, _, error in failures)


def test_on_error_callable_that_raises_ends_the_batch(client: redis.Redis) -> None:
    def on_error(key: Any, value: Any, error: Exception) -> None:
        raise LookupError(f"enough: {key}")

    with pytest.raises(LookupError, match="enough: bad"):
        FastBatch(client).batch_set({"a": 1, "bad": object(), "b": 2}, on_error=on_error)
    assert in_use(client) == 0
    assert client.ping()


@pytest.mark.parametrize("on_error", ["ignore", None, 5, "RAISE"], ids=str)
def test_other_values_of_on_error_are_refused(valkey_client: redis.Redis, on_error: Any) -> None:
    with pytest.raises(ValueError, match="on_error"):
        FastBatch(valkey_client).batch_set({"a": 1}, on_error=on_error)
    with pytest.raises(ValueError, match="on_error"):
        FastBatch(valkey_client).batch_get(["a"], on_error=on_error)
    assert valkey_client.dbsize() == 0


@pytest.mark.parametrize(
    ("codec", "value", "message"),
    [
        ("json", float("nan"), r"JSON has no nan; use None, or JsonCodec\(allow_nan=True\)"),
        ("json", {1, 2}, "set"),
        ("json", cycle(), "Circular"),
        ("json", deep(), "recursion|nested|overflow"),
        ("json", "\ud800", "surrogate"),
        ("raw", None, "NoneType"),
        ("raw", True, "bool"),
        ("raw", [1], "list"),
        ("raw", "\ud800", "surrogate"),
        ("raw", memoryview(b"abcd")[::2], "contiguous"),
    ],
    ids=lambda value: "" if isinstance(value, (list, dict)) else label(value),
)
def test_a_bad_value_fails_alone_with_other_codecs(
    client: redis.Redis, codec: str, value: Any, message: str
) -> None:
    with pytest.raises(BatchError, match=message) as caught:
        FastBatch(client, codec).batch_set({"a": 1, "bad": value, "b": 2})
    assert list(caught.value.report.failures) == ["bad"]
    assert isinstance(caught.value.report.failures["bad"], EncodeError)
    assert sorted(client.keys()) == [b"a", b"b"]


class Raising:
    """A codec that raises the value that it should write."""

    def dumps(self, value: Any) -> bytes:
        raise value

    def loads(self, data: bytes) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("missing"), "KeyError: 'missing'"),
        (NotImplementedError(), "NotImplementedError"),
        (ValueError("not today"), "ValueError: not today"),
    ],
    ids=str,
)
def test_the_error_contains_type_and_text_of_a_hooks_error(
    client: redis.Redis, error: Exception, words: str
) -> None:
    def raising(*_: Any) -> Any:
        raise error

    for codec, reason in (
        (Raising(), f"dumps() failed for {type(error).__name__}: {words}"),
        (MsgpackCodec(default=raising), f"default() failed on {type(error).__name__}: {words}"),
    ):
        report = FastBatch(client, codec).batch_set({"a": error}, on_error="report")
        assert str(report.failures["a"]) == f"key 'a': {reason}"
    with pytest.raises(DecodeError) as caught:
        MsgpackCodec(ext_hook=raising).loads(msgpack.packb(msgpack.ExtType(5, b"")))
    assert caught.value.reason == f"ext_hook() failed on type 5: {words}"
    client.set("a", b"1")
    with pytest.raises(DecodeError, match=r"NotImplementedError$"):
        FastBatch(client, Raising()).batch_get(["a"])


def test_arguments_that_are_too_large_for_redis_fail_alone(valkey_client: redis.Redis) -> None:
    # The server closes the connection if an argument is longer than 512 MiB.
    large = bytes(512 * 1024 * 1024 + 1)
    fast = FastBatch(valkey_client, "raw")
    with pytest.raises(BatchError, match=r"key 'big'.*536870913 bytes") as caught:
        fast.batch_set([("a", b"1"), ("big", large), ("b", b"2")])
    assert (caught.value.report.written, list(caught.value.report.failures)) == (2, ["big"])
    with pytest.raises(BatchError, match="536870913 bytes") as of_key:
        fast.batch_set([(large, b"1"), ("c", b"2")])
    assert len(str(of_key.value)) < 1000, "the message must not contain the whole key"
    with pytest.raises(EncodeError, match="536870913 bytes") as of_get:
        fast.batch_get([large])
    assert len(str(of_get.value)) < 1000
    assert sorted(valkey_client.keys()) == [b"a", b"b", b"c"]
    assert valkey_client.ping()


def test_all_errors_are_fastbatch_errors() -> None:
    assert issubclass(EncodeError, FastBatchError)
    assert issubclass(BatchError, FastBatchError)
    assert not issubclass(FastBatchError, redis.RedisError)

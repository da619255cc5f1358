"""The codec msgpack: what its hooks may do, and containers that change while it writes them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from msgpack import ExtType

from msgpack_reference import REFUSED, agree, their_bytes
from redis_fastbatch import DecodeError, EncodeError, MsgpackCodec


@pytest.fixture(scope="module")
def codec() -> MsgpackCodec:
    """One codec for all tests of the module, because what it remembers must not affect later values."""
    return MsgpackCodec()


def test_default_is_called_as_msgpack_calls_it(codec: MsgpackCodec) -> None:
    def default(value: Any) -> Any:
        return sorted(value) if isinstance(value, set) else str(value)

    value = {"set": {3, 1}, "complex": [1j], "nested": {"range": range(3)}}
    assert MsgpackCodec(default=default).dumps(value) == their_bytes(value, default=default)


def test_default_may_return_values_that_need_default() -> None:
    def default(value: Any) -> Any:
        return list(value) if isinstance(value, frozenset) else str(value)

    value = frozenset([frozenset([frozenset([1j])])])
    assert MsgpackCodec(default=default).dumps(value) == their_bytes(value, default=default)


def test_the_error_names_the_type_that_default_returned() -> None:
    with pytest.raises(EncodeError, match=r"complex.*returned by default\(\) for set"):
        MsgpackCodec(default=lambda value: 1j).dumps({1})


def test_endless_nesting_by_default_is_refused() -> None:
    with pytest.raises(EncodeError, match="nested more than"):
        MsgpackCodec(default=lambda value: [value]).dumps(object())


def test_default_gets_ints_that_are_too_large() -> None:
    assert MsgpackCodec(default=str).loads(MsgpackCodec(default=str).dumps([2**64])) == [str(2**64)]


def test_an_error_of_default_is_the_cause() -> None:
    def default(value: Any) -> Any:
        raise LookupError("not here")

    with pytest.raises(EncodeError, match=r"default\(\) failed on set: LookupError: not here") as caught:
        MsgpackCodec(default=default).dumps([{1}])
    assert isinstance(caught.value.__cause__, LookupError)


def test_default_may_use_the_same_codec() -> None:
    codec = MsgpackCodec(default=lambda value: codec.dumps(sorted(value)))
    assert codec.loads(codec.loads(codec.dumps({2, 1}))) == [1, 2]


def test_a_keyboard_interrupt_in_default_is_raised_unchanged() -> None:
    def default(value: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MsgpackCodec(default=default).dumps([{1}])


LIST_CHANGES: list[Callable[[list[Any]], object]] = [
    list.clear,
    list.pop,
    lambda items: items.append(7),
    lambda items: items.extend(range(1000)),
    lambda items: items.__delitem__(0),
]
DICT_CHANGES: list[Callable[[dict[Any, Any]], object]] = [
    dict.clear,
    dict.popitem,
    lambda row: row.update({f"new{i}": i for i in range(1000)}),
    lambda row: row.__setitem__("new", 1),
    lambda row: row.__delitem__("first"),
]


@pytest.mark.parametrize("change", LIST_CHANGES)
def test_a_list_that_changes_size_while_it_is_written_is_refused(change: Callable[[list[Any]], object]) -> None:
    items: list[Any] = [[1], {1}, [2], [3]]

    def default(value: Any) -> Any:
        change(items)
        return "x"

    with pytest.raises(EncodeError, match="changed size"):
        MsgpackCodec(default=default).dumps(items)


@pytest.mark.parametrize("change", DICT_CHANGES)
def test_a_dict_that_changes_size_while_it_is_written_is_refused(
    change: Callable[[dict[Any, Any]], object],
) -> None:
    row: dict[Any, Any] = {"first": [1], "second": {1}, "third": [2], "fourth": 3}

    def default(value: Any) -> Any:
        change(row)
        return "x"

    with pytest.raises(EncodeError, match="changed size"):
        MsgpackCodec(default=default).dumps(row)


def test_items_may_be_replaced_while_their_container_is_written() -> None:
    # The sizes stay the same. Old or new items may be written, but only whole ones.
    items: list[Any] = [{1}, [2] * 50, [3] * 50]
    row: dict[str, Any] = {"a": {1}, "b": [2] * 50, "c": [3] * 50}

    def default(value: Any) -> Any:
        items[:] = [None, [None], "new"]
        row.update(a=None, b=[None], c="new")
        gc.collect()
        return "x"

    codec = MsgpackCodec(default=default)
    assert codec.loads(codec.dumps(items)) == ["x", [None], "new"]
    items[0] = {1}
    row["a"] = {1}
    assert codec.loads(codec.dumps(row)) == {"a": "x", "b": [None], "c": "new"}


def test_keys_may_be_replaced_while_their_dict_is_written() -> None:
    row: dict[str, Any] = {f"k{i}": [i] for i in range(5)}
    row["k1"] = {1}

    def default(value: Any) -> Any:
        row.clear()
        row.update({f"other{i}": [i] for i in range(5)})
        return "x"

    written = packed_or_refused(MsgpackCodec(default=default), row)
    assert written is REFUSED or len(written) == 5


def packed_or_refused(codec: MsgpackCodec, value: Any) -> Any:
    try:
        return codec.loads(codec.dumps(value))
    except EncodeError:
        return REFUSED


def test_extensions_become_ext_types_by_default(codec: MsgpackCodec) -> None:
    for size in (0, 1, 2, 3, 4, 8, 12, 16, 17, 300, 70_000):
        value = [ExtType(42, b"z" * size)]
        assert codec.loads(codec.dumps(value)) == value


def test_negative_extension_codes_are_read(codec: MsgpackCodec) -> None:
    assert agree(codec, b"\xd4\xfex") is agree(codec, b"\xd4\x80x")


def test_ext_hook_gets_the_code_and_the_bytes() -> None:
    seen: list[tuple[int, bytes]] = []

    def hook(code: int, data: bytes) -> Any:
        seen.append((code, data))
        return {"made": data}

    codec = MsgpackCodec(ext_hook=hook)
    assert codec.loads(codec.dumps([ExtType(3, b"abc"), 1])) == [{"made": b"abc"}, 1]
    assert seen == [(3, b"abc")]


def test_an_error_of_ext_hook_is_the_cause() -> None:
    def hook(code: int, data: bytes) -> Any:
        raise LookupError("no such code")

    with pytest.raises(DecodeError, match=r"ext_hook\(\) failed on type 9: LookupError: no such code") as caught:
        MsgpackCodec(ext_hook=hook).loads(b"\x93\x01\xd4\x09x\x02")
    assert isinstance(caught.value.__cause__, LookupError)
    assert 2 <= caught.value.offset <= 3


def test_an_error_of_ext_hook_does_not_affect_later_rows() -> None:
    def hook(code: int, data: bytes) -> Any:
        if data == b"!":
            raise LookupError("now")
        return data

    codec = MsgpackCodec(ext_hook=hook)
    rows = [{"a": 1, "e": ExtType(1, b"!" if i % 5 == 4 else b"."), "z": [i]} for i in range(60)]
    for i, row in enumerate(rows):
        if i % 5 == 4:
            with pytest.raises(DecodeError):
                codec.loads(their_bytes(row))
        else:
            assert codec.loads(their_bytes(row)) == {"a": 1, "e": b".", "z": [i]}


def test_ext_hook_may_use_the_same_codec_and_shapes() -> None:
    codec = MsgpackCodec(ext_hook=lambda code, data: codec.loads(data))
    inner = their_bytes({"a": [1], "b": 2})
    other = their_bytes({"c": [1], "d": 2})
    for _ in range(40):
        outer = {"a": ExtType(1, inner), "b": [ExtType(1, other), ExtType(1, inner)]}
        assert codec.loads(their_bytes(outer)) == {
            "a": {"a": [1], "b": 2},
            "b": [{"c": [1], "d": 2}, {"a": [1], "b": 2}],
        }


@pytest.mark.full
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1k"])
def test_nesting_counts_through_ext_hook(opening: bytes) -> None:
    codec = MsgpackCodec(ext_hook=lambda code, data: codec.loads(data))
    data = b"\x01"
    for level in range(1, 201):
        data = opening * 100 + b"\xc9" + len(data).to_bytes(4, "big") + b"\x05" + data
        if level <= 10:
            codec.loads(data)
        else:
            with pytest.raises(DecodeError, match="nested more than 1024 levels deep"):
                codec.loads(data)
    assert codec.loads(b"\x91" * 1024 + b"\x01")


def test_nesting_counts_through_default() -> None:
    codec = MsgpackCodec(default=lambda value: ExtType(1, codec.dumps(value.inner)))

    class Holder:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

    value: Any = 1
    for level in range(1, 201):
        value = Holder(value)
        for _ in range(100):
            value = [value]
        if level <= 10:
            codec.dumps(value)
        elif level in (11, 12, 200):
            with pytest.raises(EncodeError, match="nested more than 1024 levels deep"):
                codec.dumps(value)


def test_each_thread_counts_its_own_nesting() -> None:
    inside, done = threading.Event(), threading.Event()

    def hook(code: int, data: bytes) -> Any:
        inside.set()
        return done.wait(60)

    codec = MsgpackCodec(ext_hook=hook)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(codec.loads, b"\x91" * 1000 + b"\xd4\x05x")
        assert inside.wait(60)
        try:
            assert codec.loads(b"\x91" * 1000 + b"\x01")
        finally:
            done.set()
        assert waiting.result()


@pytest.mark.parametrize("key", [b"\xa1k", b"\xd9\x01k"])
def test_a_key_that_ext_hook_changes_does_not_affect_later_values(key: bytes) -> None:
    """The hook changes a key in the bytearray that is being read."""
    data = bytearray()

    def hook(code: int, content: bytes) -> Any:
        data[data.index(b"k")] = ord("b")
        return content

    codec = MsgpackCodec(ext_hook=hook)
    for _ in range(9):
        data[:] = b"\x82\xa1a\x01" + key + b"\xd4\x05x"
        codec.loads(data)
    assert codec.loads(b"\x82\xa1a\x01" + key.replace(b"k", b"b") + b"\x07") == {"a": 1, "b": 7}


def test_hooks_must_be_callable() -> None:
    with pytest.raises(TypeError, match="default"):
        MsgpackCodec(default="str")
    with pytest.raises(TypeError, match="ext_hook"):
        MsgpackCodec(ext_hook=1)

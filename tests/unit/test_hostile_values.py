"""Values that their own code or another thread changes during encoding give valid bytes or an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from hostile import Own, change_dict, changing_thread
from redis_fastbatch import DecodeError, EncodeError, MsgpackCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._core.toolkit.codec import ToolkitCodec


def check_encoding(codec: Any, value: Any) -> None:
    """Check that a value is refused, or is encoded as bytes that can be decoded."""
    try:
        data = codec.dumps(value)
    except (EncodeError, RuntimeError, TypeError):
        return
    try:
        codec.loads(data)
    except DecodeError as error:
        # default() may return a value for a key that is not hashable when it is read.
        if not re.search("unhashable|cannot use", str(error)):
            raise


# -- code of the value ---------------------------------------------------------------------------


def churn() -> None:
    """Allocate objects of many sizes, to overwrite memory that has just been freed."""
    _ = [bytes(size) for size in range(200)], [tuple(range(size)) for size in range(20)], [{} for _ in range(20)]


def destroyers(container: Any) -> list[Callable[[Any], Any]]:
    """Return functions for default() that change the container during its encoding."""

    def clear(_: Any) -> Any:
        container.clear()
        churn()
        return "x"

    def grow(_: Any) -> Any:
        filling = [(f"new {i}", [i]) for i in range(1000)]
        container.update(filling) if isinstance(container, dict) else container.extend(filling)
        churn()
        return ["x"]

    def replace(_: Any) -> Any:
        for place in list(container) if isinstance(container, dict) else range(len(container)):
            container[place] = bytearray(50)
        churn()
        return {"x": 1}

    def swap(_: Any) -> Any:
        # Keep the size, replace all entries.
        if isinstance(container, dict):
            size = len(container)
            container.clear()
            container.update((f"other {i}", "x" * i) for i in range(size))
        else:
            container[:] = [[i] for i in range(len(container))]
        churn()
        return None

    def fail(_: Any) -> Any:
        container.clear()
        churn()
        raise ValueError("no")

    return [clear, grow, replace, swap, fail]


MAKERS: dict[str, Callable[[], Any]] = {
    "list": lambda: [Own(), [1, 2], "text", {"a": 1}],
    "dict": lambda: {"a": Own(), "b": [1, 2], "c": {"d": 1}},
    "keys": lambda: {Own(): [1], "b": bytearray(9)},
    "tuples of keys": lambda: {(Own(), Own(), "tail" * 9): [1, 2], (1, (Own(), b"x" * 99)): "b"},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("number", range(5), ids=["clear", "grow", "replace", "swap", "fail"])
def test_default_may_change_the_container_being_written(make: Callable[[], Any], number: int) -> None:
    for wrap in (lambda container: container, lambda container: [container, "rest"]):
        for _ in range(5):
            container = make()
            check_encoding(MsgpackCodec(default=destroyers(container)[number]), wrap(container))


class Liar(dict):  # type: ignore[type-arg]
    """A dict whose methods return a given length and given items."""

    def __init__(self, length: int, pairs: Any) -> None:
        super().__init__(real="entry")
        self._length = length
        self._pairs = pairs

    def __len__(self) -> int:
        return self._length

    def items(self) -> Any:
        return self._pairs


@pytest.mark.parametrize(
    ("length", "pairs"),
    [
        (3, [("a", 1)]),
        (1, [("a", 1), ("b", 2)]),
        (2**40, []),
        (1, [("a",)]),
        (1, [5]),
        (1, None),
        (1, 7),
        (1, ["ab", "cd"]),
    ],
)
def test_a_mapping_with_a_false_length_or_false_items_is_refused(length: int, pairs: Any) -> None:
    with pytest.raises((EncodeError, ValueError, TypeError)):
        MsgpackCodec().dumps({"k": Liar(length, pairs)})
    check_encoding(ToolkitCodec(), {"k": Liar(length, pairs)})


class Subclass(list):  # type: ignore[type-arg]
    """A list that iterates over other items than it contains."""

    def __iter__(self) -> Any:
        return iter(["not", "these"])


class Number(int):
    """An int whose methods all raise."""

    def __index__(self) -> int:
        raise ZeroDivisionError

    __int__ = __le__ = __lt__ = __ge__ = __gt__ = bit_length = __repr__ = __index__  # type: ignore[assignment]


class Text(str):
    """A str that returns a false length and whose other methods raise."""

    def __len__(self) -> int:
        return 10**9

    def encode(self, *_: Any) -> bytes:
        raise ZeroDivisionError

    __str__ = __repr__ = encode  # type: ignore[assignment]


def test_subclasses_are_written_by_their_contents_not_their_methods() -> None:
    codec = MsgpackCodec()
    assert codec.dumps([Number(5), Number(-(2**40)), Text("text"), Text("é")]) == msgpack.packb(
        [5, -(2**40), "text", "é"]
    )
    assert codec.loads(codec.dumps(Subclass([1, 2, 3]))) == ["not", "these"]
    with pytest.raises((EncodeError, ZeroDivisionError, TypeError)):
        codec.dumps(Number(2**70))


class Key(str):
    """A key whose hash and equality run code."""

    codec = MsgpackCodec()

    def __hash__(self) -> int:
        assert self.codec.loads(self.codec.dumps({"nested": [1]})) == {"nested": [1]}
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        churn()
        return str(self) == other


def test_code_that_the_codec_calls_may_use_the_codec() -> None:
    codec = Key.codec
    table = {Key("a"): 1, Key("b"): [Key("c")]}
    assert codec.loads(codec.dumps(table)) == {"a": 1, "b": ["c"]}
    nested = MsgpackCodec(default=lambda value: codec.dumps(table) + nested.dumps("inner" * 5000))
    for _ in range(20):
        assert len(nested.loads(nested.dumps([Own(), Own()]))) == 2


def test_a_value_that_changes_the_batchs_dict_ends_the_batch() -> None:
    items: dict[Any, Any] = {f"k{i}": [Own(), i] for i in range(50)}
    chunks = []

    def default(_: Any) -> Any:
        items.pop("k10", None)
        items[f"more {len(items)}"] = 1
        items[f"still more {len(items)}"] = 1
        churn()
        return "own"

    writer = BatchWriter(items, Command(b"MSET", many=True), MsgpackCodec(default), max_items=7, max_bytes=10**6)
    while not writer.exhausted:
        chunk = writer.blank()
        writer.fill(chunk)
        chunks.append(chunk)
    assert isinstance(writer.source_error, RuntimeError)
    assert sum(chunk.count for chunk in chunks) == 1


def test_a_buffer_cannot_be_resized_while_it_is_written() -> None:
    data = bytearray(b"x" * 100)

    def default(_: Any) -> Any:
        with pytest.raises(BufferError):
            view.obj.extend(b"y" * 10_000)
        return None

    view = memoryview(data)
    codec = MsgpackCodec(default)
    assert codec.loads(codec.dumps([view, Own(), view])) == [bytes(data), None, bytes(data)]


# -- other threads -------------------------------------------------------------------------------


def change_list(items: list[Any]) -> Callable[[int], object]:
    def change(count: int) -> None:
        items[:] = [[count], "x" * (count % 99)] * (count % 7)

    return change


@pytest.mark.parametrize(
    "make_codec", [lambda: MsgpackCodec(lambda _: sum(range(50))), ToolkitCodec], ids=["msgpack", "toolkit"]
)
@pytest.mark.parametrize(("container", "change"), [([], change_list), ({}, change_dict)], ids=["list", "dict"])
def test_another_thread_may_change_a_container_being_written(make_codec: Any, container: Any, change: Any) -> None:
    codec = make_codec()
    with changing_thread(change(container)) as stop:
        while not stop.is_set():
            check_encoding(codec, [container, {"k": container}])


# -- errors in the value's code ---------------------------------------------------------------------


def test_an_error_in_a_values_code_names_its_key() -> None:
    items = {"good": 1, "bad": {"inner": Liar(1, None)}, "better": 2}
    writer = BatchWriter(items, Command(b"MSET", many=True), MsgpackCodec(), max_items=9, max_bytes=10**6)
    chunk = writer.blank()
    writer.fill(chunk)
    [(key, value, error)] = writer.failures
    assert (key, value) == ("bad", items["bad"])
    assert isinstance(error, EncodeError)
    assert isinstance(error.__cause__, TypeError)
    assert str(error).startswith("key 'bad': TypeError")
    assert chunk.keys == ["good", "better"]


def test_a_decode_error_of_a_hook_is_raised_unchanged() -> None:
    def hook(code: int, data: bytes) -> Any:
        raise DecodeError("not one of ours", 77)

    with pytest.raises(DecodeError, match="at byte 77: not one of ours"):
        MsgpackCodec(ext_hook=hook).loads(b"\xd4\x05x")


@pytest.mark.parametrize(
    "rest", [b"", b"\xd9", b"\xd9\x05abc", b"\xcc", b"\xcd\x00", b"\xce\x00", b"\xcb\x00", b"\xa3ab"]
)
def test_a_truncated_row_of_a_known_shape_is_refused(rest: bytes) -> None:
    codec = MsgpackCodec()
    for _ in range(9):
        codec.loads(b"\x82\xa1a\x01\xa1b\x02")
    with pytest.raises(DecodeError):
        codec.loads(b"\x82\xa1a\x01\xa1b" + rest)

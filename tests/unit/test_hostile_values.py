"""Values whose own code, or another thread, changes what is being written: an error or honest bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from hostile import Own, change_dict, meddling
from redis_fastbatch import DecodeError, EncodeError, MsgpackCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Command
from redis_fastbatch._core.toolkit.codec import ToolkitCodec


def honest(codec: Any, value: Any) -> None:
    """Written whole or refused; what is written can be read."""
    try:
        data = codec.dumps(value)
    except (EncodeError, RuntimeError, TypeError):
        return
    try:
        codec.loads(data)
    except DecodeError as error:
        # What default() makes of a key may be no key when it is read.
        if "unhashable" not in str(error):
            raise


# -- a value's own code --------------------------------------------------------------------------


def churn() -> None:
    """Take the place of whatever has just been freed."""
    _ = [bytes(size) for size in range(200)], [tuple(range(size)) for size in range(20)], [{} for _ in range(20)]


def destroyers(container: Any) -> list[Callable[[Any], Any]]:
    """What default() may do to the container that it is called from."""

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
        # The same size, other entries.
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
def test_default_destroys_the_container(make: Callable[[], Any], number: int) -> None:
    for wrap in (lambda container: container, lambda container: [container, "rest"]):
        for _ in range(5):
            container = make()
            honest(MsgpackCodec(default=destroyers(container)[number]), wrap(container))


class Liar(dict):  # type: ignore[type-arg]
    """A dict whose methods say what they like."""

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
def test_mappings_that_lie(length: int, pairs: Any) -> None:
    with pytest.raises((EncodeError, ValueError, TypeError)):
        MsgpackCodec().dumps({"k": Liar(length, pairs)})
    honest(ToolkitCodec(), {"k": Liar(length, pairs)})


class Subclass(list):  # type: ignore[type-arg]
    """A list that iterates over something else, for ever."""

    def __iter__(self) -> Any:
        return iter(["not", "these"])


class Number(int):
    """An int that lies about itself."""

    def __index__(self) -> int:
        raise ZeroDivisionError

    __int__ = __le__ = __lt__ = __ge__ = __gt__ = bit_length = __repr__ = __index__  # type: ignore[assignment]


class Text(str):
    """A str that lies about itself."""

    def __len__(self) -> int:
        return 10**9

    def encode(self, *_: Any) -> bytes:
        raise ZeroDivisionError

    __str__ = __repr__ = encode  # type: ignore[assignment]


def test_subclasses_are_written_as_what_they_hold() -> None:
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


def test_the_codec_may_be_used_by_the_code_that_it_calls() -> None:
    codec = Key.codec
    table = {Key("a"): 1, Key("b"): [Key("c")]}
    assert codec.loads(codec.dumps(table)) == {"a": 1, "b": ["c"]}
    nested = MsgpackCodec(default=lambda value: codec.dumps(table) + nested.dumps("inner" * 5000))
    for _ in range(20):
        assert len(nested.loads(nested.dumps([Own(), Own()]))) == 2


def test_items_that_change_the_batch_they_are_in() -> None:
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


def test_a_buffer_that_is_taken_away() -> None:
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
def test_containers_that_another_thread_changes(make_codec: Any, container: Any, change: Any) -> None:
    codec = make_codec()
    with meddling(change(container)) as stop:
        while not stop.is_set():
            honest(codec, [container, {"k": container}])


# -- errors of a value's own ---------------------------------------------------------------------


def test_an_error_of_a_values_own_code_names_its_key() -> None:
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


def test_a_hooks_own_decode_error_passes_as_it_is() -> None:
    def hook(code: int, data: bytes) -> Any:
        raise DecodeError("not one of ours", 77)

    with pytest.raises(DecodeError, match="at byte 77: not one of ours"):
        MsgpackCodec(ext_hook=hook).loads(b"\xd4\x05x")


@pytest.mark.parametrize(
    "rest", [b"", b"\xd9", b"\xd9\x05abc", b"\xcc", b"\xcd\x00", b"\xce\x00", b"\xcb\x00", b"\xa3ab"]
)
def test_a_row_that_ends_amid_a_value_once_its_shape_is_known(rest: bytes) -> None:
    codec = MsgpackCodec()
    for _ in range(9):
        codec.loads(b"\x82\xa1a\x01\xa1b\x02")
    with pytest.raises(DecodeError):
        codec.loads(b"\x82\xa1a\x01\xa1b" + rest)

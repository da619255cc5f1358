"""Chunks of commands: hiredis reads from them the items that were encoded, in order."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import hiredis
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels import label
from redis_fastbatch import EncodeError, MsgpackCodec, RawCodec
from redis_fastbatch._core.resp.encoder import BatchWriter, Chunk, Command
from redis_fastbatch.codecs import ValueCodec, resolve

MSET = Command(b"MSET", many=True)
MSETEX = Command(b"MSETEX", many=True, counted=True, tail=(b"EX", b"60"))
SET = Command(b"SET", many=False)
SETEX = Command(b"SET", many=False, tail=(b"EX", b"60", b"NX"))
MGET = Command(b"MGET", many=True, with_values=False)
UNLIMITED = 2**62


def writer(items: Any, command: Command, codec: ValueCodec | None = None, **options: Any) -> BatchWriter:
    limits = {"max_items": UNLIMITED, "max_bytes": UNLIMITED, **options}
    return BatchWriter(items, command, RawCodec() if codec is None else codec, **limits)


def chunks(batch: BatchWriter) -> Iterator[Chunk]:
    """Yield all chunks of a batch."""
    while not batch.exhausted:
        chunk = Chunk(batch.command)
        batch.fill(chunk)
        assert chunk.sealed
        yield chunk


def sent(chunk: Chunk) -> list[list[bytes]]:
    """Return the commands in a chunk, as a server reads them. No byte may be left over."""
    reader = hiredis.Reader()
    reader.feed(bytes(memoryview(chunk)))  # type: ignore[arg-type]
    found = []
    while (command := reader.gets()) is not False:
        assert isinstance(command, list)
        found.append(command)
    assert not reader.has_data()
    return found


def only_chunk(batch: BatchWriter) -> Chunk:
    (chunk,) = chunks(batch)
    return chunk


PAIRS = [(b"a", b"1"), (b"b", b""), (b"c", b"x" * 200)]
FLAT = [part for pair in PAIRS for part in pair]


@pytest.mark.parametrize(
    ("command", "expected", "replies"),
    [
        (MSET, [[b"MSET", *FLAT]], 1),
        (MSETEX, [[b"MSETEX", b"3", *FLAT, b"EX", b"60"]], 1),
        (SET, [[b"SET", key, value] for key, value in PAIRS], 3),
        (SETEX, [[b"SET", key, value, b"EX", b"60", b"NX"] for key, value in PAIRS], 3),
    ],
    ids=["MSET", "MSETEX", "SET", "SET with options"],
)
@pytest.mark.parametrize("form", [dict, list, iter], ids=["dict", "list", "iterator"])
def test_items_become_the_arguments_of_commands(
    command: Command, expected: list[list[bytes]], replies: int, form: Callable[[Any], Any]
) -> None:
    chunk = only_chunk(writer(form(PAIRS), command))
    assert sent(chunk) == expected
    assert chunk.replies == replies
    assert chunk.count == 3
    assert (chunk.keys, chunk.values) == ([b"a", b"b", b"c"], [value for _, value in PAIRS])
    assert len(chunk) == len(bytes(memoryview(chunk)))  # type: ignore[arg-type]


def test_keys_without_values_become_a_command() -> None:
    chunk = only_chunk(writer(iter(["a", b"b", 3]), MGET))
    assert sent(chunk) == [[b"MGET", b"a", b"b", b"3"]]
    assert (chunk.keys, chunk.values) == (["a", b"b", 3], [])


EDGES = [0, 1, 8, 9, 10, 11, 98, 99, 100, 101, 998, 999, 1000, 1001, 9999, 10000, 99_999, 100_000, 1_000_000]


@pytest.mark.parametrize("command", [MSET, MSETEX, SETEX], ids=str)
def test_values_of_every_length_have_the_right_header(command: Command) -> None:
    # Every pair of lengths: the encoder guesses a header from the value before it.
    for first in EDGES:
        items = [(f"{second}:{size}", b"v" * size) for second in EDGES[:14] for size in (first, second)]
        commands = sent(only_chunk(writer(items, command)))
        flat = [argument for one in commands for argument in one]
        for key, value in items:
            assert flat[flat.index(key.encode()) + 1] == value


@pytest.mark.parametrize("size", EDGES)
def test_keys_of_every_length_have_the_right_header(size: int) -> None:
    items = {"k" * size: b"1", b"b" * size: b"2", "é" * size: b"3"}
    expected = [b"MSET", b"k" * size, b"1", b"b" * size, b"2", "é".encode() * size, b"3"]
    if size == 0:
        # The three keys are the same one.
        items, expected = {"": b"1"}, [b"MSET", b"", b"1"]
    assert sent(only_chunk(writer(list(items.items()), MSET))) == [expected]


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 10, 49, 50, 99, 100, 499, 500, 999, 1000, 4999, 5000, 50_000])
@pytest.mark.parametrize("command", [MSET, MSETEX, MGET], ids=str)
def test_every_count_of_items_has_the_right_header(command: Command, count: int) -> None:
    items = [str(i) for i in range(count)]
    given_items = items if command is MGET else dict.fromkeys(items, b"v")
    (one,) = sent(only_chunk(writer(given_items, command)))
    if command is MSETEX:
        assert one[1] == b"%d" % count
    assert len(one) == {MSET: 1 + 2 * count, MSETEX: 4 + 2 * count, MGET: 1 + count}[command]


keys = st.text(max_size=30) | st.binary(max_size=30) | st.integers()
values = st.binary(max_size=300) | st.text(max_size=30) | st.integers() | st.floats(allow_nan=False)


def as_redis_has_it(argument: Any) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return argument.encode() if isinstance(argument, str) else repr(argument).encode()


@given(
    items=st.lists(st.tuples(keys, values), max_size=60),
    command=st.sampled_from([MSET, MSETEX, SET, SETEX]),
    max_items=st.integers(1, 70),
    max_bytes=st.integers(1, 3000),
)
@settings(deadline=None)
def test_any_items_are_encoded_in_chunks_of_any_size(
    items: list[tuple[Any, Any]], command: Command, max_items: int, max_bytes: int
) -> None:
    batch = writer(iter(items), command, max_items=max_items, max_bytes=max_bytes)
    found: list[tuple[bytes, bytes]] = []
    for chunk in chunks(batch):
        assert chunk.count <= max_items
        if not chunk.count:
            assert batch.exhausted
            continue
        tail = {MSETEX: 2, SETEX: 3}.get(command, 0)
        for one in sent(chunk):
            start = 2 if command is MSETEX else 1
            arguments = one[start : len(one) - tail]
            found += zip(arguments[::2], arguments[1::2], strict=True)
    assert found == [(as_redis_has_it(key), as_redis_has_it(value)) for key, value in items]


def test_a_chunk_ends_at_max_items() -> None:
    counts = [chunk.count for chunk in chunks(writer(dict.fromkeys(range(25), b"v"), MSET, max_items=10))]
    assert counts == [10, 10, 5]


def test_a_chunk_ends_at_max_bytes() -> None:
    batch = writer(((i, b"v" * 100) for i in range(100)), MSET, max_bytes=1000)
    sizes = [len(chunk) for chunk in chunks(batch)]
    assert all(1000 <= size < 1250 for size in sizes[:-1])
    assert len(sizes) > 10


def test_a_value_larger_than_max_bytes_ends_its_chunk() -> None:
    items = [("a", b"1"), ("big", b"x" * 100_000), ("b", b"2")]
    assert [chunk.keys for chunk in chunks(writer(items, MSET, max_bytes=1000))] == [["a", "big"], ["b"]]


def test_an_empty_batch_has_an_empty_chunk() -> None:
    for nothing in ({}, [], iter(())):
        chunk = only_chunk(writer(nothing, MSET))
        assert chunk.count == 0


@pytest.mark.parametrize("items", [dict(PAIRS), PAIRS, iter(PAIRS)], ids=lambda items: type(items).__name__)
def test_filling_after_the_end_gives_an_empty_chunk(items: Any) -> None:
    batch = writer(items, MSET)
    assert only_chunk(batch).count == 3
    chunk = Chunk(MSET)
    batch.fill(chunk)
    assert (batch.exhausted, chunk.count, batch.source_error) == (True, 0, None)


def test_a_chunk_can_be_filled_again() -> None:
    batch = writer(iter([("a", b"x" * 5000), ("b", b"y")]), MSET, max_items=1)
    chunk = Chunk(MSET)
    batch.fill(chunk)
    assert sent(chunk) == [[b"MSET", b"a", b"x" * 5000]]
    batch.fill(chunk)
    assert sent(chunk) == [[b"MSET", b"b", b"y"]]
    assert (chunk.keys, chunk.values) == (["b"], [b"y"])


def test_use_changes_the_command_of_the_next_chunk() -> None:
    batch = writer(iter([("a", b"1"), ("b", b"2")]), MSETEX, max_items=1)
    first, second = Chunk(MSETEX), Chunk(MSETEX)
    batch.fill(first)
    batch.use(SETEX)
    batch.fill(second)
    assert sent(first) == [[b"MSETEX", b"1", b"a", b"1", b"EX", b"60"]]
    assert sent(second) == [[b"SET", b"b", b"2", b"EX", b"60", b"NX"]]
    assert second.command is SETEX


# -- keys ----------------------------------------------------------------------------------------


class Name(str):
    __slots__ = ()


class Color(enum.IntEnum):
    """A key that is a number."""

    RED = 1


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ascii", b"ascii"),
        ("", b""),
        ("naïve", "naïve".encode()),
        ("語", "語".encode()),
        ("😀", "😀".encode()),
        (Name("sub"), b"sub"),
        (b"\xff\x00\r\n", b"\xff\x00\r\n"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a?b?")[::2], b"ab"),
        (0, b"0"),
        (-17, b"-17"),
        (2**100, b"%d" % 2**100),
        (Color.RED, b"1"),
        ("with\r\nlines", b"with\r\nlines"),
    ],
    ids=label,
)
def test_keys_are_encoded_by_their_type(key: Any, expected: bytes) -> None:
    assert sent(only_chunk(writer([(key, b"v")], MSET))) == [[b"MSET", expected, b"v"]]
    assert sent(only_chunk(writer([key], MGET))) == [[b"MGET", expected]]


@pytest.mark.parametrize(
    "key", [None, True, False, 1.5, 1.0, float("nan"), (), ("a",), object(), ["a"], {"a": 1}, 1j], ids=label
)
def test_keys_of_other_types_are_refused(key: Any) -> None:
    batch = writer([("good", b"1"), (key, b"2"), ("fine", b"3")], MSET)
    assert sent(only_chunk(batch)) == [[b"MSET", b"good", b"1", b"fine", b"3"]]
    ((failed, value, error),) = batch.failures
    assert failed is key
    assert value == b"2"
    assert isinstance(error, EncodeError)
    assert type(key).__name__ in str(error)


def test_keys_have_the_clients_encoding() -> None:
    batch = writer([("naïve", b"1"), ("語", b"2")], MSET, encoding="latin-1")
    assert sent(only_chunk(batch)) == [[b"MSET", b"na\xefve", b"1"]]
    assert [key for key, _, _ in batch.failures] == ["語"]
    lenient = writer([("語", b"2")], MSET, encoding="latin-1", errors="replace")
    assert sent(only_chunk(lenient)) == [[b"MSET", b"?", b"2"]]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-7", "cp037"])
def test_an_encoding_that_changes_ascii_is_refused(encoding: str) -> None:
    # The encoder copies ASCII keys unchanged, so these encodings would give other keys than redis-py.
    with pytest.raises(ValueError, match=encoding):
        writer([("ab", b"1")], MSET, encoding=encoding)


def test_a_surrogate_in_a_key_is_refused() -> None:
    batch = writer({"bad\ud800": b"1"}, MSET)
    assert only_chunk(batch).count == 0
    ((key, _, error),) = batch.failures
    assert key == "bad\ud800"
    assert "the key cannot be encoded" in str(error)


# -- items that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [MSET, MSETEX, SETEX], ids=str)
def test_a_failed_item_leaves_no_byte(command: Command) -> None:
    bad: list[Any] = [object(), ["x" * 10_000, object()], {"long" * 100: {1, 2}}, 2**64, "\ud800"]
    good = [(f"good{i}", {"n": i}) for i in range(len(bad) + 1)]
    mixed = [good[0]]
    for i, value in enumerate(bad):
        mixed += [(f"bad{i}", value), good[i + 1]]
    batch = writer(mixed, command, MsgpackCodec())
    reference = writer(good, command, MsgpackCodec())
    assert bytes(memoryview(only_chunk(batch))) == bytes(memoryview(only_chunk(reference)))  # type: ignore[arg-type]
    assert [key for key, _, _ in batch.failures] == [f"bad{i}" for i in range(len(bad))]
    assert [value for _, value, _ in batch.failures] == bad
    for key, _, error in batch.failures:
        assert isinstance(error, EncodeError)
        assert error.key == key
        assert str(error).startswith(f"key {key!r}: ")


def test_a_chunk_whose_items_all_fail_is_empty() -> None:
    batch = writer({"a": object(), "b": object()}, MSET, MsgpackCodec())
    assert only_chunk(batch).count == 0
    assert len(batch.failures) == 2


def test_an_error_of_the_codec_names_the_key() -> None:
    class Picky:
        def dumps(self, value: Any) -> bytes:
            raise LookupError("not today")

        def loads(self, data: bytes) -> Any:
            return data

    batch = writer({"k": 1}, MSET, resolve(Picky()))
    assert only_chunk(batch).count == 0
    ((_, _, error),) = batch.failures
    assert isinstance(error, EncodeError)
    assert "not today" in str(error)
    assert isinstance(error.__cause__, LookupError)


def test_a_codec_must_return_bytes() -> None:
    class Wrong:
        def dumps(self, value: Any) -> Any:
            return "text"

        def loads(self, data: bytes) -> Any:
            return data

    batch = writer({"k": 1}, MSET, resolve(Wrong()))
    assert only_chunk(batch).count == 0
    assert "key 'k'" in str(batch.failures[0][2])


# -- sources that fail ---------------------------------------------------------------------------


def test_an_error_of_the_source_ends_the_batch_after_its_items() -> None:
    def source() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        yield "b", b"2"
        raise LookupError("no more")

    batch = writer(source(), MSET)
    assert sent(only_chunk(batch)) == [[b"MSET", b"a", b"1", b"b", b"2"]]
    assert isinstance(batch.source_error, LookupError)
    assert batch.failures == []


@pytest.mark.parametrize("item", ["ab", {1, 2}, {"a": 1, "b": 2}, ("a",), ["a", "b", "c"], 7, None])
def test_an_item_that_is_not_a_pair_ends_the_batch(item: Any) -> None:
    batch = writer(iter([("a", b"1"), item]), MSET)
    chunk = only_chunk(batch)
    assert sent(chunk) == [[b"MSET", b"a", b"1"]]
    assert isinstance(batch.source_error, TypeError)
    assert "expected (key, value) as a tuple or list of two" in str(batch.source_error)


class Pair(NamedTuple):
    key: str
    value: bytes


class ListOfTwo(list[Any]):
    pass


@pytest.mark.parametrize("pair", [("a", b"1"), ["a", b"1"], Pair("a", b"1"), ListOfTwo(["a", b"1"])], ids=repr)
def test_pairs_are_tuples_and_lists_of_two(pair: Any) -> None:
    assert sent(only_chunk(writer(iter([pair]), MSET))) == [[b"MSET", b"a", b"1"]]


def test_an_item_whose_repr_raises_is_named_by_its_type() -> None:
    class Unspoken:
        def __repr__(self) -> str:
            raise LookupError("no repr")

    batch = writer(iter([Unspoken()]), MSET)
    only_chunk(batch)
    assert "got Unspoken <Unspoken whose repr() raises LookupError>" in str(batch.source_error)


@pytest.mark.parametrize("items", ["text", b"bytes", bytearray(b"x")])
def test_a_string_is_refused_as_a_batch(items: Any) -> None:
    for command in (MSET, MGET):
        with pytest.raises(TypeError, match="expected an iterable of items or keys, got one "):
            writer(items, command)


@pytest.mark.parametrize("change", [lambda d: d.clear(), lambda d: d.update(new=1), lambda d: d.pop("c")])
def test_a_dict_of_items_that_changes_size_ends_the_batch(change: Callable[[dict[str, Any]], object]) -> None:
    items: dict[str, Any] = {"a": b"1", "b": {1}, "c": b"3", "d": b"4"}

    def default(value: Any) -> Any:
        change(items)
        return "x"

    batch = writer(items, MSET, MsgpackCodec(default=default))
    chunk = only_chunk(batch)
    assert chunk.keys == ["a", "b"]
    assert len(sent(chunk)[0]) == 5
    assert isinstance(batch.source_error, RuntimeError)
    assert "changed size" in str(batch.source_error)


def test_a_keyboard_interrupt_of_the_source_is_raised_unchanged() -> None:
    def source() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        raise KeyboardInterrupt

    batch = writer(source(), MSET)
    with pytest.raises(KeyboardInterrupt):
        batch.fill(Chunk(MSET))


# -- extract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [MSET, MSETEX, SET, SETEX], ids=str)
@pytest.mark.parametrize("after", [MSET, MSETEX, SET, SETEX], ids=str)
@pytest.mark.parametrize("positions", [None, [0], [2, 1], [], [0, 1, 2, 3]])
def test_extract_encodes_items_for_another_command(
    before: Command, after: Command, positions: list[int] | None
) -> None:
    items = [("a", b"1"), ("b", b""), ("c", b"x" * 1000), ("d", b"\r\n$3\r\n")]
    chunk = only_chunk(writer(items, before))
    moved = chunk.extract(after, positions)
    kept = items if positions is None else [item for i, item in enumerate(items) if i in positions]
    assert moved.sealed
    assert (moved.keys, moved.values) == ([key for key, _ in kept], [value for _, value in kept])
    if kept:
        assert sent(moved) == sent(only_chunk(writer(kept, after)))


def test_extract_encodes_keys_without_values() -> None:
    unlink = Command(b"UNLINK", many=True, with_values=False)
    moved = only_chunk(writer(["a", "b", "c"], MGET)).extract(unlink, [1, 2])
    assert sent(moved) == [[b"UNLINK", b"b", b"c"]]


# -- buffers -------------------------------------------------------------------------------------


def test_a_chunk_being_sent_does_not_move() -> None:
    batch = writer(iter([("a", b"1"), ("b", b"x" * 100_000)]), MSET, max_items=1)
    chunk = Chunk(MSET)
    batch.fill(chunk)
    with memoryview(chunk) as view:  # type: ignore[arg-type]
        before = bytes(view)
        other = Chunk(MSET)
        batch.fill(other)
        assert bytes(view) == before
    assert sent(other) == [[b"MSET", b"b", b"x" * 100_000]]


def test_a_view_of_a_chunk_is_read_only() -> None:
    chunk = only_chunk(writer({"a": b"1"}, MSET))
    with memoryview(chunk) as view:  # type: ignore[arg-type]
        assert view.readonly
        with pytest.raises(TypeError):
            view[0] = 0


@pytest.mark.parametrize("name", ["msgpack", "json", "raw"])
def test_every_codec_writes_the_same_bytes_as_its_dumps(name: str) -> None:
    codec = resolve(name)
    values: list[Any] = ["text", "naïve", 17, -2.5]
    if name != "raw":
        values += [None, True, [1, [2]], {"a": {"b": "語"}}]
    commands = sent(only_chunk(writer(list(enumerate(values)), MSET, codec)))
    assert commands[0][2::2] == [codec.dumps(value) for value in values]
    if name == "json":
        assert [json.loads(data) for data in commands[0][2::2]] == values
    if name == "msgpack":
        assert [msgpack.unpackb(data) for data in commands[0][2::2]] == values

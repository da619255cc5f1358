"""The codec `toolkit-msgpack` writes MessagePack after a tag, and reads both formats without ambiguity."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels import label
from redis_fastbatch import DecodeError, EncodeError
from redis_fastbatch._core.toolkit.codec import ToolkitCodec, ToolkitMsgpackCodec
from redis_fastbatch.codecs import resolve
from tiers import examples
from toolkit_reference import outcome, same, same_outcome, toolkit_module

TAG = b"\xc1"

codec = ToolkitMsgpackCodec()
toolkit = ToolkitCodec()

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)


@given(values)
@settings(max_examples=examples(300), deadline=None)
def test_values_are_written_as_messagepack_after_the_tag(value: Any) -> None:
    data = codec.dumps(value)
    assert data == TAG + msgpack.packb(value, use_bin_type=True)
    assert same(codec.loads(data), value)


@given(values)
@settings(max_examples=examples(300), deadline=None)
def test_values_of_the_toolkit_are_read(value: Any) -> None:
    written = outcome(toolkit.dumps, value)
    if written[0] == "returned":
        assert same(codec.loads(written[1]), toolkit.loads(written[1]))


@given(st.binary(max_size=30) | st.text(max_size=20).map(str.encode))
@settings(max_examples=examples(500), deadline=None)
def test_bytes_without_the_tag_are_read_as_the_toolkit_reads_them(data: bytes) -> None:
    if data[:1] != TAG:
        theirs = toolkit_module("utils.serializers")
        assert same_outcome(outcome(codec.loads, data), outcome(theirs.deserialize_value, data))


@pytest.mark.parametrize("byte", [byte for byte in range(256) if bytes([byte]) != TAG])
def test_any_single_byte_is_read_as_the_toolkit_reads_it(byte: int) -> None:
    theirs = toolkit_module("utils.serializers")
    assert same(codec.loads(bytes([byte])), theirs.deserialize_value(bytes([byte])))


@pytest.mark.parametrize("text", ["0", "1", "42", "-7", "3.25"])
def test_counters_of_incr_are_read_as_numbers(text: str) -> None:
    assert same(codec.loads(text.encode()), float(text) if "." in text else int(text))


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "Ünïcödé",
        "Ελληνικά",
        "Русский",
        "עברית",
        "العربية",
        "हिन्दी",
        "日本語",
        "한국어",
        "😀",
        "Á",
        "\x7f",
    ],
)
def test_raw_text_of_any_script_is_read_as_text(text: str) -> None:
    assert codec.loads(text.encode()) == text


def test_no_text_begins_with_the_tag() -> None:
    for character in map(chr, (*range(0xD800), *range(0xE000, 0x110000))):
        assert character.encode()[:1] != TAG


def test_no_value_of_the_toolkit_begins_with_the_tag() -> None:
    for value in (None, True, 5, 1.5, "Á", b"\xc1", [], {}, ()):
        assert toolkit.dumps(value)[:1] != TAG


def test_bools_and_ints_are_distinguished() -> None:
    for value in (0, 1, True, False, [0, True], {"a": 1}):
        assert same(codec.loads(codec.dumps(value)), value)
    assert codec.loads(toolkit.dumps(1)) is True
    assert same(ToolkitMsgpackCodec(preserve_int=True).loads(toolkit.dumps(1)), 1)


def test_tuples_are_read_as_lists_and_bytearrays_as_bytes() -> None:
    assert codec.loads(codec.dumps((1, (2,)))) == [1, [2]]
    assert same(codec.loads(codec.dumps({"a": bytearray(b"x")})), {"a": b"x"})


def test_values_that_messagepack_lacks_are_written_as_the_toolkit_writes_them() -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    for value in (2**64, -(2**63) - 1, 10**100, numpy.arange(4), {"a": [1, 2**70]}, [-(2**64), b"x", None]):
        data = codec.dumps(value)
        assert data == toolkit.dumps(value)
        assert str(codec.loads(data)) == str(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": [2**70, {1}]}, "\ud800"], ids=label)
def test_values_that_neither_format_has_are_refused(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        codec.dumps(value)
    assert "default=" not in str(caught.value)


@pytest.mark.parametrize("data", [TAG, TAG + TAG, TAG + b"\xd9", TAG + b"\x01\x01", TAG + b"\x81\x01"])
def test_damaged_messagepack_is_an_error_with_an_offset(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.loads(data)
    assert 1 <= caught.value.offset <= len(data)


def test_the_codec_is_found_by_its_name() -> None:
    assert type(resolve("toolkit-msgpack")) is ToolkitMsgpackCodec

"""CompressedCodec compresses long values, leaves short ones readable, and reads both."""

from __future__ import annotations

import contextlib
import copy
import gzip
import pickle
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_fastbatch import CompressedCodec, DecodeError, EncodeError, JsonCodec, MsgpackCodec
from redis_fastbatch._core import frames
from tiers import examples

MAGIC = {"zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18", "zlib": b"\x1f\x8b\x08"}
ROWS = [{"id": n, "name": f"näme {n}", "tags": ["a", "b"], "score": n / 4} for n in range(100)]


def available(algorithm: str) -> Any:
    """Return the module of an algorithm; skip the test if it is not installed."""
    if algorithm == "zlib":
        return gzip
    if algorithm == "lz4":
        return pytest.importorskip("lz4.frame")
    return pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


@pytest.fixture(params=["zstd", "lz4", "zlib"])
def algorithm(request: pytest.FixtureRequest) -> Any:
    available(request.param)
    return request.param


@pytest.mark.parametrize("inner", ["msgpack", "json", "toolkit", "toolkit-msgpack"])
def test_long_values_are_frames_and_short_ones_plain(algorithm: Any, inner: Any) -> None:
    codec, plain = CompressedCodec(inner, algorithm), CompressedCodec(inner, algorithm, min_size=10**6)
    long, short = codec.dumps(ROWS), codec.dumps(ROWS[0])
    assert long.startswith(MAGIC[algorithm])
    assert len(long) < len(plain.dumps(ROWS)) / 2
    assert short == plain.dumps(ROWS[0])
    assert available(algorithm).decompress(long) == plain.dumps(ROWS)
    for value, data in ((ROWS, long), (ROWS[0], short), (ROWS, plain.dumps(ROWS))):
        assert codec.loads(data) == value
    assert codec.loads_many(codec.dumps_many([ROWS, 1, ROWS])) == [ROWS, 1, ROWS]


def test_values_of_any_algorithm_are_read(algorithm: Any) -> None:
    data = CompressedCodec("json", algorithm).dumps(ROWS)
    for other in MAGIC:
        available(other)
        assert CompressedCodec("json", other).loads(data) == ROWS  # type: ignore[arg-type]


def test_min_size_and_level(algorithm: Any) -> None:
    text = "a" * 600
    assert CompressedCodec("raw", algorithm, min_size=601).dumps(text) == text.encode()
    assert CompressedCodec("raw", algorithm, min_size=600).dumps(text).startswith(MAGIC[algorithm])
    sizes = [len(CompressedCodec("json", algorithm, level=level).dumps(ROWS * 20)) for level in (1, 9)]
    assert sizes[0] > sizes[1]


def test_what_compression_does_not_shorten_stays_plain(algorithm: Any) -> None:
    noise = bytes(range(256))
    codec = CompressedCodec("raw", algorithm, min_size=0)
    assert codec.dumps(noise) == noise
    assert codec.dumps(b"") == b""
    # Bytes that look like a frame are always put into one.
    for magic in MAGIC.values():
        for data in (magic, magic + noise):
            assert codec.dumps(data) != data
            assert codec.loads(codec.dumps(data)) == data
            assert CompressedCodec("raw", algorithm).loads(CompressedCodec("raw", algorithm).dumps(data)) == data


@given(
    st.one_of(
        st.binary(max_size=50),
        st.sampled_from(sorted(MAGIC.values())).flatmap(
            lambda magic: st.binary(max_size=20).map(lambda rest: magic + rest)
        ),
    )
)
@settings(max_examples=examples(100))
def test_any_bytes_come_back(data: bytes) -> None:
    codec = CompressedCodec("raw", "zlib", min_size=20)
    assert codec.loads(codec.dumps(data)) == data


def test_no_value_of_msgpack_or_json_looks_like_a_frame() -> None:
    for magic in MAGIC.values():
        for codec in (MsgpackCodec(), JsonCodec()):
            for size in range(4, 9):
                with pytest.raises(DecodeError):
                    codec.loads(magic + bytes(size))


def test_bombs_are_refused(algorithm: Any) -> None:
    bomb = CompressedCodec("raw", algorithm).dumps(bytes(1_000_000))
    assert len(bomb) < 10_000
    for limit in (1, 9_999, 999_999):
        message = f"more than {limit} bytes when it is decompressed: max_value_size is {limit}"
        with pytest.raises(DecodeError, match=message):
            CompressedCodec("raw", algorithm, max_value_size=limit).loads(bomb)
    assert CompressedCodec("raw", algorithm, max_value_size=1_000_000).loads(bomb) == bytes(1_000_000)
    # A second frame may hold more than the first.
    with pytest.raises(DecodeError, match="bytes follow the frame"):
        CompressedCodec("raw", algorithm).loads(bomb + bomb)


def test_lz4_frames_that_do_not_say_their_size_are_read() -> None:
    frame = available("lz4")
    for size in (0, 1, 65_536, 65_537, 1_000_000):
        data = frame.compress(bytes(size), store_size=False)
        assert CompressedCodec("raw", "lz4").loads(data) == bytes(size)
        assert CompressedCodec("raw", "lz4", max_value_size=max(size, 1)).loads(data) == bytes(size)
        if size > 1:
            with pytest.raises(DecodeError, match="more than"):
                CompressedCodec("raw", "lz4", max_value_size=size - 1).loads(data)


def test_damaged_frames_are_errors(algorithm: Any) -> None:
    codec = CompressedCodec("json", algorithm)
    good = codec.dumps(ROWS)
    for size in range(4, len(good), 7):
        with pytest.raises(DecodeError):
            codec.loads(good[:size])
    for place in range(4, len(good), 5):
        changed = bytearray(good)
        changed[place] ^= 0x55
        # Without a checksum of the text, as in zstd's frames, a change may stay unnoticed.
        with contextlib.suppress(DecodeError):
            codec.loads(changed)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for algorithm in ("zstd", "lz4"):
        available(algorithm)
        written[algorithm] = CompressedCodec("json", algorithm).dumps(ROWS)  # type: ignore[arg-type]
    for module in ("backports.zstd", "compression", "compression.zstd", "lz4", "lz4.frame"):
        monkeypatch.setitem(sys.modules, module, None)
    for found in (frames._zstd, frames._lz4):
        found.cache_clear()
    if "backports" in sys.modules:
        monkeypatch.delattr(sys.modules["backports"], "zstd", raising=False)
    for algorithm, data in written.items():
        with pytest.raises(ImportError, match=rf"pip install 'redis-fastbatch\[{algorithm}\]'"):
            CompressedCodec("json", algorithm)  # type: ignore[arg-type]
        with pytest.raises(DecodeError, match=rf"the value is compressed; .*redis-fastbatch\[{algorithm}\]"):
            CompressedCodec("json", "zlib").loads(data)


def test_errors_of_the_inner_codec_stay(algorithm: Any) -> None:
    codec = CompressedCodec("msgpack", algorithm)
    with pytest.raises(EncodeError, match=r"\['a'\]\[1\]: MessagePack has no type for complex"):
        codec.dumps({"a": [1, 1j]})
    frame = CompressedCodec("raw", algorithm).dumps(b"\xc1" * 1000)
    with pytest.raises(DecodeError):
        codec.loads(frame)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"algorithm must be one of 'zstd', 'lz4', 'zlib', got 'brotli'"):
        CompressedCodec("msgpack", "brotli")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="codec must be one of"):
        CompressedCodec("pickle", "zlib")  # type: ignore[arg-type]
    for level in (10, -2):
        with pytest.raises(ValueError, match="level must be from -1 to 9 for zlib"):
            CompressedCodec("msgpack", "zlib", level=level)
    available("zstd")
    with pytest.raises(ValueError, match="level 1000 for zstd"):
        CompressedCodec("msgpack", "zstd", level=1000)
    with pytest.raises(TypeError, match="level must be an int or None, got str"):
        CompressedCodec("msgpack", "zlib", level="9")  # type: ignore[arg-type]
    for options in ({"min_size": -1}, {"max_value_size": 1.5}):
        with pytest.raises(ValueError, match="must be an int of at least 0"):
            CompressedCodec("msgpack", "zlib", **options)  # type: ignore[arg-type]


def test_copies_and_pickles_are_equal(algorithm: Any) -> None:
    codec = CompressedCodec(MsgpackCodec(default=str), algorithm, level=5, min_size=100)
    for other in (pickle.loads(pickle.dumps(codec)), copy.deepcopy(codec)):
        assert type(other) is CompressedCodec
        assert other.dumps([1j] * 100) == codec.dumps([1j] * 100)
        assert other.loads(other.dumps(ROWS)) == ROWS


def test_threads_share_a_codec(algorithm: Any) -> None:
    codec = CompressedCodec("msgpack", algorithm)
    wrong: list[int] = []

    def work(number: int) -> None:
        for size in range(1, 60):
            value = [f"{number}-{n}" for n in range(size * 10)]
            if codec.loads(codec.dumps(value)) != value:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

# cython: language_level=3
"""Values that are compressed if they are long, around another codec."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp

from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

from redis_fastbatch._core.frames import MAGIC, compressor, decompress
from redis_fastbatch.errors import EncodeError

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* data, Py_ssize_t size, int flags)
    int PyBUF_READ

cdef Py_ssize_t LONGEST = 512 * 1024 * 1024   # of Redis' own strings, unless it is configured otherwise

cdef bytes ZSTD = MAGIC["zstd"]
cdef bytes LZ4 = MAGIC["lz4"]
cdef bytes GZIP = MAGIC["zlib"]


cdef inline bint begins_with(const char* data, Py_ssize_t size, bytes magic) noexcept:
    cdef Py_ssize_t length = PyBytes_GET_SIZE(magic)
    return size >= length and memcmp(data, PyBytes_AS_STRING(magic), length) == 0


cdef inline str algorithm_of(const char* data, Py_ssize_t size):
    """Return the algorithm that has written a frame; None for bytes that are not a frame."""
    if size < 3 or (data[0] != 0x28 and data[0] != 0x04 and data[0] != 0x1F):
        return None
    if begins_with(data, size, ZSTD):
        return "zstd"
    if begins_with(data, size, LZ4):
        return "lz4"
    if begins_with(data, size, GZIP):
        return "zlib"
    return None


cdef class Compressing(ValueCodec):
    """A codec whose values are compressed, unless they are shorter than `min_size`.

    Args:
        codec: makes bytes of values.
        algorithm, level: as for frames.compressor().
        min_size: shorter values are not compressed, in bytes.
        max_value_size: the longest value to read, in bytes, after decompression; 0 for 512 MiB.
    """

    cdef ValueCodec inner
    cdef object compress
    cdef str algorithm
    cdef object level
    cdef Py_ssize_t min_size
    cdef Py_ssize_t max_value_size

    def __init__(
        self, ValueCodec codec not None, str algorithm not None, level, Py_ssize_t min_size, Py_ssize_t max_value_size
    ):
        self.inner = codec
        self.compress = compressor(algorithm, level)
        self.algorithm = algorithm
        self.level = level
        self.min_size = min_size
        self.max_value_size = max_value_size

    cdef tuple made_by(self):
        return Compressing, {
            "codec": self.inner,
            "algorithm": self.algorithm,
            "level": self.level,
            "min_size": self.min_size,
            "max_value_size": self.max_value_size,
        }

    def limited(self, Py_ssize_t max_value_size):
        """Return an equal codec that reads values of up to `max_value_size` bytes, unless it has its own limit."""
        if self.max_value_size or not max_value_size:
            return self
        return Compressing(self.inner, self.algorithm, self.level, self.min_size, max_value_size)

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_ssize_t start = out.end
        cdef Py_ssize_t size
        cdef bytes frame
        self.inner.encode(value, out)
        size = out.end - start
        if size < self.min_size and algorithm_of(out.data + start, size) is None:
            return 0
        if size > LONGEST:
            raise EncodeError(f"a value of {size} bytes: at most {LONGEST} can be decompressed")
        try:
            frame = self.compress(PyMemoryView_FromMemory(out.data + start, size, PyBUF_READ))
        except MemoryError:
            raise
        except Exception as error:
            raise EncodeError(f"{self.algorithm} failed: {error}") from error
        # Bytes that look like a frame are always put into one, so that reading gives them back.
        if PyBytes_GET_SIZE(frame) >= size and algorithm_of(out.data + start, size) is None:
            return 0
        out.end = start
        return out.append(PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame))

    cdef object decode(self, const char* data, Py_ssize_t size):
        cdef str algorithm = algorithm_of(data, size)
        cdef bytes plain
        if algorithm is None:
            return self.inner.decode(data, size)
        plain = decompress(
            algorithm,
            PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ),
            self.max_value_size if self.max_value_size else LONGEST,
        )
        return self.inner.decode(PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain))

# cython: language_level=3
"""Values of one type, which a library writes as bytes and reads from bytes, without dicts between."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp

from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.runtime.buffer cimport OutputBuffer

from redis_fastbatch.errors import DecodeError, EncodeError

cdef enum:
    FLOAT64 = 0xCB   # the byte before a double in MessagePack


cdef bint has_nonfinite(const char* data, Py_ssize_t size) noexcept:
    """Return whether MessagePack may hold a NaN or an infinity: FLOAT64, then eleven set bits after the sign."""
    cdef const char* end = data + size
    cdef const char* p = data
    while end - p > 2:
        p = <const char*>memchr(p, FLOAT64, end - p - 2)
        if p == NULL:
            return False
        if p[1] & 0x7F == 0x7F and p[2] & 0xF0 == 0xF0:
            return True
        p += 1
    return False


cdef bint has_null(bytes text) noexcept:
    """Return whether a text may hold the JSON value null. This is faster than `b"null" in text` for short texts."""
    cdef const char* p = PyBytes_AS_STRING(text)
    cdef const char* end = p + PyBytes_GET_SIZE(text)
    while end - p >= 4:
        p = <const char*>memchr(p, c'n', end - p - 3)
        if p == NULL:
            return False
        if memcmp(p, b"null", 4) == 0:
            return True
        p += 1
    return False


cdef class TypedValues(ValueCodec):
    """Writes and reads values with the TypeFunctions of a type. It is the inner part of a codec with `type=`."""

    def __init__(self, functions):
        self.to_bytes = functions.to_bytes
        self.from_bytes = functions.from_bytes
        self.convert = functions.convert
        self.expected = functions.expected
        self.check_nulls = functions.check_nulls
        self.packed = functions.packed
        self.describe = functions.describe
        self.name = functions.name

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef bytes data
        try:
            if self.expected is not None and not isinstance(value, self.expected):
                value = self.convert(value)
            data = self.to_bytes(value)
            if self.check_nulls is not None and has_null(data) and self.may_have_nan(value):
                self.check_nulls(value)
        except (EncodeError, MemoryError):
            raise
        except Exception as error:
            raise EncodeError(f"cannot write this {type(value).__name__} as {self.name}: {self.describe(error)}") from error
        return out.append(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef bint may_have_nan(self, object value) except -1:
        """Return False if a value certainly has no NaN and no infinity."""
        cdef bytes data
        if self.packed is None:
            return True
        data = self.packed(value)
        return has_nonfinite(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef object decode(self, const char* data, Py_ssize_t size):
        # A copy, because a value may keep a view of the bytes that it was read from, as msgspec.Raw does.
        cdef bytes encoded = PyBytes_FromStringAndSize(data, size)
        try:
            return self.from_bytes(encoded)
        except (DecodeError, MemoryError):
            raise
        except Exception as error:
            raise DecodeError(self.describe(error)) from error

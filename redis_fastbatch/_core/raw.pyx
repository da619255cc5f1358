# cython: language_level=3
"""The codec `raw`: writes str, bytes, int and float as Redis keeps them, and reads bytes."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.runtime.utf8 cimport (
    PyUnicode_DATA,
    PyUnicode_GET_LENGTH,
    PyUnicode_IS_COMPACT_ASCII,
    PyUnicode_KIND,
    put_utf8,
    utf8_size,
)

from redis_fastbatch.errors import EncodeError


cdef class RawCodec(ValueCodec):
    """Plain Redis strings: str as UTF-8, bytes-like objects as they are, int and float in decimal.

    INCR and INCRBYFLOAT read these numbers. Reading gives bytes.
    """

    def __init__(self):
        # Without __init__() any arguments would be accepted and ignored.
        pass

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_buffer view
        if isinstance(value, str):
            return self.put_text(value, out)
        if PyBytes_Check(value):
            return out.append(PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.put_text((float if isinstance(value, float) else int).__repr__(value), out)
        if isinstance(value, (bytearray, memoryview)):
            try:
                PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
            except BufferError as error:
                raise EncodeError(f"the codec raw cannot write this {type(value).__name__}: {error}") from error
            try:
                return out.append(<const char*>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        raise EncodeError(
            f"the codec raw writes str, bytes, int and float, got {type(value).__name__}; "
            'use another codec, such as codec="msgpack"'
        )

    cdef int put_text(self, object text, OutputBuffer out) except -1:
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
        cdef int kind = PyUnicode_KIND(text)
        cdef void* data = PyUnicode_DATA(text)
        cdef Py_ssize_t size
        if PyUnicode_IS_COMPACT_ASCII(text):
            return out.append(<const char*>data, length)
        size = utf8_size(kind, data, length)
        if size < 0:
            raise EncodeError(f"a str holds the surrogate {text[-1 - size]!r} at index {-1 - size}, not UTF-8")
        reserve(out, size)
        out.end = put_utf8(out.data + out.end, kind, data, length) - out.data
        return 0

    cdef tuple made_by(self):
        return RawCodec, {}

    cdef object decode(self, const char* data, Py_ssize_t size):
        return PyBytes_FromStringAndSize(data, size)

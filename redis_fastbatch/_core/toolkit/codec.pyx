# cython: language_level=3
"""The codecs `toolkit` and `toolkit-msgpack`."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memcmp

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker
from redis_fastbatch._core.toolkit.read cimport JsonReader
from redis_fastbatch._core.toolkit.write cimport write_wrapper
from redis_fastbatch._core.runtime.utf8 cimport PyUnicode_GET_LENGTH

from redis_fastbatch._core.toolkit import plain
from redis_fastbatch._core.toolkit.plain import Unusual
from redis_fastbatch.errors import DecodeError, EncodeError, told

cdef enum:
    TAG = 0xC1   # never used by MessagePack, never found in UTF-8


cdef class ToolkitCodec(ValueCodec):
    """redis-toolkit 0.4.0's format: writes the same bytes, reads the same values from any bytes.

    Args:
        preserve_int: the ints 0 and 1 come back as ints; the toolkit makes False and True of them.
    """

    def __cinit__(self):
        # Not by __init__(), which a subclass may forget to call.
        self.reader = JsonReader()

    def __init__(self, *, bint preserve_int=False):
        self.preserve_int = preserve_int

    cdef tuple made_by(self):
        return ToolkitCodec, {"preserve_int": self.preserve_int}

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_ssize_t start = out.end
        try:
            return write_wrapper(value, out)
        except Unusual:
            out.end = start
        try:
            data = plain.dumps(value)
        except Exception as error:
            raise EncodeError(str(error) or type(error).__name__) from error
        return out.append(<const char*><bytes>data, len(data))

    cdef object decode(self, const char* data, Py_ssize_t size):
        if size > 14 and data[0] == c'{':
            try:
                return self.reader.read_wrapper(data, size, self.preserve_int)
            except (Unusual, UnicodeDecodeError):
                # The plain way decides, without this exception in the way of its own.
                pass
        return self.decode_plain(data, size)

    cdef object decode_plain(self, const char* data, Py_ssize_t size):
        try:
            return plain.loads(PyBytes_FromStringAndSize(data, size), self.preserve_int)
        except Exception as error:
            raise DecodeError(told(error)) from error


cdef class ToolkitMsgpackCodec(ToolkitCodec):
    """Writes MessagePack behind the byte 0xC1; reads that, and all that ToolkitCodec reads.

    What MessagePack has no place for and the toolkit's format has is written in that: a NumPy array, and a value
    that is or holds an int of more than 64 bits.

    Args:
        preserve_int: as ToolkitCodec's; ints in MessagePack are always preserved.
    """

    def __cinit__(self):
        self.packer = Packer()
        self.unpacker = Unpacker()

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_ssize_t start = out.end
        reserve(out, 1)
        out.data[out.end] = <char>TAG
        out.end += 1
        try:
            return self.packer.pack_all(value, out)
        except EncodeError:
            out.end = start
        return ToolkitCodec.encode(self, value, out)

    cdef object decode(self, const char* data, Py_ssize_t size):
        if size == 0 or <unsigned char>data[0] != TAG:
            return ToolkitCodec.decode(self, data, size)
        try:
            return self.unpacker.unpack_all(data + 1, size - 1)
        except DecodeError as error:
            error.offset += 1
            raise


cdef class LimitedCodec(ValueCodec):
    """Another codec that refuses to write too much. For one batch: it adds up what it has written.

    Args:
        codec: what writes.
        max_value_size: bytes of a value.
        max_total: bytes of all values together.
        error: called with a message, makes the exception that is raised.
    """

    def __init__(self, ValueCodec codec, Py_ssize_t max_value_size, Py_ssize_t max_total, error):
        self.codec = codec
        self.max_value_size = max_value_size
        self.max_total = max_total
        self.error = error

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_ssize_t start = out.end
        self.codec.encode(value, out)
        start = out.end - start
        if start > self.max_value_size:
            raise self.error(f"the value takes {start} bytes; max_value_size is {self.max_value_size}")
        self.total += start
        if self.total > self.max_total:
            raise self.error(f"the values of the batch take more than {self.max_total} bytes together")
        return 0

    cdef object decode(self, const char* data, Py_ssize_t size):
        return self.codec.decode(data, size)


def first_longer_key(mapping, Py_ssize_t limit):
    """The first key of a mapping that is longer than `limit`; None when there is none.

    Raises:
        TypeError: a key has no length.
    """
    cdef Py_ssize_t position = 0
    cdef PyObject* next_key
    cdef object key
    if not PyDict_CheckExact(mapping):
        for key in mapping:
            if len(key) > limit:
                return key
        return None
    while PyDict_Next(mapping, &position, &next_key, NULL):
        key = <object>next_key
        if PyUnicode_CheckExact(key):
            if PyUnicode_GET_LENGTH(key) > limit:
                return key
        elif len(key) > limit:
            return key
    return None

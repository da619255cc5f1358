# cython: language_level=3
"""The codecs `toolkit` and `toolkit-msgpack`."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_CheckExact, PyDict_Next
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memcmp

from redis_fastbatch._core.runtime.buffer cimport OutputBuffer, reserve
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.pack cimport Packer
from redis_fastbatch._core.msgpack.unpack cimport Unpacker
from redis_fastbatch._core.toolkit.read cimport WrapperReader
from redis_fastbatch._core.toolkit.write cimport WrapperWriter
from redis_fastbatch._core.runtime.utf8 cimport PyUnicode_GET_LENGTH

from redis_fastbatch._core.toolkit import plain
from redis_fastbatch._core.json.unusual import Unusual
from redis_fastbatch._messages import format_error
from redis_fastbatch.errors import DecodeError, EncodeError

cdef enum:
    TAG = 0xC1   # neither MessagePack nor UTF-8 uses this byte


cdef class ToolkitCodec(ValueCodec):
    """The format of redis-toolkit 0.4.0: writes the same bytes, and reads the same values from any bytes.

    Args:
        preserve_int: read the ints 0 and 1 as ints; the toolkit reads them as False and True.
    """

    def __cinit__(self):
        # Not in __init__(), which a subclass may forget to call.
        self.reader = WrapperReader()
        self.writer = WrapperWriter()

    def __init__(self, *, bint preserve_int=False):
        self.preserve_int = preserve_int

    cdef tuple made_by(self):
        return ToolkitCodec, {"preserve_int": self.preserve_int}

    cdef int encode(self, object value, OutputBuffer out) except -1:
        cdef Py_ssize_t start = out.end
        try:
            return self.writer.write_wrapper(value, out)
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
                # plain.py decides. Outside the except block, so that its exceptions do not carry this one.
                pass
        return self.decode_plain(data, size)

    cdef object decode_plain(self, const char* data, Py_ssize_t size):
        try:
            return plain.loads(PyBytes_FromStringAndSize(data, size), self.preserve_int)
        except Exception as error:
            raise DecodeError(format_error(error)) from error


cdef class ToolkitMsgpackCodec(ToolkitCodec):
    """Writes the byte 0xC1 and MessagePack; reads that and everything that ToolkitCodec reads.

    Values that MessagePack cannot hold but the toolkit's format can are written in the toolkit's format: NumPy
    arrays, and values that are or contain an int of more than 64 bits.

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
    """A codec with size limits, for one batch: it counts the bytes that it has written.

    Args:
        codec: the codec to use.
        max_value_size: largest size of a value, in bytes.
        max_total: largest size of all values together, in bytes.
        error: makes the exception from a message.
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
    """Return the first key of a mapping that is longer than `limit`, or None.

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
    with cython.critical_section(mapping):
        while PyDict_Next(mapping, &position, &next_key, NULL):
            key = <object>next_key
            if PyUnicode_CheckExact(key):
                if PyUnicode_GET_LENGTH(key) > limit:
                    return key
            elif len(key) > limit:
                return key
    return None

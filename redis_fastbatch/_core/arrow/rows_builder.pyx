# cython: language_level=3
"""Adds values to a table as rows, each read straight from its received bytes."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t

from redis_fastbatch._core.arrow.builder cimport STRUCTS, ColumnBuilder
from redis_fastbatch._core.arrow.reading cimport Reading, fail
from redis_fastbatch._core.codec cimport ValueCodec
from redis_fastbatch._core.msgpack.unpack cimport trailing_bytes_reason
from redis_fastbatch._core.runtime.utf8 cimport same_bytes


cdef class RowsBuilder(ValueCodec):
    """A codec that adds each value to a table as a row; loads() returns the row's number.

    Args:
        fields: a ColumnBuilder for each wanted column; None for all columns that the rows have.
        tag: the prefix before MessagePack.
        repack: converts values that do not begin with `tag` to MessagePack; all values if `tag` is empty.
    """

    def __init__(self, list fields=None, bytes tag=b"", repack=None):
        self.tag = tag
        self.repack = repack
        if fields is None:
            self.root = ColumnBuilder("")
            self.root.take_shape(STRUCTS)
        else:
            self.root = ColumnBuilder("", "struct", fields)
            self.root.set_depth(0)

    @property
    def rows(self):
        """The number of rows."""
        return self.root.length

    cdef object decode(self, const char* data, Py_ssize_t size):
        cdef int64_t row = self.root.length
        cdef Py_ssize_t tag = PyBytes_GET_SIZE(self.tag)
        if self.incomplete:
            return None
        # Until the row is complete, its columns have different lengths. After a failure no more rows are taken.
        self.incomplete = True
        if self.repack is None:
            self.append_row(data, size)
        elif tag and size >= tag and same_bytes(data, PyBytes_AS_STRING(self.tag), tag):
            self.append_row(data + tag, size - tag)
        else:
            packed = <bytes>self.repack(PyBytes_FromStringAndSize(data, size))
            self.append_row(PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed))
        self.incomplete = False
        return row

    cdef int append_row(self, const char* data, Py_ssize_t size) except -1:
        cdef Reading r
        r.begin = <const uint8_t*>data
        r.p = r.begin
        r.end = r.begin + size
        self.root.append(&r)
        if r.p != r.end:
            fail(&r, trailing_bytes_reason(data, size, r.end - r.p))
        if self.root.nulls:
            fail(&r, "a row must be a map, found nil")
        return 0
